"""How many images are new to the stages that go on from their last run."""

from typing import NamedTuple

from thaw.data.efficientnet import get_image_size
from thaw.files.threads import map_ahead
from thaw.prepare.decoded import DecodedBefore
from thaw.prepare.items import Item, Source
from thaw.prepare.sources import OPENING, open_source
from thaw.run import params
from thaw.stage.previous import TERMS, list_changes, open_last_run

AHEAD = 64  # files that threads have at hand

# What else than an image moves it into another split, where it is new.
SPLITTING = frozenset(
    f"prepare.{name}"
    for name in ("validation", "test", "seed", "group", "duplicates")
)


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


def find_shares(news: News | None, values: dict) -> dict[str, float]:
    """Stage to the share of its images that it would compute.

    Args:
        news: of the images, or None where all are.
        values: of params.yaml, plain.
    """
    if not news:
        return {}
    shares = {}
    for stage in TERMS:
        with open_last_run(stage, values) as last:
            if last and not last.others:
                shares[stage] = news.new / news.total
    with open_last_run("prepare", values) as last:
        moved = last and SPLITTING & list_changes(last.stage, values)
    return {"prepare": shares["prepare"]} if moved else shares
