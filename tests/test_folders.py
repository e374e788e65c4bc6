"""Folders of photographs: what is a class, an image, seen by DVC and Git."""

import shutil

import numpy as np
import pytest
from samples import draw_stripes, prepare, write_photographs

from thaw.data.splits import SPLITS
from thaw.errors import InputError
from thaw.files.arrays import open_array
from thaw.prepare.folders import scan_folder
from thaw.prepare.sources import open_folder, open_source


def test_a_test_folder_without_classes_is_no_split(tmp_path):
    write_photographs(tmp_path / "train", each=8)
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "1.jpg").write_bytes(b"unlabelled")
    source = open_folder(tmp_path)
    assert source.splits == ["train"]
    assert any("test" in note for note in source.notes)
    prepare(source, tmp_path / "prepared")
    assert len(open_array(tmp_path / "prepared/test/labels.npy")) >= 3


def test_too_few_images_of_a_class_are_refused(tmp_path):
    write_photographs(tmp_path / "raw", each=1)
    words = r"across \(1\), both \(1\), down \(1\); 3 or more"
    with pytest.raises(InputError, match=words):
        open_folder(tmp_path / "raw")


def test_folder_without_splits(tmp_path):
    write_photographs(tmp_path / "raw", each=4)
    (tmp_path / "raw" / "readme.txt").write_text("hello")
    source = open_folder(tmp_path / "raw")
    assert source.classes == ["across", "both", "down"]
    assert source.splits == [] and source.size == 12
    assert source.notes == [f"ignored, no images: {tmp_path}/raw/readme.txt"]
    paths = [item.path for item in source.items]
    assert paths == sorted(paths) and paths[0] == "across/00.jpg"


@pytest.mark.parametrize("name", ["validation", "val", "Valid"])
def test_folder_with_splits(tmp_path, name):
    write_photographs(tmp_path / "train", each=6)
    write_photographs(tmp_path / name, each=2, seed=1)
    (tmp_path / "LICENSE").write_text("free")
    (tmp_path / "train" / "list.csv").write_text("a,b")
    source = open_folder(tmp_path)
    assert source.splits == ["train", "validation"]
    (note,) = source.notes
    assert "LICENSE" in note and "list.csv" in note
    prepare(source, tmp_path / "prepared")
    count = {
        split: len(open_array(tmp_path / "prepared" / split / "labels.npy"))
        for split in SPLITS
    }
    assert count["validation"] == 6
    assert count["train"] + count["test"] == 18 and count["test"] >= 3


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda raw: (raw / "empty").mkdir(), "without an image: .*/empty"),
        (lambda raw: (raw / "train").mkdir(), "without an image: .*/train"),
        (lambda raw: (raw / "val" / "a").mkdir(parents=True), "but no train"),
        (
            lambda raw: [
                (raw / name / "a").mkdir(parents=True)
                for name in ("train", "val", "valid")
            ],
            "two folders of one split",
        ),
        (lambda raw: [raw.rename(raw.with_name("gone"))], "allowed: a folder"),
    ],
)
def test_folders_that_hold_no_set_are_refused(tmp_path, spoil, words):
    raw = tmp_path / "raw"
    write_photographs(raw, each=4)
    spoil(raw)
    with pytest.raises(InputError, match=words):
        open_folder(raw)


def test_one_class_is_refused(tmp_path):
    (tmp_path / "only").mkdir()
    image = draw_stripes("both", np.random.default_rng(0), 40)
    image.save(tmp_path / "only" / "1.png")
    with pytest.raises(InputError, match="two classes or more"):
        prepare(open_folder(tmp_path), tmp_path / "prepared")


@pytest.fixture
def raw(tmp_path):
    """Three classes of five photographs."""
    write_photographs(tmp_path / "raw", each=5)
    return tmp_path / "raw"


def refuse(path, classes="first"):
    """Returns the message that refuses a folder."""
    with pytest.raises(InputError) as refusal:
        open_folder(path, classes)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def count_images(source):
    """Counts the images of each class."""
    count = dict.fromkeys(source.classes, 0)
    for item in source.items:
        count[source.classes[item.label]] += 1
    return count


@pytest.mark.parametrize("place", ["roses", "both/more", "train"])
def test_links_to_folders_are_refused(raw, tmp_path, place):
    target = tmp_path / "elsewhere"
    write_photographs(target, each=2, seed=1)
    (raw / place).symlink_to(target)
    said = refuse(raw)
    assert f"links to folders: {raw / place} (DVC" in said
    assert "hard links" in said and "two classes" not in said


def test_links_to_files_and_of_the_whole_folder_are_followed(raw, tmp_path):
    (tmp_path / "link").symlink_to(raw)
    shutil.move(raw / "both/00.jpg", tmp_path / "00.jpg")
    (raw / "both/00.jpg").symlink_to(tmp_path / "00.jpg")
    assert open_folder(tmp_path / "link").size == 15


