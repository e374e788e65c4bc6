"""What each claim is tried by: runs, each with a set, an arm and a seed."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from benchmarks.claims.lab import (
    EPOCHS,
    SETS,
    VIEWS,
    Lab,
    regress,
    thaw,
    train_head,
)
from benchmarks.project import ROOT
from thaw.data.efficientnet import LAST
from thaw.files.text import write_json
from thaw.network.backend import keras
from thaw.network.head import build_head

SEEDS = (1, 2, 3)

# Sets that are not like ImageNet, on which fine-tuning has something to gain.
FAR = ("sign-digits", "traffic-signs")


@dataclass(frozen=True)
class Run:
    """One training, or one measurement.

    Attributes:
        set, arm, seed: what it is known by.
        do: gives its results, for JSON.
    """

    set: str
    arm: str
    seed: int
    do: Callable[[], dict]


class Bench:
    """Labs and heads that runs share.

    Args:
        data: folder of the sets.
        weights: of EfficientNetB4.
        work: for what is kept.
    """

    def __init__(self, data: Path, weights: Path, work: Path):
        self.open = cache(
            lambda name, size=128: Lab(SETS[name], data, weights, work, size)
        )
        self.head = cache(lambda lab, seed: train_head(lab, seed))
        self.work = work

    def train_head(self, lab: Lab, seed: int, **change) -> dict:
        return train_head(lab, seed, **change)[1]

    def thaw(self, lab: Lab, blocks: int | str, seed: int, **change) -> dict:
        """As `lab.thaw`, from the head of this seed; what several claims
        share is run once."""
        usual = lab.params.finetune.model_dump()
        usual |= {"epochs": EPOCHS, "views": VIEWS}
        change = {k: v for k, v in change.items() if v != usual.get(k)}
        words = [getattr(x, "__name__", str(x)) for x in change.values()]
        key = [lab.folder.name, str(blocks), str(seed), *change, *words]
        path = self.work / "trainings" / ("-".join(key) + ".json")
        if not path.exists():
            head = self.head(lab, seed)[0]
            write_json(path, thaw(lab, blocks, seed, head, **change))
        return json.loads(path.read_text())


def try_range(bench: Bench) -> Iterator[Run]:
    changes = {
        "[0, 255]": {},
        "[0, 1]": {"change": lambda x: x / 255, "name": "-unit"},
    }
    for name in ("clothing", "sign-digits"):
        lab = bench.open(name)
        for arm, change in changes.items():
            for seed in SEEDS:

                def do(lab=lab, change=change, seed=seed) -> dict:
                    gather = lab.gather_all(LAST, 1, **change)
                    return bench.train_head(lab, seed, views=1, gather=gather)

                yield Run(name, arm, seed, do)


def train_normalization(model: keras.Model) -> bool:
    """Thaws BatchNormalization of what is thawed."""
    trained = [x for x in model.layers if x.trainable and x.weights]
    first = model.layers.index(trained[0])
    for layer in model.layers[first:]:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = True
    return False


def try_normalization(bench: Bench) -> Iterator[Run]:
    for name in FAR:
        lab = bench.open(name)
        for arm, change in {
            "frozen": {},
            "trained": {"prepare": train_normalization},
        }.items():
            for seed in SEEDS:
                yield Run(
                    name,
                    arm,
                    seed,
                    partial(bench.thaw, lab, 2, seed, **change),
                )


def freeze_half(model: keras.Model) -> bool:
    """Of block6h, which has a shortcut, freezes what expands; the kernels
    behind it train."""
    names = [layer.name for layer in model.layers]
    first = names.index("block6h_expand_conv")
    last = names.index("block6h_dwconv")
    for layer in model.layers[first:last]:
        layer.trainable = False
    return True


def try_cut(bench: Bench) -> Iterator[Run]:
    arms = {
        "2 blocks": {"blocks": 2},
        "2 blocks and half of one": {"blocks": 3, "prepare": freeze_half},
        "3 blocks": {"blocks": 3},
    }
    for name in FAR:
        lab = bench.open(name)
        for arm, options in arms.items():
            for seed in SEEDS:
                do = partial(bench.thaw, lab, seed=seed, **options)
                yield Run(name, arm, seed, do)


COSTS = {
    "EfficientNetB0": (2, 8, "all"),
    "EfficientNetB4": (2, 8, 16, "all"),
    "EfficientNetB7": (2, 8, "all"),
}


def measure_cost(backbone: str, blocks: int | str) -> dict:
    """In a process of its own, whose memory it is."""
    program = [sys.executable, "-m", "benchmarks.claims.cost"]
    done = subprocess.run(
        [*program, backbone, str(blocks)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def try_cost(bench: Bench) -> Iterator[Run]:
    for seed in SEEDS:  # the networks side by side
        for backbone, depths in COSTS.items():
            for blocks in depths:
                yield Run(
                    backbone,
                    str(blocks),
                    seed,
                    partial(measure_cost, backbone, blocks),
                )


DEPTHS = {
    "sign-digits": (2, 4, 8),
    "traffic-signs": (2, 4, 8),
    "clothing": (2,),
    "digits": (2, 4, 8),
}


def try_depth(bench: Bench) -> Iterator[Run]:
    for name, depths in DEPTHS.items():
        lab = bench.open(name)
        for seed in SEEDS:
            yield Run(
                name, "0", seed, lambda lab=lab, s=seed: bench.head(lab, s)[1]
            )
        for blocks in depths:
            for seed in SEEDS:
                yield Run(
                    name,
                    str(blocks),
                    seed,
                    partial(bench.thaw, lab, blocks, seed),
                )


# Of fine-tuning, by set and depth; the default's runs are those of the depths.
RATES = {
    ("traffic-signs", 4): (0.0003, 0.001, 0.003, 0.01),
    ("traffic-signs", 2): (0.0003, 0.001, 0.003, 0.01),
    ("sign-digits", 4): (0.0003, 0.001, 0.003, 0.01),
}


def try_rates(bench: Bench) -> Iterator[Run]:
    for (name, blocks), rates in RATES.items():
        arms = {f"{blocks} blocks, {rate:g}": rate for rate in rates}
        yield from vary(bench, name, blocks, "learning_rate", arms)


def vary(
    bench: Bench, name: str, blocks: int, key: str, arms: dict
) -> Iterator[Run]:
    """Fine-tunes a set with each value of one parameter, by arm."""
    lab = bench.open(name)
    for arm, value in arms.items():
        for seed in SEEDS:
            do = partial(bench.thaw, lab, blocks, seed, **{key: value})
            yield Run(name, arm, seed, do)


# Epochs of fine-tuning, by set and depth.
LENGTHS = {
    ("traffic-signs", 2): (EPOCHS, 10, 15),
}


def try_lengths(bench: Bench) -> Iterator[Run]:
    for (name, blocks), lengths in LENGTHS.items():
        arms = {f"{epochs} epochs": epochs for epochs in lengths}
        yield from vary(bench, name, blocks, "epochs", arms)


def train_at_once(lab: Lab, seed: int, rate: str) -> dict:
    """Two blocks and a head that knows nothing, together."""
    head = build_head(1792, lab.classes, lab.params.head.dropout)
    section = getattr(lab.params, rate)
    return thaw(lab, 2, seed, head, learning_rate=section.learning_rate)


def try_phases(bench: Bench) -> Iterator[Run]:
    for name in FAR:
        lab = bench.open(name)
        arms = {
            "the head first": partial(bench.thaw, lab, 2),
            "both at once, the blocks' rate": partial(
                train_at_once, lab, rate="finetune"
            ),
            "both at once, the head's rate": partial(
                train_at_once, lab, rate="head"
            ),
        }
        for arm, do in arms.items():
            for seed in SEEDS:
                yield Run(name, arm, seed, partial(do, seed=seed))


def try_batches(bench: Bench) -> Iterator[Run]:
    arms = {str(size): size for size in (8, 32, 128)}
    yield from vary(bench, "sign-digits", 2, "batch_size", arms)


def try_sizes(bench: Bench) -> Iterator[Run]:
    for size in (64, 128, 224):
        lab = bench.open("traffic-signs", size)
        for seed in SEEDS:
            yield Run(
                "traffic-signs",
                f"{size} px",
                seed,
                partial(bench.train_head, lab, seed, views=1),
            )


def try_views(bench: Bench) -> Iterator[Run]:
    """As many views as epochs: each is seen once, as with live augmentation."""
    name = "traffic-signs"
    lab = bench.open(name)
    for views in (1, 2, VIEWS, 8, 16, lab.params.head.epochs):
        for seed in SEEDS:
            do = partial(bench.train_head, lab, seed, views=views)
            yield Run(name, f"head, {views}", seed, do)
    arms = {f"2 blocks, {views}": views for views in (1, 2, VIEWS, EPOCHS)}
    yield from vary(bench, name, 2, "views", arms)


def try_epochs(bench: Bench) -> Iterator[Run]:
    for name in SETS:
        lab = bench.open(name)
        for rate in (0.001, 0.003, 0.01):
            for seed in (1, 2, 3, 4, 5):
                yield Run(
                    name,
                    f"{rate:g}",
                    seed,
                    partial(bench.train_head, lab, seed, learning_rate=rate),
                )


class LowerRates(keras.optimizers.Adam):
    """Each block trains at half of the rate of the block above it."""

    def update_step(self, gradient, variable, learning_rate):
        own = self._trainable_variables[self._get_variable_index(variable)]
        below = {"block7b": 1, "block7a": 2}.get(own.path[:7], 0)
        super().update_step(gradient, variable, learning_rate / 2**below)


# What practitioners add, each by what it changes of `lab.fit`.
TRICKS = {
    "as shipped": {},
    "AdamW, decay 0.05": {
        "optimizer": partial(keras.optimizers.AdamW, weight_decay=0.05)
    },
    "averaged weights, 0.99": {
        "optimizer": partial(
            keras.optimizers.Adam, use_ema=True, ema_momentum=0.99
        )
    },
    "label smoothing 0.1": {"smoothing": 0.1},
    "MixUp 0.2 at the cut": {"mixup": 0.2},
    "half the rate a block lower": {"optimizer": LowerRates},
}


def try_tricks(bench: Bench) -> Iterator[Run]:
    for name in FAR[::-1]:
        lab = bench.open(name)
        for arm, change in TRICKS.items():
            for seed in SEEDS:

                def do(lab=lab, seed=seed, change=change) -> dict:
                    if not change:
                        return bench.thaw(lab, 2, seed)
                    return thaw(
                        lab, 2, seed, bench.head(lab, seed)[0], **change
                    )

                yield Run(name, arm, seed, do)


REGRESSED = {"clothing": 224, "sign-digits": 128, "traffic-signs": 128}


def try_regression(bench: Bench) -> Iterator[Run]:
    """Against scikit-learn, on the same features of the same split."""
    for name, size in REGRESSED.items():
        lab = bench.open(name, size)
        where = f"{name}, {size} px"
        for seed in (1, 2, 3, 4, 5):
            do = partial(bench.train_head, lab, seed)
            yield Run(where, "head", seed, do)
        for seed in (1, 2, 3, 4, 5):
            do = partial(bench.train_head, lab, seed, start="discriminants")
            yield Run(where, "head, from discriminants", seed, do)
        yield Run(where, "LogisticRegressionCV", 1, partial(regress, lab))


def try_bits(bench: Bench) -> Iterator[Run]:
    """Behind block3 of EfficientNetB4: 22 of 32 blocks thawed.

    At the rate of params.yaml, not clipped, hands are lost: these take a third
    of it, as the stage would go on with, and clip as it does.
    """
    change = {
        "epochs": 4,
        "learning_rate": 0.001,
        "optimizer": partial(keras.optimizers.Adam, global_clipnorm=1.0),
    }
    arms = {"streamed": 32, "16 bits": 16, "8 bits": 8}
    for seed in SEEDS:
        for name in FAR:
            lab = bench.open(name)
            for arm, bits in arms.items():

                def do(lab=lab, seed=seed, bits=bits) -> dict:
                    head = bench.head(lab, seed)[0]
                    return thaw(lab, 22, seed, head, bits=bits, **change)

                yield Run(name, arm, seed, do)


EXPERIMENTS = {
    "range": try_range,
    "normalization": try_normalization,
    "cut": try_cut,
    "cost": try_cost,
    "depth": try_depth,
    "phases": try_phases,
    "rates": try_rates,
    "lengths": try_lengths,
    "batches": try_batches,
    "sizes": try_sizes,
    "views": try_views,
    "epochs": try_epochs,
    "tricks": try_tricks,
    "regression": try_regression,
    "bits": try_bits,
}
