"""Seconds from raw photographs to the guide's accuracy.

    python -m benchmarks.yardstick DATA --features FILE [--group PATTERN]

Both sides stop at the earliest point of their own schedule that is no worse
than the guide's end: over the seeds, paired, the 95 % interval of the
difference in test accuracy lies above -0.5 points.

- Accuracy is that of EfficientNetB4 with the weights in FILE. The guide's
  epochs see the frozen part's output for views that no epoch saw before, which
  is what it computes anew in each. Thaw's are runs of its stages.
- Seconds are those of EfficientNetB0 at 224 px. The guide's are the start and
  the epochs of `python -m benchmarks.guide`; it begins again for every change.
  Thaw's are all that `dvc exp run` runs; but for the deeper run, all are of
  the setting that is as good as the guide.

`--work FOLDER` keeps what was measured, and goes on from there.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from scipy import stats

from benchmarks.claims.lab import SPLITS, Lab, Photographs
from benchmarks.guide import build_model
from benchmarks.project import RECIPE, ROOT, Project, run
from thaw.data.dataset import Dataset
from thaw.data.efficientnet import LAST, POOLED
from thaw.data.splits import count_views
from thaw.files.tables import read_table, write_table
from thaw.files.text import write_json
from thaw.network.backend import keras, make_deterministic
from thaw.network.parts import get_part
from thaw.network.thawing import apply_plan, make_plan
from thaw.train.batches import Batches, feed

HEAD, FINETUNE = RECIPE["head"]["epochs"], RECIPE["finetune"]["epochs"]
BATCH = RECIPE["head"]["batch_size"]

MARGIN = 0.005  # of accuracy, below the guide's end

# Thaw's own schedule, from the cheapest: views, epochs of the head, blocks,
# epochs of fine-tuning.
SETTINGS = (
    (1, 5, 0, 1),
    (1, 15, 0, 1),
    (1, 5, 1, 1),
    (2, 10, 0, 1),
    (1, 10, 2, 2),
    (1, 10, 2, 3),
    (2, 10, 2, 3),
    (4, 25, 0, 1),
    (4, 25, 2, 4),
    (4, 25, 4, 6),
    (4, 25, 8, 15),
)

NEW = 100  # photographs that are held back, and come later


def make_setting(
    views: int, head_epochs: int, blocks: int, finetune_epochs: int
) -> dict:
    """As sections of params.yaml."""
    return {
        "extract": {"views": views},
        "head": {"epochs": head_epochs},
        "finetune": {
            "views": views,
            "blocks": blocks,
            "epochs": finetune_epochs,
            "warmup_epochs": min(1, finetune_epochs - 1),
        },
    }


class TestAccuracy(keras.callbacks.Callback):
    """Accuracy on test after each epoch."""

    def __init__(self, batches: Batches):
        super().__init__()
        self.batches, self.values = batches, []

    def on_epoch_end(self, epoch, logs=None):
        predicted = self.model.predict(feed(self.batches), verbose=0)
        hits = predicted.argmax(axis=1) == self.batches.labels
        self.values.append(float(hits.mean()))


def follow_guide(lab: Lab, seed: int) -> list[float]:
    """Test accuracy of the guide after each of its epochs."""
    make_deterministic(seed)
    backbone = lab.build_backbone()
    last = {
        layer.name.split("_")[0]
        for layer in backbone.layers
        if layer.name.startswith("block7")
    }
    plan = make_plan(backbone, len(last), tap_kept=False)
    apply_plan(backbone, plan, 0.2)  # as Keras builds it
    views = HEAD + FINETUNE
    gather = {
        layer: {
            split: lab.gather(
                layer, split, count_views(split, views), start=start
            )
            for split in ("train", "test")
        }
        for layer, start in [(plan.cut, "image"), (LAST, plan.cut)]
    }
    part = get_part(backbone, plan.cut, LAST)
    blocks = keras.Model(part.input, part.outputs[0])
    model = build_model(blocks, lab.classes)
    pooled = keras.Input(backbone.output_shape[1:])
    x = pooled
    for layer in model.layers[-3:]:
        x = layer(x)
    head = keras.Model(pooled, x)
    accuracies = []
    for trained, layer, first, epochs, rate in [
        (head, POOLED, 0, HEAD, 1e-2),
        (model, plan.cut, HEAD, FINETUNE, 1e-5),
    ]:
        train = Batches(
            offset_views(gather[layer]["train"], first),
            lab.open_labels("train"),
            epochs,
            BATCH,
            seed,
        )
        test = TestAccuracy(
            Batches(
                gather[layer]["test"], lab.open_labels("test"), 1, BATCH, None
            )
        )
        trained.compile(
            keras.optimizers.Adam(rate), "sparse_categorical_crossentropy"
        )
        trained.fit(
            feed(train),
            epochs=epochs,
            steps_per_epoch=train.steps,
            shuffle=False,
            verbose=0,
            callbacks=[test],
        )
        accuracies += test.values
    return accuracies


def offset_views(gather: Callable, first: int) -> Callable:
    """The same rows, of later views."""
    return lambda rows, views: gather(rows, views + first)


def follow_thaw(lab: Lab, seed: int, setting: tuple) -> float:
    """Test accuracy of the model that Thaw ships."""
    assert lab.dataset  # prepared
    project = Project(lab.folder)
    project.set(make_setting(*setting), seed=seed)
    project.repro("evaluate")
    metrics = json.loads((lab.folder / "metrics/evaluate.json").read_text())
    return metrics["finetuned"]["accuracy"]


def keep(path: Path, measure: Callable):
    """What was measured before, or is now."""
    if not path.exists():
        write_json(path, measure())
    return json.loads(path.read_text())


def compare(
    some: Sequence[float], guide: Sequence[float]
) -> tuple[float, float]:
    """The mean difference, paired by seed, and its interval's lower end."""
    pairs = np.subtract(some, guide)
    half = stats.t.ppf(0.975, len(pairs) - 1) * stats.sem(pairs)
    return float(pairs.mean()), float(pairs.mean() - half)


