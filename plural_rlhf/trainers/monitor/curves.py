"""The curves of a training run, the limits within which they are in order, and what a check may look at.

Knows no trainer: `callback` adds the numbers, `findings` judges them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from plural_rlhf.trainers.setting_checks import check_numbers


__all__ = ["Curves", "Limits", "Run"]

EFFECTIVE = "plural/effective_answers"
TEXTS = "plural/effective_texts"
ENTROPY = "plural/entropy"
RANGE = "plural/reward_range"
SHARE = "plural/share/"
WEIGHT = "plural/weight/"


@dataclass(frozen=True)
class Limits:
    """The limits beyond which `CollapseMonitor` warns.

    Attributes:
        patience: Number of logs in a window (at least 2); means over windows are compared, so that one noisy log does
            not cause a warning.
        diversity: Share of its start to which the effective number of answers (or, without it, the entropy) may fall.
        share: Share of its weight to which the share of a cluster may fall.
        settle: Share of the run (0 to 1) before which shares of clusters are not judged. A distance to the target is
            judged after twice this share.
        kl: Largest sequence KL to the reference, nats, if the trainer has no `kl_budget`.
        coverage: How far the mass on the allowed answers, or the share of valid ones, may fall below its best.
        truncated: Largest share of completions without an end token.
        sharpness: Largest range of the rewards of a group, in units of β; e to this power is the odds of the best
            answer against the worst.
        flatness: Smallest range of the rewards of a group, in units of β; below it the target hardly differs from the
            reference. 0 turns the check off.

    Raises:
        ValueError: A patience below 2, a share outside 0 to 1, or a limit of 0 or less.

    Example:
        >>> Limits(patience=5).diversity
        0.5
        >>> Limits(patience=1)
        Traceback (most recent call last):
        ValueError: patience is 1: it is a number of logs whose mean has a known noise, so it must be at least 2.
    """

    patience: int = 3
    diversity: float = 0.5
    share: float = 0.5
    settle: float = 0.25
    kl: float = 20.0
    coverage: float = 0.1
    truncated: float = 0.25
    sharpness: float = 20.0
    flatness: float = 0.2

    def __post_init__(self) -> None:
        share, limit = ("[0, 1]", "a share"), ("(0, inf]", "a limit, and math.inf turns the check off")
        intervals = dict.fromkeys(("diversity", "share", "settle", "coverage", "truncated"), share)
        intervals |= dict.fromkeys(("kl", "sharpness"), limit)
        intervals |= {"flatness": ("[0, inf)", "a limit, and 0 turns the check off")}
        intervals |= {"patience": ("[2, inf)", "a number of logs whose mean has a known noise")}
        check_numbers(self, intervals)


class Curves:
    """The logged numbers by name, in the order of logging, and their means over windows of `patience` logs.

    Example:
        >>> curves = Curves(patience=2)
        >>> for entropy in (4.0, 2.0, 1.0, 1.0):
        ...     curves.add({"plural/entropy": entropy})
        >>> curves.first("plural/entropy"), curves.recent("plural/entropy")
        (3.0, 1.0)
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.values: dict[str, list[float]] = {}

    def add(self, row: Mapping[str, Any]) -> None:
        """Add the finite numbers of one log; TRL logs None for a missing value."""
        for name, value in row.items():
            if isinstance(value, int | float) and math.isfinite(value):
                self.values.setdefault(name, []).append(float(value))

    def first(self, name: str) -> float | None:
        """Return the mean over the first window; None until a second one is complete."""
        values = self.values.get(name, [])
        return float(np.mean(values[: self.patience])) if len(values) >= 2 * self.patience else None

    def recent(self, name: str) -> float | None:
        """Return the mean over the last window; None until one is complete."""
        values = self.values.get(name, [])
        return float(np.mean(values[-self.patience :])) if len(values) >= self.patience else None

    def before(self, name: str) -> float | None:
        """Return the mean over the window before the last one; None until there are two."""
        values = self.values.get(name, [])[: -self.patience]
        return float(np.mean(values[-self.patience :])) if len(values) >= self.patience else None

    def bounds(self, name: str) -> tuple[float, float] | None:
        """Return the mean over the last two windows, minus and plus two standard errors."""
        values = self.values.get(name, [])[-2 * self.patience :]
        if len(values) < 2 * self.patience:
            return None
        mean, error = np.mean(values), np.std(values, ddof=1) / math.sqrt(len(values))
        return float(mean - 2 * error), float(mean + 2 * error)

    def best(self, name: str) -> float | None:
        """Return the largest mean over any window."""
        values = self.values.get(name, [])
        if len(values) < self.patience:
            return None
        return float(np.convolve(values, np.full(self.patience, 1 / self.patience), "valid").max())

    def clusters(self, prefix: str) -> list[str]:
        """Return the clusters that have a curve `prefix<cluster>`."""
        return [name.removeprefix(prefix) for name in self.values if name.startswith(prefix)]


@dataclass(frozen=True)
class Run:
    """What a check may look at.

    Attributes:
        curves: The numbers logged so far.
        settings: The trainer's arguments by name.
        limits: When to warn.
        progress: Share of the run that is over, 0 to 1.
        epochs: How often the whole run meets every prompt.

    Example:
        >>> curves = Curves(patience=2)
        >>> for _ in range(2):
        ...     curves.add({"plural/weight/urban": 0.75, "plural/weight/rural": 0.25})
        >>> Run(curves, {"rho": 1.0}, Limits(), progress=0.5, epochs=1).weights()
        {'urban': 0.75, 'rural': 0.25}
    """

    curves: Curves
    settings: Mapping[str, Any]
    limits: Limits
    progress: float
    epochs: float

    @property
    def beta(self) -> float | None:
        """The temperature of the target now; None if the trainer has none."""
        logged = self.curves.values.get("plural/beta")
        return logged[-1] if logged else self.settings.get("beta")

    @property
    def plural(self) -> bool:
        """Whether this is a trainer of this package."""
        return "offset_learning_rate" in self.settings

    @property
    def exact(self) -> bool:
        """Whether the answers are enumerated and nothing is sampled."""
        return bool(self.settings.get("exact"))

    def weights(self) -> dict[str, float]:
        """Return the logged weight of each cluster, if the target keeps it: pools other than ρ = 1 do not."""
        if self.settings.get("rho", 1.0) != 1.0:
            return {}
        weights = {name: self.curves.recent(WEIGHT + name) for name in self.curves.clusters(WEIGHT)}
        return {name: weight for name, weight in weights.items() if weight}
