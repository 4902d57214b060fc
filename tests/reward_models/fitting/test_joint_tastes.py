"""Tastes of a joint fit where there is nothing that people agree on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from reward_models import Judgements, fit_joint


@pytest.mark.parametrize("n_features", [0, 32])
def test_two_camps_that_agree_on_nothing_are_found(n_features):
    """Each question divides the raters in halves, so that the consensus is zero and its strength vanishes."""
    rows = [
        {"rater_id": f"u{u}", "item_id": f"q{q}", "prompt": f"Q{q}?", "options": ["yes", "no"], "choice": (u + q) % 2}
        for u in range(28)
        for q in range(3)
    ]
    enc = Judgements.from_frame(pd.DataFrame(rows)).encode()
    features = np.random.default_rng(0).normal(size=(6, n_features))
    fit = fit_joint(enc, features, "mixture", 2)
    membership = dict(zip(fit.rater_ids, fit.responsibilities[:, 0], strict=True))
    camps = [[membership[f"u{u}"] for u in range(28) if u % 2 == side] for side in (0, 1)]
    assert abs(np.mean(camps[0]) - np.mean(camps[1])) > 0.9
