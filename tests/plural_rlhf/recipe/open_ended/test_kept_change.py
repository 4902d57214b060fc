"""The share of a sampled training that is kept: nearest to the target, from texts that two policies drew."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from plural_rlhf.recipe.checkpoints import TrainingFolder
from plural_rlhf.recipe.data import read_data
from plural_rlhf.recipe.open_ended import kept_change
from plural_rlhf.recipe.open_ended.kept_change import SHARES, divergences_on_the_line, keep_nearest
from plural_rlhf.recipe.open_ended.policies import train_pi_0, train_plural
from plural_rlhf.recipe.open_ended.prompts import OpenPrompt, run_prompts
from reward_models.trainer.kept_change import trained_weights


def softmax(logits):
    return np.exp(logits - np.logaddexp.reduce(logits))


class Alphabet(torch.nn.Module):
    """A policy over twelve texts of one token, the softmax of its only weights."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor(logits, dtype=torch.float64))


class Words:
    def batch_decode(self, tokens, **_):
        return [str(one[0]) for one in tokens]


class Likes:
    cluster_names, prevalence = ("a", "b"), np.array([0.75, 0.25])

    def __init__(self, rewards):
        self.rewards = rewards

    def cluster_rewards(self, prompts, completions):
        return torch.tensor(self.rewards[[int(of[0]["content"]) for of in completions]])


def log_probs_of(model, _tokenizer, _prompt, texts):
    return model.logits.log_softmax(0)[[one[0] for one in texts]].tolist()


def draw(model, tokenizer, prompt, number, _longest):
    tokens = torch.multinomial(model.logits.softmax(0), number, replacement=True)[:, None].tolist()
    return tokens, log_probs_of(model, tokenizer, prompt, tokens)


@pytest.fixture
def planted(monkeypatch):
    """Return the start, the direction to the target, and a function that keeps the best of a training so long."""
    monkeypatch.setattr(kept_change, "draw_texts", draw)
    monkeypatch.setattr(kept_change, "text_log_probs", log_probs_of)
    rng = np.random.default_rng(0)
    start, rewards = rng.normal(size=12), rng.normal(size=(12, 2))
    pi_0 = softmax(start)
    tilted = pi_0[:, None] * np.exp(rewards)
    target = (tilted / tilted.sum(axis=0)) @ Likes.prevalence
    direction = np.log(target) - np.log(pi_0)

    def keep(length, texts=4000):
        model = Alphabet(start)
        before = trained_weights(model)
        with torch.no_grad():
            model.logits += length * torch.tensor(direction)
        asked = [(OpenPrompt("Why?", "train"), [{"role": "user", "content": "Why?"}])]
        options = {"texts": texts, "max_new_tokens": 1, "beta": 1.0, "rho": 1.0, "seed": 0}
        return keep_nearest(model, Words(), before, asked, Likes(rewards), **options), model

    def divergence(share, length):
        pi = softmax(start + share * length * direction)
        return float((pi * np.log(pi / target)).sum())

    return start, direction, keep, divergence


@pytest.mark.parametrize(("length", "kept"), [(1.0, 1.0), (2.0, 0.5), (4.0, 0.25), (-1.0, 0.0), (40.0, 0.0)])
def test_what_is_kept_ends_nearest_to_the_target(planted, length, kept):
    start, direction, keep, divergence = planted
    change, model = keep(length)
    assert change.share == kept
    assert model.logits.tolist() == pytest.approx((start + kept * length * direction).tolist())
    for share in (0.0, kept, 1.0):
        assert change.divergences[share] == pytest.approx(divergence(share, length), abs=0.1 * max(1, abs(length)))
    assert change.drawn == 4000


def test_policies_of_which_the_texts_tell_nothing_are_not_chosen():
    log_probs = np.log([[0.98, 0.01, 0.01], [0.01, 0.01, 0.98], [0.01, 0.98, 0.01]])
    texts = np.repeat([0, 1, 2], [99, 99, 2])  # as the first and the last draw; the one between says the third
    values = divergences_on_the_line(log_probs[:, texts], np.zeros((200, 1)), weights=[1.0], beta=1.0)
    assert np.isnan(values).tolist() == [False, True, False]


def test_the_random_state_of_the_run_and_the_mode_of_the_model_stay(planted):
    _, _, keep, _ = planted
    torch.manual_seed(7)
    before = torch.get_rng_state()
    change, model = keep(2.0, texts=64)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert set(change.divergences) == set(SHARES)


@pytest.mark.parametrize("best", [0.0, 1.0])
def test_the_policy_that_is_saved_is_the_one_that_was_kept(config_of, tmp_path, monkeypatch, best):
    """None of the change is pi_0 to the last bit; all of it is another policy."""
    values = np.where(np.array(SHARES) == best, 0.0, 1.0)
    monkeypatch.setattr(kept_change, "divergences_on_the_line", lambda *_, **__: values)
    sampled = {"steps": 1, "num_generations": 4, "learning_rate": 0.1, "kept_samples": 2}
    config = config_of(plural={"sampled": sampled}, sft={"steps": 0})
    prompts, scorer = run_prompts(config, read_data(config)), Lengths()
    train_pi_0(config, prompts, {}, scorer, TrainingFolder(tmp_path / "warm", tmp_path / "checkpoints" / "warm"))
    said = []
    training = TrainingFolder(tmp_path / "plural", tmp_path / "checkpoints" / "plural", show=said.append)
    results = train_plural(config, prompts, scorer, tmp_path / "warm", training)
    assert results.budget.kept_share == best
    assert results.budget.kept_of == {f"{share:g}": float(share != best) for share in SHARES}
    assert said[-1].startswith(f"{best:g} of the change of weights is kept")
    before, after = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("warm", "plural"))
    assert all(torch.equal(before[name], after[name]) for name in before) == (best == 0.0)


class Lengths:
    """Two clusters, of which one likes long texts."""

    cluster_names, prevalence = ("long", "short"), np.array([0.75, 0.25])

    def cluster_rewards(self, prompts, completions):
        lengths = torch.tensor([float(len(of[0]["content"])) for of in completions])
        return torch.stack([lengths, -lengths], dim=1)
