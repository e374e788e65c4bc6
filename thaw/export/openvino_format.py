"""OpenVINO: a folder, with the ModelInfo in rt_info of classifier.xml."""

from pathlib import Path

import numpy as np

from thaw.export.classifier import scale_logits, trace_prediction
from thaw.export.contract import OUTPUT, Format, Predict
from thaw.network.backend import keras
from thaw.network.model_info import ModelInfo

MODEL = "classifier.xml"


def write(path: Path, model: keras.Model, info: ModelInfo) -> None:
    """Puts resizing as Pillow does it before the converted network."""
    import openvino

    from thaw.export.resampling import crop_square, resize_images

    network = scale_logits(model, info)
    predict = trace_prediction(
        lambda x: network(x, training=False), info.image_size
    )
    converted = openvino.convert_model(predict.get_concrete_function())
    (inner,) = converted.get_parameters()
    images = openvino.opset15.parameter([-1, -1, -1, 3], np.uint8)
    images.output(0).set_names(inner.output(0).names)
    square = crop_square(images) if info.fit == "crop" else images
    resized = resize_images(square, info.image_size)
    inner.output(0).replace(resized.output(0))
    complete = openvino.Model(converted.get_results(), [images], "classifier")
    complete.set_rt_info(info.to_json(), "thaw")
    openvino.save_model(complete, path / MODEL, compress_to_fp16=False)


def open_runtime(path: Path) -> Predict:
    import openvino

    # Where the processor has it, bfloat16 is the default.
    network = openvino.Core().compile_model(
        path / MODEL, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    return lambda images: network(images)[OUTPUT]


def write_caveat(info: ModelInfo) -> str:
    return (
        "OpenVINO computes in bfloat16 where the processor has it, unless it is"
        " told\n`INFERENCE_PRECISION_HINT: f32`, with which it was scored."
    )


FORMAT = Format("openvino", write, open_runtime, write_caveat)
