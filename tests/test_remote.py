"""Photographs and results in S3, shared by clones: a real server, loopback."""

import json
import logging
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from conftest import Project

from benchmarks.project import ROOT
from thaw.stage.inputs import identify

pytestmark = pytest.mark.scale

SETTINGS = {
    "AWS_ACCESS_KEY_ID": "nobody",
    "AWS_SECRET_ACCESS_KEY": "nothing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_MAX_ATTEMPTS": "1",
    "CI": "",
}


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    """A client of a server with two buckets; who commits is in $HOME."""
    import boto3
    from moto.server import ThreadedMotoServer

    home = tmp_path_factory.mktemp("home")
    user = "[user]\nname = tester\nemail = tester@example.com\n"
    (home / ".gitconfig").write_text(user)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    s3 = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    s3.start()
    host, port = s3.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**SETTINGS, "HOME": str(home)}.items():
            patch.setenv(name, value)
        client = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
        client.create_bucket(Bucket="photographs")
        client.create_bucket(Bucket="storage")
        yield client
    s3.stop()


@pytest.fixture(scope="module")
def shared(reproduced, s3, tmp_path_factory) -> Project:
    """A clone whose photographs come from S3, and whose results are there.

    So are those of another split, which no commit knows. `ran` is what ran
    with the photographs of S3, `hub` the repository that all clones share.
    """
    folder = tmp_path_factory.mktemp("shared")
    project = reproduced.copy(folder / "first")
    raw = project.folder / "data/raw"
    for path in filter(Path.is_file, raw.rglob("*")):
        key = path.relative_to(raw.parent).as_posix()
        s3.upload_file(str(path), "photographs", key)
    project.run("git", "rm", "-r", "--quiet", "--cached", "data/raw")
    project.run("git", "commit", "--quiet", "--message", "to S3")
    shutil.rmtree(raw)
    with (project.folder / ".dvc/config").open("a") as config:
        for name, path in ("storage", "storage"), ("photos", "photographs"):
            config.write(f"['remote \"{name}\"']\n    url = s3://{path}\n")
            config.write(f"    endpointurl = {s3.meta.endpoint_url}\n")
    project.dvc("remote", "default", "storage")
    project.dvc("import-url", "remote://photos/raw", "data/raw")
    project.ran = project.repro()
    project.hub = folder / "hub.git"
    commit(project)
    project.run("git", "clone", "--quiet", "--bare", ".", str(project.hub))
    project.run("git", "remote", "add", "origin", str(project.hub))
    project.set(prepare__seed=1)
    assert project.repro("prepare") == ["check", "prepare"]
    done = push(project)
    assert done.returncode == 0, done.stderr
    return project


def commit(project: Project) -> None:
    project.run("git", "add", "--all")
    done = project.run("git", "commit", "--quiet", "--message", "results")
    assert done.returncode == 0, done.stderr


def push(project: Project, **env: str) -> subprocess.CompletedProcess:
    return project.run(sys.executable, "-m", "thaw", "push", **env)


def clone(shared: Project, folder: Path) -> Project:
    done = shared.run("git", "clone", "--quiet", str(shared.hub), str(folder))
    assert done.returncode == 0, done.stderr
    return Project(folder)


@pytest.fixture(scope="module")
def colleague(shared, tmp_path_factory) -> Project:
    """Another's clone, with all that the commit names. Copy it to change it."""
    project = clone(shared, tmp_path_factory.mktemp("colleague") / "project")
    project.dvc("pull")
    return project


def test_photographs_in_s3_are_like_any_folder(shared, monkeypatch):
    assert not shared.ran
    monkeypatch.chdir(shared.folder)
    about = yaml.safe_load(Path("data/raw.dvc").read_text())
    assert identify(Path("data/raw"), {}) == about["outs"][0]["md5"]


def test_a_clone_computes_nothing_again(shared, colleague, tmp_path):
    colleague = colleague.copy(tmp_path / "project")
    assert "up to date" in colleague.dvc("status", "dvc.yaml")
    colleague.set(prepare__seed=1)
    # Which takes no time, and can't be reused: it keeps what it writes.
    assert colleague.repro("--pull", "prepare") == ["check"]
    for name in (
        "metrics/details/prepare.json",
        "data/prepared/train/index.csv",
    ):
        ours, theirs = (p.folder / name for p in (shared, colleague))
        assert ours.read_bytes() == theirs.read_bytes()


def test_a_photograph_that_changes_in_s3_is_fetched(colleague, s3, tmp_path):
    colleague = colleague.copy(tmp_path / "project")
    old = {"Bucket": "photographs", "Key": "raw/down/00.jpg"}
    kept = s3.get_object(**old)["Body"].read()
    s3.put_object(**old, Body=kept + b" ")
    try:
        assert "up to date" in colleague.dvc("status", "dvc.yaml")
        # DVC notes the new hash here, with the old photographs.
        colleague.dvc("exp", "run", "--pull", "-S", "prepare.seed=1", "prepare")
        colleague.run("git", "checkout", "data/raw.dvc")
        colleague.dvc("update", "data/raw.dvc")
    finally:
        s3.put_object(**old, Body=kept)
    photograph = colleague.folder / "data/raw/down/00.jpg"
    assert photograph.read_bytes() == kept + b" "
    changed = json.loads(colleague.dvc("status", "--json"))
    assert "prepare" in changed


def read_job(hub: Path) -> str:
    """The page's job for SLURM, with trials and places of our own."""
    page = (ROOT / "docs/cluster.md").read_text()
    job = re.search(r"```bash\n(#!/bin/bash\n.*?)```", page, re.DOTALL)[1]
    for pattern, small in {
        r"trials=\([^)]*\)": "trials=('-S prepare.seed='{-1,2})",
        r"\n\. .*": "",
        r"\bURL\b": str(hub),
        r"\bevaluate\b": "prepare",
    }.items():
        job, found = re.subn(pattern, small, job)
        assert found == 1, pattern
    return job


def test_a_sweep_in_clones_is_gathered(shared, tmp_path):
    job = read_job(shared.hub)

    def run(number: int) -> subprocess.CompletedProcess:
        return shared.run(
            *("bash", "-c", job),
            SCRATCH=str(tmp_path),
            SLURM_ARRAY_TASK_ID=str(number),
        )

    with ThreadPoolExecutor(2) as nodes:
        refused, computed = nodes.map(run, range(2))
    assert "Running stage 'prepare'" in computed.stdout
    assert refused.returncode and "prepare.seed is -1" in refused.stderr
    home = clone(shared, tmp_path / "home")
    home.dvc("exp", "pull", "--no-cache", "origin")
    table = home.dvc("exp", "show", "--csv")
    assert "sweep-1" in table and "sweep-0" not in table
    home.dvc("exp", "pull", "origin", "sweep-1")
    home.dvc("exp", "apply", "sweep-1")
    assert not home.repro("--pull", "prepare")
    assert "seed: 2" in (home.folder / "params.yaml").read_text()


def test_a_push_that_fails_says_one_line(shared, tmp_path):
    project = clone(shared, tmp_path / "project")
    project.dvc("remote", "modify", "storage", "endpointurl", "http://[::1]:1")
    done = push(project)
    assert done.returncode == 1
    assert re.fullmatch("thaw: .*\n", done.stderr)
