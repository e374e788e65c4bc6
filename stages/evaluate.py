"""The test split, read once: the head alone against the fine-tuned model."""

from thaw import params
from thaw.batches import Batches
from thaw.console import run_stage, say, say_wrote
from thaw.dataset import Dataset
from thaw.features import Features
from thaw.files import write_json
from thaw.metrics import score_predictions, write_predictions
from thaw.models import load_model, predict
from thaw.parts import POOLED

PREPARED = "data/prepared"
FEATURES = "data/features"
HEAD = "models/head.keras"
FINETUNED = "models/finetuned.keras"
METRICS = "metrics/evaluate.json"
PREDICTIONS = "metrics/predictions.csv"
BATCH_SIZE = 32


def main() -> None:
    p = params.load()
    dataset, features = Dataset(PREPARED), Features(FEATURES)
    labels = dataset.open_labels("test")
    images = dataset.open_images("test")
    inputs = {
        "head": features.gather(POOLED, "test", views=1),
        "finetuned": lambda rows, views: images[rows],
    }
    models = {"head": HEAD, "finetuned": FINETUNED}
    say(f"scoring {', '.join(models.values())} on {len(labels)} test images")
    probabilities = {
        name: predict(
            load_model(path),
            Batches(inputs[name], labels, 1, BATCH_SIZE, seed=None),
        )
        for name, path in models.items()
    }
    scores = {
        name: score_predictions(predicted, labels, p.evaluate.top_k)
        for name, predicted in probabilities.items()
    }
    gain = scores["finetuned"]["accuracy"] - scores["head"]["accuracy"]
    write_json(METRICS, {**scores, "gain": gain, "n": len(labels)})
    write_predictions(PREDICTIONS, dataset, "test", probabilities)
    for name, score in scores.items():
        low, high = score["accuracy_ci_low"], score["accuracy_ci_high"]
        say(
            f"{name}: accuracy {score['accuracy']:.3f}, {low:.3f} to {high:.3f}"
        )
    say_wrote(METRICS, PREDICTIONS)


if __name__ == "__main__":
    run_stage(main)
