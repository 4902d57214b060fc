"""Distilling a steerable policy: who answers, what is imitated, and that the mixture comes out."""

from __future__ import annotations

import copy
import logging

import numpy as np
import pytest
import torch
from trl import SFTConfig

from plural_rlhf.policies.answers import AnswerBatch, answer_log_probs
from plural_rlhf.policies.steerer import Steerer
from plural_rlhf.trainers.distil import dictators, distil, distil_rows
from reward_models.errors import JuryError
from reward_models.stats.answers import js_divergence
from tests.juries import CPU
from tests.tiny import tiny_causal_lm, tiny_tokenizer


NAMES = ["urban", "rural", "coast"]
WEIGHTS = [0.8, 0.1, 0.1]
ANSWERS = ["1", "2", "3", "4"]
TASTES = torch.tensor([[0.97, 0.01, 0.01, 0.01], [0.01, 0.97, 0.01, 0.01], [0.01, 0.01, 0.97, 0.01]])
PROMPT = [{"role": "user", "content": "Which?"}]


@pytest.fixture(scope="module")
def steerer():
    """A policy that gives each cluster's answers under that cluster's prompt, trained by exact cross-entropy."""
    tokenizer = tiny_tokenizer()
    steerer = Steerer(tiny_causal_lm(tokenizer), tokenizer, NAMES, WEIGHTS, batch_size=1024)
    batch = AnswerBatch.encode(steerer.contexts(PROMPT), [ANSWERS] * 3, tokenizer)
    optimiser = torch.optim.Adam(steerer.model.parameters(), lr=5e-3)
    for _ in range(100):
        loss = -(TASTES * answer_log_probs(steerer.model, batch)).sum(-1).mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    found = np.stack(steerer.answer_probabilities(PROMPT, ANSWERS, NAMES))
    np.testing.assert_allclose(found, TASTES, atol=0.05)
    return steerer


def distance(model, tokenizer, target):
    """JS in nats under the plain prompt, all that is no answer counted as a fifth one."""
    plain = AnswerBatch.encode([PROMPT], [ANSWERS], tokenizer)
    with torch.no_grad():
        p = answer_log_probs(model, plain)[0].exp().double().numpy()
    return float(js_divergence(np.append(target, 1 - target.sum()), np.append(p, max(0.0, 1 - p.sum()))))


def test_each_cluster_answers_its_share():
    rng = np.random.default_rng(0)
    draws = np.stack([dictators([0.55, 0.3, 0.15], 10, rng) for _ in range(2000)])
    counts = np.stack([(draws == k).sum(axis=1) for k in range(3)], axis=1)
    assert set(counts[:, 0]) == {5, 6}  # 5.5 answers, rounded up or down
    assert set(counts[:, 1]) == {3}
    assert set(counts[:, 2]) == {1, 2}
    np.testing.assert_allclose(counts.mean(axis=0), [5.5, 3, 1.5], atol=0.05)
    assert (dictators([0.0, 1.0, 0.0], 7, rng) == 1).all()
    # One answer is the plain random dictator.
    single = np.array([dictators([0.6, 0.3, 0.1], 1, rng)[0] for _ in range(4000)])
    np.testing.assert_allclose(np.bincount(single) / 4000, [0.6, 0.3, 0.1], atol=0.03)


def test_rows_are_answers_of_single_clusters_to_the_plain_prompt(steerer):
    torch.manual_seed(0)
    rows = distil_rows(steerer, [PROMPT], n=200, max_new_tokens=4)
    assert len(rows) > 190
    for row in rows:
        assert row["prompt"] == PROMPT
        (message,) = row["completion"]
        assert message["role"] == "assistant"
        assert row["completion_ids"][-1] == steerer.tokenizer.eos_token_id
        assert steerer.tokenizer.decode(row["completion_ids"][:-1]) == message["content"]
    by_cluster = {name: [r["completion"][0]["content"] for r in rows if r["cluster"] == name] for name in NAMES}
    assert [round(len(by_cluster[name]) / len(rows), 1) for name in NAMES] == WEIGHTS
    assert by_cluster["urban"].count("1") > 0.8 * len(by_cluster["urban"])
    assert by_cluster["rural"].count("2") > 0.8 * len(by_cluster["rural"])
    plain = distil_rows(steerer, ["Which?"], n=4, max_new_tokens=40)
    assert all(isinstance(row["completion"], str) for row in plain)


