"""Which texts decide the number of clusters of a joint fit: new ones first, known ones where those tell none."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest

from reward_models import choose_joint, planted_judgements
from reward_models.fitting.joint import choice


RATERS = 40


def losses(gain: float, spread: float = 0.01) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two clusters gain so much on every judgement of every rater, give or take."""
    noise = np.random.default_rng(0).normal(scale=spread, size=RATERS)
    once = np.ones(RATERS)
    return np.column_stack([once, once - gain + noise]), once, once


@pytest.mark.parametrize(
    ("on_new", "on_known", "clusters", "words"),
    [
        (0.1, -0.1, 2, "lowest held-out loss"),  # what is known decides nothing where new texts do
        (0.0, 0.1, 2, "on known texts mixture of 2 .* On new texts: "),
        (-0.05, 0.1, 2, r"; it loses less there \(0\.0.* nats per judgement\) than it gains on known ones"),
        (-0.1, 0.05, 1, r"On new texts: .*; it would lose more there \(0\..*, so one reward for everybody is used"),
        (-0.1, -0.1, 1, "lowest held-out loss"),
    ],
)
def test_clusters_of_known_texts_stand_unless_they_cost_more_on_new_ones(
    monkeypatch, on_new, on_known, clusters, words
):
    scored = {"new texts": losses(on_new), "known texts": losses(on_known)}
    monkeypatch.setattr(choice, "_folds", lambda *_: [SimpleNamespace(losses=lambda candidates: scored)])
    planted = planted_judgements("rating", num_raters=RATERS, num_items=16)
    chosen = choose_joint(planted.judgements.encode(), planted.rewards, [("mixture", 2)])
    assert chosen.num_clusters == chosen.fit.num_clusters == clusters
    assert re.search(words, chosen.reason), chosen.reason
