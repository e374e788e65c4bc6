"""What Thaw relies on in DVC, asked of DVC itself; docs/coupling.md has all."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.project import ROOT
from thaw.files.text import read_yaml
from thaw.report.ending import is_at_hand
from thaw.stage.dvc_files import list_outs

pytestmark = pytest.mark.slow

# A stage that writes what DVC tells it, beside a room as dependency.
PIPELINE = """\
stages:
  one:
    cmd: >-
      python -c "import json, os; json.dump({k: os.environ[k] for k in
      ('DVC_ROOT', 'DVC_STAGE')}, open('out.json', 'w'))"
    deps: [thaw/room]
    outs: [out.json]
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    folder = tmp_path / "project"
    (folder / "thaw/room").mkdir(parents=True)
    (folder / "thaw/room/source.py").write_text("x = 1\n")
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc/config", folder / ".dvc")  # it sends nothing
    shutil.copy(ROOT / ".dvcignore", folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv(
        "PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    )
    for command in (
        "git init --quiet",
        "git config user.name tester",
        "git config user.email tester@example.com",
        "git add --all",
        "git commit --quiet --message start",
        "dvc repro --quiet",
        "git add --all",
        "git commit --quiet --message run",
    ):
        run(command)
    return folder


def run(command: str) -> str:
    done = subprocess.run(
        command.split(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_sources_alone_count_in_a_room(project):
    room = project / "thaw/room"
    (room / "source.py~").write_text("a backup")
    (room / "__pycache__").mkdir()
    (room / "__pycache__/source.pyc").write_bytes(b"compiled")
    assert json.loads(run("dvc status --json")) == {}
    for name in ("more.py", "page.html", "card.md"):
        (room / name).write_text("new")
        assert set(json.loads(run("dvc status --json"))) == {"one"}
        (room / name).unlink()


def test_the_lock_names_outputs_and_the_cache_has_them(project):
    content = (project / "out.json").read_bytes()
    outs = list_outs(read_yaml("dvc.lock"))
    assert outs == {"out.json": hashlib.md5(content).hexdigest()}
    assert is_at_hand(outs["out.json"]) and not is_at_hand("0" * 32)


def test_dvc_names_the_workspace_even_in_a_copy(project):
    told = {"DVC_ROOT": str(project), "DVC_STAGE": "one"}
    assert json.loads((project / "out.json").read_text()) == told
    (project / "thaw/room/source.py").write_text("x = 2\n")
    run("dvc exp run --temp --force")
    (name,) = run("dvc exp list --name-only").split()
    run(f"dvc exp apply {name}")
    assert json.loads((project / "out.json").read_text()) == told


def test_dvc_says_what_changed_since_a_stage_ran(project):
    from dvc.repo import Repo

    room = project / "thaw/room"
    with Repo() as repo:
        stage = repo.stage.load_one(name="one")
        (dep,) = stage.deps
        (out,) = stage.outs
        assert str(dep) == "thaw/room" and not dep.status()
        assert not stage.params and str(out) == "out.json" and out.use_cache
        cached = Path(out.cache.oid_to_path(out.hash_info.value))
        assert cached.read_bytes() == (project / "out.json").read_bytes()
        assert not out.hash_info.isdir
    (room / "source.py").write_text("x = 2\n")
    with Repo() as repo:
        (dep,) = repo.stage.load_one(name="one").deps
        assert dep.status()
