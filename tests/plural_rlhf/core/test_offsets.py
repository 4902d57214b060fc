from __future__ import annotations

import itertools
import json
import math

import pytest
import torch

from plural_rlhf.core.estimators import group_log_mean_exp
from plural_rlhf.core.offsets import OFFSET_MODES, OffsetTracker, balance
from plural_rlhf.core.targets import log_partition, pool_reward, responsibilities
from reward_models.errors import JuryError
from tests.enumerable import Bandit, random_normal


WEIGHTS = torch.tensor([0.88, 0.10, 0.02], dtype=torch.float64)
FAVOURITES = torch.eye(3, dtype=torch.float64).repeat_interleave(2, 0)  # six answers, two per cluster


def mixture_policy(offsets: torch.Tensor, rewards: torch.Tensor, log_ref: torch.Tensor) -> torch.Tensor:
    return (log_ref + pool_reward(rewards, WEIGHTS, offsets, 1.0, 1.0)).softmax(-1)


def balance_once(tracker: OffsetTracker, key: str, gamma: torch.Tensor, weights: object) -> None:
    tracker.observe(key, torch.zeros(1, len(gamma)), gamma.unsqueeze(0), weights, beta=1.0)


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
    for _ in range(1000):
        offsets = tracker.get(["x"])[0]
        y = torch.multinomial(mixture_policy(offsets, rewards, log_ref), 8, replacement=True, generator=generator)
        tracker.observe("x", rewards[y], responsibilities(rewards[y], WEIGHTS, offsets, 1.0), WEIGHTS, beta=1.0)
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


# Modes, on a bandit of twelve arms: three clusters, G = 8


def train_with(tracker: OffsetTracker, bandit: Bandit, steps: int, key: str = "arms") -> torch.Tensor:
    """Train on the offsets of one prompt, or of prompts that are all met once where `key` has a place for the step."""
    step = itertools.count()

    def offsets(y: torch.Tensor, log_pi: torch.Tensor) -> torch.Tensor:
        prompt = key.format(next(step))
        log_z = tracker.get([prompt])[0]
        rewards = bandit.rewards[y].flatten(0, 1)
        gamma = responsibilities(rewards, bandit.weights, log_z, 1.0)
        log_weights = (bandit.log_ref - log_pi)[y].flatten()
        tracker.observe(prompt, rewards, gamma, bandit.weights, 1.0, log_weights)
        return log_z

    return bandit.train(offsets, steps)


@pytest.mark.parametrize(("shares", "steps"), [((0.6, 0.3, 0.1), 800), ((0.9, 0.08, 0.02), 1500)])
@pytest.mark.parametrize("mode", ["responsibility", "ema", "exact"])
def test_every_cluster_keeps_its_share(mode, shares, steps):
    bandit = Bandit(0, shares)
    tracker = OffsetTracker(num_clusters=3, mode=mode)
    if mode == "exact":
        tracker.set_exact("arms", bandit.log_z)
    else:
        tracker.initialise("arms", bandit.rewards[bandit.reference_samples(16)], beta=1.0)
        start = tracker.get(["arms"])[0] - bandit.log_z
        assert (start - start.mean()).abs().max() > 0.2  # the start alone would not do
    pi = train_with(tracker, bandit, steps=500 if mode == "exact" else steps)
    assert (bandit.shares(pi) / bandit.weights - 1).abs().max() < 0.1
    error = tracker.get(["arms"])[0] - bandit.log_z
    assert (error - error.mean()).abs().max() < 0.15


@pytest.mark.parametrize("shares", [(0.6, 0.3, 0.1), (0.9, 0.08, 0.02)])
def test_frozen_reference_samples_cost_what_chi_squared_says(shares):
    bandit = Bandit(10, shares)
    tracker = OffsetTracker(num_clusters=3, mode="reference", n_ref=32)
    tracker.initialise("arms", bandit.rewards[bandit.reference_samples(tracker.n_ref)], beta=1.0)
    frozen = tracker.get(["arms"])[0]
    pi = train_with(tracker, bandit, steps=500)
    assert torch.equal(tracker.get(["arms"])[0], frozen)
    # The policy follows the target of the offsets that it was given ...
    assert torch.allclose(bandit.shares(pi), bandit.shares(bandit.policy_of(frozen)), rtol=0.1)
    # ... whose error has the standard deviation sqrt(chi2(p_k || pi_ref) / 32) in nats.
    p = (bandit.log_ref.unsqueeze(-1) + bandit.rewards - bandit.log_z).exp()
    chi2 = (p.square() / bandit.log_ref.exp().unsqueeze(-1)).sum(0) - 1
    assert (frozen - bandit.log_z).abs().max() < 3 * (chi2 / 32).sqrt().max()
    kept = bandit.shares(pi) / bandit.weights
    assert kept.min() > 0.4
    assert (kept - 1).abs().max() > 0.1  # not within the ten per cent of the modes that learn


