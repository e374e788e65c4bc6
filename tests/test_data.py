"""Images, splits, sources and what `prepare` makes of them."""

import io
import json
import shutil

import numpy as np
import pytest
from conftest import draw_stripes, write_photographs
from PIL import Image

from thaw.data.images import decode_image, resize_image
from thaw.data.splits import SPLITS
from thaw.errors import InputError
from thaw.files.arrays import ArrayWriter, open_array
from thaw.files.atomic import link_folder, new_file, new_folder
from thaw.prepare.assign import assign_splits, hash_to_unit
from thaw.prepare.digits import open_digits
from thaw.prepare.pack import prepare_dataset
from thaw.prepare.sources import open_folder, open_source
from thaw.run.checkpoints import Checkpoint

OPTIONS = {
    "image_size": 32,
    "fit": "squash",
    "validation": 0.15,
    "test": 0.2,
    "seed": 0,
    "bad_images": "skip",
    "group": None,
    "duplicates": "remove",
}


def prepare(source, folder, **options):
    """`prepare_dataset` into a new folder, with a checkpoint of its own."""
    scratch = folder.with_name(f"{folder.name}-scratch")
    scratch.mkdir(exist_ok=True)
    with new_folder(folder) as unfinished:
        counts = prepare_dataset(
            source, Checkpoint(scratch), **(OPTIONS | options)
        )
        link_folder(scratch / "prepared", unfinished)
    shutil.rmtree(scratch)
    return counts


def split_names(names, shares, given=None, seed=0):
    """The split of each of one class's images, in the source or cut."""
    codes = [SPLITS.index(split) for split in given or ["train"] * len(names)]
    splits, _ = assign_splits(
        np.array([hash_to_unit(name, seed) for name in names]),
        np.zeros(len(names), int),
        np.array(codes),
        np.ones(len(names), bool),
        shares,
        ["a"],
    )
    return [SPLITS[code] for code in splits]


def encode(image: Image.Image, kind: str = "png", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_resizing_is_antialiased():
    lines = np.zeros((64, 64, 3), np.uint8)
    lines[::2] = 255
    small = resize_image(Image.fromarray(lines), 16, "squash")
    assert abs(small[4:-4].astype(float) - 127.5).max() < 12


def test_small_images_are_upsampled_smoothly():
    image = Image.fromarray(np.array([[0, 255], [0, 255]], np.uint8))
    wide = resize_image(image.convert("RGB"), 32, "squash")
    assert wide.shape == (32, 32, 3)
    assert (np.diff(wide[0, :, 0].astype(int)) >= 0).all()
    assert len(np.unique(wide)) > 8


def test_crop_keeps_the_middle_and_its_aspect():
    image = np.zeros((40, 120, 3), np.uint8)
    image[:, 40:80] = 255
    assert resize_image(Image.fromarray(image), 32, "crop").min() > 200
    assert resize_image(Image.fromarray(image), 32, "squash").min() == 0


def test_decoding_turns_upright_and_keeps_sixteen_bits():
    image = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side
    assert decode_image(encode(image, exif=exif)).size == (2, 3)
    deep = Image.fromarray(np.full((4, 4), 32768, np.uint16))
    assert np.asarray(decode_image(encode(deep)))[0, 0].tolist() == [128] * 3


SHARES = {"test": 0.2, "validation": 0.15}


def test_a_split_depends_on_the_image_alone():
    names = [f"image {i}" for i in range(400)]
    whole = dict(zip(names, split_names(names, SHARES), strict=True))
    part = dict(zip(names[::2], split_names(names[::2], SHARES), strict=True))
    assert all(whole[name] == part[name] for name in part)
    assert abs(list(whole.values()).count("test") / 400 - 0.2) < 0.06
    assert abs(list(whole.values()).count("validation") / 400 - 0.15) < 0.06


@pytest.mark.parametrize("start", range(40))
def test_the_smallest_class_reaches_every_split(start):
    names = [f"image {start + i}" for i in range(3)]
    assert sorted(split_names(names, SHARES)) == sorted(SPLITS)


def test_splits_that_a_source_brings_are_kept():
    given = ["test"] * 5 + ["train"] * 50
    names = [str(i) for i in range(55)]
    splits = split_names(names, {"validation": 0.3}, given)
    assert splits[:5] == ["test"] * 5
    assert set(splits[5:]) == {"train", "validation"}
    assert split_names(names, {}, given) == given


def test_copies_of_an_image_stay_in_one_split():
    names = ["a"] * 4 + ["b"] * 4 + ["c"] * 4
    for seed in range(30):
        splits = split_names(names, SHARES, seed=seed)
        assert [len(set(splits[i : i + 4])) for i in (0, 4, 8)] == [1, 1, 1]
        assert set(splits) == set(SPLITS)


def test_a_test_folder_without_classes_is_no_split(tmp_path):
    write_photographs(tmp_path / "train", each=8)
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "1.jpg").write_bytes(b"unlabelled")
    source = open_folder(tmp_path)
    assert source.splits == ["train"]
    assert any("test" in note for note in source.notes)
    prepare(source, tmp_path / "prepared")
    assert len(open_array(tmp_path / "prepared/test/labels.npy")) >= 3


