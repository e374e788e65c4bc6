"""docs/claims.md, from the results of the experiments."""

import json
import statistics
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy import stats

COMMAND = "python -m benchmarks.claims DATA --weights FILE"

HEAD = """\
# The guide's claims, measured

What the Keras guide [Image classification via fine-tuning with
EfficientNet](https://keras.io/examples/vision/image_classification_efficientnet_fine_tuning/)
says, and what Thaw says besides, tried on photographs. Each number is the mean
test accuracy of the last epoch over seeds, with its 95 % interval (Student's t
over seeds); a difference is paired by seed. Raw numbers, run by run, with the
environment, lie in [claims/](claims/). All of it again, resumable:

```bash
python -m benchmarks.claims DATA --weights FILE
```

The sets are 3,781 photographs of clothing (near ImageNet), 2,062 of hands that
show a digit and 2,000 of traffic signs in tracks that no split shares (far),
with EfficientNetB4 and ImageNet weights at 128 px, and scikit-learn's digits
with the bundled checkpoint of EfficientNetB0. Fine-tuning takes 6 epochs here
and 4 views; all else is what params.yaml says, but that heads are the guide's
own: on the last layer, from random weights, without `head.l2`.
[head.md](head.md) has what ours is worth. Runs used one thread or two, as
their environment tells; between
these the same seed differs by up to 0.03 on traffic signs. Seconds are of
machines that did other things besides.
"""


@dataclass(frozen=True)
class Claim:
    """One section of the page.

    Attributes:
        name: of the experiment and its file.
        title: what is claimed.
        baseline: the arm that others are compared with.
        verdict: what the numbers say of it, in a word or two.
        words: what they say, written by hand when they were made.
        columns: of the table, beside accuracy: of `COLUMNS`.
    """

    name: str
    title: str
    baseline: str
    verdict: str
    words: str
    columns: tuple[str, ...] = ("gain",)


