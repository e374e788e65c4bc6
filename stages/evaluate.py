"""The test split, read once: the head alone against the fine-tuned model."""

from collections.abc import Callable

import numpy as np

from thaw.data.activations import Features, open_activations
from thaw.data.dataset import Dataset
from thaw.data.efficientnet import IMAGE, POOLED
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
from thaw.frozen.models import read_heads, read_thawed
from thaw.frozen.network import FrozenNetwork
from thaw.linear.affine import find_probabilities
from thaw.linear.heat import draw_heat
from thaw.network.model_info import read_info
from thaw.network.plan import Architecture
from thaw.run import params
from thaw.run.console import progress, say, say_wrote
from thaw.stage.checkpoints import open_checkpoint
from thaw.stage.environment import describe_environment
from thaw.stage.runner import run_stage

PREPARED = "data/prepared"
FEATURES = "data/features"
ARCHITECTURE = "data/features/architecture.json"
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

CHUNK = 256  # images whose last activations are in memory


def main() -> None:
    p = params.load()
    dataset = Dataset(PREPARED)
    labels = dataset.open_labels("test")
    shipped = read_json(FINETUNE)["shipped"]
    temperatures = {
        name: read_info(path).temperature for name, path in MODELS.items()
    }
    with open_checkpoint(last=True):
        probabilities, heat = predict_both(dataset)
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


def predict_both(dataset: Dataset) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What the `MODELS` make of the test images.

    Returns:
        By model, probabilities (n, classes); Grad-CAM of the fine-tuned one's
        likeliest classes, (n, h, w).
    """
    features, heads = Features(FEATURES), read_heads(NETWORKS)
    architecture = Architecture.read(ARCHITECTURE)
    network = read_thawed(NETWORKS, features)
    inputs = (
        dataset.open_images("test")
        if network.start == IMAGE
        else open_activations(FEATURES, network.start, "test", view=0)
    )
    pooled = open_activations(FEATURES, POOLED, "test", view=0)
    say(f"scoring {', '.join(MODELS.values())} on {len(inputs)} test images")
    wide = {name: len(x.kernel) == pooled.shape[1] for name, x in heads.items()}
    every, last = slice(None), architecture.last
    columns = {name: every if wide[name] else last for name in heads}
    kernel = heads["finetuned"].kernel[last if wide["finetuned"] else every]
    parts = []
    with progress(len(inputs), "predicting", "images") as bar:
        for start in range(0, len(inputs), CHUNK):
            rows = slice(start, min(start + CHUNK, len(inputs)))
            top, behind = run_rows(network, inputs[rows], bar.update)
            known = np.array(pooled[rows], np.float32)
            by_head = heads["head"].score(known[:, columns["head"]])
            seen = known[:, columns["finetuned"]].copy()
            seen[:, seen.shape[1] - behind.shape[1] :] = behind
            logits = heads["finetuned"].score(seen)
            heat = draw_heat(top, kernel, logits.argmax(axis=1))
            parts.append((by_head, logits, heat))
    by_head, logits, heat = map(np.concatenate, zip(*parts, strict=True))
    return {
        "head": find_probabilities(by_head),
        "finetuned": find_probabilities(logits),
    }, heat


def run_rows(
    network: FrozenNetwork, inputs: np.ndarray, advance: Callable
) -> list[np.ndarray]:
    """Outputs of a network (n, *shape) for inputs (n, *shape)."""
    outs = [
        np.empty((len(inputs), *shape), np.float32) for shape in network.outputs
    ]
    network.run(lambda a, b: inputs[a:b], len(inputs), outs, advance)
    return outs


if __name__ == "__main__":
    run_stage(main)
