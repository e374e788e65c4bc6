"""Frozen passes on Ray clusters, real ones on this machine."""

import hashlib
import shutil
import sys

import numpy as np
import pytest
from programs import run_python
from samples import AUGMENT

from thaw.data import blocks as data_blocks
from thaw.data.blocks import Order, find_starts
from thaw.data.facts import digest_pixels
from thaw.data.views import ImageViews
from thaw.errors import InputError
from thaw.frozen.earlier import Earlier
from thaw.frozen.engines import freeze_model
from thaw.frozen.passes import FrozenPass
from thaw.frozen.ray import open_cluster
from thaw.network.backend import keras
from thaw.stage.checkpoints import Checkpoint

RNG = np.random.default_rng(0)

VIEWS = 3

ROWS = {"train": 50, "validation": 17}


def test_a_cluster_counts_what_is_done_in_blocks():
    orders = {"train": Order(10, 2, 4), "test": Order(5, 1, 4)}
    for done, here, there in (
        (0, (0, 0), (0, 0)),
        (11, (11, 0), (8, 0)),
        (20, (20, 0), (20, 0)),
        (23, (20, 3), (20, 0)),
        (25, (20, 5), (20, 5)),
    ):
        for whole_blocks, expected in ((False, here), (True, there)):
            starts = find_starts(orders, done, whole_blocks)
            assert tuple(starts.values()) == expected


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    images = keras.Input((24, 24, 3))
    x = keras.layers.Conv2D(4, 3, name="kept")(images)
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(x)
    return freeze_model(keras.Model(images, [x, pooled]), "auto", "uint8")


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    folder, views = tmp_path_factory.mktemp("images"), {}
    for split, rows in ROWS.items():
        images = RNG.integers(0, 256, (rows, 24, 24, 3), np.uint8)
        np.save(folder / f"{split}.npy", images)
        digests = np.stack([digest_pixels(image) for image in images])
        views[split] = ImageViews(folder / f"{split}.npy", digests, AUGMENT)
    return views


@pytest.fixture
def write(network, views, tmp_path, monkeypatch):
    """Writes in blocks of 8 rows; returns each file's digest by its name."""
    monkeypatch.setattr(data_blocks, "MOST_ROWS", 8)

    def write(name, cluster=None, kind=Checkpoint, earlier=None):
        (tmp_path / name).mkdir(exist_ok=True)
        checkpoint = kind(tmp_path / name)
        FrozenPass(
            network,
            {"kept": "float16", "pooled": "float32"},
            ROWS,
            VIEWS,
            views,
            "writing",
            earlier,
        ).write(checkpoint, cluster)
        return {
            str(path.relative_to(checkpoint.folder)): hashlib.sha256(
                path.read_bytes()
            ).hexdigest()
            for path in checkpoint.folder.rglob("*.npy")
        }

    return write


@pytest.fixture(scope="module")
def nodes():
    """A Ray head without processors, to which tests add nodes."""
    from ray.cluster_utils import Cluster

    nodes = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "include_dashboard": False,
            "_system_config": {"health_check_period_ms": 500},
        },
    )
    yield nodes
    nodes.shutdown()


