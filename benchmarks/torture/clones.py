"""Two clones, run one after the other on one machine."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.project import PIPELINES
from benchmarks.torture.runs import make_project


def compare_clones(folder: Path, options) -> Iterator[str]:
    hashes = []
    for name in ("one", "another"):
        project = make_project(folder / name)
        project.repro(*PIPELINES)
        hashes.append(project.list_hashes())
    one, another = hashes
    equal = sum(one[path] == another[path] for path in one)
    yield f"{equal} of {len(one)} outputs have equal hashes"
