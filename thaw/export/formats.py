"""Models for production: one file or folder for each runtime, each complete.

Images of any size in [0, 255] in, calibrated probabilities out. Classes,
temperature and image size travel with each.
"""

import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from thaw.network.backend import keras
from thaw.network.model_file import save_model
from thaw.network.parts import get_part
from thaw.run.console import without_chatter
from thaw.run.efficientnet import IMAGE, LOGITS

# Where each lies in the folder of exports: a file, or a folder of files.
PATHS = {
    "keras": "classifier.keras",
    "saved_model": "saved_model",
    "onnx": "classifier.onnx",
    "litert": "classifier.tflite",
    "openvino": "openvino",
}

INPUT, OUTPUT = "images", "probabilities"

# The first in which Resize can average over what it leaves out.
ONNX_OPSET = 18

# Where nothing antialiases, what is larger than the model's size is resized to
# so many times that, then averaged. On 93 photographs of four to seven times
# the size that leaves a quarter of the mean difference in a probability.
OVERSAMPLING = 4

# Of what each export was told, as `save_model` was.
ABOUT = "thaw.json"


def build_classifier(model: keras.Model, about: dict[str, Any]) -> keras.Model:
    """Images (n, any height, any width, 3) to calibrated probabilities.

    Args:
        model: as in models/finetuned.keras.
        about: its classes, temperature, image_size and fit.
    """
    side = about["image_size"]
    images = keras.Input((None, None, 3), name=INPUT)
    x = keras.layers.Resizing(
        side,
        side,
        crop_to_aspect_ratio=about["fit"] == "crop",
        antialias=True,
    )(images)
    return keras.Model(images, scale_logits(model, about)(x), name="classifier")


def crop_images(images, about: dict[str, Any]):
    """The middle of a TensorFlow batch, where fit is crop.

    Keras's own crop divides floats, which TensorFlow and LiteRT may turn into
    a product with the reciprocal: of some sizes, one pixel too few.
    """
    import tensorflow

    if about["fit"] != "crop":
        return images
    sides = tensorflow.shape(images)[1:3]
    side = tensorflow.reduce_min(sides)
    top, left = tensorflow.unstack((sides - side) // 2)
    return images[:, top : top + side, left : left + side]


def make_resizing(
    about: dict[str, Any], antialias: bool, scale: int = 1
) -> keras.layers.Resizing:
    """To `scale` times the size that the model takes.

    Args:
        antialias: whether resizing averages over what it leaves out, as
            `thaw.data.images.resize_image` does; not every runtime can.
    """
    side = about["image_size"] * scale
    return keras.layers.Resizing(side, side, antialias=antialias)


def trace_classifier(
    model: keras.Model, about: dict[str, Any], antialias: bool
):
    """A TensorFlow function of images of any size."""
    network = scale_logits(model, about)
    resize = make_resizing(about, antialias)
    return trace(
        lambda x: network(resize(crop_images(x, about)), training=False)
    )


def scale_logits(model: keras.Model, about: dict[str, Any]) -> keras.Model:
    """The same model, its probabilities calibrated, its size fixed.

    Normalization becomes the Rescaling that it is: its constants are inputs
    to ONNX's converter.
    """

    def call(layer, *args, **kwargs):
        if isinstance(layer, keras.layers.Normalization):
            stddev = np.sqrt(np.ravel(layer.variance))
            stddev = np.maximum(stddev, keras.config.epsilon())
            layer = keras.layers.Rescaling(
                (1 / stddev).tolist(),
                (-np.ravel(layer.mean) / stddev).tolist(),
                name=layer.name,
            )
        return layer(*args, **kwargs)

    copy = keras.models.clone_model(
        get_part(model, IMAGE, LOGITS),
        call_function=call,
        clone_function=lambda layer: layer,
    )
    (x,) = copy.outputs
    x = keras.layers.Rescaling(1 / about["temperature"], name="temperature")(x)
    x = keras.layers.Softmax(name=OUTPUT)(x)
    return keras.Model(copy.inputs[0], x, name="network")


def trace(
    predict: Callable, side: int | None = None, batch_size: int | None = None
):
    """A TensorFlow function of images (batch_size, side, side, 3) uint8.

    Args:
        predict: images of float32 to probabilities.
        side, batch_size: None for any.
    """
    import tensorflow

    signature = tensorflow.TensorSpec(
        (batch_size, side, side, 3), "uint8", name=INPUT
    )

    @tensorflow.function(input_signature=[signature])
    def run(images):
        images = tensorflow.cast(images, "float32")
        return {OUTPUT: predict(images)}

    return run


def hold_variables(model: keras.Model):
    """A TensorFlow module that keeps them; Keras's own export has each twice,
    and LiteRT's converter finds none in a Keras model."""
    import tensorflow

    module = tensorflow.Module()
    module.kept = [variable.value for variable in model.variables]
    return module


def write_keras(path: Path, model: keras.Model, about: dict[str, Any]) -> None:
    classifier = build_classifier(model, about)
    save_model(classifier, path, **about, any_size=True)


def write_saved_model(
    path: Path, model: keras.Model, about: dict[str, Any]
) -> None:
    """With about in assets.extra, which TensorFlow leaves to its users."""
    import tensorflow

    predict = trace_classifier(model, about, antialias=True)
    tensorflow.saved_model.save(hold_variables(model), path, signatures=predict)
    (path / "fingerprint.pb").unlink()  # has a random part, and no reader
    (path / "assets.extra").mkdir()
    (path / "assets.extra" / ABOUT).write_text(describe(about), "utf-8")


def write_onnx(path: Path, model: keras.Model, about: dict[str, Any]) -> None:
    """With about in metadata_props."""
    with warnings.catch_warnings(action="ignore"):
        import onnx
        import tf2onnx
        from keras.src.export.tf2onnx_lib import patch_tf2onnx

        patch_tf2onnx()  # as Keras's own export does
        predict = trace_classifier(model, about, antialias=False)
        graph, _ = tf2onnx.convert.from_function(
            predict, predict.input_signature, opset=ONNX_OPSET
        )
    for node in graph.graph.node:
        if node.op_type == "Resize":
            antialias = onnx.helper.make_attribute("antialias", 1)
            node.attribute.append(antialias)
    for tensor, names in (
        (graph.graph.input[0], ("batch", "height", "width")),
        (graph.graph.output[0], ("batch",)),
    ):
        dims = tensor.type.tensor_type.shape.dim
        for dim, name in zip(dims, names, strict=False):
            dim.dim_param = name
    graph.graph.doc_string = ""  # counts what was traced before
    drop_reshapes(graph)
    name_values(graph.graph)
    onnx.helper.set_model_props(
        graph, {key: describe(value) for key, value in about.items()}
    )
    onnx.save(graph, path)


def drop_reshapes(model) -> None:
    """Takes those out of an ONNX model that change no shape.

    tf2onnx leaves some in, not always the same ones.
    """
    import onnx

    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in graph.value_info
    }
    targets = {
        constant.name: onnx.numpy_helper.to_array(constant).tolist()
        for constant in graph.initializer
        if constant.data_type == onnx.TensorProto.INT64
    }
    nodes, same = [], {}
    for node in model.graph.node:
        given = [same.get(name, name) for name in node.input]
        node.input[:] = given
        if node.op_type == "Reshape" and given[1] in targets:
            first, *others = targets[given[1]]
            if first == -1 and others == shapes.get(given[0], [0])[1:]:
                same[node.output[0]] = given[0]
                continue
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def name_values(graph) -> None:
    """Numbers what an ONNX graph has; tf2onnx leaves names to chance."""
    constants = {constant.name: constant for constant in graph.initializer}
    kept = {value.name for value in (*graph.input, *graph.output)}
    names = {}
    for number, node in enumerate(graph.node):
        node.name = f"node_{number}"
        for value in (*node.input, *node.output):
            if value and value not in kept:
                names.setdefault(value, f"value_{len(names)}")
        renamed = [
            [names.get(x, x) for x in y] for y in (node.input, node.output)
        ]
        node.input[:], node.output[:] = renamed
    del graph.initializer[:], graph.value_info[:]
    for value, name in names.items():
        if value in constants:
            graph.initializer.append(constants[value])
            graph.initializer[-1].name = name


