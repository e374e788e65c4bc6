"""Training on several accelerators, processes and hosts: Keras on JAX.

A step is that of one process on one device, whose batch is laid out over all
devices: each reads and computes its own rows of the activations, while labels
and weights are whole on each. Rows that fill a batch up to a multiple of the
devices are cut off before the network sees them, so that losses, gradients,
batch statistics and dropout are those of the batch itself.
"""

import atexit
import ctypes
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np

from thaw.errors import InputError
from thaw.files.rank import is_first, set_rank
from thaw.network.backend import keras
from thaw.run.process import report, write_error

# What launchers say: how many processes there are, and which one this is.
LAUNCHERS = (
    ("KERAS_DISTRIBUTION_NUM_PROCESSES", "KERAS_DISTRIBUTION_PROCESS_ID"),
    ("KERAS_DISTRIBUTION_NUM_PROCESSES", "JOB_COMPLETION_INDEX"),  # Kubernetes
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
)
ADDRESSES = "KERAS_DISTRIBUTION_JOB_ADDRESSES"

# How many processes a host has, where the launcher says so.
TASKS_HERE = ("SLURM_STEP_TASKS_PER_NODE", "OMPI_COMM_WORLD_LOCAL_SIZE")

# Seconds until processes must have met, to which JAX adds some, and until a
# lost process is noticed.
CONNECT_SECONDS = 20
HEARTBEAT_SECONDS = 20

# Words of an error that mean that another process has ended.
LOST = re.compile(
    r"Gloo.*(clos|reset|refus|[Tt]ime)|NCCL|[Cc]oordination|UNAVAILABLE|"
    r"DEADLINE_EXCEEDED"
)
LOST_LINE = (
    "another process of this training ended or can't be reached; `dvc repro` "
    "resumes"
)


# What C calls must live as long as the program.
HANDLERS: list = []


@contextmanager
def join_processes() -> Iterator[None]:
    """Joins the other processes of a training, if there are any.

    The end of any process ends all, each with one line.

    Raises:
        InputError: if there are several processes and the backend is not JAX,
            or they can't find each other.
    """
    processes, rank = find_processes()
    set_rank(rank)
    if processes == 1:
        yield
        return
    if keras.backend.backend() != "jax":
        raise InputError(
            "several processes train on JAX alone: set KERAS_BACKEND=jax"
        )
    import jax

    try:
        connect_processes(processes, rank)
        yield
        jax.distributed.shutdown()  # when all are done
    except BaseException as error:
        if LOST.search(str(error)):
            report(LOST_LINE)
            os._exit(1)
        # Else JAX waits at its exit for those that wait for this one.
        atexit.register(os._exit, 1)
        raise


def find_processes() -> tuple[int, int]:
    """How many processes train together, and which one this is, from 0."""
    known = [pair for pair in LAUNCHERS if set(pair) <= os.environ.keys()]
    for pair in known:
        count, rank = (os.environ[name] for name in pair)
        if not (count.isdecimal() and rank.isdecimal()) or (
            int(rank) >= int(count)
        ):
            raise InputError(
                f"{pair[0]}={count} and {pair[1]}={rank}; allowed: a number of "
                "processes, and one from 0 for each below it"
            )
        return int(count), int(rank)
    return 1, 0


def connect_processes(processes: int, rank: int) -> None:
    """Waits until all processes are there, and watches them from then on.

    JAX's own service does, by heartbeats, and aborts the process with a page of
    C++ when another one is lost: that becomes one line.
    """
    import jax

    sys.stdout.flush()
    sys.stdout, sys.stderr = (
        os.fdopen(os.dup(number), "w", buffering=1) for number in (1, 2)
    )
    with tempfile.TemporaryFile() as captured:  # what is not Python's
        for number in (1, 2):
            os.dup2(captured.fileno(), number)

    def end(number: int) -> None:
        text = os.pread(2, 2**20, 0)
        if LOST.search(text.decode(errors="replace")):
            report(LOST_LINE)
        else:
            write_error(text)
        os._exit(1)

    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(end)
    HANDLERS.append(handler)
    ctypes.CDLL(None).signal(signal.SIGABRT, handler)
    jax.config.update("jax_enable_preemption_service", False)  # takes SIGTERM
    tasks_here = [os.environ.get(n, "").split("(")[0] for n in TASKS_HERE]
    try:
        jax.distributed.initialize(
            os.environ.get(ADDRESSES, "").split(",")[0] or None,
            processes,
            rank,
            # Alone on its host a process has all devices; else JAX decides.
            local_device_ids=[] if "1" in tasks_here else None,
            initialization_timeout=CONNECT_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"the {processes} processes can't find each other: {reason}; "
            f"{ADDRESSES}=host:port names the first one's"
        ) from error


