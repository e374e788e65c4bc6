"""Bad files, copies, groups: what `prepare` takes and what it leaves out."""

import csv
import io
import json
import shutil
from collections import defaultdict
from itertools import count
from types import SimpleNamespace

import numpy as np
import pillow_heif
import pytest
from conftest import draw_stripes, write_photographs
from hypothesis import assume, settings
from hypothesis import given as given_by
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from test_data import encode, prepare

from thaw.data.images import decode_image, hash_pixels
from thaw.data.splits import SPLITS
from thaw.errors import InputError
from thaw.files.arrays import open_array
from thaw.prepare.assign import hash_to_unit, unite
from thaw.prepare.copies import Copies
from thaw.prepare.decode import RANK, find_group
from thaw.prepare.items import Source
from thaw.prepare.near_duplicates import (
    FINGERPRINT,
    find_duplicates,
    make_fingerprint,
)
from thaw.prepare.select import select_images
from thaw.prepare.sources import open_folder

RNG = np.random.default_rng(0)
WIDTHS = (5, 6, 7, 8)  # of stripes: no two photographs alike


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_paths(folder, split):
    return {row["path"] for row in read(folder / split / "index.csv")}


@pytest.fixture
def raw(tmp_path):
    """Photographs in train and test folders, no two alike."""
    write_photographs(tmp_path / "raw" / "train", each=12, widths=WIDTHS)
    write_photographs(tmp_path / "raw" / "test", each=4, seed=1, widths=WIDTHS)
    return tmp_path / "raw"


PHOTOGRAPH = draw_stripes("both", np.random.default_rng(7), 80)
WIDE = PHOTOGRAPH.resize((500, 10))


def make_deep(image):
    return Image.fromarray(
        np.asarray(image.convert("L")).astype(np.uint16) * 257
    )


def make_upright():
    """The photograph, stored on its side with a note of that."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(PHOTOGRAPH.rotate(90, expand=True), "png", exif=exif)


def make_animated():
    more = [PHOTOGRAPH.rotate(90), PHOTOGRAPH.rotate(180)]
    return encode(
        PHOTOGRAPH, "webp", lossless=True, save_all=True, append_images=more
    )


def make_transparent():
    """A palette's picture whose left half is transparent."""
    image = PHOTOGRAPH.quantize(200)
    pixels = np.asarray(image).copy()
    pixels[:, :40] = 255
    hole = Image.fromarray(pixels, "P")
    hole.putpalette((image.getpalette() + [0] * 768)[:768])
    return encode(hole, "png", transparency=255)


