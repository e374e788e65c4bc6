"""What it gains to keep a deep cut.

    python -m benchmarks.cuts [EfficientNetB0] [--blocks 9 12 13]

Behind the first blocks activations are large, and what is before them is
short: `finetune` may as well run the images through the frozen part in every
epoch. For each number of thawed blocks a row of a Markdown table, the median of
several rounds, in which all sides run one after the other:

- training images/s, streamed through the frozen part, from activations kept in
  16 bits, and from activations kept in 8 bits, with a scale for each channel;
- images/s of the frozen part, which writes what is kept;
- kB of a view, kept in 16 and in 8 bits.

Weights are random and photographs are made: neither changes what they take.
"""

import argparse
import math
import statistics
import tempfile
import time

import numpy as np

from benchmarks.claims.lab import EightBits
from thaw.data.activations import gather_kept, get_path
from thaw.data.dataset import Gather
from thaw.data.efficientnet import IMAGE, LOGITS, VARIANTS
from thaw.data.views import augment_images
from thaw.files.arrays import create_array
from thaw.frozen.engines import freeze_model
from thaw.network.backbone import build_backbone
from thaw.network.backend import keras, make_deterministic
from thaw.network.folding import fold_normalization
from thaw.network.head import build_head, join_head
from thaw.network.parts import get_part
from thaw.network.thawing import apply_plan, make_plan
from thaw.run import params
from thaw.train.batches import Batches, feed
from thaw.train.inputs import stream

COUNT = 512
CLASSES = 10


def make_images(size: int) -> Gather:
    """What gathers augmented views of made photographs."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (COUNT, size, size, 3), np.uint8)
    digests = rng.integers(0, 2**63, (COUNT, 2), np.uint64)
    augment = params.load().augment.model_dump()

    def gather(rows: np.ndarray, view_numbers: np.ndarray) -> np.ndarray:
        views = view_numbers + 1  # view 0 is the image itself
        return augment_images(images[rows], digests[rows], views, **augment)

    return gather


def measure(name: str, size: int, blocks: int, rounds: int) -> list[str]:
    """The cells of a row."""
    make_deterministic(1)
    backbone = build_backbone(name, None, "", size)
    plan = make_plan(backbone, blocks, tap_kept=True)
    apply_plan(backbone, plan, drop_connect_rate=0.2)
    head = build_head(backbone.output_shape[1], CLASSES, dropout=0.2)
    model = join_head(backbone, head)
    suffix = fold_normalization(get_part(model, plan.cut, LOGITS))
    suffix.compile(
        "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    prefix = freeze_model(get_part(backbone, IMAGE, plan.cut), "auto", "uint8")
    streamed = stream(prefix, make_images(size), prefix.precision)
    rows, first = np.arange(COUNT), np.zeros(COUNT, int)
    with tempfile.TemporaryDirectory() as folder:
        path = get_path(folder, plan.cut, "train", 0)
        path.parent.mkdir()
        shape = (COUNT, *plan.cut_shape)
        create_array(path, shape, np.float16)[:] = streamed(rows, first)
        kept = gather_kept(folder, plan.cut, "train", views=1)
        code = EightBits.fit(kept.arrays[0])
        steps = code.encode(kept.arrays[0])
        sides = {
            "streamed": streamed,
            "16 bits": kept,
            "8 bits": lambda rows, view_numbers: code.decode(steps[rows]),
        }
        labels = np.random.default_rng(0).integers(CLASSES, size=COUNT)
        speeds: dict[str, list[float]] = {side: [] for side in sides}
        frozen = []
        for _ in range(rounds + 1):
            for side, gather in sides.items():
                train = Batches(gather, labels, 1, 32, seed=1)
                start = time.perf_counter()
                suffix.fit(
                    feed(train),
                    steps_per_epoch=train.steps,
                    shuffle=False,
                    verbose=0,
                )
                speeds[side].append(COUNT / (time.perf_counter() - start))
            start = time.perf_counter()
            streamed(rows, first)
            frozen.append(COUNT / (time.perf_counter() - start))
    median = {
        side: statistics.median(values[1:])  # the first round traces
        for side, values in speeds.items()
    }
    values = math.prod(plan.cut_shape)
    return [
        f"{name.removeprefix('EfficientNet')}, {size} px, {blocks} blocks",
        f"{median['streamed']:.1f}",
        *(
            f"{median[side]:.1f} ({median[side] / median['streamed']:.2f}x)"
            for side in ("16 bits", "8 bits")
        ),
        f"{statistics.median(frozen[1:]):.0f}",
        f"{2 * values / 1000:.0f}, {values / 1000:.0f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("network", nargs="?", default="EfficientNetB0")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--blocks", type=int, nargs="+", default=[9, 12, 13])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    assert options.network in VARIANTS
    print(
        "| | streamed, images/s | 16 bits | 8 bits | frozen part, images/s | "
        "kB a view |\n|---|---|---|---|---|---|"
    )
    for blocks in options.blocks:
        cells = measure(
            options.network, options.image_size, blocks, options.rounds
        )
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
