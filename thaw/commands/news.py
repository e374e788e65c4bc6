"""How many images are new to the stages that go on from their last run."""

from typing import NamedTuple

from thaw.data.efficientnet import get_image_size
from thaw.files.threads import map_ahead
from thaw.prepare.decoded import DecodedBefore
from thaw.prepare.items import Item, Source
from thaw.prepare.sources import OPENING, open_source
from thaw.run import params
from thaw.stage.previous import open_last_run

AHEAD = 64  # files that threads have at hand


class News(NamedTuple):
    """Images that `prepare` has not decoded, of all."""

    new: int
    total: int


def open_photographs(prepare: params.Prepare) -> Source:
    """The source that params.yaml names."""
    return open_source(**prepare.model_dump(include=OPENING))


def count_news(p: params.Params, values: dict) -> News | None:
    """None where the last run of `prepare` is no help.

    Reads each file, as `prepare` would.

    Args:
        p, values: the parameters, checked and plain.
    """
    with open_last_run("prepare", values) as last:
        if last is None or last.others:
            return None
        before = DecodedBefore(
            last.folder / "data/prepared",
            get_image_size(p.backbone.name, p.prepare.image_size),
        )
        source = open_photographs(p.prepare)

        def is_new(item: Item) -> bool:
            try:
                return before.find(item.read().identity) is None
            except OSError:  # which `prepare` will report
                return True

        return News(sum(map_ahead(is_new, source.items, AHEAD)), source.size)
