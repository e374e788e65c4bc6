"""Keras as the engine of a frozen network, on its backend's device."""

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from thaw.frozen.network import Span
from thaw.network.backend import has_accelerator, keras

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
        if accelerated:
            self._models["bfloat16"] = copy_in_bfloat16(model)
            for each in self._models.values():
                each.compile(jit_compile=True)

    def pack(self) -> dict[str, bytes]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, FILE)
            self._models["float32"].save(path)
            return {FILE: path.read_bytes()}

    def run(
        self,
        batches: Iterable[tuple[Span, np.ndarray]],
        store: Callable[[Span, list[np.ndarray]], None],
        precision: str,
    ) -> None:
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


def read_keras(files: dict[str, bytes]) -> KerasEngine:
    """From what `KerasEngine.pack` gave."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, FILE)
        path.write_bytes(files[FILE])
        model = keras.models.load_model(path, compile=False)
    return KerasEngine(model, has_accelerator())