@pytest.mark.parametrize("pattern", ["02.jpg", "raw/both", "/raw/both/0*"])
def test_photographs_hidden_by_dvcignore_are_refused(
    raw, tmp_path, monkeypatch, pattern
):
    from dvc.repo import Repo

    Repo.init(tmp_path, no_scm=True)
    monkeypatch.chdir(tmp_path)
    assert open_folder("raw").size == 15
    (tmp_path / ".dvcignore").write_text(pattern)
    said = refuse("raw")
    assert ".dvcignore hides" in said and "raw/both/02.jpg" in said


def test_all_faults_of_a_folder_are_named_at_once(raw, tmp_path):
    for name in ("empty", "hollow/inner", "rare", "odd"):
        (raw / name).mkdir(parents=True)
    shutil.copy(raw / "both/00.jpg", raw / "rare/1.jpg")
    shutil.copy(raw / "both/01.jpg", raw / "odd/1.jpg")
    shutil.copy(raw / "both/02.jpg", raw / "odd/2.jpg")
    (raw / "link").symlink_to(tmp_path)
    (raw / "__MACOSX").mkdir()
    said = refuse(raw)
    for words in (
        f"links to folders: {raw}/link ",
        f"folders without an image: {raw}/empty, {raw}/hollow;",
        "odd (2), rare (1); 3 or more are needed, for train, test, validation",
    ):
        assert words in said
    assert "__MACOSX" not in said


def test_all_classes_missing_from_train_are_named(tmp_path):
    write_photographs(tmp_path / "train", each=6)
    for split, name in (("test", "new"), ("test", "other"), ("val", "new")):
        folder = tmp_path / split / name
        folder.mkdir(parents=True)
        shutil.copy(tmp_path / "train/both/00.jpg", folder)
    said = refuse(tmp_path)
    assert "new (test), new (validation), other (test)" in said


def test_a_wrapper_folder_is_named(raw, tmp_path):
    shutil.move(raw, tmp_path / "set/images")
    shutil.move(tmp_path / "set", raw)
    said = refuse(raw)
    assert "found: images" in said
    assert f"{raw}/images holds 3 folders: is that prepare.path?" in said
    assert open_folder(raw, "leaf").classes == ["across", "both", "down"]


def test_images_without_class_folders_are_refused(raw):
    assert "5 images lie in no class folder" in refuse(raw / "both")


@pytest.fixture
def nested(tmp_path):
    """Fruit/Apple/Red, Fruit/Pear and Milk/Pear."""
    write_photographs(tmp_path / "flat", each=6)
    raw = tmp_path / "nested"
    (raw / "Fruit/Apple").mkdir(parents=True)
    (raw / "Milk").mkdir()
    shutil.move(tmp_path / "flat/across", raw / "Fruit/Apple/Red")
    shutil.move(tmp_path / "flat/both", raw / "Fruit/Pear")
    shutil.move(tmp_path / "flat/down", raw / "Milk/Pear")
    return raw


def test_nested_folders_are_noticed(nested):
    source = open_folder(nested)
    assert count_images(source) == {"Fruit": 12, "Milk": 6}
    assert not source.notes  # leaf would make no more classes
    (nested / "Milk/Pear").rename(nested / "Milk/Oat")
    (note,) = open_folder(nested).notes
    assert "3 folders with images; they count as 2 classes" in note
    assert "prepare.classes: leaf" in note


def test_a_class_may_be_the_folder_of_the_image(nested):
    source = open_folder(nested, "leaf")
    assert not source.notes
    assert count_images(source) == {"Pear": 12, "Red": 6}
    splits = nested.with_name("splits")
    for name in ("train", "test"):
        shutil.copytree(nested, splits / name)
    source = open_folder(splits, "leaf")
    assert source.sizes == {"train": 18, "test": 18}
    assert count_images(source) == {"Pear": 24, "Red": 12}


def test_an_empty_leaf_is_refused_and_a_branch_is_not(nested):
    (nested / "Milk/Oat").mkdir()
    said = refuse(nested, "leaf")
    assert f"without an image: {nested}/Milk/Oat" in said
    assert f"{nested}/Fruit" not in said


