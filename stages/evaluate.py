"""The test split, read once: the head alone against the fine-tuned model."""

import numpy as np

from thaw.data.activations import Features, open_activations
from thaw.data.dataset import Dataset
from thaw.data.efficientnet import IMAGE
from thaw.evaluate.comparison import compare_hits, judge_gain
from thaw.evaluate.scores import (
    score_predictions,
    write_reliability,
    write_scores,
)
from thaw.evaluate.table import write_predictions
from thaw.evaluate.verdict import describe_scores
from thaw.files.arrays import write_array
from thaw.files.atomic import new_folder
from thaw.files.text import read_json, write_json
from thaw.frozen.models import read_models
from thaw.frozen.passes import predict
from thaw.network.model_info import read_info
from thaw.run import params
from thaw.run.console import say, say_wrote
from thaw.stage.checkpoints import Checkpoint, open_checkpoint
from thaw.stage.environment import describe_environment
from thaw.stage.runner import run_stage

PREPARED = "data/prepared"
FEATURES = "data/features"
FINETUNE = "metrics/details/finetune.json"
NETWORKS = "data/networks"
MODELS = {"head": "models/head.keras", "finetuned": "models/finetuned.keras"}
METRICS = "metrics/evaluate.json"
DETAILS = "metrics/details/evaluate.json"
PREDICTIONS = "metrics/predictions.csv"
PROBABILITIES = "metrics/probabilities"
SCORES = "plots/scores.csv"
RELIABILITY = "plots/reliability.csv"
HEAT = "metrics/heat.npy"


def main() -> None:
    p = params.load()
    dataset = Dataset(PREPARED)
    labels = dataset.open_labels("test")
    shipped = read_json(FINETUNE)["shipped"]
    temperatures = {
        name: read_info(path).temperature for name, path in MODELS.items()
    }
    with open_checkpoint(last=True) as checkpoint:
        probabilities, heat = predict_both(dataset, checkpoint)
        scores = {
            name: score_predictions(
                predicted, labels, temperatures[name], p.evaluate.top_k
            )
            for name, predicted in probabilities.items()
        }
        gain = compare_hits(
            *(x.argmax(axis=1) == labels for x in probabilities.values())
        )
        accuracies = {
            name: {"accuracy": score["accuracy"]}
            for name, score in scores.items()
        }
        write_json(METRICS, {**accuracies, "gain": gain.difference})
        write_json(
            DETAILS,
            {
                **scores,
                **judge_gain(gain, shipped),
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
        write_array(HEAT, heat.astype(np.float16))
        write_scores(SCORES, probabilities, labels, dataset.classes)
        write_reliability(RELIABILITY, probabilities, labels, temperatures)
    say(*describe_scores(scores, gain, shipped))
    say_wrote(
        METRICS,
        DETAILS,
        PREDICTIONS,
        PROBABILITIES,
        HEAT,
        SCORES,
        RELIABILITY,
    )


def predict_both(
    dataset: Dataset, checkpoint: Checkpoint
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What the `MODELS` make of the test images.

    Returns:
        By model, probabilities (n, classes); Grad-CAM of the fine-tuned one's
        likeliest classes, (n, h, w).
    """
    images = dataset.open_images("test")
    say(f"scoring {', '.join(MODELS.values())} on {len(images)} test images")
    networks = read_models(NETWORKS, Features(FEATURES))
    (by_head,), (by_finetuned, heat) = (
        predict(
            network,
            images
            if network.start == IMAGE
            else open_activations(FEATURES, network.start, "test", view=0),
            checkpoint.enter(name),
            label=f"predicting with {name}",
        )
        for name, network in networks.items()
    )
    return {"head": by_head, "finetuned": by_finetuned}, heat


if __name__ == "__main__":
    run_stage(main)
