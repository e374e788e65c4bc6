"""A head of our own on the frozen features, at a large rate."""

from thaw.data.activations import Features
from thaw.data.dataset import Dataset
from thaw.data.efficientnet import LOGITS, POOLED
from thaw.data.folds import find_sets
from thaw.data.splits import TRAINED
from thaw.errors import InputError
from thaw.files.rank import is_first
from thaw.network.backend import make_deterministic
from thaw.network.head import build_head, start_head
from thaw.network.model_file import save_model
from thaw.network.model_info import ModelInfo
from thaw.network.parts import get_part
from thaw.run import params
from thaw.run.console import say, say_wrote
from thaw.stage.checkpoints import open_checkpoint
from thaw.stage.runner import run_stage
from thaw.train.batches import open_batches
from thaw.train.distribution import join_processes
from thaw.train.loop import train_model
from thaw.train.recipe import Recipe
from thaw.train.results import describe_results, write_results

PREPARED = "data/prepared"
FEATURES = "data/features"
HEAD = "models/head.keras"
METRICS = "metrics/head.json"
DETAILS = "metrics/details/head.json"
CURVES = "plots/head.csv"


def main() -> None:
    p = params.load()
    features = Features(FEATURES)
    train, validation = open_batches(
        {s: features.gather(POOLED, s, features.views) for s in TRAINED},
        {s: features.open_labels(s) for s in TRAINED},
        features.views,
        p.head.batch_size,
        p.seed,
    )
    say(
        f"reading {FEATURES}: {len(train.labels)} training images in "
        f"{features.views} views, {len(features.classes)} classes"
    )
    make_deterministic(p.seed)
    head = build_head(features.size, len(features.classes), p.head.dropout)
    start_head(
        head,
        features.open_views(POOLED, "train"),
        train.labels,
        find_sets(Dataset(PREPARED).read_index("train")),
    )
    model = get_part(head, POOLED, LOGITS)
    recipe = Recipe.read("head", p.head)
    with open_checkpoint() as checkpoint:
        training = train_model(model, train, validation, recipe, checkpoint)
        if training.lost:
            raise InputError(training.advice or "training diverged")
        if not is_first():
            return
        save_model(
            head,
            HEAD,
            ModelInfo(features.classes, training.scores["temperature"]),
        )
        write_results(
            training,
            METRICS,
            DETAILS,
            CURVES,
            precision=features.precision,
            engine=features.engine,
        )
    say(*describe_results(training))
    say_wrote(HEAD, METRICS, DETAILS, CURVES)


if __name__ == "__main__":
    run_stage(main, within=join_processes)
