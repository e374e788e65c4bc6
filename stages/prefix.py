"""The thaw plan, and the frozen part's output where it pays to keep it."""

from collections.abc import Mapping
from pathlib import Path

from thaw.data.activations import Features, write_about
from thaw.data.dataset import Dataset, Gather
from thaw.data.efficientnet import IMAGE
from thaw.data.splits import TRAINED
from thaw.data.views import gather_views
from thaw.files.atomic import link_folder, new_folder
from thaw.frozen.backbone import read_architecture, take_frozen
from thaw.frozen.earlier import find_earlier
from thaw.frozen.passes import FrozenPass
from thaw.frozen.ray import open_cluster
from thaw.network.plan import CACHED, Architecture, Plan
from thaw.run import params
from thaw.run.console import say, say_wrote
from thaw.stage.checkpoints import Checkpoint, open_checkpoint
from thaw.stage.environment import describe_environment
from thaw.stage.previous import open_previous
from thaw.stage.runner import run_stage

PREPARED = "data/prepared"
FEATURES = "data/features"
ACTIVATIONS = "data/activations"


def main() -> None:
    p = params.load()
    features = Features(FEATURES)
    architecture = read_architecture(FEATURES)
    plan = architecture.make_plan(p.finetune.blocks, bool(features.tap))
    say(f"reading {FEATURES}", *plan.describe())
    with open_checkpoint() as checkpoint, new_folder(ACTIVATIONS) as folder:
        plan.write(folder / "plan.json")
        if plan.activations == CACHED:
            write_prefix(p, plan, architecture, features, checkpoint, folder)
    say_wrote(ACTIVATIONS)


def write_prefix(
    p: params.Params,
    plan: Plan,
    architecture: Architecture,
    features: Features,
    checkpoint: Checkpoint,
    folder: Path,
) -> None:
    """Writes the activations at the cut, and what they are of."""
    start, dtype, gather = open_start(p, plan, architecture, features)
    network = take_frozen(features, start, plan.cut, dtype=dtype)
    say(
        f"running {start} to {plan.cut} on {network.engine} in "
        f"{network.precision}"
    )
    digests = {split: features.open_digests(split) for split in TRAINED}
    about = {
        "start": start,
        "start_precision": features.precision,
        "start_engine": features.engine,
        "precision": network.precision,
        "engine": network.engine,
    }
    with open_cluster() as cluster, open_previous() as previous:
        FrozenPass(
            network,
            {plan.cut: "float16"},
            rows={split: len(digests[split]) for split in TRAINED},
            views=p.finetune.views,
            gather=gather,
            label="running the prefix",
            earlier=find_earlier(previous, ACTIVATIONS, digests, about),
        ).write(checkpoint, cluster)
    link_folder(checkpoint.folder / plan.cut, folder / plan.cut)
    about["environment"] = describe_environment()
    write_about(folder, digests, about)


def open_start(
    p: params.Params,
    plan: Plan,
    architecture: Architecture,
    features: Features,
) -> tuple[str, str, Mapping[str, Gather]]:
    """The layer to start at, its dtype, and what gathers its activations.

    It is the tap, or the images where the tap is no help.
    """
    if features.tap and architecture.is_behind(plan.cut, features.tap):
        views = p.finetune.views
        gather = {s: features.gather(features.tap, s, views) for s in TRAINED}
        return features.tap, features.tap_dtype, gather
    dataset, augment = Dataset(PREPARED), p.augment.model_dump()
    images = {s: gather_views(dataset, s, augment) for s in TRAINED}
    return IMAGE, "uint8", images


if __name__ == "__main__":
    run_stage(main)