@pytest.mark.parametrize("shares", [(0.6, 0.3, 0.1), (0.9, 0.08, 0.02)])
def test_the_group_estimate_extinguishes(shares):
    bandit = Bandit(10, shares)

    def self_normalised(y: torch.Tensor, log_pi: torch.Tensor) -> torch.Tensor:
        log_weight = (bandit.log_ref - log_pi)[y].unsqueeze(-1)
        scores = torch.logsumexp(log_weight + bandit.rewards[y], 1, keepdim=True)
        return scores - torch.logsumexp(log_weight, 1, keepdim=True)

    kept = bandit.shares(bandit.train(self_normalised, steps=600)) / bandit.weights
    assert kept[1:].min() < 0.25  # 8 * .1, 8 * .08 and 8 * .02 are below one


def test_global_keeps_the_shares_of_prompts_that_are_met_once():
    bandit = Bandit(10, (0.6, 0.3, 0.1))
    tracker = OffsetTracker(num_clusters=3, mode="global")
    pi = train_with(tracker, bandit, steps=800, key="prompt {}")
    assert (bandit.shares(pi) / bandit.weights - 1).abs().max() < 0.1
    # Offsets of each prompt alone would start at zero every time, and this is where such a policy goes.
    pi = bandit.policy_of(torch.zeros(3))
    assert (bandit.shares(pi) / bandit.weights - 1).abs().max() > 0.15


def test_global_is_one_set_of_offsets_for_prompts_that_are_alike():
    tracker = OffsetTracker(num_clusters=2, mode="global")
    assert "x" not in tracker
    tracker.initialise("x", torch.tensor([[1.0, 0.0]]), beta=1.0)
    assert "never seen" in tracker
    assert len(tracker) == 1
    tracker.observe("y", torch.zeros(2, 2), torch.tensor([[1.0, 0.0], [1.0, 0.0]]), [0.5, 0.5], 1.0)
    # .1 * (1 - .5) / .5 up and down; counted once, whatever the prompt.
    assert tracker.get(["z"])[0].tolist() == pytest.approx([1.1, -0.1])
    assert list(tracker.state_dict()["updates"].values()) == [1]
    # Best rewards and normalisers are of one prompt in this mode too.
    tracker.observe_best("y", torch.ones(1, 2))
    assert tracker.best(["z"])[0].tolist() == [-math.inf, -math.inf]


def test_frozen_modes_ignore_what_they_observe():
    for mode in ("reference", "exact"):
        tracker = OffsetTracker(num_clusters=2, mode=mode)
        tracker.set_exact("x", torch.tensor([0.5, -0.5]))
        tracker.observe("x", torch.ones(3, 2), torch.tensor([[1.0, 0.0]] * 3), [0.5, 0.5], 1.0)
        assert tracker.get(["x"])[0].tolist() == [0.5, -0.5]


def test_exact_never_guesses():
    tracker = OffsetTracker(num_clusters=2, mode="exact")
    tracker.set_exact("x", torch.zeros(2))
    with pytest.raises(JuryError, match=r"no log Z for the prompt with key y \(1 of 2 prompts\): call set_exact"):
        tracker.get(["x", "y"])
    with pytest.raises(JuryError, match=r"prompt with key y has none: call set_exact"):
        tracker.initialise("y", torch.zeros(4, 2), 1.0)


