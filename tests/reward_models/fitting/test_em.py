"""The EM loop: a planted minority is found from the default settings, whatever the seed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from reward_models.fitting import fit_mixture
from reward_models.fitting.em import FitConfig
from reward_models.judgements.records import Judgements


N_RATERS, MAJORITY = 400, 0.61
YES = np.array([[0.75] * 6, [0.3] * 6])  # P(yes) of the majority and of the minority, per item


@pytest.fixture(scope="module")
def planted():
    """400 raters, 61 % of one kind and 39 % of the other, who each answer six yes/no items; and who is which."""
    rng = np.random.default_rng(7)
    kind = (np.arange(N_RATERS) >= MAJORITY * N_RATERS).astype(int)
    yes = rng.random((N_RATERS, YES.shape[1])) < YES[kind]
    rows = [
        {
            "rater_id": f"r{r:03d}",
            "item_id": f"q{i}",
            "prompt": f"question {i}",
            "options": ["yes", "no"],
            "choice": 0 if yes[r, i] else 1,
        }
        for r in range(N_RATERS)
        for i in range(YES.shape[1])
    ]
    encoded = Judgements.from_frame(pd.DataFrame(rows), kind="choice").encode()
    return encoded, kind[[int(rater[1:]) for rater in encoded.rater_ids]], yes


@pytest.mark.parametrize("seed", range(4))
def test_a_planted_minority_is_found_with_the_default_settings(planted, seed):
    # At these distances a start at temperature 4 melts both clusters into one, and the likelihood is that of K=1.
    encoded, kind, yes = planted
    one, two = (fit_mixture(encoded, k, FitConfig(seed=seed)) for k in (1, 2))
    by_kind = (yes[:, None] * np.log(YES) + ~yes[:, None] * np.log(1 - YES)).sum(-1)
    truth = np.logaddexp(np.log(MAJORITY) + by_kind[:, 0], np.log(1 - MAJORITY) + by_kind[:, 1]).sum()
    share = yes.mean(axis=0)
    pooled = N_RATERS * (share * np.log(share) + (1 - share) * np.log(1 - share)).sum()
    assert one.log_likelihood == pytest.approx(pooled, abs=0.5)
    assert truth - pooled > 50  # there is something to find
    assert two.log_likelihood > truth - 1  # and it is found: the best fit is at least as likely as the truth
    assert two.prevalence[0] == pytest.approx(MAJORITY, abs=0.06)
    assert (two.responsibilities.argmax(axis=1) == kind).mean() > 0.8
