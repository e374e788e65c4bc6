"""Thawed blocks and the head together, at a small rate."""

from thaw.data.activations import Features
from thaw.data.dataset import Dataset
from thaw.data.efficientnet import POOLED
from thaw.data.splits import TRAINED
from thaw.files.atomic import new_folder
from thaw.files.rank import is_first
from thaw.frozen.models import keep_models
from thaw.network.backbone import build_backbone, measure_drift
from thaw.network.backend import keras, make_deterministic
from thaw.network.folding import fold_normalization
from thaw.network.head import join_head, seed_dropout
from thaw.network.model_file import read_model, save_model
from thaw.network.model_info import ModelInfo
from thaw.network.parts import get_suffix
from thaw.network.plan import Architecture, Plan
from thaw.network.thawing import apply_plan, find_output, list_blocks
from thaw.run import params
from thaw.run.console import say, say_wrote
from thaw.stage.checkpoints import open_checkpoint
from thaw.stage.runner import run_stage
from thaw.train.batches import open_batches
from thaw.train.distribution import join_processes
from thaw.train.inputs import open_inputs
from thaw.train.loop import train_thawed
from thaw.train.recipe import Recipe
from thaw.train.results import (
    describe_results,
    write_results,
    write_validation,
)

PREPARED = "data/prepared"
FEATURES = "data/features"
ARCHITECTURE = "data/features/architecture.json"
ACTIVATIONS = "data/activations"
HEAD = "models/head.keras"
FINETUNED = "models/finetuned.keras"
NETWORKS = "data/networks"
METRICS = "metrics/finetune.json"
DETAILS = "metrics/details/finetune.json"
CURVES = "plots/finetune.csv"
VALIDATION = "metrics/validation.csv"


def main() -> None:
    p = params.load()
    dataset, features = Dataset(PREPARED), Features(FEATURES)
    plan = Plan.read(f"{ACTIVATIONS}/plan.json")
    say(f"reading {PREPARED}, {FEATURES} and {ACTIVATIONS}", *plan.describe())
    backbone = build_backbone(
        **p.backbone.model_dump(), image_size=dataset.image_size
    )
    loaded = backbone.get_weights()
    head = read_model(HEAD)
    model = thaw_model(backbone, head, plan, p)
    architecture = Architecture.read(ARCHITECTURE)
    wide = head.input_shape[1] == features.size
    columns, _ = architecture.pick_columns("all" if wide else "last")
    train, validation = open_batches(
        open_inputs(
            plan,
            dataset,
            features,
            ACTIVATIONS,
            views=p.finetune.views,
            augment=p.augment.model_dump(),
            columns=columns,
        ),
        {s: features.open_labels(s) for s in TRAINED},
        p.finetune.views,
        p.finetune.batch_size,
        p.seed,
    )
    suffix = fold_normalization(get_suffix(model, plan.cut))
    recipe = Recipe.read_finetune(p.finetune, from_trained=True)
    with open_checkpoint() as checkpoint:
        training = train_thawed(suffix, train, validation, recipe, checkpoint)
        if not is_first():
            return
        save_model(
            model,
            FINETUNED,
            ModelInfo(
                dataset.classes,
                training.scores["temperature"],
                image_size=dataset.image_size,
                fit=p.prepare.fit,
            ),
        )
        with new_folder(NETWORKS) as folder:
            keep_models(folder, FEATURES, head, model, plan)
        write_results(
            training,
            METRICS,
            DETAILS,
            CURVES,
            learning_rate=training.learning_rate,
            blocks=len(plan.blocks),
            trainable_parameters=plan.trainable_parameters,
            activations=plan.activations,
            bn_drift=measure_drift(backbone, loaded),
            precision=features.precision,
            engine=features.engine,
        )
        write_validation(
            VALIDATION,
            training,
            validation.labels,
            (row["id"] for row in dataset.read_index("validation")),
            dataset.classes,
        )
    say(*describe_results(training))
    say_wrote(FINETUNED, NETWORKS, METRICS, DETAILS, CURVES, VALIDATION)


def thaw_model(
    backbone: keras.Model, head: keras.Model, plan: Plan, p: params.Params
) -> keras.Model:
    """Backbone and trained head, thawed as planned, drops seeded."""
    apply_plan(backbone, plan, p.finetune.drop_connect_rate)
    make_deterministic(p.seed)
    model = join_head(backbone, head, find_cut(plan, backbone))
    seed_dropout(model, p.seed)
    return model


def find_cut(plan: Plan, backbone: keras.Model) -> str:
    """The plan's; where the head alone trains, the end of the last block."""
    if plan.cut != POOLED:
        return plan.cut
    return find_output(backbone, list_blocks(backbone)[-1])


if __name__ == "__main__":
    run_stage(main, within=join_processes)
