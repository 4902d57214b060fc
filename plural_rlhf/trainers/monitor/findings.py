"""What went wrong in a training run, why, and which setting fixes it.

Each check reads numbers that a trainer logged, and its settings, and returns a message or None. Knows no trainer and
keeps no state: `callback` collects the numbers and logs the messages.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from plural_rlhf.core.shares import effective_number
from plural_rlhf.trainers.monitor.curves import EFFECTIVE, ENTROPY, RANGE, SHARE, TEXTS, WEIGHT, Run


__all__ = ["CHECKS", "Finding"]

_RESIDUAL = "plural/residual_std"
_JSD = "plural/jsd_nats"
_TRUNCATED = ("plural/truncated", "completions/clipped_ratio")
# A residual or a divergence below these is as good as 0, so it need not fall any further.
_SMALL = {_RESIDUAL: 0.5, _JSD: 0.02}
# Fewer effective answers than the first are one answer; above this share of a group their number is not known.
_ALL_ALIKE, _ALL_DIFFERENT = 1.5, 0.9
# A ratio of the means of two windows between these is no change.
_GROWS, _FALLS = 1.1, 0.9
# A distance to the target this many times that of the start, noise allowed for, is a policy that runs away from it.
_DIVERGES = 1.25


@dataclass(frozen=True)
class Finding:
    """Something that went wrong in a run.

    Attributes:
        cause: Its short name, a key of `CHECKS`; there is at most one finding per cause.
        metric: The logged number, or the setting, that shows it.
        step: The optimizer step at which it was seen.
        message: What was seen, the likely cause, and the setting that fixes it.

    Example:
        >>> from plural_rlhf.trainers.monitor.curves import Curves, Limits
        >>> run = Run(Curves(3), {"scale_rewards": "group"}, Limits(), progress=0.5, epochs=1)
        >>> metric, message = CHECKS["scaled_rewards"](run)
        >>> Finding("scaled_rewards", metric, step=0, message=message).message
        "scale_rewards is 'group': ... Set scale_rewards='none' and choose the sharpness with beta ..."
    """

    cause: str
    metric: str
    step: int
    message: str


def scaled_rewards(run: Run) -> tuple[str, str] | None:
    """Find rewards that are divided by their standard deviation."""
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
    """Find rewards so far apart, in units of β, that the target itself is an argmax."""
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


def flat_rewards(run: Run) -> tuple[str, str] | None:
    """Find rewards so close together, in units of β, that there is nothing to learn, within the first steps."""
    ranges, beta = run.curves.values.get(RANGE, []), run.beta
    steps = run.settings.get("logging_steps") or 1
    if not beta or not ranges or len(ranges) * max(steps, 1) < run.limits.patience:
        return None
    gap = float(np.mean(ranges[-run.limits.patience :]))
    answers = run.curves.values.get(EFFECTIVE)
    alike = answers is not None and float(np.mean(answers[-run.limits.patience :])) < _ALL_ALIKE
    # Equal answers have equal rewards, and without a reference the target of flat rewards is the uniform one.
    if gap >= run.limits.flatness * beta or alike or run.settings.get("reference_power") == 0:
        return None
    return RANGE, (
        f"rewards of one prompt lie {gap:.2g} apart and beta is {beta:g} (limit {run.limits.flatness:g} beta): the "
        f"target prefers no answer by more than a factor of {math.exp(gap / beta):.2f} over the reference, so there "
        "is nothing to learn, and shares that equal the weights prove nothing. Likely cause: a jury that does not "
        "tell these completions apart (see its columns under log_completions=True, one per cluster), clusters that "
        "cancel each other out, or a beta that is large for the scale of the rewards: fit the jury on texts like "
        "these, or lower beta."
    )


def group_estimate(run: Run) -> tuple[str, str] | None:
    """Find offsets that only one group of samples informs, with a cluster that is too small for a group."""
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
    """Find fewer different answers than at the start, if nothing shows that the target has so few."""
    size = run.settings.get("num_generations") or math.inf
    metric, unit, quantity = ENTROPY, " nats", "entropy per completion"
    for name, counted in ((EFFECTIVE, "answers"), (TEXTS, "wordings")):
        number = run.curves.recent(name)
        if number is not None and number <= _ALL_DIFFERENT * size:
            metric, unit, quantity = name, "", f"effective {counted} per prompt"
            break
    first, recent = run.curves.first(metric), run.curves.recent(metric)
    if first is None or recent is None or recent >= run.limits.diversity * first or _target_is_narrow(run):
        return None
    return metric, (
        f"{quantity} fell from {first:.3g} to {recent:.3g}{unit} (limit {run.limits.diversity:.0%} of the start). "
        f"Likely cause: {'; '.join(_pressures(run))}."
    )


def _pressures(run: Run) -> list[str]:
    pressures = []
    if scaled_rewards(run):
        name = "normalize_advantages" if run.settings.get("normalize_advantages") else "scale_rewards"
        pressures.append(f"{name}={run.settings[name]!r} makes small gaps as strong as large ones, turn it off")
    if run.beta == 0:
        pressures.append("beta=0 asks for the answer with the largest reward, set beta=1.0")
    elif run.beta is not None and run.beta < 0.5:
        pressures.append(
            f"beta={run.beta:g} multiplies every gap by {1 / run.beta:.3g}, set beta=1.0 (rewards in logits)"
        )
    if not pressures and run.plural:
        pressures.append("steps so large that answers are lost before the target is reached, lower learning_rate")
        pressures.append("or set " + ("divergence='fkl'" if run.exact else "estimator='js'"))
        if not run.exact and run.settings.get("reference_share") == 0:
            pressures.append("or num_iterations=4 and reference_share=0.25, which bring lost answers back")
        if not run.exact and run.settings.get("warmup_steps") == 0:
            pressures.append("or warmup_steps=0.1, since the first completions drawn decide what gets lost")
    return pressures or ["steps so large that answers are lost, lower learning_rate or raise beta"]


def _target_is_narrow(run: Run) -> bool:
    """Return whether the distance to the target, the shares and the number of answers agree that it is so narrow."""
    curves, weights, answers = run.curves, run.weights(), run.curves.recent(EFFECTIVE)
    distances = [(curves.first(name), curves.recent(name), small) for name, small in _SMALL.items()]
    signs = [
        recent < max(_FALLS * first, small)
        for first, recent, small in distances
        if first is not None and recent is not None
    ]
    if len(weights) > 1 and answers is not None:
        signs.append(lost_minority(run) is None)
    # Residual and shares alone prove nothing: a group of equal answers has no residual, and offsets follow a policy
    # with one answer until its shares look right. Clusters that differ need about as many answers as clusters.
    least = _ALL_ALIKE
    if weights:
        clusters = float(effective_number(torch.tensor(list(weights.values()))))
        least = max(least, 1 + run.limits.share * (clusters - 1))
    return bool(signs) and all(signs) and (answers is None or answers >= least)


def lost_minority(run: Run) -> tuple[str, str] | None:
    """Find a cluster far below its weight and not on its way there.

    Of free text it must also have fallen: where all completions differ, the mean responsibilities near the reference
    say how selective a cluster is, and not who is served.
    """
    curves, low, free_text = run.curves, [], _all_different(run)
    # Shares of the mass on the answers, which early in the exact mode is small.
    mass = sum(curves.recent(SHARE + name) or 0.0 for name in curves.clusters(SHARE))
    for name, weight in run.weights().items():
        now, before, bounds = curves.recent(SHARE + name), curves.before(SHARE + name), curves.bounds(SHARE + name)
        if now is None or before is None or bounds is None or mass <= 0 or run.progress < run.limits.settle:
            continue
        start = curves.first(SHARE + name)
        if free_text and start is not None and now >= _FALLS * start:
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


def _all_different(run: Run) -> bool:
    """Return whether the completions of a group all differed at the start, as free text does."""
    answers, size = run.curves.first(EFFECTIVE), run.settings.get("num_generations") or math.inf
    return not run.exact and answers is not None and answers > _ALL_DIFFERENT * size


def diverges(run: Run) -> tuple[str, str] | None:
    """Find a distance to the target that is above that of the start, by more than its noise."""
    curves = run.curves
    for name, small in _SMALL.items():
        first, bounds = curves.first(name), curves.bounds(name)
        if first is None or bounds is None or bounds[0] <= max(_DIVERGES * first, small):
            continue
        recent, kl = curves.recent(name), curves.recent("plural/kl")
        distance = "" if kl is None else f", at {kl:.3g} nats from the reference"
        return name, (
            f"{name} rose from {first:.3g} to {recent:.3g} nats{distance}: the policy moves away from its target, and "
            f"is worse than the reference that it started from. Likely cause: learning_rate="
            f"{run.settings.get('learning_rate', math.nan):g} is too large for this model: stop, and start again with "
            "a quarter of it."
        )
    return None


def no_progress(run: Run) -> tuple[str, str] | None:
    """Find a distance to the target that neither falls nor runs away."""
    curves = run.curves
    if diverges(run):
        return None
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
    """Find a policy far from its reference."""
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
    """Find probability that moves away from the allowed or the valid answers."""
    target = 1 - run.settings.get("other_mass", 0.0)
    for name, mass in (("plural/coverage", "mass on the allowed answers"), ("plural/valid", "share of valid answers")):
        best, recent = run.curves.best(name), run.curves.recent(name)
        if best is not None and recent is not None and recent < min(best, target) - run.limits.coverage:
            return name, (
                f"the {mass} fell from {best:.3g} to {recent:.3g}. Likely cause: steps that are too large for answers "
                "that are rare already: lower learning_rate, or set "
                + ("divergence='fkl'." if run.exact else "estimator='js'.")
            )
    return None


def truncation(run: Run) -> tuple[str, str] | None:
    """Find completions that are cut off."""
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
    """Find groups of equal rewards while no term pulls the policy back."""
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
    "flat_rewards": flat_rewards,
    "group_estimate": group_estimate,
    "collapse": collapse,
    "lost_minority": lost_minority,
    "diverges": diverges,
    "no_progress": no_progress,
    "far_from_reference": far_from_reference,
    "lost_mass": lost_mass,
    "truncation": truncation,
    "drift": drift,
}
"""Every cause, and the check that returns (metric, message) if it is there."""
