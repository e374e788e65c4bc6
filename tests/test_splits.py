"""Which image goes to which split: hashes, groups, copies kept together."""

from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, settings
from hypothesis import given as given_by
from hypothesis import strategies as st
from samples import PHOTOGRAPH, draw_stripes, prepare, read, read_paths, save

from thaw.data.splits import SPLITS
from thaw.errors import InputError
from thaw.prepare.assign import assign_splits, hash_to_unit, unite
from thaw.prepare.copies import Copies
from thaw.prepare.decode import RANK, find_group
from thaw.prepare.items import Item
from thaw.prepare.near_duplicates import FINGERPRINT
from thaw.prepare.select import select_images
from thaw.prepare.sources import open_folder

RNG = np.random.default_rng(0)


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
        excluded=np.zeros(count, bool),
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


def test_a_pattern_that_fits_no_path_is_refused(raw, tmp_path):
    with pytest.raises(InputError, match="found in no path, such as train/"):
        prepare(open_folder(raw), tmp_path / "prepared", group=r"^p\d+")


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


def test_a_group_moves_as_a_whole(tmp_path):
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


def test_a_copy_left_out_with_its_group_is_listed_so(raw, tmp_path):
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
    item = Item(path, 0, "train", list)
    assert find_group(pattern, item) == group
