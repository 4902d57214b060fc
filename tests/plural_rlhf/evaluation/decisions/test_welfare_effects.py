"""What rules pick and who gains: responses on which the rules must part, and intervals by a second method."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from plural_rlhf.evaluation.decisions.welfare_effects import verdict_lotteries, welfare_effects
from reward_models.errors import JuryError
from tests.paths import EXCERPTS


# The mean takes the first response, the worst-off cluster prefers the second.
CONFLICT = np.array([[4.0, -1.0], [0.5, 0.5], [0.0, 0.0]])
NAMES = ["many", "few"]
JURY = [0.6, 0.4]
MIN = "soft_minimum(temperature=0)"


def test_rules_part_and_the_clusters_gain_and_lose():
    report = welfare_effects(CONFLICT, np.zeros(3), JURY, ["mean", MIN], NAMES)
    mean, worst_off = report.effects  # the baseline is not listed twice
    assert (report.baseline, mean.rule, worst_off.rule) == ("mean", "mean", MIN)
    assert (mean.picks.tolist(), worst_off.picks.tolist()) == ([0], [1])
    assert (mean.agreement, worst_off.agreement) == (1, 0)
    assert [c.value for c in worst_off.change] == pytest.approx([-3.5, 1.5])
    assert [c.value for c in mean.change] == [0, 0]
    assert np.isnan(worst_off.change[0].low)  # one prompt, nobody resampled


def test_prompts_of_any_size_in_any_order_are_kept_apart():
    rng = np.random.default_rng(0)
    rewards, group = rng.normal(size=(40, 3)), np.repeat([7, 3, 5], [20, 4, 16])
    order = rng.permutation(40)
    jury = np.array([[1, 0, 0], [0, 1, 0], [0.2, 0.3, 0.5]])  # for the prompts 3, 5 and 7
    found = verdict_lotteries(rewards[order], group[order], jury, ["mean"])[0]
    for prompt, weights in zip([3, 5, 7], jury, strict=True):
        rows = np.flatnonzero(group[order] == prompt)
        assert found[rows].argmax() == (rewards[order][rows] @ weights).argmax()
        assert found[rows].sum() == 1


def test_a_random_verdict_is_counted_by_its_probabilities():
    report = welfare_effects(CONFLICT, np.zeros(3), JURY, ["random_dictator"], NAMES)
    assert report.effects[1].lottery == pytest.approx([0.6, 0.4, 0])
    assert report.effects[1].agreement == pytest.approx(0.6)
    assert [c.value for c in report.effects[1].change] == pytest.approx([-0.4 * 3.5, 0.4 * 1.5])


def test_the_interval_over_prompts_is_the_standard_error_of_the_paired_change():
    rng = np.random.default_rng(1)
    rewards, group = rng.normal(size=(400 * 3, 2)), np.repeat(np.arange(400), 3)
    effect = welfare_effects(rewards, group, JURY, [MIN], NAMES).effects[1]
    by_prompt = rewards.reshape(400, 3, 2)
    worst_off, mean = by_prompt.min(-1).argmax(1), (by_prompt @ JURY).argmax(1)
    every = np.arange(400)
    change = by_prompt[every, worst_off] - by_prompt[every, mean]
    half = 1.96 * change.std(axis=0) / 20
    for k in range(2):
        found = effect.change[k]
        assert found.value == pytest.approx(change[:, k].mean())
        assert (found.high - found.low) / 2 == pytest.approx(half[k], rel=0.15)
        assert (found.n_items, found.n_raters) == (400, 0)
    assert effect.agreement == pytest.approx((worst_off == mean).mean())


def test_one_conversation_gets_its_interval_from_raters():
    rng = np.random.default_rng(2)
    draws = CONFLICT + rng.normal(scale=0.1, size=(1000, 3, 2))
    effect = welfare_effects(CONFLICT, np.zeros(3), JURY, [MIN], NAMES, rewards_draws=draws, n_raters=50).effects[1]
    found = effect.change[0]
    assert found.value == pytest.approx(-3.5)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * 0.1 * np.sqrt(2), rel=0.15)
    assert (found.n_items, found.n_raters) == (1, 50)


def test_luck_in_the_rewards_picked_by_is_no_gain_in_others():
    """Rewards are noise, all responses worth the same: the cluster that the mean favours only seems to gain."""
    rng = np.random.default_rng(3)
    noise, group = rng.normal(size=(300 * 5, 2)), np.repeat(np.arange(300), 5)
    other_raters = rng.normal(size=noise.shape)
    seen, real = (
        welfare_effects(noise, group, [0.1, 0.9], ["mean"], NAMES, baseline=MIN, measured_by=truth)
        .effects[1]
        .change[1]
        for truth in (None, other_raters)
    )
    assert seen.low > 0.1
    assert real.low < 0 < real.high


def test_rules_disagree_on_a_real_conversation():
    """Whether Seattle should have paid 15 dollars an hour; the winners are counted here without the library."""
    votes = pd.read_parquet(EXCERPTS / "polis" / "votes.parquet")
    votes = votes[(votes["conversation"] == "15-per-hour-seattle") & votes["polis_group"].notna()]
    count = votes.groupby(["response_id", "polis_group"])["vote"].agg(
        yes=lambda v: (v == 1).sum() + 1, no=lambda v: (v == -1).sum() + 1, n="size"
    )
    count = count[count.groupby("response_id")["n"].transform("min") >= 20]
    odds = np.log(count["yes"] / count["no"]).unstack().dropna()
    sizes = votes.drop_duplicates("rater_id")["polis_group"].value_counts().sort_index().tolist()
    assert (len(odds), sizes) == (22, [99, 39])
    rules = ["mean", "min", "borda", "schulze"]
    report = welfare_effects(odds.to_numpy(), np.zeros(len(odds)), sizes, rules, NAMES)
    picks = {effect.rule: odds.index[effect.picks[0]] for effect in report.effects}
    assert picks["mean"] == (odds @ [99, 39]).idxmax()
    assert picks["schulze"] == odds[0].idxmax()  # the larger group decides every duel
    assert picks["min"] == odds.min(axis=1).idxmax()
    assert picks["min"] != picks["mean"]
    many, few = report.effects[1].change
    assert many.value < 0 < few.value


def test_rows_name_cluster_rule_and_numbers():
    rows = welfare_effects(CONFLICT, np.zeros(3), JURY, [MIN], NAMES).to_rows(case="x")
    (row,) = [r for r in rows if r["rule"] == MIN and r["cluster"] == "few"]
    expected = {"case": "x", "metric": "change", "value": 1.5, "ci_low": None, "ci_high": None, "n": 1, "n_raters": 0}
    assert {k: row[k] for k in expected} == expected
    assert len(rows) == 2 * 3


def test_what_does_not_fit_is_refused():
    with pytest.raises(JuryError, match="prompt 1 has one response, so there is no choice"):
        verdict_lotteries(CONFLICT, np.array([0, 0, 1]), JURY, ["mean"])
    with pytest.raises(JuryError, match=r"rewards \(3, 2\) and group \(2,\)"):
        verdict_lotteries(CONFLICT, np.array([0, 0]), JURY, ["mean"])
    with pytest.raises(JuryError, match="3 cluster names"):
        welfare_effects(CONFLICT, np.zeros(3), JURY, ["mean"], ["a", "b", "c"])
    with pytest.raises(JuryError, match=r"give \(B, U, K\)"):
        welfare_effects(CONFLICT, np.zeros(3), JURY, ["mean"], NAMES, rewards_draws=CONFLICT)
    with pytest.raises(JuryError, match="n_raters=4 without rewards_draws"):
        welfare_effects(np.eye(2), np.zeros(2), [0.5, 0.5], ["min"], ["a", "b"], n_raters=4)
    with pytest.raises(ValueError, match=r"draws=0: an interval needs resamples\. Fix"):
        welfare_effects(np.eye(2), np.zeros(2), [0.5, 0.5], ["min"], ["a", "b"], draws=0)
    with pytest.raises(JuryError, match="n_raters=0 with rewards_draws"):
        welfare_effects(CONFLICT, np.zeros(3), JURY, ["mean"], NAMES, rewards_draws=CONFLICT[None])
