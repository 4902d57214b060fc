"""Which tokens of a completion are the policy's own, whether it is finished, and what is scored again."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from plural_rlhf.trainers.grpo.completion_rows import finished, policy_log_probs
from reward_models.jury.tiny import tiny_causal_lm


def test_a_completion_is_finished_when_the_last_that_the_policy_says_is_an_end():
    end, other = 9, 8
    cases = {
        "plain, ended": ([5, end], [1, 1], None, True),
        "plain, cut off": ([5, 5, 5, 5], [1, 1, 1, 1], None, False),
        "padded with the end token": ([5, 5, end, end], [1, 1, 0, 0], None, False),
        "either end token": ([5, other], [1, 1], None, True),
        "a call that ends, a tool's answer, and cut off": ([5, end, 6, 5], [1, 1, 1, 1], [1, 1, 0, 1], False),
        "a call that ends, a tool's answer, and ended": ([5, end, 6, end], [1, 1, 1, 1], [1, 1, 0, 1], True),
        "the tool's answer ends, the policy not": ([5, 5, 6, end], [1, 1, 1, 1], [1, 1, 0, 0], False),
        "ended, and the environment goes on": ([5, end, 6, 6], [1, 1, 1, 1], [1, 1, 0, 0], True),
        "nothing said": ([end, end], [0, 0], None, False),
    }
    for name, (ids, mask, tool_mask, expected) in cases.items():
        rows = {"completion_ids": torch.tensor([ids]), "completion_mask": torch.tensor([mask])}
        if tool_mask is not None:
            rows["tool_mask"] = torch.tensor([tool_mask])
        assert finished(rows, [end, other]).tolist() == [expected], name


@pytest.mark.parametrize("unknown", [(), (1,), (0, 1, 2)])
def test_what_was_recorded_while_sampling_is_kept_and_what_was_not_is_scored(unknown):
    """Of three completions, two at a time; one recorded token that is no number makes its whole row unknown."""
    model, draw = tiny_causal_lm(), torch.Generator().manual_seed(0)
    args = SimpleNamespace(
        per_device_train_batch_size=1,
        per_device_eval_batch_size=2,
        gradient_checkpointing_kwargs=None,
        shared_prefix=False,
    )
    trainer = SimpleNamespace(model=model, args=args, accelerator=SimpleNamespace(autocast=nullcontext))
    prompt, said = (torch.randint(5, 40, (3, size), generator=draw) for size in (2, 4))
    rows = {"prompt_ids": prompt, "completion_ids": said}
    rows |= {"prompt_mask": torch.ones_like(prompt), "completion_mask": torch.ones_like(said)}
    with torch.no_grad():
        logits = model(torch.cat([prompt, said], 1)).logits[:, 1:-1]
    scored = logits.log_softmax(-1).gather(-1, said[..., None])[..., 0]
    torch.testing.assert_close(policy_log_probs(trainer, rows), scored)
    recorded = torch.full((3, 4), -1.0)
    expected = recorded.clone()
    for row in unknown:
        recorded[row, 2] = torch.nan
        expected[row] = scored[row]
    torch.testing.assert_close(policy_log_probs(trainer, {**rows, "sampling_per_token_logps": recorded}), expected)
