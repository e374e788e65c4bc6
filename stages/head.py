"""A head of our own on the frozen features, at a large rate."""

from thaw.data.activations import Features
from thaw.files.text import write_json
from thaw.network.backend import make_deterministic
from thaw.network.head import build_head, standardize_head
from thaw.network.model_file import ModelInfo, save_model
from thaw.network.parts import get_part
from thaw.run import params
from thaw.run.checkpoints import open_checkpoint
from thaw.run.console import run_stage, say, say_wrote
from thaw.run.efficientnet import LOGITS, POOLED
from thaw.run.environment import describe_environment
from thaw.run.process import is_first
from thaw.train.batches import Batches
from thaw.train.distribution import join_processes
from thaw.train.loop import train_model

FEATURES = "data/features"
HEAD = "models/head.keras"
METRICS = "metrics/head.json"
DETAILS = "metrics/details/head.json"
CURVES = "plots/head.csv"


def main() -> None:
    p = params.load()
    features = Features(FEATURES)
    train, validation = (
        Batches(
            features.gather(POOLED, split, features.views),
            features.open_labels(split),
            views=features.views if seed is not None else 1,
            batch_size=p.head.batch_size,
            seed=seed,
        )
        for split, seed in {"train": p.seed, "validation": None}.items()
    )
    say(
        f"reading {FEATURES}: {len(train.labels)} training images in "
        f"{features.views} views, {len(features.classes)} classes"
    )
    make_deterministic(p.seed)
    head = build_head(
        features.size, len(features.classes), dropout=p.head.dropout
    )
    standardize_head(head, features.open_views(POOLED, "train"))
    model = get_part(head, POOLED, LOGITS)
    with open_checkpoint() as checkpoint:
        training = train_model(
            model,
            train,
            validation,
            CURVES,
            checkpoint,
            section="head",
            epochs=p.head.epochs,
            learning_rate=p.head.learning_rate,
            class_weight=p.head.class_weight,
        )
        if not is_first():
            return
        scores = training.scores
        save_model(
            head,
            HEAD,
            ModelInfo(features.classes, scores["temperature"]),
        )
        write_json(METRICS, {"validation_loss": scores["calibrated_loss"]})
        write_json(
            DETAILS,
            {
                "epochs": training.epochs,
                "validation_accuracy": scores["accuracy"],
                "validation_loss": scores["calibrated_loss"],
                "temperature": scores["temperature"],
                "precision": features.precision,
                "engine": features.engine,
                "environment": describe_environment(),
            },
        )
    say(*training.describe())
    say_wrote(HEAD, METRICS, DETAILS, CURVES)


if __name__ == "__main__":
    run_stage(main, within=join_processes)
