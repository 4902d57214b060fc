"""What a saved jury may hold of its raters and of the uncertainty of rewards."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from reward_models import planted_judgements
from reward_models.errors import JuryError
from reward_models.fitting.mixture import fit_mixture
from reward_models.jury.state import RewardUncertainty, StoredRaters


NAN, INFINITE = float("nan"), float("inf")


@pytest.fixture(scope="module")
def stored():
    fit = fit_mixture(planted_judgements("preference", num_raters=10, num_items=8).judgements.encode(), 2)
    return StoredRaters.of(fit.placement), fit.model


def test_what_was_fitted_may_be_stored(stored):
    raters, model = stored
    raters.check_values(model)


@pytest.mark.parametrize(
    ("part", "damaged", "message"),
    [
        ("salt", lambda salt: 7, "the salt 7 is no text"),
        ("posterior", lambda table: table[:-1], r"have shape \(9, \d+\), not one row for each of 10 raters"),
        ("posterior", lambda table: table[:, :-1], r"not one row for each of 10 raters over \d+ states"),
        ("pseudonyms", lambda names: [*names[:-1], "bob"], "a pseudonym is no SHA-256"),
        ("posterior", lambda table: table - 2 * table[:, :1], "no distribution"),
        ("posterior", lambda table: table * 0, "no distribution"),
        ("posterior", lambda table: table * NAN, "no distribution"),
        ("posterior", lambda table: table * INFINITE, "no distribution"),
    ],
)
def test_damaged_raters_are_refused(stored, part, damaged, message):
    raters, model = stored
    raters = replace(raters, **{part: damaged(getattr(raters, part))})
    with pytest.raises(JuryError, match=message):
        raters.check_values(model)


def test_memberships_of_an_earlier_version_are_warned_of(stored):
    raters, model = stored
    with pytest.warns(UserWarning, match="do not sum to 1"):
        replace(raters, posterior=raters.posterior * 1.01).check_values(model)


def uncertainty(**damaged):
    parts = {"mixing": np.eye(2), "new_variance": np.ones(2), "features": np.ones(2), "residual": np.ones(2)}
    return RewardUncertainty(**parts | damaged)


@pytest.mark.parametrize("part", ["new_variance", "features", "residual"])
def test_damaged_uncertainties_are_refused(part):
    uncertainty(**{part: np.zeros(2)}).check_values()
    for value, message in ((NAN, "no finite number"), (INFINITE, "no finite number"), (-0.1, "variance is negative")):
        with pytest.raises(JuryError, match=message):
            uncertainty(**{part: np.array([1.0, value])}).check_values()
    with pytest.raises(JuryError, match=r"of (2|3) parts has a mixing of shape"):
        uncertainty(**{part: np.ones(3)}).check_values()


@pytest.mark.parametrize("mixing", [np.ones(2), np.ones((3, 2)), np.array([[1.0, NAN], [0.0, 1.0]])])
def test_a_mixing_of_another_size_or_without_numbers_is_refused(mixing):
    with pytest.raises(JuryError, match=r"has a mixing of shape|no finite number"):
        uncertainty(mixing=mixing).check_values()
