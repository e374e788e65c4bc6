"""Copies of photographs: which `prepare` finds, and what it does with them."""

import shutil

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from samples import (
    PHOTOGRAPH,
    WIDTHS,
    prepare,
    read,
    read_paths,
    save,
    write_photographs,
)

from thaw.data.images import decode_image, hash_pixels
from thaw.data.splits import SPLITS
from thaw.errors import InputError
from thaw.prepare.copies import Copies
from thaw.prepare.near_duplicates import (
    FINGERPRINT,
    find_duplicates,
    make_fingerprint,
)
from thaw.prepare.sources import open_folder


def test_too_few_images_that_differ_are_refused_with_a_way_out(tmp_path):
    write_photographs(tmp_path / "raw", each=5)
    for kind in ("both", "down"):
        for number in range(1, 5):
            folder = tmp_path / "raw" / kind
            shutil.copy(folder / "00.jpg", folder / f"0{number}.jpg")
    words = r"both \(1\), down \(1\); 3 or more .*duplicates: keep"
    with pytest.raises(InputError, match=words):
        prepare(open_folder(tmp_path / "raw"), tmp_path / "prepared")


RNG = np.random.default_rng(0)


def make_copies(raw):
    """Copies three test images to train: equal, encoded again, brighter."""
    source = raw / "test" / "both"
    target = raw / "train" / "both"
    shutil.copy(source / "00.jpg", target / "equal.jpg")
    with Image.open(source / "01.jpg") as image:
        image.resize((70, 70)).save(target / "again.png")
    with Image.open(source / "02.jpg") as image:
        ImageEnhance.Brightness(image).enhance(1.1).save(target / "bright.jpg")
    return {f"train/both/{x}" for x in ("equal.jpg", "again.png", "bright.jpg")}


def test_copies_of_test_images_are_removed_from_train(raw, tmp_path, capsys):
    folder = tmp_path / "prepared"
    prepare(open_folder(raw), folder)
    before = {split: read_paths(folder, split) for split in SPLITS}
    copies = make_copies(raw)
    counts = prepare(open_folder(raw), tmp_path / "again")
    folder = tmp_path / "again"
    table = read(folder / "duplicates.csv")
    assert {row["path"] for row in table} == copies
    assert {row["decision"] for row in table} == {"removed from train"}
    assert all(row["other_path"].startswith("test/both") for row in table)
    assert {split: read_paths(folder, split) for split in SPLITS} == before
    assert counts["removed_from_train"] == 3
    assert counts["duplicates_across_splits"] == 3
    assert "3 images removed from train" in capsys.readouterr().out
    pictures = np.load(folder / "duplicates.npy")
    assert pictures.shape == (3, 2, 32, 32, 3)
    assert np.abs(pictures[:, 0].astype(int) - pictures[:, 1]).mean() < 25


def test_copies_can_be_kept(raw, tmp_path):
    copies = make_copies(raw)
    prepare(open_folder(raw), tmp_path / "prepared", duplicates="keep")
    table = read(tmp_path / "prepared" / "duplicates.csv")
    assert {row["decision"] for row in table} == {"kept"}
    used = {p for s in SPLITS for p in read_paths(tmp_path / "prepared", s)}
    assert copies < used


def test_copies_can_be_refused(raw, tmp_path):
    prepare(open_folder(raw), tmp_path / "prepared", duplicates="fail")
    make_copies(raw)
    with pytest.raises(InputError, match="and 2 more such pairs"):
        prepare(open_folder(raw), tmp_path / "again", duplicates="fail")
    assert not (tmp_path / "again").exists()


def test_copies_within_one_split_and_class_are_left_alone(raw, tmp_path):
    for split in ("train", "test"):
        folder = raw / split / "down"
        shutil.copy(folder / "00.jpg", folder / "copy.jpg")
    counts = prepare(open_folder(raw), tmp_path / "prepared")
    # Cut from train, the two in train share a split as well.
    assert counts["duplicates_across_splits"] == 0
    assert read(tmp_path / "prepared" / "duplicates.csv") == []


def test_one_picture_under_two_labels_is_left_out(raw, tmp_path, capsys):
    source = raw / "train" / "both" / "00.jpg"
    shutil.copy(source, raw / "train" / "down" / "liar.jpg")
    folder = tmp_path / "prepared"
    counts = prepare(open_folder(raw), folder)
    used = {p for s in SPLITS for p in read_paths(folder, s)}
    assert not {"train/down/liar.jpg", "train/both/00.jpg"} & used
    (row,) = read(folder / "duplicates.csv")
    assert row["decision"] == "both left out"
    assert (row["class"], row["other_class"]) == ("both", "down")
    assert counts["left_out"] == 2 and counts["removed_from_train"] == 0
    said = capsys.readouterr().out
    assert "copies under two labels: 1 pair, 2 images left out\n" in said