def find_earliest(
    lab: Lab, seeds: Sequence[int]
) -> tuple[int, tuple[int, int, int, int] | None]:
    """The guide's first epoch, and Thaw's first setting, that is as good.

    Prints what each came to; None where no setting is.
    """
    folder = lab.folder / "yardstick"
    curves = np.array(
        [
            keep(folder / f"guide-{s}.json", partial(follow_guide, lab, s))
            for s in seeds
        ]
    )
    end = curves[:, -1]
    epochs = 0
    for epoch, reached in enumerate(curves.T, 1):
        mean, low = compare(reached, end) if epoch < len(curves.T) else (0, 0)
        show(f"the guide, {epoch} epochs", reached, mean, low)
        if not epochs and low > -MARGIN:
            epochs = epoch
    for setting in SETTINGS:
        name = "-".join(map(str, setting))
        reached = []
        for seed in seeds:
            path = folder / f"thaw-{name}-{seed}.json"
            follow = partial(follow_thaw, lab, seed, setting)
            reached.append(keep(path, follow))
            ahead = np.subtract(reached, end[: len(reached)])
            if len(reached) > 1 and max(ahead) < -MARGIN:
                break  # so far below that the others do not matter
        mean, low = compare(reached, end[: len(reached)])
        show(describe(setting), reached, mean, low)
        if len(reached) == len(seeds) and low > -MARGIN:
            return epochs, setting
    return epochs, None


def show(what: str, reached: Sequence[float], mean: float, low: float) -> None:
    print(
        f"{what}: {np.mean(reached):.3f}, {100 * mean:+.1f} points, lower end "
        f"{100 * low:+.1f}, {len(reached)} seeds",
        flush=True,
    )


def describe(setting: tuple) -> str:
    views, head_epochs, blocks, epochs = setting
    return (
        f"Thaw, extract.views={views} head.epochs={head_epochs} "
        f"finetune.blocks={blocks} finetune.epochs={epochs}"
    )


def lay_out(dataset: Dataset, source: Path, folder: Path) -> list[Path]:
    """Links photographs into train, validation and test.

    Returns:
        Those of train, by name.
    """
    paths = []
    for split in SPLITS:
        for row in dataset.read_index(split):
            name = row["id"][:16] + Path(row["path"]).suffix
            link = folder / split / row["class"] / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((source / row["path"]).resolve())
            paths += [link] * (split == "train")
    return sorted(paths, key=lambda path: path.name)


def time_guide(options: argparse.Namespace, data: Path, epochs: int) -> float:
    """Seconds of the guide's start and of so many of its epochs."""
    output = run(
        *(sys.executable, "-m", "benchmarks.guide", data),
        *("--weights", options.weights, "--image-size", options.clock_size),
        *("--timed", options.timed),
    )
    guide = json.loads(output.splitlines()[-1])
    seconds, left = guide["rest"], epochs
    for part, most in (("head", HEAD), ("finetune", FINETUNE)):
        timed = guide["parts"][part]["epochs"]
        counted = timed + [statistics.median(timed[1:] or timed)] * most
        seconds += sum(counted[: min(left, most)])
        left -= min(left, most)
    return seconds


