"""Views: seeded, augmented versions of each training image."""

from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from thaw.data.dataset import Dataset, Gather
from thaw.files.arrays import open_array

# OpenCV gets one thread: Thaw calls it from several threads of its own.
cv2.setNumThreads(1)


def augment_images(
    images: np.ndarray,
    digests: np.ndarray,
    view_numbers: np.ndarray,
    seed: int,
    rotation: float,
    translation: float,
    horizontal_flip: bool,
    contrast: float,
) -> np.ndarray:
    """A view of each image; view 0 is the image itself.

    The seed, the image's digest and the view's number alone determine a view,
    whatever other images there are. Keywords are those of `augment` in
    params.yaml.

    Args:
        images: (n, H, W, 3) uint8, range [0, 255].
        digests: (n, 2) uint64, of the images.
        view_numbers: (n,), 0 or more.
        seed: of all draws.
        rotation: at most this share of a full turn, either way.
        translation: at most this share of height and width, either way.
        horizontal_flip: whether half of the views are mirrored.
        contrast: at most this factor less or more.

    Returns:
        (n, H, W, 3) uint8, range [0, 255].
    """
    augmented = np.empty_like(images)
    warped = np.empty(images.shape[1:], np.uint8)
    for out, image, digest, view in zip(
        augmented, images, digests.tolist(), view_numbers, strict=True
    ):
        if view == 0:
            out[:] = image
            continue
        rng = np.random.default_rng([seed, view, *digest])
        turn, right, down, factor = rng.uniform(-1, 1, 4)
        mirrored = horizontal_flip and rng.random() < 0.5
        matrix = make_affine(
            image.shape[:2],
            2 * np.pi * rotation * turn,
            translation * right,
            translation * down,
            mirrored,
        )
        warp_image(image, matrix, warped)
        change_contrast(warped, 1 + contrast * factor, out)
    return augmented


def make_affine(
    size: tuple[int, int],
    angle: float,
    right: float,
    down: float,
    mirrored: bool,
) -> np.ndarray:
    """Rotation about the centre by `angle` radians, shift, mirror: (2, 3)."""
    height, width = size
    centre = np.array([width - 1, height - 1]) / 2
    cosine, sine = np.cos(angle), np.sin(angle)
    linear = np.array([[cosine, sine], [-sine, cosine]])
    if mirrored:
        linear[:, 0] *= -1
    shift = centre - linear @ centre + [right * width, down * height]
    return np.column_stack([linear, shift])


def warp_image(image: np.ndarray, matrix: np.ndarray, out: np.ndarray) -> None:
    """As Keras's layers do: bilinear, reflected at the border."""
    height, width = image.shape[:2]
    cv2.warpAffine(
        image,
        matrix,
        (width, height),
        dst=out,
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
    )


def change_contrast(image: np.ndarray, factor: float, out: np.ndarray) -> None:
    """Scales the distance from each channel's mean, as Keras's layer does."""
    mean = np.array(cv2.mean(image)[:3])
    levels = np.arange(256)[:, None]
    table = np.clip(mean + factor * (levels - mean), 0, 255).round()
    cv2.LUT(image, table.astype(np.uint8)[:, None, :], dst=out)


class ImageViews:
    """Gathers views of rows, augmented when they are asked for.

    It gives (n, H, W, 3) uint8.

    Args:
        path: of the images (all, H, W, 3) uint8.
        digests: (all, 2) uint64, of the images.
        augment: the keywords of `augment_images`.
    """

    def __init__(self, path: str | Path, digests: np.ndarray, augment: dict):
        self.path, self.digests = Path(path).absolute(), digests
        self.augment = augment

    @cached_property
    def images(self) -> np.ndarray:
        return open_array(self.path)

    def __getstate__(self) -> dict:
        names = ("path", "digests", "augment")
        return {name: getattr(self, name) for name in names}

    def __call__(
        self, rows: np.ndarray, view_numbers: np.ndarray
    ) -> np.ndarray:
        return augment_images(
            self.images[rows], self.digests[rows], view_numbers, **self.augment
        )

    def read(self, rows: np.ndarray) -> np.ndarray:
        """The images (n, H, W, 3)."""
        return self.images[rows]

    def gather_from(self, inputs: np.ndarray, rows: np.ndarray) -> Gather:
        digests = self.digests[rows]
        return lambda places, view_numbers: augment_images(
            inputs[places], digests[places], view_numbers, **self.augment
        )


def gather_views(dataset: Dataset, split: str, augment: dict) -> ImageViews:
    dataset.open_images(split)  # or raises
    digests = dataset.read_digests(split)
    return ImageViews(dataset.get_path(split), digests, augment)