def test_a_given_test_split_is_left_as_it_is(raw, tmp_path, capsys):
    """It keeps wrong labels, and copies within itself."""
    source = raw / "test" / "both" / "00.jpg"
    shutil.copy(source, raw / "train" / "down" / "liar.jpg")
    shutil.copy(source, raw / "test" / "across" / "liar.jpg")
    folder = tmp_path / "prepared"
    counts = prepare(open_folder(raw), folder)
    given = {p.relative_to(raw).as_posix() for p in raw.glob("test/*/*")}
    assert read_paths(folder, "test") == given
    assert "train/down/liar.jpg" not in read_paths(folder, "train")
    decisions = {
        frozenset((row["path"], row["other_path"])): row["decision"]
        for row in read(folder / "duplicates.csv")
    }
    both = frozenset(("test/both/00.jpg", "test/across/liar.jpg"))
    assert decisions.pop(both) == "kept"
    assert set(decisions.values()) == {"removed from train"}
    assert counts["left_out"] == 1
    assert "1 pair kept" in capsys.readouterr().out


def test_a_class_that_is_all_copies_is_refused(raw, tmp_path):
    shutil.rmtree(raw / "train" / "down")
    shutil.copytree(raw / "test" / "down", raw / "train" / "down")
    (raw / "validation").mkdir()
    shutil.copytree(raw / "test" / "both", raw / "validation" / "both")
    with pytest.raises(InputError, match="no image left in train: down;"):
        prepare(open_folder(raw), tmp_path / "prepared")


def test_splits_that_are_cut_share_no_picture(tmp_path, capsys):
    """Train has copies of a given test split, and many of its own images."""
    raw = tmp_path / "raw"
    write_photographs(raw / "train", each=16, widths=WIDTHS)
    write_photographs(raw / "test", each=6, seed=1, widths=WIDTHS)
    for kind in ("both", "down"):
        folder = raw / "train" / kind
        for number in range(4):
            shutil.copy(
                raw / "test" / kind / f"0{number}.jpg",
                folder / f"test{number}.jpg",
            )
            for more in range(3):
                with Image.open(folder / f"0{number}.jpg") as image:
                    side = image.width + 8 * more
                    copy = image.resize((side, side))
                save(copy, folder / f"own{number}_{more}.jpg", quality=85)
    for seed in range(4):
        folder = tmp_path / f"prepared{seed}"
        counts = prepare(open_folder(raw), folder, seed=seed)
        assert counts["removed_from_train"] == 8
        prints, split_of = [], []
        for split in SPLITS:
            for path in sorted(read_paths(folder, split)):
                image = decode_image((raw / path).read_bytes())
                prints.append(make_fingerprint(image))
                split_of.append(split)
        assert len(prints) == 48 + 24 + 18  # all but the copies of test
        pairs = find_duplicates(np.stack(prints))
        assert len(pairs) >= 24
        assert all(split_of[i] == split_of[j] for i, j, _ in pairs)
    said = capsys.readouterr().out
    assert "8 pairs, 8 images removed from train\n" in said
    assert "copies kept together: 3" in said


def test_small_pictures_are_copies_only_if_equal():
    tiny = [Image.fromarray(RNG.integers(0, 9, (8, 8, 3), np.uint8))] * 2
    close = np.asarray(tiny[0]).copy()
    close[0, 0, 0] += 1
    close = Image.fromarray(close)
    prints = np.stack([make_fingerprint(x) for x in [*tiny, close]])
    assert find_duplicates(prints) == []
    hashes = [hash_pixels(image) for image in [*tiny, close]]
    assert hashes[0] == hashes[1] != hashes[2]


def test_blank_pictures_are_no_copies_of_each_other(tmp_path):
    shades = [np.full((60, 60, 3), v, np.uint8) for v in range(0, 250, 10)]
    noisy = [x + RNG.integers(0, 2, x.shape, np.uint8) for x in shades]
    prints = [make_fingerprint(Image.fromarray(x)) for x in shades + noisy]
    assert find_duplicates(np.stack(prints)) == []


def test_many_copies_make_few_pairs():
    pictures = np.array([0] * 1000 + [1] * 1000 + [2])
    blank = np.zeros((2001, *FINGERPRINT), np.uint8)
    copies = Copies(pictures, {0: {2: 0.98}, 2: {0: 0.98}}, blank)
    keys = np.arange(2001) % 2
    pairs = copies.pair_across(keys, np.ones(2001, bool))
    assert len(pairs) < 3000
    assert {row for pair in pairs for row in pair.rows} == {*range(2001)}


def test_a_burst_leaves_nothing_in_train(raw, tmp_path):
    """One scene has more frames than the search compares with each of them."""
    write_photographs(raw / "validation", each=4, seed=9, widths=WIDTHS)
    scene = np.asarray(PHOTOGRAPH.resize((64, 64))).astype(int)
    for number in range(120):
        noise = RNG.normal(0, 3, scene.shape)
        frame = Image.fromarray((scene + noise).clip(0, 255).astype(np.uint8))
        split = "test" if number == 60 else "train"
        save(frame, raw / split / "both" / f"frame{number:03d}.png")
    folder = tmp_path / "prepared"
    counts = prepare(open_folder(raw), folder)
    assert counts["removed_from_train"] == 119
    assert not [p for p in read_paths(folder, "train") if "frame" in p]
    assert "test/both/frame060.png" in read_paths(folder, "test")