class RowsParallel(keras.distribution.DataParallel):
    """Arrays of two dimensions and more by rows, others whole."""

    def __init__(self):
        super().__init__(auto_shard_dataset=False)

    def get_data_layout(self, data_shape):
        if len(data_shape) < 2:
            return self.get_whole_layout(data_shape)
        return super().get_data_layout(data_shape)

    def get_whole_layout(self, shape):
        axes = [None] * len(shape)
        return keras.distribution.TensorLayout(axes, self.device_mesh)


class Batch(keras.layers.Layer):
    """Activations without the rows that `pick_own_rows` added."""

    def call(self, labels, x):
        """(n,) and (n or more, *shape) to (n, *shape)."""
        layout = keras.distribution.distribution().get_data_layout(x.shape)
        x = x[: labels.shape[0]]
        return keras.distribution.distribute_tensor(x, layout)


class Whole(keras.layers.Layer):
    """All rows on each device."""

    def call(self, x):
        layout = keras.distribution.distribution().get_whole_layout(x.shape)
        return keras.distribution.distribute_tensor(x, layout)


def distribute_model(model: keras.Model) -> keras.Model:
    """Takes what `Batches` gives from now on, where there are several devices.

    Args:
        model: activations to logits. Its variables go to all devices.

    Returns:
        Labels and activations to logits, by the same layers; `model` itself
        where there is one device.
    """
    if keras.backend.backend() != "jax":
        return model
    import jax

    if jax.device_count() == 1:
        return model
    if not keras.distribution.distribution():
        keras.distribution.set_distribution(RowsParallel())
    place_variables(model)
    labels = keras.Input((), dtype="int32")
    inputs = [keras.Input(x.shape[1:]) for x in model.inputs]
    batch = [Batch()(labels, x) for x in inputs]
    (logits,) = keras.tree.flatten(model(batch if len(batch) > 1 else batch[0]))
    return keras.Model([labels, *inputs], Whole()(logits))


def place_variables(model: keras.Model) -> None:
    """Puts the first process's values of all variables on every device.

    Where nothing is distributed they stay where they are.
    """
    distribution = keras.distribution.distribution()
    if not distribution:
        return
    import jax
    from jax.experimental.multihost_utils import broadcast_one_to_all

    values = [variable.numpy() for variable in model.variables]
    values = broadcast_one_to_all(values)
    for variable, value in zip(model.variables, values, strict=True):
        layout = distribution.get_whole_layout(value.shape).backend_layout
        variable.assign(
            jax.make_array_from_process_local_data(layout, np.asarray(value))
        )


def pick_own_rows(rows: np.ndarray) -> np.ndarray:
    """Those of a batch that this process reads.

    Args:
        rows: (n,) of the whole batch.

    Returns:
        An equal share for each process; the last row is repeated up to a
        multiple of the devices.
    """
    distribution = keras.distribution.distribution()
    devices = distribution.device_mesh.devices.size
    rows = np.pad(rows, (0, -len(rows) % devices), mode="edge")
    shares = np.split(rows, distribution.num_processes)
    return shares[distribution.data_shard_id]


def share_file(path: Path) -> Path | BytesIO | None:
    """The first process's file, for all; None where it has none."""
    distribution = keras.distribution.distribution()
    if not distribution or distribution.num_processes == 1:
        return path if path.exists() else None
    from jax.experimental.multihost_utils import broadcast_one_to_all

    found = is_first() and path.exists()
    data = np.fromfile(path, np.uint8) if found else np.zeros(0, np.uint8)
    size = int(broadcast_one_to_all(np.int32(len(data))))
    if not size:
        return None
    data = np.pad(data, (0, size - len(data)))
    return BytesIO(np.asarray(broadcast_one_to_all(data)).tobytes())
