"""Raters without labels, as a saved jury predicts them: a random rater, or whoever gave a random judgement."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest

from reward_models import FitConfig, Judgements, JuryError, JuryScorer, fit_jury, fit_vector_jury, planted_judgements
from reward_models.evaluation.saved_jury import SavedJury, score_texts
from reward_models.raters.predictors import answer_log_lik
from tests.tiny import tiny_causal_lm, tiny_tokenizer


WORDS = ("tea", "rain", "stone", "river", "glass", "lamp", "cloud", "bread", "paper", "salt")


def table(raters, rng) -> Judgements:
    """A third of the raters judge 40 statements and agree with most; the others judge ten and agree with few."""
    rows = []
    for rater in raters:
        busy = rater % 3 == 0
        for item in rng.permutation(40)[: 40 if busy else 10]:
            yes = (item % 4 != 0) if busy else (item % 4 == 0)
            text = f"{WORDS[item % 10]} and {WORDS[item // 10]}"
            rows.append((f"r{rater}", "The town", text, 1 if yes ^ (rng.random() < 0.1) else -1))
    frame = pd.DataFrame(rows, columns=["rater_id", "prompt", "response", "rating"])
    return Judgements.from_frame(frame, levels=(-1, 1))


@pytest.fixture(scope="module")
def tables():
    rng = np.random.default_rng(0)
    return table(range(30), rng), table(range(30, 60), rng)


@pytest.fixture(scope="module")
def juries(tables):
    tokenizer, config = tiny_tokenizer(), FitConfig(restarts=1)
    return {
        strangers: fit_jury(
            tables[0], tiny_causal_lm(tokenizer), tokenizer,
            clusters=2, strangers=strangers, config=config, progress=False,
        )
        for strangers in ("raters", "judgements")
    }  # fmt: skip


def loss(scorer, test, raters=None):
    enc = test.encode()
    return float(-answer_log_lik(scorer.log_probs(test, raters), enc).mean())


@pytest.mark.filterwarnings("ignore:the jury's heads are not on one scale")
def test_strangers_by_judgements_are_saved_and_predict_new_people_better(tables, juries, tmp_path):
    juries["judgements"].save_pretrained(tmp_path / "jury", save_raters=True)
    loaded = JuryScorer.from_pretrained(tmp_path / "jury")
    train, test = tables
    fit = juries["judgements"].fitted.fit
    assert loaded.log_probs(test) == pytest.approx(fit.log_probs(test.encode()), abs=1e-4)
    assert loss(loaded, test) < loss(juries["raters"], test) - 0.03
    # Whoever is not among the adapted or the stored raters is a stranger too; those who are, are predicted as before.
    for raters in (loaded.adapt(train), loaded.remembered(train.raters)):
        assert loaded.log_probs(test, raters) == pytest.approx(loaded.log_probs(test), abs=1e-6)
        before = juries["raters"].log_probs(train, juries["raters"].adapt(train))
        assert loaded.log_probs(train, raters) == pytest.approx(before, abs=1e-4)
        share = raters.weights("nobody")
        assert share.sum() == pytest.approx(1)
        assert share.max() == pytest.approx(2 / 3, abs=0.05)  # 400 of 600 judgements
    assert loaded.prevalence.max() == pytest.approx(2 / 3, abs=0.1)  # of the raters, and the other cluster
    assert loaded.prevalence.argmax() != share.argmax()


@pytest.mark.filterwarnings("ignore:the jury's heads are not on one scale")
def test_strangers_are_measured_as_they_are_predicted(tables, juries):
    scorer, (train, test) = juries["judgements"], tables
    texts = list(dict.fromkeys(text for part in tables for text in part.encode().texts))
    rewards, variance = score_texts(scorer, texts, progress=False), scorer.reward_variance(texts)
    jury = SavedJury.unadapted(scorer.state.rater_model, texts, rewards, variance, scorer.state.strangers)
    for of_raters in (jury, jury.adapt(train.encode())):
        assert of_raters.log_probs(test.encode()) == pytest.approx(scorer.log_probs(test), abs=1e-6)


def test_strangers_of_vectors_and_of_several_tables():
    planted = planted_judgements("rating", num_raters=20, num_items=10)
    jury = fit_vector_jury(planted.judgements, planted.rewards, clusters=2, strangers="judgements")
    posterior = jury.fit.placement.select(["nobody"])[0]
    assert posterior == pytest.approx(jury.fit.placement.posterior.mean(0))  # all judged the same number
    adapted = jury.adapt(planted.judgements)
    assert adapted.placement.select(["nobody"])[0] == pytest.approx(posterior)


def test_what_cannot_be_is_refused(juries):
    planted = planted_judgements("rating", num_raters=20, num_items=10)
    with pytest.raises(JuryError, match='strangers="raters" or strangers="judgements"'):
        fit_vector_jury(planted.judgements, planted.rewards, strangers="votes")
    shares = Judgements.from_dataset([{"prompt": "?", "options": ["a", "b"], "probs": [0.3, 0.7]}], kind="soft")
    with pytest.raises(JuryError, match="a `soft` table has no raters"):
        fit_vector_jury(shares, np.eye(2), strangers="judgements")
    scorer = juries["judgements"]
    for strangers, message in (
        (np.ones(3) / 3, "strangers have shape"),
        (np.full_like(scorer.state.strangers, 0.5), "no distribution"),
    ):
        state = replace(scorer.state, strangers=strangers)
        check = state.check_values if "distribution" in message else partial(state.check, scorer.model.config)
        with pytest.raises(JuryError, match=message):
            check()
