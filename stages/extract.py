"""The frozen backbone, once over every view: pooled features and the tap."""

import numpy as np

from thaw.data.dataset import Dataset
from thaw.data.splits import SPLITS
from thaw.data.views import gather_views
from thaw.files.atomic import link_folder, new_folder
from thaw.files.text import write_json
from thaw.frozen.network import FrozenNetwork
from thaw.frozen.passes import write_activations
from thaw.frozen.ray import Cluster, open_cluster
from thaw.network.backbone import build_backbone
from thaw.network.parts import get_part
from thaw.network.plan import find_tap
from thaw.run import params
from thaw.run.checkpoints import open_checkpoint
from thaw.run.console import run_stage, say, say_wrote
from thaw.run.efficientnet import IMAGE, POOLED
from thaw.run.environment import describe_environment

PREPARED = "data/prepared"
FEATURES = "data/features"


def main() -> None:
    with open_cluster() as cluster:
        extract(cluster)


def extract(cluster: Cluster | None) -> None:
    p = params.load()
    dataset = Dataset(PREPARED)
    say(f"reading {PREPARED}", *dataset.describe())
    backbone = build_backbone(
        **p.backbone.model_dump(), image_size=dataset.image_size
    )
    layers = {find_tap(backbone): "float16"} if p.extract.tap else {}
    layers[POOLED] = "float32"
    network = FrozenNetwork(
        get_part(backbone, IMAGE, *layers), p.extract.precision, "uint8"
    )
    say(
        f"running {backbone.name} on {network.engine}: {p.extract.views} views "
        f"of each training image in {network.precision}, the rest in float32"
    )
    augment = p.augment.model_dump()
    gather = {split: gather_views(dataset, split, augment) for split in SPLITS}
    labels = {split: dataset.open_labels(split) for split in SPLITS}
    with open_checkpoint() as checkpoint, new_folder(FEATURES) as folder:
        write_activations(
            network,
            layers,
            checkpoint,
            views=p.extract.views,
            rows={split: len(labels[split]) for split in SPLITS},
            gather=gather,
            label="extracting",
            cluster=cluster,
        )
        for layer in layers:
            link_folder(checkpoint.folder / layer, folder / layer)
        (folder / "labels").mkdir()
        for split in SPLITS:
            np.save(folder / "labels" / f"{split}.npy", labels[split])
        write_json(
            folder / "extract.json",
            {
                "classes": dataset.classes,
                "views": p.extract.views,
                "tap": find_tap(backbone) if p.extract.tap else None,
                "precision": network.precision,
                "engine": network.engine,
                "environment": describe_environment(),
            },
        )
    say_wrote(FEATURES)


if __name__ == "__main__":
    run_stage(main)
