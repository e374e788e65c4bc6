"""Training from cached activations, against Keras with them in memory."""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from functools import partial

import numpy as np

from thaw.data.activations import gather_kept, get_path
from thaw.data.efficientnet import LOGITS
from thaw.files.arrays import create_array
from thaw.network.backbone import build_backbone
from thaw.network.backend import keras, make_deterministic
from thaw.network.folding import fold_normalization
from thaw.network.head import build_head, join_head
from thaw.network.parts import get_part
from thaw.network.thawing import apply_plan, make_plan
from thaw.train.batches import Batches, feed

COUNT = 3072
EPOCHS = 2
BATCH_SIZE = 64


def time_training(model: keras.Model, **options) -> float:
    """Images/s."""
    start = time.perf_counter()
    model.fit(epochs=EPOCHS, verbose=0, **options)
    return EPOCHS * COUNT / (time.perf_counter() - start)


def compile_model(model: keras.Model) -> keras.Model:
    model.compile(
        optimizer=keras.optimizers.Adam(1e-4),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def measure(options: argparse.Namespace) -> Iterator[list[str]]:
    make_deterministic(1)
    backbone = build_backbone(
        "EfficientNetB0", "file", options.weights, options.image_size
    )
    for blocks in (1, 3):
        plan = make_plan(backbone, blocks, tap_kept=True)
        apply_plan(backbone, plan, drop_connect_rate=0.2)
        model = join_head(backbone, build_head(1280, 10, dropout=0.2))
        rng = np.random.default_rng(0)
        shape = (COUNT, *plan.cut_shape)
        activations = rng.standard_normal(shape, np.float32)
        labels = rng.integers(10, size=COUNT, dtype=np.int32)
        with tempfile.TemporaryDirectory() as folder:
            path = get_path(folder, plan.cut, "train", 0)
            path.parent.mkdir()
            create_array(path, shape, np.float16)[:] = activations
            gather = gather_kept(folder, plan.cut, "train", views=1)
            train = Batches(gather, labels, 1, BATCH_SIZE, seed=1)
            sides = (
                partial(
                    time_training,
                    compile_model(get_part(model, plan.cut, LOGITS)),
                    x=activations,
                    y=labels,
                    batch_size=BATCH_SIZE,
                ),
                partial(
                    time_training,
                    compile_model(
                        fold_normalization(get_part(model, plan.cut, LOGITS))
                    ),
                    x=feed(train),
                    steps_per_epoch=train.steps,
                    shuffle=False,
                ),
            )
            for side in sides:
                side()  # traces
            rounds = [[side() for side in sides] for _ in range(options.rounds)]
        theirs, own = (statistics.median(r) for r in zip(*rounds, strict=True))
        ratio = statistics.median(b / a for a, b in rounds)
        yield [
            f"training, {blocks} block{'s' if blocks > 1 else ''} thawed",
            f"Keras, inputs in memory, {theirs:.0f} images/s",
            *("", ""),
            *(f"{own:.0f} images/s", f"{ratio:.2f}"),
        ]
