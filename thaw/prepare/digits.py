"""The default source: scikit-learn's handwritten digits."""

from functools import partial

import numpy as np

from thaw.prepare.items import Item, Source, read_array


def open_digits() -> Source:
    """1,797 handwritten digits of 8 x 8 pixels, shipped by scikit-learn."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = (digits.images * (255 / 16)).round().astype(np.uint8)
    items = (
        Item(
            f"digits/{row:04d}",
            int(label),
            "train",
            partial(read_array, image),
        )
        for row, (image, label) in enumerate(
            zip(pixels, digits.target, strict=True)
        )
    )
    classes = [str(name) for name in digits.target_names]
    return Source(classes, [], {"train": len(pixels)}, items)
