"""`thaw depths`: runs ranked by validation, image by image."""

import csv
import json
import math

import numpy as np
import pytest
from conftest import commit, thaw

from thaw.commands.depths import rank_runs
from thaw.evaluate.depths import describe_choice
from thaw.evaluate.ranking import rank
from thaw.linear.temperature import HIGHEST_LOSS, measure_losses


def test_a_loss_is_of_the_class_after_temperature_and_capped():
    logits = np.array([[2.0, 0.0], [0.0, 50.0], [np.nan, 0.0]])
    losses = measure_losses(logits, np.array([0, 0, 0]), temperature=2.0)
    assert losses[0] == pytest.approx(math.log(1 + math.exp(-1)))
    assert losses[1] == losses[2] == HIGHEST_LOSS


def test_what_is_close_is_decided_image_by_image():
    """Means that differ by less than their own errors may differ for sure."""
    hard = np.random.default_rng(0).exponential(1, 400)
    noise = np.random.default_rng(1).normal(0, 0.2, 400)
    noise -= noise.mean()
    ranking = rank([hard + 0.02, hard, hard + noise + 0.005])
    assert ranking.best == 1
    assert ranking.errors[0] > 0.02 > ranking.behind_errors[0]
    assert list(ranking.is_close) == [False, True, True]
    assert ranking.behind[0] == pytest.approx(0.02)


def test_equal_trainings_are_ranked_in_their_order():
    assert list(rank([np.ones(5), np.ones(5)]).order) == [0, 1]


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ((4, 2), "4 blocks; 2 blocks is within noise"),
        ((8, 0), "depth matters little here"),
        ((0, 0), "thawing gains nothing"),
        (("all", "all"), "early layers (blur, light, colour)"),
        ((4, 4), "no shallower depth is within noise"),
        ((8, 8, True), "deeper ones were not tried"),
    ],
)
def test_one_sentence_decides(choice, words):
    assert words in describe_choice(*choice)


def read(project, path):
    with (project.folder / path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def swept(reproduced, tmp_path_factory):
    """Two depths, each committed."""
    folder = tmp_path_factory.mktemp("swept") / "project"
    project = reproduced.copy(folder)
    commit(project, "one block")
    project.set(finetune__blocks=2)
    project.repro()
    commit(project, "two blocks")
    return project


def test_runs_are_ranked_by_validation_image_by_image(swept):
    said = json.loads(thaw(swept, "depths", "HEAD~1", "HEAD", "--json").stdout)
    assert {row["run"] for row in said} == {"HEAD~1", "HEAD"}
    best, other = said
    assert best["behind"] == 0 <= other["behind"]
    for row in said:
        assert row["rate"] == 0.002
    losses = [
        float(row["loss"]) for row in read(swept, "metrics/validation.csv")
    ]
    (mine,) = [row for row in said if row["run"] == "HEAD"]
    assert mine["loss"] == pytest.approx(np.mean(losses))


def test_a_run_that_is_not_there_is_one_line(swept):
    done = thaw(swept, "depths", "HEAD", "nowhere")
    assert done.returncode == 1
    assert "nowhere is no Git revision and no DVC experiment" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_runs_without_a_common_image_are_refused(monkeypatch):
    tables = iter([[{"id": "a", "actual": "x"}], [{"id": "b", "actual": "x"}]])
    monkeypatch.setattr(
        "thaw.commands.depths.read_rows", lambda path, rev: next(tables)
    )
    with pytest.raises(ValueError, match="no validation image in common"):
        rank_runs(["one", "two"])


def test_validation_has_a_row_for_each_image(reproduced):
    rows = read(reproduced, "metrics/validation.csv")
    index = read(reproduced, "data/prepared/validation/index.csv")
    assert [row["id"] for row in rows] == [row["id"] for row in index]
    assert [row["actual"] for row in rows] == [row["class"] for row in index]
    assert all(0 <= float(row["loss"]) <= HIGHEST_LOSS for row in rows)


def test_one_run_is_a_table_of_one_row(swept):
    said = thaw(swept, "depths").stdout
    assert "2 blocks" in said and "one run alone" in said
