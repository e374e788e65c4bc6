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
from benchmarks.project import ROOT, Project, read_stages
from thaw.files.atomic import measure_size
from thaw.stage.environment import describe_environment

FIGURES = ROOT / "docs/scale.json"
COUNTS = (500, 8000)
IMAGE_SIZE, VIEWS = 224, 4
STAGES = read_stages("dvc.yaml")[1:]  # all but check, which takes no time
SPREAD = ("extract", "head", "prefix", "finetune")  # the others run on one node

# What a stage keeps on disk.
OUTS = {
    "prepare": "data/prepared",
    "extract": "data/features",
    "pooled": "data/features/avg_pool",
    "prefix": "data/activations",
}
EPOCHS, BLOCKS = {"head": 25, "finetune": 10}, 1

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
            project = Project.create(Path(folder, "project"))
            project.set({"prepare": {"source": "folder"}})
            project.set({"extract": {"views": VIEWS}})
            project.set({"finetune": {"views": VIEWS, "blocks": BLOCKS}})
            project.set({name: {"epochs": n} for name, n in EPOCHS.items()})
            weights = next(ROOT.glob("weights/*.h5"))
            project.use(photographs, weights, IMAGE_SIZE)
            project.repro("check")
            seconds, kept = {}, {}
            for stage in STAGES:
                seconds[stage] = project.time_repro("--single-item", stage)
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


def count_traffic(figures: dict) -> dict[str, dict[str, float]]:
    """Bytes an image that each stage reads, writes, sends out, gets back."""
    kept, share = figures["bytes_kept_per_image"], figures["share"]
    seen = share["train"] + share["validation"]  # in an epoch, in one view
    views = share["train"] * figures["views"] + share["validation"]
    pixels, features, cut = kept["prepare"], kept["extract"], kept["prefix"]
    pooled = kept["pooled"] / (views + share["test"])  # of a view
    tap = (features - kept["pooled"]) / (views + 2 * share["test"])  # 16 bits
    return {
        "prepare": {"read": figures["bytes_of_photograph"], "written": pixels},
        "extract": {
            "read": pixels,
            "written": features,
            "sent": pixels,
            "back": features,
        },
        "head": {"read": EPOCHS["head"] * seen * pooled},
        "audit": {"read": pooled},
        "depth": {},
        "prefix": {
            "read": tap * views,
            "written": cut,
            "sent": tap * views,
            "back": cut,
        },
        "finetune": {"read": EPOCHS["finetune"] * seen * cut / views},
        "evaluate": {"read": share["test"] * (2 * tap + pooled)},  # 32 bits
        "report": {},
    }


def predict_costs(
    figures: dict, images: int, nodes: int
) -> dict[str, dict[str, float]]:
    """Seconds of each stage, by what they are spent on at the same time."""
    costs = {}
    for stage, traffic in count_traffic(figures).items():
        workers = nodes if stage in SPREAD else 1
        faster = NODE.cores / figures["cores"] * workers
        costs[stage] = {
            f"processors of {workers} node" + "s" * (workers > 1): images
            * figures["seconds_per_image"][stage]
            / faster,
            "one disk": images
            * (traffic.get("read", 0) + traffic.get("written", 0))
            / NODE.disk,
        }
        if nodes > 1 and "sent" in traffic:
            costs[stage]["one network card"] = (
                images * max(traffic["sent"], traffic["back"]) / NODE.network
            )
    return costs


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
    traffic = count_traffic(figures)
    columns = ("read", "written", "sent", "back")
    print("| stage | ms | " + " | ".join(columns) + " | fixed s |")
    print("|---|---|---|---|---|---|---|")
    for stage, of in traffic.items():
        cells = [format_size(of[x]) if x in of else "" for x in columns]
        print(
            f"| {stage} | {1000 * figures['seconds_per_image'][stage]:.2f} | "
            f"{' | '.join(cells)} | {figures['seconds_fixed'][stage]:.1f} |"
        )
    print()
    print("| images | nodes | time | disk | network | dollars | bottleneck |")
    print("|---|---|---|---|---|---|---|")
    fixed = sum(figures["seconds_fixed"].values())
    kept = figures["bytes_of_photograph"] + sum(
        of.get("written", 0) for of in traffic.values()
    )
    wire = sum(of.get("sent", 0) + of.get("back", 0) for of in traffic.values())
    for images in IMAGES:
        for nodes in NODES:
            costs = predict_costs(figures, images, nodes)
            longest = {
                stage: max(cost.items(), key=lambda item: item[1])
                for stage, cost in costs.items()
            }
            seconds = fixed + sum(value for _, value in longest.values())
            dollars = seconds / 3600 * nodes * PRICES.node_hour
            dollars += images * kept / 1e9 * PRICES.gigabyte_month
            stage, (what, value) = max(
                longest.items(), key=lambda item: item[1][1]
            )
            if fixed > value:
                stage, what, value = "all", "starting", fixed
            print(
                f"| {images:,} | {nodes} | {format_time(seconds)} | "
                f"{format_size(images * kept)} | "
                f"{format_size(images * wire) if nodes > 1 else ''} | "
                f"{dollars:,.2f} | {stage}: {what}, {value / seconds:.0%} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description=__doc__.split("\n")[0]
    )
    parser.add_argument("action", nargs="?", choices=["measure"])
    if parser.parse_args().action:
        FIGURES.parent.mkdir(exist_ok=True)
        FIGURES.write_text(json.dumps(measure(), indent=2) + "\n")
    print_tables(json.loads(FIGURES.read_text()))


if __name__ == "__main__":
    main()