@pytest.fixture
def two_workers(nodes, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    workers = [nodes.add_node(num_cpus=1) for _ in range(2)]
    with open_cluster() as cluster:
        yield cluster, workers
    for worker in workers:
        if worker in nodes.worker_nodes:
            nodes.remove_node(worker)


@pytest.mark.scale
def test_a_cluster_writes_the_same_bytes(write, two_workers):
    cluster, _ = two_workers
    here = write("here")
    assert len(here) == 2 * (VIEWS + 1)
    assert write("there", cluster) == here


@pytest.mark.scale
def test_a_cluster_runs_the_rows_that_are_new(write, two_workers, tmp_path):
    cluster, _ = two_workers
    here = write("here")
    places = {split: np.arange(rows) for split, rows in ROWS.items()}
    for rows in places.values():
        rows[[0, 3, 4, -1]] = -1
    for array in (tmp_path / "here").rglob("*.npy"):  # of known rows alone
        written = np.load(array)
        written[[0, 3, 4, -1]] = 7
        np.save(array, written)
    earlier = Earlier(tmp_path / "here", places, "")
    assert write("there", cluster, earlier=earlier) == here


@pytest.mark.scale
def test_a_node_that_dies_costs_its_unfinished_part(
    write, nodes, two_workers, monkeypatch
):
    cluster, workers = two_workers
    blocks = []
    run = type(cluster).run

    def run_and_kill(self, *args):
        for block in run(self, *args):
            blocks.append(block[:2])
            if len(blocks) == 2:
                nodes.remove_node(workers[0], allow_graceful=False)
            yield block

    monkeypatch.setattr(type(cluster), "run", run_and_kill)
    assert write("there", cluster) == write("here")
    assert len(blocks) == len(set(blocks)) == 10


class CutOff(Checkpoint):
    """The checkpoint of a run that is cut off after its first 30 images."""

    def write(self, **note):
        super().write(**note)
        if note["done"] >= 30:
            raise KeyboardInterrupt


@pytest.mark.scale
def test_a_cluster_finishes_what_this_machine_began(
    write, two_workers, monkeypatch, capsys
):
    cluster, _ = two_workers
    monkeypatch.setattr("thaw.frozen.passes.SECONDS_BETWEEN_NOTES", 1e-9)
    with pytest.raises(KeyboardInterrupt):
        write("both", kind=CutOff)
    whole = write("whole")
    capsys.readouterr()
    assert write("both", cluster) == whole
    assert "cut off: 24 are done" in capsys.readouterr().out  # of blocks of 24
    assert write("both", cluster) == whole  # with nothing left to do


@pytest.mark.scale
def test_a_worker_without_the_precision_is_an_input_error(
    write, two_workers, network, monkeypatch
):
    cluster, _ = two_workers
    monkeypatch.setattr(network, "precision", "bfloat8")
    with pytest.raises(InputError, match="bfloat8; allowed"):
        write("there", cluster)


def extract(project, **env):
    return project.run(sys.executable, "-m", "stages.extract", **env)


@pytest.mark.scale
def test_a_cluster_that_does_not_answer_gives_one_line(reproduced):
    done = extract(reproduced, RAY_ADDRESS="127.0.0.1:9")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert line.startswith("thaw: no Ray cluster at RAY_ADDRESS=127.0.0.1:9")


def test_a_missing_ray_is_named(reproduced, tmp_path):
    (tmp_path / "ray.py").write_text("raise ImportError('none here')")
    path = str(tmp_path)
    done = extract(reproduced, RAY_ADDRESS="local", PYTHONPATH=path)
    assert done.returncode == 1
    assert "pip install --group ray" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.scale
def test_stages_on_a_cluster_repeat_the_pipeline(reproduced, nodes, tmp_path):
    worker = nodes.add_node(num_cpus=2)
    project = reproduced.copy(tmp_path / "project")
    for stage, out in (("extract", "features"), ("prefix", "activations")):
        shutil.rmtree(project.folder / "data" / out)
        module = f"stages.{stage}"
        env = {"RAY_ADDRESS": nodes.address}
        done = project.run(sys.executable, "-m", module, **env)
        assert done.returncode == 0, done.stderr
        assert "1 worker of the Ray cluster" in done.stdout
        said = done.stderr.splitlines()  # a slow run says how far it is
        assert not [line for line in said if not line.endswith(" left")]
    assert "up to date" in project.dvc("status", "extract", "prefix")
    nodes.remove_node(worker)


@pytest.mark.slow
def test_the_default_path_does_not_import_ray():
    code = (
        "import sys, stages.extract, stages.prefix; "
        "assert 'ray' not in sys.modules"
    )
    run_python(code)


@pytest.mark.scale
def test_a_cluster_of_this_machine_alone_listens_on_loopback():
    program = (
        "import os, psutil\n"
        "from thaw.frozen.ray import open_cluster\n"
        "with open_cluster():\n"
        "    own = psutil.Process().children(recursive=True)\n"
        "    own = {os.getpid(), *(x.pid for x in own)}\n"
        "    print(*{x.laddr.ip for x in psutil.net_connections('tcp')\n"
        "            if x.status == 'LISTEN' and x.pid in own})\n"
    )
    said = run_python(program, RAY_ADDRESS="local")
    addresses = said.split("\n")[-2].split()
    assert addresses
    assert {x.removeprefix("::ffff:") for x in addresses} == {"127.0.0.1"}
