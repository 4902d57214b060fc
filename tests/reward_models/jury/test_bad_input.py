"""Tables and features as people have them, from which no jury, or a smaller one, can be fitted: what is said then."""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch

from reward_models import FitConfig, Judgements, JuryError, fit_jury, fit_raters, fit_vector_jury
from tests.tiny import tiny_causal_lm, tiny_tokenizer


WORDS = ("tea", "rain", "stone", "river", "glass", "lamp", "cloud", "bread", "paper", "salt", "wood", "wind")
TOKENIZER = tiny_tokenizer()


def votes(num_raters: int = 24, agree=lambda rater, item: rater % 2 == item % 2) -> pd.DataFrame:
    """Votes on twelve statements under one heading; odd raters want odd statements unless `agree` says otherwise."""
    rows = [
        (f"r{rater}", "The town", f"more {word}", 1 if agree(rater, item) else -1)
        for rater in range(num_raters)
        for item, word in enumerate(WORDS)
    ]
    return pd.DataFrame(rows, columns=["rater_id", "prompt", "response", "rating"])


def jury(frame: pd.DataFrame, backbone=None, **options):
    table = Judgements.from_frame(frame, levels=(-1, 1))
    options = {"config": FitConfig(restarts=1), "progress": False} | options
    return fit_jury(table, backbone or tiny_causal_lm(TOKENIZER), TOKENIZER, **options)


def vectors(frame: pd.DataFrame, width: int = 4):
    table = Judgements.from_frame(frame, levels=(-1, 1))
    return table, np.random.default_rng(0).normal(size=(table.encode().n_texts, width))


# ── features ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x[:-1], "shape \\(11, 4\\), but there are 12 unique texts"),
        (lambda x: np.where(np.arange(12)[:, None] == 3, np.nan, x), "1 of 12 rows .* the first that of Text"),
        (lambda x: np.where(np.arange(12)[:, None] == 3, None, x), "type object, not numbers"),
        (lambda x: np.where(x > 1, np.inf, x), "NaN or infinity"),
        (lambda x: x * 1e200, "as large as .*e\\+200"),
        (lambda x: None, "no vectors of the texts"),
        (lambda x: x[:, 0], "shape \\(12,\\)"),
    ],
)
def test_vectors_that_cannot_be_used_are_refused_and_the_text_is_named(spoil, message):
    table, rows = vectors(votes())
    with pytest.raises(JuryError, match=message):
        fit_vector_jury(table, spoil(rows))


def test_vectors_may_be_a_tensor_or_a_data_frame():
    table, rows = vectors(votes())
    juries = [fit_vector_jury(table, x, clusters=2) for x in (rows, torch.tensor(rows), pd.DataFrame(rows))]
    for other in juries[1:]:
        assert (other.fit.heads == juries[0].fit.heads).all()


def test_features_that_are_constant_are_said_and_ones_that_are_not_finite_refused():
    constant = tiny_causal_lm(TOKENIZER)
    broken = tiny_causal_lm(TOKENIZER)
    with torch.no_grad():
        for weight in constant.parameters():
            weight.zero_()
        broken.get_input_embeddings().weight.fill_(float("nan"))
    with pytest.warns(UserWarning, match="the features of all texts are equal"):
        scorer = jury(votes(), constant, clusters=2)
    new = scorer.cluster_rewards(["The town"] * 2, ["more snow", "less snow"])
    assert (new[0] == new[1]).all()  # nothing is known of new texts
    with pytest.raises(JuryError, match="12 of 12 rows of features hold NaN"):
        jury(votes(), broken)


# ── raters and answers ───────────────────────────────────────────────────────────────────────────────────────────────


def test_clusters_that_end_empty_are_said_aloud_and_those_with_raters_are_not():
    with pytest.warns(UserWarning, match="2 of 3 clusters end empty.*ask for at most 1"):
        jury(votes(agree=lambda rater, item: item % 3 > 0), clusters=3)  # everybody wants the same
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jury(votes(), clusters=2)


