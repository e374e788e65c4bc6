"""Keras as the engine of a frozen network, on its backend's device."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from thaw.frozen.network import Engine, Span
from thaw.network.backend import has_accelerator, keras, warn_of_float32
from thaw.network.model_file import read_model, save_model
from thaw.network.parts import get_part

FILE = "model.keras"


class KerasEngine:
    """Whatever backend and device Keras has.

    Args:
        model: that only predicts.
        accelerated: whether it runs on a GPU or TPU, where it is compiled and
            bfloat16 can be had.
    """

    kind, uses_cpu = "keras", False
    batch_size = 64  # an accelerator wants many

    def __init__(self, model: keras.Model, accelerated: bool = False):
        self.name = f"keras {keras.__version__}"
        self.precisions = ["float32"] + ["bfloat16"] * accelerated
        self._models = {"float32": model}
        self._accelerated = accelerated
        if accelerated:
            self._models["bfloat16"] = copy_in_bfloat16(model)
            for each in self._models.values():
                each.compile(jit_compile=True)

    def write(self, folder: Path) -> None:
        save_model(self._models["float32"], folder / FILE)

    def take(
        self, start: str, ends: Sequence[str], dtype: str
    ) -> "KerasEngine":
        model = self._models["float32"]
        start = start or model.layers[0].name
        return KerasEngine(get_part(model, start, *ends), self._accelerated)

    def join(self, behind: Engine) -> "KerasEngine":
        assert isinstance(behind, KerasEngine), "networks of one engine"
        first, second = self._models["float32"], behind._models["float32"]
        joined = keras.Model(first.input, second(first.outputs[0]))
        return KerasEngine(joined, self._accelerated)

    def run(
        self,
        batches: Iterable[tuple[Span, np.ndarray]],
        store: Callable[[Span, list[np.ndarray]], None],
        precision: str,
    ) -> None:
        warn_of_float32()
        model = self._models[precision]
        for span, batch in batches:
            results = model.predict_on_batch(batch.astype(np.float32))
            results = results if isinstance(results, list) else [results]
            store(span, [np.asarray(x, np.float32) for x in results])


def copy_in_bfloat16(model: keras.Model) -> keras.Model:
    """The same network, computing in bfloat16; variables stay float32."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    for layer in copy.layers:
        layer.dtype_policy = "mixed_bfloat16"
    return copy


def read_keras(folder: Path) -> KerasEngine:
    """From what `KerasEngine.write` wrote."""
    return KerasEngine(read_model(folder / FILE), has_accelerator())
