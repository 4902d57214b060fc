from __future__ import annotations

import json
import math

import pytest
import torch

from plural_rlhf.core.offsets import OffsetTracker, balance, prompt_key
from plural_rlhf.core.targets import log_partition, pool_reward, responsibilities
from reward_models.errors import JuryError


WEIGHTS = torch.tensor([0.88, 0.10, 0.02], dtype=torch.float64)
FAVOURITES = torch.eye(3, dtype=torch.float64).repeat_interleave(2, 0)  # six answers, two per cluster


def mixture_policy(offsets: torch.Tensor, rewards: torch.Tensor, log_ref: torch.Tensor) -> torch.Tensor:
    return (log_ref + pool_reward(rewards, WEIGHTS, offsets, 1.0, 1.0)).softmax(-1)


def test_prompt_key_is_canonical():
    one = [{"role": "user", "content": "Wie geht's, Ödön?"}]
    assert prompt_key(one) == prompt_key([{"content": "Wie geht's, Ödön?", "role": "user"}])
    assert prompt_key("a") != prompt_key("b") != prompt_key(["b"])
    # Fixed for ever: checkpoints name their prompts by it.
    assert prompt_key("Pick a number.") == "e6ddcea65f96edd96d7e31d3e52b080d"


def test_one_step_by_hand():
    log_z = torch.tensor([0.5, -0.5], dtype=torch.float64)
    gamma = torch.tensor([0.9, 0.1], dtype=torch.float64)
    # Steps .1 * (.9 - .8) / .8 and .1 * (.1 - .2) / .2; their weighted mean is .01 - .01 = 0.
    moved = balance(log_z, gamma, [0.8, 0.2], learning_rate=0.1)
    assert moved.tolist() == pytest.approx([0.5 + 0.0125, -0.5 - 0.05])
    # Without the preconditioner +-.01, less the weighted mean .8 * .01 - .2 * .01 = .006.
    plain = balance(log_z, gamma, [0.8, 0.2], learning_rate=0.1, precondition_clip=1.0)
    assert plain.tolist() == pytest.approx([0.5 + 0.01 - 0.006, -0.5 - 0.01 - 0.006])


def test_step_keeps_the_weighted_mean_and_silent_clusters():
    log_z = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gamma = torch.rand(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gamma = gamma / gamma.sum(-1, keepdim=True)
    moved = balance(log_z, gamma, WEIGHTS, 0.3)
    assert torch.allclose(moved @ WEIGHTS, log_z @ WEIGHTS, atol=1e-12)
    one = balance(log_z, torch.tensor([1.0, 0.0, 0.0]), [1.0, 0.0, 0.0], 0.3)
    assert torch.equal(one, log_z)


def test_balance_stands_still_at_the_partition_function():
    log_ref = torch.randn(1, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64).log_softmax(-1)
    rewards = 8 * FAVOURITES + torch.arange(3.0)
    log_z = log_partition(rewards[None], log_ref, 1.0)[0]
    for constant in (0.0, 7.0):
        offsets = log_z + constant
        pi = mixture_policy(offsets, rewards, log_ref[0])
        gamma = (pi.unsqueeze(-1) * responsibilities(rewards, WEIGHTS, offsets, 1.0)).sum(0)
        assert torch.allclose(gamma, WEIGHTS, atol=1e-12)
        assert torch.allclose(balance(offsets, gamma, WEIGHTS, 0.5), offsets, atol=1e-12)


def test_two_per_cent_cluster_survives_balancing_and_dies_of_group_estimates():
    """The extinction theorem, with a policy that always is the target of its current estimate; G = 8."""
    log_ref = torch.full((6,), 1 / 6, dtype=torch.float64).log()
    rewards = 12 * FAVOURITES + torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64)
    log_z = log_partition(rewards[None], log_ref[None], 1.0)[0]
    generator = torch.Generator().manual_seed(0)
    tracker = OffsetTracker(num_clusters=3, learning_rate=0.1, decay=0.01)
    for _ in range(1500):
        offsets = tracker.get(["x"])[0]
        y = torch.multinomial(mixture_policy(offsets, rewards, log_ref), 8, replacement=True, generator=generator)
        tracker.update("x", responsibilities(rewards[y], WEIGHTS, offsets, 1.0).mean(0), WEIGHTS)
    error = tracker.get(["x"])[0] - log_z
    assert (error - error.mean()).abs().max() < 0.2  # lambda - log Z is the same constant for every k
    balanced = mixture_policy(tracker.get(["x"])[0], rewards, log_ref).reshape(3, 2).sum(1)
    assert balanced[2].item() == pytest.approx(0.02, rel=0.2)

    # Z_k from the group: the expected target mass of cluster k at share s is w_k (1 - (1 - s)^G).
    shares = WEIGHTS.clone()
    for _ in range(400):
        pi = shares.repeat_interleave(2) / 2
        y = torch.multinomial(pi.expand(500, -1), 8, replacement=True, generator=generator)
        log_weight = (log_ref - pi.log())[y]
        estimate = torch.logsumexp(log_weight.unsqueeze(-1) + rewards[y], 1, keepdim=True)
        mixture = pool_reward(rewards[y], WEIGHTS, estimate, 1.0, 1.0) + log_weight
        mass = torch.zeros(500, 6, dtype=torch.float64).scatter_add_(1, y, mixture.softmax(-1))
        shares = mass.mean(0).reshape(3, 2).sum(1).clamp(min=1e-9)
        shares = shares / shares.sum()
    assert shares[2] < 0.1 * WEIGHTS[2]
    assert shares[1] < 0.1 * WEIGHTS[1]  # .10 * 8 < 1 as well


