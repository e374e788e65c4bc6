"""LiteRT, for telephones: one file, weights in float16, one image at a time.

A zip at the file's end holds labels.txt and the ModelInfo, as the associated
files of LiteRT's metadata lie.
"""

import zipfile
from pathlib import Path

import numpy as np

from thaw.export.classifier import (
    crop_images,
    hold_variables,
    make_resizing,
    scale_logits,
    trace_prediction,
)
from thaw.export.contract import Format, Predict
from thaw.files.threads import count_cores
from thaw.network.backend import keras
from thaw.network.model_info import INFO_FILE, ModelInfo

# LiteRT can't antialias. The graph resizes an image that is larger than the
# model's size to this many times that size, then averages. On 93 photographs
# of four to seven times the size that leaves a quarter of the mean difference
# in a probability.
OVERSAMPLING = 4


def write(path: Path, model: keras.Model, info: ModelInfo) -> None:
    path.write_bytes(convert_to_litert(model, info))
    with zipfile.ZipFile(path, "a") as archive:
        labels = "\n".join(info.classes)
        archive.writestr(zipfile.ZipInfo("labels.txt"), labels)
        archive.writestr(zipfile.ZipInfo(INFO_FILE), info.to_json())


def convert_to_litert(model: keras.Model, info: ModelInfo) -> bytes:
    import tensorflow

    network = scale_logits(model, info)
    plain = make_resizing(info, antialias=False)
    fine = make_resizing(info, antialias=False, scale=OVERSAMPLING)
    average = keras.layers.AveragePooling2D(OVERSAMPLING)

    def classify(images):
        images = crop_images(images, info)
        large = (
            tensorflow.reduce_max(tensorflow.shape(images)[1:3])
            > info.image_size
        )
        share = tensorflow.cast(large, "float32")
        x = share * average(fine(images)) + (1 - share) * plain(images)
        return network(x, training=False)

    predict = trace_prediction(classify, batch_size=1).get_concrete_function()
    converter = tensorflow.lite.TFLiteConverter.from_concrete_functions(
        [predict], hold_variables(network)
    )
    # By way of a SavedModel the conversion takes more than twice as long.
    converter.experimental_lower_to_saved_model = False
    converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tensorflow.float16]
    return converter.convert()


def open_runtime(path: Path) -> Predict:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=count_cores())
    interpreter.allocate_tensors()  # prints a line the first time
    (given,) = interpreter.get_input_details()
    (made,) = interpreter.get_output_details()

    def predict(images: np.ndarray) -> np.ndarray:
        shape = (1, *images.shape[1:])
        interpreter.resize_tensor_input(given["index"], shape)
        interpreter.allocate_tensors()
        rows = []
        for image in images:
            interpreter.set_tensor(given["index"], image[None])
            interpreter.invoke()
            rows.append(interpreter.get_tensor(made["index"])[0])
        return np.array(rows)

    return predict


def write_caveat(info: ModelInfo) -> str:
    return (
        "LiteRT has float16 weights, takes one image at a time, and antialiases"
        f" less:\npictures of more than {OVERSAMPLING * info.image_size} pixels"
        " a side are better halved before."
    )


FORMAT = Format("classifier.tflite", write, open_runtime, write_caveat)
