"""Baselines of an untrained language model: shared beginnings change nothing, and examples are the rater's own."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

from reward_models.errors import JuryError
from reward_models.evaluation.language_models.continuations import Continuation, LanguageModel
from reward_models.evaluation.language_models.in_context import fit_in_context, in_words
from reward_models.evaluation.language_models.log_probability import response_log_probs
from reward_models.judgements.records import Judgements
from reward_models.judgements.texts import Text
from reward_models.sources.planted import planted_judgements
from tests.tiny import tiny_causal_lm, tiny_tokenizer


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
