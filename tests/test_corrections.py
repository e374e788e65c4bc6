"""corrections.csv: labels put right and images excluded, and nothing else."""

import json

import numpy as np
import pytest
from conftest import commit
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from programs import run
from samples import PHOTOGRAPH, WIDTHS, prepare, read, save, write_photographs
from test_splits import draw_rows

from thaw.data.splits import SPLITS
from thaw.errors import InputError
from thaw.files.arrays import open_array
from thaw.files.tables import write_table
from thaw.prepare import decode
from thaw.prepare.corrections import COLUMNS, read_corrections
from thaw.prepare.digits import open_digits
from thaw.prepare.items import Source
from thaw.prepare.select import select_images
from thaw.prepare.sources import open_folder


@pytest.fixture
def raw(tmp_path):
    """Three classes of twelve photographs, no two alike."""
    write_photographs(tmp_path / "raw", each=12, widths=WIDTHS)
    return tmp_path / "raw"


def read_index(folder, *splits):
    """Path to the entry of each image, with the split that it is in."""
    return {
        entry["path"]: entry | {"split": split}
        for split in splits or SPLITS
        for entry in read(folder / split / "index.csv")
    }


def correct(folder, *lines):
    """Corrections of entries of an index: (entry, now, why)."""
    rows = [(x["path"], x["id"], x["class"], *rest) for x, *rest in lines]
    write_table(folder / "corrections.csv", COLUMNS, rows)
    return read_corrections(folder / "corrections.csv")


def pick(index, split, number=0):
    return [x for x in index.values() if x["split"] == split][number]


def test_labels_are_corrected_and_images_excluded(raw, tmp_path, capsys):
    prepare(open_folder(raw), tmp_path / "before")
    before = read_index(tmp_path / "before")
    one, two = pick(before, "train"), pick(before, "test")
    three, four = pick(before, "train", 3), pick(before, "test", -1)
    corrections = correct(
        tmp_path,
        (one, "down", "it is"),
        (two, "both", ""),
        (three, "exclude", 'a "hand", cut'),
        (four, "exclude", ""),
        (pick(before, "train", 4), pick(before, "train", 4)["class"], "sure"),
    )
    capsys.readouterr()
    folder = tmp_path / "after"
    counts = prepare(open_folder(raw), folder, None, corrections)
    after = read_index(folder)
    gone = {three["path"], four["path"]}
    new = {one["path"]: {"class": "down"}, two["path"]: {"class": "both"}}
    assert after == {
        path: entry | new.get(path, {})
        for path, entry in before.items()
        if path not in gone
    }
    classes = json.loads((folder / "classes.json").read_text())
    for split in SPLITS:
        labels = open_array(folder / split / "labels.npy")
        named = [entry["class"] for entry in read(folder / split / "index.csv")]
        assert [classes[label] for label in labels] == named
    assert set(read_index(folder, "unused")) == gone
    quarantine = {row["path"]: row for row in read(folder / "quarantine.csv")}
    assert set(quarantine) == gone
    assert quarantine[three["path"]]["reason"] == (
        'excluded by corrections.csv: a "hand", cut'
    )
    assert quarantine[four["path"]]["reason"] == "excluded by corrections.csv"
    assert quarantine[four["path"]]["class"] == four["class"]
    assert counts["bad_images"] == 0
    assert counts["corrected"] == {
        "train": 1, "validation": 0, "test": 1, "unused": 0,
    }  # fmt: skip
    assert counts["excluded"] == {"train": 1, "validation": 0, "test": 1}
    said = capsys.readouterr().out
    assert "csv: 2 labels corrected, 2 images excluded; 2 of them in t" in said


def test_no_corrections_say_nothing(raw, tmp_path, capsys):
    prepare(open_folder(raw), tmp_path / "plain")
    corrections = correct(tmp_path)
    prepare(open_folder(raw), tmp_path / "with", None, corrections)
    assert "corrections" not in capsys.readouterr().out
    for path in sorted((tmp_path / "plain").rglob("*.*")):
        other = tmp_path / "with" / path.relative_to(tmp_path / "plain")
        assert path.read_bytes() == other.read_bytes(), path


