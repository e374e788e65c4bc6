"""The test split, read once: the head alone against the fine-tuned model."""

from thaw import params
from thaw.console import progress, run_stage, say, say_wrote
from thaw.dataset import Dataset
from thaw.features import open_activations
from thaw.files import write_json
from thaw.frozen import FrozenNetwork
from thaw.metrics import score_predictions, write_predictions
from thaw.models import load_model
from thaw.parts import POOLED

PREPARED = "data/prepared"
FEATURES = "data/features"
HEAD = "models/head.keras"
FINETUNED = "models/finetuned.keras"
METRICS = "metrics/evaluate.json"
PREDICTIONS = "metrics/predictions.csv"


def main() -> None:
    p = params.load()
    dataset = Dataset(PREPARED)
    labels = dataset.open_labels("test")
    inputs = {
        "head": open_activations(FEATURES, POOLED, "test", view=0),
        "finetuned": dataset.open_images("test"),
    }
    models = {"head": HEAD, "finetuned": FINETUNED}
    say(f"scoring {', '.join(models.values())} on {len(labels)} test images")
    probabilities = {}
    for name, path in models.items():
        network = FrozenNetwork(
            load_model(path), "float32", str(inputs[name].dtype)
        )
        with progress(len(labels), f"predicting with {name}", "images") as bar:
            (probabilities[name],) = network.predict(
                inputs[name], advance=bar.update
            )
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
