"""Thaw against the Keras guide's own way, side by side on one machine.

    make bench DATA=folder [WEIGHTS=file]    # train/, validation/, test/ inside

Prints a Markdown table; every figure but the first two columns is a ratio
measured in this run. Takes half an hour on 2 cores.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
RECIPE = {
    "prepare": {"source": "folder"},
    "augment": {"rotation": 0.15, "translation": 0.1, "horizontal_flip": True},
    "extract": {"views": 8},
    "head": {"epochs": 25, "batch_size": 64},
    "finetune": {"views": 8, "epochs": 4, "batch_size": 64, "blocks": 1},
}


def run(*command: object, cwd: Path = ROOT) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-2000:])
    return done.stdout


def measure(*command: object, cwd: Path) -> float:
    start = time.perf_counter()
    run(*command, cwd=cwd)
    return time.perf_counter() - start


def copy_project(folder: Path) -> None:
    """The tracked files as they are now, without results."""
    for name in run("git", "ls-files").splitlines():
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / "dvc.lock").unlink(missing_ok=True)
    run("git", "init", "--quiet", cwd=folder)


def set_params(folder: Path, changes: dict) -> None:
    path = folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    for section, values in changes.items():
        params[section].update(values)
    path.write_text(yaml.safe_dump(params))


def run_guide(options: argparse.Namespace) -> float:
    output = run(
        sys.executable,
        "-m",
        "benchmarks.guide",
        options.data,
        "--weights",
        options.weights,
        "--image-size",
        options.image_size,
        "--timed",
        options.timed,
    )
    return json.loads(output.splitlines()[-1])["seconds"]


def run_thaw(options: argparse.Namespace, precision: str) -> dict[str, float]:
    """Seconds of the recipe, then of three changes to it, then of nothing."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_project(folder)
        set_params(folder, RECIPE)
        set_params(
            folder,
            {
                "prepare": {
                    "path": str(options.data),
                    "image_size": options.image_size,
                },
                "backbone": {"file": str(options.weights)},
                "extract": {"precision": precision},
            },
        )
        repro = (sys.executable, "-m", "dvc", "repro")
        seconds = {"the whole recipe": measure(*repro, cwd=folder)}
        for label, change in {
            "finetune.blocks=3": {"finetune": {"blocks": 3}},
            "finetune.blocks=2": {"finetune": {"blocks": 2}},
            "head.learning_rate, finetune.epochs=1": {
                "head": {"learning_rate": 0.005},
                "finetune": {"epochs": 1},
            },
        }.items():
            set_params(folder, change)
            seconds[label] = measure(*repro, cwd=folder)
        seconds["nothing to do"] = statistics.median(
            measure(*repro, cwd=folder) for _ in range(5)
        )
        return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument(
        "--weights", type=Path, default=next(ROOT.glob("weights/*.h5"))
    )
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--timed", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    options.data = options.data.resolve()
    options.weights = options.weights.resolve()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ["PATH"] = path

    rounds = []
    for _ in range(options.rounds):
        guide = run_guide(options)
        ours = {p: run_thaw(options, p) for p in ("auto", "float32")}
        rounds.append((guide, ours))
    names = ("tensorflow", "keras", "openvino", "dvc")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, {versions}; {options.data.name}, "
        f"{options.image_size} px; the guide's epochs extrapolated from "
        f"{options.timed}; medians of {options.rounds} round(s)\n"
    )
    guides = statistics.median(guide for guide, _ in rounds)
    print("| | guide | Thaw | ratio | Thaw, float32 | ratio |")
    print("|---|---|---|---|---|---|")
    for label in rounds[0][1]["auto"]:
        cells = []
        for precision in ("auto", "float32"):
            seconds = [ours[precision][label] for _, ours in rounds]
            ratios = [guide / ours[precision][label] for guide, ours in rounds]
            cells += [f"{statistics.median(seconds):.1f} s"]
            cells += [f"{statistics.median(ratios):.1f}"]
        if label == "nothing to do":
            cells[1] = cells[3] = ""
            print(f"| {label} | | {' | '.join(cells)} |")
        else:
            print(f"| {label} | {guides:.0f} s | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
