"""What the curves of a training run say went wrong, why, and which setting cures it.

Each check reads numbers that a trainer logged, and its settings, and answers with a sentence or with nothing. This
file knows no trainer and keeps no state: `monitor` collects the numbers and passes the sentences on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from plural_rlhf.core.shares import effective_number


__all__ = ["CHECKS", "Curves", "Finding", "Limits", "Run"]

EFFECTIVE = "plural/effective_answers"
ENTROPY = "plural/entropy"
RANGE = "plural/reward_range"
SHARE = "plural/share/"
WEIGHT = "plural/weight/"

_RESIDUAL = "plural/residual_std"
_JSD = "plural/jsd_nats"
_TRUNCATED = ("plural/truncated", "completions/clipped_ratio")
# A residual or a divergence below these is as good as none, so that it need not fall any further.
_SMALL = {_RESIDUAL: 0.5, _JSD: 0.02}
# Fewer effective answers than this are one answer; more than this part of a group says nothing of how many there are.
_ALL_ALIKE, _ALL_DIFFERENT = 1.5, 0.9
# Between the means of two windows, less than these is no change.
_GROWS, _FALLS = 1.1, 0.9


@dataclass(frozen=True)
class Finding:
    """Something that went wrong in a run.

    Attributes:
        cause: Its short name, a key of `CHECKS`; there is one finding a cause at most.
        metric: The logged number, or the setting, that shows it.
        step: The optimiser step at which it was seen.
        message: What was seen, the likely cause, and the setting that cures it.
    """

    cause: str
    metric: str
    step: int
    message: str


@dataclass(frozen=True)
class Limits:
    """When a curve is worth a warning.

    Attributes:
        patience: Every comparison is between means over this many logs (at least 2), so that a noisy one warns nobody.
        diversity: Share of its start that the effective number of answers (or, without it, the entropy) may fall to.
        share: Share of its weight that a cluster may fall to.
        settle: Part of the run (0 to 1) before which shares are not judged, and half of the part before which a
            distance to the target need not have fallen.
        kl: Largest sequence KL to the reference, nats, where the trainer has no `kl_budget`.
        coverage: How far the mass on the allowed answers, or the share of valid ones, may fall below its best.
        truncated: Largest share of completions without an end token.
        sharpness: Largest range of the rewards of a group, in units of β; e to the power of it is the odds of the best
            answer against the worst.

    Raises:
        ValueError: A patience below 2, a share outside 0 to 1, or a limit that nothing can pass.
    """

    patience: int = 3
    diversity: float = 0.5
    share: float = 0.5
    settle: float = 0.25
    kl: float = 20.0
    coverage: float = 0.1
    truncated: float = 0.25
    sharpness: float = 20.0

    def __post_init__(self) -> None:
        if self.patience < 2:
            raise ValueError(f"patience is {self.patience}: means whose noise is known need at least 2 logs.")
        for name in ("diversity", "share", "settle", "coverage", "truncated"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ValueError(f"{name} is {value}: it is a share, between 0 and 1.")
        for name in ("kl", "sharpness"):
            if not (value := getattr(self, name)) > 0:
                raise ValueError(f"{name} is {value}: it is a limit above 0; math.inf turns the check off.")


class Curves:
    """The numbers of a log by name, in the order of logging, and their means over `patience` logs."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.values: dict[str, list[float]] = {}

    def add(self, row: Mapping[str, Any]) -> None:
        """Takes the finite numbers of one log; TRL logs None where it has no value."""
        for name, value in row.items():
            if isinstance(value, int | float) and math.isfinite(value):
                self.values.setdefault(name, []).append(float(value))

    def first(self, name: str) -> float | None:
        """Mean over the first window, once a second one is complete."""
        found = self.values.get(name, [])
        return float(np.mean(found[: self.patience])) if len(found) >= 2 * self.patience else None

    def recent(self, name: str) -> float | None:
        """Mean over the last window, once one is complete."""
        found = self.values.get(name, [])
        return float(np.mean(found[-self.patience :])) if len(found) >= self.patience else None

    def before(self, name: str) -> float | None:
        """Mean over the window before the last one."""
        found = self.values.get(name, [])[: -self.patience]
        return float(np.mean(found[-self.patience :])) if len(found) >= self.patience else None

    def bounds(self, name: str) -> tuple[float, float] | None:
        """Between what the mean over the last two windows may lie: two standard errors either way."""
        found = self.values.get(name, [])[-2 * self.patience :]
        if len(found) < 2 * self.patience:
            return None
        mean, error = np.mean(found), np.std(found, ddof=1) / math.sqrt(len(found))
        return float(mean - 2 * error), float(mean + 2 * error)

    def best(self, name: str) -> float | None:
        """Largest mean over any window."""
        found = self.values.get(name, [])
        if len(found) < self.patience:
            return None
        return float(np.convolve(found, np.full(self.patience, 1 / self.patience), "valid").max())

    def clusters(self, prefix: str) -> list[str]:
        """The clusters that have a curve `prefix<cluster>`."""
        return [name.removeprefix(prefix) for name in self.values if name.startswith(prefix)]


