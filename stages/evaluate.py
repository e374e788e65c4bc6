"""The test split, read once: the head alone against the fine-tuned model."""

import numpy as np

from thaw import params
from thaw.activations import predict
from thaw.checkpoints import open_checkpoint
from thaw.comparison import compare_hits
from thaw.console import run_stage, say, say_wrote
from thaw.dataset import Dataset
from thaw.environment import describe_environment
from thaw.features import open_activations
from thaw.files import new_folder, write_json
from thaw.metrics import (
    score_predictions,
    write_reliability,
    write_scores,
)
from thaw.models import load_model, read_about
from thaw.parts import POOLED
from thaw.predictions import write_predictions

PREPARED = "data/prepared"
FEATURES = "data/features"
MODELS = {"head": "models/head.keras", "finetuned": "models/finetuned.keras"}
METRICS = "metrics/evaluate.json"
PREDICTIONS = "metrics/predictions.csv"
PROBABILITIES = "metrics/probabilities"
SCORES = "plots/scores.csv"
RELIABILITY = "plots/reliability.csv"


def main() -> None:
    p = params.load()
    dataset = Dataset(PREPARED)
    labels, classes = dataset.open_labels("test"), dataset.classes
    inputs = {
        "head": open_activations(FEATURES, POOLED, "test", view=0),
        "finetuned": dataset.open_images("test"),
    }
    say(f"scoring {', '.join(MODELS.values())} on {len(labels)} test images")
    temperatures = {
        name: read_about(path)["temperature"] for name, path in MODELS.items()
    }
    with open_checkpoint(last=True) as checkpoint:
        probabilities = {
            name: predict(
                load_model(MODELS[name], x.shape[1:], len(classes)),
                x,
                checkpoint.enter(name),
                label=f"predicting with {name}",
            )
            for name, x in inputs.items()
        }
        scores = {
            name: score_predictions(
                predicted, labels, temperatures[name], p.evaluate.top_k
            )
            for name, predicted in probabilities.items()
        }
        head, finetuned = (
            predicted.argmax(axis=1) == labels
            for predicted in probabilities.values()
        )
        gain = compare_hits(head, finetuned)
        write_json(
            METRICS,
            {
                **scores,
                "gain": gain.difference,
                "gain_ci_low": gain.low,
                "gain_ci_high": gain.high,
                "gain_p_value": gain.p_value,
                "gain_verdict": gain.judge(),
                "n": len(labels),
                "environment": describe_environment(),
            },
        )
        write_predictions(
            PREDICTIONS, dataset, "test", probabilities, temperatures
        )
        with new_folder(PROBABILITIES) as folder:
            for name, predicted in probabilities.items():
                np.save(folder / f"{name}.npy", predicted)
        write_scores(SCORES, probabilities, labels, classes)
        write_reliability(RELIABILITY, probabilities, labels, temperatures)
    for name, score in scores.items():
        low, high = score["accuracy_ci_low"], score["accuracy_ci_high"]
        say(
            f"{name}: accuracy {score['accuracy']:.3f}, {low:.3f} to {high:.3f}"
        )
    say(f"fine-tuning: {gain.describe()}")
    say_wrote(METRICS, PREDICTIONS, PROBABILITIES, SCORES, RELIABILITY)


if __name__ == "__main__":
    run_stage(main)
