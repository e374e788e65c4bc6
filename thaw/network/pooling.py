"""What each block of a backbone says of an image: pooled outputs.

A head on the pooled outputs of all blocks, instead of the last layer's, is
Head2Toe: Evci et al., arXiv:2201.03529.
"""

from thaw.data.efficientnet import LAST, POOLED
from thaw.network.backend import keras
from thaw.network.thawing import find_output, list_blocks

TOP = "top_activation"  # the last convolution's, in every variant

# The pooled outputs before and behind a cut; `POOLED` is both.
FRONT, BACK = "pooled_front", "pooled_back"

# Added to a variance over positions, whose root has no slope at 0.
EPSILON = 1e-6


def pool_blocks(
    backbone: keras.Model, cut: str | None = None
) -> keras.KerasTensor:
    """Mean and deviation over the positions of each block's output.

    Args:
        backbone: from `build_backbone`.
        cut: the end of a block, or of the stem; None: where it does not
            matter.

    Returns:
        (n, columns), the output of a layer `POOLED`: block by block the means
        of its channels and then their standard deviations, the top's last. It
        joins the outputs of layers `FRONT` and `BACK`, if there are any.
    """
    ends = [find_output(backbone, block) for block in list_blocks(backbone)]
    ends.append(TOP)
    pooled = {
        end: pool(backbone.get_layer(end).output, end) for end in ends[:-1]
    }
    top = backbone.get_layer(TOP).output
    pooled[TOP] = [backbone.get_layer(LAST).output, measure_deviation(top, TOP)]
    count = 1 + ends.index(cut) if cut in ends else 0
    parts = {FRONT: ends[:count], BACK: ends[count:]}
    joined = [
        keras.layers.Concatenate(name=name)(
            [tensor for end in part for tensor in pooled[end]]
        )
        for name, part in parts.items()
        if part
    ]
    return keras.layers.Concatenate(name=POOLED)(joined)


def pool(output: keras.KerasTensor, end: str) -> list[keras.KerasTensor]:
    """Mean and deviation (n, channels) of an output (n, h, w, channels)."""
    mean = keras.layers.GlobalAveragePooling2D(name=f"{end}_mean")(output)
    return [mean, measure_deviation(output, end)]


def measure_deviation(output: keras.KerasTensor, end: str) -> keras.KerasTensor:
    variance = name_operation(
        keras.ops.var(output, axis=(1, 2)), f"{end}_variance"
    )
    raised = name_operation(variance + EPSILON, f"{end}_raised")
    return name_operation(keras.ops.sqrt(raised), f"{end}_deviation")


def name_operation(tensor: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Keras numbers operations by all that was built before."""
    tensor._keras_history.operation.name = name
    return tensor
