from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import plural_rlhf
from plural_rlhf.core.aggregation import (
    UTILITIES,
    log_power_mean,
    normalise_weights,
    power_mean,
    soft_minimum,
    weighted_mean,
)
from plural_rlhf.core.rules import aggregate
from plural_rlhf.core.shares import cluster_shares, retention
from reward_models.errors import JuryError


R = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
W = [0.6, 0.3, 0.1]

logits = st.lists(st.floats(-30, 30), min_size=3, max_size=3).map(lambda v: torch.tensor(v, dtype=torch.float64))
weightings = st.lists(st.floats(0.01, 1), min_size=3, max_size=3)
powers = st.one_of(st.floats(-50, 50), st.sampled_from([0.0, 1e-9, -1e-9, math.inf, -math.inf]))


def test_rules_by_hand():
    assert weighted_mean(R, W).item() == pytest.approx(0.6 * 2 - 0.3 + 0.05)
    odds = 0.6 * math.exp(2) + 0.3 * math.exp(-1) + 0.1 * math.exp(0.5)
    assert power_mean(R, W, p=1, utility="exp").item() == pytest.approx(math.log(odds))
    sigmoid = [1 / (1 + math.exp(-r)) for r in (2, -1, 0.5)]
    mean = sum(w * u for w, u in zip(W, sigmoid, strict=True))
    assert power_mean(R, W, p=1).item() == pytest.approx(math.log(mean / (1 - mean)))
    nash = math.prod(u**w for w, u in zip(W, sigmoid, strict=True))
    assert power_mean(R, W, p=0).item() == pytest.approx(math.log(nash / (1 - nash)))
    harmonic = 1 / (0.5 / 1 + 0.5 / 4)
    assert power_mean(torch.tensor([1.0, 4.0]), [1, 1], p=-1, utility="identity").item() == pytest.approx(harmonic)
    soft = -2 * math.log(0.6 * math.exp(-1) + 0.3 * math.exp(0.5) + 0.1 * math.exp(-0.25))
    assert soft_minimum(R, W, temperature=2.0).item() == pytest.approx(soft)


def test_dials_end_at_the_extremes():
    for utility in ("sigmoid", "exp"):
        assert power_mean(R, W, p=-math.inf, utility=utility).item() == pytest.approx(-1.0)
        assert power_mean(R, W, p=math.inf, utility=utility).item() == pytest.approx(2.0)
        assert power_mean(R, W, p=-500, utility=utility).item() == pytest.approx(-1.0, abs=0.05)
    assert soft_minimum(R, W, temperature=0.0).item() == -1.0
    assert soft_minimum(R, W, temperature=1e-3).item() == pytest.approx(-1.0, abs=0.01)
    assert soft_minimum(R, W, temperature=1e9).item() == pytest.approx(weighted_mean(R, W).item(), abs=1e-8)
    assert soft_minimum(R, W, temperature=math.inf).item() == weighted_mean(R, W).item()


def test_cluster_without_weight_has_no_say():
    with_third = torch.tensor([2.0, -1.0, -1e6])
    for rule, options in [("mean", {}), ("power_mean", {"p": -math.inf}), ("soft_minimum", {"temperature": 0.1})]:
        ours = aggregate(with_third, [0.6, 0.4, 0.0], rule, **options)
        assert ours.item() == pytest.approx(aggregate(with_third[:2], [0.6, 0.4], rule, **options).item())


@pytest.mark.parametrize("utility", ["sigmoid", "exp"])
@given(value=st.floats(-40, 40), p=powers)
def test_one_cluster_is_the_identity(utility, value, p):
    result = power_mean(torch.tensor([value], dtype=torch.float64), [3.0], p, utility=utility).item()
    assert result == pytest.approx(value, abs=1e-9, rel=1e-9)


@given(values=logits, weights=weightings, p=powers, order=st.permutations([0, 1, 2]))
def test_order_of_clusters_does_not_matter(values, weights, p, order):
    permuted = log_power_mean(values[list(order)], [weights[k] for k in order], p)
    assert torch.allclose(log_power_mean(values, weights, p), permuted, atol=1e-10)


