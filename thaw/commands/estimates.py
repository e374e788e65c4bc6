"""What each stage would take and write, from trials on this machine.

A new stage of dvc.yaml takes an estimate here, in ESTIMATES.
"""

import math
from collections.abc import Callable
from functools import cached_property
from itertools import islice
from typing import NamedTuple

import numpy as np

from thaw.commands.news import open_photographs
from thaw.commands.trials import (
    TRIAL_IMAGES,
    Timing,
    get_timed_backbone,
    time_import,
    time_run,
)
from thaw.data.dataset import Dataset
from thaw.data.efficientnet import get_image_size
from thaw.data.splits import SPLITS, TRAINED
from thaw.files.threads import map_ahead
from thaw.prepare.decode import decode
from thaw.run import params

# Seconds that every stage spends on Python's start, hashes, drawing, writing.
OVERHEAD = 2


class Cost(NamedTuple):
    """What a stage takes, and the bytes that it writes."""

    seconds: float
    size: int


class Workload:
    """What the stages have to do with some parameters, and trials of it.

    Args:
        p: the parameters.
        prepared: data/prepared where `prepare` does not run again, else None.
        new: stage to the share of its images that it computes; 1 of others.
        found: the depth that `auto` came to, where `depth` does not run again.

    Attributes:
        timed: the backbone, and the times of its parts.
    """

    def __init__(
        self,
        p: params.Params,
        prepared: Dataset | None,
        new: dict[str, float] | None = None,
        found: int | str | None = None,
    ):
        self.p = p
        self.prepared = prepared
        self.new = new or {}
        self.found = found
        self.image_size = get_image_size(p.backbone.name, p.prepare.image_size)
        self.timed = get_timed_backbone(p.backbone.name, self.image_size)

    @cached_property
    def source(self):
        return open_photographs(self.p.prepare)

    @cached_property
    def rows(self) -> dict[str, int]:
        """Images in each split; of a new source, before copies are removed."""
        if self.prepared:
            return {s: len(self.prepared.open_labels(s)) for s in SPLITS}
        rows = {split: self.source.sizes.get(split, 0) for split in SPLITS}
        for split in ("test", "validation"):
            if not rows[split]:
                share = getattr(self.p.prepare, split)
                rows[split] = round(share * self.source.sizes["train"])
                rows["train"] -= rows[split]
        return rows

    @property
    def classes(self) -> int:
        return len((self.prepared or self.source).classes)

    @property
    def backbone(self):
        return self.timed.backbone

    @cached_property
    def architecture(self):
        from thaw.network.thawing import describe_backbone

        return describe_backbone(self.backbone)

    @cached_property
    def depths(self) -> list[int | str]:
        """What `finetune.blocks: auto` would race."""
        from thaw.depth.arms import list_depths

        blocks = len(self.architecture.blocks)
        return list_depths(blocks, self.p.depth.deepest)

    @property
    def blocks(self) -> int | str:
        """To thaw; where a race is to find out, the deepest that it tries."""
        asked = self.p.finetune.blocks
        if asked != "auto":
            return asked
        return self.found if self.found is not None else self.depths[-1]

    @cached_property
    def plan(self):
        return self.make_plan(self.blocks)

    def make_plan(self, blocks: int | str):
        return self.architecture.make_plan(blocks, self.p.extract.tap)

    def count_images(self, views: int, splits: tuple[str, ...]) -> int:
        """All views of train, and one view of each other split."""
        return sum(
            self.rows[s] * (views if s == "train" else 1) for s in splits
        )

    def time_decoding(self) -> float:
        """Seconds to decode and resize an image."""
        items = list(islice(self.source.items, TRIAL_IMAGES))

        def decode_item(item) -> None:
            decode(item.read(), self.image_size, self.p.prepare.fit)

        def run() -> None:
            for _ in map_ahead(decode_item, items, ahead=TRIAL_IMAGES):
                pass

        return time_run(run) / len(items)

    def time_frozen(self, start: str, *ends: str) -> Timing:
        """Times an image of training, from one layer to others."""
        precision = self.p.extract.precision
        return self.timed.time_frozen(start, *ends, precision=precision)

    def time_thawed(self, blocks: int | str) -> Timing:
        """Times a training step of thawed blocks and the head."""
        finetune = self.p.finetune
        return self.timed.time_thawed(
            blocks,
            finetune.drop_connect_rate,
            self.classes,
            self.p.head.dropout,
            finetune.batch_size,
        )

    def time_scoring(self) -> Timing:
        """Times an image of the test split, through the whole network."""
        from thaw.data.efficientnet import IMAGE, POOLED

        return self.timed.time_frozen(IMAGE, POOLED, precision="float32")


def estimate_prepare(work: Workload) -> Cost:
    images = work.source.size
    size = images * 3 * work.image_size**2
    decoded = images * work.new.get("prepare", 1)
    return Cost(decoded * work.time_decoding(), size)


def estimate_extract(work: Workload) -> Cost:
    from thaw.data.efficientnet import IMAGE, POOLED

    ends = [work.architecture.tap] if work.p.extract.tap else []
    images = work.count_images(work.p.extract.views, SPLITS)
    size = sum(2 * work.timed.count_values(end) for end in ends)
    size += 4 * work.timed.count_values(POOLED)
    each, before = work.time_frozen(IMAGE, *ends, POOLED)
    share = work.new.get("extract", 1)
    # The frozen network is copied as the rows are.
    begun = work.timed.start + before if share == 1 else 0.0
    return Cost(begun + images * share * each, images * size)


