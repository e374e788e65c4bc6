"""Pillow's resizing in OpenVINO's operations, for images of any size.

OpenVINO's own operation, Interpolate, is compiled for every new image size: a
third of a second for a photograph. Products of matrices run at any size.
"""

import numpy as np
import openvino
from openvino import opset15 as ops

HEIGHT, WIDTH = 1, 2  # axes of images


def resize_images(images: openvino.Node, side: int) -> openvino.Node:
    """Antialiased bilinear resizing, rounded after each axis as Pillow does.

    Args:
        images: (n, any height, any width, 3) uint8.
        side: pixels a side of the result.

    Returns:
        (n, side, side, 3) uint8.
    """
    height, width = (
        ops.gather(ops.shape_of(images, "i32"), np.array(axis), np.array(0))
        for axis in (HEIGHT, WIDTH)
    )
    x = ops.transpose(images, np.array([0, 3, 1, 2]))
    x = ops.matmul(ops.convert(x, "f32"), weigh(width, side), False, True)
    x = ops.matmul(weigh(height, side), round_half_up(x), False, False)
    x = ops.convert(round_half_up(x), "u8")
    return ops.transpose(x, np.array([0, 2, 3, 1]))


def weigh(length: openvino.Node, side: int) -> openvino.Node:
    """The weight of each pixel of an axis in each pixel of the result.

    All steps but the last compute in whole numbers, which stay exact where
    OpenVINO computes in bfloat16. Their unit is half a pixel of the image,
    divided by `side`.

    Args:
        length: pixels along the axis, an i32.
        side: pixels of the result.

    Returns:
        (side, length). Each row has a sum of 1 and is a triangle around the
        place of its pixel, as wide as two pixels of the larger image.
    """
    zero, one, two, sides = np.array([0, 1, 2, side], np.int32)
    odd = np.arange(1, 2 * side, 2, dtype=np.int32)[:, None]
    pixels = ops.range(zero, length, one, "i32")
    places = ops.multiply(ops.add(ops.multiply(pixels, two), one), sides)
    away = ops.subtract(places, ops.multiply(odd, length))
    away = ops.maximum(away, ops.subtract(zero, away))
    reach = ops.multiply(ops.maximum(length, sides), two)
    weights = ops.maximum(ops.subtract(reach, away), zero)
    total = ops.reduce_sum(weights, np.array([1]), keep_dims=True)
    return ops.divide(ops.convert(weights, "f32"), ops.convert(total, "f32"))


def round_half_up(x: openvino.Node) -> openvino.Node:
    return ops.floor(ops.add(x, np.float32(0.5)))


def crop_square(images: openvino.Node) -> openvino.Node:
    """Cuts images (n, height, width, 3) to their middle square."""
    sides = ops.gather(
        ops.shape_of(images), np.array([HEIGHT, WIDTH]), np.array(0)
    )
    side = ops.reduce_min(sides, np.array([0]), keep_dims=True)
    start = ops.divide(ops.subtract(sides, side), np.array([2]))
    return ops.slice(
        images,
        start,
        ops.add(start, side),
        np.array([1, 1]),
        np.array([HEIGHT, WIDTH]),
    )
