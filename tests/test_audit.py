"""Labels that may be wrong: heads, neighbours, table, command."""

import csv
import json
from itertools import pairwise

import numpy as np
import pytest
from conftest import thaw
from samples import read

from stages import audit as stage
from thaw.audit.neighbours import VOTERS, find_neighbours
from thaw.audit.opinions import Labels, Opinions, judge_labels
from thaw.audit.table import COLUMNS, count_doubts, write_audit
from thaw.data.folds import join_pictures
from thaw.data.rows import BLOCK, gather_rows, iterate_blocks
from thaw.linear.ridge import fit_ridge
from thaw.report.doubts import explain, read_doubts

RNG = np.random.default_rng(3)
CLASSES = 4
CENTRES = RNG.normal(0, 3, (CLASSES, 12))


def draw(each: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, 12) of classes that lie apart, and labels (n,)."""
    rng = np.random.default_rng(seed)
    labels = np.tile(np.arange(CLASSES), each)
    features = CENTRES[labels] + rng.normal(0, 1, (len(labels), 12))
    return features.astype(np.float32), labels


def make_labels(given, tested=None, trained=None, sets=None) -> Labels:
    rows = len(given)
    tested = np.zeros(rows, bool) if tested is None else np.array(tested)
    return Labels(
        np.array(given),
        np.arange(rows) if sets is None else np.array(sets),
        ~tested if trained is None else np.array(trained),
        tested,
    )


def test_sets_are_joined_by_way_of_others():
    groups = ["a", "a", "", "b", "", "", "c"]
    copies = ["", "1", "1", "", "2", "2", ""]
    sets = join_pictures(groups, copies)
    same = [[0, 1, 2], [3], [4, 5], [6]]
    assert [sorted(np.flatnonzero(sets == sets[x[0]])) for x in same] == same


def test_a_key_of_one_kind_is_none_of_another():
    sets = join_pictures(["x", ""], ["", "x"])
    assert sets[0] != sets[1]


def test_rows_of_several_arrays_are_read_as_one():
    arrays = [RNG.normal(size=(n, 2)) for n in (BLOCK + 3, 1, 0, 5)]
    whole = np.concatenate(arrays)
    blocks = list(iterate_blocks(arrays))
    places = [(place.start, place.stop) for place, _ in blocks]
    assert places[0][0] == 0 and places[-1][1] == len(whole)
    assert all(one[1] == other[0] for one, other in pairwise(places))
    assert np.array_equal(np.concatenate([x for _, x in blocks]), whole)
    rows = RNG.permutation(len(whole))[:50]
    assert np.array_equal(gather_rows(arrays, rows), whole[rows])


def plant(labels: np.ndarray, rows: list[int]) -> np.ndarray:
    planted = labels.copy()
    planted[rows] = (labels[rows] + 1) % CLASSES
    return planted


def judge(features, labels: Labels):
    """By a head that each training image was left out of."""
    trained = np.flatnonzero(labels.trained)
    head = fit_ridge(
        [features[trained]],
        slice(0, 12),
        [12],
        labels.given[trained],
        labels.sets[trained],
        CLASSES,
    )
    logits = head.score(features, slice(0, 12))
    logits[trained] = head.held_out
    return judge_labels(logits, labels)


def test_planted_labels_come_first_in_every_split():
    features, labels = draw(60)
    rows = [5, 50, 170, 200, 230]  # of train, validation and test
    places = np.arange(240)
    given = make_labels(plant(labels, rows), places >= 180, places < 140)
    opinions = judge(features, given)
    assert set(opinions.order[:5]) == {*rows}
    assert np.array_equal(opinions.suggested[rows], labels[rows])
    assert set(np.flatnonzero(opinions.doubtful)) >= {*rows}
    assert opinions.doubtful.sum() <= len(rows) + 3


def test_a_head_never_sees_the_set_of_what_it_judges():
    """A mislabelled picture and its copies would vouch for each other."""
    features, labels = draw(30)
    copies = np.repeat(features[:1], 30, axis=0)
    features = np.concatenate([features, copies])
    wrong = np.concatenate([labels, np.full(30, 1)])
    wrong[0] = 1
    sets = np.concatenate([np.arange(120), np.zeros(30, int)])
    alone = judge(features, make_labels(wrong))
    together = judge(features, make_labels(wrong, sets=sets))
    assert together.probability[0] < 0.1 < alone.probability[0]


def test_a_label_that_one_picture_has_is_not_judged():
    features, labels = draw(20)
    labels[labels == 3] = 2
    labels[7] = 3
    opinions = judge(features, make_labels(labels))
    assert np.isnan(opinions.probability[7]) and opinions.order[-1] == 7
    assert not opinions.doubtful[7]
    assert list(np.flatnonzero(~opinions.judged)) == [7]


def test_what_train_has_is_judged_in_test():
    """A class of one training image can be judged everywhere but there."""
    trained = np.array([True, True, True, False, False])
    labels = Labels(np.array([0, 0, 1, 1, 2]), np.arange(5), trained, ~trained)
    assert list(labels.can_judge()) == [True, True, False, True, False]


def test_doubts_are_those_of_a_hand_count():
    # The thresholds are the means of the labels' own: 0.5, 0.6, and of a label
    # that nothing has, none that is reached.
    opinions = Opinions(
        given=np.array([0, 0, 1, 1, 1]),
        probability=np.array([0.9, 0.1, 0.3, 0.8, 0.7]),
        suggested=np.array([1, 1, 0, 2, 2]),
        suggested_probability=np.array([0.1, 0.6, 0.4, 0.2, 0.9]),
    )
    assert list(opinions.doubtful) == [False, True, False, False, False]
    assert list(opinions.order) == [1, 2, 4, 3, 0]


def test_a_doubtful_label_comes_before_one_that_is_merely_unlikely():
    opinions = Opinions(
        given=np.array([0, 0, 1, 1]),
        probability=np.array([0.9, 0.2, 0.1, 0.9]),
        suggested=np.array([1, 1, 2, 0]),
        suggested_probability=np.array([0.1, 0.8, 0.4, 0.1]),
    )
    assert list(opinions.order) == [1, 2, 0, 3]


def find_slowly(features, labels, row, suggested):
    """`find_neighbours` for one row, by the definition."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    near = [
        other
        for other in np.argsort(-(unit @ unit[row]), kind="stable")
        if labels.sets[other] != labels.sets[row] and not labels.tested[other]
    ]
    votes = labels.given[near[:VOTERS]]
    alike = [other for other in near if labels.given[other] == suggested]
    return (votes == labels.given[row]).mean(), votes, alike[:3]


