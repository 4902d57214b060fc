"""Batches of listed answers: which are refused, and what is logged of them, worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from tokenizers.normalizers import Lowercase

from plural_rlhf.rewards.jury_reward import JuryReward
from plural_rlhf.trainers.grpo.exact import ExactRows, exact_metrics, target_kl_and_gains
from plural_rlhf.trainers.grpo.reward_functions import OtherRewards
from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
from tests.juries import TableJury


INF = math.inf
MASK = torch.tensor([[True, True, False], [True, True, True]])[..., None]
P = torch.tensor([[0.75, 0.25, 0.0], [0.5, 0.25, 0.25]], dtype=torch.float64)
REF = torch.tensor([[0.5, 0.5, 0.0], [0.25, 0.25, 0.5]], dtype=torch.float64)
PI = torch.tensor([[0.6, 0.3, 0.0], [0.5, 0.25, 0.25]], dtype=torch.float64)
INPUTS = {
    "answer_mask": MASK,
    "log_p": P.log(),
    "log_pi_ref": REF.log(),
    "gamma": torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]], dtype=torch.float64).expand(2, -1, -1),
    "weights": torch.tensor([[0.75, 0.25], [0.5, 0.5]], dtype=torch.float64),
}


def test_sums_over_rows_count_each_row_as_often_as_it_is_there_and_no_padding():
    sums = exact_metrics(INPUTS, PI.log(), ["left", "right"], 0.0, torch.tensor([1.0, 3.0]), beta=2.0)
    assert {name: float(value[1]) for name, value in sums.items()} == dict.fromkeys(sums, 4.0)
    total = {name: float(value[0]) for name, value in sums.items()}
    # β (log p − log π₀) is 2 log 1.5 and 2 log 0.5, then 2 log 2, 0 and −2 log 2.
    assert total["reward_range"] == pytest.approx(1 * 2 * math.log(3) + 3 * 4 * math.log(2))
    assert total["coverage"] == pytest.approx(1 * 0.9 + 3 * 1.0)
    # The first policy puts .1 on other text, on which its target puts nothing; the second one is its target.
    middle = [(0.75 + 0.6) / 2, (0.25 + 0.3) / 2, (0.0 + 0.1) / 2]
    kl = sum(p * math.log(p / m) for p, m in zip((0.75, 0.25), middle, strict=False))
    kl += sum(q * math.log(q / m) for q, m in zip((0.6, 0.3, 0.1), middle, strict=True))
    assert total["jsd_nats"] == pytest.approx(kl / 2)
    assert total["weight/left"] == pytest.approx(1 * 0.75 + 3 * 0.5)
    # Of the second row: .5 of the first answer, half of .25 of the third. Together they are the coverage.
    assert total["share/left"] == pytest.approx(1 * 0.6 + 3 * 0.625)
    assert total["share/right"] == pytest.approx(1 * 0.3 + 3 * 0.375)


def test_an_answer_of_probability_zero_costs_nothing_and_gains_are_means_over_prompts():
    log_p = torch.tensor([[0.0, -INF], [math.log(0.5), math.log(0.5)]], dtype=torch.float64)
    even = torch.tensor([[0.5, 0.5]] * 2, dtype=torch.float64).log()
    rewards = torch.tensor([[[4.0, 0.0], [0.0, 2.0]]] * 2, dtype=torch.float64)
    found = target_kl_and_gains({"log_p": log_p, "log_pi_ref": even, "rewards": rewards})
    # KL: log 2 and 0. Gains of the first prompt: 4 · .5 and −2 · .5; of the second: none.
    assert found.tolist() == pytest.approx([math.log(2) / 2, 2.0 / 2, -1.0 / 2])


@pytest.mark.parametrize(
    ("support", "message"),
    [
        (["b", "no", "B"], "the answer 'B' has the same tokens as 'b'"),
        (["yes", ""], "the answer '' has no token"),
        (["1", "10", "yes", "yes yes"], None),  # each ends with the end token
    ],
)
def test_every_answer_has_tokens_of_its_own(support, message):
    lower = tiny_tokenizer()
    lower.backend_tokenizer.normalizer = Lowercase()
    reward = JuryReward(TableJury({"yes": [1.0]}, ["a"], [1.0]))
    rows = ExactRows(reward, lower, lower.eos_token_id, lower.encode)
    of = [
        {"prompt": "a", "support": ["yes", "no"]},
        {"prompt": "b", "support": None},
        {"prompt": "c", "support": support},
    ]
    if message is None:
        rows.check_tokens(of)
    else:
        with pytest.raises(ValueError, match=message):
            rows.check_tokens(of)


def test_a_reward_function_that_writes_into_its_tokens_changes_no_later_batch():
    def by_length(completions, completion_ids, **columns):
        return [float(len([ids.pop() for _ in range(len(ids))])) for ids in completion_ids]

    tokenizer = tiny_tokenizer()
    reward = JuryReward(TableJury({"red": [2.0], "blue": [0.0]}, ["all"], [1.0]))
    others = OtherRewards(reward, [reward, by_length])
    rows = ExactRows(reward, tokenizer, tokenizer.eos_token_id, tokenizer.encode, others)
    data = [{"prompt": "A colour?", "support": ["red", "blue"]}]
    rows.score_references(tiny_causal_lm(tokenizer), data, 1, progress=False)
    first, second = rows.collate(data), rows.collate(data)
    assert first["answer_mask"].sum(-1).tolist() == [[len(tokenizer.encode(text)) + 1 for text in ("red", "blue")]]
    for name, value in first.items():
        assert value.equal(second[name]), name
