"""What a run came to, in words, and what to do next."""

import os
import subprocess
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

from ruamel.yaml import YAML

from thaw.comparison import HEAD_SHIPPED, Comparison
from thaw.console import format_count
from thaw.files import list_outs, read_yaml

MODELS = ("head", "finetuned")

COLUMNS = 79  # of a terminal that is not wide

LOCK = "dvc.lock"
PREPARED = "data/prepared"
PREDICTIONS = "metrics/predictions.csv"


def describe_scores(
    scores: Mapping[str, Mapping], gain: Comparison, shipped: str
) -> Iterator[str]:
    """A line for each model, and one for what fine-tuning gained.

    Args:
        scores: of head and finetuned, from `score_predictions`.
        gain: from the one to the other.
        shipped: finetuned or head.
    """
    for name in ("finetuned",) if shipped == "head" else MODELS:
        score = scores[name]
        yield (
            f"{'head alone, shipped' if shipped == 'head' else name}: "
            f"accuracy {score['accuracy']:.3f}, 95 % interval "
            f"{score['accuracy_ci_low']:.3f} to {score['accuracy_ci_high']:.3f}"
        )
    if shipped == "head":
        yield "fine-tuning: no better than the head alone on validation"
    else:
        yield f"fine-tuning: {gain.describe()}"


def describe_verdict(
    evaluate: Mapping, finetune: Mapping, blocks: int | str
) -> str:
    """Whether fine-tuning helped, in one sentence.

    Args:
        evaluate, finetune: the details of these stages.
        blocks: that were to be thawed, as the parameter has it.
    """
    if blocks == "all":
        thawed = format_count(finetune["blocks"], "block")
        did = f"fine-tuning all {thawed} and the stem"
    elif blocks == 0:
        did = "training the head further"
    else:
        did = f"fine-tuning {format_count(blocks, 'block')}"
    images = format_count(evaluate["n"], "test image")
    before, after = (evaluate[name]["accuracy"] for name in MODELS)
    scores = f"{after:.3f} against {before:.3f} accuracy"
    sentence = {
        HEAD_SHIPPED: (
            f"{did} did not beat the head alone on validation, so the head "
            f"alone is shipped: {after:.3f} accuracy on {images}."
        ),
        "better": f"{did} helped: {scores} on {images}.",
        "worse": f"{did} did harm: {scores} on {images}.",
        "within noise": (
            f"{did} makes no difference that {images} can show: {scores}."
        ),
    }[evaluate["gain_verdict"]]
    return sentence[0].upper() + sentence[1:]


def suggest_depth(evaluate: Mapping, finetune: Mapping, total: int) -> int:
    """Another depth to try: deeper, unless depth did harm or none is left.

    Args:
        evaluate, finetune: the details of these stages.
        total: blocks that the backbone has.
    """
    blocks = finetune["blocks"]
    harmed = evaluate["gain_verdict"] in ("worse", HEAD_SHIPPED) and blocks > 1
    if harmed or blocks == total:
        return blocks // 2
    return min(max(1, 2 * blocks), total)


def describe_end(page: str | Path, verdict: str, depth: int) -> Iterator[str]:
    """The last lines of a run, for a terminal of 80 columns.

    Args:
        page: where the report lies.
        verdict: from `describe_verdict`.
        depth: from `suggest_depth`.
    """
    yield from textwrap.wrap(verdict, COLUMNS)
    yield f"All of it is on one page: {page}"
    yield "Next:"
    here, there = list_outs(read_yaml(LOCK)), read_committed(LOCK)
    known = there.get(PREDICTIONS, "")
    if here.get(PREDICTIONS) == known:
        step = (
            f"python -m thaw plan -S finetune.blocks={depth}",
            "the cost of another depth",
        )
    elif here.get(PREPARED) == there.get(PREPARED) and is_at_hand(known):
        step = "python -m thaw compare HEAD", "better than what is committed?"
    else:
        step = (
            'git add . && git commit -m "Results"',
            "to compare later runs with",
        )
    for command, why in (
        step,
        ("dvc repro export/dvc.yaml", "the files to deploy"),
    ):
        yield f"    {command:42} # {why}"


def read_committed(lock: str | Path) -> dict[str, str]:
    """As `list_outs`, of the last commit; empty where there is none."""
    try:
        done = subprocess.run(
            ["git", "show", f"HEAD:./{lock}"],
            capture_output=True,
            check=True,
            encoding="utf-8",
        )
    except (OSError, subprocess.CalledProcessError):
        return {}
    return list_outs(YAML(typ="safe").load(done.stdout))


def is_at_hand(md5: str) -> bool:
    """Whether DVC's cache, where it lies by default, has a file."""
    root = Path(os.environ.get("DVC_ROOT", "."))
    return (root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]).is_file()
