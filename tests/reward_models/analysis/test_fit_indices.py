"""Information criteria, intervals of the shares, and bivariate residuals, against numbers worked out otherwise."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from reward_models import (
    Judgements,
    JuryError,
    fit_indices,
    fit_mixture,
    fit_raters,
    local_dependence,
    planted_judgements,
    prevalence_intervals,
)
from reward_models.analysis.fit_indices import fits_by_size
from reward_models.analysis.naming import answer_shares


@pytest.fixture(scope="module")
def enc():
    return planted_judgements("choice", num_raters=300, num_items=8, seed=1).judgements.encode()


def test_one_cluster_has_the_bic_of_independent_answers(enc):
    """Independent answers: log-likelihood from the frequencies, two free answers for each of eight questions."""
    indices = fit_indices(fit_mixture(enc, 1), enc)
    counts = np.zeros((8, 3))
    np.add.at(counts, (enc.item, enc.label), 1)
    log_lik = (counts * np.log(counts / counts.sum(axis=1, keepdims=True))).sum()
    assert indices.n_parameters == 16
    assert indices.bic == pytest.approx(-2 * log_lik + 16 * np.log(300), abs=0.05)
    assert (indices.entropy, indices.misclassified) == (1.0, 0.0)


def test_bic_finds_the_planted_number_of_clusters(enc):
    bic = {indices.num_clusters: indices.bic for indices in fits_by_size(enc, (1, 2, 3))}
    assert min(bic, key=bic.get) == 2


def test_no_parameters_are_counted_where_priors_bind_them():
    ratings = planted_judgements("rating", num_raters=30, num_items=6).judgements.encode()
    assert fit_indices(fit_mixture(ratings, 2), ratings).bic is None
    with pytest.raises(JuryError, match="is a simplex"):
        fit_indices(fit_raters(ratings, "simplex", 2), ratings)


def test_intervals_of_the_shares_are_those_of_a_sample_of_known_clusters(enc):
    """Where memberships are certain, a share has the standard error of a binomial share."""
    intervals = prevalence_intervals(fit_mixture(enc, 2), enc, draws=200)
    assert intervals.refitted
    expected = 1.96 * np.sqrt(0.25 / 300)
    assert (intervals.high - intervals.low) / 2 == pytest.approx([expected, expected], rel=0.2)


def test_residuals_are_about_one_where_the_clusters_explain_the_answers_and_large_where_they_do_not(enc):
    right = [pair.residual for pair in local_dependence(fit_mixture(enc, 2), enc)]
    assert len(right) == 28
    assert 0.5 < np.mean(right) < 1.5
    wrong = local_dependence(fit_mixture(enc, 1), enc)
    assert np.mean([pair.residual for pair in wrong]) > 5
    # One cluster explains nothing: what it leaves is what independent answers leave, but for its weak prior.
    assert all(pair.unexplained == pytest.approx(pair.alone, abs=0.01) for pair in wrong)


@pytest.mark.parametrize("kind", ["rating", "preference"])
def test_residuals_of_other_kinds_take_rater_terms_into_account(kind):
    enc = planted_judgements(kind, num_raters=200, num_items=6, seed=2).judgements.encode()
    residuals = [pair.residual for pair in local_dependence(fit_mixture(enc, 2), enc)]
    assert len(residuals) == 15
    assert 0.3 < np.median(residuals) < 2.5


def test_sampling_weights_count_as_copies_of_raters_do_but_do_not_make_more_of_them(enc):
    """Every rater of one half twice is a weight of two, but for the effective number of people."""
    planted = planted_judgements("choice", num_raters=200, num_items=6, seed=4)
    frame = planted.judgements.frame
    double = frame["rater_id"].str[1:].astype(int) < 60
    weighted = Judgements.from_frame(frame.assign(rater_weight=np.where(double, 2.0, 1.0)), kind="choice").encode()
    copies = frame[double].assign(rater_id=frame["rater_id"] + "again")
    copied = Judgements.from_frame(pd.concat([frame, copies], ignore_index=True), kind="choice").encode()
    one, other = fit_mixture(weighted, 2), fit_mixture(copied, 2)
    assert one.prevalence == pytest.approx(other.prevalence, abs=2e-3)
    assert fit_indices(one, weighted).entropy == pytest.approx(fit_indices(other, copied).entropy, abs=5e-3)
    for shares, expected in zip(answer_shares(one, weighted), answer_shares(other, copied), strict=True):
        assert shares == pytest.approx(expected, abs=5e-3)
    pair, same = ({(p.first, p.second): p for p in local_dependence(*of)} for of in ((one, weighted), (other, copied)))
    for names, residual in pair.items():
        assert residual.unexplained == pytest.approx(same[names].unexplained, abs=5e-3)
        assert residual.n < same[names].n
