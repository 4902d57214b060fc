"""What each pseudo-model answers, by hand, and which request it cannot answer."""

from __future__ import annotations

import numpy as np
import pytest

from plural_rlhf.suites.models.protocol import NotSupported, OptionRequest
from plural_rlhf.suites.models.pseudo import PSEUDO_MODELS, PseudoModel


PEOPLE, MARGINAL = np.array([1.0, 6.0, 1.0]), np.array([2.0, 1.0, 1.0])
ANSWERS = {
    "gold": [0.125, 0.75, 0.125],
    "uniform": [1 / 3, 1 / 3, 1 / 3],
    "marginal": [0.5, 0.25, 0.25],
    "mode": [0.0, 1.0, 0.0],
}
NEEDS = {"gold": "people", "mode": "people", "marginal": "marginal"}


def request(**known) -> OptionRequest:
    return OptionRequest("Parks?", ("more", "as now", "fewer"), **known)


@pytest.mark.parametrize("name", PSEUDO_MODELS)
def test_a_pseudo_model_answers_by_what_is_known_of_the_people(name):
    model = PseudoModel(name)
    [whole] = model.option_log_probs([request(people=PEOPLE, marginal=MARGINAL)])
    np.testing.assert_allclose(np.exp(whole), ANSWERS[name], atol=1e-6)
    needed = NEEDS.get(name)
    only = {"people": PEOPLE, "marginal": MARGINAL}
    if needed is not None:
        [alone] = model.option_log_probs([request(**{needed: only.pop(needed)})])
        np.testing.assert_array_equal(alone, whole)
        with pytest.raises(NotSupported, match=r"this task (knows no shares of people|has no marginal)"):
            model.option_log_probs([request(**only)])
