from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plural_rlhf.core.estimators import (
    DIVERGENCES,
    exact_divergence,
    forward_kl_coefficients,
    group_log_mean_exp,
    js_coefficients,
    leave_one_out,
    rao_blackwell_to_go,
    residual,
    reward_to_go,
    score_function_loss,
    trajectory_balance_loss,
    vargrad_loss,
)
from tests.enumerable import Tree


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_residual_and_coefficients_by_hand():
    d = residual(torch.tensor([2.0, 4.0]), 2.0, torch.tensor([-1.0, -2.0]), torch.tensor([-3.0, -0.5]))
    assert d.tolist() == [1.0 - 1.0 + 3.0, 2.0 - 2.0 + 0.5]
    assert leave_one_out(torch.tensor([3.0, 0.0, 6.0])).tolist() == pytest.approx([0.0, -4.5, 4.5])
    assert vargrad_loss(torch.tensor([3.0, 0.0, 6.0])).item() == pytest.approx(18 / 4)
    assert trajectory_balance_loss(torch.tensor([3.0, 0.0]), torch.tensor(1.0)).item() == pytest.approx((4 + 1) / 4)


@pytest.mark.parametrize("group", [2, 5, 16])
def test_gradient_of_the_log_variance_is_the_leave_one_out_score(group):
    logits = normal(7).requires_grad_()
    base = normal(3, group, seed=1)
    y = torch.randint(0, 7, (3, group), generator=torch.Generator().manual_seed(2))
    log_pi = logits.log_softmax(-1)[y]
    d = residual(base, 1.0, torch.zeros_like(base), log_pi)
    (live,) = torch.autograd.grad(vargrad_loss(d).sum(), logits, retain_graph=True)
    (score,) = torch.autograd.grad(score_function_loss(leave_one_out(d), log_pi).sum(), logits)
    assert torch.allclose(live, score, atol=1e-12)


def test_trajectory_balance_with_the_group_mean_is_a_shrunk_vargrad():
    logits = normal(7).requires_grad_()
    y = torch.randint(0, 7, (3, 4), generator=torch.Generator().manual_seed(2))
    d = normal(3, 4, seed=1) - logits.log_softmax(-1)[y]
    (tb,) = torch.autograd.grad(trajectory_balance_loss(d, d.detach().mean(-1)).sum(), logits, retain_graph=True)
    (vargrad,) = torch.autograd.grad(vargrad_loss(d).sum(), logits)
    assert torch.allclose(tb, vargrad * (1 - 1 / 4), atol=1e-12)


def test_coefficients_of_all_divergences_vanish_at_the_target_and_agree_in_sign():
    log_z = torch.tensor([0.7])
    at_target = torch.full((1, 4), 0.7)
    for coefficients in (forward_kl_coefficients(at_target, log_z), js_coefficients(at_target, log_z)):
        assert coefficients.abs().max() < 1e-7
    d = torch.tensor([[-50.0, 0.0, 1.4, 60.0]])
    assert (forward_kl_coefficients(d, log_z).sign() == torch.tensor([[-1, -1, 1, 1]])).all()
    js = js_coefficients(d, log_z)
    assert js[0, 0].item() == pytest.approx(-math.log(2) / 2)
    assert js[0, 3].item() == pytest.approx((60 - 0.7 - math.log(2)) / 2, rel=1e-5)  # linear, not exponential


def test_a_group_of_one_is_refused():
    for estimator in (leave_one_out, vargrad_loss):
        with pytest.raises(ValueError, match=r"got 1 completion per prompt.*num_generations to 2 or more"):
            estimator(torch.zeros(3, 1))
    with pytest.raises(ValueError, match=r"beta: got 0"):
        residual(torch.zeros(2), 0.0, torch.zeros(2), torch.zeros(2))


# Expectations and variances over a whole tree, enumerated: nothing here is sampled

BETA = 0.7
TREE = Tree(vocabulary=3, length=3, end=True)


