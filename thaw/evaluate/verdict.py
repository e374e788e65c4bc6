"""What a run came to, in words."""

from collections.abc import Iterator, Mapping

from thaw.evaluate.comparison import HEAD_SHIPPED, Comparison
from thaw.files.phrases import format_count

MODELS = ("head", "finetuned")


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
    evaluate: Mapping,
    finetune: Mapping,
    blocks: int | str,
    trained: bool = True,
) -> str:
    """Whether fine-tuning helped, in one sentence.

    Args:
        evaluate, finetune: the details of these stages.
        blocks: that were to be thawed, as the parameter has it.
        trained: whether there was an epoch of fine-tuning.
    """
    images = format_count(evaluate["n"], "test image")
    before, after = (evaluate[name]["accuracy"] for name in MODELS)
    if not trained:
        return f"The head alone, as asked: {after:.3f} accuracy on {images}."
    if not isinstance(blocks, int):  # all
        thawed = format_count(finetune["blocks"], "block")
        did = f"fine-tuning all {thawed} and the stem"
    elif blocks == 0:
        did = "training the head further"
    else:
        did = f"fine-tuning {format_count(blocks, 'block')}"
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