def test_a_split_without_a_readable_image_is_refused(tmp_path):
    raw = tmp_path / "raw"
    write_photographs(raw / "train", each=20)
    (raw / "test" / "both").mkdir(parents=True)
    (raw / "test" / "both" / "1.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match="split test has no image"):
        prepare(open_folder(raw), tmp_path / "prepared")


def test_too_few_images_of_a_class_are_refused(tmp_path):
    write_photographs(tmp_path / "raw", each=1)
    words = r"across \(1\), both \(1\), down \(1\); 3 or more"
    with pytest.raises(InputError, match=words):
        open_folder(tmp_path / "raw")


def test_too_few_images_that_differ_are_refused_with_a_way_out(tmp_path):
    write_photographs(tmp_path / "raw", each=5)
    for kind in ("both", "down"):
        for number in range(1, 5):
            folder = tmp_path / "raw" / kind
            shutil.copy(folder / "00.jpg", folder / f"0{number}.jpg")
    words = r"both \(1\), down \(1\); 3 or more .*duplicates: keep"
    with pytest.raises(InputError, match=words):
        prepare(open_folder(tmp_path / "raw"), tmp_path / "prepared")


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
def with_bad_images(tmp_path):
    raw = tmp_path / "raw"
    write_photographs(raw, each=10)
    whole = (raw / "both" / "00.jpg").read_bytes()
    (raw / "both" / "00.jpg").write_bytes(whole[: len(whole) // 2])
    (raw / "down" / "03.jpg").write_bytes(b"")
    return raw


def test_a_bad_image_is_skipped_and_listed(with_bad_images, tmp_path, capsys):
    prepare(open_folder(with_bad_images), tmp_path / "prepared")
    table = (tmp_path / "prepared" / "quarantine.csv").read_text()
    assert "both/00.jpg" in table and "down/03.jpg" in table
    assert "0x" not in table  # an address would differ from run to run
    assert capsys.readouterr().out.count("can't read") == 2
    rows = sum(
        len(open_array(tmp_path / "prepared" / split / "images.npy"))
        for split in SPLITS
    )
    assert rows == 28


def test_bad_images_can_fail(with_bad_images, tmp_path):
    source = open_folder(with_bad_images)
    with pytest.raises(InputError, match="2 of 30 images can't be read"):
        prepare(source, tmp_path / "prepared", bad_images="fail")
    assert not (tmp_path / "prepared").exists()


def test_too_many_bad_images_always_fail(with_bad_images, tmp_path):
    for number in range(4, 8):
        (with_bad_images / "down" / f"0{number}.jpg").write_text("text")
    with pytest.raises(InputError, match="more than 10% is too many"):
        prepare(open_folder(with_bad_images), tmp_path / "prepared")


def test_digits_are_upsampled_to_the_whole_range(tmp_path):
    source = open_digits()
    assert source.size == 1797 and len(source.classes) == 10
    prepare(source, tmp_path / "prepared")
    images = open_array(tmp_path / "prepared" / "train" / "images.npy")
    assert images.min() == 0 and images.max() == 255
    labels = open_array(tmp_path / "prepared" / "train" / "labels.npy")
    classes = json.loads((tmp_path / "prepared" / "classes.json").read_text())
    assert classes == [str(k) for k in range(10)] and len(set(labels)) == 10


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory):
    """A set with two labels and no validation split, as tfds writes it."""
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("tfds")

    class Shades(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(
                    {
                        "image": tfds.features.Image(shape=(None, None, 1)),
                        "parity": tfds.features.ClassLabel(num_classes=2),
                        "shade": tfds.features.ClassLabel(
                            names=["dark", "middle", "light"]
                        ),
                    }
                ),
                supervised_keys=("image", "shade"),
            )

        def _split_generators(self, dl_manager):
            counts = {"train": 30, "test": 9}
            return {split: self._generate(n) for split, n in counts.items()}

        def _generate(self, count):
            for i in range(count):
                image = np.full((9, 7, 1), 100 * (i % 3) + i, np.uint8)
                yield i, {"image": image, "parity": i % 2, "shade": i % 3}

        def _generate_examples(self):
            raise AssertionError

    Shades(data_dir=folder).download_and_prepare()
    # Opened elsewhere, it is a folder without a program.
    tfds.core.registered._DATASET_REGISTRY.pop("shades")
    return folder


def test_tfds_takes_the_supervised_label_and_the_sets_own_splits(
    tfds_folder, tmp_path
):
    source = open_source(
        "tfds", str(tfds_folder), "first", "shades", str(tfds_folder)
    )
    assert source.classes == ["dark", "middle", "light"]
    assert source.splits == ["train", "test"] and source.size == 39
    prepare(source, tmp_path / "prepared")
    images = open_array(tmp_path / "prepared" / "test" / "images.npy")
    labels = open_array(tmp_path / "prepared" / "test" / "labels.npy")
    assert images.shape == (9, 32, 32, 3)
    assert (images[:, 0, 0, 0] // 100 == labels).all()
    assert len(open_array(tmp_path / "prepared/validation/labels.npy")) >= 3


def test_a_set_of_no_catalogue_must_be_watched(tfds_folder):
    for path in ("data/README.md", str(tfds_folder / "shades" / "other")):
        with pytest.raises(InputError, match=r"let prepare.path be .*shades"):
            open_source("tfds", path, "first", "shades", str(tfds_folder))


def test_tfds_names_are_checked(tmp_path):
    with pytest.raises(InputError, match="did you mean") as refusal:
        open_source("tfds", "", "first", "cifar1", str(tmp_path))
    assert len(str(refusal.value)) < 300 and "\n" not in str(refusal.value)


def test_tfds_without_a_connection_gives_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(InputError, match="no connection") as refusal:
        open_source("tfds", "", "first", "beans", str(tmp_path))
    assert "\n" not in str(refusal.value)


def test_arrays_grow_row_by_row(tmp_path):
    path = tmp_path / "rows.npy"
    with ArrayWriter(path, (2, 3), np.uint8) as writer:
        for row in range(12):
            writer.append(np.full((1, 2, 3), row))
    rows = np.load(path)
    assert rows.shape == (12, 2, 3) and rows[:, 1, 2].tolist() == list(
        range(12)
    )


def test_files_appear_whole_or_not_at_all(tmp_path):
    (tmp_path / "kept").write_text("before")
    with pytest.raises(RuntimeError), new_file(tmp_path / "kept") as file:
        file.write_text("half")
        raise RuntimeError
    with pytest.raises(RuntimeError), new_folder(tmp_path / "new") as folder:
        (folder / "half").write_text("half")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").read_text() == "before"