def test_text_beside_photographs_is_ignored_in_one_line(raw, tmp_path, capsys):
    for number in range(5):
        (raw / "both" / f"{number}.txt").write_text("BM is how a BMP begins")
    (raw / "both/Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0" + bytes(60))
    (raw / "down/data.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(60))
    image = (raw / "down/00.jpg").read_bytes()
    (raw / "down/photograph").write_bytes(image)  # its head says so
    (raw / "down/broken.PNG").write_bytes(b"text")
    source = open_folder(raw)
    assert source.size == 15 + 2
    counts = prepare(source, tmp_path / "prepared")
    assert counts["bad_images"] == 1
    said = capsys.readouterr().out.splitlines()
    (line,) = [line for line in said if "ignored" in line]
    assert line.endswith(f"{raw}/both/2.txt and 4 more")
    assert [line for line in said if "can't read" in line] == [
        line for line in said if "broken.PNG" in line
    ]


def test_classes_that_differ_in_case_are_noted(raw):
    shutil.copytree(raw / "both", raw / "Both")
    (note,) = open_folder(raw).notes
    assert "classes that differ in case: Both, both" in note


def test_classes_without_test_images_are_warned_of(tmp_path, capsys):
    write_photographs(tmp_path / "train", each=6)
    write_photographs(tmp_path / "test", each=2, seed=1)
    shutil.rmtree(tmp_path / "test/down")
    prepare(open_folder(tmp_path), tmp_path / "prepared")
    said = capsys.readouterr().out
    assert "warning: 1 of 3 classes have no image in test: down\n" in said
    assert "no image in validation" not in said


def test_images_beside_split_folders_are_noted(tmp_path):
    write_photographs(tmp_path / "Training", each=6)
    write_photographs(tmp_path / "test", each=2, seed=1)
    shutil.copytree(tmp_path / "Training/both", tmp_path / "extra")
    source = open_folder(tmp_path)
    assert source.splits == ["train", "test"] and source.size == 24
    assert source.notes == [f"ignored, beside the splits: {tmp_path}/extra"]
    assert set(scan_folder(tmp_path, "first").tops) == {"train", "test"}


def test_a_train_among_classes_is_refused(raw):
    """bus/ car/ train/{steam,diesel}/: two classes would vanish."""
    for name in ("steam", "diesel"):
        shutil.copytree(raw / "both", raw / "train" / name)
    said = refuse(raw)
    assert f"train, which is a split, beside {raw}/across, " in said


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("caf\u00e9", "cafe\u0301"),
        ("cat", "cat "),
        ("big cat", "big\u00a0cat"),
        ("cat", "c\u200bat"),
    ],
)
def test_classes_that_look_the_same_are_refused(raw, one, other):
    for name in (one, other):
        shutil.copytree(raw / "both", raw / name)
    said = refuse(raw)
    assert "look the same" in said and ascii(one) in said
    shutil.rmtree(raw / other)
    assert one in open_folder(raw).classes


def test_a_class_loses_its_outer_spaces(raw):
    (raw / "both").rename(raw / " both ")
    assert open_folder(raw).classes == ["across", "both", "down"]


def test_a_class_called_exclude_is_refused(raw):
    (raw / "both").rename(raw / "exclude")
    with pytest.raises(InputError, match="a class is called exclude"):
        open_source("folder", raw)


def test_a_hidden_class_is_warned_of(raw):
    shutil.copytree(raw / "both", raw / ".net")
    notes = open_folder(raw).notes
    assert [x for x in notes if x.startswith("warning: hidden folders")]
    (raw / "both/.late.jpg.icloud").write_bytes(b"bplist00")
    notes = open_folder(raw).notes
    assert [x for x in notes if "iCloud" in x and ".late.jpg" in x]


def rename_masks(raw, name):
    for path in sorted(raw.rglob("*.jpg")):
        mask = path.parent / name.format(path.stem)
        mask.parent.mkdir(exist_ok=True)
        shutil.copy(path, mask)


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("{}.png", "*.JPG"),
        ("{}_mask.jpg", "??.jpg"),
    ],
)
def test_masks_beside_photographs_are_warned_of(raw, name, files):
    assert not open_folder(raw).notes
    rename_masks(raw, name)
    source = open_folder(raw)
    (note,) = source.notes
    assert source.size == 30 and "15 images have the name of another" in note
    source = open_folder(raw, files=files)
    (note,) = source.notes
    assert "left out by prepare.files" in note and source.size == 15
    assert {item.path[-4:] for item in source.items} == {".jpg"}


def test_a_pattern_with_a_slash_is_of_paths(raw):
    rename_masks(raw, "masks/{}.jpg")
    for kind in ("across", "both", "down"):
        (raw / kind / "photos").mkdir()
        for path in (raw / kind).glob("*.jpg"):
            path.rename(raw / kind / "photos" / path.name)
    notes = open_folder(raw).notes
    assert "15 images have the name of another" in " ".join(notes)
    source = open_folder(raw, files="*/photos/*")
    assert source.size == 15
    assert all("/photos/" in item.path for item in source.items)


def test_equal_numbers_in_other_folders_are_no_masks(raw):
    shutil.copytree(raw / "both", raw / "across/second")
    assert not open_folder(raw).notes
