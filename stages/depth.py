"""How many blocks to thaw: the number asked for, or what a race finds."""

from typing import TYPE_CHECKING

from thaw.depth.table import write_depths
from thaw.files.text import write_json
from thaw.run import params
from thaw.run.console import say_wrote
from thaw.stage.environment import describe_environment
from thaw.stage.runner import run_stage

if TYPE_CHECKING:  # a number passes without Keras
    from thaw.depth.race import Result

PREPARED = "data/prepared"
FEATURES = "data/features"
HEAD = "models/head.keras"
DEPTH = "data/depth.json"
DEPTHS = "plots/depths.csv"
DETAILS = "metrics/details/depth.json"


def main() -> None:
    p = params.load()
    blocks: int | str = p.finetune.blocks
    results: list[Result] = []
    if blocks == "auto":
        results, blocks = race_depths(p)
    write_json(DEPTH, blocks)
    write_depths(DEPTHS, results)
    write_json(
        DETAILS,
        {
            "asked": p.finetune.blocks,
            "blocks": blocks,
            # Of an epoch, as the clock had it: the one thing here that differs
            # from run to run.
            "seconds": {
                str(result.blocks): round(result.seconds, 2)
                for result in results
                if result.seconds
            },
            "environment": describe_environment(),
        },
    )
    say_wrote(DEPTH, DEPTHS, DETAILS)


def race_depths(p: params.Params) -> tuple[list["Result"], int | str]:
    """What each depth came to, and the best one."""
    from thaw.data.activations import Features
    from thaw.data.dataset import Dataset
    from thaw.depth.arms import list_depths
    from thaw.depth.race import Race, pick_best
    from thaw.network.backbone import build_backbone
    from thaw.network.thawing import list_blocks
    from thaw.stage.checkpoints import open_checkpoint

    dataset, features = Dataset(PREPARED), Features(FEATURES)
    backbone = build_backbone(
        **p.backbone.model_dump(), image_size=dataset.image_size
    )
    depths = list_depths(len(list_blocks(backbone)), p.depth.deepest)
    with open_checkpoint() as checkpoint:
        race = Race(p, backbone, dataset, features, HEAD, checkpoint)
        results = race.run(depths)
    return results, pick_best(results)


if __name__ == "__main__":
    run_stage(main)
