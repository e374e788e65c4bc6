"""The frozen backbone, once over every view: pooled outputs and the tap."""

from pathlib import Path

from thaw.data.activations import write_about, write_labels
from thaw.data.dataset import Dataset
from thaw.data.efficientnet import IMAGE, POOLED
from thaw.data.splits import SPLITS
from thaw.data.views import gather_views
from thaw.files.atomic import link_folder, new_folder
from thaw.frozen.backbone import (
    copy_backbone,
    keep_backbone,
    read_architecture,
    read_frozen,
)
from thaw.frozen.earlier import find_earlier
from thaw.frozen.passes import FrozenPass
from thaw.frozen.ray import Cluster, open_cluster
from thaw.run import params
from thaw.run.console import say, say_wrote
from thaw.stage.checkpoints import open_checkpoint
from thaw.stage.environment import describe_environment
from thaw.stage.previous import Previous, open_previous
from thaw.stage.runner import run_stage

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
    with open_checkpoint() as checkpoint, new_folder(FEATURES) as folder:
        last = previous and previous.folder / FEATURES
        if not (last and copy_backbone(last, dataset.image_size, folder)):
            freeze_backbone(p, dataset.image_size, folder)
        architecture = read_architecture(folder)
        tap = architecture.tap if p.extract.tap else None
        layers = ({tap: "float16"} if tap else {}) | {POOLED: "float16"}
        network = read_frozen(folder).take(IMAGE, *layers)
        network.use_precision(p.extract.precision)
        say(
            f"running {architecture.name} on {network.engine}: "
            f"{p.extract.views} views of each training image in "
            f"{network.precision}, the rest in float32"
        )
        augment = p.augment.model_dump()
        digests = {split: dataset.read_digests(split) for split in SPLITS}
        computed = {"precision": network.precision, "engine": network.engine}
        FrozenPass(
            network,
            layers,
            rows={split: len(digests[split]) for split in SPLITS},
            views=p.extract.views,
            gather={s: gather_views(dataset, s, augment) for s in SPLITS},
            label="extracting",
            earlier=find_earlier(previous, FEATURES, digests, computed),
        ).write(checkpoint, cluster)
        for layer in layers:
            link_folder(checkpoint.folder / layer, folder / layer)
        write_labels(folder, {s: dataset.open_labels(s) for s in SPLITS})
        about = {
            "classes": dataset.classes,
            "views": p.extract.views,
            "tap": tap,
            **computed,
            "environment": describe_environment(),
        }
        write_about(folder, digests, about)


def freeze_backbone(p: params.Params, image_size: int, folder: Path) -> None:
    from thaw.network.backbone import build_backbone  # Keras, seconds

    backbone = build_backbone(**p.backbone.model_dump(), image_size=image_size)
    keep_backbone(backbone, p.extract.precision, folder)


if __name__ == "__main__":
    run_stage(main)
