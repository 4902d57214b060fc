"""Which tokens of a completion are the policy's own, and whether it is finished."""

from __future__ import annotations

import torch

from plural_rlhf.trainers.grpo.completion_rows import finished


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
