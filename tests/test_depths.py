"""How deep: the judge, the race, its table, and runs ranked by hand."""

import csv
import json
import math
from functools import partial

import numpy as np
import pytest
from conftest import commit, list_checkpoints, thaw
from programs import finish, wait_until
from test_survival import kill

from thaw.commands.depths import rank_runs
from thaw.data.folds import join_pictures
from thaw.depth.arms import STEPS, count_epochs, keep_better, list_depths
from thaw.depth.judge import rank
from thaw.depth.rows import ENOUGH, join_splits, make_folds, pick_rows
from thaw.depth.table import COLUMNS
from thaw.depth.words import describe_choice
from thaw.network.temperature import HIGHEST_LOSS, measure_losses


def test_depths_double_up_to_half_or_to_all_of_the_network():
    assert list_depths(16, "half") == [0, 1, 2, 4, 8]
    assert list_depths(55, "half") == [0, 1, 2, 4, 8, 16]
    assert list_depths(16, "all") == [0, 1, 2, 4, 8, "all"]
    assert list_depths(32, "all") == [0, 1, 2, 4, 8, 16, "all"]
    assert [keep_better(n) for n in (1, 4, 5, 6)] == [2, 2, 2, 3]


def test_few_images_train_for_more_epochs():
    assert count_epochs(folds=1, rows=1300, batch_size=32) == (2, 3)
    assert count_epochs(folds=2, rows=830, batch_size=32) == (3, 3)
    few = count_epochs(folds=2, rows=100, batch_size=32)
    assert few == (STEPS / 4, STEPS / 4)


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


class FewPhotographs:
    """An index with groups and copies."""

    def __init__(self, rows):
        self.rows = rows

    def read_index(self, split):
        return iter(self.rows[split])


def make_index(count, group="", copies=""):
    return [
        {"group": group and f"{group}{i // 3}", "copies": copies}
        for i in range(count)
    ]


def test_enough_validation_images_judge_alone():
    labels = {"train": np.zeros(10, int), "validation": np.zeros(ENOUGH, int)}
    (fold,) = make_folds(FewPhotographs({}), labels, seed=0)
    assert fold.whole and list(fold.trained) == list(range(10))
    assert list(fold.judged) == list(range(10, 10 + ENOUGH))


def test_few_images_judge_in_halves_that_share_no_group_and_no_copy():
    index = {
        "train": make_index(30, group="g"),
        "validation": make_index(6, copies="c") + make_index(4),
    }
    labels = {"train": np.arange(30) % 2, "validation": np.arange(10) % 2}
    folds = make_folds(FewPhotographs(index), labels, seed=3)
    judged = np.concatenate([fold.judged for fold in folds])
    assert sorted(judged) == list(range(40)) and len(folds) == 2
    rows = index["train"] + index["validation"]
    sets = join_pictures(
        [row["group"] for row in rows], [row["copies"] for row in rows]
    )
    for fold in folds:
        assert not fold.whole
        assert not set(fold.trained) & set(fold.judged)
        assert not set(sets[fold.trained]) & set(sets[fold.judged])


def test_rows_of_both_splits_are_gathered_in_one_order():
    train = np.arange(12).reshape(2, 6)  # by view and row
    gather = join_splits(
        {
            "train": lambda rows, views: train[views, rows],
            "validation": lambda rows, views: 100 * (1 + rows) + views,
        },
        first=6,
    )
    rows, views = np.array([7, 2, 6, 5]), np.array([1, 1, 0, 0])
    assert list(gather(rows, views)) == [200, 8, 100, 5]
    chosen = pick_rows(gather, np.array([5, 7]))
    assert list(chosen(np.array([1, 0]), np.array([0, 1]))) == [200, 11]


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ((4, 2, 3.0), "4 blocks; 2 blocks is within noise and trains 3.0"),
        ((8, 0), "depth matters little here"),
        ((0, 0), "thawing gains nothing"),
        (("all", "all"), "early layers (blur, light, colour)"),
        ((4, 4), "no shallower depth is within noise"),
        ((8, 8, None, True), "deeper ones were not tried"),
    ],
)
def test_one_sentence_decides(choice, words):
    assert words in describe_choice(*choice)


# The race itself: 19 photographs, so that halves of them judge.


