"""Raters with no labels: a random rater, or whoever gave a random judgement."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from reward_models.fitting.rater_fit import fit_raters
from reward_models.judgements.records import Judgements
from reward_models.raters.predictors import answer_log_lik


@pytest.fixture(scope="module")
def votes():
    """60 raters; a third of them judged everything and agrees with most, the others judged a quarter and do not."""
    rng = np.random.default_rng(0)
    rows = []
    for rater in range(60):
        busy = rater % 3 == 0
        for item in rng.permutation(40)[: 40 if busy else 10]:
            yes = (item % 4 != 0) if busy else (item % 4 == 0)
            rows.append((f"r{rater}", "The town", f"statement {item}", 1 if yes ^ (rng.random() < 0.1) else -1))
    frame = pd.DataFrame(rows, columns=["rater_id", "prompt", "response", "rating"])
    return Judgements.from_frame(frame, levels=(-1, 1))


def loss(fit, enc):
    return float(-answer_log_lik(fit.log_probs(enc), enc).mean())


def test_where_the_busy_are_unlike_the_others_strangers_are_predicted_by_judgements(votes):
    new = votes.frame["rater_id"].str[1:].astype(int).to_numpy() >= 40
    train, test = votes.select(~new).encode(), votes.select(new).encode()
    jury, one = fit_raters(train, "mixture", 2), fit_raters(train, "mixture", 1)
    weighted = replace(jury, placement=jury.placement.by_judgements(train))
    assert loss(weighted, test) < loss(jury, test) - 0.05
    assert loss(weighted, test) < loss(one, test) + 0.01
    share = jury.placement.memberships()
    heavy = np.bincount(train.rater, minlength=train.n_raters) > 20
    known = dict(zip(train.rater_ids, heavy, strict=True))
    busy_cluster = share[[known[r] for r in jury.placement.rater_ids]].mean(0).argmax()
    of_strangers = weighted.placement.select(["nobody"])[0].reshape(2, -1).sum(1)
    assert of_strangers[busy_cluster] == pytest.approx(2 / 3, abs=0.05)  # 800 of 1,200 judgements


def test_known_and_adapted_raters_are_predicted_as_before(votes):
    enc = votes.encode()
    jury = fit_raters(enc, "mixture", 2)
    weighted = replace(jury, placement=jury.placement.by_judgements(enc))
    assert (weighted.log_probs(enc) == jury.log_probs(enc)).all()
    assert (weighted.adapt(enc).log_probs(enc) == jury.adapt(enc).log_probs(enc)).all()
    nobody = enc.select(np.zeros(len(enc), bool))
    assert jury.placement.by_judgements(nobody).strangers is None


def test_strangers_are_predicted_by_judgements_where_several_kinds_were_fitted_too(votes):
    busy = votes.frame["rater_id"].str[1:].astype(int).to_numpy() % 3 == 0
    rows = [(r, "The town", "statement 1", "statement 0", "ab"[i % 3 == 0]) for i, r in enumerate(votes.raters)]
    columns = ["rater_id", "prompt", "response_a", "response_b", "choice"]
    tables = [votes.encode(), Judgements.from_frame(pd.DataFrame(rows, columns=columns)).encode()]
    jury = fit_raters(tables, "mixture", 2)
    weighted = jury.placement.by_judgements(tables)
    share = weighted.select(["nobody"])[0].reshape(2, -1).sum(1)
    assert share.max() == pytest.approx((busy.sum() + 20) / (len(votes) + 60), abs=0.05)
    for kind in ("rating", "preference"):
        of_kind = weighted.of_kind(kind).select(["nobody"])[0]
        np.testing.assert_allclose(of_kind.reshape(2, -1).sum(1), share, atol=1e-12)
