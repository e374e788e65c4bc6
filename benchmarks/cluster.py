"""Extraction on a Ray cluster of three hosts, against one process.

    make cluster        # as root: hosts are network namespaces

A head and two workers, each with an address of its own and one core, are
started, used and stopped. Checked: that the features are those of one process,
byte for byte, also where a node is killed in the middle of each of ten runs.
Measured: images/s, from what more views take longer.
"""

import argparse
import hashlib
import os
import random
import secrets
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.project import Project

NETWORK = "10.177.0"
PORT = 6379
BRIDGE = "thaw-bridge"
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
VIEWS = (4, 16)  # what the second has more is timed


def call(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True)


class Host:
    """A network namespace with an address, and the Ray node in it."""

    def __init__(self, number: int):
        self.number, self.name = number, f"thaw-host{number}"
        self.address = f"{NETWORK}.{number + 1}"
        self.node = None
        veth = f"thaw-veth{number}"
        call("ip", "netns", "add", self.name)
        call(
            *f"ip link add {veth} type veth peer eth0 netns".split(), self.name
        )
        call(*f"ip link set {veth} master {BRIDGE} up".split())
        inside = ["ip", "-n", self.name]
        call(*inside, *f"addr add {self.address}/24 dev eth0".split())
        call(*inside, *["link", "set", "eth0", "up"])
        call(*inside, *["link", "set", "lo", "up"])

    def enter(self, *command: object) -> list[str]:
        return [str(x) for x in ("ip", "netns", "exec", self.name, *command)]

    def start(self, head: "Host", cpus: int, logs: Path) -> None:
        """A Ray node; on workers it has one core, in turn."""
        where = (
            [f"--port={PORT}", "--include-dashboard=false", "--head"]
            if head is self
            else [f"--address={head.address}:{PORT}"]
        )
        cores = sorted(os.sched_getaffinity(0))
        core = cores[self.number % len(cores)]
        pin = [] if head is self else ["taskset", "--cpu-list", core]
        with (logs / f"{self.name}.log").open("a") as log:
            self.node = subprocess.Popen(
                self.enter(
                    *pin,
                    *(Path(sys.executable).with_name("ray"), "start"),
                    f"--node-ip-address={self.address}",
                    f"--num-cpus={cpus}",
                    "--object-store-memory=500000000",
                    "--disable-usage-stats",
                    "--block",
                    *where,
                ),
                stdout=log,
                stderr=log,
                env={**os.environ, **TOKEN},
                start_new_session=True,
            )

    def kill(self) -> None:
        """All that runs in the namespace, as when the power goes."""
        pids = subprocess.check_output(
            ["ip", "netns", "pids", self.name], text=True
        )
        for pid in map(int, pids.split()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if self.node:
            self.node.wait()

    def remove(self) -> None:
        self.kill()
        call("ip", "netns", "delete", self.name)


def count_nodes(head: Host) -> int:
    """Of the cluster, those that are alive."""
    done = subprocess.run(
        head.enter(
            sys.executable,
            "-c",
            f"import ray; ray.init('{head.address}:{PORT}', logging_level=40); "
            "print(sum(node['Alive'] for node in ray.nodes()))",
        ),
        capture_output=True,
        text=True,
        env={**os.environ, **TOKEN},
    )
    return int(done.stdout.split()[-1]) if done.returncode == 0 else 0


def wait_for(head: Host, nodes: int) -> None:
    for _ in range(60):
        if count_nodes(head) == nodes:
            return
        time.sleep(0.5)
    sys.exit(f"the cluster has not come to {nodes} nodes")


@contextmanager
def start_cluster(workers: int, logs: Path) -> Iterator[list[Host]]:
    """The head, without a CPU of its own, and workers of one CPU each."""
    call("ip", "link", "add", BRIDGE, "type", "bridge")
    hosts = []
    try:
        call("ip", "link", "set", BRIDGE, "up")
        for number in range(workers + 1):
            hosts.append(Host(number))
        for host in hosts:
            host.start(hosts[0], int(host is not hosts[0]), logs)
            wait_for(hosts[0], len(hosts[: host.number + 1]))
        yield hosts
    finally:
        for host in reversed(hosts):
            host.remove()
        call("ip", "link", "delete", BRIDGE)


def extract(project: Project, head: Host | None = None) -> float:
    """Seconds of `extract`, on the cluster where its head is given."""
    command = [sys.executable, "-m", "stages.extract"]
    env = dict(os.environ)
    if head:
        command = head.enter(*command)
        env |= TOKEN | {"RAY_ADDRESS": f"{head.address}:{PORT}"}
    shutil.rmtree(project.folder / "data/features", ignore_errors=True)
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=project.folder, env=env, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-2000:])
    return time.perf_counter() - start