@dataclass(frozen=True)
class Run:
    """What a check may look at.

    Attributes:
        curves: The numbers logged so far.
        settings: The trainer's arguments by name.
        limits: When to warn.
        progress: Part of the run that is over, 0 to 1.
        epochs: How often the whole run meets every prompt.
    """

    curves: Curves
    settings: Mapping[str, Any]
    limits: Limits
    progress: float
    epochs: float

    @property
    def beta(self) -> float | None:
        """The temperature of the target now, None where the trainer has none."""
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
        """Asked weight of each cluster, where it is logged and the target keeps it: pools other than ρ = 1 do not."""
        if self.settings.get("rho", 1.0) != 1.0:
            return {}
        found = {name: self.curves.recent(WEIGHT + name) for name in self.curves.clusters(WEIGHT)}
        return {name: value for name, value in found.items() if value}


def scaled_rewards(run: Run) -> tuple[str, str] | None:
    """Rewards divided by their standard deviation."""
    if (scaling := run.settings.get("scale_rewards")) in ("group", "batch"):
        name, cure = "scale_rewards", "scale_rewards='none'"
    elif run.settings.get("normalize_advantages"):
        name, scaling, cure = "normalize_advantages", True, "normalize_advantages=False"
    else:
        return None
    return name, (
        f"{name} is {scaling!r}: divided by their standard deviation, a gap of 0.02 between rewards counts as much as "
        f"one of 2, so near-ties end as one answer. Set {cure} and choose the sharpness with beta (1.0 for rewards in "
        "logits)."
    )


def sharp_target(run: Run) -> tuple[str, str] | None:
    """Rewards so far apart, in units of β, that the target itself is an argmax."""
    curves, beta = run.curves, run.beta
    if beta is None:
        return None
    gap = curves.recent(RANGE)
    if gap is None and (start := curves.recent(_RESIDUAL)) is not None and curves.before(_RESIDUAL) is None:
        gap = 4 * start * beta  # The policy still is the reference, so that d = R / beta: two deviations either way.
    if gap is None or gap <= run.limits.sharpness * beta:
        return None
    cure = "set beta=1.0 (rewards in logits), or keep near-ties with tie_margin"
    if beta == 0:
        return "beta", f"beta is 0: the optimum is the answer with the largest reward, however small the gap: {cure}."
    return "beta", (
        f"rewards of one prompt lie {gap:.3g} apart and beta is {beta:g}, which makes odds of e^{gap / beta:.0f} "
        f"(limit e^{run.limits.sharpness:g}): the target itself is one answer. Likely cause: beta is small for the "
        f"scale of the rewards: {cure}."
    )


def group_estimate(run: Run) -> tuple[str, str] | None:
    """Offsets that nothing but one group of samples ever informs, and a cluster too small for a group."""
    size, mode = run.settings.get("num_generations"), run.settings.get("offsets", "responsibility")
    revisited = run.epochs > 1 and mode != "reference"
    if run.exact or not size or revisited or run.settings.get("n_ref") or mode in ("exact", "global"):
        return None
    rare = {name: weight for name, weight in run.weights().items() if weight * size < 1}
    if not rare:
        return None
    name, weight = min(rare.items(), key=lambda item: item[1])
    return WEIGHT + name, (
        f"cluster {name!r} has weight {weight:.3g}, which is {weight * size:.2g} of the {size} completions of a "
        "group, and only one group informs the offsets of a prompt: that drives clusters with less than one "
        "completion to extinction. Set n_ref=16 (reference samples at the first visit) or offsets='global', train for "
        "more epochs, or raise num_generations."
    )


