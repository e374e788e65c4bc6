"""Frozen passes on a Ray cluster: blocks of rows out, activations back."""

import logging
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import thaw
from thaw.data.blocks import Order
from thaw.data.dataset import PortableGather
from thaw.errors import InputError
from thaw.files.threads import count_cores
from thaw.frozen.engines import unpack_network
from thaw.frozen.network import FrozenNetwork
from thaw.run.console import without_chatter

if TYPE_CHECKING:
    import ray

# Ray's own log, on stderr.
LOG_LEVEL = "fatal"

# An address at which nobody answers for so long is given up.
CONNECT_SECONDS = 8

# A worker asks for a small share of a CPU, so that one whose node is gone finds
# room on another node. Ray spreads workers over the nodes all the same.
WORKER_CPUS = 0.01

# If it is "0" when Ray is imported, a cluster of this machine alone listens on
# loopback; else on all addresses, and whoever connects runs code here.
CLUSTER = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"

# Blocks that a worker holds, with the one that it runs.
BLOCKS_AHEAD = 3


# What a worker takes and gives: columns of one row each.
Batch = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What workers know of a frozen pass, the network aside.

    Attributes:
        gather: of each split, gives the network's inputs.
        orders: of each split.
        rows: of each split, those that the order counts.
        precisions: that the network runs in, of each split.
        dtypes: of each output, of each split.
    """

    gather: Mapping[str, PortableGather]
    orders: dict[str, Order]
    rows: dict[str, np.ndarray]
    precisions: dict[str, str]
    dtypes: dict[str, list[str]]

    def list_blocks(self, starts: dict[str, int]) -> list[dict[str, Any]]:
        """Split and position of each block, from the splits' starts on."""
        return [
            {"split": split, "start": start}
            for split, order in self.orders.items()
            for start in range(starts[split], len(order), order.step)
        ]

    def read_block(self, split: str, start: int) -> np.ndarray:
        """What the views of a block's rows are made of."""
        return self.gather[split].read(self._get_rows(split, start))

    def _get_rows(self, split: str, start: int) -> np.ndarray:
        """The rows of the block at a position."""
        return self.rows[split][slice(*self.orders[split].get_block(start))]

    def run_block(
        self, network: FrozenNetwork, split: str, start: int, read: np.ndarray
    ) -> list[np.ndarray]:
        """Each output for all views of a block (block * views, *shape)."""
        order = self.orders[split]
        first, _ = order.get_block(start)
        rows = self._get_rows(split, start)
        gather = self.gather[split].gather_from(read, rows)
        count = len(rows) * order.views

        def load(a: int, b: int) -> np.ndarray:
            places, view_numbers = order.locate(start + a, start + b)
            return gather(places - first, view_numbers)

        outs = [
            np.empty((count, *shape), np.float32) for shape in network.outputs
        ]
        network.run(
            load,
            count,
            outs,
            precision=self.precisions[split],
        )
        with np.errstate(over="ignore"):  # the stage looks for infinity
            return [
                out.astype(dtype)
                for out, dtype in zip(outs, self.dtypes[split], strict=True)
            ]


def read_block(batch: Batch, job: Job) -> Batch:
    """Reads a block on the stage's node, which has the files."""
    ((split, start),) = zip(*batch.values(), strict=True)
    return batch | {"inputs": job.read_block(split, start)[None]}


class BlockRunner:
    """A node's worker: the compiled network, and augmentation beside it.

    Args:
        packed: of a reference to the packed network; Ray leaves a reference in
            a list as it is.
        job: of the pass.
        threads: of each node, by its id.
    """

    def __init__(self, packed: list, job: Job, threads: dict[str, int]):
        import ray

        node = ray.get_runtime_context().get_node_id()
        count = min(count_cores(), threads.get(node, count_cores()))
        self.network = unpack_network(ray.get(packed[0]), count)
        self.network.check_precision(*job.precisions.values())
        self.job = job

    def __call__(self, batch: Batch) -> Batch:
        ((split, start, read),) = zip(*batch.values(), strict=True)
        outputs = self.job.run_block(self.network, split, start, read)
        return {"split": [split], "start": [start]} | {
            f"output_{number}": output[None]
            for number, output in enumerate(outputs)
        }


