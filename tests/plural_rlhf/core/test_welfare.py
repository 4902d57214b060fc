"""The pointwise rules: values by hand and by counting voters, the axioms each claims, counterexamples to the rest."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from plural_rlhf.core.aggregation import power_mean, soft_minimum, weighted_mean
from plural_rlhf.core.welfare import (
    approval_share,
    cvar,
    maximum,
    minimum,
    nash,
    pessimistic_median,
    quantile,
    variance_penalised,
    weighted_median,
)
from reward_models.errors import JuryError


R = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
W = [0.6, 0.3, 0.1]


def cautious_median(rewards: Tensor, weights) -> Tensor:
    return pessimistic_median(rewards, weights, standard_error=[0.5] * rewards.shape[-1], z=2.0)


RULES: dict[str, Callable[..., Tensor]] = {
    "mean": weighted_mean,
    "power_mean(p=2)": partial(power_mean, p=2),
    "power_mean(p=-2)": partial(power_mean, p=-2),
    "nash": nash,
    "soft_minimum": soft_minimum,
    "min": minimum,
    "max": maximum,
    "cvar": cvar,
    "quantile": quantile,
    "median": weighted_median,
    "pessimistic_median": cautious_median,
    "approval": approval_share,
    "approval(temperature=0.5)": partial(approval_share, temperature=0.5),
    "variance_penalised": variance_penalised,
    "variance_penalised(penalty=0.5)": partial(variance_penalised, penalty=0.5),
}
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
few = settings(max_examples=10, deadline=None)


def rewards_of(k: int, low: float = -5.0, high: float = 5.0) -> st.SearchStrategy[Tensor]:
    values = st.lists(st.floats(low, high), min_size=k, max_size=k)
    return values.map(lambda v: torch.tensor(v, dtype=torch.float64))


seats = st.lists(st.integers(1, 9), min_size=4, max_size=4)


def test_values_by_hand():
    # In rising order: -1 (0.3 of the jury), 0.5 (0.1), 2 (0.6).
    assert minimum(R, W).item() == -1
    assert maximum(R, W).item() == 2
    assert cvar(R, W, share=0.2).item() == pytest.approx(-1)
    assert cvar(R, W, share=0.35).item() == pytest.approx((0.3 * -1 + 0.05 * 0.5) / 0.35)
    assert cvar(R, W, share=0.5).item() == pytest.approx((-0.3 + 0.05 + 0.1 * 2) / 0.5)
    assert [quantile(R, W, q).item() for q in (0, 0.29, 0.3, 0.31, 0.4, 0.41, 1)] == [-1, -1, -1, 0.5, 0.5, 2, 2]
    assert weighted_median(R, W).item() == 2
    assert weighted_median(R, [1, 1, 1]).item() == 0.5
    bounds = [2 - 2 * 1.0, -1 - 2 * 0.1, 0.5 - 2 * 0.1]  # 0, -1.2, 0.3: of the jury 0.6, 0.3, 0.1
    assert pessimistic_median(R, W, [1.0, 0.1, 0.1], z=2).item() == pytest.approx(bounds[0])
    assert pessimistic_median(R, [1, 1, 3], [1.0, 0.1, 0.1], z=2).item() == pytest.approx(bounds[2])
    assert approval_share(R, W).item() == pytest.approx(0.7)
    assert approval_share(R, W, threshold=0.5).item() == pytest.approx(0.7)  # just good enough is approved
    smooth = 0.6 / (1 + math.exp(-3)) + 0.3 / (1 + math.exp(3)) + 0.1 / 2
    assert approval_share(R, W, threshold=0.5, temperature=0.5).item() == pytest.approx(smooth)
    mean = 0.6 * 2 - 0.3 + 0.05
    deviation = math.sqrt(0.6 * (2 - mean) ** 2 + 0.3 * (-1 - mean) ** 2 + 0.1 * (0.5 - mean) ** 2)
    assert variance_penalised(R, W, penalty=0.7).item() == pytest.approx(mean - 0.7 * deviation)
    product = (1 + math.exp(-2)) ** -0.6 * (1 + math.exp(1)) ** -0.3 * (1 + math.exp(-0.5)) ** -0.1
    assert nash(R, W).item() == pytest.approx(math.log(product / (1 - product)))
    assert nash(torch.tensor([1.0, 4.0]), [1, 1], utility="identity").item() == pytest.approx(2)


@settings(max_examples=100, deadline=None)
@given(rewards=rewards_of(4), weights=seats, data=st.data())
def test_same_as_counting_voters(rewards, weights, data):
    """A cluster of n seats is n voters; every voter stands twice, so that shares may end in the middle of one."""
    voters = np.sort(np.repeat(rewards.numpy(), 2 * np.array(weights)))
    count = data.draw(st.integers(0, len(voters)))
    share = count / len(voters)
    assert quantile(rewards, weights, share).item() == voters[max(count - 1, 0)]
    if count:
        assert cvar(rewards, weights, share).item() == pytest.approx(voters[:count].mean(), abs=1e-9)
    assert weighted_median(rewards, weights).item() == pytest.approx(np.median(voters), abs=1e-12)
    assert approval_share(rewards, weights, 1.0).item() == pytest.approx((voters >= 1).mean())
    expected = voters.mean() - 2 * voters.std()
    assert variance_penalised(rewards, weights, 2.0).item() == pytest.approx(expected, abs=1e-9)


def test_a_jury_of_thousands():
    generator = torch.Generator().manual_seed(0)
    rewards, weights = torch.randn(5000, generator=generator), torch.rand(5000, generator=generator)
    weights[:10], rewards[:10] = 0, math.inf
    assert quantile(rewards, weights, 1.0) == maximum(rewards, weights) < math.inf
    assert cvar(rewards, weights, 1.0).item() == pytest.approx(weighted_mean(rewards, weights).item(), abs=1e-5)
    assert weighted_median(rewards, weights).item() == pytest.approx(0, abs=0.1)


@few
@given(rewards=rewards_of(4), weights=seats)
def test_dials_end_where_they_say(rewards, weights):
    mean, lowest, highest = (rule(rewards, weights).item() for rule in (weighted_mean, minimum, maximum))
    assert cvar(rewards, weights, 1.0).item() == pytest.approx(mean, abs=1e-9)
    assert cvar(rewards, weights, 1e-12).item() == pytest.approx(lowest)
    assert quantile(rewards, weights, 0.0).item() == lowest
    assert quantile(rewards, weights, 1.0).item() == highest
    assert pessimistic_median(rewards, weights, [9.0] * 4, z=0).item() == weighted_median(rewards, weights).item()
    assert variance_penalised(rewards, weights, 0).item() == pytest.approx(mean, abs=1e-12)
    sharp, exact = (approval_share(rewards + 0.3, weights, temperature=t).item() for t in (1e-6, 0.0))
    assert sharp == pytest.approx(exact, abs=1e-6) or (rewards + 0.3).abs().min() < 1e-4


def test_shares_that_only_rounding_tells_apart_are_equal():
    for rounding in (-1e-7, 1e-7):
        assert weighted_median(torch.tensor([0.0, 1.0]), [0.5 + rounding, 0.5 - rounding]).item() == 0.5
        unanimous = torch.full((3,), 7.0, dtype=torch.float64)
        assert cvar(unanimous, [1, 1, 1], share=2 / 3 + rounding).item() == pytest.approx(7, abs=1e-12)
    thirds = torch.tensor([1 / 3, 1 / 6, 0.5])
    for dtype in (torch.float32, torch.float64):
        assert weighted_median(torch.tensor([0.0, 1.0, 4.0], dtype=dtype), thirds).item() == 2.5
        assert quantile(torch.tensor([0.0, 1.0, 4.0], dtype=dtype), thirds, 0.5).item() == 1
        # A share of exactly two clusters has no room for the third, however much that one claims.
        claimed = torch.tensor([0.0, 0.3, 1e30], dtype=dtype)
        assert cvar(claimed, [1, 1, 1], share=2 / 3).item() == pytest.approx(0.15)
        tenths = torch.cat([torch.linspace(0, 1, 9), torch.tensor([1e30])]).to(dtype)
        assert cvar(tenths, [1] * 10, share=0.9).item() == pytest.approx(0.5)
    one_voter_in_ten_thousand = [5000, 5001]
    assert weighted_median(torch.tensor([0.0, 1.0]), one_voter_in_ten_thousand).item() == 1


@every_rule
@few
@given(rewards=rewards_of(4), weights=seats, order=st.permutations(range(4)))
def test_anonymous(rule, rewards, weights, order):
    permuted = rule(rewards[list(order)], [weights[k] for k in order])
    assert permuted.item() == pytest.approx(rule(rewards, weights).item(), abs=1e-9)


@every_rule
@few
@given(rewards=rewards_of(4), weights=seats, k=st.integers(0, 3), part=st.sampled_from([0.5, 0.1]))
def test_clone_proof(rule, rewards, weights, k, part):
    split = [part * w if i == k else w for i, w in enumerate(weights)] + [(1 - part) * weights[k]]
    cloned = rule(torch.cat([rewards, rewards[k : k + 1]]), split)
    assert cloned.item() == pytest.approx(rule(rewards, weights).item(), abs=1e-9)


def test_clones_gain_without_halved_weights():
    """What the property above rests on: the weights, not the rules, protect against clones."""
    twice = torch.cat([R, R[1:2]])
    assert weighted_mean(twice, [1] * 4) < weighted_mean(R, [1] * 3)


@pytest.mark.parametrize("name", [name for name in RULES if not name.startswith("variance")])
@few
@given(rewards=rewards_of(4), weights=seats, k=st.integers(0, 3), gain=st.floats(0, 5))
def test_monotone(name, rewards, weights, k, gain):
    better = rewards.clone()
    better[k] += gain
    assert RULES[name](better, weights) >= RULES[name](rewards, weights) - 1e-9


def test_variance_penalised_is_monotone_below_a_price_only():
    assert variance_penalised(torch.tensor([0.0, 1.0]), [1, 1], penalty=2) < 0  # (0, 0) is worth 0
    # The price is sqrt(w / (1 - w)) of the smallest cluster, here 1/2: the others agree, it alone differs.
    steps = torch.linspace(0, 3, 30, dtype=torch.float64)
    apart = torch.stack([torch.zeros(30, dtype=torch.float64), steps], dim=-1)
    assert (variance_penalised(apart, [4, 1], penalty=0.5).diff() >= -1e-12).all()
    assert (variance_penalised(apart, [4, 1], penalty=0.55).diff() < 0).all()


AT_WILL = {  # for a cluster of 0.4 of the jury: up, down
    "mean": (True, True),
    "power_mean(p=2)": (False, False),
    "power_mean(p=-2)": (False, True),
    "nash": (False, True),
    "soft_minimum": (False, True),
    "min": (False, True),
    "max": (True, False),
    "cvar": (False, True),
    "quantile": (False, True),
    "median": (False, False),
    "pessimistic_median": (False, False),
    "approval": (False, False),
    "approval(temperature=0.5)": (False, False),
    "variance_penalised": (False, True),  # sqrt(.4 / .6) = .82: it lowers even by praise
    "variance_penalised(penalty=0.5)": (True, True),
}


def exaggerated(rule: Callable[..., Tensor], others: Tensor, weight: float) -> list[float]:
    """The verdicts that a cluster of this weight gets by the rewards -1e6 and 1e6."""
    weights = [weight] + [(1 - weight) / len(others)] * len(others)
    return [rule(torch.cat([torch.tensor([x]).to(others), others]), weights).item() for x in (-1e6, 1e6)]


@pytest.mark.parametrize("name", RULES)
@few
@given(others=rewards_of(3))
def test_who_moves_the_verdict_by_exaggeration(name, others):
    verdicts = exaggerated(RULES[name], others, 0.4)
    assert (max(verdicts) > 1e4, min(verdicts) < -1e4) == AT_WILL[name]
    assert any(AT_WILL[name]) or max(map(abs, verdicts)) < 20


@few
@given(others=rewards_of(3), weight=st.floats(0.05, 0.49))
def test_medians_stay_in_the_range_of_the_others(others, weight):
    low, high = others.min().item(), others.max().item()
    assert all(low <= verdict <= high for verdict in exaggerated(weighted_median, others, weight))
    # Nor does it help a cluster to be unsure on purpose: its bound falls out of the range, the median does not.
    unsure = [1e6, 0.5, 0.5, 0.5]
    weights = [weight] + [(1 - weight) / 3] * 3
    doubtful = pessimistic_median(torch.cat([others[:1], others]), weights, unsure).item()
    assert low - 0.5 <= doubtful <= high - 0.5


@few
@given(others=rewards_of(3), weight=st.floats(0.01, 0.49))
def test_approval_moves_by_the_weight_at_most(others, weight):
    for temperature in (0.0, 1.0):
        against, for_it = exaggerated(partial(approval_share, temperature=temperature), others, weight)
        assert for_it - against == pytest.approx(weight)


def test_weights_from_which_tails_are_moved_at_will():
    others = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    for weight, share, up in [(0.24, 0.75, False), (0.26, 0.75, True), (0.45, 0.5, False)]:
        assert (exaggerated(partial(cvar, share=share), others, weight)[1] > 1e4) == up
        assert exaggerated(partial(cvar, share=share), others, weight)[0] < -1e4
        assert (exaggerated(partial(quantile, q=share), others, weight)[1] > 1e4) == up
    for weight, down in [(0.24, False), (0.25, True)]:
        assert (exaggerated(partial(quantile, q=0.25), others, weight)[0] < -1e4) == down


COMMUTES = {  # with a common shift, a common scale, any common increasing map
    "mean": (True, True, False),
    "power_mean(p=2)": (False, False, False),
    "power_mean(p=-2)": (False, False, False),
    "nash": (False, False, False),
    "soft_minimum": (True, False, False),
    "min": (True, True, True),
    "max": (True, True, True),
    "cvar": (True, True, False),
    "quantile": (True, True, True),
    "median": (True, True, False),
    "pessimistic_median": (True, False, False),
    "approval": (False, False, False),
    "approval(temperature=0.5)": (False, False, False),
    "variance_penalised": (True, True, False),
    "variance_penalised(penalty=0.5)": (True, True, False),
}


@pytest.mark.parametrize("name", RULES)
def test_which_changes_of_scale_a_rule_commutes_with(name):
    rewards = 2 * torch.randn(400, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    maps = (lambda x: x + 1.5, lambda x: 3 * x, lambda x: x + x**3)
    held = []
    for change in maps:
        # Two clusters of half the weight each: only then the median is not the reward of one of them.
        for weights in ([1, 1, 1, 1], [1, 2, 3, 5]):
            before, after = (RULES[name](x, weights) for x in (rewards, change(rewards)))
            held.append(torch.allclose(after, change(before), atol=1e-9))
    assert tuple(a and b for a, b in zip(held[::2], held[1::2], strict=True)) == COMMUTES[name]


def test_median_without_a_tie_commutes_with_any_increasing_map():
    rewards = torch.randn(100, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(weighted_median(rewards.exp(), [1, 2, 3, 5]), weighted_median(rewards, [1, 2, 3, 5]).exp())


def test_pessimistic_median_scales_with_its_standard_errors():
    s = torch.tensor([0.1, 0.7, 2.0], dtype=torch.float64)
    assert torch.allclose(pessimistic_median(3 * R, W, 3 * s), 3 * pessimistic_median(R, W, s))


def flips(rule: Callable[..., Tensor], change: Callable[[Tensor], Tensor]) -> int:
    """How many of 500 pairs of responses with positive rewards are ranked the other way after a change of heads."""
    pairs = torch.randn(2, 500, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).exp()
    weights = [4, 3, 2]
    before = rule(pairs[0], weights) - rule(pairs[1], weights)
    after = rule(change(pairs[0]), weights) - rule(change(pairs[1]), weights)
    return int((before * after < -1e-12).sum())


APPROVAL = partial(approval_share, threshold=0.9)
factors = torch.tensor([1.0, 3.0, 0.4], dtype=torch.float64)
constants = torch.tensor([0.0, 0.7, -1.2], dtype=torch.float64)


@pytest.mark.parametrize("name", RULES)
def test_a_head_on_a_scale_of_its_own_changes_the_verdict(name):
    rule = APPROVAL if name == "approval" else RULES[name]
    assert flips(rule, lambda r: r * factors) > 0
    assert (flips(rule, lambda r: r + constants) > 0) == (name != "mean")


def test_scales_of_their_own_that_change_nothing():
    assert flips(partial(nash, utility="identity"), lambda r: r * factors) == 0
    assert flips(partial(nash, utility="exp"), lambda r: r + constants) == 0  # then it is the mean
    # Around the threshold, each head may be stretched as it likes.
    assert flips(lambda r, w: approval_share(r - 0.9, w), lambda r: 0.9 + (r - 0.9) * factors) == 0


@pytest.mark.parametrize("name", [name for name in RULES if name != "approval"])
def test_gradient_is_right_away_from_ties(name):
    weights = [0.4, 0.35, 0.25]
    rewards = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r: RULES[name](r, weights), rewards)


@pytest.mark.parametrize("name", [name for name in RULES if name != "approval"])
def test_gradient_is_finite_everywhere(name):
    rows = [[0.0] * 4, [1.0, 1.0, 2.0, 2.0], [300.0, -300.0, 0.0, 1.0], [0.1, 0.1 + 1e-7, 0.1, 0.1]]
    for spare in (0.0, 1e30, math.inf, -math.inf):
        rewards = torch.tensor([[*row[:3], spare] for row in rows] + [[*row, spare][:4] for row in rows[:1]])
        rewards.requires_grad_()
        RULES[name](rewards, [0.25, 0.25, 0.5, 0.0]).sum().backward()
        assert torch.isfinite(rewards.grad).all()
        assert (rewards.grad[:, 3] == 0).all()


def test_gradient_where_all_agree_is_that_of_the_mean():
    rewards = torch.full((3,), 0.25, requires_grad=True)
    variance_penalised(rewards, [2, 1, 1], penalty=3.0).backward()
    assert rewards.grad.tolist() == [0.5, 0.25, 0.25]


def test_gradient_of_the_tail_is_who_is_in_it():
    rewards = R.clone().requires_grad_()
    cvar(rewards, W, share=0.35).backward()
    assert rewards.grad.tolist() == pytest.approx([0, 0.3 / 0.35, 0.05 / 0.35])


def test_hard_approval_has_no_gradient_to_mistake_for_one():
    assert not approval_share(R.clone().requires_grad_(), W).requires_grad


@every_rule
@pytest.mark.parametrize("spare", [1e30, -1e30, math.inf, -math.inf, math.nan])
def test_cluster_without_weight_has_no_say(rule, spare):
    with_third = torch.tensor([2.0, -1.0, spare])
    assert rule(with_third, [0.6, 0.4, 0.0]).item() == pytest.approx(rule(with_third[:2], [0.6, 0.4]).item())
    assert rule(with_third[[2, 0, 1]], [0.0, 0.5, 0.5]).item() == pytest.approx(rule(R[:2], [1, 1]).item())


def test_standard_error_of_a_cluster_without_weight_may_be_unknown():
    for unknown in (math.inf, math.nan):
        assert pessimistic_median(R, [1, 1, 0], [0.5, 0.25, unknown]).item() == pytest.approx((1.5 - 1.25) / 2)


@every_rule
def test_weights_broadcast_over_leading_axes(rule):
    rewards = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0))
    weights = torch.rand(5, 1, 3, generator=torch.Generator().manual_seed(1))
    together = rule(rewards, weights)
    assert together.shape == (5, 4)
    assert together.dtype == torch.float32
    for i in range(5):
        for j in range(4):
            assert together[i, j].item() == pytest.approx(rule(rewards[i, j], weights[i, 0]).item(), abs=1e-6)
    assert rule(rewards[0, 0], weights).shape == (5, 1)


def test_standard_errors_broadcast_over_leading_axes():
    rewards = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0))
    s = torch.rand(5, 1, 3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(pessimistic_median(rewards, W, s, z=2.0), weighted_median(rewards - 2 * s, W))


@every_rule
def test_half_precision_is_computed_in_single(rule):
    for dtype in (torch.bfloat16, torch.float16):
        result = rule(R.to(dtype), W)
        assert result.dtype == torch.float32
        assert result.item() == pytest.approx(rule(R, W).item(), abs=1e-6)


@pytest.mark.parametrize(
    ("rule", "options", "names_it"),
    [
        (cvar, {"share": 0.0}, "share: got 0;"),
        (cvar, {"share": 1.01}, r"share: got 1\.01;"),
        (cvar, {"share": math.nan}, "share: got nan;"),
        (quantile, {"q": -0.1}, r"q: got -0\.1;"),
        (quantile, {"q": 25}, "q: got 25;"),
        (pessimistic_median, {"standard_error": [1, 1, 1], "z": -1}, "z: got -1;"),
        (pessimistic_median, {"standard_error": [1, -2, 1]}, "standard_error: cluster 1 has -2,"),
        (pessimistic_median, {"standard_error": [1, 1, math.inf]}, "standard_error: cluster 2 has inf,"),
        (pessimistic_median, {"standard_error": [1, 1]}, "standard_error: got 2, but the jury has 3 clusters"),
        (pessimistic_median, {"standard_error": 0.5}, "standard_error: got one bare number,"),
        (approval_share, {"threshold": math.nan}, "threshold: got nan;"),
        (approval_share, {"temperature": -1}, "temperature: got -1;"),
        (approval_share, {"temperature": math.inf}, "temperature: got inf;"),
        (variance_penalised, {"penalty": -0.5}, r"penalty: got -0\.5;"),
        (variance_penalised, {"penalty": math.inf}, "penalty: got inf;"),
        (nash, {"utility": "sigmiod"}, "Did you mean 'sigmoid'"),
    ],
)
def test_bad_options_are_named(rule, options, names_it):
    with pytest.raises(ValueError, match=names_it):
        rule(R, W, **options)


@every_rule
def test_bad_weights_are_refused(rule):
    for weights in ([1, -1, 1], [0, 0, 0], [math.nan, 1, 1]):
        with pytest.raises(JuryError, match="weights:"):
            rule(R, weights)
    with pytest.raises(JuryError, match="the jury has 3 clusters"):
        weighted_median(R, [1, 1])
