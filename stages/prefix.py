"""The thaw plan, and the frozen part's output where it pays to keep it."""

from thaw.data.activations import Features
from thaw.data.dataset import Dataset, Gather
from thaw.data.splits import TRAINED
from thaw.data.views import gather_views
from thaw.files.atomic import link_folder, new_folder
from thaw.frozen.network import freeze_model
from thaw.frozen.passes import FrozenPass
from thaw.frozen.ray import open_cluster
from thaw.network.backbone import build_backbone
from thaw.network.backend import keras
from thaw.network.parts import get_part
from thaw.network.plan import CACHED, Plan, is_behind, make_plan
from thaw.run import params
from thaw.run.checkpoints import open_checkpoint
from thaw.run.console import run_stage, say, say_wrote
from thaw.run.efficientnet import IMAGE

PREPARED = "data/prepared"
FEATURES = "data/features"
ACTIVATIONS = "data/activations"


def main() -> None:
    p = params.load()
    dataset, features = Dataset(PREPARED), Features(FEATURES)
    backbone = build_backbone(
        **p.backbone.model_dump(), image_size=dataset.image_size
    )
    plan = make_plan(backbone, p.finetune.blocks, bool(features.tap))
    say(f"reading {PREPARED} and {FEATURES}", *plan.describe())
    with open_checkpoint() as checkpoint, new_folder(ACTIVATIONS) as folder:
        plan.write(folder / "plan.json")
        if plan.activations == CACHED:
            prefix = make_pass(p, plan, backbone, dataset, features)
            with open_cluster() as cluster:
                prefix.write(checkpoint, cluster)
            link_folder(checkpoint.folder / plan.cut, folder / plan.cut)
    say_wrote(ACTIVATIONS)


def make_pass(
    p: params.Params,
    plan: Plan,
    backbone: keras.Model,
    dataset: Dataset,
    features: Features,
) -> FrozenPass:
    """From the tap to the cut; from the images where the tap is no help."""
    gather: dict[str, Gather]
    if features.tap and is_behind(backbone, plan.cut, features.tap):
        start, dtype = features.tap, features.tap_dtype
        gather = {
            split: features.gather(start, split, p.finetune.views)
            for split in TRAINED
        }
    else:
        start, dtype = IMAGE, "uint8"
        augment = p.augment.model_dump()
        gather = {s: gather_views(dataset, s, augment) for s in TRAINED}
    part = get_part(backbone, start, plan.cut)
    network = freeze_model(part, features.wanted_precision, dtype)
    say(
        f"running {start} to {plan.cut} on {network.engine} in "
        f"{network.precision}"
    )
    return FrozenPass(
        network,
        {plan.cut: "float16"},
        rows={split: len(features.open_labels(split)) for split in TRAINED},
        views=p.finetune.views,
        gather=gather,
        label="running the prefix",
    )


if __name__ == "__main__":
    run_stage(main)
