"""Baselines of an untrained language model: shared beginnings change nothing, and examples are the rater's own."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import norm

from reward_models.errors import JuryError
from reward_models.evaluation.controls import Strangers
from reward_models.evaluation.language_models import continuations
from reward_models.evaluation.language_models.continuations import Continuation, LanguageModel
from reward_models.evaluation.language_models.in_context import _calibrate, fit_in_context, in_words
from reward_models.evaluation.language_models.log_probability import response_log_probs
from reward_models.judgements.records import Judgements
from reward_models.judgements.texts import Text
from reward_models.sources.planted import planted_judgements
from tests.tiny import tiny_causal_lm, tiny_tokenizer


pytestmark = pytest.mark.filterwarnings("ignore::reward_models.errors.JudgementWarning")


@pytest.fixture(scope="module")
def lm():
    return LanguageModel(tiny_causal_lm(tiny_tokenizer(), seed=3), tiny_tokenizer(), batch_size=2)


def plainly(lm, beginning, given, scored):
    """Sum of log-probabilities from one forward pass over the whole text."""
    parts = [
        lm.tokenizer(part, add_special_tokens=False)["input_ids"] if part else []
        for part in (beginning, given, scored)
    ]
    start = parts[0] or [lm.tokenizer.bos_token_id]
    ids = torch.tensor([start + parts[1] + parts[2]])
    with torch.no_grad():
        log_probs = lm.model(ids).logits.float().log_softmax(-1)
    at = range(ids.shape[1] - len(parts[2]), ids.shape[1])
    return sum(float(log_probs[0, i - 1, ids[0, i]]) for i in at), len(parts[2])


def test_shared_beginnings_and_padding_change_nothing(lm):
    beginnings = ["Which of the options is the best?", "", "x"]
    continuations = [
        [Continuation("", " the city"), Continuation("Question: yes or no?\nAnswer:", " no"), Continuation("", " a")],
        [Continuation("", "the country and the city")],
        [Continuation("y", "z"), Continuation("", "the United States")],
    ]
    found = lm.score(beginnings, continuations)
    for beginning, wanted, scores in zip(beginnings, continuations, found, strict=True):
        for continuation, (total, tokens) in zip(wanted, scores, strict=True):
            expected, count = plainly(lm, beginning, continuation.given, continuation.scored)
            assert total == pytest.approx(expected, abs=2e-4)
            assert tokens == count


def test_what_is_kept_is_not_computed_again(lm, tmp_path, monkeypatch):
    keeping = LanguageModel(lm.model, lm.tokenizer, cache_dir=tmp_path)
    wanted = [[Continuation("", " the city"), Continuation("", " the country"), Continuation("", " the city")]]
    [first] = keeping.score(["Which?"], wanted)
    assert np.allclose(first, lm.score(["Which?"], wanted)[0], rtol=1e-3)
    monkeypatch.setattr(LanguageModel, "_score_group", None)  # would raise
    assert (keeping.score(["Which?"], wanted)[0] == first).all()


def test_log_probability_in_sum_and_per_token(lm):
    texts = [Text("Which?", "the city"), Text("Which?", "the city and the country"), Text("Who?", "people")]
    values = response_log_probs(lm, texts)
    assert np.allclose(values.mean(0), 0.0)
    assert np.allclose(values.std(0), 1.0)
    plain = [plainly(lm, f"{text.prompt}\n", "", text.response) for text in texts]
    assert values[:, 0].argsort().tolist() == np.argsort([total for total, _ in plain]).tolist()
    assert values[:, 1].argsort().tolist() == np.argsort([total / n for total, n in plain]).tolist()


class Copycat:
    """Answers what most examples answered: a model that learns from its context and knows nothing else."""

    def score(self, beginnings, continuations):
        out = []
        for beginning, wanted in zip(beginnings, continuations, strict=True):
            scores = [math.log(1 + beginning.count(f":{c.scored}\n")) for c in wanted]
            out.append(np.column_stack([scores, np.ones(len(scores))]))
        return out


def agreeable(n=40):
    """Half of the raters agree with nearly everything, half with nearly nothing."""
    planted = planted_judgements("rating", num_raters=n, num_items=16, seed=1)
    frame = planted.judgements.frame.copy()
    rng = np.random.default_rng(0)
    yes = frame["rater_id"].str[1:].astype(int) % 2 == 0
    frame["rating"] = np.where(yes ^ (rng.random(len(frame)) < 0.1), 1, -1)
    return type(planted.judgements).from_frame(frame, "rating", (-1, 0, 1))


def test_the_examples_are_the_raters_own_and_never_the_label_that_is_scored():
    table = agreeable()
    items = sorted(table.items)
    late = table.frame["item_id"].isin(items[8:]).to_numpy()
    fit = fit_in_context(table.select(~late).encode(), Copycat(), seed=0)
    test = table.select(late).encode()
    log_probs = fit.log_probs(test)
    loss = -np.take_along_axis(log_probs, test.label[:, None], axis=1).mean()
    assert fit.scale > 0
    assert loss < 0.55 < math.log(3)  # .1 of the answers are noise; the marginal would lose .69
    stranger = fit.adapt(test.select(np.zeros(len(test), bool))).log_probs(test)
    assert np.allclose(stranger, stranger[0])  # without examples everybody is predicted alike
    swapped = fit.adapt(table.select(~late).encode())
    assert np.allclose(swapped.log_probs(test), log_probs)


def test_a_model_that_knows_nothing_is_not_listened_to():
    """Preferences that have nothing to do with the answers get a scale near 0 and the frequencies remain."""

    class Noise:
        def score(self, beginnings, continuations):
            rng = np.random.default_rng(len(beginnings))
            return [np.column_stack([5 * rng.normal(size=len(w)), np.ones(len(w))]) for w in continuations]

    test = agreeable(120).encode()
    fit = fit_in_context(test, Noise())
    assert fit.scale < 0.1
    loss = -np.take_along_axis(fit.log_probs(test), test.label[:, None], axis=1).mean()
    assert loss < math.log(3)


@pytest.mark.parametrize("kind", ["preference", "choice"])
def test_every_kind_is_asked_in_words(lm, kind):
    table = planted_judgements(kind, num_raters=4, num_items=4).judgements.encode()
    question, answer = in_words(table)[0]
    assert "A. " in question
    assert answer in (" A", " B", " C", " both")
    log_probs = fit_in_context(table, lm, shots=2).log_probs(table)
    assert np.allclose(np.exp(log_probs).sum(1), 1.0)
    with pytest.raises(JuryError, match="cannot score 'rating' judgements"):
        fit_in_context(table, lm, shots=1).log_probs(planted_judgements("rating").judgements.encode())


def test_an_option_that_an_item_has_not_is_ruled_out(lm):
    rows = [(f"r{u}", f"q{i}", [f"{i}{a}" for a in "abc"[: 2 + i % 2]], i % 2) for u in range(3) for i in range(4)]
    frame = pd.DataFrame(rows, columns=["rater_id", "prompt", "options", "choice"])
    table = Judgements.from_frame(frame, kind="choice").encode()
    log_probs = fit_in_context(table, lm, shots=1).log_probs(table)
    assert (np.isneginf(log_probs) == (table.alternatives < 0)).all()
    assert np.isneginf(log_probs).any()
    assert np.allclose(np.exp(log_probs).sum(1), 1.0)


def test_a_folder_without_a_language_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(JuryError, match="no causal language model at"):
        LanguageModel.from_pretrained(tmp_path)


def choices(*options):
    """Three raters answer questions, each with as many options as is said."""
    rows = [(f"r{u}", f"q{n}", [f"{n}{a}" for a in "abcde"[:n]], u % 2) for u in range(3) for n in options]
    frame = pd.DataFrame(rows, columns=["rater_id", "prompt", "options", "choice"])
    return Judgements.from_frame(frame, kind="choice").encode()


def test_a_question_is_remembered_among_questions_with_more_options(lm):
    """Cases of an evaluation are asked one after the other, and of a stranger the beginning is always the same."""
    both = choices(2, 4)
    expected = Strangers(fit_in_context(both, lm, shots=1)).log_probs(both)
    asked_before = Strangers(fit_in_context(both, lm, shots=1))
    few = asked_before.log_probs(choices(2))
    again = asked_before.log_probs(both)
    np.testing.assert_allclose(again, expected)
    np.testing.assert_allclose(few, expected[::2, :2])
    np.testing.assert_array_equal(asked_before.log_probs(choices(2)), few)  # nothing is left to ask
    assert lm.score([], []) == []


def test_scale_and_levels_are_those_of_largest_posterior_density():
    """By another search, with standard normal priors written out; options that are not offered count for nothing."""
    enc = choices(2, 3, 4)
    rng = np.random.default_rng(0)
    preferences = 2 * rng.normal(size=(len(enc), 4)) + 3 * np.eye(4)[enc.label]
    offered = enc.alternatives >= 0

    def density(values):
        total = -norm.logpdf(values).sum()
        for row, there, label in zip(preferences, offered, enc.label, strict=True):
            logits = values[0] * (row[there] - row[there].mean()) + values[1:][there]
            total -= logits[label] - np.log(np.exp(logits).sum())
        return total

    found = minimize(density, np.full(5, 0.1), method="Nelder-Mead", options={"maxiter": 20_000, "xatol": 1e-6})
    scale, level = _calibrate(preferences, enc)
    assert scale == pytest.approx(found.x[0], abs=1e-3)
    np.testing.assert_allclose(level, found.x[1:], atol=2e-3)
    assert scale > 0.2
    against, _ = _calibrate(-preferences, enc)
    assert against == 0  # a model that prefers what is not chosen is not turned round


def test_what_is_asked_is_the_last_message_and_a_long_text_is_cut():
    long = "word " * 100
    talk = [{"role": "user", "content": "Hello"}, {"role": "user", "content": "Is  tea\nbetter?"}]
    frame = pd.DataFrame(
        [(f"r{u}", talk, long.strip(), f"short {u}", choice) for u, choice in enumerate(["a", "b", "tie"])],
        columns=["rater_id", "prompt", "response_a", "response_b", "choice"],
    )
    asked = in_words(Judgements.from_frame(frame).encode())
    for u, ((question, answer), letter) in enumerate(zip(asked, ("A", "B", "both"), strict=True)):
        first, a, b, last = question.split("\n")
        assert (first, b, last, answer) == ("Is tea better?", f"B. short {u}", "Answer:", f" {letter}")
        assert a == f"A. {long[:399]}…"


@pytest.mark.parametrize(
    ("levels", "words"),
    [([0, 1], " no, yes"), ([-1, 0, 1], " no, unsure, yes"), ([1, 2, 3, 4.5], " 1, 2, 3, 4.5")],
)
def test_levels_are_answered_in_words_or_numbers(levels, words):
    rows = [(f"r{u}", "p", f"s{u}", level) for u, level in enumerate(levels)]
    frame = pd.DataFrame(rows, columns=["rater_id", "prompt", "response", "rating"])
    table = Judgements.from_frame(frame, kind="rating", levels=levels).encode()
    assert [answer for _, answer in in_words(table)] == [f" {word}" for word in words.strip().split(", ")]


def test_a_judgement_that_was_cut_is_scored_as_far_as_it_was_read(lm, monkeypatch):
    """Of a beginning the end is read, and of a continuation the beginning."""
    beginning, scored = "Which of the options is the best?", " the city and the country and the people"
    tokens = [lm.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (beginning, scored)]
    monkeypatch.setattr(continuations, "MAX_BEGINNING", 3)
    monkeypatch.setattr(continuations, "MAX_CONTINUATION", 4)
    [[(total, n)]] = lm.score([beginning], [[Continuation("", scored)]])
    ids = torch.tensor([[*tokens[0][-3:], *tokens[1][:4]]])
    with torch.no_grad():
        log_probs = lm.model(ids).logits.float().log_softmax(-1)[0]
    assert n == 4 < len(tokens[1])
    assert total == pytest.approx(sum(float(log_probs[i - 1, ids[0, i]]) for i in range(3, 7)), abs=2e-4)
    [[(nothing, none)]] = lm.score([beginning], [[Continuation(scored, " city")]])
    assert (nothing, none) == (0.0, 0.0)  # what is only read fills the room