def write_litert(path: Path, model: keras.Model, about: dict[str, Any]) -> None:
    """Weights in float16, one image at a time; with labels.txt and about in a
    zip at its end, as LiteRT's metadata has associated files."""
    import tensorflow

    network = scale_logits(model, about)
    plain = make_resizing(about, antialias=False)
    fine = make_resizing(about, antialias=False, scale=OVERSAMPLING)
    average = keras.layers.AveragePooling2D(OVERSAMPLING)

    def classify(images):
        images = crop_images(images, about)
        large = (
            tensorflow.reduce_max(tensorflow.shape(images)[1:3])
            > about["image_size"]
        )
        share = tensorflow.cast(large, "float32")
        x = share * average(fine(images)) + (1 - share) * plain(images)
        return network(x, training=False)

    predict = trace(classify, batch_size=1).get_concrete_function()
    converter = tensorflow.lite.TFLiteConverter.from_concrete_functions(
        [predict], hold_variables(network)
    )
    # By way of a SavedModel the conversion takes more than twice as long.
    converter.experimental_lower_to_saved_model = False
    converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tensorflow.float16]
    path.write_bytes(converter.convert())
    with zipfile.ZipFile(path, "a") as archive:
        labels = "\n".join(about["classes"])
        archive.writestr(zipfile.ZipInfo("labels.txt"), labels)
        archive.writestr(zipfile.ZipInfo(ABOUT), describe(about))


def write_openvino(
    path: Path, model: keras.Model, about: dict[str, Any]
) -> None:
    """Resizing as Pillow does; with about in rt_info of classifier.xml."""
    import openvino

    from thaw.export.resampling import crop_square, resize_images

    side = about["image_size"]
    network = scale_logits(model, about)
    predict = trace(lambda x: network(x, training=False), side)
    converted = openvino.convert_model(predict.get_concrete_function())
    (inner,) = converted.get_parameters()
    images = openvino.opset15.parameter([-1, -1, -1, 3], np.uint8)
    images.output(0).set_names(inner.output(0).names)
    square = crop_square(images) if about["fit"] == "crop" else images
    inner.output(0).replace(resize_images(square, side).output(0))
    complete = openvino.Model(converted.get_results(), [images], "classifier")
    complete.set_rt_info(describe(about), "thaw")
    openvino.save_model(
        complete, path / "classifier.xml", compress_to_fp16=False
    )


WRITERS: dict[str, Callable[[Path, keras.Model, dict], None]] = {
    "keras": write_keras,
    "saved_model": write_saved_model,
    "onnx": write_onnx,
    "litert": write_litert,
    "openvino": write_openvino,
}


def describe(about: Any) -> str:
    return json.dumps(about, ensure_ascii=False)


def write_export(
    folder: Path, name: str, model: keras.Model, about: dict[str, Any]
) -> None:
    """Writes one of `PATHS` into a folder."""
    with without_chatter():
        WRITERS[name](folder / PATHS[name], model, about)
