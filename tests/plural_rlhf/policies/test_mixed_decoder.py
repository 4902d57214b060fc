"""Mixing experts while decoding: a mixture is one over whole answers, and what is reported of an answer is true."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from plural_rlhf.policies.answers import encode_prompt
from plural_rlhf.policies.mixed_decoder import MixedDecoder, mix_experts, posterior_step
from plural_rlhf.policies.steerer import Steerer
from reward_models.errors import JuryError
from tests.tiny import tiny_causal_lm, tiny_tokenizer


W = [0.6, 0.3, 0.1]
CONTEXTS = [
    [[{"role": "user", "content": f"{name}: which?"}] for name in ("Urban", "Rural people", "c")],
    ["yes?", "Is it good or is it bad?", "no"],
]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def decided(tokenizer, seed=0):
    """A tiny model with opinions: at its usual initialisation every next token is nearly as likely."""
    return tiny_causal_lm(tokenizer, seed=seed, initializer_range=0.3)


def score(model, tokenizer, context, answer):
    """log p(answer | context), by a plain forward pass over context and answer."""
    prompt = encode_prompt(context, tokenizer)
    with torch.no_grad():
        logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    return float(logits.double().log_softmax(-1)[range(len(answer)), answer].sum())


def log_mixture(scores):
    return np.logaddexp.reduce(np.log(W) + scores)


# ── the mathematics, by enumeration ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def tables():
    """Next-token log-probabilities (3 experts, 3 tokens) after every prefix of up to two tokens."""
    generator = torch.Generator().manual_seed(0)
    return {
        prefix: (2 * torch.randn(3, 3, generator=generator, dtype=torch.float64)).log_softmax(-1)
        for n in range(3)
        for prefix in itertools.product(range(3), repeat=n)
    }


def enumerate_answers(tables, mode, *, follow=True):
    """p(y) of all 27 answers under the mix; the posterior of the speaker is followed, or the weights are fixed."""
    found = {}
    for answer in itertools.product(range(3), repeat=3):
        log_weights, total = torch.tensor(W, dtype=torch.float64).log(), 0.0
        for t, token in enumerate(answer):
            log_p = tables[answer[:t]]
            total += mix_experts(log_p, log_weights, mode)[token].item()
            if follow:
                log_weights = posterior_step(log_weights, log_p[:, token])
        found[answer] = math.exp(total)
    return np.array(list(found.values()))


def answers_of_each_expert(tables):
    """(3, 27)"""
    return np.array(
        [
            [
                math.exp(sum(tables[a[:t]][k, a[t]].item() for t in range(3)))
                for a in itertools.product(range(3), repeat=3)
            ]
            for k in range(3)
        ]
    )


def test_following_the_speaker_gives_exactly_the_mixture_of_answers(tables):
    wanted = np.array(W) @ answers_of_each_expert(tables)
    np.testing.assert_allclose(enumerate_answers(tables, "mixture"), wanted, rtol=1e-12)
    naive = enumerate_answers(tables, "mixture", follow=False)
    assert naive.sum() == pytest.approx(1)
    assert np.abs(naive - wanted).sum() / 2 > 0.1  # total variation: the speaker changes inside an answer


def test_a_log_linear_mix_is_near_the_log_pool_of_answers_but_not_equal(tables):
    pool = np.exp(np.array(W) @ np.log(answers_of_each_expert(tables)))
    pool /= pool.sum()
    found = enumerate_answers(tables, "log_linear", follow=False)
    assert found.sum() == pytest.approx(1)
    mixture = np.array(W) @ answers_of_each_expert(tables)
    assert 0 < np.abs(found - pool).sum() / 2 < 0.5 * np.abs(mixture - pool).sum() / 2


def test_log_linear_by_hand():
    log_p = torch.tensor([[0.8, 0.2, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]).log()
    # sqrt(.8 · .5) : sqrt(.2 · .5) = 2 : 1; the third expert has no weight, so what it rules out stays possible.
    found = mix_experts(log_p, torch.tensor([0.5, 0.5, 0.0]).log(), "log_linear").exp()
    torch.testing.assert_close(found, torch.tensor([2 / 3, 1 / 3, 0.0]))
    vetoing = torch.tensor([[0.8, 0.2, 0.0], [0.0, 0.5, 0.5]]).log()
    alone = mix_experts(vetoing, torch.tensor([0.9, 0.1]).log(), "log_linear").exp()
    torch.testing.assert_close(alone, torch.tensor([0.0, 1.0, 0.0]))  # what either rules out is out


def test_equal_experts_are_left_as_they_are():
    log_p = torch.randn(5).log_softmax(-1).expand(3, 5)
    for mode in ("mixture", "log_linear"):
        torch.testing.assert_close(mix_experts(log_p, torch.tensor(W).log(), mode), log_p[0])


# ── the decoder, with language models ───────────────────────────────────────────────────────────────────────────────


def check_mixture(decoded, scores):
    """An answer's probability is Σ_k w_k p_k(y), and its posterior who said it."""
    assert decoded.log_prob == pytest.approx(log_mixture(scores), abs=1e-3)
    np.testing.assert_allclose(decoded.posterior, np.exp(np.log(W) + scores - log_mixture(scores)), atol=1e-3)