def test_ema_is_linear_in_z():
    tracker = OffsetTracker(num_clusters=2, mode="ema", ema=0.25)
    one, two = torch.tensor([[math.log(2.0), 400.0]]), torch.tensor([[math.log(6.0), 400.0], [math.log(2.0), 400.0]])
    gamma = torch.full((2, 2), 0.5)
    tracker.observe("x", one, gamma[:1], [0.5, 0.5], beta=1.0)
    assert tracker.get(["x"])[0].tolist() == pytest.approx([math.log(2.0), 400.0])
    # Importance weights 1 and 5: Z = (6 + 10) / 2 of the second visit, and at first all visits count the same. The
    # other column overflows outside log space.
    tracker.observe("x", two, gamma, [0.5, 0.5], beta=1.0, log_weights=torch.tensor([0.0, math.log(5.0)]))
    assert tracker.get(["x"])[0].tolist() == pytest.approx([math.log((2 + 8) / 2), 400.0 + math.log((1 + 3) / 2)])
    for _ in range(2):
        tracker.observe("x", one, gamma[:1], [0.5, 0.5], beta=1.0)
    assert tracker.get(["x"])[0, 0].item() == pytest.approx(math.log((2 + 8 + 2 + 2) / 4))
    tracker.observe("x", two[:1], gamma[:1], [0.5, 0.5], beta=1.0)  # the fifth of equals would count .2
    assert tracker.get(["x"])[0, 0].item() == pytest.approx(math.log(0.75 * 3.5 + 0.25 * 6))


def test_a_slow_average_leaves_a_rare_cluster_no_more_than_its_share():
    """log of a noisy Z is too low by half its variance, ema (1 / w - 1) / (4 n): what a rare cluster gets too much."""
    w, n, gaps = 0.02, 8, {}
    generator = torch.Generator().manual_seed(0)
    # At the target, samples of a cluster of 2 % come with weight 1 / w, all others with none: Z = 1.
    hits = torch.rand(4000, n, generator=generator) < w
    for ema in (0.1, 0.02):
        tracker, seen = OffsetTracker(num_clusters=1, mode="ema", ema=ema), []
        tracker.initialise("x", torch.zeros(n, 1), 1.0)
        for row in hits:
            rewards = torch.where(row, -math.log(w), -60.0).unsqueeze(1)
            tracker.observe("x", rewards, torch.ones(n, 1), [1.0], beta=1.0, log_weights=torch.zeros(n))
            seen.append(tracker.get(["x"]).item())
        gaps[ema] = sum(seen[500:]) / len(seen[500:])
    assert gaps[0.02] == pytest.approx(-0.02 * (1 / w - 1) / (4 * n), abs=0.02)
    assert gaps[0.1] < -0.15 < -0.06 < gaps[0.02]


def test_samples_of_the_policy_start_a_prompt_where_reference_samples_would():
    bandit = Bandit(0)
    pi = bandit.target  # most of it where cluster 0 likes it
    generator = torch.Generator().manual_seed(0)
    y = torch.multinomial(pi, 20000, replacement=True, generator=generator)
    tracker = OffsetTracker(num_clusters=3)
    tracker.initialise("x", bandit.rewards[y], 1.0, log_weights=(bandit.log_ref - pi.log())[y])
    assert (tracker.get(["x"])[0] - bandit.log_z).abs().max() < 0.15
    tracker.initialise("x", bandit.rewards[y], 1.0)  # as if they came from the reference
    assert (tracker.get(["x"])[0] - bandit.log_z).abs().max() > 1.0


# What else a group cannot give


def test_normaliser_averages_to_the_expectation_that_groups_of_four_miss():
    pi, d = torch.tensor([0.9, 0.1]), torch.tensor([0.1, 8.0]).log()  # Z = .9 * .1 + .1 * 8
    generator = torch.Generator().manual_seed(0)
    groups = d[torch.multinomial(pi.expand(4000, -1), 4, replacement=True, generator=generator)]
    tracker = OffsetTracker(num_clusters=1, normaliser_ema=0.002)
    for group in groups:
        tracker.observe_normaliser("x", group)
    assert tracker.log_normaliser(["x"]).item() == pytest.approx(math.log(0.89), abs=0.15)
    assert group_log_mean_exp(groups).mean() < math.log(0.89) - 0.5  # the mean of logarithms is another thing
    unknown = tracker.log_normaliser(["y", "x"])
    assert unknown[0].isnan()
    assert unknown[1] == tracker.log_normaliser(["x"])[0]
    assert tracker.log_normaliser([]).shape == (0,)


def test_best_reward_only_rises():
    tracker = OffsetTracker(num_clusters=2)
    tracker.observe_best("x", torch.tensor([[1.0, -3.0], [0.0, -2.0]]))
    tracker.observe_best("x", torch.tensor([[0.5, 4.0]]))
    assert tracker.best(["x", "y"]).tolist() == [[1.0, 4.0], [-math.inf, -math.inf]]
    assert tracker.best([]).shape == (0, 2)


