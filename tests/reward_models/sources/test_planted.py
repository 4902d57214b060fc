"""Planted judgements hold what they say: the clusters and rewards that a fit can find again."""

from __future__ import annotations

import numpy as np
import pytest

from reward_models import JudgementError, fit_mixture, planted_judgements


@pytest.mark.parametrize("kind", ["preference", "rating", "choice"])
def test_a_fit_finds_the_planted_clusters(kind):
    planted = planted_judgements(kind, num_raters=60, num_items=30, seed=3)
    enc = planted.judgements.encode()
    fit = fit_mixture(enc, 2)
    found = fit.placement.memberships().argmax(1)
    own = planted.cluster[[int(rater[1:]) for rater in fit.placement.rater_ids]]
    assert max((found == own).mean(), (found != own).mean()) > 0.95


def test_texts_and_rewards_have_one_order():
    planted = planted_judgements("choice", num_raters=2000, num_items=2, num_clusters=1, seed=1)
    enc = planted.judgements.encode()
    share = np.bincount(enc.label[enc.item == 0], minlength=3) / 2000
    own = planted.rewards[[planted.texts.index(enc.texts[t]) for t in enc.item_alternatives[0]], 0]
    assert share == pytest.approx(np.exp(own) / np.exp(own).sum(), abs=0.04)


def test_an_unknown_kind_is_named():
    with pytest.raises(JudgementError, match="Did you mean 'choice'"):
        planted_judgements("choices")
