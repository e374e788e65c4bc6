"""A head of our own on the frozen features, at a large rate."""

from thaw import params
from thaw.backend import make_deterministic
from thaw.batches import Batches
from thaw.checkpoints import open_checkpoint
from thaw.console import run_stage, say, say_wrote
from thaw.distribution import join_processes
from thaw.environment import describe_environment
from thaw.features import Features
from thaw.files import write_json
from thaw.models import build_head, save_model
from thaw.parts import LOGITS, POOLED, get_part
from thaw.process import is_first
from thaw.training import measure_temperature, train_model, warn_of_guessing

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
    model = get_part(head, POOLED, LOGITS)
    with open_checkpoint() as checkpoint:
        epoch, scores, _ = train_model(
            model,
            train,
            validation,
            CURVES,
            checkpoint,
            epochs=p.head.epochs,
            learning_rate=p.head.learning_rate,
            class_weight=p.head.class_weight,
        )
        temperature = measure_temperature(model, validation)
        if not is_first():
            return
        save_model(
            head, HEAD, classes=features.classes, temperature=temperature
        )
        write_json(METRICS, {"validation_loss": scores["loss"]})
        write_json(
            DETAILS,
            {
                "best_epoch": epoch,
                "validation_accuracy": scores["accuracy"],
                "validation_loss": scores["loss"],
                "temperature": temperature,
                "precision": features.precision,
                "engine": features.engine,
                "environment": describe_environment(),
            },
        )
    warn_of_guessing(scores, len(features.classes))
    say(f"best epoch {epoch}: validation accuracy {scores['accuracy']:.4f}")
    say_wrote(HEAD, METRICS, DETAILS, CURVES)


if __name__ == "__main__":
    run_stage(main, within=join_processes)
