"""What was fitted after the labels is fitted with them: the former names, and what they could do."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from reward_models import fit_features, fit_joint, fit_raters, fit_texts, fit_vector_jury, planted_judgements
from reward_models.errors import JuryError
from reward_models.fitting.em import FitConfig
from reward_models.fitting.mixture import fit_mixture
from reward_models.judgements.records import Judgements


def recurring_answers(n_raters=300, n_questions=12, seed=0, taste=0.4):
    """Choices whose three answers recur; (judgements, features and logits by (question, option))."""
    rng = np.random.default_rng(seed)
    shared = np.array([1.0, 0.3, -1.3])
    logits = shared + taste * rng.normal(size=(n_questions, 3))
    rows = []
    for u in range(n_raters):
        for i in range(n_questions):
            choice = int((logits[i] + rng.gumbel(size=3)).argmax())
            rows.append({"rater_id": f"r{u}", "item_id": f"q{i}", "prompt": f"q{i}", "choice": choice})
            rows[-1]["options"] = ["low", "mid", "high"]
    features = rng.normal(size=(n_questions, 1, 60)) + 0.5 * rng.normal(size=(n_questions, 3, 60))
    features[:, :, :30] += 2 * np.tile(np.eye(3), 10)  # a language model says plainly which answer a text ends in
    return Judgements.from_frame(pd.DataFrame(rows), kind="choice"), features, logits


@pytest.mark.slow
def test_they_are_names_of_the_joint_fit():
    planted = planted_judgements("rating")
    enc = planted.judgements.encode()
    config = FitConfig(nuisance=False, restarts=1)
    by_name = fit_features(enc, planted.rewards, 2, config=config)
    np.testing.assert_array_equal(by_name.heads, fit_joint(enc, planted.rewards, "mixture", 2, config=config).heads)
    for terms in (True, False):
        labels = fit_raters(enc, "factor", 1, config=FitConfig(nuisance=terms))
        jury = fit_texts(labels, enc, planted.rewards)
        assert jury.model.membership == "factor"
        assert bool(jury.model.term_sd) == terms
        assert not fit_texts(labels, enc, planted.rewards, config=config).model.term_sd


def test_points_are_no_linear_rewards():
    planted = planted_judgements("rating", num_raters=16, num_items=8)
    enc = planted.judgements.encode()
    points = fit_raters(enc, "simplex", 2, basis="ideal_point", config=FitConfig(restarts=1, max_iter=2))
    with pytest.raises(JuryError, match=r"basis='ideal_point': the jury has points.*Fix: fit it with basis='linear'"):
        fit_texts(points, enc, planted.rewards)


def test_known_questions_are_as_the_labels_say_and_new_ones_get_the_usual_answers():
    judgements, features, logits = recurring_answers(n_questions=20)
    asked = judgements.frame["item_id"].isin([f"q{i}" for i in range(12)])
    enc = Judgements.from_frame(judgements.frame[asked], kind="choice").encode()
    column = {"low": 0, "mid": 1, "high": 2}
    x = np.stack([features[int(t.prompt[1:]), column[t.response]] for t in enc.texts])
    order = np.argsort([3 * int(t.prompt[1:]) + column[t.response] for t in enc.texts])
    fit = fit_joint(enc, x, "mixture", 1)

    def answers(rewards):
        return softmax(rewards.reshape(-1, 3), axis=1)

    label_level = answers(fit_mixture(enc, 1).rewards[order, 0])
    known, _ = fit.rewards(enc.texts)
    assert np.abs(answers(known[order, 0]) - label_level).max() < 0.05
    truth = softmax(logits[12:], axis=1)

    def loss(predicted):
        return -(truth * np.log(predicted)).sum(1).mean()

    usual = loss(np.broadcast_to(label_level.mean(0), truth.shape))
    # Nearer to the usual answers than to all answers alike; a dozen questions cannot promise more.
    new = fit.linear_rewards(features[12:].reshape(-1, 60))
    assert loss(answers(new[:, 0])) < usual + 0.25 * (np.log(3) - usual)


def test_shares_of_answers_have_one_head():
    columns = {"prompt": list("qrs"), "options": [["x", "y"]] * 3, "probs": [[0.8, 0.2]] * 3, "n": [1000] * 3}
    jury = fit_vector_jury(Judgements.from_frame(pd.DataFrame(columns), kind="soft"), np.tile(np.eye(2), (3, 1)))
    known, _ = jury.fit.rewards(jury.fit.texts)
    assert known[0::2, 0] - known[1::2, 0] == pytest.approx(np.full(3, np.log(4)), abs=0.05)
