"""The "7" check: does a policy that is asked for a random number have a favourite?

A reward that is a little higher for one number makes a reward-maximising policy say nothing else. Asked in several
wordings for a number from 1 to 10, a policy is compared with the uniform distribution, and with people's where that is
known. Knows nothing of models.

Shapes: `W` wordings, `A` numbers, `n` answers a wording.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from plural_rlhf.evaluation.intervals import wilson_interval
from reward_models.seeds import seeded_rng
from reward_models.stats.answers import Interval, entropy, js_divergence, normalise


__all__ = ["RANDOM_NUMBER_WORDINGS", "FavouriteNumber", "favourite_number", "said_number"]

RANDOM_NUMBER_WORDINGS = (
    "Pick a random number from 1 to 10. Reply with the number only.",
    "Say a number between 1 and 10, chosen at random:",
    "I roll a fair ten-sided die with faces 1 to 10. It shows",
    "Generate one random integer in the range 1-10.",
    "Give me any whole number from one to ten, in digits.",
)
"""Requests for a random number from 1 to 10."""


@dataclass(frozen=True)
class FavouriteNumber:
    """How far a policy's random numbers are from random.

    Attributes:
        shares: (A,) share of each number among the valid answers, wordings counting equally.
        favourite: The most frequent number.
        mode_share: Share of valid answers that are the favourite, with Wilson's interval over answers.
        validity: Share of answers that name a number of the range, with Wilson's interval.
        entropy: Of the shares, nats, with a bootstrap interval over the answers of each wording.
        js_to_uniform: Jensen-Shannon divergence of the shares from uniform, nats, with the same interval.
        js_to_people: The same from people's answers; None if they are unknown.
        js_floor: Mean `js_to_uniform` of a policy that is uniform, at this number of answers.
        between_wordings: Mean divergence of a wording's shares from the shares of all, nats: a policy that says
            another number to each wording is not random either.

    Example:
        >>> check = favourite_number([["7"] * 9 + ["3"], ["7"] * 10])
        >>> check.favourite, check.mode_share.value, round(check.entropy.value, 3), round(check.js_floor, 3)
        (7, 0.95, 0.199, 0.077)
    """

    shares: np.ndarray
    favourite: int
    mode_share: Interval
    validity: Interval
    entropy: Interval
    js_to_uniform: Interval
    js_to_people: Interval | None
    js_floor: float
    between_wordings: float


def said_number(text: str, least: int = 1, most: int = 10) -> int | None:
    """Return the number that an answer names: its first whole number, if it is in the range.

    Example:
        >>> [said_number(text) for text in ("7.", "I choose 3, not 4", "3.14", "42", "Seven")]
        [7, 3, None, None, None]
    """
    found = re.search(r"(?<![\d.,-])\d+(?![\d]|[.,]\d)", text)
    return int(found.group()) if found and least <= int(found.group()) <= most else None


def favourite_number(
    answers: Sequence[Sequence[str]],
    people: np.ndarray | Sequence[float] | None = None,
    *,
    least: int = 1,
    most: int = 10,
    draws: int = 1000,
    seed: int = 0,
) -> FavouriteNumber:
    """Measure answers to requests for a random number.

    Args:
        answers: The texts for each of `W` wordings.
        people: (A,) people's shares of the numbers.
        least: Least number asked for.
        most: Greatest number asked for.
        draws: Number of resamples.
        seed: Random seed.

    Raises:
        ValueError: No answer names a number, or people's shares have another length.

    Example:
        >>> check = favourite_number([[str(n) for n in range(1, 11)]] * 3)
        >>> round(check.entropy.value, 4), round(check.js_to_uniform.value, 4), round(float(np.log(10)), 4)
        (2.3026, 0.0, 2.3026)
    """
    numbers = range(least, most + 1)
    said = [[said_number(text, least, most) for text in of_wording] for of_wording in answers]
    table = np.array([[of_wording.count(number) for number in numbers] for of_wording in said], dtype=np.int64)
    table = table.reshape(len(answers), len(numbers))
    used = table.sum(axis=1) > 0
    if not used.any():
        raise ValueError(
            f"none of {sum(map(len, answers))} answers names a number from {least} to {most}. Fix: ask for "
            "digits, and look at the answers."
        )
    target = None if people is None else np.asarray(people, dtype=np.float64)
    if target is not None and target.shape != (len(numbers),):
        raise ValueError(f"people's shares have shape {target.shape} for {len(numbers)} numbers. Fix: one per number.")
    counts = table[used]
    shares = normalise(counts).mean(axis=0)
    rng = seeded_rng(seed, "random numbers")
    drawn = np.stack([rng.multinomial(c.sum(), c / c.sum(), size=draws) for c in counts], axis=1)  # (draws, W, A)
    resampled = normalise(drawn).mean(axis=1)
    uniform = np.full(len(numbers), 1 / len(numbers))
    even = np.stack([rng.multinomial(c.sum(), uniform, size=draws) for c in counts], axis=1)
    favourite = int(shares.argmax())
    total, valid = sum(map(len, answers)), int(counts.sum())
    return FavouriteNumber(
        shares=shares,
        favourite=numbers[favourite],
        mode_share=wilson_interval(int(counts[:, favourite].sum()), valid),
        validity=wilson_interval(valid, total),
        entropy=_interval(float(entropy(shares)), entropy(resampled), valid),
        js_to_uniform=_interval(float(js_divergence(shares, uniform)), js_divergence(resampled, uniform), valid),
        js_to_people=None
        if target is None
        else _interval(float(js_divergence(shares, target)), js_divergence(resampled, target), valid),
        js_floor=float(js_divergence(normalise(even).mean(axis=1), uniform).mean()),
        between_wordings=float(js_divergence(normalise(counts), shares).mean()),
    )


def _interval(value: float, drawn: np.ndarray, n: int) -> Interval:
    """Centre the draws on the value: resampling adds noise, which lowers entropies and raises divergences."""
    low, high = np.quantile(drawn - drawn.mean() + value, [0.025, 0.975])
    return Interval(value, max(float(low), 0.0), float(high), 0, n)