def estimate_head(work: Workload) -> Cost:
    from thaw.network.head import FOLDS

    head = work.p.head
    step, before = work.timed.time_head(
        work.classes, head.dropout, head.batch_size
    )
    steps = head.epochs * math.ceil(work.rows["train"] / head.batch_size)
    built = work.timed.build_head(work.classes, head.dropout)
    started = time_round(work, work.rows["train"], FOLDS)
    seconds = time_import() + started + before + steps * step
    return Cost(seconds, 4 * built.count_params())


def estimate_audit(work: Workload) -> Cost:
    from thaw.audit.opinions import REPEATS

    folds = work.p.audit.folds
    if not folds:
        return Cost(0, 0)
    rows = work.count_images(1, SPLITS)
    return Cost(REPEATS * time_round(work, rows, folds), 300 * rows)


def time_round(work: Workload, rows: float, folds: int) -> float:
    """Seconds of `thaw.network.rounds.fit_round`."""
    from thaw.data.efficientnet import POOLED

    size = work.timed.count_values(POOLED)
    square = np.ones((size, size))
    product = time_run(lambda: square @ square)
    # Of matrices of that size; a solution takes about what a product does.
    return (rows / size + folds + 1) * product


def estimate_prefix(work: Workload) -> Cost:
    from thaw.data.efficientnet import IMAGE
    from thaw.network.plan import CACHED

    cut, tap = work.plan.cut, work.architecture.tap
    if work.plan.activations != CACHED:
        return Cost(0, 0)
    from_tap = work.p.extract.tap and work.architecture.is_behind(cut, tap)
    images = work.count_images(work.p.finetune.views, TRAINED)
    each, _ = work.time_frozen(tap if from_tap else IMAGE, cut)
    size = images * 2 * work.timed.count_values(cut)
    return Cost(images * work.new.get("prefix", 1) * each, size)


def estimate_depth(work: Workload) -> Cost:
    """Of the race; a number passes at once."""
    from thaw.data.efficientnet import IMAGE
    from thaw.depth.arms import count_epochs, keep_better
    from thaw.depth.rows import ENOUGH, FOLDS

    if work.p.finetune.blocks != "auto":
        return Cost(0, 0)
    folds = FOLDS if work.rows["validation"] < ENOUGH else 1
    arms = work.depths[1:]
    stay = arms[-keep_better(len(arms)) :]  # the dearest, if those are best
    images = work.count_images(1, TRAINED)
    trained = images // folds if folds > 1 else work.rows["train"]
    batch_size = work.p.finetune.batch_size
    first, last = count_epochs(folds, trained, batch_size)
    seconds = work.timed.start
    for runs, epochs in ((arms, first), (stay * max(folds - 1, 1), last)):
        for blocks in runs:
            step, before = work.time_thawed(blocks)
            image = step / batch_size
            seconds += before + epochs * trained * image
    cuts = [work.make_plan(blocks).cut for blocks in arms if blocks != "all"]
    views = min(work.p.extract.views, max(first, last))
    each, _ = work.time_frozen(IMAGE, *reversed(cuts))
    seconds += work.count_images(views, TRAINED) * each
    return Cost(seconds, 0)


def estimate_finetune(work: Workload) -> Cost:
    from thaw.data.efficientnet import IMAGE
    from thaw.network.plan import STREAMED

    finetune = work.p.finetune
    frozen = 0.0
    if work.plan.activations == STREAMED and work.plan.cut != IMAGE:
        frozen, _ = work.time_frozen(IMAGE, work.plan.cut)
    step, before = work.time_thawed(work.blocks)
    image = step / finetune.batch_size
    # Validation runs forwards alone, a third of a step.
    epoch = work.rows["train"] * (image + frozen)
    epoch += work.rows["validation"] * (image / 3 + frozen)
    head = work.timed.build_head(work.classes, work.p.head.dropout)
    return Cost(
        work.timed.start + before + finetune.epochs * epoch,
        4 * (work.backbone.count_params() + head.count_params()),
    )


def estimate_evaluate(work: Workload) -> Cost:
    each, _ = work.time_scoring()
    return Cost(work.rows["test"] * each, work.rows["test"] * 200)


def estimate_report(work: Workload) -> Cost:
    return Cost(3, 10**6)


# All stages of dvc.yaml but `check`, which takes no time.
ESTIMATES: dict[str, Callable[[Workload], Cost]] = {
    "prepare": estimate_prepare,
    "extract": estimate_extract,
    "head": estimate_head,
    "audit": estimate_audit,
    "depth": estimate_depth,
    "prefix": estimate_prefix,
    "finetune": estimate_finetune,
    "evaluate": estimate_evaluate,
    "report": estimate_report,
}


def estimate_stage(name: str, work: Workload) -> Cost | None:
    """What a stage would cost; None where it has no estimate."""
    if name not in ESTIMATES:
        return None
    seconds, size = ESTIMATES[name](work)
    return Cost(seconds + OVERHEAD, size)