class Enumerated:
    """A policy on the tree, its reference and rewards, with everything that the losses need of all 15 sequences."""

    def __init__(self, at_target: bool = False) -> None:
        ref = normal(TREE.n_prefixes, 3, seed=1)
        self.reward = 0.5 * normal(TREE.n_sequences, seed=2)
        self.log_ref, self.token_ref = TREE.log_pi(ref), TREE.token_log_pi(ref)
        self.log_p = (self.reward / BETA + self.log_ref).log_softmax(-1)
        self.log_z = torch.logsumexp(self.reward / BETA + self.log_ref, -1)
        start = self.logits_of(self.log_p) if at_target else normal(TREE.n_prefixes, 3)
        self.logits = start.requires_grad_()
        self.token_log_pi = TREE.token_log_pi(self.logits)
        self.log_pi = self.token_log_pi.sum(-1)
        self.pi = self.log_pi.detach().exp()
        self.d = residual(self.reward, BETA, self.log_ref, self.log_pi)
        log_pi_all, log_ref_all = self.logits.log_softmax(-1), ref.log_softmax(-1)
        self.token_kl = (log_pi_all.exp() * (log_pi_all - log_ref_all)).sum(-1)[TREE.prefix] * TREE.used

    @staticmethod
    def logits_of(log_p: torch.Tensor) -> torch.Tensor:
        """Logits of the policy whose sequences have these log-probabilities: the mass behind each token."""
        mass = torch.zeros(TREE.n_prefixes, 3, dtype=torch.float64)
        index = (TREE.prefix[TREE.used], TREE.token[TREE.used])
        mass.index_put_(index, log_p.exp().unsqueeze(-1).expand_as(TREE.used)[TREE.used], accumulate=True)
        return mass.log()

    def gradient(self, value: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(value, self.logits, retain_graph=True)[0].flatten()

    def exact(self, kind: str) -> torch.Tensor:
        """Gradient of the divergence itself, written out."""
        log_m = torch.logaddexp(self.log_p, self.log_pi) - math.log(2)
        to_m = [(log_q.exp() * (log_q - log_m)).sum() for log_q in (self.log_p, self.log_pi)]
        values = {
            "rkl": (self.log_pi.exp() * (self.log_pi - self.log_p)).sum(),
            "fkl": (self.log_p.exp() * (self.log_p - self.log_pi)).sum(),
            "js": (to_m[0] + to_m[1]) / 2,
        }
        return self.gradient(values[kind])

    def mean_and_variance(self, losses: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Of the gradient of one sequence's loss, over sequences drawn from the policy."""
        gradients = torch.stack([self.gradient(loss) for loss in losses])
        mean = self.pi @ gradients
        return mean, float(self.pi @ (gradients - mean).square().sum(-1))

    def token_loss(self, coefficients: torch.Tensor) -> torch.Tensor:
        """Loss of each sequence, less a baseline for each position: the mean over the sequences that reach it."""
        reach = self.pi.unsqueeze(-1) * TREE.used
        baseline = (reach * coefficients).sum(0) / reach.sum(0)
        return -((coefficients - baseline) * TREE.used * self.token_log_pi).sum(-1)

    def three_ways(self) -> dict[str, torch.Tensor]:
        """KL(pi || p) with a coefficient a sequence, with reward-to-go, and Rao-Blackwellised."""
        whole = self.d.detach().unsqueeze(-1).expand_as(TREE.used)
        to_go = reward_to_go(self.reward, BETA, self.token_log_pi - self.token_ref, TREE.used)
        expected = rao_blackwell_to_go(self.reward, BETA, self.token_kl, TREE.used)
        return {
            "whole": self.token_loss(whole),
            "to_go": self.token_loss(to_go),
            "rao_blackwell": self.token_loss(expected) + self.token_kl.sum(-1),
        }


def test_group_losses_are_exactly_unbiased():
    e = Enumerated()
    n = TREE.n_sequences
    pairs = torch.cartesian_prod(torch.arange(n), torch.arange(n))  # every group of two
    probability = e.pi[pairs].prod(-1)
    assert torch.allclose(e.gradient(probability @ vargrad_loss(e.d[pairs])), e.exact("rkl"), atol=1e-12)
    for log_z in (e.log_z, e.log_z + 3.0):  # any baseline: the mean score is zero
        loss = probability @ trajectory_balance_loss(e.d[pairs], log_z)
        assert torch.allclose(e.gradient(loss), e.exact("rkl"), atol=1e-12)
    assert (probability @ group_log_mean_exp(e.d[pairs]).exp()).item() == pytest.approx(e.log_z.exp().item())
    assert probability @ group_log_mean_exp(e.d[pairs]) < e.log_z - 0.01


@pytest.mark.parametrize(("kind", "make"), [("fkl", forward_kl_coefficients), ("js", js_coefficients)])
def test_score_coefficients_with_the_exact_log_z_are_exactly_unbiased(kind, make):
    e = Enumerated()
    loss = score_function_loss(make(e.d.unsqueeze(-1), e.log_z), e.log_pi.unsqueeze(-1))
    assert torch.allclose(e.mean_and_variance(loss)[0], e.exact(kind), atol=1e-12)
    # Here the value of log Z matters, not only its being a constant.
    off = score_function_loss(make(e.d.unsqueeze(-1), e.log_z + 1.0), e.log_pi.unsqueeze(-1))
    assert (e.mean_and_variance(off)[0] - e.exact(kind)).abs().max() > 1e-3


def test_token_coefficients_have_the_exact_gradient_and_less_noise_away_from_the_target():
    e = Enumerated()
    noise = {}
    for name, losses in e.three_ways().items():
        mean, noise[name] = e.mean_and_variance(losses)
        assert torch.allclose(mean, e.exact("rkl"), atol=1e-12), name
    assert noise["to_go"] < 0.95 * noise["whole"]
    assert noise["rao_blackwell"] < 0.5 * noise["to_go"]
    # The direct gradient of KL_t is a part of it.
    forgetful = e.token_loss(rao_blackwell_to_go(e.reward, BETA, e.token_kl, TREE.used))
    assert (e.mean_and_variance(forgetful)[0] - e.exact("rkl")).abs().max() > 0.05


def test_at_the_target_only_the_whole_residual_is_without_noise():
    e = Enumerated(at_target=True)
    assert torch.allclose(e.log_pi, e.log_p, atol=1e-12)
    noise = {}
    for name, losses in e.three_ways().items():
        mean, noise[name] = e.mean_and_variance(losses)
        assert mean.abs().max() < 1e-12, name
    assert noise["whole"] < 1e-20
    assert noise["to_go"] > 1e-3


def test_token_coefficients_by_hand():
    nan = math.nan
    mask = torch.tensor([[1, 0, 1, 1], [1, 1, 0, 0]])  # the answer of a tool; padding
    costs = torch.tensor([[0.5, nan, 0.25, -1.0], [2.0, 1.0, nan, nan]])
    reward = torch.tensor([3.0, 1.0])
    to_go = reward_to_go(reward, 0.5, costs, mask)
    assert to_go.tolist() == [[6 + 0.25, 0.0, 6 + 0.75, 7.0], [2 - 3.0, 2 - 1.0, 0.0, 0.0]]
    expected = rao_blackwell_to_go(reward, 0.5, costs, mask)
    assert expected.tolist() == [[6 + 0.75, 0.0, 7.0, 6.0], [2 - 1.0, 2.0, 0.0, 0.0]]
    # The first token's is the residual of the sequence.
    assert to_go[1, 0] == residual(reward[1], 0.5, torch.tensor(-4.0), torch.tensor(-1.0))
    with pytest.raises(ValueError, match=r"beta: got 0"):
        reward_to_go(reward, 0.0, costs, mask)


# Exact divergences


def distributions(*masses: float) -> torch.Tensor:
    return torch.tensor([masses], dtype=torch.float64).log()


def test_divergences_by_hand():
    log_p, log_pi = distributions(0.5, 0.5), distributions(0.3, 0.2)  # half of the policy's mass is elsewhere
    fkl = 0.5 * math.log(0.5 / 0.3) + 0.5 * math.log(0.5 / 0.2)
    assert exact_divergence(log_p, log_pi, "fkl").item() == pytest.approx(fkl)
    m = [0.4, 0.35, 0.25]
    js = 0.5 * sum(0.5 * math.log(0.5 / x) for x in m[:2])
    js += 0.5 * sum(q * math.log(q / x) for q, x in zip((0.3, 0.2, 0.5), m, strict=True))
    assert exact_divergence(log_p, log_pi, "js").item() == pytest.approx(js)
    kept, spread = 0.9 * 0.5, 0.1 / 3  # a tenth of the target is spread over both answers and all others
    rkl = sum(
        q * math.log(q / p) for q, p in zip((0.3, 0.2, 0.5), (kept + spread, kept + spread, spread), strict=True)
    )
    assert exact_divergence(log_p, log_pi, "rkl", floor=0.1).item() == pytest.approx(rkl)
    conditional = 0.5 * math.log(0.5 / 0.6) + 0.5 * math.log(0.5 / 0.4)
    assert exact_divergence(log_p, log_pi, "fkl", other=False).item() == pytest.approx(conditional)
    with_other = 0.45 * math.log(0.45 / 0.3) + 0.45 * math.log(0.45 / 0.2) + 0.1 * math.log(0.1 / 0.5)
    assert exact_divergence(log_p, log_pi, "fkl", p_other=0.1).item() == pytest.approx(with_other)


def test_the_most_that_they_can_be():
    disjoint = exact_divergence(distributions(1.0, 0.0), distributions(0.0, 1.0), "js")
    assert disjoint.item() == pytest.approx(math.log(2))
    nowhere = exact_divergence(distributions(0.5, 0.5), distributions(1e-12, 1e-12), "js")
    assert nowhere.item() == pytest.approx(math.log(2), abs=1e-9)


@settings(max_examples=50)
@given(
    seed=st.integers(0, 1000),
    kind=st.sampled_from(DIVERGENCES),
    coverage=st.sampled_from([1e-6, 0.3, 0.999]),
    other=st.booleans(),
)
def test_divergences_are_not_negative_and_zero_only_at_the_target(seed, kind, coverage, other):
    log_p = normal(2, 6, seed=seed).log_softmax(-1)
    log_pi = normal(2, 6, seed=seed + 1).log_softmax(-1) + math.log(coverage)
    assert (exact_divergence(log_p, log_pi, kind, other=other) > 1e-4).all()
    at_target = exact_divergence(log_p, log_p + math.log1p(-1e-9), kind, other=other)
    assert at_target.abs().max() < 1e-5


@pytest.mark.parametrize("kind", DIVERGENCES)
def test_gradient_matches_finite_differences(kind):
    log_p = normal(2, 5).log_softmax(-1)
    logits = normal(2, 6, seed=1).requires_grad_()  # the sixth event is everything else

    def divergence(theta: torch.Tensor) -> torch.Tensor:
        return exact_divergence(log_p, theta.log_softmax(-1)[:, :5], kind)

    assert torch.autograd.gradcheck(divergence, logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", DIVERGENCES)
def test_gradient_is_finite_at_every_corner(kind, dtype):
    log_p = torch.tensor([[0.7, 0.3, 0.0]], dtype=dtype).log()
    corners = [
        [0.5, 0.5, 0.0],  # all mass on the support, exactly
        [0.5, 0.5 + 1e-7, 0.0],  # rounding carries the sum past one
        [0.5, 0.5 - 1e-7, 0.0],
        [1.0, 0.0, 0.0],
        [0.0, 0.0, 1.0],  # on the answer that the target excludes
        [0.0, 0.0, 0.0],  # none on the support
        [1e-30, 1e-30, 1e-30],
    ]
    for masses in corners:
        log_pi = torch.tensor([masses], dtype=dtype).log().requires_grad_()
        value = exact_divergence(log_p, log_pi, kind)
        assert torch.isfinite(value).all(), masses
        (gradient,) = torch.autograd.grad(value.sum(), log_pi)
        assert torch.isfinite(gradient).all(), masses
        assert gradient.abs().max() < 100, masses


@pytest.mark.parametrize("kind", DIVERGENCES)
def test_following_the_gradient_reaches_the_target_and_empties_the_rest(kind):
    log_p = torch.tensor([[0.6, 0.3, 0.1]]).log()
    logits = torch.tensor([[-6.0, -6.0, -6.0, 4.0]], requires_grad=True)  # .01 % of the mass on the answers
    optimiser = torch.optim.Adam([logits], lr=0.1)
    for _ in range(600):
        optimiser.zero_grad()
        exact_divergence(log_p, logits.log_softmax(-1)[:, :3], kind).sum().backward()
        optimiser.step()
    pi = logits.detach().softmax(-1)[0]
    assert pi[3] < 0.01
    assert (pi[:3] - log_p[0].exp()).abs().max() < 0.01


@pytest.mark.parametrize("kind", DIVERGENCES)
@pytest.mark.parametrize("other", [True, False])
def test_padding_is_never_read(kind, other):
    log_p, log_pi = normal(2, 4).log_softmax(-1), normal(2, 4, seed=1).log_softmax(-1) - 0.5
    nan = torch.full((2, 3), math.nan, dtype=torch.float64)
    mask = torch.tensor([[True] * 4 + [False] * 3] * 2)
    padded = torch.cat([log_pi, nan], 1).requires_grad_()
    value = exact_divergence(torch.cat([log_p, nan], 1), padded, kind, mask=mask, other=other)
    assert torch.allclose(value, exact_divergence(log_p, log_pi, kind, other=other), atol=1e-12)
    (gradient,) = torch.autograd.grad(value.sum(), padded)
    assert torch.isfinite(gradient).all()
    assert (gradient[:, 4:] == 0).all()
    minus_inf = torch.where(mask, torch.cat([log_p, nan], 1), -math.inf)  # what PoolTarget.log_probs returns
    assert torch.equal(exact_divergence(minus_inf, padded, kind, mask=mask, other=other), value)


def test_unusable_arguments_are_refused():
    log_p, log_pi = distributions(0.5, 0.5), distributions(0.3, 0.2)
    with pytest.raises(ValueError, match=r"kind: got 'jss'; choose one of fkl, rkl, js\. Did you mean 'js'\?"):
        exact_divergence(log_p, log_pi, "jss")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"answers of row 0 have probability 1\.200 together.*list each answer once"):
        exact_divergence(log_p, distributions(0.6, 0.6))
    with pytest.raises(ValueError, match=r"p_other: got 1"):
        exact_divergence(log_p, log_pi, p_other=1.0)
    with pytest.raises(ValueError, match=r"floor: got 0"):
        exact_divergence(log_p, log_pi, "rkl", floor=0.0)
    with pytest.raises(ValueError, match=r"mask: a row has no answer"):
        exact_divergence(log_p, log_pi, mask=torch.zeros(1, 2, dtype=torch.bool))
