"""Scoring answers with their prompt computed once equals scoring every pair alone, gradients included.

Every test runs on each way to do it: one packed row, several packed rows, and the repeated cache.
"""

from __future__ import annotations

import functools
import math

import pytest
import torch
from peft import LoraConfig, get_peft_model

from plural_rlhf.trainers import shared_prefix
from plural_rlhf.trainers.packing import build_tries
from plural_rlhf.trainers.shared_prefix import AnswerBatch, answer_log_probs, encode_answers, encode_prompt
from tests.tiny import tiny_causal_lm, tiny_tokenizer


PROMPTS = [
    "Yes?",
    [
        {"role": "system", "content": "Be honest."},
        {"role": "user", "content": "Is the United States spending too little?"},
    ],
    "Question: which of the options do you think is the best? Answer: ",
]
ANSWERS = [["yes", "no"], ["too little", "about right", "too much"], ["a", "good or bad, who knows", "", "b"]]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(params=["packed", "several rows", "cached"], autouse=True)
def way(request, monkeypatch):
    if request.param == "several rows":
        monkeypatch.setattr(shared_prefix, "build_tries", functools.partial(build_tries, max_nodes=60))
    if request.param == "cached":
        monkeypatch.setattr(shared_prefix, "supports_packing", lambda model, longest: False)
    return request.param


def build(wrapped: bool, tokenizer):
    model = tiny_causal_lm(tokenizer)
    if not wrapped:
        return model
    with torch.random.fork_rng():
        torch.manual_seed(1)
        peft = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    return peft


def encode(tokenizer, prompts=PROMPTS, answers=ANSWERS) -> AnswerBatch:
    return AnswerBatch.collate(
        [encode_prompt(prompt, tokenizer) for prompt in prompts],
        [encode_answers(row, tokenizer, tokenizer.eos_token_id) for row in answers],
        tokenizer.pad_token_id,
    )


def alone(model, tokenizer, prompt, answer: str) -> torch.Tensor:
    """Log-probability of one answer by one forward pass over prompt and answer, nothing padded."""
    head = encode_prompt(prompt, tokenizer)
    tail = [*tokenizer(answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    logits = model(input_ids=torch.tensor([head + tail])).logits[0, len(head) - 1 : -1]
    return logits.log_softmax(-1)[torch.arange(len(tail)), torch.tensor(tail)].sum()


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "peft"])
def test_log_probabilities_and_gradients_are_those_of_every_pair_alone(tokenizer, wrapped):
    model = build(wrapped, tokenizer)
    batch = encode(tokenizer)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id  # else padding by token id could not go wrong
    shared = answer_log_probs(model, batch)
    pairs = [(b, a) for b, row in enumerate(ANSWERS) for a in range(len(row))]
    single = torch.stack([alone(model, tokenizer, PROMPTS[b], ANSWERS[b][a]) for b, a in pairs])
    torch.testing.assert_close(torch.stack([shared[b, a] for b, a in pairs]), single, atol=1e-5, rtol=0)
    # A different coefficient for each pair, as a divergence would give: a plain sum could hide exchanged gradients.
    coefficient = torch.linspace(-1, 2, len(pairs))
    parameters = [p for p in model.parameters() if p.requires_grad]
    ours = torch.autograd.grad((torch.stack([shared[b, a] for b, a in pairs]) * coefficient).sum(), parameters)
    theirs = torch.autograd.grad((single * coefficient).sum(), parameters)
    for got, expected in zip(ours, theirs, strict=True):
        assert float((got - expected).norm()) <= 1e-4 * float(expected.norm())
        assert float(expected.norm()) > 0


def test_padding_of_the_set_has_no_probability_and_no_gradient(tokenizer):
    model = build(False, tokenizer)
    batch = encode(tokenizer)
    assert batch.support_mask.tolist() == [[True, True, False, False], [True, True, True, False], [True] * 4]
    log_probs = answer_log_probs(model, batch)
    assert torch.equal(log_probs == -math.inf, ~batch.support_mask)
    torch.where(batch.support_mask, log_probs, 0.0).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_neither_the_neighbours_nor_their_number_matter(tokenizer):
    model = build(False, tokenizer)
    together = answer_log_probs(model, encode(tokenizer))
    for b in range(len(PROMPTS)):
        by_itself = answer_log_probs(model, encode(tokenizer, PROMPTS[b : b + 1], ANSWERS[b : b + 1]))[0]
        torch.testing.assert_close(together[b, : len(by_itself)], by_itself, atol=1e-5, rtol=0)


def test_answers_of_one_token_need_no_second_pass(tokenizer):
    # The empty answer is the end token alone; together with a real one it must score the same.
    model = build(False, tokenizer)
    ended = answer_log_probs(model, encode(tokenizer, PROMPTS[:1], [["", ""]]))
    beside = answer_log_probs(model, encode(tokenizer, PROMPTS[:1], [["", "yes no"]]))
    torch.testing.assert_close(ended[0, 0], beside[0, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(ended[0, 0], alone(model, tokenizer, PROMPTS[0], ""), atol=1e-5, rtol=0)


def test_answers_exclude_each_other_because_they_end(tokenizer):
    # 'a' is the beginning of 'ab': without the end token their probabilities could sum to more than one.
    model = build(False, tokenizer)
    answers = encode_answers(["a", "ab"], tokenizer, tokenizer.eos_token_id)
    assert all(tokens[-1] == tokenizer.eos_token_id for tokens in answers)
    short, long = answer_log_probs(model, encode(tokenizer, ["?"], [["a", "ab"]]))[0].exp().tolist()
    head, first = encode_prompt("?", tokenizer), answers[0][0]
    with torch.no_grad():
        p_first = float(model(input_ids=torch.tensor([head])).logits[0, -1].softmax(-1)[first])
    assert short < p_first
    assert short + long < p_first + 1e-6


def test_prompts_are_tokenised_as_trl_does(tokenizer):
    rendered = tokenizer.apply_chat_template(PROMPTS[1], tokenize=False, add_generation_prompt=True)
    assert encode_prompt(PROMPTS[1], tokenizer) == tokenizer(rendered, add_special_tokens=False)["input_ids"]
    assert rendered.endswith("<|im_start|>assistant\n")
