"""Pillow's resizing in OpenVINO's operations, for images of any size.

OpenVINO's own, Interpolate, is compiled for each size that it meets, a third of
a second for a photograph; products of matrices run at any size as they are.
"""

import numpy as np
import openvino
from openvino import opset15 as ops

ROWS, COLUMNS = 1, 2  # axes of images


def resize_images(images: openvino.Node, side: int) -> openvino.Node:
    """Antialiased bilinear resizing, rounded after each axis as Pillow does.

    Args:
        images: (n, any height, any width, 3) uint8.
        side: pixels a side of the result.

    Returns:
        (n, side, side, 3) uint8.
    """
    shape = ops.convert(ops.shape_of(images), "f32")
    height, width = (
        ops.gather(shape, np.array(axis), np.array(0))
        for axis in (ROWS, COLUMNS)
    )
    x = ops.transpose(images, np.array([0, 3, 1, 2]))
    x = ops.matmul(ops.convert(x, "f32"), weigh(width, side), False, True)
    x = ops.matmul(weigh(height, side), round_half_up(x), False, False)
    x = ops.convert(round_half_up(x), "u8")
    return ops.transpose(x, np.array([0, 2, 3, 1]))


def weigh(length: openvino.Node, side: int) -> openvino.Node:
    """How much each pixel of an axis counts in each of the result.

    Args:
        length: pixels along the axis, a float.
        side: pixels of the result.

    Returns:
        (side, length), each row with a sum of 1: a triangle around where its
        pixel lies, as wide as two pixels of the larger picture.
    """
    one = np.float32(1)
    scale = ops.divide(length, np.float32(side))
    centers = np.arange(side, dtype=np.float32)[:, None] + np.float32(0.5)
    pixels = ops.add(ops.range(np.float32(0), length, one, "f32"), one / 2)
    away = ops.abs(ops.subtract(pixels, ops.multiply(centers, scale)))
    reach = ops.maximum(scale, one)
    weights = ops.relu(ops.subtract(one, ops.divide(away, reach)))
    return ops.divide(
        weights, ops.reduce_sum(weights, np.array([1]), keep_dims=True)
    )


def round_half_up(x: openvino.Node) -> openvino.Node:
    return ops.floor(ops.add(x, np.float32(0.5)))


def crop_square(images: openvino.Node) -> openvino.Node:
    """The middle of each image (n, height, width, 3)."""
    sides = ops.gather(
        ops.shape_of(images), np.array([ROWS, COLUMNS]), np.array(0)
    )
    side = ops.reduce_min(sides, np.array([0]), keep_dims=True)
    start = ops.divide(ops.subtract(sides, side), np.array([2]))
    return ops.slice(
        images,
        start,
        ops.add(start, side),
        np.array([1, 1]),
        np.array([ROWS, COLUMNS]),
    )
