"""Thawed blocks and the head together, at a small rate."""

from thaw.data.activations import Features
from thaw.data.dataset import Dataset
from thaw.files.text import write_json
from thaw.network.backbone import build_backbone, measure_drift
from thaw.network.backend import has_accelerator, make_deterministic
from thaw.network.folding import fold_normalization
from thaw.network.head import join_head, seed_dropout
from thaw.network.model_file import ModelInfo, load_model, save_model
from thaw.network.parts import get_part
from thaw.network.plan import Plan, apply_plan
from thaw.run import params
from thaw.run.checkpoints import open_checkpoint
from thaw.run.console import run_stage, say, say_wrote
from thaw.run.efficientnet import LOGITS
from thaw.run.environment import describe_environment
from thaw.run.process import is_first
from thaw.train.batches import Batches
from thaw.train.distribution import join_processes
from thaw.train.inputs import open_inputs
from thaw.train.loop import train_model

PREPARED = "data/prepared"
FEATURES = "data/features"
ACTIVATIONS = "data/activations"
HEAD = "models/head.keras"
FINETUNED = "models/finetuned.keras"
METRICS = "metrics/finetune.json"
DETAILS = "metrics/details/finetune.json"
CURVES = "plots/finetune.csv"


def main() -> None:
    p = params.load()
    dataset, features = Dataset(PREPARED), Features(FEATURES)
    plan = Plan.read(f"{ACTIVATIONS}/plan.json")
    say(f"reading {PREPARED}, {FEATURES} and {ACTIVATIONS}", *plan.describe())
    backbone = build_backbone(
        **p.backbone.model_dump(), image_size=dataset.image_size
    )
    loaded = backbone.get_weights()
    apply_plan(backbone, plan, p.finetune.drop_connect_rate)
    make_deterministic(p.seed)
    head = load_model(HEAD, (features.size,), len(features.classes))
    model = join_head(backbone, head)
    seed_dropout(model, p.seed)
    inputs = open_inputs(
        plan,
        backbone,
        dataset,
        features,
        ACTIVATIONS,
        views=p.finetune.views,
        augment=p.augment.model_dump(),
    )
    train, validation = (
        Batches(
            inputs[split],
            features.open_labels(split),
            views=p.finetune.views if seed is not None else 1,
            batch_size=p.finetune.batch_size,
            seed=seed,
        )
        for split, seed in {"train": p.seed, "validation": None}.items()
    )
    suffix = fold_normalization(get_part(model, plan.cut, LOGITS))
    with open_checkpoint() as checkpoint:
        training = train_model(
            suffix,
            train,
            validation,
            CURVES,
            checkpoint,
            section="finetune",
            epochs=p.finetune.epochs,
            learning_rate=p.finetune.learning_rate,
            warmup_epochs=p.finetune.warmup_epochs,
            class_weight=p.finetune.class_weight,
            from_trained=True,
            mixed_precision=has_accelerator(),
        )
        if not is_first():
            return
        scores, start = training.scores, training.start
        save_model(
            model,
            FINETUNED,
            ModelInfo(
                dataset.classes,
                scores["temperature"],
                image_size=dataset.image_size,
                fit=p.prepare.fit,
            ),
        )
        write_json(METRICS, {"validation_loss": scores["calibrated_loss"]})
        write_json(
            DETAILS,
            {
                "shipped": "finetuned" if training.epochs else "head",
                "epochs": training.epochs,
                "validation_accuracy": scores["accuracy"],
                "validation_loss": scores["calibrated_loss"],
                "temperature": scores["temperature"],
                "head_validation_accuracy": start["accuracy"],
                "head_validation_loss": start["calibrated_loss"],
                "blocks": len(plan.blocks),
                "trainable_parameters": plan.trainable_parameters,
                "activations": plan.activations,
                "bn_drift": measure_drift(backbone, loaded),
                "precision": features.precision,
                "engine": features.engine,
                "environment": describe_environment(),
            },
        )
    say(*training.describe())
    say_wrote(FINETUNED, METRICS, DETAILS, CURVES)


if __name__ == "__main__":
    run_stage(main, within=join_processes)
