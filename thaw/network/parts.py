"""Parts of networks, by the names of their layers."""

from thaw.network.backend import keras


def get_part(model: keras.Model, start: str, *ends: str) -> keras.Model:
    """From one layer's output to those of others; the layers are shared."""
    return keras.Model(
        model.get_layer(start).output,
        [model.get_layer(end).output for end in ends],
        name=f"{start}_to_{ends[-1]}",
    )
