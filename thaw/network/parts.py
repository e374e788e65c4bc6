"""Parts of networks, by the names of their layers."""

from thaw.data.efficientnet import LAST, LOGITS, POOLED
from thaw.network.backend import keras
from thaw.network.pooling import FRONT


def get_part(model: keras.Model, start: str, *ends: str) -> keras.Model:
    """From one layer's output to those of others; the layers are shared."""
    return keras.Model(
        model.get_layer(start).output,
        [model.get_layer(end).output for end in ends],
        name=f"{start}_to_{ends[-1]}",
    )


def has_layer(model: keras.Model, name: str) -> bool:
    return any(layer.name == name for layer in model.layers)


def get_suffix(model: keras.Model, cut: str) -> keras.Model:
    """What is behind a cut, to the logits.

    It takes the activations there and, if the head takes pooled outputs from
    before the cut, those as well.

    Args:
        model: from `join_head`, with this cut.
        cut: of a plan.
    """
    if cut == POOLED:
        return get_part(
            model, POOLED if has_layer(model, POOLED) else LAST, LOGITS
        )
    starts = [cut] + [FRONT] * has_layer(model, FRONT)
    inputs = [model.get_layer(name).output for name in starts]
    return keras.Model(
        inputs if len(inputs) > 1 else inputs[0],
        model.get_layer(LOGITS).output,
        name=f"{cut}_to_{LOGITS}",
    )