class Cluster:
    """A Ray cluster that this process is connected to.

    Attributes:
        threads: of each node that computes, by its id.
        gpus: of all nodes.
    """

    def __init__(self):
        import ray

        self.threads = {
            node["NodeID"]: int(node["Resources"]["CPU"])
            for node in ray.nodes()
            if node["Alive"] and node["Resources"].get("CPU", 0) >= 1
        }
        self.gpus = int(ray.cluster_resources().get("GPU", 0))
        if not self.threads:
            raise InputError(
                "no node of the Ray cluster offers a CPU (ray start --num-cpus)"
            )

    def uses_gpus(self, network: FrozenNetwork) -> bool:
        return bool(self.gpus) and not network.uses_cpu

    def count_workers(self, network: FrozenNetwork) -> int:
        """One on each GPU, or on each node where the network runs on CPUs."""
        return self.gpus if self.uses_gpus(network) else len(self.threads)

    def describe(self, network: FrozenNetwork) -> str:
        count = self.count_workers(network)
        return (
            f"on {count} worker{'s' * (count > 1)} of the Ray cluster at "
            f"{os.environ['RAY_ADDRESS']}"
        )

    def run(
        self, network: FrozenNetwork, job: Job, starts: dict[str, int]
    ) -> Iterator[tuple[str, int, list[np.ndarray]]]:
        """Runs blocks anywhere; gives them in order.

        Args:
            network: what runs.
            job: which blocks it runs on, and how.
            starts: position in each split to start at, a block's.

        Yields:
            Split, position, and each output (block * views, *shape).

        Raises:
            InputError: where a worker can't compute as is asked.
        """
        import ray

        blocks = job.list_blocks(starts)
        if not blocks:  # all was done when the run was cut off
            return
        packed = ray.put(network.pack())  # held until the last block is back
        results = self._plan(network, job, blocks, packed)
        try:
            for batch in results.iter_batches(
                batch_size=1, batch_format="numpy", prefetch_batches=1
            ):
                split, start, *outputs = batch.values()
                yield str(split[0]), int(start[0]), [out[0] for out in outputs]
        except ray.exceptions.RayError as error:
            raise InputError(f"on the Ray cluster: {explain(error)}") from error

    def _plan(
        self,
        network: FrozenNetwork,
        job: Job,
        blocks: list[dict[str, Any]],
        packed: Any,
    ) -> "ray.data.Dataset":
        """Blocks are read here, and run on workers as results are asked for."""
        import ray

        here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
        return (
            ray.data.from_items(blocks, override_num_blocks=len(blocks))
            .map_batches(
                read_block,
                batch_size=1,
                fn_kwargs={"job": job},
                num_cpus=0,
                compute=ray.data.TaskPoolStrategy(size=2),
                label_selector=here,
            )
            .map_batches(
                BlockRunner,
                batch_size=1,
                fn_constructor_kwargs={
                    "packed": [packed],
                    "job": job,
                    "threads": self.threads,
                },
                compute=ray.data.ActorPoolStrategy(
                    size=self.count_workers(network),
                    max_tasks_in_flight_per_actor=BLOCKS_AHEAD,
                ),
                num_cpus=WORKER_CPUS,
                num_gpus=1 if self.uses_gpus(network) else 0,
            )
        )


def explain(error: BaseException) -> str:
    """The last line of what went wrong, which says it."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    last = lines[-1].strip() if lines else type(error).__name__
    return last.rpartition("InputError: ")[2]


@contextmanager
def open_cluster() -> Iterator[Cluster | None]:
    """The cluster that RAY_ADDRESS names, or None where it is not set.

    "local" names a cluster that is this machine alone.

    Raises:
        InputError: if Ray is not installed, or the address does not answer.
    """
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        yield None
        return
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", LOG_LEVEL)
    if address == "local":
        os.environ.setdefault(CLUSTER, "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise InputError(
            "RAY_ADDRESS is set, and Ray is not installed: pip install --group "
            f"ray ({error})"
        ) from error
    if "://" in address:
        raise InputError(
            f"RAY_ADDRESS is {address}; the stage must run on a node of the "
            "cluster, with HOST:PORT, auto or local"
        )
    with without_chatter():
        connect(address)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = True
    context.target_max_block_size = None  # a block is what we say it is
    try:
        yield Cluster()
    finally:
        ray.shutdown()


def connect(address: str) -> None:
    """Raises InputError for an address that nobody answers at."""
    import ray

    failures = []

    def initialize() -> None:
        try:
            ray.init(
                address=address,
                runtime_env={"py_modules": [str(Path(thaw.__file__).parent)]},
                include_dashboard=False if address == "local" else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except Exception as error:
            failures.append(error)

    if address == "local":
        initialize()
    else:  # Ray itself would go on trying for minutes
        knock(address)
        thread = threading.Thread(target=initialize, daemon=True)
        thread.start()
        thread.join(CONNECT_SECONDS)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if failures or not ray.is_initialized():
        why = (
            explain(failures[0])
            if failures
            else f"no answer in {CONNECT_SECONDS} s (some clusters answer only "
            "to a RAY_AUTH_TOKEN)"
        )
        raise InputError(f"no Ray cluster at RAY_ADDRESS={address}: {why}")


def knock(address: str) -> None:
    """Raises InputError where no program listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    if not port.isdigit():  # auto: Ray looks for it
        return
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        raise InputError(
            f"no Ray cluster at RAY_ADDRESS={address}: {error}"
        ) from error
