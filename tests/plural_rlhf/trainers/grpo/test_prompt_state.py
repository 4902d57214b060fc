"""What is kept of every prompt, worked out by hand: `plural_rlhf.trainers.grpo.prompt_state`."""

from __future__ import annotations

import pytest
import torch

from plural_rlhf.core.offsets import OffsetTracker
from plural_rlhf.trainers.grpo.prompt_state import PromptState


def tensor(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_visits_count_by_their_importance_weights():
    prompts = PromptState(OffsetTracker(2))
    prompts.observe_reference("p", tensor([[4.0, 0.0], [0.0, 2.0]]), tensor([3.0, 1.0]).log())
    assert prompts.reference_means(["p"]).tolist() == [pytest.approx([3.0, 0.5])]
    prompts.observe_reference("p", tensor([[7.0, 7.0]]), tensor([4.0]).log())
    # Three parts of (4, 0), one of (0, 2) and four of (7, 7).
    assert prompts.reference_means(["p"]).tolist() == [pytest.approx([(12 + 28) / 8, (2 + 28) / 8])]
    prompts.observe_reference("q", tensor([[1.0, 1.0]]), tensor([0.0]))
    assert prompts.reference_means(["q", "p"])[0].tolist() == [1.0, 1.0]


def test_an_anchor_is_the_likeliest_answer_within_the_margin_of_the_best():
    prompts = PromptState(OffsetTracker(1))
    log_ref = tensor([-1.0, -2.0, -3.0])
    rewards = tensor([[0.0], [0.5], [1.0]])
    # Within half a logit of the best, 1.0, are the second (at the margin exactly) and the third.
    assert prompts.anchors(["p"] * 3, rewards, log_ref, tie_margin=0.5).tolist() == [[-2.0]] * 3
    prompts.offsets.observe_best("p", rewards)
    # Later visits: one that ties and is likelier raises the anchor, one that does not tie leaves it,
    tied, worse, best = ([[0.5]], -1.5), ([[0.4]], -0.5), ([[1.2]], -4.0)
    for (reward, log_pi), anchor in ((tied, -1.5), (worse, -1.5), (best, -4.0)):
        assert prompts.anchors(["p"], tensor(reward), tensor([log_pi]), tie_margin=0.5).tolist() == [[anchor]]
        # and one that is better than all before starts it anew, because what tied may tie no more.
        prompts.offsets.observe_best("p", tensor(reward))


def test_a_prompt_that_the_offsets_forget_is_forgotten_here_too():
    prompts = PromptState(OffsetTracker(1, max_prompts=2))
    for key in "abc":
        prompts.observe_reference(key, tensor([[1.0]]), tensor([0.0]))
        prompts.anchors([key], tensor([[1.0]]), tensor([-1.0]), tie_margin=0.0)
        prompts.visit([key])
    kept = prompts.state_dict()["targeting"]
    assert list(kept["anchors"]) == list(kept["reference_averages"]) == ["b", "c"]


def test_what_an_evaluation_learns_is_kept_apart():
    prompts = PromptState(OffsetTracker(1))
    prompts.observe_reference("p", tensor([[1.0]]), tensor([0.0]))
    before = prompts.state_dict()
    with prompts.apart():
        prompts.observe_reference("p", tensor([[3.0]]), tensor([0.0]))
        prompts.observe_reference("q", tensor([[5.0]]), tensor([0.0]))
        prompts.anchors(["q"], tensor([[1.0]]), tensor([-1.0]), tie_margin=0.0)
        assert prompts.reference_means(["q"]).tolist() == [[5.0]]
    assert prompts.state_dict() == before
    with prompts.apart():
        assert prompts.reference_means(["q"]).tolist() == [[5.0]]


def test_checkpoints_of_earlier_versions_hold_less():
    prompts = PromptState(OffsetTracker(1))
    prompts.observe_reference("p", tensor([[1.0]]), tensor([0.0]))
    prompts.anchors(["p"], tensor([[1.0]]), tensor([-1.0]), tie_margin=0.0)
    saved = prompts.state_dict()
    for targeting in (None, {"anchors": saved["targeting"]["anchors"]}):
        older = {"offsets": saved["offsets"]} | ({} if targeting is None else {"targeting": targeting})
        restored = PromptState(OffsetTracker(1))
        restored.load_state_dict(older)
        expected = {"anchors": {} if targeting is None else targeting["anchors"], "reference_averages": {}}
        assert restored.state_dict()["targeting"] == expected