def test_raters_who_judged_one_thing_have_one_reward_and_the_reason_says_so():
    once = pd.concat([votes().iloc[[(13 * i) % 288]].assign(rater_id=f"s{i}") for i in range(60)])
    with pytest.warns(UserWarning, match="60 of 60 raters have one judgement"):
        scorer = jury(once)
    assert scorer.cluster_names == ["everyone"]
    assert "0 of 60 raters judged more than one thing" in scorer.fitted.selection.reason
    with (
        pytest.warns(UserWarning, match="one judgement"),
        pytest.raises(JuryError, match=r"every rater judged one thing only.*Fix: use num_clusters=1"),
    ):
        jury(once, clusters=2)


def test_a_rater_who_agrees_with_everything_is_lenient_and_changes_no_cluster():
    frame = votes()
    frame.loc[frame["rater_id"] == "r0", "rating"] = 1
    scorer = jury(frame, clusters=2)
    raters = scorer.adapt(Judgements.from_frame(frame, levels=(-1, 1)))
    row = dict(zip(raters.rater_ids, range(24), strict=True))
    assert raters.terms["intercept"].argmax() == row["r0"]
    camps = [{raters.memberships[row[f"r{rater}"]].argmax() for rater in range(1 + odd, 24, 2)} for odd in (0, 1)]
    assert camps in ([{0}, {1}], [{1}, {0}])


@pytest.mark.parametrize("answer", ["a", "tie"])
def test_pairs_that_all_have_one_answer_are_fitted_without_a_warning(answer):
    """Ties alone tell nothing of any reward: their spread stays as it was."""
    pairs = [(f"r{i}", "Which?", f"more {a}", f"more {b}", answer) for i in range(4) for a, b in pairwise(WORDS[:5])]
    table = Judgements.from_frame(
        pd.DataFrame(pairs, columns=["rater_id", "prompt", "response_a", "response_b", "choice"])
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = fit_raters(table.encode(), "mixture", 2, config=FitConfig(restarts=1))
    assert np.exp(fit.log_probs(table.encode())).sum(1) == pytest.approx(1.0)


def test_one_rater_of_many_texts_has_one_reward_and_more_clusters_are_refused():
    alone = votes(num_raters=1)
    with pytest.warns(UserWarning, match="12 of 12 items have one judgement"):
        scorer = jury(alone)
    assert scorer.cluster_names == ["everyone"]
    assert "1 rater" in scorer.fitted.selection.reason
    with (
        pytest.warns(UserWarning, match="one judgement"),
        pytest.raises(JuryError, match="num_clusters=2 is more than the 1 rater in the table"),
    ):
        jury(alone, clusters=2)


def test_a_question_with_one_answer_and_a_text_under_two_questions_are_fitted():
    frame = votes()
    under_both = frame[frame["response"].isin(["more tea", "more rain"])].assign(prompt="The village")
    alone = frame[frame["response"] == "more wind"].assign(prompt="The river")
    scorer = jury(pd.concat([frame, under_both, alone]), clusters=2)
    assert len(scorer.fitted.fit.texts) == 15
    steps = []
    scorer = jury(pd.concat([frame, under_both, alone]), clusters=2, read_prompt=False, on_step=steps.append)
    assert len(scorer.fitted.fit.texts) == 12
    assert "3 texts read the same as others, and share their reward" in steps
    rewards = scorer.cluster_rewards(["The town", "The village"], ["more tea"] * 2)
    assert (rewards[0] == rewards[1]).all()


def test_empty_texts_are_refused_with_their_rows():
    frame = votes()
    frame.loc[frame["response"] == "more tea", "response"] = " "
    with pytest.raises(ValueError, match=r"rows 0, 12, 24 and 21 more, column 'response': ' ' is empty text\. Fix"):
        jury(frame)
