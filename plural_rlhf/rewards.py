"""`JuryReward`: a jury as a TRL reward function (level L0, the two-line drop-in).

It scores prompts and completions per rater cluster, aggregates the K scores under weights that may come with every
prompt, and, for the ρ-pool, keeps the offsets λ_k of each prompt up to date from what it is shown. Stock `RLOOTrainer`
with `beta` equal to the reward's and `normalize_advantages=False` then follows the gradient of KL(π ‖ p_ρ). This file
knows nothing of trainers: it sees prompts, completions and data set columns.

Shapes: `N` completions, `K` clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plural_rlhf.core.aggregation import RULES, aggregate
from plural_rlhf.core.offsets import OffsetTracker, prompt_key
from plural_rlhf.core.targets import PoolTarget, pool_reward, responsibilities
from plural_rlhf.steering import WeightSpec, parse_weights
from reward_models.errors import did_you_mean
from reward_models.scoring import Jury, JuryScorer


__all__ = ["JuryReward", "completion_text"]

POOL = "pool"


def completion_text(completion: str | list[dict[str, str]]) -> str:
    """The text of a completion as TRL hands it over: a string, or a list with the assistant's message."""
    return completion if isinstance(completion, str) else completion[0]["content"]


class JuryReward:
    """A reward function for TRL trainers that keeps the disagreement of a jury.

    Args:
        jury: A saved jury (path or hub id), or any object with `cluster_names`, `prevalence` and `cluster_rewards`.
        weights: Default weights over clusters (see `plural_rlhf.steering.WeightSpec`); a data set column `weights`
            wins.
        rule: `"pool"`, the ρ-pool R_ρ = (β/ρ) log Σ_k w_k exp(ρ(r_k/β − λ_k)), or a rule of
            `plural_rlhf.core.aggregation`.
        rho: The pool: 1 every cluster in proportion (default), 0 consensus, −∞ the worst-off cluster.
        beta: Temperature in logits; the trainer's `beta` must be the same number.
        invalid_reward: Where a data set column `support` lists the allowed answers, every cluster gives anything else
            its lowest reward over the support plus this, in logits.
        offset_learning_rate: Step size of responsibility balancing (λ_k += η(mean γ_k − w_k)).
        **rule_options: Passed to the rule, e.g. `p=0.5` for `"power_mean"`.

    Data set columns that are read, all optional: `weights` (a `WeightSpec` a row), `support` (list of allowed
    answers), `jury_prompt` (the prompt as the jury should see it, when the policy's prompt also carries steering
    text).

    Raises:
        ValueError: An unknown rule, `beta` of 0 or less; with the valid names and the reason.
        JuryError: Weights that the jury cannot carry out.

    Example:
        >>> import numpy as np, torch
        >>> class Colours:  # anything with these three attributes is a jury
        ...     cluster_names, prevalence = ["warm", "cold"], np.array([0.75, 0.25])
        ...     def cluster_rewards(self, prompts, completions):
        ...         return torch.tensor([[1.0, 0.0] if "red" in c else [0.0, 1.0] for c in completions])
        >>> reward = JuryReward(Colours(), rule="mean")
        >>> reward(prompts=["Pick a colour."] * 2, completions=["red", "blue"])
        [0.75, 0.25]
    """

    __name__ = "jury"

    def __init__(
        self,
        jury: str | Path | Jury,
        *,
        weights: WeightSpec = "prevalence",
        rule: str = POOL,
        rho: float = 1.0,
        beta: float = 1.0,
        invalid_reward: float = -10.0,
        offset_learning_rate: float = 0.1,
        **rule_options: Any,
    ) -> None:
        rules = (POOL, *RULES)
        if rule not in rules:
            raise ValueError(f"rule: got {rule!r}.{did_you_mean(rule, rules)} The rules are {', '.join(rules)}.")
        self.target = PoolTarget(rho=rho, beta=beta)
        self.jury: Jury = JuryScorer.from_pretrained(jury) if isinstance(jury, str | Path) else jury
        self.weights = parse_weights(weights, self.jury.cluster_names, self.jury.prevalence)
        self.rule = rule
        self.rule_options = rule_options
        self.invalid_reward = invalid_reward
        self.offsets = OffsetTracker(len(self.jury.cluster_names), learning_rate=offset_learning_rate)
        self._parsed: dict[str, np.ndarray] = {}

    @property
    def cluster_names(self) -> list[str]:
        """The jury's clusters, in the order of every K."""
        return self.jury.cluster_names

    def row_weights(self, specs: Sequence[WeightSpec] | None, n: int) -> torch.Tensor:
        """Weights of each row, `(N, K)` float64: from its `weights` column, or the default."""
        if specs is None:
            return torch.as_tensor(self.weights).expand(n, -1)
        rows = []
        for spec in specs:
            key = repr(spec)
            if key not in self._parsed:
                # datasets stores a mapping column with every key that occurs anywhere; absent ones are None.
                given = {k: v for k, v in spec.items() if v is not None} if isinstance(spec, dict) else spec
                self._parsed[key] = parse_weights(given, self.jury.cluster_names, self.jury.prevalence)
            rows.append(self._parsed[key])
        return torch.as_tensor(np.stack(rows))

    def cluster_rewards(
        self, prompts: Sequence[Any], completions: Sequence[Any], support: Sequence[Sequence[str]] | None = None
    ) -> torch.Tensor:
        """Rewards a cluster, `(N, K)` float64 in logits; what is not in a row's `support` falls below all that is."""
        rewards = self.jury.cluster_rewards(prompts, completions).double()
        if support is None:
            return rewards
        texts = [completion_text(completion).strip() for completion in completions]
        for n in (n for n, text in enumerate(texts) if text not in support[n]):
            rewards[n] = self.support_rewards(prompts[n], support[n]).amin(dim=0) + self.invalid_reward
        return rewards

    def support_rewards(self, prompt: Any, support: Sequence[str]) -> torch.Tensor:
        """Rewards of a finite set of answers to one prompt, `(len(support), K)` float64 in logits."""
        answers = [a if isinstance(prompt, str) else [{"role": "assistant", "content": a}] for a in support]
        return self.jury.cluster_rewards([prompt] * len(support), answers).double()

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Any = None,
        *,
        weights: Sequence[WeightSpec] | None = None,
        support: Sequence[Sequence[str]] | None = None,
        jury_prompt: Sequence[Any] | None = None,
        log_extra: Callable[[str, list], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float]:
        """Rewards of completions, in TRL's calling convention.

        Returns:
            `N` floats in logits.
        """
        seen = prompts if jury_prompt is None else jury_prompt
        r = self.cluster_rewards(seen, completions, support)
        w = self.row_weights(weights, len(completions))
        if self.rule == POOL:
            keys = [prompt_key(prompt) for prompt in prompts]
            pooled, gamma = self.pool(r, w, keys)
            self.update_offsets(gamma, w, keys)
        else:
            pooled = aggregate(r, w, self.rule, **self.rule_options)
        if log_metric is not None:
            for k, name in enumerate(self.cluster_names):
                log_metric(f"jury/{name}/mean", float(r[:, k].mean()))
        if log_extra is not None:
            for k, name in enumerate(self.cluster_names):
                log_extra(f"jury/{name}", r[:, k].tolist())
        return pooled.tolist()

    def pool(
        self, r: torch.Tensor, w: torch.Tensor, keys: Sequence[str], log_weights: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The pooled reward R_ρ `(N,)` and the responsibilities γ `(N, K)` under the offsets as they stand.

        Args:
            r: Cluster rewards `(N, K)`.
            w: Weights `(N, K)`.
            keys: Prompt key of each row; a prompt met for the first time starts at λ_k = log mean exp(r_k/β) of its
                rows.
            log_weights: `(N,)` log(π₀/π) of each row, when the rows were not drawn from π₀: makes that start unbiased.
        """
        beta, rho = self.target.beta, self.target.rho
        for key in dict.fromkeys(keys):
            if key not in self.offsets:
                rows = [n for n, other in enumerate(keys) if other == key]
                shift = 0.0 if log_weights is None else beta * log_weights[rows].double().cpu()[:, None]
                self.offsets.initialise(key, r[rows] + shift, beta)
        log_z = self.offsets.get(keys)
        return pool_reward(r, w, log_z, beta, rho), responsibilities(r, w, log_z, beta, rho)

    def update_offsets(self, gamma: torch.Tensor, w: torch.Tensor, keys: Sequence[str]) -> None:
        """One step of responsibility balancing for every prompt among `keys`, from its rows' γ `(N, K)`.

        Only for ρ = 1: the balance mean γ = w holds at λ = log Z there and nowhere else, so other pools keep their
        start.
        """
        if self.target.rho != 1.0:
            return
        for key in dict.fromkeys(keys):
            rows = [n for n, other in enumerate(keys) if other == key]
            self.offsets.update(key, gamma[rows].mean(dim=0), w[rows].mean(dim=0))
