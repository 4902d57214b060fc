"""Random problems and targets for the tests of `plural_rlhf.core.targets`."""

from __future__ import annotations

import math

import torch
from hypothesis import strategies as st
from torch import Tensor

from plural_rlhf.core.targets import PoolTarget


RHOS = [-math.inf, -3.0, -1e-7, 0.0, 1e-7, 0.5, 1.0, 4.0, math.inf]
WEIGHTS = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)

rhos = st.sampled_from(RHOS)
betas = st.sampled_from([0.05, 0.5, 1.0, 3.0])
seeds = st.integers(0, 10_000)
targets = st.builds(
    PoolTarget,
    rho=rhos,
    beta=betas,
    tie_margin=st.sampled_from([0.0, 0.5]),
    reference_power=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    tie_width=st.sampled_from([0.0, 0.2]),
    uniform_floor=st.sampled_from([0.0, 0.4, 1.0]),
    typicality_alpha=st.sampled_from([-0.3, 0.0, 0.6]),
)


def problem(seed: int, prompts: int = 2, answers: int = 7, clusters: int = 3) -> tuple[Tensor, Tensor]:
    """Rewards `(B, N, K)` and log-probabilities of the reference `(B, N)`."""
    generator = torch.Generator().manual_seed(seed)
    rewards = 2 * torch.randn(prompts, answers, clusters, generator=generator, dtype=torch.float64)
    log_pi_ref = torch.randn(prompts, answers, generator=generator, dtype=torch.float64).log_softmax(-1)
    return rewards, log_pi_ref
