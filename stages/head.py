"""A head of our own on the frozen network's pooled outputs."""

import numpy as np

from thaw.data.activations import Features
from thaw.data.dataset import Dataset
from thaw.data.efficientnet import LOGITS, POOLED
from thaw.data.folds import find_sets
from thaw.data.splits import SPLITS, TRAINED
from thaw.errors import InputError
from thaw.files.atomic import new_folder
from thaw.files.rank import is_first
from thaw.linear.ridge import Ridge, fit_ridge
from thaw.linear.temperature import score_logits
from thaw.network.backend import keras, make_deterministic
from thaw.network.head import build_head, set_head
from thaw.network.model_file import save_model
from thaw.network.model_info import ModelInfo
from thaw.network.parts import get_part
from thaw.network.plan import Architecture
from thaw.run import params
from thaw.run.console import say, say_wrote
from thaw.stage.checkpoints import Checkpoint, open_checkpoint
from thaw.stage.runner import run_stage
from thaw.train.batches import open_batches
from thaw.train.distribution import join_processes
from thaw.train.loop import train_model
from thaw.train.recipe import Recipe
from thaw.train.results import Training, describe_results, write_results
from thaw.train.weights import weigh_images

PREPARED = "data/prepared"
FEATURES = "data/features"
ARCHITECTURE = "data/features/architecture.json"
HELD_OUT = "data/heldout"
HEAD = "models/head.keras"
METRICS = "metrics/head.json"
DETAILS = "metrics/details/head.json"
CURVES = "plots/head.csv"


def main() -> None:
    p = params.load()
    features, architecture = Features(FEATURES), Architecture.read(ARCHITECTURE)
    columns, widths = architecture.pick_columns(p.head.features)
    labels = {split: features.open_labels(split) for split in SPLITS}
    say(
        f"reading {FEATURES}: {len(labels['train'])} training images in "
        f"{features.views} views, {len(features.classes)} classes, "
        f"{sum(widths):,} numbers each"
    )
    ridge = fit_ridge(
        features.open_views(POOLED, "train"),
        columns,
        widths,
        labels["train"],
        find_sets(Dataset(PREPARED).read_index("train")),
        len(features.classes),
        weigh_images(labels["train"], p.head.class_weight),
    )
    with open_checkpoint() as checkpoint:
        held_out = {"train": ridge.held_out}
        for split in SPLITS[1:]:
            (view,) = features.open_views(POOLED, split)[:1]
            held_out[split] = ridge.score(view, columns)
        if p.head.features == "all":
            head, training = keep_head(ridge, held_out, labels)
        else:
            head, training = train_head(
                p, features, columns, ridge, labels, checkpoint
            )
        if not is_first():
            return
        with new_folder(HELD_OUT) as folder:
            for split, logits in held_out.items():
                np.save(folder / f"{split}.npy", logits)
        temperature = training.scores["temperature"]
        save_model(head, HEAD, ModelInfo(features.classes, temperature))
        write_results(
            training,
            METRICS,
            DETAILS,
            CURVES,
            penalty=ridge.penalty,
            left_out=score_logits(ridge.held_out, labels["train"]),
            precision=features.precision,
            engine=features.engine,
        )
    say(*describe_results(training))
    say_wrote(HEAD, HELD_OUT, METRICS, DETAILS, CURVES)


def keep_head(
    ridge: Ridge, held_out: dict, labels: dict
) -> tuple[keras.Model, Training]:
    """The head in closed form: calibrated by leaving out, not by validation."""
    columns, classes = ridge.kernel.shape
    head = build_head(columns, classes, dropout=0.0, epsilon=0.0)
    set_head(head, ridge)
    logits = held_out["validation"]
    scores = score_logits(logits, labels["validation"])
    own = {"temperature": 1.0, "calibrated_loss": scores["loss"]}
    return head, Training(0, scores | own, logits)


def train_head(
    p: params.Params,
    features: Features,
    columns: slice,
    ridge: Ridge,
    labels: dict,
    checkpoint: Checkpoint,
) -> tuple[keras.Model, Training]:
    """The guide's head: trained by steps at a large rate, from the other."""
    gather = {
        s: features.gather(POOLED, s, features.views, columns) for s in TRAINED
    }
    train, validation = open_batches(
        gather,
        {s: labels[s] for s in TRAINED},
        features.views,
        p.head.batch_size,
        p.seed,
    )
    make_deterministic(p.seed)
    size, classes = ridge.kernel.shape
    head = build_head(size, classes, p.head.dropout)
    set_head(head, ridge, measure_variance(gather["train"].arrays))
    model = get_part(head, POOLED, LOGITS)
    recipe = Recipe.read("head", p.head)
    training = train_model(model, train, validation, recipe, checkpoint)
    if training.lost:
        raise InputError(training.advice or "training diverged")
    return head, training


def measure_variance(views: list[np.ndarray]) -> np.ndarray:
    """Of each column, over all views (columns,)."""
    return np.concatenate([np.array(x, np.float64) for x in views]).var(axis=0)


if __name__ == "__main__":
    run_stage(main, within=join_processes)