CLAIMS = (
    Claim(
        "range",
        "Inputs range over [0, 255]; the normalisation is part of the model",
        "[0, 255]",
        "Confirmed",
        "The head on frozen features, one view. Of images that were scaled to "
        "[0, 1] before, the network sees next to nothing.",
    ),
    Claim(
        "sizes",
        "Small pictures gain from being upsampled",
        "64 px",
        "Confirmed up to a size",
        "The head on frozen features, one view; the signs are 32 px. "
        "From 64 to 128 px the head gains 8 points, from there to 224 px "
        "nothing.",
    ),
    Claim(
        "depth",
        "Near ImageNet fine-tuning is worth little, far from it much",
        "0",
        "Confirmed",
        "By the number of thawed blocks; 0 is the head alone. Traffic signs "
        "gain 12 to 16 points, hands 5 to 6, two thirds of what their head "
        "leaves. Clothing, the set near ImageNet, gains 4 points at 128 px; "
        "at 224 px the product's own runs, two blocks and 15 epochs, go from "
        "0.919, 0.927 and 0.914 to 0.930, 0.927 and 0.944, each within noise "
        "on 372 images. The first epoch at a rate of 0.003 loses much, and "
        "the next ones win it back.",
        ("gain", "first", "seconds"),
    ),
    Claim(
        "normalization",
        "BatchNormalization stays frozen",
        "frozen",
        "In part",
        "Two blocks thawed. On traffic signs training BatchNormalization ends "
        "lower in each of three seeds, by 6 points in the mean, and costs the "
        "first epoch nothing. On hands it costs the first epoch 7 points, and "
        "after six nothing of that is left.",
        ("gain", "first"),
    ),
    Claim(
        "cut",
        "A block is thawed as a whole or not at all",
        "2 blocks",
        "Not confirmed here",
        "Half a block: of block6h, which has a shortcut, what is behind the "
        "expansion. It is as good as the whole of it, within noise, on both "
        "sets; on traffic signs both lie 3 points below two blocks, within "
        "noise. "
        "Whole blocks are the simpler unit, not the better one.",
        ("gain", "first"),
    ),
    Claim(
        "phases",
        "First the head at a large rate, then the blocks at a small one",
        "the head first",
        "Not confirmed here",
        "Two blocks thawed, equal epochs of fine-tuning. At the small rate a "
        "random head catches up: within six epochs both at once is as good, "
        "within noise, on both sets. At the head's rate it is no better, and "
        "one of three runs on traffic signs loses 15 points. The trained head "
        "makes the start cheap, and is shipped where nothing beats it.",
        ("gain", "first"),
    ),
    Claim(
        "rates",
        "The rate of fine-tuning (ours)",
        "",
        "A small rate, but not too small",
        "Equal epochs, warm-up and cosine. Of 0.0003, 0.001 and 0.003 the "
        "largest is best on both sets and at both depths, by 6 to 10 points "
        "on traffic signs. At 0.01, the head's rate, four blocks diverge in "
        "each of three seeds, and two lose 5 points.",
        ("first",),
    ),
    Claim(
        "lengths",
        "How many epochs of fine-tuning (ours)",
        "6 epochs",
        "Little after six",
        "Two blocks thawed. 15 epochs gain 2 points over 6 on traffic signs, "
        "within noise. With 8 blocks on the digits, the default run, 15 "
        "epochs beat the head with p < 0.01 in four of five seeds.",
        ("gain", "seconds"),
    ),
    Claim(
        "batches",
        "Small batches help",
        "32",
        "Not confirmed here",
        "Two blocks thawed. Batches of 8 are as good as of 32, and take three "
        "times as long; batches of 128 lose 0.7 points, within noise.",
        ("gain", "seconds"),
    ),
    Claim(
        "cost",
        "A part of the blocks is much cheaper than all",
        "all",
        "Confirmed",
        "A training step at 224 px, batches of 16, random weights: the median "
        "of three runs of four steps each, all depths in turn; two of the runs "
        "had the machine to themselves. Two blocks of B7 train 20 times as "
        "fast as all of it, in a twenty-third of the memory.",
    ),
    Claim(
        "views",
        "How many cached views are worth live augmentation (ours)",
        "head, 1",
        "Four with blocks thawed, eight for the head",
        "As many views as epochs are live augmentation: no view is seen "
        "twice. With two blocks thawed, 4 views are worth live augmentation, "
        "6 in 6 epochs, within noise; one view loses 6 points, two lose 3. A "
        "head gains up to 8: the default of 4 gives it 5 points away here, "
        "for half of the frozen pass.",
        ("gain", "seconds"),
    ),
    Claim(
        "tricks",
        "What practitioners add to fine-tuning (ours)",
        "as shipped",
        "Nothing gained",
        "Two blocks thawed. AdamW, averaged weights (Keras's EMA, scored with "
        "the average) and MixUp of activations at the cut lie below plain Adam "
        "on traffic signs, within noise. Label smoothing loses 2 points, lower "
        "rates for lower blocks 9, as a lower rate for all does. Fine-tuning "
        "stays plain Adam with a cosine.",
        ("gain", "first"),
    ),
    Claim(
        "regression",
        "The head against logistic regression (ours)",
        "",
        "Better on two sets, equal on one",
        "scikit-learn's LogisticRegressionCV on the same frozen features, "
        "standardised, without views, its penalty chosen by five folds of "
        "training images that keep groups together. The head sees four views. "
        "Clothing at 224 px, five seeds: 0.916 in the mean.",
        ("seconds",),
    ),
    Claim(
        "bits",
        "A deep cut, kept in 16 bits or in 8 (ours)",
        "streamed",
        "Equal on hands; on signs two seeds do not tell",
        "Behind block3, 22 of 32 blocks thawed, 4 epochs at 0.001, clipped; "
        "at 0.003, not clipped, hands were lost. Streamed, the cut is "
        "computed in 32 bits in every epoch; kept in 8, each channel has a "
        "scale. On both sets activations in 16 bits agree with those that "
        "are streamed to 0.0002 of their norm; on signs trainings that begin "
        "so near each other end up to 8 points apart. Signs come from 0.57, "
        "the head alone, to 0.83 and more: there so deep a thaw at a lower "
        "rate is worth far more than the 8 blocks above. Two seeds; of signs "
        "in 8 bits one.",
        ("gain",),
    ),
    Claim(
        "epochs",
        "The last epoch is the one to keep (ours)",
        "0.01",
        "Confirmed for heads",
        "Heads at three rates, five seeds, by the rule that picks the epoch. "
        "The last epoch is the best rule or within 0.6 points of it on every "
        "set. The least validation loss, the usual rule, gives up to 1.9 "
        "points away. The best epoch by mean test accuracy, which no rule can "
        "know, is up to 1.4 points better on traffic signs, up to 0.2 "
        "elsewhere.",
    ),
)

# Beside accuracy, what a column says of an arm's runs, given the baseline's.
COLUMNS = {
    "gain": "against the first",
    "first": "after the first epoch",
    "seconds": "training, s",
}


def write_page(results: Path, path: Path) -> None:
    parts = [HEAD]
    for claim in CLAIMS:
        file = results / f"{claim.name}.json"
        if file.exists():
            runs = json.loads(file.read_text())
            parts.append("\n".join(describe(claim, runs)))
            if claim.name == "depth":
                draw_depths(results / "depth.svg", runs)
    path.write_text("\n".join(parts) + "\n", encoding="utf-8")


def describe(claim: Claim, runs: Sequence[dict]) -> Iterator[str]:
    yield f"## {claim.title}\n"
    words = (
        f"**{claim.verdict}.** {claim.words}" if claim.verdict else claim.words
    )
    yield textwrap.fill(words, 80) + "\n"
    if claim.name == "depth":
        yield "![Accuracy by depth on four sets](claims/depth.svg)\n"
    if claim.name == "cost":
        yield from tabulate_cost(runs)
    elif claim.name == "epochs":
        yield from tabulate_rules(runs)
    else:
        yield from tabulate_arms(claim, runs)
    command = f"{COMMAND} --only {claim.name}"
    yield f"\n`{command}`; [runs](claims/{claim.name}.json)\n"


