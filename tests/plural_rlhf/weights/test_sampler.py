"""The weightings of training: which are drawn, that they can be drawn again, and that prompts say exactly which."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from plural_rlhf.weights.sampler import WeightSampler
from plural_rlhf.weights.wording import POPULATION, describe_weights
from reward_models.errors import JuryError
from tests.tiny import tiny_causal_lm, tiny_tokenizer


NAMES = ["urban", "rural", "coast"]
PREVALENCE = [0.512, 0.288, 0.2]


def test_draws_are_in_the_shares_asked_for():
    sampler = WeightSampler(NAMES, PREVALENCE, vertex_share=0.3, prevalence_share=0.2)
    draws = sampler.draw(4000, step=0)
    assert draws.shape == (4000, 3)
    np.testing.assert_allclose(draws.sum(axis=1), 1)
    population = (draws == np.array(PREVALENCE)).all(axis=1)
    alone = draws.max(axis=1) == 1
    # 4 standard errors of a share of 4,000 draws are at most .032; a Dirichlet rounds to a corner in 1 of 7,000.
    assert population.mean() == pytest.approx(0.2, abs=0.03)
    assert alone.mean() == pytest.approx(0.3, abs=0.03)
    np.testing.assert_allclose(draws[alone].mean(axis=0), 1 / 3, atol=0.06)
    mixed = draws[~alone & ~population]
    np.testing.assert_allclose(mixed * 100, np.round(mixed * 100), atol=1e-9)
    # Dirichlet(1, 1, 1) has mean 1/3 and variance 1/18 in each coordinate.
    np.testing.assert_allclose(mixed.mean(axis=0), 1 / 3, atol=0.03)
    np.testing.assert_allclose(mixed.var(axis=0), 1 / 18, atol=0.01)


@pytest.mark.parametrize("rendering", ["text", "tokens"])
def test_a_resumed_or_divided_run_draws_the_same(rendering):
    def sampler(seed=0):
        return WeightSampler(NAMES, PREVALENCE, seed=seed, rendering=rendering)

    unbroken = sampler()
    steps = [unbroken.draw(8, step) for step in range(5)]
    np.testing.assert_array_equal(sampler().draw(8, 4), steps[4])  # nothing was drawn before in this process
    np.testing.assert_array_equal(sampler().draw(16, 4)[:8], steps[4])  # of a batch of 16, the first process' half
    assert not np.array_equal(steps[0], steps[1])
    assert not np.array_equal(sampler(seed=1).draw(8, 0), steps[0])


def test_concentration_moves_draws_to_the_corners_or_the_middle():
    spread = [
        WeightSampler(NAMES, PREVALENCE, c, vertex_share=0, prevalence_share=0).draw(500, 0).max(axis=1).mean()
        for c in (0.2, 1.0, 20.0)
    ]
    assert spread[0] > spread[1] > spread[2]


def test_the_words_are_those_of_describe_weights():
    sampler = WeightSampler(NAMES, PREVALENCE)
    user = {"role": "user", "content": "Which?"}
    for weights in sampler.draw(50, 0):
        words = describe_weights(weights, NAMES, PREVALENCE)
        assert sampler.render("Which?", weights) == f"{words}\nWhich?"
        assert sampler.render([user], weights) == [{"role": "system", "content": words}, user]
    assert sampler.render("Which?", PREVALENCE) == f"{POPULATION}\nWhich?"


def test_tokens_say_the_drawn_weights_exactly():
    sampler = WeightSampler(NAMES, PREVALENCE, rendering="tokens")
    for weights in sampler.draw(200, 3):
        said = sampler.describe(weights)
        if said == "<|population|>":
            np.testing.assert_array_equal(weights, PREVALENCE)
            continue
        read = [(name, float(percent) / 100) for name, percent in re.findall(r"<\|(\w+):(\d+)\|>", said)]
        assert [name for name, _ in read] == NAMES
        np.testing.assert_allclose([w for _, w in read], weights, atol=1e-12)


def test_tokens_of_other_weights_are_the_nearest_levels_that_sum_to_all():
    sampler = WeightSampler(NAMES, PREVALENCE, rendering="tokens")
    # In twentieths: 6.67, 6.67, 6.67; the two parts that are left go to the first two.
    assert sampler.describe([1 / 3, 1 / 3, 1 / 3]) == "<|urban:35|><|rural:35|><|coast:30|>"
    sixths = WeightSampler(NAMES, PREVALENCE, rendering="tokens", levels=7)
    assert sixths.describe([1 / 6, 1 / 2, 1 / 3]) == "<|urban:16.67|><|rural:50|><|coast:33.33|>"
    assert len(sixths.tokens()) == len(set(sixths.tokens())) == 3 * 7 + 1


@pytest.fixture
def prepared():
    sampler = WeightSampler(NAMES, PREVALENCE, rendering="tokens")
    tokenizer = tiny_tokenizer()
    model = tiny_causal_lm(tokenizer)
    before = copy.deepcopy(model)
    return sampler, model, tokenizer, before, sampler.prepare(model, tokenizer)


def test_every_weight_becomes_a_token_of_its_own(prepared):
    sampler, _, tokenizer, _, ids = prepared
    text = sampler.render("Which?", [0.6, 0.4, 0.0])
    encoded = tokenizer(text)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(encoded[:3]) == ["<|urban:60|>", "<|rural:40|>", "<|coast:0|>"]
    assert set(encoded[:3]) <= set(ids)
    assert encoded[3:] == tiny_tokenizer()("\nWhich?")["input_ids"]
    assert tokenizer.decode(encoded, skip_special_tokens=True) == "\nWhich?"


def test_near_levels_are_near_and_clusters_are_not(prepared):
    _, model, _, _, ids = prepared
    rows = model.get_input_embeddings().weight[torch.tensor(ids[:-1])].detach().reshape(3, 21, -1)
    steps = (rows[:, 1:] - rows[:, :-1]).norm(dim=-1)
    length = (rows[:, -1] - rows[:, 0]).norm(dim=-1)
    torch.testing.assert_close(steps, (length / 20)[:, None].expand(3, 20))  # equal steps on a straight line
    assert (rows[0] - rows[1]).norm(dim=-1).min() > steps.max()


def test_preparing_leaves_all_other_tokens_alone(prepared):
    _, model, tokenizer, before, ids = prepared
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer) == min(ids) + len(ids)
    prompt = torch.tensor([tiny_tokenizer()("Question: yes or no?")["input_ids"]])
    with torch.no_grad():
        now, then = model(prompt).logits, before(prompt).logits
    torch.testing.assert_close(now[..., : min(ids)], then)
    # A reserved token is said as seldom as an average one.
    torch.testing.assert_close(now[..., min(ids) :], then.mean(-1, keepdim=True).expand(-1, -1, len(ids)))


def test_preparing_twice_changes_nothing(prepared):
    sampler, model, tokenizer, _, ids = prepared
    with torch.no_grad():
        model.get_input_embeddings().weight[ids[0]] = 7.0  # as training would
    trained = copy.deepcopy(model.state_dict())
    assert sampler.prepare(model, tokenizer) == ids
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, trained[name], rtol=0, atol=0)


def test_a_saved_tokenizer_finds_its_rows_in_a_fresh_base_model(prepared, tmp_path):
    sampler, model, tokenizer, before, ids = prepared
    tokenizer.save_pretrained(tmp_path)
    loaded = type(tokenizer).from_pretrained(tmp_path)
    assert sampler.prepare(before, loaded) == ids
    torch.testing.assert_close(before.get_input_embeddings().weight, model.get_input_embeddings().weight)


def test_a_lora_trains_the_reserved_tokens_only_if_they_came_first(prepared):
    sampler, model, tokenizer, before, ids = prepared
    lora = LoraConfig(target_modules=["q_proj"], trainable_token_indices=ids, task_type="CAUSAL_LM")
    wrapped = get_peft_model(model, lora)
    assert sampler.prepare(wrapped, tokenizer) == ids
    wrapped(torch.tensor([ids[:2]])).logits.sum().backward()
    trained = [p.grad for name, p in wrapped.named_parameters() if "token" in name and p.grad is not None]
    assert any((grad[:2] != 0).any() for grad in trained)
    late = get_peft_model(before, LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    with pytest.raises(JuryError, match=r"wrapped by PEFT and lacks 64 of the reserved tokens.*prepare\(base_model"):
        sampler.prepare(late, tiny_tokenizer())


def test_words_need_nothing_of_the_model():
    tokenizer = tiny_tokenizer()
    model = tiny_causal_lm(tokenizer)
    n = len(tokenizer)
    assert WeightSampler(NAMES, PREVALENCE).prepare(model, tokenizer) == []
    assert len(tokenizer) == n == model.get_input_embeddings().weight.shape[0]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"vertex_share": 0.7, "prevalence_share": 0.4}, r"vertex_share is 0\.7 and prevalence_share 0\.4.*at most 1"),
        ({"vertex_share": -0.1}, r"vertex_share is -0\.1"),
        ({"concentration": 0.0}, r"concentration is 0\.0.*above 0"),
        ({"rendering": "token"}, r"rendering is 'token'\. Did you mean 'tokens'\?"),
        ({"levels": 1}, r"levels is 1.*at least two"),
        ({"prevalence": [0.5, 0.5]}, r"shape \(2,\), but there are 3 clusters"),
    ],
)
def test_what_cannot_be_drawn_is_refused(wrong, message):
    with pytest.raises(JuryError, match=message):
        WeightSampler(**{"cluster_names": NAMES, "prevalence": PREVALENCE, **wrong})
