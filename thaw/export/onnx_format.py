"""ONNX: one file, with the ModelInfo in its metadata_props."""

import json
import warnings
from pathlib import Path

from thaw.export.classifier import trace_classifier
from thaw.export.contract import INPUT, OUTPUT, Format, Predict
from thaw.network.backend import keras
from thaw.network.model_info import ModelInfo

# The first one whose Resize can average over the pixels that it leaves out.
OPSET = 18


def write(path: Path, model: keras.Model, info: ModelInfo) -> None:
    import onnx

    converted = convert_to_onnx(model, info)
    antialias_resizing(converted.graph)
    name_dimensions(converted.graph)
    converted.graph.doc_string = ""  # counts what was traced before
    drop_reshapes(converted)
    name_values(converted.graph)
    onnx.helper.set_model_props(
        converted,
        {
            key: json.dumps(value, ensure_ascii=False)
            for key, value in info.to_dict().items()
        },
    )
    onnx.save(converted, path)


def convert_to_onnx(model: keras.Model, info: ModelInfo):
    """An onnx.ModelProto as tf2onnx makes it, without antialiasing."""
    with warnings.catch_warnings(action="ignore"):
        import tf2onnx
        from keras.src.export.tf2onnx_lib import patch_tf2onnx

        patch_tf2onnx()  # as Keras's own export does
        predict = trace_classifier(model, info, antialias=False)
        converted, _ = tf2onnx.convert.from_function(
            predict, predict.input_signature, opset=OPSET
        )
    return converted


def antialias_resizing(graph) -> None:
    """Turns on antialiasing, which tf2onnx leaves off."""
    import onnx

    for node in graph.node:
        if node.op_type == "Resize":
            antialias = onnx.helper.make_attribute("antialias", 1)
            node.attribute.append(antialias)


def name_dimensions(graph) -> None:
    """Names the dimensions that may have any size."""
    for value, names in (
        (graph.input[0], ("batch", "height", "width")),
        (graph.output[0], ("batch",)),
    ):
        dimensions = value.type.tensor_type.shape.dim
        for dimension, name in zip(dimensions, names, strict=False):
            dimension.dim_param = name


def drop_reshapes(model) -> None:
    """Removes the Reshape nodes of an ONNX model that change no shape.

    tf2onnx leaves some of them in, not always the same ones.
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
    nodes = []
    same: dict[str, str] = {}  # a Reshape's output to what it was made of
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
    """Numbers the nodes and values of an ONNX graph.

    The names that tf2onnx gives them differ from run to run.
    """
    constants = {constant.name: constant for constant in graph.initializer}
    kept = {value.name for value in (*graph.input, *graph.output)}
    names: dict[str, str] = {}
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


def open_runtime(path: Path) -> Predict:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        path, providers=["CPUExecutionProvider"]
    )
    return lambda images: session.run([OUTPUT], {INPUT: images})[0]


FORMAT = Format("classifier.onnx", write, open_runtime)