def test_one_model_under_several_prompts(tokenizer):
    model = decided(tokenizer)
    decoder = MixedDecoder(model, tokenizer)
    found = decoder.generate(
        CONTEXTS, W, num_return_sequences=3, max_new_tokens=6, generator=torch.Generator().manual_seed(0)
    )
    assert len(found) == 6
    assert len({tuple(d.token_ids) for d in found}) == 6
    for n, decoded in enumerate(found):
        scores = np.array([score(model, tokenizer, context, decoded.token_ids) for context in CONTEXTS[n // 3]])
        assert scores.std() > 0.1  # the experts disagree, so that the check says something
        check_mixture(decoded, scores)
        assert decoded.text == tokenizer.decode(decoded.token_ids, skip_special_tokens=True)
    again = decoder.generate(
        CONTEXTS, W, num_return_sequences=3, max_new_tokens=6, generator=torch.Generator().manual_seed(0)
    )
    assert [d.token_ids for d in again] == [d.token_ids for d in found]


def test_several_models(tokenizer):
    models = [decided(tokenizer, seed) for seed in range(3)]
    for n, decoded in enumerate(MixedDecoder(models, tokenizer).generate(CONTEXTS, W, max_new_tokens=6)):
        scores = [score(m, tokenizer, c, decoded.token_ids) for m, c in zip(models, CONTEXTS[n], strict=True)]
        check_mixture(decoded, np.array(scores))


def test_several_adapters_of_one_model(tokenizer):
    lora = LoraConfig(target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    torch.manual_seed(0)
    model = get_peft_model(decided(tokenizer), lora, adapter_name="urban")
    model.add_adapter("rural", lora)
    decoder = MixedDecoder(model, tokenizer, adapters=["urban", "rural", "__base__"])
    contexts = [["yes?"] * 3, ["Is it good or is it bad?"] * 3]  # one prompt: the adapters make the difference
    for n, decoded in enumerate(decoder.generate(contexts, W, num_return_sequences=2, max_new_tokens=5)):
        scores = []
        for name in ("urban", "rural"):
            model.set_adapter(name)
            scores.append(score(model, tokenizer, contexts[n // 2][0], decoded.token_ids))
        with model.disable_adapter():
            scores.append(score(model, tokenizer, contexts[n // 2][0], decoded.token_ids))
        check_mixture(decoded, np.array(scores))


def test_log_linear_is_normalised_at_every_token(tokenizer):
    model = decided(tokenizer)
    (decoded,) = MixedDecoder(model, tokenizer, "log_linear").generate(CONTEXTS[:1], W, max_new_tokens=4)
    total = 0.0
    for t, token in enumerate(decoded.token_ids):
        parts = []
        for context in CONTEXTS[0]:
            ids = encode_prompt(context, tokenizer) + decoded.token_ids[:t]
            with torch.no_grad():
                parts.append(model(torch.tensor([ids])).logits[0, -1].double().softmax(-1))
        product = torch.stack([p**w for p, w in zip(parts, W, strict=True)]).prod(dim=0)
        total += math.log(product[token] / product.sum())
    assert decoded.log_prob == pytest.approx(total, abs=1e-3)


def test_answers_are_drawn_as_often_as_they_are_likely(tokenizer):
    model = decided(tokenizer)
    first = [
        decoded.token_ids[0]
        for decoded in MixedDecoder(model, tokenizer).generate(
            CONTEXTS[1:], W, num_return_sequences=3000, max_new_tokens=1, generator=torch.Generator().manual_seed(1)
        )
    ]
    with torch.no_grad():
        ids = [torch.tensor([encode_prompt(context, tokenizer)]) for context in CONTEXTS[1]]
        p = sum(w * model(row).logits[0, -1].softmax(-1) for w, row in zip(W, ids, strict=True))
    for token in p.topk(8).indices.tolist():
        expected = p[token].item()
        assert Counter(first)[token] / 3000 == pytest.approx(expected, abs=4 * math.sqrt(expected / 3000))


def test_one_cluster_alone_is_that_cluster(tokenizer):
    steerer = Steerer(decided(tokenizer), tokenizer, ["urban", "rural"], [0.5, 0.5])
    decoder = MixedDecoder(steerer.model, tokenizer)
    for jury in ("urban", "rural"):
        for decoded in decoder.generate(
            [steerer.contexts("Which?")], steerer.weights(jury), num_return_sequences=4, max_new_tokens=4
        ):
            alone = score(steerer.model, tokenizer, steerer.render("Which?", jury), decoded.token_ids)
            assert decoded.log_prob == pytest.approx(alone, abs=1e-3)
            assert decoded.posterior.max() == 1


def test_an_answer_ends_at_its_end_token(tokenizer):
    model = decided(tokenizer)
    end = tokenizer.eos_token_id
    with torch.no_grad():  # about one token in three ends
        model.lm_head.weight.mul_(0.2)
        model.lm_head.weight[end] = 0
    model.lm_head.bias = torch.nn.Parameter(torch.zeros(len(tokenizer)))
    with torch.no_grad():
        model.lm_head.bias[end] = math.log(200)
    found = MixedDecoder(model, tokenizer).generate(
        CONTEXTS, [W, [0, 1, 0]], num_return_sequences=20, max_new_tokens=8, generator=torch.Generator().manual_seed(2)
    )
    lengths = {len(decoded.token_ids) for decoded in found}
    assert len(lengths) > 3
    for n, decoded in enumerate(found[:20]):
        assert end not in decoded.token_ids[:-1], n
        assert decoded.token_ids[-1] == end or len(decoded.token_ids) == 8
        # What is read on after the end, while others still speak, counts for nothing.
        check_mixture(decoded, np.array([score(model, tokenizer, c, decoded.token_ids) for c in CONTEXTS[0]]))
    for decoded in found[20:]:
        assert decoded.posterior.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("settings", "weights", "message"),
    [
        ({"mode": "linear"}, W, r"mode is 'linear'\. Did you mean 'log_linear'\?"),
        ({}, [0.5, 0.5], r"2 weights for 3 clusters \('expert 1', 'expert 2', 'expert 3'\)"),
        ({}, [W, W, W], r"3 weights for 2 questions"),
        ({}, [2, -1, 1], r"weights are \[2\.0, -1\.0, 1\.0\].*at least 0"),
        ({}, {"urban": 7}, r"\{'urban': 7\}, but the experts have no names: .*cluster_names="),
        ({}, "urban", r"'urban', but the experts have no names: .*cluster_names="),
        ({}, "prevalence", r"prevalence=steerer\.prevalence"),
        ({"cluster_names": ["urban", "rural", "coast"]}, {"urbn": 7}, r"'urbn'.*Did you mean 'urban'\?"),
        ({"cluster_names": ["a", "b"]}, W, r"\[3\] contexts per question, \[2\] cluster_names"),
        ({"cluster_names": ["a", "b", "c"], "prevalence": [0.5, 0.5]}, "prevalence", r"2 weights for 3 clusters"),
        ({"adapters": ["a"]}, W, r"\[3\] contexts per question, \[1\] adapters"),
    ],
)
def test_experts_that_do_not_fit_are_refused(tokenizer, settings, weights, message):
    with pytest.raises(JuryError, match=message):
        MixedDecoder(tiny_causal_lm(tokenizer), tokenizer, **settings).generate(CONTEXTS, weights)


@pytest.mark.parametrize(
    ("spec", "numbers"),
    [
        ("uniform", [1 / 3] * 3),
        ("prevalence", W),
        ("rural", [0, 1, 0]),
        ({"urban": 7, "coast": 5}, [7 / 12, 0, 5 / 12]),
        ([7, 0, 5], [7 / 12, 0, 5 / 12]),
        (["uniform", {"rural": 2}], [[1 / 3] * 3, [0, 1, 0]]),
    ],
)
def test_weights_are_said_as_everywhere(tokenizer, spec, numbers):
    decoder = MixedDecoder(
        decided(tokenizer), tokenizer, cluster_names=["urban", "rural", "coast"], prevalence=np.array(W)
    )
    drawn = [
        decoder.generate(CONTEXTS, weights, max_new_tokens=3, generator=torch.Generator().manual_seed(0))
        for weights in (spec, numbers)
    ]
    for said, counted in zip(*drawn, strict=True):
        assert said.log_prob == counted.log_prob
        np.testing.assert_array_equal(said.posterior, counted.posterior)


def test_adapters_name_their_experts_and_uniform_needs_no_names(tokenizer):
    model = tiny_causal_lm(tokenizer)
    first = MixedDecoder(model, tokenizer, adapters=["a", "b", "c"])._log_weights(CONTEXTS, {"b": 1, "c": 3}).exp()
    torch.testing.assert_close(first, torch.tensor([[0, 0.25, 0.75]] * 2))
    equal = MixedDecoder(model, tokenizer)._log_weights(CONTEXTS, "uniform").exp()
    torch.testing.assert_close(equal, torch.full((2, 3), 1 / 3))


def test_adapters_are_of_one_model(tokenizer):
    models = [tiny_causal_lm(tokenizer)] * 2
    with pytest.raises(JuryError, match=r"2 adapters for 2 models.*that one model"):
        MixedDecoder(models, tokenizer, adapters=["a", "b"])
    with pytest.raises(JuryError, match=r"\[3\] contexts per question, \[2\] models"):
        MixedDecoder(models, tokenizer).generate(CONTEXTS, W)
