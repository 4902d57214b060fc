"""`JuryReward`: a scorer per rater cluster as a TRL reward function (level L0, the two-line drop-in).

It scores completions per cluster, aggregates the K scores under a rule and weights that may differ by prompt, and, for
the ρ-pool, updates the offsets λ_k of each prompt from the completions that it scores. Stock `RLOOTrainer` with `beta`
equal to the reward's and `normalize_advantages=False` then follows the gradient of KL(π ‖ p_ρ). Knows nothing of
trainers: it sees prompts, completions and data set columns.

Shapes: `N` completions, `K` clusters.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plural_rlhf.core.offsets import OffsetMode, OffsetTracker
from plural_rlhf.core.rules import POOL, Rule, RuleSpec, rule_or_pool
from plural_rlhf.core.targets import PoolTarget, pool_reward, responsibilities
from plural_rlhf.rewards.calibrated import require_calibrated
from plural_rlhf.rewards.completions import (
    as_completions,
    completion_text,
    prompt_key,
    rows_of,
    scorable,
    seen_prompts,
)
from plural_rlhf.rewards.stock_trainers import check_stock_trainer, trainer_of
from reward_models.errors import JuryError, did_you_mean, renamed_arguments
from reward_models.judgements.spelling import one_form
from reward_models.jury.protocol import ClusterScorer
from reward_models.jury.scorer import JuryScorer
from reward_models.weights import WeightSpec, parse_weights


__all__ = ["JuryReward"]


_PARSED = 10_000
"""How many cells of a column `weights` are remembered as numbers."""


class JuryReward:
    """A reward function for TRL trainers that keeps the disagreement between rater clusters.

    Args:
        scorer: A saved jury reward model (path or hub id), or any object with `cluster_names`, `prevalence` and
            `cluster_rewards`.
        weights: Default weights over clusters (see `reward_models.weights.WeightSpec`); a data set column `weights`
            takes precedence.
        rule: `"pool"`, the ρ-pool R_ρ = (β/ρ) log Σ_k w_k exp(ρ(r_k/β − λ_k)), or a rule of
            `plural_rlhf.core.rules`; a data set column `rule` takes precedence. A group rule scores a completion among
            those of the same prompt and weights in the call.
        rho: Parameter of the pool: 1 every cluster in proportion (default), 0 consensus, −∞ the worst-off cluster.
        beta: Temperature in logits; the trainer's `beta` must be the same number.
        tie_margin: Responses within this many logits of a cluster's best so far for the prompt count as tied with it
            (`plural_rlhf.core.targets.saturate`); 0 is off.
        tie_width: Width over which that edge is rounded, in logits; 0 is hard.
        invalid_reward: Where a data set column `support` lists the allowed answers, any other completion gets from
            every cluster its lowest reward over the support plus this, in logits.
        offset_learning_rate: Step size of responsibility balancing (λ_k += η(mean γ_k − w_k)).
        offsets: Mode of `plural_rlhf.core.offsets.OffsetTracker`.
        max_prompts: How many prompts the offsets remember; those not visited for longest are forgotten first.
        calibrated: Whether the scorer's heads must be on one scale (`JuryScorer.calibrate`). By default only a rule
            that compares heads requires it; `False` accepts raw heads under any rule.
        check_trainer: Whether to check, at the first call, that TRL's RLOO or GRPO trainer has settings that lead to
            the target (`rewards.stock_trainers`); `False` for a baseline that is meant to go elsewhere.
        **rule_options: Passed to the rule, e.g. `p=0.5` for `"power_mean"`.

    Data set columns that are read, all optional: `weights` (a `WeightSpec` per row), `rule` (a `RuleSpec` or `"pool"`
    per row), `support` (list of allowed answers), `jury_prompt` (the prompt that the scorer sees, where the policy's
    prompt contains steering text).

    Raises:
        ValueError: If the rule is unknown or `beta` is not positive; with the valid names and the reason.
        TypeError: If an option belongs neither to the reward nor to its rule.
        JuryError: If the weights do not fit the clusters, the heads are on different scales under a rule that compares
            them, or the prevalence does not fit the clusters.

    Example:
        >>> import numpy as np, torch
        >>> class Colours:  # anything with these three attributes is a scorer
        ...     cluster_names, prevalence = ["warm", "cold"], np.array([0.75, 0.25])
        ...     def cluster_rewards(self, prompts, completions):
        ...         return torch.tensor([[1.0, 0.0] if "red" in c else [0.0, 1.0] for c in completions])
        >>> reward = JuryReward(Colours(), rule="mean")
        >>> reward(prompts=["Pick a colour."] * 2, completions=["red", "blue"])
        [0.75, 0.25]
    """

    __name__ = "jury"

    @renamed_arguments(jury="scorer")
    def __init__(
        self,
        scorer: str | Path | ClusterScorer,
        *,
        weights: WeightSpec = "prevalence",
        rule: RuleSpec = POOL,
        rho: float = 1.0,
        beta: float = 1.0,
        tie_margin: float = 0.0,
        tie_width: float = 0.0,
        invalid_reward: float = -10.0,
        offset_learning_rate: float = 0.1,
        offsets: OffsetMode = "responsibility",
        max_prompts: int = 100_000,
        calibrated: bool | None = None,
        check_trainer: bool = True,
        **rule_options: Any,
    ) -> None:
        if rule == POOL and rule_options:
            name, known = next(iter(rule_options)), list(inspect.signature(JuryReward).parameters)[:-1]
            raise TypeError(
                f"{name}: a JuryReward has no such option, and its rule {POOL!r} takes none; it has "
                f"{', '.join(known)}.{did_you_mean(name, known)}"
            )
        self.rule = rule_or_pool({"rule": rule, **rule_options} if rule_options else rule)
        self.calibrated = calibrated
        self.target = PoolTarget(rho=rho, beta=beta, tie_margin=tie_margin, tie_width=tie_width)
        if isinstance(scorer, str | Path):
            compares = self.rule is not None and self.rule.compares_heads
            scorer = JuryScorer.from_pretrained(scorer, calibrated=compares if calibrated is None else calibrated)
        self.scorer: ClusterScorer = scorer
        if np.shape(scorer.prevalence) != (len(scorer.cluster_names),):
            raise JuryError(
                f"the scorer's prevalence has shape {np.shape(scorer.prevalence)}, and its clusters are "
                f"{', '.join(scorer.cluster_names)}: give one share for each of them, in that order."
            )
        self._check_rule(self.rule)
        self.weights = parse_weights(weights, self.scorer.cluster_names, self.scorer.prevalence)
        self.invalid_reward = invalid_reward
        self.offsets = OffsetTracker(
            len(self.scorer.cluster_names),
            mode=offsets,
            learning_rate=offset_learning_rate,
            max_prompts=max_prompts,
        )
        self.check_trainer = check_trainer
        self._checked_trainer: int | None = None
        self._parsed: dict[str, np.ndarray] = {}
        self._rules: dict[str, Rule | None] = {}

    @property
    def cluster_names(self) -> list[str]:
        """The scorer's clusters, in the order of every K."""
        return self.scorer.cluster_names

    def set_beta(self, beta: float) -> None:
        """Change the temperature of the target, as a KL budget does."""
        self.target = replace(self.target, beta=beta)

    def with_target(self, target: PoolTarget, offsets: OffsetTracker) -> JuryReward:
        """Return a copy with another target and offsets of its own, which training may change; this one stays.

        Args:
            target: ρ, β and the options of the target.
            offsets: Offsets of the same clusters.
        """
        reward = copy.copy(self)
        reward.target, reward.offsets = target, offsets
        return reward

    def row_weights(self, specs: Sequence[WeightSpec | None] | None, n: int) -> torch.Tensor:
        """Return the weights of each row, `(N, K)` float64: from its `weights` column, else the default."""
        if specs is None:
            return torch.as_tensor(self.weights).expand(n, -1)
        return torch.as_tensor(np.stack([self._weights_of(spec) for spec in specs]))

    def _weights_of(self, cell: WeightSpec | None) -> np.ndarray:
        key = repr(cell)
        if key not in self._parsed:
            if len(self._parsed) >= _PARSED:  # weights that are drawn anew for every prompt never come again
                self._parsed.clear()
            spec = _without_absent_keys(cell)
            self._parsed[key] = (
                self.weights if spec is None else parse_weights(spec, self.cluster_names, self.scorer.prevalence)
            )
        return self._parsed[key]

    def row_rules(self, specs: Sequence[RuleSpec | None] | None, n: int) -> list[Rule | None]:
        """Return the rule of each row, None for the pool: from its `rule` column, else the default.

        Raises:
            ValueError, TypeError, JuryError: As the constructor.
        """
        if specs is None:
            return [self.rule] * n
        return [self._rule_of(spec) for spec in specs]

    def _rule_of(self, cell: RuleSpec | None) -> Rule | None:
        spec = _without_absent_keys(cell)
        key = repr(spec)
        if key not in self._rules:
            rule = self.rule if not spec else rule_or_pool(spec)
            self._check_rule(rule)
            self._rules[key] = rule
        return self._rules[key]

    def _check_rule(self, rule: Rule | None) -> None:
        if rule is not None:
            rule.check(len(self.cluster_names))
        require_calibrated(rule, self.scorer, self.calibrated)

    def cluster_rewards(
        self, prompts: Sequence[Any], completions: Sequence[Any], support: Sequence[Sequence[str]] | None = None
    ) -> torch.Tensor:
        """Score completions per cluster, `(N, K)` float64 in logits.

        A completion outside of its row's `support` gets a reward below all answers of the support. Whitespace around a
        completion or an answer is ignored, because it depends on the tokenizer, and so is its Unicode form.

        Raises:
            JuryError: If the scorer returns rewards of another shape, or one that is not finite.
        """
        rewards = self._scored(prompts, completions)
        if support is None:
            return rewards
        texts = [one_form(completion_text(completion).strip()) for completion in completions]
        for n, (text, allowed) in enumerate(zip(texts, support, strict=True)):
            if allowed is not None and text not in {one_form(answer.strip()) for answer in allowed}:
                rewards[n] = self.support_rewards(prompts[n], allowed).amin(dim=0) + self.invalid_reward
        return rewards

    def support_rewards(self, prompt: Any, support: Sequence[str]) -> torch.Tensor:
        """Score a finite set of answers to one prompt, `(len(support), K)` float64 in logits."""
        return self._scored([prompt] * len(support), as_completions(prompt, support))

    def _scored(self, prompts: Sequence[Any], completions: Sequence[Any]) -> torch.Tensor:
        rewards = torch.as_tensor(self.scorer.cluster_rewards(prompts, [scorable(c) for c in completions]))  # or numpy
        expected = (len(completions), len(self.cluster_names))
        if tuple(rewards.shape) != expected:
            raise JuryError(
                f"the scorer gave {expected[0]} completions rewards of shape {tuple(rewards.shape)}, but it has "
                f"{expected[1]} clusters: cluster_rewards must return a row per completion and a column per cluster."
            )
        if not bool(torch.isfinite(rewards).all()):
            n, k = (~torch.isfinite(rewards)).nonzero()[0].tolist()
            raise JuryError(
                f"the scorer's cluster {self.cluster_names[k]!r} gives {float(rewards[n, k])} to the completion "
                f"{completion_text(completions[n])!r}, and a target needs finite rewards: check the scorer on this "
                "text. For answers that must never be given, use a ValidityGate or the column support."
            )
        return rewards.double()

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Any = None,
        *,
        weights: Sequence[WeightSpec | None] | None = None,
        rule: Sequence[RuleSpec | None] | None = None,
        support: Sequence[Sequence[str]] | None = None,
        jury_prompt: Sequence[Any] | None = None,
        log_extra: Callable[[str, list], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float]:
        """Return the rewards of completions, in TRL's calling convention.

        Returns:
            `N` floats in logits.

        Raises:
            ValueError: At the first call, if the KL of a stock trainer leads to another target (`check_trainer`).
        """
        trainer = trainer_of(log_metric)
        self._check_trainer(trainer)
        r = self.cluster_rewards(seen_prompts(prompts, jury_prompt), completions, support)
        w = self.row_weights(weights, len(completions))
        keys = [prompt_key(prompt) for prompt in prompts]
        rules = self.row_rules(rule, len(completions))
        training = trainer is None or trainer.model.training
        with nullcontext() if training else self.offsets.apart():
            shaped = self.shaped(r, keys)
            if None in rules:
                pooled, gamma = self.pool(shaped, w, keys, rules=rules)
                self.balance(shaped, gamma, w, keys, rules=rules)
            else:
                pooled = self._judged(shaped, w, keys, rules, shaped.new_empty(len(keys)))
        if training:
            self.offsets.visit(keys)
        if log_metric is not None:
            for k, name in enumerate(self.cluster_names):
                log_metric(f"jury/{name}/mean", float(r[:, k].mean()))
                log_metric(f"plural/weight/{name}", float(w[:, k].mean()))
                if None in rules:
                    log_metric(f"plural/share/{name}", float(gamma[:, k].mean()))
        if log_extra is not None:
            for k, name in enumerate(self.cluster_names):
                log_extra(f"jury/{name}", r[:, k].tolist())
        return pooled.tolist()

    def _check_trainer(self, trainer: Any) -> None:
        """Check the trainer that calls, once."""
        if self.check_trainer and trainer is not None and id(trainer) != self._checked_trainer:
            check_stock_trainer(trainer, self.target.beta)
            self._checked_trainer = id(trainer)

    def pool(
        self,
        r: torch.Tensor,
        w: torch.Tensor,
        keys: Sequence[str],
        log_weights: torch.Tensor | None = None,
        rules: Sequence[Rule | None] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the reward R of each completion `(N,)` in logits, and the mixture's responsibilities γ `(N, K)`.

        A new prompt gets its offsets from its rows, λ_k = log mean (π₀/π) exp(r_k/β).

        Args:
            r: Cluster rewards `(N, K)`, after `shaped` if the target has options.
            w: Weights `(N, K)`.
            keys: Prompt key of each row.
            log_weights: `(N,)` log(π₀/π) of each row; `None` where the rows come from π₀, or it is unknown.
            rules: The rule of each row, None for the pool (`row_rules`); by default that of this reward.

        Raises:
            JuryError: If a group rule gets a single completion.
        """
        beta = self.target.beta
        for key, rows in rows_of(keys).items():
            if key not in self.offsets:
                self.offsets.initialise(key, r[rows], beta, None if log_weights is None else log_weights[rows])
        log_z = self.offsets.get(keys)
        gamma = responsibilities(r, w, log_z, beta, 1.0)
        rules = [self.rule] * len(keys) if rules is None else rules
        return self._judged(r, w, keys, rules, pool_reward(r, w, log_z, beta, self.target.rho)), gamma

    def _judged(
        self,
        r: torch.Tensor,
        w: torch.Tensor,
        keys: Sequence[str],
        rules: Sequence[Rule | None],
        pooled: torch.Tensor,
    ) -> torch.Tensor:
        """Replace the pool's reward of each row that has a rule by that of the rule."""
        groups: dict[tuple[Any, ...], list[int]] = {}
        for n, (rule, key, weights) in enumerate(zip(rules, keys, w.tolist(), strict=True)):
            if rule is not None:
                groups.setdefault((rule, *weights, key if rule.within_group else None), []).append(n)
        for (rule, *_), rows in groups.items():
            pooled[rows] = rule.scores(r[rows], w[rows[0]])
        return pooled

    def shaped(
        self,
        r: torch.Tensor,
        keys: Sequence[str],
        log_pi_ref: torch.Tensor | None = None,
        anchor: torch.Tensor | None = None,
        update: bool = True,
    ) -> torch.Tensor:
        """Apply the target's options to cluster rewards `(N, K)` (`PoolTarget.shaped`).

        Args:
            r: Cluster rewards `(N, K)`, after the typicality correction (`core.typicality.debias`).
            keys: Prompt key of each row.
            log_pi_ref: `(N,)` sequence log-probability under π₀, nats; needed if an option reads it.
            anchor: `(N, K)` anchor of `uniform_floor`, nats; needed if that is on.
            update: Whether the best reward of a known prompt may rise; that of a new prompt is always recorded.
        """
        target = replace(self.target, typicality_alpha=0.0)
        if target.tie_margin == target.tie_width == target.uniform_floor == 0:
            return target.shaped(r, log_pi_ref)
        for key, rows in rows_of(keys).items():
            if update or bool(torch.isinf(self.offsets.best([key])).any()):
                self.offsets.observe_best(key, r[rows])
        return target.shaped(r, log_pi_ref, self.offsets.best(keys), anchor=anchor)

    def balance(
        self,
        r: torch.Tensor,
        gamma: torch.Tensor,
        w: torch.Tensor,
        keys: Sequence[str],
        log_weights: torch.Tensor | None = None,
        rules: Sequence[Rule | None] | None = None,
    ) -> None:
        """Update the offsets of every prompt among `keys` once, from its rows.

        Responsibility balancing is for ρ = 1 alone, because only there mean γ = w holds at λ = log Z: under other
        pools and rules only the offsets of mode `"ema"` move.
        """
        balances = self.offsets.mode in ("responsibility", "global")
        if balances and self.target.rho != 1.0:
            if self.target.rho != 0.0:  # the log pool reads no offsets
                warnings.warn(
                    f"rho is {self.target.rho:g}, and offsets can be balanced at rho=1 alone, so those of a prompt "
                    "stay at the values of its first few completions: use PluralGRPOTrainer with offsets='ema', or "
                    "rho=1.",
                    stacklevel=2,
                )
            return
        rules = [self.rule] * len(keys) if rules is None else rules
        for key, rows in rows_of(keys).items():
            if balances and any(rules[row] is not None for row in rows):
                continue
            weights = None if log_weights is None else log_weights[rows]
            self.offsets.observe(key, r[rows], gamma[rows], w[rows].mean(dim=0), self.target.beta, weights)


def _without_absent_keys(cell: Any) -> Any:
    """Return a cell of a column of mappings as it was written: datasets adds the keys of all other rows as None."""
    return {k: v for k, v in cell.items() if v is not None} if isinstance(cell, dict) else cell
