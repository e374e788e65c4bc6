"""Views, blocks of rows, kept activations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import AUGMENT, IMAGES, ROWS, STILL

from thaw.data import blocks as data_blocks
from thaw.data.activations import KeptViews
from thaw.data.blocks import Order, choose_block
from thaw.data.dataset import Dataset
from thaw.data.views import augment_images
from thaw.errors import InputError

RNG = np.random.default_rng(0)


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 70))
def test_an_order_passes_each_view_of_each_row_once(rows, views, block):
    all_ = Order(rows, views, block)
    found_rows, found_views = all_.locate(0, len(all_))
    pairs = set(zip(found_rows.tolist(), found_views.tolist(), strict=True))
    assert len(pairs) == len(all_) == rows * views
    for position in range(0, len(all_), all_.step):
        first, stop = all_.get_block(position)
        end = min(position + all_.step, len(all_))
        assert end - position == (stop - first) * views
        inside, _ = all_.locate(position, end)
        assert set(inside.tolist()) == set(range(first, stop))


def test_blocks_of_many_views_are_small():
    assert choose_block(64 * 64 * 3, 5000, views=4) == data_blocks.MOST_ROWS
    assert choose_block(600 * 600 * 3, 100_000, views=100) == data_blocks.BATCH


def test_kept_views_travel_as_they_are(tmp_path):
    arrays = RNG.normal(size=(2, 9, 3)).astype("float16")
    for view, array in enumerate(arrays):
        np.save(tmp_path / f"{view}.npy", array)
    kept = KeptViews([tmp_path / "0.npy", tmp_path / "1.npy"])
    rows, views = np.array([7, 5, 6]), np.array([0, 1, 1])
    some = np.arange(5, 8)
    gather = kept.gather_from(kept.read(some), some)
    np.testing.assert_array_equal(gather(rows - 5, views), kept(rows, views))


def make_view(view, images=IMAGES, rows=ROWS, **options):
    digests = np.stack([rows, rows], axis=1).astype("u8")
    views = np.full(len(rows), view)
    return augment_images(images[rows], digests, views, **options)


def test_view_0_is_the_image_and_views_repeat_themselves():
    assert np.array_equal(make_view(0, **AUGMENT), IMAGES)
    first = make_view(1, **AUGMENT)
    assert np.array_equal(first, make_view(1, **AUGMENT))
    part = make_view(1, IMAGES, ROWS[7:9], **AUGMENT)
    assert np.array_equal(first[7:9], part)
    assert not np.array_equal(first, make_view(2, **AUGMENT))
    assert not np.array_equal(first, make_view(1, **{**AUGMENT, "seed": 1}))
    digests = np.stack([ROWS, ROWS], axis=1).astype("u8")
    mixed = augment_images(IMAGES, digests, ROWS % 2, **AUGMENT)
    assert np.array_equal(mixed[1::2], first[1::2])
    assert np.array_equal(mixed[::2], IMAGES[::2])


def test_no_augmentation_changes_nothing():
    assert np.array_equal(make_view(3, **STILL), IMAGES)


def test_mirroring_takes_half_of_the_images():
    view = make_view(1, **{**STILL, "horizontal_flip": True})
    mirrored = [
        np.array_equal(a[:, ::-1], b) for a, b in zip(view, IMAGES, strict=True)
    ]
    same = [np.array_equal(a, b) for a, b in zip(view, IMAGES, strict=True)]
    assert all(m or s for m, s in zip(mirrored, same, strict=True))
    assert 4 < sum(mirrored) < 20


def test_contrast_keeps_the_mean_and_stays_in_its_range():
    grey = (IMAGES // 4 + 96).astype(np.uint8)  # far from clipping
    view = make_view(1, grey, **{**STILL, "contrast": 0.5}).astype(float)
    np.testing.assert_allclose(
        view.mean(axis=(1, 2)), grey.mean(axis=(1, 2)), atol=0.5
    )
    factors = view.std(axis=(1, 2, 3)) / grey.std(axis=(1, 2, 3))
    assert 0.49 < factors.min() < 0.75 and 1.25 < factors.max() < 1.51


def find_dot(images):
    """Centre of mass of a bright dot, x and y from the middle."""
    weight = images[..., 0].astype(float)
    y, x = np.mgrid[: weight.shape[1], : weight.shape[2]]
    total = weight.sum(axis=(1, 2))
    middle = (weight.shape[1] - 1) / 2
    return np.stack(
        [(weight * x).sum((1, 2)) / total, (weight * y).sum((1, 2)) / total], 1
    ) - [middle, middle]


def draw_dots():
    dots = np.zeros((200, 65, 65, 3), np.uint8)
    dots[:, 31:34, 47:50] = 255  # 16 pixels right of the middle
    return dots


def test_rotation_is_a_share_of_a_turn_about_the_middle():
    dots = draw_dots()
    view = make_view(1, dots, np.arange(200), **{**STILL, "rotation": 0.25})
    x, y = find_dot(view).T
    np.testing.assert_allclose(np.hypot(x, y), 16, atol=0.5)
    degrees = np.rad2deg(np.arctan2(y, x))
    assert -90.5 < degrees.min() < -75 and 75 < degrees.max() < 90.5


def test_translation_is_a_share_of_the_side():
    dots = draw_dots()
    view = make_view(1, dots, np.arange(200), **{**STILL, "translation": 0.2})
    moved = find_dot(view) - [16, 0]
    for axis in (0, 1):
        assert -13.5 < moved[:, axis].min() < -11
        assert 11 < moved[:, axis].max() < 13.5


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda a: np.save(a / "labels.npy", np.full(24, 3, np.int32)),
            "label 3",
        ),
        (lambda a: np.save(a / "images.npy", IMAGES / 255), "of uint8 in"),
        (lambda a: (a / "images.npy").write_bytes(b"\x93NUMPY"), "whole array"),
        (lambda a: (a / "images.npy").write_bytes(b"no"), "whole array"),
    ],
    ids=["labels", "scaled", "cut", "other"],
)
def test_spoilt_data_are_refused(dataset, spoil, words):
    spoil(dataset.folder / "train")
    with pytest.raises(InputError, match=words):
        Dataset(dataset.folder).open_labels("train")
