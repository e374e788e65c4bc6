"""Scores, comparisons and verdicts."""

import numpy as np
import pytest
from samples import read
from sklearn import metrics as sk

from thaw.evaluate.comparison import compare_hits, judge_gain, measure_interval
from thaw.evaluate.scores import (
    measure_calibration,
    rank_labels,
    score_predictions,
    write_scores,
)
from thaw.evaluate.verdict import (
    describe_scores,
    describe_verdict,
    suggest_depth,
)
from thaw.linear.temperature import calibrate


@pytest.mark.parametrize(
    ("verdict", "shipped", "blocks", "expected"),
    [
        ("better", "finetuned", 1, "Fine-tuning 1 block helped: 0.900 against"),
        ("worse", "finetuned", 3, "Fine-tuning 3 blocks did harm: 0.900"),
        ("within noise", "finetuned", 0, "Training the head further makes no"),
        ("within noise", "finetuned", "all", "Fine-tuning all 16 blocks and"),
        ("head shipped", "head", 2, "Fine-tuning 2 blocks did not beat"),
    ],
)
def test_a_verdict_is_a_sentence(verdict, shipped, blocks, expected):
    evaluate = {
        "head": {"accuracy": 0.8},
        "finetuned": {"accuracy": 0.9},
        "n": 1000,
        "gain_verdict": verdict,
    }
    finetune = {"shipped": shipped, "blocks": 16}
    sentence = describe_verdict(evaluate, finetune, blocks)
    assert sentence.startswith(expected)
    assert "1,000 test images" in sentence


def test_no_epoch_makes_no_claim_of_fine_tuning():
    evaluate = {"n": 9} | {x: {"accuracy": 0.5} for x in ("head", "finetuned")}
    sentence = describe_verdict(evaluate, {"blocks": 2}, 2, trained=False)
    assert sentence.startswith("The head alone, as asked: 0.500 accuracy on 9")


def test_one_image_is_singular():
    score = {"accuracy": 1.0}
    evaluate = {"head": score, "finetuned": score, "n": 1}
    evaluate["gain_verdict"] = "within noise"
    sentence = describe_verdict(evaluate, {"blocks": 1}, "all")
    assert sentence.startswith("Fine-tuning all 1 block and")
    assert "that 1 test image can" in sentence


@pytest.mark.parametrize(
    ("verdict", "blocks", "expected"),
    [
        ("better", 1, 2),
        ("within noise", 8, 16),
        ("within noise", 9, 16),
        ("better", 16, 8),
        ("worse", 4, 2),
        ("head shipped", 1, 2),
        ("within noise", 0, 1),
    ],
)
def test_a_verdict_suggests_a_depth(verdict, blocks, expected):
    evaluate, finetune = {"gain_verdict": verdict}, {"blocks": blocks}
    assert suggest_depth(evaluate, finetune, 16) == expected


def test_scores_are_those_of_a_hand_count():
    probabilities = np.array(
        [[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.3, 0.2], [0.2, 0.2, 0.6]]
    )
    labels = np.array([0, 1, 1, 2])
    scores = score_predictions(probabilities, labels, 1.0, top_k=2)
    assert scores["accuracy"] == 0.75 and scores["top2"] == 1
    expected = -np.log([0.7, 0.6, 0.3, 0.6]).mean()
    assert scores["loss"] == pytest.approx(expected)
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    # Wilson's interval for 3 of 4.
    assert scores["accuracy_ci_low"] == pytest.approx(0.3006, abs=1e-4)
    assert scores["accuracy_ci_high"] == pytest.approx(0.9544, abs=1e-4)


@pytest.mark.parametrize("top_k", [3, 5])
def test_top_k_of_no_more_classes_is_left_out(top_k):
    thirds = np.full((4, 3), 1 / 3)
    scores = score_predictions(thirds, np.arange(4) % 3, 1.0, top_k)
    assert not [key for key in scores if key.startswith("top")]


def test_calibration_error_is_confidence_minus_accuracy():
    sure = np.tile([0.9, 0.1], (10, 1))
    labels = np.array([0] * 6 + [1] * 4)
    assert measure_calibration(sure, labels) == pytest.approx(0.3)
    assert measure_calibration(np.tile([1.0, 0.0], (5, 1)), np.zeros(5)) == 0


def test_a_rank_is_a_place_and_ties_go_to_the_first_class():
    probabilities = np.array(
        [[0.5, 0.3, 0.2], [0.4, 0.4, 0.2], [0.4, 0.4, 0.2]]
    )
    assert rank_labels(probabilities, np.array([2, 0, 1])).tolist() == [3, 1, 2]


def pair(both, before, after, neither):
    """Hits of two models: images that both, one or none of them has right."""
    first = [1] * both + [1] * before + [0] * after + [0] * neither
    second = [1] * both + [0] * before + [1] * after + [0] * neither
    return np.array(first, bool), np.array(second, bool)