def collapse(run: Run) -> tuple[str, str] | None:
    """Fewer different answers than at the start, and no sign that the target asks for it."""
    metric, unit, what = EFFECTIVE, "", "effective answers a prompt"
    answers, size = run.curves.recent(EFFECTIVE), run.settings.get("num_generations")
    if answers is None or (size and answers > _ALL_DIFFERENT * size):
        metric, unit, what = ENTROPY, " nats", "entropy of a completion"
    first, recent = run.curves.first(metric), run.curves.recent(metric)
    if first is None or recent is None or recent >= run.limits.diversity * first or _is_asked_for(run):
        return None
    return metric, (
        f"{what} fell from {first:.3g} to {recent:.3g}{unit} (limit {run.limits.diversity:.0%} of the start). Likely "
        f"cause: {'; '.join(_pressures(run))}."
    )


def _pressures(run: Run) -> list[str]:
    found = []
    if scaled_rewards(run):
        name = "normalize_advantages" if run.settings.get("normalize_advantages") else "scale_rewards"
        found.append(f"{name}={run.settings[name]!r} makes small gaps as strong as large ones, turn it off")
    if run.beta == 0:
        found.append("beta=0 asks for the answer with the largest reward, set beta=1.0")
    elif run.beta is not None and run.beta < 0.5:
        found.append(f"beta={run.beta:g} multiplies every gap by {1 / run.beta:.3g}, set beta=1.0 (rewards in logits)")
    if not found and run.plural:
        found.append("steps so large that answers are lost before the target is reached, lower learning_rate")
        found.append("or set " + ("divergence='fkl'" if run.exact else "estimator='js'"))
        if not run.exact and run.settings.get("reference_share") == 0:
            found.append("or num_iterations=4 and reference_share=0.25, which bring lost answers back")
        if not run.exact and run.settings.get("warmup_steps") == 0:
            found.append("or warmup_steps=0.1, since the first completions drawn decide what gets lost")
    return found or ["steps so large that answers are lost, lower learning_rate or raise beta"]


def _is_asked_for(run: Run) -> bool:
    """Whether the distance to the target, the shares and the number of answers agree that it is so narrow."""
    curves, weights, answers = run.curves, run.weights(), run.curves.recent(EFFECTIVE)
    distances = [(curves.first(name), curves.recent(name), small) for name, small in _SMALL.items()]
    signs = [
        recent < max(_FALLS * first, small)
        for first, recent, small in distances
        if first is not None and recent is not None
    ]
    if len(weights) > 1 and answers is not None:
        signs.append(lost_minority(run) is None)
    # Residual and shares cannot be believed alone: a group of equal answers has no residual, and offsets follow a
    # policy with one answer until its shares look right. Clusters that differ need about as many answers as clusters.
    least = _ALL_ALIKE
    if weights:
        clusters = float(effective_number(torch.tensor(list(weights.values()))))
        least = max(least, 1 + run.limits.share * (clusters - 1))
    return bool(signs) and all(signs) and (answers is None or answers >= least)


def lost_minority(run: Run) -> tuple[str, str] | None:
    """A cluster far below its weight and not on its way there."""
    curves, low = run.curves, []
    # Shares of the mass on the answers, which early in the exact mode is small.
    mass = sum(curves.recent(SHARE + name) or 0.0 for name in curves.clusters(SHARE))
    for name, weight in run.weights().items():
        now, before, bounds = curves.recent(SHARE + name), curves.before(SHARE + name), curves.bounds(SHARE + name)
        if now is None or before is None or bounds is None or mass <= 0 or run.progress < run.limits.settle:
            continue
        if bounds[1] / mass < run.limits.share * weight and now < _GROWS * before:
            low.append((name, now / mass, weight))
    if not low:
        return None
    name, share, weight = min(low, key=lambda item: item[1] / item[2])
    if run.exact:
        cause = "steps so large that answers are lost: lower learning_rate, or set divergence='fkl'"
    elif run.plural:
        speed = "offset_ema" if run.settings.get("offsets") == "ema" else "offset_learning_rate"
        cause = (
            "offsets that are too slow or start from too few samples, or steps that are too large: raise "
            f"{speed}, set n_ref=16, lower learning_rate, or set estimator='js'"
        )
    else:
        cause = (
            "scaled rewards, a small beta, or offsets that start from too few samples: set scale_rewards='none' and "
            "beta=1.0, and raise the JuryReward's offset_learning_rate"
        )
    return SHARE + name, (
        f"cluster {name!r} has a share of {share:.3g} and a weight of {weight:.3g} (limit {run.limits.share:.0%} of "
        f"the weight), and its share does not grow. Likely cause: {cause}."
    )


