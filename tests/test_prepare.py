"""What `prepare` makes of sources: files, sets, bad images, a run cut off."""

import json
import shutil
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from samples import WIDTHS, prepare, read, read_paths, save, write_photographs
from test_images import JPEG, UNREADABLE

from thaw.data.splits import SPLITS
from thaw.errors import InputError
from thaw.files.arrays import open_array
from thaw.prepare.digits import open_digits
from thaw.prepare.items import Source
from thaw.prepare.sources import open_folder, open_source

RNG = np.random.default_rng(0)


def test_a_split_without_a_readable_image_is_refused(tmp_path):
    raw = tmp_path / "raw"
    write_photographs(raw / "train", each=20)
    (raw / "test" / "both").mkdir(parents=True)
    (raw / "test" / "both" / "1.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match="split test has no image"):
        prepare(open_folder(raw), tmp_path / "prepared")


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


def test_prepare_path_must_name_a_set_of_ones_own(tfds_folder):
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


def test_hidden_files_are_ignored_and_named(raw, tmp_path, capsys):
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


def test_images_scaled_to_one_are_refused(tmp_path):
    for kind in ("a", "b"):
        for number in range(6):
            image = Image.fromarray(RNG.integers(0, 2, (40, 40, 3), np.uint8))
            save(image, tmp_path / "raw" / kind / f"{number}.png")
    with pytest.raises(InputError, match=r"scaled to \[0, 1\]"):
        prepare(open_folder(tmp_path / "raw"), tmp_path / "prepared")


def test_decoding_resumes(raw, tmp_path, monkeypatch, capsys):
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