def test_the_comparison_is_the_published_one():
    """Newcombe (1998), Table II: 20, 12, 2 and 16 of 50, method 10."""
    pairs = pair(20, 2, 12, 16)
    low, high = measure_interval(*pairs, confidence=0.95)
    assert low == pytest.approx(0.0562, abs=1e-4)
    assert high == pytest.approx(0.3292, abs=1e-4)
    found = compare_hits(*pairs)
    assert found.difference == pytest.approx(0.2)
    assert found.low < low < high < found.high
    # Exact McNemar: 2 or fewer, or 12 or more, of 14 at even odds.
    assert found.p_value == pytest.approx(2 * (1 + 14 + 91) / 2**14)
    assert found.judge() == "within noise"
    assert compare_hits(*pair(20, 2, 16, 12)).judge() == "better"
    assert compare_hits(*pair(20, 16, 2, 12)).judge() == "worse"


def test_an_uncertain_difference_is_noise():
    assert compare_hits(*pair(90, 3, 7, 0)).judge() == "within noise"
    assert compare_hits(*pair(10, 0, 0, 5)).p_value == 1
    # Enough by itself, not among many.
    found = compare_hits(*pair(20, 2, 16, 12))
    assert found.judge(0.2) == "within noise"


def test_a_shipped_head_is_not_compared_with_itself():
    gain = compare_hits(*pair(20, 1, 0, 9))
    assert judge_gain(gain, "head") == {
        "gain": gain.difference,
        "gain_verdict": "head shipped",
    }
    assert judge_gain(gain, "finetuned")["gain_p_value"] == 1
    score = {"accuracy": 0.7, "accuracy_ci_low": 0.6, "accuracy_ci_high": 0.8}
    scores = {"head": score, "finetuned": score}
    lines = list(describe_scores(scores, gain, "head"))
    assert lines == [
        "head alone, shipped: accuracy 0.700, 95 % interval 0.600 to 0.800",
        "fine-tuning: no better than the head alone on validation",
    ]
    lines = list(describe_scores(scores, gain, "finetuned"))
    assert len(lines) == 3
    assert "within noise, -0.033, 99 % interval" in lines[2]
    assert "of 30 images 0 right only after it, 1 only before" in lines[2]


@pytest.mark.parametrize("model", ["head", "finetuned"])
def test_metrics_can_be_recomputed_from_the_table(results, model):
    scores, table, labels, probabilities = results
    scores, predicted = scores[model], probabilities[model]
    got = np.array([row[model] for row in table])
    actual = np.array([row["actual"] for row in table])
    assert scores["accuracy"] == sk.accuracy_score(actual, got)
    assert scores["macro_f1"] == pytest.approx(
        sk.f1_score(actual, got, average="macro", zero_division=0)
    )
    assert scores["loss"] == pytest.approx(sk.log_loss(labels, predicted))
    calibrated = calibrate(predicted, scores["temperature"])
    assert scores["calibrated_loss"] == pytest.approx(
        sk.log_loss(labels, calibrated)
    )
    rows = np.arange(len(labels))
    for column, values in {
        "probability": predicted.max(axis=1),
        "calibrated": calibrated.max(axis=1),
        "actual_probability": predicted[rows, labels],
        "actual_rank": rank_labels(predicted, labels),
    }.items():
        read = np.array([row[f"{model}_{column}"] for row in table])
        assert np.array_equal(read.astype(np.float32), np.float32(values))


def test_each_class_has_its_precision_and_recall(reproduced, results):
    _, _, labels, probabilities = results
    predicted = probabilities["finetuned"].argmax(axis=1)
    precision, recall, *_ = sk.precision_recall_fscore_support(
        labels, predicted, zero_division=0
    )
    rows = [
        row
        for row in read(reproduced.folder / "plots/scores.csv")
        if row["model"] == "finetuned"
    ]
    assert [float(row["precision"]) for row in rows] == precision.tolist()
    assert [float(row["recall"]) for row in rows] == recall.tolist()


def test_the_gain_is_judged_pair_by_pair(results):
    scores, _, labels, probabilities = results
    head, finetuned = (
        p.argmax(axis=1) == labels for p in probabilities.values()
    )
    expected = compare_hits(head, finetuned)
    assert scores["gain"] == expected.difference
    assert scores["gain_p_value"] == expected.p_value
    assert scores["gain_verdict"] == expected.judge()
    assert scores["gain_ci_low"] <= scores["gain"] <= scores["gain_ci_high"]


def test_a_model_that_gets_nothing_right_has_scores(tmp_path):
    labels = np.array([0, 1, 2, 0])
    wrong = np.eye(3)[[1, 2, 0, 1]]
    write_scores(tmp_path / "scores.csv", {"head": wrong}, labels, "abc")
    rows = read(tmp_path / "scores.csv")
    assert [int(row["images"]) for row in rows] == [2, 1, 1]
    assert {float(row["f1"]) for row in rows} == {0}