def time_thaw(
    options: argparse.Namespace, data: Path, later: Path, setting: tuple
) -> Iterator[tuple[str, float]]:
    """What is run, and the seconds of `dvc exp run`.

    Args:
        options: the program's.
        data, later: photographs to begin with, and those that come later.
        setting: that is as good as the guide.
    """
    blocks = setting[2]
    with tempfile.TemporaryDirectory() as name:
        project = Project.create(Path(name))
        project.set(make_setting(*setting), prepare__source="folder")
        project.set(augment__horizontal_flip=not options.no_flip)
        project.use(data, options.weights, options.clock_size)
        for command in (
            ("config", "user.name", "benchmark"),
            ("config", "user.email", "benchmark@example.com"),
            ("add", "--all"),
            ("commit", "--quiet", "-m", "begin"),
        ):
            run("git", *command, cwd=project.folder)
        yield "raw photographs", time_run(project)
        deeper = f"finetune.blocks={blocks + 1}"
        yield f"then `{deeper}`", time_run(project, deeper)
        rate, back = "head.learning_rate=0.005", f"finetune.blocks={blocks}"
        yield f"then `{rate}`", time_run(project, rate, back)
        for path in later.rglob("*.*"):
            path.rename(data / path.relative_to(later))
        yield f"then {NEW} more photographs", time_run(project)
        correct_one(project.folder)
        yield "then a corrected label", time_run(project)


def time_run(project: Project, *changes: str) -> float:
    """Seconds of `dvc exp run`, all that it runs."""
    sets = [part for change in changes for part in ("-S", change)]
    start = time.perf_counter()
    project.dvc("exp", "run", *sets)
    return time.perf_counter() - start


def correct_one(folder: Path) -> None:
    """Gives the first training photograph another label."""
    row = next(iter(read_table(folder / "data/prepared/train/index.csv")))
    classes = json.loads((folder / "data/prepared/classes.json").read_text())
    now = next(name for name in classes if name != row["class"])
    write_table(
        folder / "corrections.csv",
        ["path", "digest", "was", "now", "why"],
        [[row["path"], row["id"], row["class"], now, "to time it"]],
    )


def measure(options: argparse.Namespace, lab: Lab) -> None:
    """Prints both sides' points, and a Markdown table of seconds."""
    epochs, setting = find_earliest(lab, options.seeds)
    if setting is None:
        sys.exit("no setting is as good as the guide's end")
    print(
        f"\nthe guide is there after {epochs} of {HEAD + FINETUNE} epochs, "
        f"{describe(setting)}\n\n"
        "| | the guide | Thaw | ratio |\n|---|---|---|---|"
    )
    rounds = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as name:
            data, later = Path(name, "photographs"), Path(name, "later")
            train = lay_out(lab.dataset, options.data, data)
            for path in train[:NEW]:
                target = later / path.relative_to(data)
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)
            guide = time_guide(options, data, epochs)
            for what, seconds in time_thaw(options, data, later, setting):
                rounds.append((what, guide, seconds))
    for what in dict.fromkeys(what for what, _, _ in rounds):
        pairs = [(g, s) for w, g, s in rounds if w == what]
        guide, ours = (statistics.median(x) for x in zip(*pairs, strict=True))
        ratio = statistics.median(g / s for g, s in pairs)
        print(f"| {what} | {guide:.0f} s | {ours:.0f} s | {ratio:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--group")
    parser.add_argument("--no-flip", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--work", type=Path)
    parser.add_argument(
        "--weights", type=Path, default=next(ROOT.glob("weights/*.h5"))
    )
    parser.add_argument("--clock-size", type=int, default=224)
    parser.add_argument("--timed", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    for name in ("data", "features", "weights"):
        setattr(options, name, getattr(options, name).resolve())
    work = options.work or Path(tempfile.mkdtemp())
    photographs = Photographs(
        options.data.name,
        near=False,
        flip=not options.no_flip,
        group=options.group,
    )
    lab = Lab(
        photographs,
        options.data.parent,
        options.features,
        work.resolve(),
        options.image_size,
    )
    try:
        measure(options, lab)
    finally:
        if not options.work:
            shutil.rmtree(work)


if __name__ == "__main__":
    main()
