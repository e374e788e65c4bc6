"""What one image costs in each stage, and what many cost on many nodes.

    python -m benchmarks.scale measure    # writes docs/scale.json, minutes
    python -m benchmarks.scale            # prints the tables of docs/scale.md

The second line computes; what it computes from is in docs/scale.json, measured,
and in `NODE` and `PRICES`, assumed.
"""

import argparse
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.memory import write_photographs
from benchmarks.project import ROOT, Project
from thaw.environment import describe_environment
from thaw.files import measure_size

FIGURES = ROOT / "docs/scale.json"
COUNTS = (500, 2500)
IMAGE_SIZE, VIEWS = 224, 4
STAGES = ["prepare", "extract", "head", "prefix", "finetune", "evaluate"]

# What a stage keeps on disk.
OUTS = {
    "prepare": "data/prepared",
    "extract": "data/features",
    "prefix": "data/activations",
}

IMAGES = (10**4, 10**6, 10**8)
NODES = (1, 8, 64)


@dataclass(frozen=True)
class Node:
    """A machine of a cluster; bytes in a second."""

    cores: int = 16
    network: float = 10e9 / 8
    disk: float = 1e9


@dataclass(frozen=True)
class Prices:
    """In dollars, rounded from what clouds list."""

    node_hour: float = 0.70
    gigabyte_month: float = 0.023


NODE, PRICES = Node(), Prices()


def measure() -> dict:
    """Seconds of each stage at two sizes, bytes of what it keeps."""
    sizes = {}
    for count in COUNTS:
        with tempfile.TemporaryDirectory() as folder:
            photographs = Path(folder, "photographs")
            write_photographs(photographs, count)
            project = Project(Path(folder, "project"))
            project.set({"prepare": {"source": "folder"}})
            project.set({"extract": {"views": VIEWS}})
            weights = next(ROOT.glob("weights/*.h5"))
            project.use(photographs, weights, IMAGE_SIZE)
            project.repro("check")
            seconds, kept = {}, {}
            for stage in STAGES:
                seconds[stage] = project.repro("--single-item", stage)
            for stage, out in OUTS.items():
                kept[stage] = measure_size(project.folder / out)
            split = {
                name: sum(1 for _ in (project.folder / path).open()) - 1
                for name in ("train", "validation", "test")
                for path in [f"data/prepared/{name}/index.csv"]
            }
            sizes[count] = {
                "seconds": seconds,
                "kept": kept,
                "source": measure_size(photographs),
                "splits": split,
            }
            print(f"{count} photographs: {sizes[count]}", flush=True)
    few, many = (sizes[count] for count in COUNTS)
    more = COUNTS[1] - COUNTS[0]

    def per_image(key: str) -> dict[str, float]:
        return {
            name: max(many[key][name] - few[key][name], 0) / more
            for name in many[key]
        }

    each = per_image("seconds")
    return {
        "environment": describe_environment(),
        "cores": os.cpu_count(),
        "image_size": IMAGE_SIZE,
        "views": VIEWS,
        "counts": COUNTS,
        "seconds_per_image": each,
        "seconds_fixed": {
            stage: max(few["seconds"][stage] - COUNTS[0] * each[stage], 0)
            for stage in STAGES
        },
        "bytes_kept_per_image": per_image("kept"),
        "bytes_of_photograph": (many["source"] - few["source"]) / more,
        "share": {
            name: count / COUNTS[1] for name, count in many["splits"].items()
        },
    }


@dataclass(frozen=True)
class Cost:
    """Of one stage: seconds by what they are spent on, and bytes it keeps.

    A stage lasts as long as the slowest of what it does at once.
    """

    seconds: dict[str, float]
    kept: float = 0

    @property
    def bottleneck(self) -> str:
        return max(self.seconds, key=self.seconds.get)

    @property
    def longest(self) -> float:
        return max(self.seconds.values())