def tabulate_arms(claim: Claim, runs: Sequence[dict]) -> Iterator[str]:
    names = [COLUMNS[column] for column in claim.columns]
    yield f"| set | | accuracy | {' | '.join(names)} |"
    yield f"|---|---|---|{'---|' * len(names)}"
    for name in dict.fromkeys(run["set"] for run in runs):
        own = [run for run in runs if run["set"] == name]
        bases = {r["seed"]: last(r) for r in own if r["arm"] == claim.baseline}
        for arm in dict.fromkeys(run["arm"] for run in own):
            arms = {r["seed"]: r for r in own if r["arm"] == arm}
            pairs = [last(arms[s]) - bases[s] for s in arms if s in bases]
            first = statistics.mean(
                run["scores"][1]["test_accuracy"] for run in arms.values()
            )
            seconds = statistics.median(r["seconds"] for r in arms.values())
            head = claim.name == "depth" and arm == "0"
            cells = {
                "gain": signed(pairs)
                if pairs and arm != claim.baseline
                else "",
                "first": "" if head else f"{first:.3f}",
                "seconds": f"{seconds:.0f}",
            }
            mean = interval([last(run) for run in arms.values()])
            shown = " | ".join(cells[column] for column in claim.columns)
            yield f"| {name} | {arm} | {mean} | {shown} |"


def draw_depths(path: Path, runs: Sequence[dict]) -> None:
    """Accuracy by the number of thawed blocks, with 95 % intervals."""
    import matplotlib
    from matplotlib.figure import Figure

    style = {"svg.hashsalt": "depth", "svg.fonttype": "none", "font.size": 10}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = figure.subplots()
        for name in dict.fromkeys(run["set"] for run in runs):
            depths, means, halves = [], [], []
            for arm in dict.fromkeys(
                r["arm"] for r in runs if r["set"] == name
            ):
                values = [
                    last(r) for r in runs if (r["set"], r["arm"]) == (name, arm)
                ]
                depths.append(int(arm))
                means.append(statistics.mean(values))
                halves.append(measure_half(values))
            axes.errorbar(
                depths, means, halves, marker="o", capsize=3, label=name
            )
        axes.set(
            xlabel="thawed blocks (0: the head alone)", ylabel="test accuracy"
        )
        axes.grid(alpha=0.3)
        axes.legend(loc="center right")
        figure.savefig(
            path, format="svg", metadata=dict.fromkeys(("Creator", "Date"))
        )


RULES = {
    "least validation loss": lambda row: row["validation_loss"],
    "least after temperature": lambda row: row["validation_calibrated_loss"],
    "best validation accuracy": lambda row: -row["validation_accuracy"],
    "last": None,
}


def tabulate_rules(runs: Sequence[dict]) -> Iterator[str]:
    yield f"| set | rate | {' | '.join(RULES)} | best by mean over seeds |"
    yield f"|---|---|{'---|' * len(RULES)}---|"
    keys = dict.fromkeys((run["set"], run["arm"]) for run in runs)
    for name, rate in keys:
        own = [r for r in runs if (r["set"], r["arm"]) == (name, rate)]
        cells = []
        for rule in RULES.values():
            picked = [
                min(run["scores"][1:], key=rule) if rule else run["scores"][-1]
                for run in own
            ]
            cells.append(
                f"{statistics.mean(x['test_accuracy'] for x in picked):.3f}"
            )
        epochs = zip(*(run["scores"][1:] for run in own), strict=True)
        best = max(
            statistics.mean(x["test_accuracy"] for x in epoch)
            for epoch in epochs
        )
        yield f"| {name} | {rate} | {' | '.join(cells)} | {best:.3f} |"


def tabulate_cost(runs: Sequence[dict]) -> Iterator[str]:
    yield "| network | blocks | images/s | times all | MiB | parameters |"
    yield "|---|---|---|---|---|---|"
    for name in dict.fromkeys(run["set"] for run in runs):
        own = [run for run in runs if run["set"] == name]
        speeds = {
            arm: statistics.median(
                r["images_per_second"] for r in own if r["arm"] == arm
            )
            for arm in dict.fromkeys(run["arm"] for run in own)
        }
        for arm, speed in speeds.items():
            of = [run for run in own if run["arm"] == arm]
            memory = statistics.median(run["mib"] for run in of)
            ratio = f"{speed / speeds['all']:.1f}" if "all" in speeds else ""
            yield (
                f"| {name} | {arm} | {speed:.1f} | {ratio} | {memory:,.0f} | "
                f"{of[0]['trainable_parameters']:,} |"
            )


def last(run: dict) -> float:
    return run["scores"][-1]["test_accuracy"]


def interval(values: Sequence[float]) -> str:
    """The mean, and half of its 95 % interval."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.3f}"
    return f"{mean:.3f} ± {measure_half(values):.3f}"


def measure_half(values: Sequence[float]) -> float:
    """Half of the mean's 95 % interval, by Student's t; 0 for one value."""
    if len(values) < 2:
        return 0.0
    return stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)


def signed(values: Sequence[float]) -> str:
    text = interval(values)
    return text if text[0] == "-" else f"+{text}"
