"""The export formats: one record each, and one module each.

A new format takes a module like the ones imported here, a line in FORMATS, and
its name in `thaw.run.params`.
"""

from pathlib import Path

from thaw.export import (
    keras_format,
    litert_format,
    onnx_format,
    openvino_format,
    saved_model_format,
)
from thaw.export.contract import Format, Predict
from thaw.network.backend import keras
from thaw.network.model_info import ModelInfo
from thaw.run.console import without_chatter

# By the names that export.formats takes. The model card has this order.
FORMATS: dict[str, Format] = {
    "keras": keras_format.FORMAT,
    "saved_model": saved_model_format.FORMAT,
    "onnx": onnx_format.FORMAT,
    "openvino": openvino_format.FORMAT,
    "litert": litert_format.FORMAT,
}


def write_export(
    folder: Path, name: str, model: keras.Model, info: ModelInfo
) -> None:
    """Writes a model in one of `FORMATS` into a folder of exports."""
    export = FORMATS[name]
    with without_chatter():
        export.write(folder / export.path, model, info)


def open_export(folder: Path, name: str) -> Predict:
    """Opens the export of one of `FORMATS` in its own runtime."""
    export = FORMATS[name]
    with without_chatter():
        return export.open_runtime(folder / export.path)
