"""Statistics against published numbers, second methods and simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import adjusted_rand_score

from reward_models.stats.agreement import krippendorff_alpha
from reward_models.stats.answers import (
    adjusted_rand_index,
    answer_counts,
    coverage,
    entropy,
    entropy_gap,
    js_divergence,
    marginal,
    noise_floor_js,
    normalise,
    total_variation,
)
from reward_models.stats.two_way import two_way_bootstrap


# Krippendorff 2011, table C: four observers, twelve units, 0 = missing there.
TEXTBOOK = (
    np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
            [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
        ]
    )
    - 1
)


def test_js_divergence_golden():
    p, q = [0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]
    assert js_divergence(p, q, eps=0) == pytest.approx(0.106440, abs=5e-7)
    assert js_divergence(p, q) == pytest.approx(0.106440, abs=2e-6)
    assert js_divergence([1, 0], [0, 1], eps=0) == pytest.approx(np.log(2))
    assert js_divergence([1, 0], [0, 1], eps=1e-6) < np.log(2)


def test_js_divergence_equals_scipy_squared_and_broadcasts():
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(5), size=(3, 4)), rng.dirichlet(np.ones(5), size=4)
    expected = jensenshannon(p, np.broadcast_to(q, p.shape), axis=-1) ** 2
    np.testing.assert_allclose(js_divergence(p, q, eps=0), expected, atol=1e-12)


def test_a_question_that_nobody_answered_is_uniform():
    assert normalise(np.array([[0, 0, 0, 0], [1, 0, 0, 3]])).tolist() == [[0.25] * 4, [0.25, 0, 0, 0.75]]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=3, max_size=3), st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_js_divergence_is_symmetric_and_bounded(p, q):
    p, q = normalise(np.array(p)), normalise(np.array(q))
    value = js_divergence(p, q)
    assert 0 <= value <= np.log(2)
    assert value == pytest.approx(js_divergence(q, p), abs=1e-12)
    assert js_divergence(p, p) == pytest.approx(0, abs=1e-12)
    assert value <= total_variation(p, q) * np.log(2) + 1e-9  # Lin 1991


def test_entropy_gap_is_negative_for_a_collapsed_model():
    assert entropy([0.5, 0.25, 0.25, 0]) == pytest.approx(1.5 * np.log(2))
    assert entropy_gap([1, 0], [0.5, 0.5]) == pytest.approx(-np.log(2))


def test_small_definitions():
    assert total_variation([0.1, 0.9], [0.6, 0.4]) == pytest.approx(0.5)
    np.testing.assert_allclose(coverage([[0.2, 0.3], [0.1, 0.0]]), [0.5, 0.1])
    np.testing.assert_allclose(normalise([[1, 3], [0, 0]]), [[0.25, 0.75], [0.5, 0.5]])
    np.testing.assert_allclose(marginal([[1, 3], [5, 1]]), [0.6, 0.4])


def test_noise_floor_follows_the_chi_square_law():
    p = np.array([[0.2, 0.3, 0.5]] * 3)
    n = np.array([50, 500, 5000])
    floor = noise_floor_js(p, n, seed=0, draws=4000)
    np.testing.assert_allclose(floor, (3 - 1) / (8 * n), rtol=0.08)


def test_answer_counts_by_hand():
    answers = np.array([[0, 1], [1, -1], [1, 1]])
    assert answer_counts(answers, 2).tolist() == [[1, 2], [0, 2]]
    assert answer_counts(answers, 2, np.array([1, 0.5, 0])).tolist() == [[1, 0.5], [0, 1]]
    by_item = np.array([[1, 0], [1, 1], [0, 2]])
    assert answer_counts(answers, 2, by_item).tolist() == [[1, 1], [0, 2]]


def share_of_last(p):
    return p[:, -1]


def test_bootstrap_estimate_counts_raters_and_items():
    answers = np.array([[0, 1, -1], [1, 1, -1], [-1, -1, -1]])
    interval = two_way_bootstrap(share_of_last, answers, 2, draws=200)
    assert interval.value == pytest.approx(0.75)
    assert np.isnan(interval.low)  # two raters do not tell a spread
    assert (interval.n_raters, interval.n_items) == (2, 2)
    only_first = two_way_bootstrap(share_of_last, answers, 2, draws=50, rater_weights=np.array([1.0, 0, 1]))
    assert only_first.value == pytest.approx(0.5)
    assert only_first.n_raters == 1
    by_item = np.array([[1.0, 0, 1], [0, 1, 1], [1, 1, 1]])
    assert two_way_bootstrap(share_of_last, answers, 2, draws=50, rater_weights=by_item).value == pytest.approx(0.5)


def test_bootstrap_covers_the_truth_where_the_naive_interval_does_not():
    rng = np.random.default_rng(1)
    hits, naive_hits, runs = 0, 0, 150
    for run in range(runs):
        rater, item = rng.normal(0, 1, (30, 1)), rng.normal(0, 1, (1, 20))
        answers = (rater + item + rng.normal(0, 1, (30, 20)) > 0).astype(int)  # P(1) = ½ over raters and items
        interval = two_way_bootstrap(share_of_last, answers, 2, draws=150, seed=run)
        hits += interval.low <= 0.5 <= interval.high
        naive_hits += abs(answers.mean() - 0.5) < 1.96 * answers.std() / np.sqrt(answers.size)
    assert hits / runs > 0.9
    assert naive_hits / runs < 0.5


def test_bootstrap_of_a_divergence_is_centred_on_the_estimate():
    rng = np.random.default_rng(2)
    p = rng.dirichlet(np.ones(4) * 5, size=12)
    answers = np.stack([rng.choice(4, size=40, p=row) for row in p], axis=1)
    interval = two_way_bootstrap(lambda human: js_divergence(human, p), answers, 4, draws=400)
    assert interval.low < interval.value < interval.high
    clipped = two_way_bootstrap(
        lambda human: js_divergence(human, normalise(answer_counts(answers, 4))), answers, 4, clip=True
    )
    assert clipped.value == pytest.approx(0, abs=1e-9)
    assert clipped.low == 0


def test_bootstrap_refuses_what_it_cannot_resample():
    with pytest.raises(ValueError, match=r"answers has shape \(2, 2\) and 0 answers, so there is nothing to resample"):
        two_way_bootstrap(share_of_last, np.full((2, 2), -1), 2)
    with pytest.raises(ValueError, match=r"level=95 is not a probability .* Fix: e\.g\. level=0\.95"):
        two_way_bootstrap(share_of_last, np.zeros((2, 2), dtype=int), 2, level=95)


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.7434), ("ordinal", 0.8154), ("interval", 0.8491)])
def test_krippendorff_textbook(level, alpha):
    assert krippendorff_alpha(TEXTBOOK, level, missing=-1) == pytest.approx(alpha, abs=5e-5)
    gaps = np.where(TEXTBOOK < 0, np.nan, TEXTBOOK)
    assert krippendorff_alpha(gaps, level) == pytest.approx(alpha, abs=5e-5)
    # The unit and the origin of a scale of equal steps do not matter.
    assert krippendorff_alpha(gaps - 2, level) == pytest.approx(alpha, abs=5e-5)


def test_krippendorff_of_votes_counts_those_against():
    votes = np.array([[-1, -1, 1, 0, 1, -1], [-1, 1, 1, 0, -1, -1]])
    for level in ("nominal", "ordinal", "interval"):
        assert krippendorff_alpha(votes, level) == krippendorff_alpha(votes + 1, level)
    assert krippendorff_alpha(votes) != krippendorff_alpha(votes, missing=-1)


def test_krippendorff_extremes():
    agree = np.tile(np.arange(6), (3, 1))
    assert krippendorff_alpha(agree) == pytest.approx(1)
    noise = np.random.default_rng(0).integers(0, 3, (20, 500))
    assert krippendorff_alpha(noise) == pytest.approx(0, abs=0.01)
    assert np.isnan(krippendorff_alpha(np.zeros((3, 4), dtype=int)))
    with pytest.raises(ValueError, match="level='ratio' is not a level of measurement"):
        krippendorff_alpha(agree, "ratio")


def test_adjusted_rand_index_equals_sklearn():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.integers(0, 4, 30), rng.integers(0, 3, 30)
        assert adjusted_rand_index(a, b) == pytest.approx(adjusted_rand_score(a, b), abs=1e-12)
    assert adjusted_rand_index(a, (a + 1) % 4) == pytest.approx(1)
    assert adjusted_rand_index(np.zeros(5), np.zeros(5)) == 1
    assert adjusted_rand_index(np.arange(5), np.arange(5)) == 1