def predict_costs(figures: dict, images: int, nodes: int) -> dict[str, Cost]:
    """Each stage's cost for a number of photographs."""
    each, kept = figures["seconds_per_image"], figures["bytes_kept_per_image"]
    faster = NODE.cores / figures["cores"]
    share, photograph = figures["share"], figures["bytes_of_photograph"]
    epochs = {"head": 25, "finetune": 10}  # as params.yaml has them

    def compute(stage: str, nodes: int) -> float:
        return images * each[stage] / faster / nodes

    pixels, features = kept["prepare"], kept["extract"]
    costs = {
        "prepare": Cost(
            {
                "processor of one node": compute("prepare", 1),
                "disk of one node": images * (photograph + pixels) / NODE.disk,
            },
            images * pixels,
        ),
        "evaluate": Cost({"processor of one node": compute("evaluate", 1)}),
    }
    for stage, read, written in (
        ("extract", pixels, features),
        ("prefix", features, kept["prefix"]),
    ):
        spent = {
            "processors": compute(stage, nodes),
            "disk of one node": images * (read + written) / NODE.disk,
        }
        if nodes > 1:  # all through the node that has the files
            spent["network of one node"] = (
                images * max(read, written) / NODE.network
            )
        costs[stage] = Cost(spent, images * written)
    for stage, read in (("head", features), ("finetune", kept["prefix"])):
        views_each = share["train"] / figures["views"] + share["validation"]
        passed = epochs[stage] * images * read * views_each
        costs[stage] = Cost(
            {
                "processors": compute(stage, nodes),
                "shared disk": passed / NODE.disk,
            }
        )
    order = ["prepare", "extract", "head", "prefix", "finetune", "evaluate"]
    return {stage: costs[stage] for stage in order}


def format_time(seconds: float) -> str:
    for limit, unit, size in (
        (120, "s", 1),
        (7200, "min", 60),
        (2 * 86400, "h", 3600),
    ):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def format_size(count: float) -> str:
    units = ["B", "kB", "MB", "GB", "TB", "PB"]
    while count >= 1000 and len(units) > 1:
        count, units = count / 1000, units[1:]
    return f"{count:.3g} {units[0]}"


def print_tables(figures: dict) -> None:
    each, kept = figures["seconds_per_image"], figures["bytes_kept_per_image"]
    sent = {
        "extract": (kept["prepare"], kept["extract"]),
        "prefix": (kept["extract"], kept["prefix"]),
    }
    print("| stage | ms, all cores | kept | sent to workers | sent back |")
    print("|---|---|---|---|---|")
    for stage, seconds in each.items():
        cells = [format_size(kept[stage]) if stage in kept else ""]
        cells += [format_size(x) for x in sent.get(stage, ())] or ["", ""]
        print(f"| {stage} | {1000 * seconds:.2f} | {' | '.join(cells)} |")
    print()
    print("| images | nodes | time | disk | network | dollars | bottleneck |")
    print("|---|---|---|---|---|---|---|")
    for images in IMAGES:
        for nodes in NODES:
            costs = predict_costs(figures, images, nodes)
            fixed = sum(figures["seconds_fixed"].values())
            seconds = fixed + sum(cost.longest for cost in costs.values())
            disk = sum(cost.kept for cost in costs.values())
            disk += images * figures["bytes_of_photograph"]
            wire = images * sum(map(sum, sent.values())) if nodes > 1 else 0
            dollars = seconds / 3600 * nodes * PRICES.node_hour
            dollars += disk / 1e9 * PRICES.gigabyte_month
            slowest = max(costs, key=lambda stage: costs[stage].longest)
            print(
                f"| {images:,} | {nodes} | {format_time(seconds)} | "
                f"{format_size(disk)} | {format_size(wire)} | {dollars:,.2f} | "
                f"{slowest}: {costs[slowest].bottleneck}, "
                f"{costs[slowest].longest / seconds:.0%} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description=__doc__.split("\n")[0]
    )
    parser.add_argument("action", nargs="?", choices=["measure"])
    if parser.parse_args().action:
        FIGURES.write_text(json.dumps(measure(), indent=2) + "\n")
    print_tables(json.loads(FIGURES.read_text()))


if __name__ == "__main__":
    main()