def test_initialise_is_the_mean_of_exponentials():
    tracker = OffsetTracker(num_clusters=2, n_ref=3)
    rewards = torch.tensor([[0.0, 2.0], [1.0, 2.0], [3.0, 2.0]])
    tracker.initialise("x", rewards, beta=0.5)
    by_hand = math.log((1 + math.exp(2) + math.exp(6)) / 3)
    assert tracker.get(["x"])[0].tolist() == pytest.approx([by_hand, 4.0])
    assert "x" in tracker
    assert "y" not in tracker
    assert len(tracker) == 1
    assert tracker.get(["y", "x"]).tolist()[0] == [0.0, 0.0]
    assert tracker.get([]).shape == (0, 2)


def test_learning_rate_decays_per_prompt():
    tracker = OffsetTracker(num_clusters=2, learning_rate=0.4, decay=1.0)
    gamma = torch.tensor([1.0, 0.0])
    steps = []
    for _ in range(3):
        before = tracker.get(["x"])[0, 0].item()
        tracker.update("x", gamma, [0.5, 0.5])
        steps.append(tracker.get(["x"])[0, 0].item() - before)
    assert steps == pytest.approx([0.4, 0.2, 0.4 / 3])
    tracker.update("other", gamma, [0.5, 0.5])
    assert tracker.get(["other"])[0, 0].item() == pytest.approx(0.4)


def test_state_survives_json_and_the_resumed_tracker_equals_the_unbroken_one():
    gammas = torch.rand(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gammas = gammas / gammas.sum(-1, keepdim=True)
    unbroken = OffsetTracker(num_clusters=3)
    unbroken.initialise("a", torch.randn(4, 3, generator=torch.Generator().manual_seed(1)), 1.0)
    first = OffsetTracker(num_clusters=3)
    first.load_state_dict(unbroken.state_dict())
    for i, gamma in enumerate(gammas):
        unbroken.update("ab"[i % 2], gamma, WEIGHTS)
        first.update("ab"[i % 2], gamma, WEIGHTS)
        if i == 9:
            resumed = OffsetTracker(num_clusters=3)
            resumed.load_state_dict(json.loads(json.dumps(first.state_dict())))
            first = resumed
    assert torch.equal(first.get(["a", "b"]), unbroken.get(["a", "b"]))
    assert first.state_dict() == unbroken.state_dict()


def test_state_is_a_copy():
    tracker = OffsetTracker(num_clusters=2)
    tracker.update("x", torch.tensor([1.0, 0.0]), [0.5, 0.5])
    saved = tracker.state_dict()
    tracker.update("x", torch.tensor([1.0, 0.0]), [0.5, 0.5])
    assert saved["updates"] == {"x": 1}
    assert saved["log_z"]["x"][0] == pytest.approx(0.1)


def test_faults_are_refused():
    tracker = OffsetTracker(num_clusters=2)
    with pytest.raises(JuryError, match=r"cluster 0 has weight -1"):
        tracker.update("x", torch.tensor([0.5, 0.5]), [-1.0, 2.0])
    with pytest.raises(JuryError, match=r"got shape \(4, 3\), but the tracker has 2 clusters"):
        tracker.initialise("x", torch.zeros(4, 3), 1.0)
    with pytest.raises(ValueError, match=r"got no sample; draw n_ref >= 1"):
        tracker.initialise("x", torch.zeros(0, 2), 1.0)
    with pytest.raises(ValueError, match=r"beta: got 0"):
        tracker.initialise("x", torch.zeros(4, 2), 0.0)
    with pytest.raises(JuryError, match=r"saved state is of 3 clusters and the jury has 2: resume with the jury"):
        tracker.load_state_dict(OffsetTracker(num_clusters=3).state_dict())
    assert "x" not in tracker
    with pytest.raises(ValueError, match=r"num_clusters: got 0"):
        OffsetTracker(num_clusters=0)
    with pytest.raises(ValueError, match=r"learning_rate: got -1"):
        OffsetTracker(num_clusters=2, learning_rate=-1.0)
    with pytest.raises(ValueError, match=r"decay: got -1"):
        OffsetTracker(num_clusters=2, decay=-1.0)
    with pytest.raises(ValueError, match=r"n_ref: got -1"):
        OffsetTracker(num_clusters=2, n_ref=-1)
    with pytest.raises(ValueError, match=r"precondition_clip: got 0\.5"):
        OffsetTracker(num_clusters=2, precondition_clip=0.5)
