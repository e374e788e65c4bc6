"""OpenVINO as the engine of a frozen network, on the CPU."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import openvino
from openvino import opset13 as ops

from thaw.files.threads import count_cores
from thaw.frozen.network import Engine, Span
from thaw.stage.environment import read_processor

if TYPE_CHECKING:
    from thaw.network.backend import keras

FILES = ("network.xml", "network.bin")


class OpenVINOEngine:
    """The CPU, several batches under way at once.

    Args:
        network: of inputs (batch_size, *shape).
        threads: None for all cores.
    """

    kind, uses_cpu = "openvino", True
    batch_size = 8  # keeps a core busy; larger ones gain nothing

    def __init__(self, network: openvino.Model, threads: int | None = None):
        self._core = openvino.Core()
        self.name = f"openvino {openvino.__version__.split('-')[0]}"
        able = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self.precisions = ["float32"]
        if "BF16" in able:
            self.precisions.insert(int(has_fast_bfloat16()), "bfloat16")
        self.threads = threads or count_cores()
        self._network = network
        self._queues: dict[str, openvino.AsyncInferQueue] = {}

    def write(self, folder: Path) -> None:
        try:
            openvino.serialize(
                self._network, *(folder / name for name in FILES)
            )
        except RuntimeError as error:  # OpenVINO does not say what failed
            raise OSError(
                f"{folder} can't be written; the disk may be full: {error}"
            ) from error

    def take(
        self, start: str, ends: Sequence[str], dtype: str
    ) -> "OpenVINOEngine":
        network = take_part(self._network, start, ends, dtype)
        return OpenVINOEngine(network, self.threads)

    def join(self, behind: Engine) -> "OpenVINOEngine":
        assert isinstance(behind, OpenVINOEngine), "networks of one engine"
        network = join_networks(self._network, behind._network)
        return OpenVINOEngine(network, self.threads)

    def _get_queue(self, precision: str) -> openvino.AsyncInferQueue:
        if precision not in self._queues:
            hints = {"float32": "f32", "bfloat16": "bf16"}
            compiled = self._core.compile_model(
                self._network,
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": hints[precision],
                    "PERFORMANCE_HINT": "THROUGHPUT",
                    "INFERENCE_NUM_THREADS": self.threads,
                },
            )
            self._queues[precision] = openvino.AsyncInferQueue(compiled)
        return self._queues[precision]

    def run(
        self,
        batches: Iterable[tuple[Span, np.ndarray]],
        store: Callable[[Span, list[np.ndarray]], None],
        precision: str,
    ) -> None:
        failures: list[Exception] = []

        def finish(request: openvino.InferRequest, span: Span) -> None:
            try:
                store(span, [out.data for out in request.output_tensors])
            except Exception as error:  # else OpenVINO loses it
                failures.append(error)

        queue = self._get_queue(precision)
        queue.set_callback(finish)
        try:
            for span, batch in batches:
                queue.start_async([batch], span)
        finally:
            queue.wait_all()
        if failures:
            raise failures[0]


def has_fast_bfloat16() -> bool:
    """Whether networks run faster in bfloat16 than in float32 here.

    They do with AMX, and with AVX512-BF16 on processors of AMD. On those of
    Intel AVX512-BF16 alone takes a third longer than float32, and OpenVINO
    simulates bfloat16 where a processor has neither.
    """
    about = read_processor()
    flags = about.get("flags", "").split()
    by_amd = about.get("vendor_id") == "AuthenticAMD"
    return "amx_bf16" in flags or (by_amd and "avx512_bf16" in flags)


def read_openvino(folder: Path, threads: int | None) -> OpenVINOEngine:
    """From what `OpenVINOEngine.write` wrote."""
    network = openvino.Core().read_model(*(folder / name for name in FILES))
    return OpenVINOEngine(network, threads)


def freeze_in_openvino(model: "keras.Model", dtype: str) -> OpenVINOEngine:
    """A Keras model on this engine, for an input of some dtype."""
    size = OpenVINOEngine.batch_size
    return OpenVINOEngine(convert_to_openvino(model, dtype, size))


def take_part(
    network: openvino.Model, start: str, ends: Sequence[str], dtype: str
) -> openvino.Model:
    """A copy of a part.

    Args:
        network: its outputs have names.
        start: of an output that is to be the input; "" for the network's own.
        ends: of outputs behind it.
        dtype: of the input.
    """
    part = network.clone()
    results = {x.get_any_name(): find_source(x) for x in part.outputs}
    inputs = part.get_parameters()
    if start:
        source = results[start]
        given = ops.parameter(source.get_shape(), np.dtype(dtype))
        inputs = [given]
        values = ops.convert(given, "f32").output(0)
        # OpenVINO computes with channels first: what it lists as an output
        # goes through a transposition, and what uses it comes before that.
        node = source.get_node()
        if node.get_type_name() == "Transpose":
            order = np.argsort(node.input_value(1).get_node().get_data())
            inner = ops.transpose(values, ops.constant(order)).output(0)
            move_users(node.input_value(0), inner)
        move_users(source, values)
    return make_network([results[end] for end in ends], ends, inputs)


def join_networks(
    first: openvino.Model, behind: openvino.Model
) -> openvino.Model:
    """A copy of two networks, of which one takes the other's only output."""
    first, behind = first.clone(), behind.clone()
    names = [output.get_any_name() for output in behind.outputs]
    (given,), (taken,) = first.outputs, behind.get_parameters()
    move_users(taken.output(0), find_source(given))
    return make_network(behind.outputs, names, first.get_parameters())


