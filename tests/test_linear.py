"""Linear heads in closed form: against refits, one by one; heat maps."""

import numpy as np
import pytest

from thaw.linear import ridge as module
from thaw.linear.affine import Affine, find_probabilities
from thaw.linear.heat import draw_heat
from thaw.linear.ridge import Problem, fit_ridge, list_sets

WIDTHS = [10, 30]


def draw(images=60, views=2, classes=4, seed=0, spread=0.5):
    """Views (images, 40) of classes, labels, and sets of two."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, images)
    centres = spread * rng.normal(size=(classes, 40))
    features = centres[labels] + rng.normal(size=(views, images, 40))
    features *= rng.uniform(0.1, 10, 40)
    return list(features.astype(np.float32)), labels, np.arange(images) // 2


def fit(views, labels, sets, weights=None, classes=4):
    return fit_ridge(
        views, slice(0, 40), WIDTHS, labels, sets, classes, weights
    )


def refit(views, labels, sets, weights, penalty):
    """Scores of each image by weights that never saw its set; one by one."""
    problem = Problem(views, slice(0, 40), WIDTHS, labels, 4, weights)
    count = len(views)
    rows = np.concatenate([(x - problem.mean) / problem.scale for x in views])
    rows = np.c_[rows.astype(np.float64), np.ones(len(rows))]
    targets = 2 * np.eye(4)[np.tile(labels, count)] - 1
    weight = np.tile(problem.weights, count)[:, None]
    length = problem.values.sum() / problem.rows
    damp = np.diag([penalty * length * count] * 40 + [0.0])
    scores = np.zeros((len(labels), 4))
    for each in np.unique(sets):
        kept = np.tile(sets, count) != each
        known = rows[kept].T @ (weight[kept] * rows[kept]) + damp
        found = np.linalg.solve(
            known, rows[kept].T @ (weight[kept] * targets[kept])
        )
        scores[sets == each] = rows[: len(labels)][sets == each] @ found
    return scores


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_leaving_out_is_fitting_again_without(views, weighted):
    """With all views, and whoever is of the same set."""
    features, labels, sets = draw(views=views)
    rng = np.random.default_rng(1)
    weights = rng.uniform(0.5, 2, 60) if weighted else np.ones(60)
    found = fit(features, labels, sets, weights)
    expected = refit(features, labels, sets, weights, found.penalty)
    ratio = np.sum(expected * found.held_out) / np.sum(found.held_out**2)
    np.testing.assert_allclose(
        ratio * found.held_out, expected, atol=1e-4 * np.abs(expected).max()
    )
    # The same temperature is in the head itself.
    problem = Problem(features, slice(0, 40), WIDTHS, labels, 4, weights)
    rows = problem.scale_rows(features[0]) @ problem.basis
    whole = rows @ problem.solve(found.penalty)
    scores = found.score(features[0], slice(0, 40)) * ratio
    np.testing.assert_allclose(scores, whole + problem.middle, atol=1e-3)


@pytest.mark.parametrize("images", [30, 90])
def test_few_rows_and_many_give_one_solution(monkeypatch, images):
    """Rows span the weights, columns do, or some of the rows do."""
    features, labels, sets = draw(images)
    whole = fit(features, labels, sets)
    monkeypatch.setattr(module, "MOST", 39)  # less than there are columns
    monkeypatch.setattr(module, "BLOCK", 7)
    some = fit(features, labels, sets)
    assert some.held_out.shape == whole.held_out.shape
    agree = (some.held_out.argmax(1) == whole.held_out.argmax(1)).mean()
    assert agree > 0.7


def test_blocks_of_rows_change_nothing(monkeypatch):
    features, labels, sets = draw(90)
    whole = fit(features, labels, sets)
    monkeypatch.setattr(module, "BLOCK", 7)
    small = fit(features, labels, sets)
    np.testing.assert_allclose(small.kernel, whole.kernel, atol=1e-3)
    assert small.penalty == whole.penalty


def test_parts_weigh_alike_whatever_their_size_and_scale():
    features, labels, sets = draw()
    louder = [x * np.repeat([1.0, 100.0], WIDTHS) for x in features]
    one, other = (fit(x, labels, sets) for x in (features, louder))
    np.testing.assert_allclose(one.held_out, other.held_out, atol=1e-2)
    problem = Problem(features, slice(0, 40), WIDTHS, labels, 4, np.ones(60))
    rows = problem.scale_rows(np.concatenate(features))
    first, second = np.split(np.square(rows), [10], axis=1)
    assert first.sum() == pytest.approx(second.sum(), rel=0.05)


def test_copies_make_no_head_certain():
    """Each image lies there twice; the labels are drawn at random."""
    rng = np.random.default_rng(1)
    features = np.repeat(rng.normal(size=(60, 40)), 2, axis=0)
    labels = np.repeat(rng.integers(4, size=60), 2)
    alone, together = (
        fit([features.astype(np.float32)], labels, sets).kernel.std()
        for sets in (np.arange(120), np.arange(120) // 2)
    )
    assert together < 0.5 * alone


@pytest.mark.parametrize(
    ("labels", "sets"),
    [
        ([0, 0, 1, 1], [0, 1, 2, 3]),
        ([0, 1, 2, 3], [0, 1, 2, 3]),  # none can be told from others
        ([0, 0, 1, 1], [0, 0, 0, 0]),  # none can be left out
        ([2, 2, 2, 2], [0, 1, 2, 3]),  # one class alone
    ],
)
def test_a_head_is_finite_where_there_is_little_to_fit(labels, sets):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(4, 40)).astype(np.float32)
    features[:, 5] = 1.0
    found = fit([features], np.array(labels), np.array(sets))
    for array in (found.kernel, found.bias, found.held_out):
        assert np.isfinite(array).all()
    assert np.isfinite(found.score(features, slice(0, 40))).all()


def test_a_head_that_is_never_wrong_is_not_certain():
    features, labels, sets = draw(spread=100)
    scores = fit(features, labels, sets).score(features[0], slice(0, 40))
    assert (scores.argmax(axis=1) == labels).all()
    assert find_probabilities(scores).max() < 0.9999


def test_a_class_that_counts_more_is_found_more_often():
    features, labels, sets = draw(200, spread=0.1)
    labels = np.where(labels == 0, 0, np.minimum(labels, 1))  # a quarter
    plain = fit(features, labels, sets, classes=2)
    weights = np.where(labels == 0, 3.0, 1.0)
    even = fit(features, labels, sets, weights, classes=2)
    rare = [(x.held_out.argmax(1) == 0).mean() for x in (plain, even)]
    assert rare[1] > rare[0] + 0.1


def test_sets_of_one_size_are_listed_together():
    sets = np.array([4, 4, 7, 9, 9, 1])
    parts = list_sets(sets, np.arange(6), most=4)
    assert sorted(map(np.shape, parts)) == [(2, 1), (2, 2)]
    assert sorted(np.concatenate([x.ravel() for x in parts])) == list(range(6))


def test_an_affine_head_is_read_back(tmp_path):
    rng = np.random.default_rng(0)
    mean, scale = rng.normal(size=5), rng.uniform(1, 2, 5)
    kernel, bias = rng.normal(size=(5, 3)), rng.normal(size=3)
    head = Affine.scale(mean, scale, kernel, bias)
    features = rng.normal(size=(4, 5))
    expected = (features - mean) / scale @ kernel + bias
    np.testing.assert_allclose(head.score(features), expected, atol=1e-5)
    head.write(tmp_path)
    again = Affine.read(tmp_path).score(features)
    np.testing.assert_allclose(again, head.score(features), atol=1e-5)


def test_heat_is_where_a_channel_of_the_class_is():
    activations = np.zeros((2, 2, 2, 3))
    activations[0, 0, 1, 2] = 4.0
    activations[0, 1, 1, 1] = 9.0  # speaks for the other class
    kernel = np.array([[0.0, 0.0], [-1.0, 2.0], [3.0, 0.0]])
    heat = draw_heat(activations, kernel, np.array([0, 1]))
    assert heat[0].tolist() == [[0, 1], [0, 0]]
    assert not heat[1].any()
