"""Landscapes with a known shape: one answer for everybody, two modes, and favourites that differ by noise alone."""

from __future__ import annotations

import numpy as np
import pytest

from reward_models.errors import JuryError
from reward_models.evaluation.candidates.landscape import effective_responses, landscape, shared_words
from reward_models.evaluation.candidates.pools import Pool


EQUAL = np.array([0.5, 0.5])


def prompts(taste, count=10, candidates=40, seed=0):
    """Clusters share a consensus and differ by `taste` times a direction of their own."""
    rng = np.random.default_rng(seed)
    pools = []
    for i in range(count):
        common, apart = rng.normal(size=(2, candidates))
        rewards = np.stack([common + taste * apart, common - taste * apart], axis=1)
        pools.append(Pool(f"question {i}", [f"word{i}x{j}" for j in range(candidates)], rewards))
    return pools


def test_one_taste_has_one_answer_and_opposed_tastes_have_none():
    united, divided = (landscape(prompts(taste), EQUAL) for taste in (0.0, 5.0))
    assert all(p.one_answer() and p.differ == 0 for p in united.prompts)
    assert all(p.regrets.max() == 0 for p in united.prompts)
    assert sum(p.one_answer() for p in divided.prompts) == 0
    means = divided.means()
    assert means["favourites_differ"][0].value == 1.0
    assert 0.5 < means["favourites_differ"][0].low < 0.95  # some prompts that all differ do not say that others do
    assert means["compromise_worst_regret"][0].low > 1.0
    assert means["favourite_of_mean_worst_regret"][0].value >= means["compromise_worst_regret"][0].value


def test_the_compromise_has_the_smallest_worst_regret():
    for prompt in landscape(prompts(1.0), EQUAL).prompts:
        regret = prompt.pool.rewards.max(0) - prompt.pool.rewards
        assert prompt.regrets.max() == pytest.approx(min(row.max() for row in regret))
        assert prompt.regrets_of_mean.max() >= prompt.regrets.max()


def test_noise_alone_is_told_from_taste():
    """With one taste and rewards that are uncertain, favourites differ between draws, but not beyond noise."""
    pools, variance = prompts(0.0), [np.full((40, 2), 0.5)] * 10
    noisy = landscape(pools, EQUAL, variance=variance).means()
    assert noisy["favourites_differ"][0].value > 0.5
    beyond = noisy["favourites_differ_beyond_noise"][0]
    assert beyond.low <= 0 <= beyond.high
    assert landscape(prompts(5.0), EQUAL, variance=variance).means()["favourites_differ_beyond_noise"][0].low > 0


def test_the_same_answer_in_other_words_counts_once():
    alike = shared_words(["Plant more trees", "plant more trees!", "Build a road", ""])
    assert alike[0, 1] == 1.0
    assert alike[0, 2] == 0.0
    assert alike[3].tolist() == [0.0, 0.0, 0.0, 1.0]
    assert effective_responses(np.array([True, True, True, False]), alike) == pytest.approx(
        np.exp(np.log(3) - 2 / 3 * np.log(2))  # p = (2/3, 2/3, 1/3) of what is alike
    )
    pool = Pool("q", ["yes", "yes indeed", "no", "never"], np.array([[1.0, 0], [1.0, 0], [0, 1.0], [0, 1.0]]))
    [prompt] = landscape([pool], EQUAL).prompts
    assert prompt.near_best.tolist() == pytest.approx([np.exp(-np.log(0.75)), 2.0])


def test_a_response_as_far_behind_as_the_margin_is_near_the_best():
    pool = Pool("q", ["parks", "roads", "trams"], np.array([[1.0, 0.0], [0.5, 0.25], [0.0, 1.0]]))
    [prompt] = landscape([pool], EQUAL, margin=0.5).prompts
    assert prompt.near_best.tolist() == pytest.approx([2.0, 1.0])


def test_the_numbers_of_the_rows_are_those_of_the_page():
    found = landscape(prompts(1.0), EQUAL, names=["[city]", "country"])
    rows = {row["metric"]: row for row in found.rows()}
    page = "\n".join(s if isinstance(s, str) else s.markdown() for s in found.sheets())
    assert f"{rows['compromise_worst_regret']['value']:.2f} " in page
    assert rows["near_best_responses[country]"]["unit"] == "responses"
    assert "question" in page


def test_weights_of_another_length_are_refused():
    with pytest.raises(JuryError, match="2 clusters, weights of shape"):
        landscape(prompts(1.0, count=1), np.ones(3) / 3)


def test_texts_without_words_have_nothing_in_common():
    assert shared_words(["", "...", "trees"]).tolist() == np.eye(3).tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": ["one"]}, r"2 clusters, weights of shape \(2,\), 1 names\. Fix: one weight and one name"),
        (
            {"variance": [np.ones((40, 2)), np.ones((40, 1))]},
            r"variances are \(40, 1\) at prompt 1\. Fix: one for each",
        ),
        ({"variance": [np.ones((40, 2))]}, r"variances are 1 for 2 prompts\. Fix"),
        ({"variance": [np.ones((40, 2))] * 3}, r"variances are 3 for 2 prompts\. Fix"),
    ],
)
def test_names_and_variances_must_be_those_of_every_prompt(options, message):
    with pytest.raises(JuryError, match=message):
        landscape(prompts(1.0, count=2), EQUAL, **options)
