"""OpenVINO as the engine of a frozen network, on the CPU."""

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import openvino

from thaw.frozen.network import Span
from thaw.run.environment import read_processor
from thaw.run.threads import count_cores

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

    def pack(self) -> dict[str, bytes]:
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder, name) for name in FILES]
            openvino.serialize(self._network, *paths)
            return {path.name: path.read_bytes() for path in paths}

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


def read_openvino(
    files: dict[str, bytes], threads: int | None
) -> OpenVINOEngine:
    """From what `OpenVINOEngine.pack` gave."""
    network = openvino.Core().read_model(*(files[name] for name in FILES))
    return OpenVINOEngine(network, threads)


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
        return {f"output_{i:02d}": output for i, output in enumerate(outputs)}

    # OpenVINO asks for TensorFlow's version in a way that Python 3.13 ended:
    # it deletes by exec what another exec imported.
    frontend.get_environment_setup = lambda framework: {
        "tensorflow": tensorflow.__version__
    }
    converted = openvino.convert_model(predict.get_concrete_function())
    names = [output.get_any_name() for output in converted.outputs]
    if names != sorted(names) or len(names) != len(model.outputs):
        raise RuntimeError(f"OpenVINO lists other outputs: {names}")
    return converted