# Bookkeeping


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
        balance_once(tracker, "x", gamma, [0.5, 0.5])
        steps.append(tracker.get(["x"])[0, 0].item() - before)
    assert steps == pytest.approx([0.4, 0.2, 0.4 / 3])
    balance_once(tracker, "other", gamma, [0.5, 0.5])
    assert tracker.get(["other"])[0, 0].item() == pytest.approx(0.4)


def test_state_survives_json_and_the_resumed_tracker_equals_the_unbroken_one():
    gammas = torch.rand(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gammas = gammas / gammas.sum(-1, keepdim=True)
    unbroken = OffsetTracker(num_clusters=3)
    unbroken.initialise("a", torch.randn(4, 3, generator=torch.Generator().manual_seed(1)), 1.0)
    first = OffsetTracker(num_clusters=3)
    first.load_state_dict(unbroken.state_dict())
    for i, gamma in enumerate(gammas):
        balance_once(unbroken, "ab"[i % 2], gamma, WEIGHTS)
        balance_once(first, "ab"[i % 2], gamma, WEIGHTS)
        if i == 9:
            resumed = OffsetTracker(num_clusters=3)
            resumed.load_state_dict(json.loads(json.dumps(first.state_dict())))
            first = resumed
    assert torch.equal(first.get(["a", "b"]), unbroken.get(["a", "b"]))
    assert first.state_dict() == unbroken.state_dict()


@pytest.mark.parametrize("mode", OFFSET_MODES)
def test_every_mode_resumes_where_it_stopped(mode):
    def visit(tracker: OffsetTracker, step: int) -> None:
        key = "ab"[step % 2]
        rewards, gamma = random_normal(4, 3, seed=step), random_normal(4, 3, seed=step + 100).softmax(-1)
        tracker.observe(key, rewards, gamma, WEIGHTS, 0.5, random_normal(4, seed=step + 200))
        tracker.observe_best(key, rewards)
        tracker.observe_normaliser(key, random_normal(4, seed=step + 300))

    unbroken, broken = (OffsetTracker(num_clusters=3, mode=mode) for _ in range(2))
    for tracker in (unbroken, broken):
        for key in "ab":
            tracker.set_exact(key, torch.zeros(3))
    for step in range(10):
        visit(unbroken, step)
        visit(broken, step)
        if step == 4:
            saved = json.loads(json.dumps(broken.state_dict(), allow_nan=False))
            broken = OffsetTracker(num_clusters=3, mode=mode)
            broken.load_state_dict(saved)
    assert broken.state_dict() == unbroken.state_dict()
    for read in ("get", "log_normaliser", "best"):
        assert torch.equal(getattr(broken, read)(["a", "b"]), getattr(unbroken, read)(["a", "b"]))


def test_state_of_a_version_that_kept_offsets_only_is_read():
    tracker = OffsetTracker(num_clusters=2)
    tracker.observe_best("x", torch.ones(1, 2))
    tracker.load_state_dict({"num_clusters": 2, "log_z": {"x": [1.0, 2.0]}, "updates": {"x": 3}})
    assert tracker.get(["x"])[0].tolist() == [1.0, 2.0]
    assert tracker.best(["x"])[0].tolist() == [-math.inf, -math.inf]
    assert tracker.log_normaliser(["x"])[0].isnan()


def test_state_is_a_copy():
    tracker = OffsetTracker(num_clusters=2)
    balance_once(tracker, "x", torch.tensor([1.0, 0.0]), [0.5, 0.5])
    saved = tracker.state_dict()
    balance_once(tracker, "x", torch.tensor([1.0, 0.0]), [0.5, 0.5])
    assert saved["updates"] == {"x": 1}
    assert saved["log_z"]["x"][0] == pytest.approx(0.1)


def test_faults_are_refused():
    tracker = OffsetTracker(num_clusters=2)
    with pytest.raises(JuryError, match=r"cluster 0 has weight -1"):
        balance_once(tracker, "x", torch.tensor([0.5, 0.5]), [-1.0, 2.0])
    with pytest.raises(JuryError, match=r"got shape \(4, 3\), but the tracker has 2 clusters"):
        tracker.initialise("x", torch.zeros(4, 3), 1.0)
    with pytest.raises(ValueError, match=r"rewards: got no sample"):
        tracker.initialise("x", torch.zeros(0, 2), 1.0)
    with pytest.raises(ValueError, match=r"d: got no sample"):
        tracker.observe_normaliser("x", torch.zeros(0))
    with pytest.raises(ValueError, match=r"beta: got 0"):
        tracker.initialise("x", torch.zeros(4, 2), 0.0)
    with pytest.raises(JuryError, match=r"saved state is of 3 clusters and the jury has 2: resume with the jury"):
        tracker.load_state_dict(OffsetTracker(num_clusters=3).state_dict())
    with pytest.raises(JuryError, match=r"saved state is of mode 'global' and the tracker of mode 'responsibility'"):
        tracker.load_state_dict(OffsetTracker(num_clusters=2, mode="global").state_dict())
    assert "x" not in tracker
    with pytest.raises(ValueError, match=r"num_clusters: got 0"):
        OffsetTracker(num_clusters=0)
    with pytest.raises(ValueError, match=r"mode: got 'responsability'; choose one of .* Did you mean 'respons"):
        OffsetTracker(num_clusters=2, mode="responsability")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"ema: got 0"):
        OffsetTracker(num_clusters=2, ema=0.0)
    with pytest.raises(ValueError, match=r"learning_rate: got -1"):
        OffsetTracker(num_clusters=2, learning_rate=-1.0)
    with pytest.raises(ValueError, match=r"decay: got -1"):
        OffsetTracker(num_clusters=2, decay=-1.0)
    with pytest.raises(ValueError, match=r"n_ref: got -1"):
        OffsetTracker(num_clusters=2, n_ref=-1)
    with pytest.raises(ValueError, match=r"precondition_clip: got 0\.5"):
        OffsetTracker(num_clusters=2, precondition_clip=0.5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_broken_score_is_named_and_leaves_the_offsets_alone(bad):
    tracker = OffsetTracker(num_clusters=2, mode="ema")
    tracker.initialise("key of it", torch.zeros(1, 2), 1.0)
    rewards, gamma = torch.tensor([[0.0, 1.0], [2.0, bad]]), torch.full((2, 2), 0.5)
    named = rf"rewards: sample 1 has {bad:g} for cluster 1 \(prompt with key key of it\)"
    with pytest.raises(JuryError, match=named):
        tracker.initialise("key of it", rewards, 1.0)
    with pytest.raises(JuryError, match=named):
        tracker.observe("key of it", rewards, gamma, [0.5, 0.5], 1.0)
    with pytest.raises(JuryError, match=named):
        tracker.observe_best("key of it", rewards)
    with pytest.raises(JuryError, match=r"log_weights: sample 0 has"):
        tracker.observe("key of it", torch.zeros(2, 2), gamma, [0.5, 0.5], 1.0, torch.tensor([bad, 0.0]))
    with pytest.raises(JuryError, match=r"log_weights: got 3 for 2 samples"):
        tracker.observe("key of it", torch.zeros(2, 2), gamma, [0.5, 0.5], 1.0, torch.zeros(3))
    with pytest.raises(JuryError, match=r"d: sample 1 has"):
        tracker.observe_normaliser("key of it", torch.tensor([0.0, bad]))
    with pytest.raises(JuryError, match=r"log_z: sample 0 has"):
        tracker.set_exact("key of it", torch.tensor([bad, 0.0]))
    assert tracker.get(["key of it"])[0].tolist() == [0.0, 0.0]
    assert tracker.log_normaliser(["key of it"])[0].isnan()
    tracker = OffsetTracker(num_clusters=2)
    with pytest.raises(JuryError, match=r"gamma: sample 0 has"):
        tracker.observe("x", torch.zeros(1, 2), torch.tensor([[bad, 0.0]]), [0.5, 0.5], 1.0)


@pytest.mark.parametrize("mode", ["responsibility", "ema", "reference", "exact"])
def test_prompts_not_visited_for_longest_are_forgotten_but_where_answers_are_listed(mode):
    """Listed answers give the offsets anew whenever they are needed; what is not kept cannot be lost."""
    tracker = OffsetTracker(2, mode=mode, max_prompts=2)
    assert tracker.visit(["a", "b"]) == []
    assert tracker.visit(["a"]) == []
    assert tracker.visit(["c"]) == ([] if mode == "exact" else ["b"])
    assert tracker.visit(["d", "e", "f"]) == ([] if mode == "exact" else ["a", "c"])  # a batch is kept whole
