"""Who prefers what: raters that a jury has stored, and those that it meets first in the pairs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from plural_rlhf.trainers.dpo.judged_pairs import adapted_raters
from reward_models import Judgements, fit_jury, planted_judgements
from reward_models.jury.state import StoredRaters
from tests.tiny import tiny_causal_lm, tiny_tokenizer


pytestmark = pytest.mark.filterwarnings("ignore")


def jury_of(kind):
    """A jury fitted to twelve raters of a kind of judgement, and what it has stored of them."""
    table = planted_judgements(kind, num_raters=12, num_items=8).judgements
    tokenizer = tiny_tokenizer()
    jury = fit_jury(table, tiny_causal_lm(tokenizer), tokenizer, clusters=2, progress=False)
    return jury, StoredRaters.of(jury.adapt(table).placement), table.raters


def pairs_of(*raters):
    rows = [(rater, "p", f"x{n}", f"y{n}", "a" if n % 2 else "b") for rater in raters for n in range(4)]
    names = ["rater_id", "prompt", "response_a", "response_b", "choice"]
    return Judgements.from_frame(pd.DataFrame(rows, columns=names))


@pytest.mark.parametrize("kind", ["preference", "rating"])
def test_stored_raters_keep_their_posterior_and_only_a_jury_of_pairs_learns_of_strangers(kind):
    jury, stored, raters = jury_of(kind)
    found = adapted_raters(jury, pairs_of(*raters[:3], "stranger"), stored)
    assert found.knows([*raters[:3], "stranger"]).tolist() == [True, True, True, kind == "preference"]
    model = jury.state.rater_model
    np.testing.assert_array_equal(
        found.placement(raters[:3], model).posterior, stored.placement(raters[:3], model).posterior
    )


def test_where_all_are_known_nobody_is_placed_again(monkeypatch):
    jury, stored, raters = jury_of("preference")
    monkeypatch.setattr(type(jury), "adapt", None)
    assert adapted_raters(jury, pairs_of(*raters[:3]), stored).knows(raters).sum() == 3