def test_nothing_is_decoded_again(raw, tmp_path, monkeypatch):
    prepare(open_folder(raw), tmp_path / "before")
    index = read_index(tmp_path / "before")
    changes = [(pick(index, "train"), "exclude", "")]
    changes += [(pick(index, "test"), "down", "")]
    corrections = correct(tmp_path, *changes)
    prepare(open_folder(raw), tmp_path / "fresh", None, corrections)
    monkeypatch.setattr(decode, "decode", None)
    for number, some in enumerate((corrections, None)):  # and undone
        source, before = open_folder(raw), tmp_path / "before"
        prepare(source, tmp_path / f"{number}", before, some)
        before.rename(tmp_path / f"before{number}")
        (tmp_path / f"{number}").rename(before)
    for path in sorted((tmp_path / "fresh").rglob("*.*")):
        other = tmp_path / "before1" / path.relative_to(tmp_path / "fresh")
        assert path.read_bytes() == other.read_bytes(), path
    for path in sorted((tmp_path / "before0").rglob("*.*")):
        other = tmp_path / "before" / path.relative_to(tmp_path / "before0")
        assert path.read_bytes() == other.read_bytes(), path


def test_all_lines_that_are_wrong_are_named(raw, tmp_path):
    (raw / "down" / "bad.jpg").write_bytes(b"no picture")
    prepare(open_folder(raw), tmp_path / "before")
    index = read_index(tmp_path / "before")
    some = [pick(index, "train", number) for number in range(6)]
    paths = [entry["path"] for entry in some]
    corrections = correct(
        tmp_path,
        (some[0] | {"id": "0" * 64, "class": "down"}, "both", ""),
        (some[1], "up", ""),
        (some[2] | {"path": "down/99.jpg"}, "both", ""),
        (some[3], "exclude", ""),
        (some[3], "both", ""),
        (some[4], "", ""),
        (some[5], "down", ""),
        ({"path": "down/bad.jpg", "id": "0", "class": "down"}, "exclude", ""),
    )
    with pytest.raises(InputError) as refusal:
        prepare(open_folder(raw), tmp_path / "after", None, corrections)
    assert str(refusal.value) == (
        f"{tmp_path}/corrections.csv: "
        f"line 2: {paths[0]} has another content, digest {some[0]['id']}; "
        f"line 2: the label of {paths[0]} is {some[0]['class']}, not down; "
        "line 3: up is no class, nor exclude; "
        "line 4: down/99.jpg is not in the data; "
        f"line 6: {paths[3]} is in line 5, too; "
        "line 7: an empty now is no class, nor exclude; "
        "line 9: down/bad.jpg can't be read"
    )


def test_a_comma_without_quotes_is_named(raw, tmp_path):
    text = ",".join(COLUMNS) + "\ndown/00.jpg,0,down,both,blurred, I think\n"
    (tmp_path / "corrections.csv").write_text(text)
    corrections = read_corrections(tmp_path / "corrections.csv")
    with pytest.raises(InputError, match="line 2: more cells than columns"):
        prepare(open_folder(raw), tmp_path / "after", None, corrections)
    (tmp_path / "corrections.csv").write_text("path,label\n")
    with pytest.raises(InputError, match="lacks columns: digest, was, now"):
        read_corrections(tmp_path / "corrections.csv")


def test_a_class_that_is_corrected_away_is_refused(raw, tmp_path):
    prepare(open_folder(raw), tmp_path / "before")
    index = read_index(tmp_path / "before")
    ups = [x for x in index.values() if x["class"] == "down"]
    lines = [
        (x, "both" if number % 2 else "exclude", "")
        for number, x in enumerate(ups)
    ]
    for some, words in (
        (lines, "no image left in train: down;"),
        (lines[2:], r"down \(2\); 3 or more are needed"),
    ):
        corrections = correct(tmp_path, *some)
        with pytest.raises(InputError, match=words):
            prepare(open_folder(raw), tmp_path / "after", None, corrections)


