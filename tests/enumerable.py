"""Problems small enough to enumerate: a token tree and a bandit of three clusters, with tabular policies in torch."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from plural_rlhf.core.estimators import residual, vargrad_loss
from plural_rlhf.core.shares import cluster_shares
from plural_rlhf.core.targets import PoolTarget, log_partition, pool_reward, responsibilities


def jensen_shannon(p: Tensor, q: Tensor) -> float:
    m = (p + q) / 2
    return float((torch.special.xlogy(p, p / m) + torch.special.xlogy(q, q / m)).sum() / 2)


def random_normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@dataclass
class Tree:
    """All sequences of at most `length` tokens: `log_pi` of a tabular policy with one row of logits per prefix."""

    vocabulary: int
    length: int
    end: bool  # whether the last token of the vocabulary ends the sequence

    def __post_init__(self) -> None:
        ending = self.vocabulary - 1 if self.end else None
        prefixes: dict[tuple[int, ...], int] = {}
        paths: list[list[tuple[int, int]]] = []
        for tokens in itertools.product(range(self.vocabulary), repeat=self.length):
            stop = tokens.index(ending) + 1 if ending in tokens else self.length
            path = [(prefixes.setdefault(tokens[:t], len(prefixes)), tokens[t]) for t in range(stop)]
            if path not in paths:
                paths.append(path)
        pad = [path + [(0, 0)] * (self.length - len(path)) for path in paths]
        self.prefix, self.token = torch.tensor(pad).unbind(-1)
        self.used = torch.tensor([[t < len(path) for t in range(self.length)] for path in paths])
        self.n_prefixes, self.n_sequences = len(prefixes), len(paths)

    def token_log_pi(self, logits: Tensor) -> Tensor:
        return logits.log_softmax(-1)[self.prefix, self.token] * self.used

    def log_pi(self, logits: Tensor) -> Tensor:
        return self.token_log_pi(logits).sum(-1)


def mean_vargrad(d: Tensor, log_pi: Tensor) -> Tensor:
    return vargrad_loss(d).mean()


@dataclass
class Bandit:
    """Twelve arms, four favourites per cluster, 8 logits apart; a policy trained on 16 groups of 8 a step."""

    seed: int
    shares_wanted: tuple[float, ...] = (0.9, 0.08, 0.02)

    def __post_init__(self) -> None:
        self.weights = torch.tensor(self.shares_wanted, dtype=torch.float64)
        self.log_ref = (0.5 * random_normal(12, seed=self.seed)).log_softmax(-1)
        favourites = torch.block_diag(*[torch.full((4, 1), 8.0, dtype=torch.float64)] * 3)
        self.rewards = favourites + 0.3 * random_normal(12, 3, seed=self.seed + 1)
        self.log_z = log_partition(self.rewards[None], self.log_ref[None], 1.0)[0]
        self.target = PoolTarget().log_probs(self.rewards[None], self.weights, self.log_ref[None])[0].exp()
        self.gamma = responsibilities(self.rewards, self.weights, self.log_z, 1.0)

    def train(
        self,
        offsets: Callable[[Tensor, Tensor], Tensor],
        steps: int,
        loss: Callable[[Tensor, Tensor], Tensor] = mean_vargrad,
    ) -> Tensor:
        """Final probabilities; `offsets(y, log_pi)` gives lambda of arms y (16, 8), `loss(d, log_pi[y])` a scalar."""
        generator = torch.Generator().manual_seed(self.seed + 2)
        logits = self.log_ref.clone().requires_grad_()
        optimiser = torch.optim.Adam([logits], lr=0.05)
        schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.1, steps)
        for _ in range(steps):
            log_pi = logits.log_softmax(-1)
            y = torch.multinomial(log_pi.detach().exp().expand(16, -1), 8, replacement=True, generator=generator)
            log_z = offsets(y, log_pi.detach())
            reward = pool_reward(self.rewards[y], self.weights, log_z, 1.0, 1.0)
            optimiser.zero_grad()
            loss(residual(reward, 1.0, self.log_ref[y], log_pi[y]), log_pi[y]).backward()
            optimiser.step()
            schedule.step()
        return logits.detach().softmax(-1)

    def reference_samples(self, n: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        return torch.multinomial(self.log_ref.exp(), n, replacement=True, generator=generator)

    def policy_of(self, offsets: Tensor) -> Tensor:
        """The target of the mixture under these offsets."""
        return (self.log_ref + pool_reward(self.rewards, self.weights, offsets, 1.0, 1.0)).softmax(-1)

    def shares(self, pi: Tensor) -> Tensor:
        return cluster_shares(pi, self.gamma)
