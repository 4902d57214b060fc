"""Best-of-n: the closed form against enumeration, pairing by prompt, and matching clusters of two juries."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from reward_models.errors import JuryError
from reward_models.evaluation.candidates.best_of_n import best_of_n, expected_best
from reward_models.evaluation.candidates.pools import Pool, audience_weights, matched_clusters, pools_of
from reward_models.judgements.texts import Text
from reward_models.stats.means import UnitMean


@pytest.mark.parametrize("scores", [[3.0, 1.0, 2.0, 5.0, 4.0], [1.0, 1.0, 0.0, 2.0, 2.0], [0.0] * 5])
def test_the_closed_form_is_the_mean_over_all_subsets(scores):
    scores = np.array(scores)
    values = np.random.default_rng(0).normal(size=(5, 2))
    for n in range(1, 6):
        means = []
        for subset in combinations(range(5), n):
            at = np.array(subset)
            best = at[scores[at] == scores[at].max()]
            means.append(values[best].mean(0))
        assert np.allclose(expected_best(scores, values, [n])[0], np.mean(means, 0)), n


def test_a_pool_of_128_is_exact_and_a_smaller_one_has_no_number():
    scores = np.arange(128.0)
    curve = expected_best(scores, scores[:, None], [1, 128, 129])[:, 0]
    assert np.allclose(curve[:2], [63.5, 127.0])
    assert np.isnan(curve[2])


def pools(seed, prompts=12, candidates=30):
    rng = np.random.default_rng(seed)
    return [
        Pool(f"q{i}", [f"a{j}" for j in range(candidates)], rng.normal(size=(candidates, 2))) for i in range(prompts)
    ]


def test_noise_gains_nothing_and_the_judge_itself_gains_most():
    worth = pools(0)
    rng = np.random.default_rng(1)
    selections = {
        "noise": [rng.normal(size=30) for _ in worth],
        "itself": [pool.rewards for pool in worth],
    }
    curves = best_of_n(selections, worth, ["x", "y"], np.array([0.5, 0.5]), base="noise", counts=(1, 4, 16))
    assert np.allclose(curves.gains["itself"][:, 0], 0.0)  # the best of one is a random response
    assert curves.mean("noise", 16, "x").outcome == "undecided"
    assert curves.mean("itself", 16, "x").value == pytest.approx(1.70, abs=0.25)  # the largest of 16 normals: 1.77
    assert np.all(curves.regrets["itself"][:, 2] >= -1e-12)
    apart = curves.difference("itself", 16, "y")
    assert apart.outcome == "better"
    rows = {row["metric"]: row for row in curves.rows() if row["method"] == "itself"}
    for at, n in enumerate((1, 4, 16)):
        for column, name in enumerate(("x", "y", "mean")):
            gain, regret = (rows[f"best_of_{n}_{what}[{name}]"]["value"] for what in ("gain", "regret"))
            assert gain == pytest.approx(curves.gains["itself"][:, at, column].mean())
            assert regret == pytest.approx(curves.regrets["itself"][:, at, column].mean())
            assert gain != pytest.approx(regret)
    row = rows["best_of_16_gain[y]_vs_noise"]
    assert row["value"] == pytest.approx(apart.value)
    assert row["minimum_detectable"] == pytest.approx(apart.detectable)
    text = "\n".join(sheet.markdown() for sheet in curves.sheets())
    assert f"{apart.value:+.3f}" in text


def test_pairing_by_prompt_is_sharper_than_two_intervals():
    """Prompts differ far more in what there is to gain than two methods differ on one prompt."""
    rng = np.random.default_rng(3)
    worth = [Pool(p.prompt, p.responses, p.rewards * rng.uniform(0.1, 5)) for p in pools(2)]
    selections = {
        "good": [p.rewards[:, 0] for p in worth],
        "less good": [p.rewards[:, 0] + 0.5 * np.abs(p.rewards[:, 0]).mean() * rng.normal(size=30) for p in worth],
    }
    curves = best_of_n(selections, worth, ["x", "y"], np.array([1.0, 0.0]), base="less good", counts=(8,))
    apart, alone = curves.difference("good", 8, "x"), curves.mean("good", 8, "x")
    assert apart.outcome == "better"
    assert apart.high - apart.low < 0.5 * (alone.high - alone.low)


def test_clusters_are_matched_on_other_prompts():
    mine = pools(4)
    turned = [Pool(p.prompt, p.responses, p.rewards[:, ::-1] + 0.1) for p in mine]
    assert all(match.tolist() == [1, 0] for match in matched_clusters(mine, turned))
    # One prompt on which chance speaks for the other match: the rest decides.
    rest = [*turned[:-1], Pool(mine[-1].prompt, mine[-1].responses, mine[-1].rewards * 2)]
    assert matched_clusters(mine, rest)[-1].tolist() == [1, 0]
    other = [Pool(p.prompt, p.responses[::-1], p.rewards) for p in mine]
    with pytest.raises(JuryError, match="are not those that the other jury scored"):
        matched_clusters(mine, other)


def test_an_audience_that_the_jury_hardly_knows_gets_what_all_share():
    """A cluster whose own estimate is nearly noise is served better by weights than by its counterpart alone."""
    rng = np.random.default_rng(5)
    mine, its = [], []
    for i in range(12):
        common, apart, noise = rng.normal(size=(3, 60))
        names = [f"a{j}" for j in range(60)]
        mine.append(Pool(f"q{i}", names, np.stack([common + apart, common - 0.3 * apart + 2 * noise], axis=1)))
        its.append(Pool(f"q{i}", names, np.stack([common + apart, common - 0.3 * apart], axis=1)))
    weights = audience_weights(mine, its)
    assert all(0.5 < w[0, 0] <= 1.0 and np.allclose(w.sum(0), 1.0) and (w >= 0).all() for w in weights)
    selections = {
        "its counterpart": [pool.rewards for pool in mine],
        "weights": [pool.rewards @ w for pool, w in zip(mine, weights, strict=True)],
    }
    curves = best_of_n(selections, its, ["x", "y"], np.array([0.7, 0.3]), base="its counterpart", counts=(16,))
    assert curves.difference("weights", 16, "y").outcome == "better"


def test_faults_name_the_fix():
    with pytest.raises(JuryError, match="none of 1 prompts has 2 different responses"):
        pools_of([Text("q", "a")], np.zeros((1, 2)))
    worth = pools(0, prompts=1)
    with pytest.raises(JuryError, match=r"'nosie' is not among the methods \(noise\). Did you mean 'noise'"):
        best_of_n({"noise": [np.zeros(30)]}, worth, ["x", "y"], np.ones(2) / 2, base="nosie")
    with pytest.raises(JuryError, match="one score per candidate"):
        best_of_n({"noise": [np.zeros(3)]}, worth, ["x", "y"], np.ones(2) / 2, base="noise")
    with pytest.raises(JuryError, match=r"'noise' has scores for 2 of 1 prompts\. Fix: one for each"):
        best_of_n({"noise": [np.zeros(30)] * 2}, worth, ["x", "y"], np.ones(2) / 2, base="noise")
    with pytest.raises(JuryError, match=r"3 weights for 2 clusters\. Fix: one weight per cluster"):
        best_of_n({"noise": [np.zeros(30)]}, worth, ["x", "y"], np.ones(3) / 3, base="noise")
    with pytest.raises(JuryError, match=r"counts=\(31, 64\), but no prompt has more than 30 candidates"):
        best_of_n({"noise": [np.zeros(30)]}, worth, ["x", "y"], np.ones(2) / 2, base="noise", counts=(31, 64))


def test_the_interval_of_a_mean_covers_it():
    rng = np.random.default_rng(0)
    inside = [m.low <= 0 <= m.high for m in (UnitMean.of(rng.normal(size=6)) for _ in range(400))]
    assert 0.92 <= np.mean(inside) <= 0.98
    assert np.isnan(UnitMean.of([1.0]).low)
