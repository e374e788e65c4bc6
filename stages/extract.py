"""The frozen backbone, once over every view: pooled features and the tap."""

from thaw.data.activations import write_about, write_labels
from thaw.data.dataset import Dataset
from thaw.data.splits import SPLITS
from thaw.data.views import gather_views
from thaw.files.atomic import link_folder, new_folder
from thaw.frozen.earlier import find_earlier
from thaw.frozen.network import freeze_model
from thaw.frozen.passes import FrozenPass
from thaw.frozen.ray import Cluster, open_cluster
from thaw.network.backbone import build_backbone
from thaw.network.parts import get_part
from thaw.network.thawing import find_tap
from thaw.run import params
from thaw.run.checkpoints import open_checkpoint
from thaw.run.console import run_stage, say, say_wrote
from thaw.run.efficientnet import IMAGE, POOLED
from thaw.run.environment import describe_environment
from thaw.run.previous import Previous, open_previous

PREPARED = "data/prepared"
FEATURES = "data/features"


def main() -> None:
    with open_cluster() as cluster, open_previous() as previous:
        p = params.load()
        dataset = Dataset(PREPARED)
        say(f"reading {PREPARED}", *dataset.describe())
        extract(p, dataset, cluster, previous)
        say_wrote(FEATURES)


def extract(
    p: params.Params,
    dataset: Dataset,
    cluster: Cluster | None,
    previous: Previous | None,
) -> None:
    """Writes data/features."""
    backbone = build_backbone(
        **p.backbone.model_dump(), image_size=dataset.image_size
    )
    tap = find_tap(backbone) if p.extract.tap else None
    layers = ({tap: "float16"} if tap else {}) | {POOLED: "float32"}
    part = get_part(backbone, IMAGE, *layers)
    network = freeze_model(part, p.extract.precision, "uint8")
    say(
        f"running {backbone.name} on {network.engine}: {p.extract.views} views "
        f"of each training image in {network.precision}, the rest in float32"
    )
    augment = p.augment.model_dump()
    digests = {split: dataset.read_digests(split) for split in SPLITS}
    computed = {"precision": network.precision, "engine": network.engine}
    frozen_pass = FrozenPass(
        network,
        layers,
        rows={split: len(digests[split]) for split in SPLITS},
        views=p.extract.views,
        gather={s: gather_views(dataset, s, augment) for s in SPLITS},
        label="extracting",
        earlier=find_earlier(previous, FEATURES, digests, computed),
    )
    about = {
        "classes": dataset.classes,
        "views": p.extract.views,
        "tap": tap,
        **computed,
        "environment": describe_environment(),
    }
    with open_checkpoint() as checkpoint, new_folder(FEATURES) as folder:
        frozen_pass.write(checkpoint, cluster)
        for layer in layers:
            link_folder(checkpoint.folder / layer, folder / layer)
        write_labels(folder, {s: dataset.open_labels(s) for s in SPLITS})
        write_about(folder, digests, about)


if __name__ == "__main__":
    run_stage(main)
