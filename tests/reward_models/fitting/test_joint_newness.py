"""Which texts decide the number of clusters of a joint fit, and what clusters say of texts that nobody judged."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from reward_models import FitConfig, Judgements, choose_joint, planted_judgements
from reward_models.fitting.joint import choice
from reward_models.fitting.joint.fit import fit_joint
from reward_models.raters.predictors import answer_log_lik
from reward_models.seeds import seeded_rng
from tests.planted import ratings


RATERS, TEXTS = 40, 20
FREQUENCIES = 9.0, 1.0  # loss and weight: far worse than any fit


def losses(gain: float, two_texts: bool = False) -> tuple[np.ndarray, ...]:
    """Two clusters gain so much on a judgement of every rater; on all texts alike, or on one of two."""
    rng, once, of_text = np.random.default_rng(0), np.ones(RATERS), np.full(TEXTS, RATERS / TEXTS)
    by_rater = np.column_stack([once, once - gain + rng.normal(scale=0.01, size=RATERS)])
    gained = gain * RATERS * np.eye(TEXTS)[:2].T @ [3.0, -2.0] if two_texts else gain * of_text
    by_text = np.column_stack([of_text, of_text - gained + rng.normal(scale=0.001, size=TEXTS)])
    return by_rater, once, once, by_text, of_text


@pytest.mark.parametrize(
    ("on_new", "agreeing", "on_known", "clusters", "agree", "words"),
    [
        (0.1, 0.0, -0.1, 2, False, "lowest held-out loss"),  # what is known decides nothing where new texts do
        (-0.05, 0.0, 0.1, 2, True, "on known texts mixture of 2 .*; so the clusters agree there"),
        (0.0, -0.05, 0.1, 2, False, "on known texts mixture of 2 .* On new texts: .*"),
        (-0.1, -0.05, 0.1, 1, False, r"that costs 0\.0[45].*, against 0\..* gained on known texts, too much"),
        (-0.1, -0.02, 0.1, 1, False, r"costs 0\.0[12].*, too much"),  # more than a tenth of the gain
        (-0.1, -0.1, 0.05, 1, False, "so one reward for everybody is used"),
        (-0.1, -0.1, -0.1, 1, False, "lowest held-out loss"),
    ],
)
def test_clusters_of_known_texts_stand_if_they_cost_nothing_on_new_ones(
    monkeypatch, on_new, agreeing, on_known, clusters, agree, words
):
    scored = {choice.NEW: losses(on_new), choice.AGREEING: losses(agreeing), choice.KNOWN: losses(on_known)}
    monkeypatch.setattr(
        choice, "_folds", lambda *_: [SimpleNamespace(losses=lambda *_: scored, frequency_loss=lambda: FREQUENCIES)]
    )
    planted = planted_judgements("rating", num_raters=RATERS, num_items=16)
    chosen = choose_joint(planted.judgements.encode(), planted.rewards, [("mixture", 2)])
    assert (chosen.num_clusters, chosen.agreeing) == (clusters, agree)
    assert chosen.fit.num_clusters == clusters
    assert re.search(words, chosen.reason), chosen.reason


def test_a_gain_that_one_new_text_brings_and_another_takes_is_chance(monkeypatch):
    scored = {choice.NEW: losses(0.1, two_texts=True), choice.AGREEING: losses(0.0), choice.KNOWN: losses(-0.1)}
    monkeypatch.setattr(
        choice, "_folds", lambda *_: [SimpleNamespace(losses=lambda *_: scored, frequency_loss=lambda: FREQUENCIES)]
    )
    planted = planted_judgements("rating", num_raters=RATERS, num_items=16)
    chosen = choose_joint(planted.judgements.encode(), planted.rewards, [("mixture", 2)])
    assert chosen.num_clusters == 1
    assert "but the texts are 20 and its standard error over them is 0.3" in chosen.reason


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_tastes_that_features_do_not_tell_are_kept_on_known_texts_and_cost_nothing_on_new_ones(seed):
    rng = seeded_rng(seed, "test of tastes beyond features")
    x = rng.normal(size=(45, 30))
    consensus, taste = x[:, 0], 2.0 * rng.normal(size=45)
    side = np.where(np.arange(60) % 2 == 0, 1.0, -1.0)
    enc = ratings(consensus + side[:, None] * taste, share=0.5, seed=seed)
    known = enc.alternatives[:, 0] < 30
    train, test = enc.select(known), enc.select(~known)
    config = FitConfig(restarts=1)
    chosen = choose_joint(train, x, [("mixture", 2)], config=config)
    one, two = (fit_joint(train, x, "mixture", k, config=config) for k in (1, 2))
    assert (chosen.num_clusters, chosen.agreeing) == (2, True)
    np.testing.assert_allclose(chosen.fit.known_rewards, two.known_rewards)
    np.testing.assert_allclose(*chosen.fit.linear_rewards(x[30:]).T)
    loss = [-answer_log_lik(fit.log_probs(test, x), test).mean() for fit in (one, chosen.fit, two)]
    assert loss[1] < loss[0] + 0.02 < loss[2] - 0.02


def test_a_text_of_the_table_that_nobody_judged_is_a_new_one():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 3))
    enc = ratings(rng.normal(size=(10, 20)))
    fit = fit_joint(enc.select(enc.alternatives[:, 0] != 7), x, "mixture", 1)
    assert fit.texts == [text for i, text in enumerate(enc.texts) if i != 7]
    mean, variance = fit.rewards([enc.texts[7]], x[[7]])
    np.testing.assert_allclose(mean, fit.linear_rewards(x[[7]]))
    np.testing.assert_allclose(variance[0], fit.new_variance)


@pytest.mark.parametrize("seed", [1, 4, 5])
def test_clusters_that_only_doubt_more_than_one_reward_are_not_chosen_where_there_is_nothing_to_know(seed):
    rng = np.random.default_rng([seed, 17, 6])  # draws on which three clusters were chosen
    rows = [
        (f"r{rater}", "The town", f"text {text}", int(rng.choice([-1, 1]))) for rater in range(17) for text in range(6)
    ]
    frame = pd.DataFrame(rows, columns=["rater_id", "prompt", "response", "rating"])
    enc = Judgements.from_frame(frame, levels=(-1, 1)).encode()
    features = rng.normal(size=(6, 4))
    chosen = choose_joint(enc, features, [("mixture", k) for k in (1, 2, 3)], config=FitConfig(seed=seed))
    assert (chosen.membership, chosen.num_clusters) == ("mixture", 1)
    assert "the frequencies of the answers alone predict them as well" in chosen.reason