def test_neighbours_are_those_of_a_slow_search(monkeypatch):
    monkeypatch.setattr("thaw.data.rows.BLOCK", 16)
    features, given = draw(20, seed=4)
    features += RNG.normal(0, 3, features.shape).astype(np.float32)
    labels = make_labels(given, np.arange(80) >= 60, np.arange(80) // 2)
    rows = RNG.permutation(80)
    suggested = (given[rows] + 1) % CLASSES
    found = find_neighbours(
        np.split(features, [40, 60]), labels, rows, suggested
    )
    for place, row in enumerate(rows):
        share, votes, alike = find_slowly(
            features, labels, row, suggested[place]
        )
        assert found.given_vote[place] == pytest.approx(share)
        expected = (votes == suggested[place]).mean()
        assert found.suggested_vote[place] == pytest.approx(expected)
        assert list(found.nearest[place]) == alike


def test_few_neighbours_are_enough():
    features, given = draw(1)
    labels = make_labels(given, sets=[0, 0, 1, 2])
    found = find_neighbours([features], labels, np.arange(4), np.full(4, 3))
    assert list(found.nearest[0]) == [3, -1, -1]
    assert found.suggested_vote[0] == 0.5 and found.given_vote[0] == 0


@pytest.fixture(scope="module")
def odd_audit(tmp_path_factory):
    """A table of names that want quotes."""
    features, given = draw(12)
    tested = np.arange(48) >= 40
    labels = make_labels(plant(given, [2, 42]), tested)
    opinions = judge(features, labels)
    first = opinions.order[:3]
    neighbours = find_neighbours(
        [features], labels, first, opinions.suggested[first]
    )
    index = [
        {
            "id": f"{row:064x}",
            "path": f'a, "b"\r\n{row}.jpg',
            "split": "test" if tested[row] else "train",
            "copies": "7" if row == 2 else "",
        }
        for row in range(48)
    ]
    names = ["a,b", 'c"', " d", "e\n"]
    path = tmp_path_factory.mktemp("audit") / "audit.csv"
    write_audit(path, index, names, opinions, neighbours)
    return path, index, names, opinions


def test_the_table_has_every_picture(odd_audit):
    path, index, names, opinions = odd_audit
    rows = read(path)
    assert tuple(rows[0]) == COLUMNS and len(rows) == 48
    assert {row["path"] for row in rows} == {entry["path"] for entry in index}
    ranks = [
        (row["doubtful"] != "yes", float(row["given_probability"]))
        for row in rows
    ]
    assert ranks == sorted(ranks)
    number = int(rows[0]["id"], 16)
    assert number in (2, 42) and rows[0]["doubtful"] == "yes"
    assert rows[0]["given"] == names[opinions.given[number]]
    assert rows[0]["suggested"] == names[opinions.suggested[number]]
    voted = [bool(row["given_vote"]) for row in rows]
    assert voted == [True] * 3 + [False] * 45
    assert {row["copies"] for row in rows if int(row["id"], 16) == 2} == {"7"}


def test_doubts_are_counted_by_split_and_pair(odd_audit):
    _, index, names, opinions = odd_audit
    counts = count_doubts(index, names, opinions)
    assert counts["images"] == 48 and counts["not_judged"] == 0
    assert counts["doubtful"] == sum(counts["splits"].values()) > 0
    pairs = {
        (pair["given"], pair["suggested"]): pair["images"]
        for pair in counts["pairs"]
    }
    assert sum(pairs.values()) == counts["doubtful"]
    assert ("e\n", " d") in pairs  # picture 2 is of class 2, labelled 3


def test_why_a_label_is_doubted():
    row = {
        "given": "shirt",
        "suggested": "dress",
        "given_probability": "0.03012",
        "suggested_probability": "0.9432",
    }
    assert explain(row) == "audit: 0.03 for shirt, 0.94 for dress"
    row["given_probability"] = ""
    assert explain(row).startswith("audit: no probability for shirt")


def test_doubts_bring_their_pictures(tmp_path, dataset):
    for split in ("train", "validation", "test"):
        with (dataset.folder / split / "index.csv").open("w") as file:
            csv.writer(file).writerows(
                [["id", "path"]]
                + [[row, f"{split}/{row}.png"] for row in range(24)]
            )
    cells = dict.fromkeys(COLUMNS, "")
    cells |= {"path": "test/3.png", "nearest": "train/4.png"}
    cells |= {"given_probability": "0.5", "suggested_probability": "0.5"}
    with (tmp_path / "audit.csv").open("w") as file:
        csv.writer(file).writerows([COLUMNS, cells.values()])
    ((_, image, alike),) = read_doubts(tmp_path / "audit.csv", dataset)
    assert np.array_equal(image, dataset.open_images("test")[3])
    ((other, shown),) = alike
    assert other == {"path": "train/4.png"}
    assert np.array_equal(shown, dataset.open_images("train")[4])


def test_the_stage_audits_every_image(reproduced):
    folder = reproduced.folder
    rows = read(folder / stage.AUDIT)
    paths = [
        row["path"]
        for split in ("train", "validation", "test")
        for row in read(folder / "data/prepared" / split / "index.csv")
    ]
    assert sorted(row["path"] for row in rows) == sorted(paths)
    details = json.loads((folder / stage.DETAILS).read_text())
    assert details["images"] == len(paths)
    assert details["doubtful"] == sum(row["doubtful"] == "yes" for row in rows)
    assert "numpy" in details["environment"]
    assert "may be wrong" in reproduced.said


def test_the_command_prints_the_first_rows(reproduced, tmp_path):
    project = reproduced.copy(tmp_path / "project")
    rows = read(project.folder / stage.AUDIT)
    done = thaw(project, "audit", "--top", "3")
    lines = done.stdout.splitlines()
    assert [line.split()[-1] for line in lines[1:4]] == [
        row["path"] for row in rows[:3]
    ]
    assert lines[4] == ""
    done = thaw(project, "audit", "--class", "both", "--split", "test")
    chosen = [
        row["path"]
        for row in rows
        if row["given"] == "both" and row["split"] == "test"
    ]
    assert [
        line.split()[-1] for line in done.stdout.splitlines()[1:-2]
    ] == chosen
    done = thaw(project, "audit", "--class", "nothing")
    assert done.returncode == 1 and "no such image" in done.stderr
    (project.folder / stage.AUDIT).unlink()
    done = thaw(project, "audit")
    assert done.returncode == 1 and "dvc repro audit" in done.stderr
    done = thaw(project, "audit", "--rev", "nowhere")
    assert done.returncode == 1 and "no Git revision" in done.stderr
