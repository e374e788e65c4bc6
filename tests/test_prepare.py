"""What `prepare` makes of sources: files, sets, bad images, a run cut off."""

import json
import shutil
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter
from programs import run_python
from samples import (
    WIDTHS,
    draw_stripes,
    prepare,
    read,
    read_paths,
    save,
    write_photographs,
)
from test_images import JPEG, UNREADABLE

from benchmarks.project import ROOT
from thaw.data.dataset import Dataset
from thaw.data.facts import FACTS
from thaw.data.splits import SPLITS
from thaw.errors import InputError
from thaw.files.arrays import open_array
from thaw.prepare.digits import open_digits
from thaw.prepare.items import Source
from thaw.prepare.pictures import describe_pictures
from thaw.prepare.sizes import describe_sizes
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


def test_a_tfds_folder_runs_no_python_of_its_own(tfds_folder, tmp_path):
    folder = tmp_path / "sets"
    shutil.copytree(tfds_folder, folder)
    (tmp_path / "gadget.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (file,) = folder.rglob("features.json")
    text = file.read_text()
    core = "tensorflow_datasets.core.features"
    own = f"{core}.class_label_feature.ClassLabel"
    assert own in text
    feature = {"type": "gadget.Feature", "content": {}}
    in_a_string = {
        "pythonClassName": f"{core}.features_dict.FeaturesDict",
        "jsonFeature": {"json": json.dumps({"image": feature})},
    }
    program = (
        "from thaw.errors import InputError\n"
        "from thaw.prepare.sources import open_source\n"
        "try:\n"
        f"    open_source('tfds', {str(folder)!r}, name='shades',"
        f" data_dir={str(folder)!r})\n"
        "except InputError as error:\n"
        "    print(error)\n"
    )
    by_itself = program.replace(f"data_dir={str(folder)!r}", "data_dir=None")
    for gadget, features, run in (
        ("gadget.Feature", text.replace(own, "gadget.Feature"), program),
        ("gadget", text.replace(own, "gadget"), program),
        ("gadget.Feature", json.dumps(in_a_string), program),
        ("gadget.Feature", json.dumps(in_a_string), by_itself),
    ):
        file.write_text(features)
        said = run_python(
            run,
            PYTHONPATH=f"{ROOT}:{tmp_path}",
            TFDS_DATA_DIR=str(folder),
        )
        assert f"names {gadget}, which is no feature" in said
        assert not (tmp_path / "ran").exists()


def test_a_tfds_folder_lists_no_file_outside_it(tfds_folder, tmp_path):
    folder = tmp_path / "sets"
    shutil.copytree(tfds_folder, folder)
    (file,) = folder.rglob("dataset_info.json")
    about = json.loads(file.read_text())
    about["splits"][0]["filepathTemplate"] = "../{SPLIT}.{FILEFORMAT}"
    file.write_text(json.dumps(about))
    with pytest.raises(InputError, match="which is outside its folder"):
        open_source("tfds", str(folder), name="shades", data_dir=str(folder))


def test_tfds_takes_the_supervised_label_and_the_sets_own_splits(
    tfds_folder, tmp_path
):
    source = open_source(
        "tfds", str(tfds_folder), name="shades", data_dir=str(tfds_folder)
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
            open_source("tfds", path, "first", None, "shades", str(tfds_folder))


def test_tfds_names_are_checked(tmp_path):
    with pytest.raises(InputError, match="did you mean") as refusal:
        open_source("tfds", "", "first", None, "cifar1", str(tmp_path))
    assert len(str(refusal.value)) < 300 and "\n" not in str(refusal.value)


def test_tfds_without_a_connection_gives_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(InputError, match="no connection") as refusal:
        open_source("tfds", "", "first", None, "beans", str(tmp_path))
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


def draw_noise(low, high, size=(60, 40), grey=False):
    """Noise between two levels, as wide and as high as `size`."""
    channels = 1 if grey else 3
    pixels = RNG.integers(low, high + 1, (size[1], size[0], channels), np.uint8)
    return Image.fromarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


STANDING_OUT = {
    "dark": draw_noise(0, 40),
    "bright": draw_noise(180, 255),
    "flat": draw_noise(100, 115),
    "grey": draw_noise(0, 255, grey=True),
    "odd_shape": draw_noise(0, 255, (200, 40)),
}


@pytest.fixture
def standing_out(tmp_path):
    """Photographs, and a picture of each kind that stands out."""
    raw = tmp_path / "raw"
    write_photographs(raw, each=12, widths=WIDTHS)
    for kind, image in STANDING_OUT.items():
        save(image, raw / "both" / f"{kind}.jpg", quality=90)
    return raw


def describe(folder, own_size=32, fit="squash"):
    return describe_pictures(Dataset(folder), own_size, fit)


def test_pictures_that_stand_out_are_listed(standing_out, tmp_path, capsys):
    prepare(open_folder(standing_out), tmp_path / "prepared")
    statistics = describe(tmp_path / "prepared")
    table = read(tmp_path / "prepared" / "pictures.csv")
    found = {row["kind"]: row["path"] for row in table}
    assert found == {kind: f"both/{kind}.jpg" for kind in STANDING_OUT}
    for kind in STANDING_OUT:
        assert statistics[kind] == {"count": 1, "share": 1 / 41}
    for row in table:
        index = read(tmp_path / "prepared" / row["split"] / "index.csv")
        assert index[int(row["row"])]["path"] == row["path"]
    assert table[-1]["reason"] == "200 x 40 px"
    said = "1 dark, 1 bright, 1 flat, 1 grey, 1 odd shape; data/prepared/pic"
    assert said in capsys.readouterr().out


def test_sizes_are_those_before_resizing_and_upright(tmp_path):
    for kind in ("a", "b"):
        for number in range(4):
            image = draw_noise(0, 255, (60, 40 + number))
            exif = Image.Exif()
            exif[274] = 6  # to be turned by a quarter
            save(image, tmp_path / f"raw/{kind}/{number}.jpg", exif=exif)
    prepare(open_folder(tmp_path / "raw"), tmp_path / "prepared")
    statistics = describe(tmp_path / "prepared")
    assert statistics["width"] == {"least": 40, "median": 41.5, "most": 43}
    assert statistics["height"] == {"least": 60, "median": 60, "most": 60}
    assert statistics["larger"] == {"count": 8, "share": 1}


def test_the_most_blurred_come_first(tmp_path):
    for number in range(130):
        image = draw_stripes("both", RNG, 64, width=16)
        path = tmp_path / "raw" / "ab"[number % 2] / f"{number}.png"
        blurred = image.filter(ImageFilter.GaussianBlur(2))
        # A dim picture is no more blurred than others.
        dimmer = ImageEnhance.Contrast(image).enhance(0.25)
        save(blurred if number == 77 else dimmer, path)
    source = open_folder(tmp_path / "raw")
    prepare(source, tmp_path / "prepared", duplicates="keep")
    statistics = describe(tmp_path / "prepared")
    (row,) = read(tmp_path / "prepared" / "pictures.csv")
    assert (row["kind"], row["path"]) == ("blurred", "b/77.png")
    assert "blurred" not in statistics


def make_facts(sizes):
    facts = np.zeros(len(sizes), FACTS)
    facts["width"], facts["height"] = np.transpose(sizes)
    return facts


@pytest.mark.parametrize(
    ("sizes", "image_size", "fit", "expected"),
    [
        ([(8, 8)] * 9, 64, "squash", "all 8 x 8 px, all smaller than 64 px"),
        (
            [(400, 300)] * 9,
            64,
            "squash",
            "all 400 x 300 px, all larger than 64 px: "
            "prepare.image_size=224 could show more",
        ),
        (
            [(150, 100)] * 57 + [(90, 170)] * 40 + [(300, 300)] * 3,
            256,
            "squash",
            "100 x 150 px in the median, shorter by longer side, 90 to 300 px "
            "in all, 97% smaller than 256 px: "
            "prepare.image_size=192 shows as much of 97% of them",
        ),
        (
            [(300, 100)] * 9,
            224,
            "crop",
            "all 300 x 100 px, all smaller than 224 px: "
            "prepare.image_size=128 shows as much",
        ),
        ([(300, 100)] * 9, 224, "squash", "all 300 x 100 px"),
        (
            [(400, 400)] * 9,
            224,
            "squash",
            "all 400 x 400 px, all larger than 224 px",
        ),
    ],
)
def test_sizes_steer_image_size_where_they_bear_it_out(
    sizes, image_size, fit, expected
):
    sentence, _ = describe_sizes(make_facts(sizes), image_size, 224, fit)
    assert sentence == expected


def test_facts_of_an_earlier_run_are_those_of_a_fresh_one(
    standing_out, tmp_path, monkeypatch
):
    prepare(open_folder(standing_out), tmp_path / "prepared")
    statistics = describe(tmp_path / "prepared")
    table = (tmp_path / "prepared/pictures.csv").read_bytes()
    monkeypatch.setattr("thaw.prepare.decode.decode", lambda *_: 1 / 0)
    prepare(
        open_folder(standing_out), tmp_path / "again", tmp_path / "prepared"
    )
    for split in SPLITS:
        facts = [
            (tmp_path / folder / split / "facts.npy").read_bytes()
            for folder in ("prepared", "again")
        ]
        assert facts[0] == facts[1]
    assert describe(tmp_path / "again") == statistics
    assert (tmp_path / "again/pictures.csv").read_bytes() == table
