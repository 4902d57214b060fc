"""Who the clusters are: the shares of traits are unbiased where memberships are uncertain."""

from __future__ import annotations

import numpy as np
import pytest

from reward_models import JudgementError, cluster_traits, fit_mixture, planted_judgements, shares_by


@pytest.fixture(scope="module")
def uncertain():
    """Twelve questions that tell two clusters apart only roughly; the trait says which cluster a rater is of."""
    planted = planted_judgements("choice", num_raters=1500, num_items=12, strength=0.35, seed=3)
    frame = planted.judgements.frame
    number = frame["rater_id"].str[1:].astype(int).to_numpy()
    frame["rater:region"] = np.where(planted.cluster[number] == 0, "north", "south")
    frame["rater:age"] = 20 + number % 50
    fit = fit_mixture(planted.judgements.encode(), 2)
    return planted, fit


def test_shares_of_traits_are_not_drawn_to_those_of_everybody(uncertain):
    planted, fit = uncertain
    q = fit.responsibilities
    assert 0.6 < q.max(axis=1).mean() < 0.9, "memberships are uncertain"
    north = np.array([planted.cluster[int(rater[1:])] == 0 for rater in fit.rater_ids])
    naive = (q * north[:, None]).sum(axis=0) / q.sum(axis=0)
    assert 0.2 < min(naive) < max(naive) < 0.85, "weighting by memberships alone mixes the clusters"
    rows = {row.value: row for row in cluster_traits(fit, planted.judgements) if row.trait == "region"}
    assert sorted(rows["north"].shares) == pytest.approx([0.0, 1.0], abs=0.12)
    assert rows["north"].shares + rows["south"].shares == pytest.approx([1.0, 1.0])
    assert rows["north"].n + rows["south"].n == 1500
    by = {row.value: row for row in shares_by(fit, planted.judgements, ["region"])}
    assert sorted(by["north"].shares) == pytest.approx([0.0, 1.0], abs=0.12)


def test_a_trait_that_has_nothing_to_do_with_the_clusters_has_the_same_shares_in_all(uncertain):
    planted, fit = uncertain
    rows = [row for row in cluster_traits(fit, planted.judgements) if row.trait == "age"]
    assert len(rows) == 6, "numbers are binned"
    inside = [row.low[k] <= row.overall <= row.high[k] for row in rows for k in range(2)]
    assert np.mean(inside) > 0.8


def test_weights_of_raters_count(uncertain):
    planted, fit = uncertain
    north = np.array([planted.cluster[int(rater[1:])] == 0 for rater in fit.rater_ids])
    rows = cluster_traits(fit, planted.judgements, rater_weight=np.where(north, 3.0, 1.0))
    [row] = [row for row in rows if row.value == "north"]
    assert row.overall == pytest.approx(3 * north.sum() / (3 * north.sum() + (~north).sum()))


def test_an_unknown_trait_is_named(uncertain):
    planted, fit = uncertain
    with pytest.raises(JudgementError, match=r"no trait 'regoin'. Did you mean 'region'"):
        shares_by(fit, planted.judgements, ["regoin"])
