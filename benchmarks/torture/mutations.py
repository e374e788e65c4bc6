"""Random changes of params.yaml: each accepted, or refused by name."""

import copy
import random
import time
from collections.abc import Iterator
from pathlib import Path

import yaml

from benchmarks.torture.runs import make_project, start

STRANGE = [
    None,
    True,
    -1,
    0,
    3,
    0.5,
    1e308,
    10**30,
    float("nan"),
    float("inf"),
    "",
    "all",
    "none",
    "(",
    "1e-05",
    "\u2028",
    "../..",
    [],
    [1],
    {},
    {"a": 1},
]


def mutate_params(folder: Path, options) -> Iterator[str]:
    """Runs `dvc repro check` on `--mutations` of params.yaml."""
    rng = random.Random(options.seed)
    project = make_project(folder / "project")
    path = project.folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    project.repro()
    before = list_results(project)
    accepted, slowest, strange = 0, 0.0, []
    for _ in range(options.mutations):
        changed, key = mutate(params, rng)
        path.write_text(yaml.safe_dump(changed, allow_unicode=True))
        begin = time.monotonic()
        program = start(project, "-m", "dvc", "repro", "check")
        output = program.communicate()[0]
        slowest = max(slowest, time.monotonic() - begin)
        named = [
            line
            for line in output.splitlines()
            if key.split(".")[-1] in line and "ERROR: failed to rep" not in line
        ]
        accepted += program.returncode == 0
        lost = list_results(project) != before
        if lost or "Traceback" in output or (program.returncode and not named):
            strange.append((key, changed.get(key.split(".")[0]), output[-300:]))
    yield (
        f"{options.mutations} mutations, {accepted} accepted, "
        f"{options.mutations - accepted - len(strange)} refused by name, "
        f"{len(strange)} otherwise; the slowest took {slowest:.1f} s"
    )
    yield from map(str, strange)


def mutate(params: dict, rng: random.Random) -> tuple[dict, str]:
    """Another value, a key that is gone or misspelt; and that key's name."""
    changed = copy.deepcopy(params)
    section = rng.choice(list(changed))
    inside, name = changed, section
    if isinstance(changed[section], dict) and rng.random() < 0.9:
        inside = changed[section]
        name = rng.choice(list(inside))
    kind = rng.random()
    if kind < 0.8:
        inside[name] = rng.choice(STRANGE)
    elif kind < 0.9:
        del inside[name]
    else:
        inside[name + "x"] = inside.pop(name)
    return changed, name if inside is changed else f"{section}.{name}"


def list_results(project) -> set[Path]:
    return {
        path
        for name in ("data", "models", "metrics", "plots")
        for path in (project.folder / name).rglob("*")
    }