@pytest.mark.slow
def test_the_distilled_policy_is_the_mixture_and_not_a_compromise(steerer, tmp_path):
    torch.manual_seed(0)
    student = copy.deepcopy(steerer.model)
    alone = np.stack(steerer.answer_probabilities(PROMPT, ANSWERS, NAMES))
    mixture = np.array(WEIGHTS) @ alone
    before = distance(student, steerer.tokenizer, mixture)
    rows = distil_rows(steerer, [PROMPT], n=1000, max_new_tokens=4)
    args = SFTConfig(
        tmp_path, max_steps=40, per_device_train_batch_size=50, learning_rate=5e-3, lr_scheduler_type="linear", **CPU
    )
    distil(student, steerer.tokenizer, rows, args)
    after = distance(student, steerer.tokenizer, mixture)
    assert after < 0.003 < 0.05 < before
    pool = np.exp(np.array(WEIGHTS) @ np.log(alone))  # what averaged rewards would aim at
    assert distance(student, steerer.tokenizer, pool / pool.sum()) > 0.02


def test_the_loss_is_on_the_answer_and_its_end_alone(steerer, tmp_path):
    rows = distil_rows(steerer, [PROMPT], n=4, max_new_tokens=4)
    args = SFTConfig(tmp_path, max_steps=1, per_device_train_batch_size=2, **CPU)
    trainer = distil(copy.deepcopy(steerer.model), steerer.tokenizer, rows, args)
    batch = next(iter(trainer.get_train_dataloader()))
    for labels in batch["labels"]:
        counted = labels[labels != -100].tolist()
        assert counted in rows["completion_ids"]
        assert counted[-1] == steerer.tokenizer.eos_token_id


def test_answers_without_an_end_are_left_out_loudly(steerer, caplog):
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=r"all 20 answers were cut off.*max_new_tokens"):
        distil_rows(steerer, [PROMPT], n=20, max_new_tokens=1)
    never = Steerer(tiny_causal_lm(steerer.tokenizer), steerer.tokenizer, NAMES, WEIGHTS)
    with caplog.at_level(logging.WARNING):
        rows = distil_rows(never, [PROMPT], n=40, max_new_tokens=60)
    assert 0 < len(rows) < 40
    assert f"{40 - len(rows)} of 40 answers were cut off" in caplog.text


def test_what_would_not_be_the_mixture_is_refused(steerer, tmp_path):
    rows = distil_rows(steerer, [PROMPT], n=4, max_new_tokens=4)
    with pytest.raises(ValueError, match=r"max_length is 8, but the longest row has \d+ tokens.*max_length=\d+"):
        distil(steerer.model, steerer.tokenizer, rows, SFTConfig(tmp_path, max_length=8, **CPU))
    with pytest.raises(ValueError, match=r"1 of 2 prompts are plain text.*write all as conversations"):
        distil_rows(steerer, [PROMPT, "Which?"])
    with pytest.raises(JuryError, match=r"'hills'.*'urban', 'rural', 'coast'"):
        distil_rows(steerer, [PROMPT], {"hills": 1})


def test_a_copy_of_a_trained_policy_answers_as_it_was_distilled(steerer, tmp_path):
    rows = distil_rows(steerer, [PROMPT], n=16, max_new_tokens=4)
    args = SFTConfig(tmp_path, max_steps=2, learning_rate=1e-2, per_device_train_batch_size=16, **CPU)
    # TRL has patched the forward of a model that it trained; a copy brings the patch along.
    trained = distil(copy.deepcopy(steerer.model), steerer.tokenizer, rows, args).model
    student = copy.deepcopy(trained)
    distil(student, steerer.tokenizer, rows, args)
    fresh = tiny_causal_lm(steerer.tokenizer)
    fresh.load_state_dict(student.state_dict())
    batch = AnswerBatch.encode([PROMPT], [ANSWERS], steerer.tokenizer)
    with torch.no_grad():
        torch.testing.assert_close(answer_log_probs(student, batch), answer_log_probs(fresh, batch))
        assert (answer_log_probs(student, batch) - answer_log_probs(trained, batch)).abs().max() > 0.01