@given(values=logits, weights=weightings, low=st.floats(-20, 20), gap=st.floats(0, 20))
def test_power_mean_grows_with_the_power(values, weights, low, gap):
    smaller, larger = log_power_mean(values, weights, low), log_power_mean(values, weights, low + gap)
    assert smaller <= larger + 1e-9
    assert values.min() - 1e-9 <= smaller
    assert larger <= values.max() + 1e-9


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_power_mean_is_continuous_at_zero(dtype):
    values = torch.tensor([3.0, -2.0, 0.25], dtype=dtype)
    mean = float((values * torch.tensor(W, dtype=dtype)).sum())
    spread = float((torch.tensor(W, dtype=dtype) * (values - mean).square()).sum())
    for p in (1e-2, 1e-3, 1e-5, 1e-8, 1e-12):
        for sign in (1, -1):
            result = log_power_mean(values, W, sign * p).item()
            # log M_p = mean + p variance / 2 + O(p^2): no cancellation may show, in float32 either.
            assert result == pytest.approx(mean + sign * p * spread / 2, abs=20 * p * p + 20 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("p", [-math.inf, -200.0, -1.0, -1e-9, 0.0, 1e-9, 0.5, 1.0, 200.0, 1e300, math.inf])
def test_gradient_is_finite_and_of_weight_one(p):
    for scale in (1.0, 300.0):
        values = (scale * R).clone().requires_grad_()
        log_power_mean(values, [0.6, 0.4, 0.0], p).backward()
        assert torch.isfinite(values.grad).all()
        assert values.grad.sum().item() == pytest.approx(1.0)  # adding a constant to every cluster adds it to the mean
        assert values.grad[2] == 0


@settings(max_examples=25)
@given(p=st.floats(-5, 5))
def test_gradient_matches_finite_differences(p):
    weights = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: log_power_mean(x, weights, p), R.clone().requires_grad_())
    assert torch.autograd.gradcheck(lambda x: power_mean(x, weights, p), R.clone().requires_grad_())


def test_weights_broadcast_over_leading_axes():
    rewards = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0))
    weights = torch.rand(5, 1, 3, generator=torch.Generator().manual_seed(1))
    for rule, options in [("mean", {}), ("power_mean", {"p": 0.5}), ("soft_minimum", {}), ("power_mean", {"p": 0})]:
        together = aggregate(rewards, weights, rule, **options)
        assert together.shape == (5, 4)
        assert together.dtype == torch.float32
        one = aggregate(rewards[2, 3], weights[2, 0], rule, **options)
        assert together[2, 3].item() == pytest.approx(one.item(), abs=1e-6)
    assert aggregate(rewards[0, 0], weights, "power_mean", p=-math.inf).shape == (5, 1)


def test_half_precision_is_computed_in_single():
    result = aggregate(R.to(torch.bfloat16), W, "power_mean", p=0.5)
    assert result.dtype == torch.float32
    assert result.item() == pytest.approx(aggregate(R, W, "power_mean", p=0.5).item(), abs=1e-6)


def test_extreme_logits_keep_their_order():
    for dtype, largest in ((torch.float32, 80.0), (torch.float64, 600.0)):
        for value in (-largest, -50.0, 50.0, largest):
            result = power_mean(torch.tensor([value, value], dtype=dtype), [1, 1], p=0.5)
            assert result.item() == pytest.approx(value, rel=1e-5)