def make_half():
    """A download that was given its room and then cut off."""
    data = encode(PHOTOGRAPH.resize((28, 28)))
    return data[: len(data) // 2] + bytes(len(data) - len(data) // 2)


def make_white_is_zero():
    grey = np.asarray(make_deep(PHOTOGRAPH))
    return encode(Image.fromarray(65535 - grey), "tiff", tiffinfo={262: 0})


def make_clear_grey():
    """16 bits of grey, of which one value is transparent."""
    deep = np.asarray(make_deep(PHOTOGRAPH)).copy()
    deep[:, :10] = 77
    return encode(Image.fromarray(deep), "png", transparency=77)


def make_pgm():
    deep = np.asarray(make_deep(PHOTOGRAPH)).astype(">u2")
    return b"P5 80 80 65535\n" + deep.tobytes()


def make_heic(orientation=1, deep=False):
    """As phones do: stored on its side, with notes of that in both places."""
    image = PHOTOGRAPH
    if orientation == 6:
        image = image.rotate(90, expand=True)
    pixels, mode = np.asarray(image), "RGB"
    if deep:
        pixels, mode = pixels.astype(np.uint16) * 257, "RGB;16"
    file = pillow_heif.from_bytes(mode, image.size, pixels.tobytes())
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    file.save(buffer, quality=-1, chroma=444, exif=exif.tobytes())
    return buffer.getvalue()


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("orientation", [1, 6])
def test_heic_is_read_upright(orientation, deep):
    got = decode_image(make_heic(orientation, deep))
    assert got.mode == "RGB" and got.size == PHOTOGRAPH.size
    error = np.asarray(got).astype(int) - np.asarray(PHOTOGRAPH)
    assert np.abs(error).max() <= 4


READABLE = {
    "png named jpg": (encode(PHOTOGRAPH), PHOTOGRAPH),
    "grey": (encode(PHOTOGRAPH.convert("L")), PHOTOGRAPH.convert("L")),
    "grey alpha": (encode(PHOTOGRAPH.convert("LA")), PHOTOGRAPH.convert("L")),
    "16 bit": (encode(make_deep(PHOTOGRAPH)), PHOTOGRAPH.convert("L")),
    "cmyk": (encode(PHOTOGRAPH.convert("CMYK"), "tiff"), PHOTOGRAPH),
    "white is zero": (make_white_is_zero(), PHOTOGRAPH.convert("L")),
    "pgm": (make_pgm(), PHOTOGRAPH.convert("L")),
    "upright": (make_upright(), PHOTOGRAPH),
    "animated": (make_animated(), PHOTOGRAPH),
    "one pixel": (
        encode(PHOTOGRAPH.crop((0, 0, 1, 1))),
        PHOTOGRAPH.crop((0, 0, 1, 1)),
    ),
    "strip": (encode(WIDE), WIDE),
}


@pytest.mark.parametrize("kind", READABLE)
def test_what_can_be_read_is_read_right(kind):
    data, expected = READABLE[kind]
    expected = np.asarray(expected.convert("RGB"))
    got = np.asarray(decode_image(data))
    assert got.shape == expected.shape
    assert np.abs(got.astype(int) - expected).max() <= 1


def test_what_is_transparent_is_white():
    got = np.asarray(decode_image(make_transparent()))
    assert (got[:, :40] == 255).all()
    error = np.abs(got[:, 40:].astype(int) - np.asarray(PHOTOGRAPH)[:, 40:])
    assert error.mean() < 10


def test_one_transparent_grey_is_white():
    got = np.asarray(decode_image(make_clear_grey()))
    assert (got[:, :10] == 255).all()
    expected = np.asarray(PHOTOGRAPH.convert("L").convert("RGB"))
    assert np.array_equal(got[:, 10:], expected[:, 10:])


JPEG = encode(PHOTOGRAPH, "jpeg")
UNREADABLE = {
    "cut.jpg": (JPEG[:-200], "truncated"),
    "cut.png": (encode(PHOTOGRAPH)[:-200], "Truncated"),
    "zeros.png": (make_half(), "checksum"),
    "program.eps": (encode(PHOTOGRAPH, "eps"), "cannot identify"),
    "cut.heic": (make_heic()[:-200], ""),
    "cut.webp": (encode(PHOTOGRAPH, "webp")[:-200], ""),
    "empty.jpg": (b"", "cannot identify"),
    "text.jpg": (b"I am no picture", "cannot identify"),
    "page.png": (b"<html></html>", "cannot identify"),
    "float.tiff": (encode(PHOTOGRAPH.convert("F"), "tiff"), "no known range"),
    "whole.tiff": (encode(PHOTOGRAPH.convert("I"), "tiff"), "no known range"),
    "bomb.png": (encode(Image.new("1", (20000, 20000))), "bomb"),
}


def test_every_bad_file_is_named_with_its_reason(raw, tmp_path, capsys):
    names = ["ﬁle ñ 文字 🧊.jpg", "two\nli\rnes.jpg", 'a,b";.jpg', *UNREADABLE]
    spoilt = [JPEG[: len(JPEG) // 2]] * 3 + [x for x, _ in UNREADABLE.values()]
    write_photographs(tmp_path / "more", each=40, seed=5, widths=WIDTHS)
    for path in (tmp_path / "more").rglob("*.jpg"):
        shutil.copy(path, raw / "train" / path.parent.name / f"x{path.name}")
    for name, data in zip(names, spoilt, strict=True):
        (raw / "train" / "both" / name).write_bytes(data)
    folder = tmp_path / "prepared"
    counts = prepare(open_folder(raw), folder)
    table = {row["path"]: row for row in read(folder / "quarantine.csv")}
    assert set(table) == {f"train/both/{name}" for name in names}
    for name, (_, words) in UNREADABLE.items():
        row = table[f"train/both/{name}"]
        assert words in row["reason"] and row["reason"]
        assert (row["class"], row["split"]) == ("both", "train")
    assert counts["bad_images"] == len(names)
    said = capsys.readouterr().out
    assert all(name.split("\n")[0] in said for name in names)


def make_copies(raw):
    """Of three test images, in train: equal, encoded again, brighter."""
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


def test_copies_within_one_split_and_class_are_nobodys_business(raw, tmp_path):
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
    """Whatever labels and copies it has, also in itself."""
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


@st.composite
def draw_rows(draw):
    """Rows with copies and groups, as `Rows` has them, and splits to be cut."""
    count = draw(st.integers(12, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    given = draw(st.sampled_from([(0,), (0, 2), (0, 1), (0, 1, 2)]))
    pictures = rng.integers(
        count * draw(st.sampled_from([1, 3, 9])), size=count
    )
    _, pictures = np.unique(pictures, return_inverse=True)
    owners = rng.integers(count, size=count)
    grouped = rng.random(count) < draw(st.sampled_from([0, 0.2, 0.6]))
    units = [
        f"group {owner}" if one else f"file {row}"
        for row, (owner, one) in enumerate(zip(owners, grouped, strict=True))
    ]
    alike = defaultdict(dict)
    for _ in range(draw(st.sampled_from([0, 3, 15]))):
        one, other = rng.integers(pictures.max() + 1, size=2).tolist()
        if one != other:
            alike[one][other] = alike[other][one] = 0.97
    mostly = 0.2 if draw(st.booleans()) else 0.02  # labels that are wrong
    labels = np.where(rng.random(count) < mostly, 1, 0) ^ (pictures % 2)
    rows = SimpleNamespace(
        labels=labels,
        splits=rng.choice(given, count).astype(np.int8),
        hashes=np.array([hash_to_unit(unit, 0) for unit in units]),
        ranks=np.array([hash_to_unit(unit, RANK) for unit in units]),
        grouped=grouped,
        classes=["a", "b"],
    )
    blank = np.zeros((count, *FINGERPRINT), np.uint8)
    shares = {"test": 0.2, "validation": 0.15}
    shares = {s: x for s, x in shares.items() if SPLITS.index(s) not in given}
    return rows, Copies(pictures, alike, blank), shares


def relate(rows, copies):
    """(n, n) bool: copies of each other; images of one group."""
    pictures = copies.pictures
    same = pictures[:, None] == pictures
    for one, others in copies.alike.items():
        for other in others:
            same |= (pictures[:, None] == one) & (pictures == other)
    mates = (rows.hashes[:, None] == rows.hashes) & rows.grouped
    return same, mates


@settings(max_examples=200, deadline=None)
@given_by(drawn=draw_rows())
def test_no_two_splits_share_a_copy_or_a_group(drawn):
    rows, copies, shares = drawn
    try:
        selection = select_images(rows, copies, shares, "remove")
    except InputError:
        assume(False)
    used, splits = selection.used, selection.splits
    same, mates = relate(rows, copies)
    together = used[:, None] & used & (same | mates)
    assert (splits[:, None] == splits)[together].all()
    fixed = rows.splits == SPLITS.index("test")
    assert used[fixed].all()
    assert (splits == rows.splits)[~used | (rows.splits > 0)].all()
    assert (splits[used & (rows.splits == 0)] == 0).all() or shares
    # Whatever is gone is under two labels, or lies in a later split too.
    conflict = (same & (rows.labels[:, None] != rows.labels)).any(axis=1)
    later = (same | mates) & used & (rows.splits > rows.splits[:, None])
    assert (conflict | later.any(axis=1))[~used].all()
    assert not (used & conflict & ~fixed).any()


@settings(max_examples=50, deadline=None)
@given_by(drawn=draw_rows())
def test_kept_copies_change_no_split(drawn):
    rows, copies, shares = drawn
    lone = Copies(np.arange(len(copies.pictures)), {}, copies.fingerprints)
    try:
        without = select_images(rows, lone, shares, "keep")
    except InputError:
        assume(False)
    kept = select_images(rows, copies, shares, "keep")
    assert np.array_equal(kept.splits, without.splits)
    assert np.array_equal(kept.used, without.used)


def test_sets_of_copies_are_held_out_as_often_as_single_images():
    count, size = 1500, 4
    names = [f"file {row}" for row in range(count * size)]
    hashes = np.array([hash_to_unit(name, 0) for name in names])
    ranks = np.array([hash_to_unit(name, RANK) for name in names])
    units = unite(hashes, ranks, np.repeat(np.arange(count), size))
    assert (units.reshape(count, size) == units[::size, None]).all()
    assert abs((units < 0.2).mean() - 0.2) < 0.03
    alone = unite(hashes, ranks, np.arange(len(names)))
    assert np.array_equal(alone, hashes)


def test_splits_that_are_cut_share_no_picture(tmp_path, capsys):
    """A given test split; train has copies of it and many of its own."""
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
    """More frames of one scene than are looked at for each of them."""
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


def test_what_is_hidden_is_ignored_aloud(raw, tmp_path, capsys):
    folder = raw / "train" / "both"
    for name in (".cache", "__MACOSX"):
        (folder / name).mkdir()
        shutil.copy(folder / "00.jpg", folder / name / "00.jpg")
    shutil.copy(folder / "00.jpg", folder / ".00.jpg")
    prepare(open_folder(raw), tmp_path / "prepared")
    used = {p for s in SPLITS for p in read_paths(tmp_path / "prepared", s)}
    assert len(used) == 36 + 12
    (line,) = [x for x in capsys.readouterr().out.split("\n") if "hidden" in x]
    for name in ("__MACOSX", ".cache", ".00.jpg"):
        assert f"{folder / name}" in line


def test_a_pattern_that_fits_no_path_is_refused(raw, tmp_path):
    with pytest.raises(InputError, match="found in no path, such as train/"):
        prepare(open_folder(raw), tmp_path / "prepared", group=r"^p\d+")


def save(image, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


@pytest.fixture(scope="module")
def patients(tmp_path_factory):
    """Six photographs of each of 24 patients, half of them in two classes."""
    raw = tmp_path_factory.mktemp("patients")
    for patient in range(24):
        for number in range(6):
            kind = ("down", "both", "across")[(patient + number % 2) % 3]
            image = draw_stripes(kind, RNG, 50)
            save(image, raw / kind / f"p{patient:02d}_{number}.png")
    return raw


@pytest.mark.parametrize("seed", range(4))
def test_a_group_never_straddles_splits(patients, tmp_path, seed):
    prepare(
        open_folder(patients), tmp_path / "prepared", group="(p..)_", seed=seed
    )
    groups = {
        split: {
            row["group"]
            for row in read(tmp_path / "prepared" / split / "index.csv")
        }
        for split in SPLITS
    }
    assert len(set.union(*groups.values())) == 24
    assert sum(map(len, groups.values())) == 24
    assert all(groups.values())


def test_without_groups_patients_straddle(patients, tmp_path):
    prepare(open_folder(patients), tmp_path / "prepared")
    of_split = [
        {
            path.split("/")[1][:3]
            for path in read_paths(tmp_path / "prepared", s)
        }
        for s in SPLITS
    ]
    assert of_split[0] & of_split[2]


def test_a_moved_group_moves_whole(tmp_path):
    """A class of three groups needs some moved; another class has them too."""
    for kind, groups in {"both": 3, "down": 12}.items():
        for patient in range(groups):
            for number in range(2):
                image = draw_stripes(kind, RNG, 50)
                path = tmp_path / "raw" / kind / f"p{patient:02d}_{number}.png"
                save(image, path)
    for seed in range(8):
        folder = tmp_path / f"prepared-{seed}"
        prepare(open_folder(tmp_path / "raw"), folder, group="p..", seed=seed)
        rows = [read(folder / split / "index.csv") for split in SPLITS]
        groups = [{row["group"] for row in split} for split in rows]
        assert sum(map(len, groups)) == len(set.union(*groups)) == 12
        assert all("both" in {row["class"] for row in split} for split in rows)


def test_groups_in_two_given_splits_stay_in_the_last(tmp_path):
    for split, patients in {"train": range(6), "test": range(4, 9)}.items():
        for patient in patients:
            for kind in ("both", "down"):
                image = draw_stripes(kind, RNG, 50)
                save(image, tmp_path / "raw" / split / kind / f"p{patient}.png")
    folder = tmp_path / "prepared"
    counts = prepare(
        open_folder(tmp_path / "raw"),
        folder,
        group=r"p\d",
        validation=0.4,
        duplicates="keep",
    )
    assert counts["left_out"] == 4
    groups = [
        {row["group"] for row in read(folder / split / "index.csv")}
        for split in SPLITS
    ]
    assert groups[2] == {f"p{n}" for n in range(4, 9)}
    assert groups[0] | groups[1] == {f"p{n}" for n in range(4)}
    left_out = read(folder / "quarantine.csv")
    assert {row["path"][-6:-4] for row in left_out} == {"p4", "p5"}
    assert all("lies in another split" in row["reason"] for row in left_out)


def test_a_copy_that_goes_with_its_group_says_so(raw, tmp_path):
    for split, kind in (("train", "both"), ("test", "down")):
        save(PHOTOGRAPH, raw / split / kind / "p1_0.png")
    folder = tmp_path / "prepared"
    prepare(open_folder(raw), folder, group=r"p\d", duplicates="keep")
    (row,) = read(folder / "duplicates.csv")
    assert row["decision"] == "left out with its group"


@pytest.mark.parametrize(
    ("pattern", "path", "group"),
    [
        (r"p\d+", "cat/p017_3.jpg", "p017"),
        (r"/(p\d+)_(\d)", "cat/p017_3.jpg", "p017"),
        (r"q\d+", "cat/p017_3.jpg", ""),
        (r"(q)?p", "cat/p017_3.jpg", ""),
        (None, "cat/p017_3.jpg", ""),
    ],
)
def test_the_group_is_what_the_pattern_finds(pattern, path, group):
    assert find_group(pattern, path) == group


def test_images_scaled_to_one_are_refused(tmp_path):
    for kind in ("a", "b"):
        for number in range(6):
            image = Image.fromarray(RNG.integers(0, 2, (40, 40, 3), np.uint8))
            save(image, tmp_path / "raw" / kind / f"{number}.png")
    with pytest.raises(InputError, match=r"scaled to \[0, 1\]"):
        prepare(open_folder(tmp_path / "raw"), tmp_path / "prepared")


def test_decoding_goes_on_where_it_was(raw, tmp_path, monkeypatch, capsys):
    clock = SimpleNamespace(monotonic=count().__next__)
    monkeypatch.setattr("thaw.prepare.decode.time", clock)
    monkeypatch.setattr("thaw.prepare.decode.SECONDS_BETWEEN_NOTES", 6)
    monkeypatch.setattr("thaw.prepare.decode.AHEAD", 1)
    (raw / "train" / "both" / "03.jpg").write_bytes(b"no")
    prepare(open_folder(raw), tmp_path / "whole")

    def watch(items, fails_at):
        for number, item in enumerate(items):
            if number == fails_at:
                raise KeyboardInterrupt
            yield item

    def cut(fails_at):
        source = open_folder(raw)
        items = watch(source.items, fails_at)
        return Source(source.classes, source.splits, source.sizes, items)

    with pytest.raises(KeyboardInterrupt):
        prepare(cut(20), tmp_path / "cut")
    capsys.readouterr()
    prepare(cut(None), tmp_path / "cut")
    assert "14 images are decoded" in capsys.readouterr().out
    for path in sorted((tmp_path / "whole").rglob("*.*")):
        other = tmp_path / "cut" / path.relative_to(tmp_path / "whole")
        assert path.read_bytes() == other.read_bytes(), path


def test_the_counts_are_in_the_metrics_and_a_plot(reproduced):
    folder = reproduced.folder
    metrics = json.loads((folder / "metrics/details/prepare.json").read_text())
    table = read(folder / "plots/classes.csv")
    for split in SPLITS:
        labels = open_array(folder / "data/prepared" / split / "labels.npy")
        assert metrics[split] == len(labels)
        rows = [row for row in table if row["split"] == split]
        assert sum(int(row["images"]) for row in rows) == len(labels)
    assert metrics["bad_images"] == 0
    with Image.open(folder / "plots/duplicates.png") as picture:
        assert picture.width > 100