def test_a_copy_does_not_count_under_its_old_label(raw, tmp_path):
    for kind in ("across", "both", "down"):
        save(PHOTOGRAPH, raw / kind / "copy.png")
    folder = tmp_path / "before"
    assert prepare(open_folder(raw), folder)["left_out"] == 3
    unused = read_index(folder, "unused")
    lines = (
        (unused["down/copy.png"], "both", "look"),
        (unused["across/copy.png"], "exclude", ""),
    )
    counts = prepare(
        open_folder(raw), tmp_path / "after", None, correct(tmp_path, *lines)
    )
    assert counts["left_out"] == counts["duplicates_across_classes"] == 0
    assert read(tmp_path / "after" / "duplicates.csv") == []
    after = read_index(tmp_path / "after")
    assert after["down/copy.png"]["class"] == "both"
    assert "both/copy.png" in after and "across/copy.png" not in after

    # And does under its new one.
    lines = (
        (unused["down/copy.png"], "both", ""),
        (unused["across/copy.png"], "both", ""),
        (unused["both/copy.png"], "down", ""),
    )
    counts = prepare(
        open_folder(raw), tmp_path / "odd", None, correct(tmp_path, *lines)
    )
    assert counts["left_out"] == 3 and counts["corrected"]["unused"] == 3


def test_other_sources_are_corrected_too(tmp_path):
    def open_some():
        digits = open_digits()
        items = [item for item in digits.items if item.label < 3][:60]
        return Source(digits.classes[:3], [], {"train": 60}, iter(items))

    prepare(open_some(), tmp_path / "before")
    index = read_index(tmp_path / "before")
    one, other = pick(index, "train"), pick(index, "test")
    now = str((int(one["class"]) + 1) % 3)
    corrections = correct(tmp_path, (one, now, ""), (other, "exclude", ""))
    prepare(open_some(), tmp_path / "after", None, corrections)
    after = read_index(tmp_path / "after")
    assert after[one["path"]] == one | {"class": now}
    assert other["path"] not in after and len(after) == len(index) - 1


@settings(max_examples=200, deadline=None)
@given(drawn=draw_rows(), seed=st.integers(0, 2**32), share=st.floats(0, 0.3))
def test_a_correction_moves_no_other_image(drawn, seed, share):
    """Unless a class would lack an image in some split."""
    rows, copies, shares = drawn
    rng, count = np.random.default_rng(seed), len(rows.labels)
    try:
        before = select_images(rows, copies, shares, "remove")
        rows.labels = rows.labels ^ (rng.random(count) < share)
        rows.excluded = rng.random(count) < share
        after = select_images(rows, copies, shares, "remove")
    except InputError:
        assume(False)
    assume(not before.exceptions and not after.exceptions)
    both = before.used & after.used
    assert np.array_equal(before.splits[both], after.splits[both])
    assert not after.used[rows.excluded].any()
    # An excluded image is counted where it was.
    where = rows.excluded & before.used
    assert np.array_equal(before.splits[where], after.splits[where])
    conflicts = [row for pair in after.conflicts for row in pair.rows]
    assert not rows.excluded[conflicts].any()


def test_dvc_follows_the_file(reproduced, tmp_path):
    """What depends on it runs again, and `git revert` undoes it."""
    project = reproduced.copy(tmp_path / "project")
    commit(project, "results")
    index = read_index(project.folder / "data/prepared")
    lines = (
        (pick(index, "test"), "down", ""),
        (pick(index, "train"), "exclude", ""),
    )
    assert pick(index, "test")["class"] != "down"
    correct(project.folder, *lines)
    changed = json.loads(project.dvc("status", "--json", "dvc.yaml"))
    assert set(changed) == {"prepare", "report"}  # which offers its lines
    project.repro("prepare")
    assert "0 of 30 images are new" in project.said
    assert (
        "corrections.csv: 1 label corrected, 1 image excluded" in project.said
    )
    commit(project, "corrected")
    run("git", "revert", "--no-edit", "HEAD", cwd=project.folder)
    assert project.repro("prepare") == []
    assert read_index(project.folder / "data/prepared") == index