def move_users(source: openvino.Output, target: openvino.Output) -> None:
    for user in source.get_target_inputs():
        user.replace_source_output(target)


def find_source(output: openvino.Output) -> openvino.Output:
    """What a network lists as an output, where it is computed."""
    node = output.get_node()
    is_result = node.get_type_name() == "Result"
    return node.input_value(0) if is_result else output


def make_network(
    outputs: Sequence[openvino.Output],
    names: Sequence[str],
    inputs: Sequence,
) -> openvino.Model:
    """A network of these outputs, which get names."""
    sources = [find_source(x) for x in outputs]
    network = openvino.Model(sources, inputs, "network")
    # OpenVINO and Keras number what they name by all that was built before.
    for number, node in enumerate(network.get_ordered_ops()):
        node.set_friendly_name(f"node_{number}")
        for port in node.outputs():
            port.get_tensor().set_names(set())
    for output, name in zip(network.outputs, names, strict=True):
        output.get_tensor().set_names({name})
    return network


def convert_to_openvino(
    model: "keras.Model", dtype: str, batch_size: int
) -> openvino.Model:
    """The same network, in memory, for inputs (batch_size, *shape)."""
    import tensorflow
    from openvino.frontend.tensorflow import utils as frontend

    signature = tensorflow.TensorSpec(
        (batch_size, *model.input_shape[1:]), dtype
    )

    @tensorflow.function(input_signature=[signature])
    def predict(batch):
        outputs = model(tensorflow.cast(batch, "float32"), training=False)
        # Names keep OpenVINO from listing inner tensors as outputs as well.
        outputs = outputs if isinstance(outputs, list) else [outputs]
        return {f"output_{i:03d}": output for i, output in enumerate(outputs)}

    # OpenVINO asks for TensorFlow's version in a way that Python 3.13 ended:
    # it deletes by exec what another exec imported.
    frontend.get_environment_setup = lambda framework: {
        "tensorflow": tensorflow.__version__
    }
    converted = openvino.convert_model(predict.get_concrete_function())
    # OpenVINO lists them in an order of its own.
    outputs = sorted(converted.outputs, key=lambda x: x.get_any_name())
    if len(outputs) != len(model.outputs):
        names = [output.get_any_name() for output in outputs]
        raise RuntimeError(f"OpenVINO lists other outputs: {names}")
    return make_network(outputs, model.output_names, converted.get_parameters())