def digest(project: Project) -> str:
    """Of all features, names and bytes."""
    whole = hashlib.sha256()
    for path in sorted((project.folder / "data/features").rglob("*")):
        if path.is_file():
            whole.update(str(path.relative_to(project.folder)).encode())
            whole.update(path.read_bytes())
    return whole.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cluster", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and tidy up
    if os.geteuid() or not shutil.which("ip"):
        sys.exit("make cluster needs root and the command ip (iproute2)")
    with (
        tempfile.TemporaryDirectory() as folder,
        start_cluster(2, Path(folder)) as hosts,
    ):
        head, *workers = hosts
        print(f"head {head.address}, workers on", end=" ")
        print(*(worker.address for worker in workers), sep=" and ", flush=True)
        project = Project.create(Path(folder, "project"))
        project.set({"prepare": {"image_size": options.image_size}})
        project.repro("prepare")
        if options.rounds:
            compare_throughput(project, head, options.rounds)
        project.set({"extract": {"views": VIEWS[0]}})
        kill_nodes(project, head, workers, options, Path(folder))


def compare_throughput(project: Project, head: Host, rounds: int) -> None:
    """By what more views take, which leaves out how long it takes to start."""
    labels = np.load(project.folder / "data/prepared/train/labels.npy")
    more = len(labels) * (VIEWS[1] - VIEWS[0])
    shares = []
    for _ in range(rounds):
        seconds = {"one process": [], "two workers": []}
        for views in VIEWS:
            project.set({"extract": {"views": views}})
            seconds["one process"].append(extract(project))
            expected = digest(project)
            seconds["two workers"].append(extract(project, head))
            if digest(project) != expected:
                sys.exit("the cluster's features differ")
        rates = {x: more / (many - few) for x, (few, many) in seconds.items()}
        for name, (few, many) in seconds.items():
            print(
                f"{name}: {few:.1f} s and {many:.1f} s, "
                f"{rates[name]:.0f} images/s",
                flush=True,
            )
        shares.append(rates["two workers"] / rates["one process"])
    print(
        f"two workers have {statistics.median(shares):.0%} of the throughput "
        f"of one process with both cores, median of {rounds}; the features "
        "are the same, byte for byte",
        flush=True,
    )


def kill_nodes(
    project: Project,
    head: Host,
    workers: list[Host],
    options: argparse.Namespace,
    logs: Path,
) -> None:
    rng = random.Random(options.seed)
    extract(project)
    expected = digest(project)
    whole = extract(project, head)
    for number in range(options.kills):
        victim = rng.choice(workers)
        moment = rng.uniform(0.25, 0.9) * whole
        shell = (
            f"sleep {moment}; for p in $(ip netns pids {victim.name}); "
            "do kill -9 $p; done"
        )
        killer = subprocess.Popen(["bash", "-c", shell])
        seconds = extract(project, head)
        killer.wait()
        same = "same" if digest(project) == expected else "OTHER"
        print(
            f"kill {number + 1}: {victim.address} after {moment:.0f} s, done "
            f"in {seconds:.0f} s ({whole:.0f} s without), {same} features",
            flush=True,
        )
        victim.kill()
        wait_for(head, len(workers))
        victim.start(head, 1, logs)
        wait_for(head, len(workers) + 1)


if __name__ == "__main__":
    main()