def read(project, path):
    with (project.folder / path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def raced(reproduced, tmp_path_factory):
    """A run with `auto`; before it, one with a number was committed."""
    folder = tmp_path_factory.mktemp("raced") / "project"
    project = reproduced.copy(folder)
    commit(project, "one block")
    project.set(finetune__blocks="auto")
    project.ran = project.repro()
    commit(project, "auto")
    return project


def test_a_race_tries_depths_and_the_best_one_is_thawed(raced):
    blocks = json.loads((raced.folder / "data/depth.json").read_text())
    rows = read(raced, "plots/depths.csv")
    assert [row["blocks"] for row in rows] == ["0", "1", "2", "4", "8"]
    (chosen,) = [row for row in rows if row["chosen"] == "yes"]
    assert chosen["blocks"] == str(blocks)
    stayed = [row for row in rows if row["close"]]
    assert len(stayed) == 3 and rows[0] in stayed
    assert chosen["loss"] == min((row["loss"] for row in stayed), key=float)
    assert len({row["images"] for row in stayed}) == 1
    plan = json.loads((raced.folder / "data/activations/plan.json").read_text())
    assert len(plan["blocks"]) == blocks
    page = (raced.folder / "report.html").read_text()
    assert "How deep" in page and "own score is flattered" in page
    for row in rows[1:]:
        assert f"<td>{float(row['learning_rate']):g}</td>" in page


def test_the_number_that_a_race_found_runs_nothing_again(raced, tmp_path):
    project = raced.copy(tmp_path / "project")
    blocks = json.loads((project.folder / "data/depth.json").read_text())
    project.set(finetune__blocks=blocks)
    planned = thaw(project, "plan").stdout
    assert "prefix" not in planned and "finetune " not in planned
    assert project.repro() == ["check", "depth", "report"]
    assert "How deep" not in (project.folder / "report.html").read_text()
    assert len(read(project, "plots/depths.csv")) == 0
    project.set(finetune__blocks="auto")
    assert project.repro() == ["check"]  # the race is in DVC's cache
    assert "How deep" in (project.folder / "report.html").read_text()


def test_a_killed_race_goes_on_to_the_same_bytes(raced, tmp_path):
    project = raced.copy(tmp_path / "project")
    before = project.list_hashes()
    project.forget_runs()
    dvc = project.start("dvc", "repro", "--force", "--single-item", "depth")
    kept = project.folder / ".dvc/tmp/thaw"
    wait_until(partial(has_judged, kept, dvc))
    kill(dvc, -1)
    assert list_checkpoints(project)
    output = project.dvc("repro", "--force", "--single-item", "depth")
    assert f"1 block, {STEPS // 2} epochs" in output  # of two steps
    after = project.list_hashes()
    for path in ("data/depth.json", "plots/depths.csv"):
        assert after[path] == before[path]


def has_judged(kept, dvc):
    assert dvc.poll() is None, finish(dvc)
    return any(kept.glob(f"depth-*/1-{STEPS // 2}-0/logits.npy"))


def test_plan_says_what_would_race(raced):
    said = thaw(raced, "plan", "-S", "finetune.batch_size=4").stdout
    assert "auto races 0, 1, 2, 4 and 8 blocks" in said
    (line,) = [x for x in said.splitlines() if x.startswith("depth ")]
    assert " s " in line or " min " in line


def test_the_race_of_a_run_is_printed(raced):
    rows = json.loads(thaw(raced, "depths", "--json").stdout)
    assert {row["depth"] for row in rows} == {"0", "1", "2", "4", "8"}
    said = thaw(raced, "depths", "HEAD").stdout
    assert "the head alone" in said and "chosen" in said
    assert thaw(raced, "depths").stdout == said


def test_runs_are_ranked_by_validation_image_by_image(raced):
    said = json.loads(thaw(raced, "depths", "HEAD~1", "HEAD", "--json").stdout)
    assert {row["run"] for row in said} == {"HEAD~1", "HEAD"}
    best, other = said
    assert best["behind"] == 0 <= other["behind"]
    for row in said:
        assert row["rate"] == 0.002
    losses = [
        float(row["loss"]) for row in read(raced, "metrics/validation.csv")
    ]
    (mine,) = [row for row in said if row["run"] == "HEAD"]
    assert mine["loss"] == pytest.approx(np.mean(losses))


def test_a_run_that_is_not_there_is_one_line(raced):
    done = thaw(raced, "depths", "HEAD", "nowhere")
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


def test_a_number_writes_a_table_without_rows(reproduced):
    path = reproduced.folder / "plots/depths.csv"
    assert path.read_text().strip() == ",".join(COLUMNS)
    assert (reproduced.folder / "data/depth.json").read_text().strip() == "1"


def test_validation_has_a_row_for_each_image(reproduced):
    rows = read(reproduced, "metrics/validation.csv")
    index = read(reproduced, "data/prepared/validation/index.csv")
    assert [row["id"] for row in rows] == [row["id"] for row in index]
    assert [row["actual"] for row in rows] == [row["class"] for row in index]
    assert all(0 <= float(row["loss"]) <= HIGHEST_LOSS for row in rows)
