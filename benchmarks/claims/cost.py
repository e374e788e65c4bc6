"""Seconds of a training step and memory, for a depth: one JSON line.

python -m benchmarks.claims.cost EfficientNetB4 8
"""

import json
import resource
import sys
import time

import numpy as np

from thaw.data.efficientnet import LOGITS
from thaw.network.backbone import build_backbone
from thaw.network.backend import keras, make_deterministic
from thaw.network.folding import fold_normalization
from thaw.network.head import build_head, join_head
from thaw.network.parts import get_part
from thaw.network.thawing import apply_plan, make_plan

IMAGE_SIZE = 224
BATCH = 16
STEPS = 4


def main() -> None:
    name, blocks, *size = sys.argv[1:]
    image_size = int(size[0]) if size else IMAGE_SIZE
    backbone = build_backbone(name, None, "", image_size)
    plan = make_plan(
        backbone, blocks if blocks == "all" else int(blocks), tap_kept=False
    )
    apply_plan(backbone, plan, 0.2)
    make_deterministic(0)
    head = build_head(backbone.output_shape[1], 10, 0.2)
    model = get_part(join_head(backbone, head), plan.cut, LOGITS)
    suffix = fold_normalization(model)
    suffix.compile(
        "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH, *plan.cut_shape)).astype(np.float32)
    y = np.zeros(BATCH, np.int32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    suffix.train_on_batch(x, y)
    seconds = []
    for _ in range(STEPS):
        start = time.perf_counter()
        suffix.train_on_batch(x, y)
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        json.dumps(
            {
                "images_per_second": round(BATCH / np.median(seconds), 2),
                "mib": round((peak - before) / 1024),
                "trainable_parameters": plan.trainable_parameters,
            }
        )
    )


if __name__ == "__main__":
    main()
