"""docs/claims.md, from the results of the experiments."""

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy import stats

HEAD = """\
# The guide's claims, measured

What the Keras guide [Image classification via fine-tuning with
EfficientNet](https://keras.io/examples/vision/image_classification_efficientnet_fine_tuning/)
says, and what Thaw says besides, tried on photographs. Each number is the mean
test accuracy of the last epoch over seeds, with its 95 % interval (Student's t
over seeds); a difference is paired by seed. Raw numbers, run by run, with the
environment, lie in [claims/](claims/). All of it again, resumable:

    python -m benchmarks.claims DATA --weights FILE

The sets are 3,781 photographs of clothing (near ImageNet), 2,062 of hands that
show a digit and 2,000 of traffic signs in tracks that no split shares (far),
with EfficientNetB4 and ImageNet weights at 128 px, and scikit-learn's digits
with the bundled checkpoint of EfficientNetB0. Fine-tuning takes 6 epochs here
and 4 views; all else is what params.yaml says.
"""


@dataclass(frozen=True)
class Claim:
    """One section of the page.

    Attributes:
        name: of the experiment and its file.
        title: what is claimed.
        baseline: the arm that others are compared with.
        words: what the numbers say, written by hand when they were made.
    """

    name: str
    title: str
    baseline: str
    words: str


CLAIMS = (
    Claim(
        "epochs",
        "The last epoch is the one to keep (ours)",
        "0.01",
        "Of heads at three rates, by the rule that picks the epoch.",
    ),
    Claim(
        "range",
        "Inputs range over [0, 255]; the normalisation is part of the model",
        "[0, 255]",
        "The head on frozen features, one view. Confirmed: scaled to [0, 1] "
        "before, the network sees next to nothing.",
    ),
    Claim(
        "sizes",
        "Small pictures gain from being upsampled",
        "64 px",
        "The head on frozen features, one view; the pictures are 23 to 160 px.",
    ),
    Claim(
        "views",
        "How many cached views are worth live augmentation (ours)",
        "head, 1",
        "As many views as epochs are live augmentation: no view is seen twice.",
    ),
    Claim(
        "depth",
        "Near ImageNet fine-tuning is worth little, far from it much",
        "0",
        "By the number of thawed blocks; 0 is the head alone.",
    ),
    Claim(
        "normalization",
        "BatchNormalization stays frozen",
        "frozen",
        "Two blocks thawed.",
    ),
    Claim(
        "cut",
        "A block is thawed as a whole or not at all",
        "2 blocks",
        "Half a block: of block6h, which has a shortcut, what is behind the "
        "expansion.",
    ),
    Claim(
        "phases",
        "First the head at a large rate, then the blocks at a small one",
        "the head first",
        "Two blocks thawed, equal epochs of fine-tuning.",
    ),
    Claim("batches", "Small batches help", "32", "Two blocks thawed."),
    Claim(
        "cost",
        "A part of the blocks is much cheaper than all",
        "all",
        "A training step at 224 px, batches of 16, random weights.",
    ),
)


def write_page(results: Path, path: Path) -> None:
    parts = [HEAD]
    for claim in CLAIMS:
        file = results / f"{claim.name}.json"
        if file.exists():
            runs = json.loads(file.read_text())
            parts.append("\n".join(describe(claim, runs)))
    path.write_text("\n".join(parts) + "\n", encoding="utf-8")


def describe(claim: Claim, runs: Sequence[dict]) -> Iterator[str]:
    yield f"## {claim.title}\n"
    yield claim.words + "\n"
    if claim.name == "cost":
        yield from tabulate_cost(runs)
    elif claim.name == "epochs":
        yield from tabulate_rules(runs)
    else:
        yield from tabulate_arms(runs, claim.baseline)
    yield f"\n`--only {claim.name}`\n"


def tabulate_arms(runs: Sequence[dict], baseline: str) -> Iterator[str]:
    yield "| set | | accuracy | against the first | first epoch |"
    yield "|---|---|---|---|---|"
    for name in dict.fromkeys(run["set"] for run in runs):
        own = [run for run in runs if run["set"] == name]
        bases = {r["seed"]: last(r) for r in own if r["arm"] == baseline}
        for arm in dict.fromkeys(run["arm"] for run in own):
            arms = {r["seed"]: r for r in own if r["arm"] == arm}
            mean = interval([last(run) for run in arms.values()])
            pairs = [last(arms[s]) - bases[s] for s in arms if s in bases]
            gain = "" if arm == baseline or not pairs else signed(pairs)
            first = statistics.mean(
                run["scores"][1]["test_accuracy"]
                - run["scores"][0]["test_accuracy"]
                for run in arms.values()
            )
            yield f"| {name} | {arm} | {mean} | {gain} | {first:+.3f} |"


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
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return f"{mean:.3f} ± {half:.3f}"


def signed(values: Sequence[float]) -> str:
    text = interval(values)
    return text if text[0] == "-" else f"+{text}"