def test_normalised_weights():
    assert torch.allclose(normalise_weights([6, 3, 1], 3), torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64))
    assert torch.allclose(normalise_weights(np.array([[2, 2], [0, 5]]), 2).sum(-1), torch.ones(2, dtype=torch.float64))
    assert normalise_weights(torch.tensor([1, 3]), 2).tolist() == [0.25, 0.75]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([0.5, -0.25, 0.75], r"cluster 1 has weight -0\.25.*at least 0.*use 0 to leave"),
        ([0.5, float("nan"), 0.5], r"cluster 1 has weight nan"),
        ([0.5, 0.5, float("inf")], r"cluster 2 has weight inf"),
        ([0.0, 0.0, 0.0], r"all are 0.*one cluster a positive weight"),
        ([0.5, 0.5], r"got 2, but the jury has 3 clusters: give one weight per cluster"),
        (1.0, r"got one bare number, but the jury has 3 clusters"),
        ([[0.2, 0.3, 0.5], [0.2, 0.3, -1.0]], r"cluster 2 has weight -1 \(row \[1\]\)"),
        ([[0.2, 0.3, 0.5], [0.0, 0.0, 0.0]], r"all are 0"),
    ],
)
def test_unusable_weights_are_refused(weights, message):
    with pytest.raises(JuryError, match=message):
        aggregate(R, weights)


def test_unknown_names_are_refused_with_a_suggestion():
    with pytest.raises(ValueError, match=r"got 'soft_minimun'\. Did you mean 'soft_minimum'\? The rules are mean"):
        aggregate(R, W, rule="soft_minimun")
    with pytest.raises(ValueError, match=r"got 'sigmod'.*Did you mean 'sigmoid'\?"):
        power_mean(R, W, 1.0, utility="sigmod")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"rule 'mean': got an unexpected keyword argument 'p'; its options are: none"):
        aggregate(R, W, p=1.0)
    with pytest.raises(TypeError, match=r"rule 'power_mean': missing a required argument: 'p'.*p, utility"):
        aggregate(R, W, rule="power_mean")
    assert "sigmoid" in UTILITIES


def test_power_mean_of_non_positive_utilities_is_refused():
    with pytest.raises(
        ValueError, match=r"reward of cluster 1 is -1, and a power mean needs positive.*utility='sigmoid'"
    ):
        power_mean(R, W, p=0.5, utility="identity")
    with pytest.raises(ValueError, match=r"cluster 0 is 0,"):
        power_mean(torch.zeros(2), [1, 1], p=2, utility="identity")
    with pytest.raises(ValueError, match=r"cluster 1 is nan"):
        power_mean(torch.tensor([1.0, math.nan]), [1, 1], p=2, utility="identity")


def test_unusable_dials_are_refused():
    with pytest.raises(ValueError, match=r"temperature: got -1.*0 \(minimum\) or more"):
        soft_minimum(R, W, temperature=-1.0)
    with pytest.raises(ValueError, match=r"temperature: got nan"):
        soft_minimum(R, W, temperature=math.nan)
    with pytest.raises(ValueError, match=r"power: got nan"):
        power_mean(R, W, p=math.nan)


def test_shares_and_retention_by_hand():
    pi = torch.tensor([0.5, 0.3, 0.1])  # a tenth of the mass is elsewhere
    gamma = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    shares = cluster_shares(pi, gamma)
    assert torch.allclose(shares, torch.tensor([0.65, 0.25]))
    assert retention(shares, [0.5, 0.5]).item() == pytest.approx(0.5)
    assert retention(torch.tensor([[1.0, 0.0], [0.5, 0.5]]), [3, 1]).tolist() == pytest.approx([0.0, 2 / 3])
    assert retention(torch.tensor([1.0, 0.0]), [1.0, 0.0]).item() == pytest.approx(1.0)


@pytest.mark.slow
def test_package_is_cheap_to_import_and_names_its_public_things():
    code = "import sys, plural_rlhf; print(plural_rlhf.__version__, 'torch' in sys.modules, 'trl' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["0.1.0", "False", "False"]
    assert plural_rlhf.aggregate is aggregate
    assert {"JuryReward", "PluralGRPOTrainer", "PoolTarget", "load_config"} <= set(dir(plural_rlhf))
    with pytest.raises(AttributeError, match=r"no attribute 'PoolTargt'\. Did you mean 'PoolTarget'\?"):
        plural_rlhf.PoolTargt  # noqa: B018
