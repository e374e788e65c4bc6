"""Times of a backbone's parts on this machine, by a few batches each."""

import math
import time
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

TRIAL_IMAGES = 32  # in a batch of a trial


class Timing(NamedTuple):
    """Seconds of each image or step, and of what comes once before them."""

    each: float
    before: float


@cache
def time_import() -> float:
    """Seconds to import Keras, which every stage with a network does.

    Nothing that `plan` imports may import Keras before.
    """
    start = time.perf_counter()
    import thaw.network.backend  # noqa: F401

    return time.perf_counter() - start


class TimedBackbone:
    """A backbone without weights, and the times of its parts.

    Each part is timed once, when its time is first asked for.

    Attributes:
        backbone: the network.
        start: seconds to import Keras and build the backbone.
    """

    def __init__(self, name: str, image_size: int):
        self.start = time_import()
        start = time.perf_counter()
        from thaw.network.backbone import build_backbone

        self.backbone = build_backbone(name, None, "", image_size)
        self.start += time.perf_counter() - start

    def count_values(self, layer: str) -> int:
        """Counts the values in a layer's output for one image."""
        return math.prod(self.backbone.get_layer(layer).output.shape[1:])

    @cache  # noqa: B019 (one object for each backbone)
    def time_frozen(self, start: str, *ends: str, precision: str) -> Timing:
        """Times an image through a part of the backbone."""
        begun = time.perf_counter()
        from thaw.data.efficientnet import IMAGE
        from thaw.frozen.engines import freeze_model
        from thaw.network.parts import get_part

        part = get_part(self.backbone, start, *ends)
        shape = (TRIAL_IMAGES, *part.inputs[0].shape[1:])
        dtype = "uint8" if start == IMAGE else "float16"
        network = freeze_model(part, precision, dtype)
        inputs = np.random.default_rng(0).integers(0, 256, shape).astype(dtype)
        outs = [
            np.empty((TRIAL_IMAGES, *s), np.float32) for s in network.outputs
        ]

        def run() -> None:
            network.run(lambda a, b: inputs[a:b], TRIAL_IMAGES, outs)

        run()
        before = time.perf_counter() - begun
        return Timing(time_run(run) / TRIAL_IMAGES, before)

    @cache  # noqa: B019
    def time_head(
        self, classes: int, dropout: float, batch_size: int
    ) -> Timing:
        """Times a training step of the head."""
        from thaw.data.efficientnet import LOGITS, POOLED
        from thaw.network.parts import get_part

        head = self.build_head(classes, dropout)
        return time_training(get_part(head, POOLED, LOGITS), batch_size)

    @cache  # noqa: B019
    def time_thawed(
        self,
        blocks: int | str,
        drop_connect_rate: float,
        classes: int,
        dropout: float,
        batch_size: int,
    ) -> Timing:
        """Times a training step of the thawed blocks and the head."""
        from thaw.data.efficientnet import LOGITS
        from thaw.network.backend import make_deterministic
        from thaw.network.folding import fold_normalization
        from thaw.network.head import join_head
        from thaw.network.parts import get_part
        from thaw.network.thawing import apply_plan, make_plan

        plan = make_plan(self.backbone, blocks, tap_kept=False)
        apply_plan(self.backbone, plan, drop_connect_rate)
        make_deterministic(0)
        model = join_head(self.backbone, self.build_head(classes, dropout))
        suffix = fold_normalization(get_part(model, plan.cut, LOGITS))
        return time_training(suffix, batch_size)

    def build_head(self, classes: int, dropout: float):
        from thaw.data.efficientnet import POOLED
        from thaw.network.head import build_head

        return build_head(self.count_values(POOLED), classes, dropout)


get_timed_backbone = cache(TimedBackbone)


def time_training(model, batch_size: int) -> Timing:
    """Times a training step; the first one also traces and compiles."""
    from thaw.network.backend import keras

    shape = (batch_size, *model.inputs[0].shape[1:])
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    y = np.zeros(batch_size, np.int32)
    model.compile(
        "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    start = time.perf_counter()
    model.train_on_batch(x, y)
    first = time.perf_counter() - start
    return Timing(time_run(lambda: model.train_on_batch(x, y)), first)


def time_run(run: Callable[[], object], least: float = 0.5) -> float:
    """Seconds of one run, the mean over at least `least` seconds.

    A first run does not count.
    """
    run()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < least:
        run()
        count += 1
    return (time.perf_counter() - start) / count
