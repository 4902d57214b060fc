"""Scoring answers with their prompt computed once equals scoring every pair alone, gradients included.

Every test of answers runs on each way to do it: one packed row, several packed rows, and the repeated cache.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from plural_rlhf.policies import log_probs as scoring
from plural_rlhf.policies.answers import AnswerBatch, answer_log_probs, encode_answers, encode_prompt
from plural_rlhf.policies.packing import IGNORED, pack, stack
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


@pytest.fixture(params=["packed", "several rows", "cached"])
def way(request, monkeypatch):
    monkeypatch.setattr(scoring, "_cheapest_way", lambda *a: "cached" if request.param == "cached" else "packed")
    if request.param == "several rows":
        monkeypatch.setattr(scoring, "pack", functools.partial(pack, max_places=60))
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
@pytest.mark.usefixtures("way")
def test_log_probabilities_and_gradients_are_those_of_every_pair_alone(tokenizer, wrapped):
    model = build(wrapped, tokenizer)
    batch = encode(tokenizer)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id  # else padding by token id could not go wrong
    shared = answer_log_probs(model, batch)
    pairs = [(b, a) for b, row in enumerate(ANSWERS) for a in range(len(row))]
    single = torch.stack([alone(model, tokenizer, PROMPTS[b], ANSWERS[b][a]) for b, a in pairs])
    torch.testing.assert_close(torch.stack([shared[b, a] for b, a in pairs]), single, atol=1e-5, rtol=1e-6)
    # A different coefficient for each pair, as a divergence would give: a plain sum could hide exchanged gradients.
    coefficient = torch.linspace(-1, 2, len(pairs))
    parameters = [p for p in model.parameters() if p.requires_grad]
    ours = torch.autograd.grad((torch.stack([shared[b, a] for b, a in pairs]) * coefficient).sum(), parameters)
    theirs = torch.autograd.grad((single * coefficient).sum(), parameters)
    for got, expected in zip(ours, theirs, strict=True):
        assert float((got - expected).norm()) <= 1e-4 * float(expected.norm())
        assert float(expected.norm()) > 0


@pytest.mark.usefixtures("way")
def test_padding_of_the_set_has_no_probability_and_no_gradient(tokenizer):
    model = build(False, tokenizer)
    batch = encode(tokenizer)
    assert batch.support_mask.tolist() == [[True, True, False, False], [True, True, True, False], [True] * 4]
    log_probs = answer_log_probs(model, batch)
    assert torch.equal(log_probs == -math.inf, ~batch.support_mask)
    torch.where(batch.support_mask, log_probs, 0.0).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.usefixtures("way")
def test_neither_the_neighbours_nor_their_number_matter(tokenizer):
    model = build(False, tokenizer)
    together = answer_log_probs(model, encode(tokenizer))
    for b in range(len(PROMPTS)):
        by_itself = answer_log_probs(model, encode(tokenizer, PROMPTS[b : b + 1], ANSWERS[b : b + 1]))[0]
        torch.testing.assert_close(together[b, : len(by_itself)], by_itself, atol=1e-5, rtol=1e-6)


@pytest.mark.usefixtures("way")
def test_answers_of_one_token_need_no_second_pass(tokenizer):
    # The empty answer is the end token alone; together with a real one it must score the same.
    model = build(False, tokenizer)
    ended = answer_log_probs(model, encode(tokenizer, PROMPTS[:1], [["", ""]]))
    beside = answer_log_probs(model, encode(tokenizer, PROMPTS[:1], [["", "yes no"]]))
    torch.testing.assert_close(ended[0, 0], beside[0, 0], atol=1e-5, rtol=1e-6)
    torch.testing.assert_close(ended[0, 0], alone(model, tokenizer, PROMPTS[0], ""), atol=1e-5, rtol=1e-6)


@pytest.mark.usefixtures("way")
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


def test_a_row_holds_every_shared_token_once_and_asks_every_question_in_one_place():
    instructions, questions = [5, 6, 7, 8], [[20, 21], [30]]
    answers = [[40, 1], [41, 1], [40, 42, 1]]
    sequences = [instructions + question + answer for question in questions for answer in answers]
    starts = [len(instructions) + len(question) for question in questions for _ in answers]
    (row,) = pack(sequences, starts)
    # 4 instructions, 2 + 1 words of the questions, in each of which 40 and 41 follow the last word and 1 and 42 follow
    # 40: those two places stand twice. The last token of an answer (1) is asked for and never read.
    assert len(row.tokens) == 4 + (2 + 1) + 2 * (2 + 2 + 1)
    assert sorted(row.labels[row.labels != IGNORED].tolist()) == sorted(2 * [40, 41, 1, 42, 1, 1])
    for sequence, start, places in zip(sequences, starts, row.label_places, strict=True):
        assert row.labels[places].tolist() == sequence[start:]
        for place, position in zip(places, range(start - 1, len(sequence) - 1), strict=True):
            seen = np.flatnonzero(row.visible[place])
            order = seen[np.argsort(row.positions[seen])]
            assert row.tokens[order].tolist() == sequence[: position + 1]  # what the place would see in its sequence


def test_rows_end_where_sharing_no_longer_pays_and_where_they_are_full():
    def sequence(first: int, shared: int, own: int) -> list[int]:
        return [*range(shared), *range(1000 * first, 1000 * first + own), 1]

    # Apart: 2 · 100² pairs. Together: 150² pairs, but 50 tokens less; so it pays from 2500 / 50 pairs a token on.
    pair = [sequence(1, 50, 50), sequence(2, 50, 50)]
    assert len(pack(pair, [99, 99], pairs_per_token=51)) == 1
    assert len(pack(pair, [99, 99], pairs_per_token=49)) == 2
    assert len(pack(pair, [99, 99], pairs_per_token=51, max_places=140)) == 2
    # Nothing shared: never.
    assert len(pack([sequence(1, 0, 9), sequence(2, 0, 9)], [1, 1], pairs_per_token=1e9)) == 2
    rows = pack([*pair, sequence(3, 0, 5)], [99, 99, 1])
    assert [row.members for row in rows] == [[0, 1], [2]]
    tokens, positions, visible, labels = stack(rows)
    assert tokens.shape == positions.shape == labels.shape == visible.shape[:2] == (2, len(rows[0].tokens))
    assert labels[1, 5:].eq(IGNORED).all()
    assert visible[1, 5:].sum(-1).eq(1).all()  # padding sees itself, else its softmax would be over nothing
    assert not visible[1, :5, 5:].any()
