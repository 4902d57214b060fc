"""Sequences of random variables with drawn parameters: coins, urns, counts, ranks, numbers under a hidden rule.

Each family draws its parameters anew for every sequence, says in the description what is drawn and what values there
are, and keeps the true shares. Knows no file and no model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats

from plural_rlhf.evaluation.tables.generated import STATES
from plural_rlhf.methods.spectrum.sequences import Example, SpectrumSequence
from reward_models.seeds import seeded_rng


__all__ = ["FAMILIES", "random_variable_sequences"]

Shares = tuple[str, Sequence[object] | np.ndarray, np.ndarray]
"""Description, values and their shares."""

_COLOURS = ("red", "blue", "green", "black", "white", "yellow", "orange", "purple")
_WORDS = ("apple", "river", "lamp", "stone", "cloud", "violin", "garden", "bridge", "candle", "harbour")
_RANKS = ("2", "3", "4", "5", "6", "7", "8", "9", "10", "jack", "queen", "king", "ace")
_MONTHS: tuple[str, ...] = ("January", "February", "March", "April", "May", "June", "July", "August", "September")
_MONTHS += ("October", "November", "December")
_MOST = 30
"""Largest count that a family gives a share of its own; what lies above counts as it."""


def _counts(text: str, law: Any) -> Shares:
    shares = law.pmf(np.arange(_MOST + 1))
    shares[-1] += law.sf(_MOST)
    last = int(np.flatnonzero(shares > 1e-9)[-1]) + 1
    return text, range(last), shares[:last] / shares[:last].sum()


def _binomial(rng: np.random.Generator) -> Shares:
    n = int(rng.integers(3, 16))
    return _counts(f"The number of successes in {n} tries, each with the same chance.", stats.binom(n, rng.random()))


def _negative_binomial(rng: np.random.Generator) -> Shares:
    r = int(rng.integers(1, 6))
    law = stats.nbinom(r, rng.uniform(0.3, 0.9))
    return _counts(f"The number of failures before success number {r}; {_MOST} stands for more too.", law)


def _poisson(rng: np.random.Generator) -> Shares:
    return _counts(
        f"How many customers come in an hour; {_MOST} stands for more too.", stats.poisson(rng.gamma(2.0, 3.0))
    )


def _geometric(rng: np.random.Generator) -> Shares:
    law = stats.geom(rng.uniform(0.1, 0.9), loc=-1)
    return _counts(f"The number of failures before the first success; {_MOST} stands for more too.", law)


def _geometric_beta(rng: np.random.Generator) -> Shares:
    law = stats.betanbinom(1, *rng.uniform(1, 6, size=2))
    return _counts(f"Failures before a success, each time with another coin; {_MOST} stands for more too.", law)


def _hypergeometric(rng: np.random.Generator) -> Shares:
    total = int(rng.integers(8, 30))
    marked, drawn = int(rng.integers(1, total)), int(rng.integers(2, 8))
    text = f"{drawn} of {total} balls are drawn without putting any back; the number of marked balls among them."
    return _counts(text, stats.hypergeom(total, marked, min(drawn, total)))


def _uniform(rng: np.random.Generator) -> Shares:
    low, size = int(rng.integers(0, 80)), int(rng.integers(3, 20))
    return (
        "Whole numbers from an interval, each with the same chance.",
        range(low, low + size),
        np.full(size, 1 / size),
    )


def _zipf(rng: np.random.Generator) -> Shares:
    words = rng.permutation(_WORDS)[: rng.integers(4, 11)]
    shares = np.arange(1.0, len(words) + 1) ** -rng.uniform(0.5, 2.5)
    text = f"Words of which the next most frequent is always rarer by a power law: {', '.join(sorted(words))}."
    return text, words, shares / shares.sum()


def _categorical(rng: np.random.Generator) -> Shares:
    words = rng.permutation(_WORDS)[: rng.integers(2, 9)]
    return f"One of these words: {', '.join(words)}.", words, rng.dirichlet(np.full(len(words), 0.7))


def _categories_without_names(rng: np.random.Generator) -> Shares:
    _, words, shares = _categorical(rng)
    return "Words from a bag, put back each time.", words, shares


def _cards(rng: np.random.Generator) -> Shares:
    copies = rng.integers(0, 5, size=len(_RANKS))
    copies[rng.integers(len(_RANKS))] += 1
    return "Cards from an incomplete pack, put back each time.", _RANKS, copies / copies.sum()


def _months(rng: np.random.Generator) -> Shares:
    centre, spread = rng.integers(12), rng.uniform(0.3, 3.0)
    shares = np.exp(spread * np.cos(2 * np.pi * (np.arange(12) - centre) / 12))
    return "The month of a birthday in a population with a season of births.", _MONTHS, shares / shares.sum()


def _loaded_die(rng: np.random.Generator) -> Shares:
    sides = int(rng.choice([4, 6, 8, 10, 12, 20]))
    return (
        f"Throws of a die with {sides} sides, which may be loaded.",
        range(1, sides + 1),
        rng.dirichlet([2.0] * sides),
    )


def _fair_choice(rng: np.random.Generator) -> Shares:
    states = np.sort(rng.permutation(STATES)[: rng.integers(2, 13)])
    text = f"One of these states, each with the same chance: {', '.join(states)}."
    return text, states, np.full(len(states), 1 / len(states))


def _stated_chance(rng: np.random.Generator) -> Shares:
    percent = int(rng.integers(1, 100))
    first, second = rng.permutation(_COLOURS)[:2]
    text = f"A wheel of fortune stops at {first} in {percent} of 100 turns and at {second} otherwise."
    return text, (first, second), np.array([percent, 100 - percent]) / 100


def _stated_weights(rng: np.random.Generator) -> Shares:
    words = rng.permutation(_WORDS)[: rng.integers(2, 7)]
    weights = rng.integers(1, 10, size=len(words))
    told = ", ".join(f"{word} {weight}" for word, weight in zip(words, weights, strict=True))
    return f"A word is drawn in proportion to its number of tickets: {told}.", words, weights / weights.sum()


def _rule_numbers(rng: np.random.Generator) -> Shares:
    number, low, width = int(rng.integers(2, 13)), int(rng.integers(1, 80)), int(rng.integers(4, 21))
    rules: list[Callable[[int], bool]] = [
        lambda n: n % number == 0,
        lambda n: low <= n < low + width,
        lambda n: round(n**0.5) ** 2 == n,
        lambda n: n & (n - 1) == 0,
        lambda n: n % 10 == number % 10,
        lambda n: n > 1 and all(n % d for d in range(2, int(n**0.5) + 1)),
    ]
    rule = rules[rng.integers(len(rules))]
    numbers = [n for n in range(1, 101) if rule(n)]
    return "Numbers from 1 to 100 that follow one hidden rule.", numbers, np.full(len(numbers), 1 / len(numbers))


FAMILIES: dict[str, Callable[[np.random.Generator], Shares]] = {
    "binomial": _binomial,
    "cards": _cards,
    "categorical": _categorical,
    "categories_without_names": _categories_without_names,
    "fair_choice": _fair_choice,
    "geometric": _geometric,
    "geometric_beta": _geometric_beta,
    "hypergeometric": _hypergeometric,
    "loaded_die": _loaded_die,
    "months": _months,
    "negative_binomial": _negative_binomial,
    "poisson": _poisson,
    "rule_numbers": _rule_numbers,
    "stated_chance": _stated_chance,
    "stated_weights": _stated_weights,
    "uniform": _uniform,
    "zipf": _zipf,
}
"""A function that draws description, values and their shares, by name of the family."""


def random_variable_sequences(family: str, sequences: int, examples: int, seed: int = 0) -> list[SpectrumSequence]:
    """Draw sequences of a family.

    Args:
        family: One of `FAMILIES`.
        sequences: Number of sequences, each with its own parameters.
        examples: Draws per sequence.
        seed: Random seed.

    Example:
        >>> sequence = random_variable_sequences("loaded_die", 1, 5)[0]
        >>> sequence.description, len(sequence.examples), len(sequence.options) == len(sequence.shares)
        ('Throws of a die with 20 sides, which may be loaded.', 5, True)
    """
    made = []
    for number in range(sequences):
        rng = seeded_rng(seed, f"Spectrum Suite: {family}", number)
        text, values, shares = FAMILIES[family](rng)
        options = tuple(map(str, values))
        drawn = rng.choice(len(options), size=examples, p=shares)
        made.append(
            SpectrumSequence(
                tuple(Example(options[value]) for value in drawn),
                text,
                name=f"{family} {number}",
                options=options,
                shares=tuple(shares.tolist()),
            )
        )
    return made
