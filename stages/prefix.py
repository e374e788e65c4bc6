"""The thaw plan, and the frozen part's output where it pays to keep it."""

from thaw.data.activations import Features
from thaw.data.dataset import Dataset
from thaw.data.views import gather_views
from thaw.files.atomic import link_folder, new_folder
from thaw.frozen.network import FrozenNetwork
from thaw.frozen.passes import write_activations
from thaw.frozen.ray import open_cluster
from thaw.network.backbone import build_backbone
from thaw.network.parts import get_part
from thaw.network.plan import CACHED, is_behind, make_plan
from thaw.run import params
from thaw.run.checkpoints import open_checkpoint
from thaw.run.console import run_stage, say, say_wrote
from thaw.run.efficientnet import IMAGE

PREPARED = "data/prepared"
FEATURES = "data/features"
ACTIVATIONS = "data/activations"
SPLITS = ("train", "validation")  # test is read by evaluate alone


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
            if features.tap and is_behind(backbone, plan.cut, features.tap):
                start, dtype = features.tap, features.tap_dtype
                gather = {
                    split: features.gather(start, split, p.finetune.views)
                    for split in SPLITS
                }
            else:
                start, dtype = IMAGE, "uint8"
                augment = p.augment.model_dump()
                gather = {
                    split: gather_views(dataset, split, augment)
                    for split in SPLITS
                }
            network = FrozenNetwork(
                get_part(backbone, start, plan.cut),
                features.wanted_precision,
                dtype,
            )
            say(
                f"running {start} to {plan.cut} on {network.engine} in "
                f"{network.precision}"
            )
            with open_cluster() as cluster:
                write_activations(
                    network,
                    {plan.cut: "float16"},
                    checkpoint,
                    views=p.finetune.views,
                    rows={s: len(features.open_labels(s)) for s in SPLITS},
                    gather=gather,
                    label="running the prefix",
                    cluster=cluster,
                )
            link_folder(checkpoint.folder / plan.cut, folder / plan.cut)
    say_wrote(ACTIVATIONS)


if __name__ == "__main__":
    run_stage(main)
