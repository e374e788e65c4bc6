"""Bad files, copies, groups: what `prepare` takes and what it leaves out."""

import csv
import json
import shutil
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import draw_stripes, write_photographs
from PIL import Image, ImageEnhance
from test_data import encode, prepare

from thaw.copies import Copies
from thaw.decoding import find_group
from thaw.duplicates import FINGERPRINT, find_duplicates, make_fingerprint
from thaw.errors import InputError
from thaw.files import open_array
from thaw.images import decode_image, hash_pixels
from thaw.sources import Source, open_folder
from thaw.splits import SPLITS

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


def test_one_picture_under_two_labels_is_left_out(raw, tmp_path):
    source = raw / "test" / "both" / "00.jpg"
    shutil.copy(source, raw / "train" / "down" / "liar.jpg")
    folder = tmp_path / "prepared"
    counts = prepare(open_folder(raw), folder)
    used = {p for s in SPLITS for p in read_paths(folder, s)}
    assert not {"train/down/liar.jpg", "test/both/00.jpg"} & used
    (row,) = read(folder / "duplicates.csv")
    assert row["decision"] == "both left out"
    assert (row["class"], row["other_class"]) == ("down", "both")
    assert counts["left_out"] == 2 and counts["removed_from_train"] == 0


def test_a_class_that_is_all_copies_is_refused(raw, tmp_path):
    shutil.rmtree(raw / "train" / "down")
    shutil.copytree(raw / "test" / "down", raw / "train" / "down")
    (raw / "validation").mkdir()
    shutil.copytree(raw / "test" / "both", raw / "validation" / "both")
    with pytest.raises(InputError, match="class down has no image left"):
        prepare(open_folder(raw), tmp_path / "prepared")


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


def test_links_and_what_is_hidden_are_ignored_aloud(raw, tmp_path, capsys):
    folder = raw / "train" / "both"
    (folder / "more").symlink_to(raw / "test" / "both")
    (folder / ".cache").mkdir()
    shutil.copy(folder / "00.jpg", folder / ".cache" / "00.jpg")
    shutil.copy(folder / "00.jpg", folder / ".00.jpg")
    prepare(open_folder(raw), tmp_path / "prepared")
    used = {p for s in SPLITS for p in read_paths(tmp_path / "prepared", s)}
    assert len(used) == 36 + 12
    said = capsys.readouterr().out
    for name in ("more", ".cache", ".00.jpg"):
        assert f"ignored {folder / name}\n" in said


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
    monkeypatch.setattr("thaw.decoding.time", clock)
    monkeypatch.setattr("thaw.decoding.SECONDS_BETWEEN_NOTES", 6)
    monkeypatch.setattr("thaw.decoding.AHEAD", 1)
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
