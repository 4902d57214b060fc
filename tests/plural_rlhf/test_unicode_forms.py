"""é is é, whether one character or two: wherever a text meets another, they are compared in one Unicode form."""

from __future__ import annotations

import unicodedata

import numpy as np
import pandas as pd
import pytest
import torch

from plural_rlhf import JuryReward
from plural_rlhf.ranking.candidates import read_candidates
from plural_rlhf.rewards.completions import prompt_key
from reward_models import Judgements, fit_jury
from reward_models.judgements.texts import freeze_prompt
from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
from reward_models.raters.adaptation import rank_questions
from reward_models.raters.rater_model import KindTerms, RaterModel


QUESTIONS, OPTIONS = ("Ein Café für Zürich?", "Mehr Straßenbäume am Fluß in Genève?"), ("oui, très", "non, jamais né")


def apart(text: str) -> str:
    """The same text, accents as characters of their own."""
    assert unicodedata.is_normalized("NFC", text)
    assert unicodedata.normalize("NFD", text) != text
    return unicodedata.normalize("NFD", text)


@pytest.fixture(scope="module")
def scorer():
    rows = [(f"r{r}", q, list(OPTIONS), (r + n) % 2) for r in range(16) for n, q in enumerate(QUESTIONS)]
    table = Judgements.from_frame(pd.DataFrame(rows, columns=["rater_id", "prompt", "options", "choice"]))
    tokenizer = tiny_tokenizer()
    return fit_jury(table, tiny_causal_lm(tokenizer), tokenizer, clusters=2, progress=False)


def test_a_jury_remembers_a_text_in_both_forms(scorer):
    plain = scorer.cluster_rewards(QUESTIONS, OPTIONS)
    assert torch.equal(plain, scorer.cluster_rewards([*map(apart, QUESTIONS)], [*map(apart, OPTIONS)]))
    messages = [[{"role": "user", "content": apart(question)}] for question in QUESTIONS]
    answers = [[{"role": "assistant", "content": apart(option)}] for option in OPTIONS]
    assert torch.equal(plain, scorer.cluster_rewards(messages, answers))


def test_an_answer_is_in_its_support_in_both_forms(scorer):
    reward = JuryReward(scorer)
    offered = [list(OPTIONS)]
    for option in OPTIONS:
        inside = reward.cluster_rewards([QUESTIONS[0]], [option], offered)
        assert torch.equal(inside, reward.cluster_rewards([QUESTIONS[0]], [apart(option)], offered))
    assert (reward.cluster_rewards([QUESTIONS[0]], ["peut-être"], offered) < inside).all()


def test_offsets_and_calibration_know_a_prompt_in_both_forms():
    for question in QUESTIONS:
        assert prompt_key(question) == prompt_key(apart(question))
        assert freeze_prompt(question) == freeze_prompt(apart(question))
        messages = [[{"role": "user", "content": form}] for form in (question, apart(question))]
        assert prompt_key(messages[0]) == prompt_key(messages[1])
        assert freeze_prompt(messages[0]) == freeze_prompt(messages[1])


def test_a_question_that_was_answered_is_not_asked_again_in_the_other_form():
    prior = np.log([0.5, 0.5])
    model = RaterModel("mixture", np.eye(2), prior, {"choice": KindTerms({}, {})})
    answered = {frozenset({(QUESTIONS[0], OPTIONS[0]), (QUESTIONS[0], OPTIONS[1])})}
    pool = [(apart(QUESTIONS[0]), [*map(apart, OPTIONS)])]
    ranked = rank_questions(model, np.exp(prior), pool, "choice", lambda texts: np.zeros((len(texts), 2)), answered)
    assert ranked == []


def test_rows_of_one_prompt_are_one_prompt_in_both_forms(tmp_path):
    rows = [{"prompt": QUESTIONS[0], "response": "a"}, {"prompt": apart(QUESTIONS[0]), "response": "b"}]
    pd.DataFrame(rows).to_json(tmp_path / "c.jsonl", orient="records", lines=True)
    (candidates,) = read_candidates(tmp_path / "c.jsonl")
    assert candidates.responses == ["a", "b"]
