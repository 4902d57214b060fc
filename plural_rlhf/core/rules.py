"""The welfare rules by name.

A `Rule` is a name with its options, written the same way in Python, in a run file and on the command line:
`"mean"`, `"power_mean(p=-2)"`, `{"rule": "cvar", "share": 0.2}`. The pointwise rules score a response by its own
rewards; the group rules need the other responses to the same prompt, and only their order under each cluster.

Most rules compare one cluster's reward with another's, which is meaningless unless the heads are on one scale
(`reward_models.jury.calibration`): `Rule.compares_heads` says which. Knows nothing of reward models, prompts or
samples.

Shapes: `N` responses to one prompt, `K` clusters.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reward_models.errors import JuryError, did_you_mean

from . import aggregation, group_rules, lotteries, welfare
from .aggregation import Weights


__all__ = ["GROUP", "POINTWISE", "POOL", "RULES", "Rule", "RuleSpec", "aggregate", "rule_or_pool"]

_POINTWISE: dict[str, Callable[..., Tensor]] = {
    "mean": aggregation.weighted_mean,
    "power_mean": aggregation.power_mean,
    "nash": welfare.nash,
    "min": welfare.minimum,
    "max": welfare.maximum,
    "soft_minimum": aggregation.soft_minimum,
    "cvar": welfare.cvar,
    "quantile": welfare.quantile,
    "median": welfare.weighted_median,
    "pessimistic_median": welfare.pessimistic_median,
    "approval": welfare.approval_share,
    "variance_penalised": welfare.variance_penalised,
}
_GROUP: dict[str, Callable[..., Tensor]] = {
    "leximin": group_rules.leximin,
    "borda": group_rules.borda,
    "copeland": group_rules.copeland,
    "schulze": group_rules.schulze,
    "maximal_lottery": lotteries.maximal_lottery,
    "random_dictator": lotteries.random_dictator,
}
_LOTTERIES = ("maximal_lottery", "random_dictator")
_ON_ANY_SCALE = ("mean", "borda", "copeland", "schulze", *_LOTTERIES)

POINTWISE: tuple[str, ...] = tuple(_POINTWISE)
"""Rules that score a response by its own rewards."""
GROUP: tuple[str, ...] = tuple(_GROUP)
"""Rules that score a response among the others to its prompt."""
RULES: tuple[str, ...] = POINTWISE + GROUP

POOL = "pool"
"""What a reward may follow instead of a rule: the ρ-pool of `targets`, which compares no head with another."""

BLOCK = 32_768
"""Rows that a pointwise rule processes at once where no gradient is needed: its temporaries stay in the cache."""


@dataclass(frozen=True)
class Rule:
    """A welfare rule with its options.

    Attributes:
        name: One of `RULES`.
        options: Arguments of the rule's function other than rewards and weights.

    Example:
        >>> rule = Rule.parse("cvar(share=0.5)")
        >>> rewards = torch.tensor([[2.0, -1.0], [0.5, 0.4]])  # two responses, two clusters
        >>> rule.scores(rewards, [1, 1])
        tensor([-1.0000,  0.4000])
        >>> rule.lottery(rewards, [1, 1])
        tensor([0., 1.])
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in RULES:
            raise ValueError(
                f"rule: got {self.name!r}.{did_you_mean(self.name, RULES)} The rules are {', '.join(RULES)}."
            )
        signature = inspect.signature(self._function)
        try:
            signature.bind(None, None, **self.options)
        except TypeError as error:
            takes = [name for name in signature.parameters if name not in ("rewards", "weights", "mask")]
            raise TypeError(f"rule {self.name!r}: {error}; its options are: {', '.join(takes) or 'none'}") from None

    @classmethod
    def parse(cls, spec: RuleSpec) -> Rule:
        """Read a rule from a name, from `name(option=value, ...)`, or from a mapping with the key `rule`.

        Raises:
            ValueError: If the rule is unknown, or `spec` has another form.
            TypeError: If the rule does not have an option.

        Example:
            >>> str(Rule.parse({"rule": "power_mean", "p": -2}))
            'power_mean(p=-2)'
        """
        if isinstance(spec, Rule):
            return spec
        if isinstance(spec, Mapping):
            options = dict(spec)
            if "rule" not in options:
                raise ValueError(f"rule: {dict(spec)!r} has no key 'rule'; write e.g. {{rule: cvar, share: 0.2}}")
            return cls(options.pop("rule"), options)
        match = re.fullmatch(r"\s*([\w-]+)\s*(?:\((.*)\))?\s*", spec)
        if match is None:
            raise ValueError(f"rule: {spec!r} is not of the form name or name(option=value, ...)")
        name, inside = match.group(1), match.group(2) or ""
        return cls(name, dict(_option(part, spec) for part in inside.split(",") if part.strip()))

    def __hash__(self) -> int:
        return hash(str(self))

    def __str__(self) -> str:
        options = ", ".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.name}({options})" if options else self.name

    @property
    def within_group(self) -> bool:
        """Whether the rule scores a response among the others to its prompt."""
        return self.name in GROUP

    @property
    def compares_heads(self) -> bool:
        """Whether the rule needs heads on one scale: its verdict changes when one head is rescaled in the same order.

        The mean does weigh a head with a wide scale more than one with a narrow scale. It does not count as comparing
        heads, because adding a constant to a head, or to a prompt, does not change its verdict.
        """
        return self.name not in _ON_ANY_SCALE

    def check(self, num_clusters: int) -> None:
        """Apply the rule to an artificial group, so that a bad option raises before anything long starts.

        Raises:
            ValueError: If an option is out of its range.
            JuryError: If an option does not fit this number of clusters.

        Example:
            >>> Rule.parse("cvar(share=2)").check(num_clusters=3)
            Traceback (most recent call last):
            ValueError: share: got 2; it is a part of the jury, above 0 and at most 1: ...
        """
        self.scores(torch.ones(2, num_clusters), [1.0] * num_clusters)

    def scores(self, rewards: Tensor, weights: Weights, mask: Tensor | None = None) -> Tensor:
        """Score each response; higher is better.

        Pointwise rules return the unit of the rewards (approval: a share). Of the group rules, Borda returns a share
        of duels, Copeland the share of duels won minus the share lost, leximin a rank, Schulze minus the number of
        responses before it, the random dictator a probability, and the maximal lottery the margin of each response
        against that lottery, at most 0.

        Args:
            rewards: `(..., N, K)`, the responses to one prompt along N.
            weights: `(K,)`, or `(..., K)` with one row per group.
            mask: `(..., N)` true for responses that count; None for all.

        Returns:
            `(..., N)`; −inf where the mask is false.

        Raises:
            JuryError: If rewards are not finite, weights cannot be used, or a group rule gets a group of one.
            ValueError: If an option is out of its range.
        """
        _check_finite(rewards, mask)
        if not self.within_group:
            w = weights if _is_one_row(weights) else torch.as_tensor(weights).unsqueeze(-2)
            scores = _in_blocks(self._function, rewards, w, self.options)
            return scores if mask is None else scores.masked_fill(~mask, -torch.inf)
        result = self._function(rewards, weights, mask=mask, **self.options)
        return self._against(result, rewards, weights, mask)

    def lottery(self, rewards: Tensor, weights: Weights, mask: Tensor | None = None) -> Tensor:
        """Return the verdict as a distribution over the responses, even between equals.

        Args:
            rewards: `(..., N, K)`.
            weights: `(K,)` or `(..., K)`.
            mask: `(..., N)`.

        Returns:
            `(..., N)`, summing to one.

        Raises:
            JuryError, ValueError: As `scores`.
        """
        if self.name in _LOTTERIES:
            _check_finite(rewards, mask)
            return self._function(rewards, weights, mask=mask, **self.options)
        return lotteries.uniform_over_best(self.scores(rewards, weights, mask), mask)

    def verdict(self, rewards: Tensor, weights: Weights, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return `scores` and `lottery`, each `(..., N)`, at the cost of one of them."""
        if self.name in _LOTTERIES:
            lottery = self.lottery(rewards, weights, mask)
            return self._against(lottery, rewards, weights, mask), lottery
        scores = self.scores(rewards, weights, mask)
        return scores, lotteries.uniform_over_best(scores, mask)

    def _against(self, result: Tensor, rewards: Tensor, weights: Weights, mask: Tensor | None) -> Tensor:
        """Compute scores from the result of a group rule's function."""
        if self.name == "maximal_lottery":
            against = group_rules.margins(rewards, weights, mask)
            result = (against.to(result) @ result.unsqueeze(-1)).squeeze(-1)
        return result if mask is None else result.masked_fill(~mask, -torch.inf)

    @property
    def _function(self) -> Callable[..., Tensor]:
        return _POINTWISE[self.name] if self.name in _POINTWISE else _GROUP[self.name]


RuleSpec = str | Mapping[str, Any] | Rule
"""A rule as it is written: `"mean"`, `"power_mean(p=-2)"`, `{"rule": "cvar", "share": 0.2}`, or a `Rule`."""


def rule_or_pool(spec: RuleSpec) -> Rule | None:
    """Read what a reward may follow: a rule (`Rule.parse`), or `"pool"`, returned as None.

    Raises:
        ValueError, TypeError: As `Rule.parse`.

    Example:
        >>> str(rule_or_pool("cvar(share=0.5)")), rule_or_pool("pool")
        ('cvar(share=0.5)', None)
    """
    if spec == POOL:
        return None
    try:
        return Rule.parse(spec)
    except ValueError as error:
        hint = did_you_mean(spec, (POOL,)) if isinstance(spec, str) else ""
        raise ValueError(f"{error} A reward may also be {POOL!r}.{hint}") from None


def aggregate(
    rewards: Tensor, weights: Weights, rule: RuleSpec = "mean", *, mask: Tensor | None = None, **options: Any
) -> Tensor:
    """Aggregate the rewards of the clusters under a named rule.

    Args:
        rewards: Shape `(..., K)`; for a group rule `(..., N, K)`, the responses to one prompt along N.
        weights: For a pointwise rule `(K,)` or `(..., K)`, broadcast against `rewards`; for a group rule `(K,)`, or
            `(..., K)` with one row per group.
        rule: See `Rule.parse`.
        mask: `(..., N)` true for responses that count, for a group rule.
        **options: Options of the rule, where `rule` is a name.

    Returns:
        Shape `(...)`, for a group rule `(..., N)`; see `Rule.scores`.

    Raises:
        JuryError: If weights cannot be used, rewards are not finite, or a group rule gets a group of one.
        ValueError: If the rule is unknown or an option's value is out of its range.
        TypeError: If the rule does not take an option, or lacks one.

    Example:
        >>> aggregate(torch.tensor([2.0, -1.0]), [1, 1])
        tensor(0.5000)
        >>> aggregate(torch.tensor([2.0, -1.0]), [1, 1], rule="soft_minimum", temperature=0.0)
        tensor(-1.)
    """
    parsed = Rule.parse({"rule": rule, **options} if options and isinstance(rule, str) else rule)
    if parsed.within_group:
        return parsed.scores(rewards, weights, mask)
    _check_finite(rewards, mask)
    return _in_blocks(parsed._function, rewards, weights, parsed.options)


def _in_blocks(
    function: Callable[..., Tensor], rewards: Tensor, weights: Weights, options: Mapping[str, Any]
) -> Tensor:
    rows = rewards.numel() // max(1, rewards.shape[-1])
    of_rows = any(isinstance(v, Tensor | np.ndarray) and v.ndim > 1 for v in options.values())
    if rows <= BLOCK or rewards.requires_grad or of_rows:
        return function(rewards, weights, **options)
    flat = rewards.reshape(-1, rewards.shape[-1])
    one_row = _is_one_row(weights)
    w = weights if one_row else torch.as_tensor(weights).expand(rewards.shape).reshape(flat.shape)
    out: Tensor | None = None
    for start in range(0, rows, BLOCK):
        block = function(flat[start : start + BLOCK], w if one_row else w[start : start + BLOCK], **options)
        out = block.new_empty(rows) if out is None else out
        out[start : start + BLOCK] = block
    assert out is not None
    return out.reshape(rewards.shape[:-1])


def _is_one_row(weights: Weights) -> bool:
    return not isinstance(weights, Tensor | np.ndarray) or weights.ndim == 1


def _check_finite(rewards: Tensor, mask: Tensor | None) -> None:
    bad = ~torch.isfinite(rewards)
    if mask is not None:
        bad &= mask.unsqueeze(-1)
    if not bool(bad.any()):
        return
    where = bad.nonzero()[0].tolist()
    row = where[0] if len(where) == 2 else where[:-1]
    raise JuryError(
        f"the score of head {where[-1]} in row {row} is {rewards[tuple(where)].item()}, and a rule needs finite "
        "numbers: leave the response out (mask), or check the text that the head scored."
    )


def _option(part: str, spec: str) -> tuple[str, Any]:
    name, equals, value = (side.strip() for side in part.partition("="))
    if not equals or not name or not value:
        raise ValueError(f"rule: {part.strip()!r} in {spec!r} is not of the form option=value")
    try:
        number = float(value)
    except ValueError:
        return name, value
    if not re.fullmatch(r"[+-]?\d+", value):
        return name, number
    if math.isinf(number):
        raise ValueError(f"rule: {name} has {len(value)} digits, which is more than a number has room for")
    return name, int(number)
