"""The test split, read once: the head alone against the fine-tuned model."""

from thaw import params
from thaw.activations import predict
from thaw.checkpoints import open_checkpoint
from thaw.console import run_stage, say, say_wrote
from thaw.dataset import Dataset
from thaw.environment import describe_environment
from thaw.features import open_activations
from thaw.files import write_json
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
    with open_checkpoint(last=True) as checkpoint:
        probabilities = {
            name: predict(
                load_model(models[name], x.shape[1:], len(dataset.classes)),
                x,
                checkpoint.enter(name),
                label=f"predicting with {name}",
            )
            for name, x in inputs.items()
        }
        scores = {
            name: score_predictions(predicted, labels, p.evaluate.top_k)
            for name, predicted in probabilities.items()
        }
        gain = scores["finetuned"]["accuracy"] - scores["head"]["accuracy"]
        write_json(
            METRICS,
            {
                **scores,
                "gain": gain,
                "n": len(labels),
                "environment": describe_environment(),
            },
        )
        write_predictions(PREDICTIONS, dataset, "test", probabilities)
    for name, score in scores.items():
        low, high = score["accuracy_ci_low"], score["accuracy_ci_high"]
        say(
            f"{name}: accuracy {score['accuracy']:.3f}, {low:.3f} to {high:.3f}"
        )
    say_wrote(METRICS, PREDICTIONS)


if __name__ == "__main__":
    run_stage(main)