def no_progress(run: Run) -> tuple[str, str] | None:
    """A distance to the target that does not fall."""
    curves = run.curves
    for name, small in _SMALL.items():
        first, recent, bounds = curves.first(name), curves.recent(name), curves.bounds(name)
        if first is None or recent is None or bounds is None or run.progress < 2 * run.limits.settle:
            continue
        if bounds[0] > max(_FALLS * first, small):
            advice = "" if name == _JSD else "; long texts need a larger num_generations or estimator='js'"
            return name, (
                f"{name} does not fall ({first:.3g} nats, now {recent:.3g}). Likely cause: learning_rate is too "
                "small, or so large that the policy runs past the target; plural/kl hardly moves in the one case and "
                f"grows in the other{advice}."
            )
    return None


def far_from_reference(run: Run) -> tuple[str, str] | None:
    """A policy far from its reference."""
    name = "plural/kl"
    recent = run.curves.recent(name)
    if recent is None and (per_token := run.curves.recent("kl")) is not None:
        name, length = "kl", run.curves.recent("completions/mean_length")
        recent = None if length is None else per_token * length
    budget = run.settings.get("kl_budget")
    limit = run.limits.kl if budget is None else 1.5 * budget
    if recent is None or recent <= limit:
        return None
    cure = (
        "set kl_budget, raise beta or lower learning_rate"
        if budget is None and run.plural
        else "raise beta or lower learning_rate"
    )
    source = "" if budget is None else f", half above kl_budget={budget:g}"
    return name, (
        f"a completion is {recent:.3g} nats from the reference (limit {limit:.3g}{source}): it may be good for the "
        f"reward only. Likely cause: beta is small for the scale of the rewards, or steps are too large: {cure}."
    )


def lost_mass(run: Run) -> tuple[str, str] | None:
    """Probability that leaves the allowed or the valid answers."""
    asked = 1 - run.settings.get("other_mass", 0.0)
    for name, what in (("plural/coverage", "mass on the allowed answers"), ("plural/valid", "share of valid answers")):
        best, recent = run.curves.best(name), run.curves.recent(name)
        if best is not None and recent is not None and recent < min(best, asked) - run.limits.coverage:
            return name, (
                f"the {what} fell from {best:.3g} to {recent:.3g}. Likely cause: steps that are too large for answers "
                "that are rare already: lower learning_rate, or set "
                + ("divergence='fkl'." if run.exact else "estimator='js'.")
            )
    return None


def truncation(run: Run) -> tuple[str, str] | None:
    """Completions that are cut off."""
    for name in _TRUNCATED:
        recent = run.curves.recent(name)
        if recent is not None and recent > run.limits.truncated:
            length = run.settings.get("max_completion_length")
            return name, (
                f"{recent:.0%} of the completions end without an end token (limit {run.limits.truncated:.0%}): their "
                f"rewards are those of half an answer. Likely cause: max_completion_length={length} is too short: "
                "raise it, or teach the format with supervised steps first."
            )
    return None


def drift(run: Run) -> tuple[str, str] | None:
    """Groups of equal rewards while nothing pulls the policy back."""
    recent = run.curves.recent("frac_reward_zero_std")
    if recent is None or recent < 0.9 or run.beta != 0:
        return None
    return "frac_reward_zero_std", (
        f"{recent:.0%} of the groups have equal rewards and beta is 0: where rewards tie nothing holds the policy, "
        "and it drifts to fewer answers. Set beta=1.0, which pulls it back to the reference."
    )


CHECKS: dict[str, Callable[[Run], tuple[str, str] | None]] = {
    "scaled_rewards": scaled_rewards,
    "sharp_target": sharp_target,
    "group_estimate": group_estimate,
    "collapse": collapse,
    "lost_minority": lost_minority,
    "no_progress": no_progress,
    "far_from_reference": far_from_reference,
    "lost_mass": lost_mass,
    "truncation": truncation,
    "drift": drift,
}
"""Every cause that is looked for, and the check that answers with (metric, message) when it is there."""
