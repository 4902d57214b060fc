"""Tables of answers whose true distribution is known exactly: urns, states, coins and dice.

A model that is told the chances should answer with them; these tables need no people. Knows no model.
"""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np

from plural_rlhf.evaluation.distribution.items import DistributionItem


__all__ = ["STATES", "coin_items", "dice_items", "state_items", "urn_items"]

PUBLISHED_URNS = 42
"""Seed of the published urns: Spectrum Tuning's evaluation fills them by numpy's older generator with this seed."""

_STATES = (
    "Alabama, Alaska, Arizona, Arkansas, California, Colorado, Connecticut, Delaware, Florida, Georgia, "
    "Hawaii, Idaho, Illinois, Indiana, Iowa, Kansas, Kentucky, Louisiana, Maine, Maryland, Massachusetts, "
    "Michigan, Minnesota, Mississippi, Missouri, Montana, Nebraska, Nevada, New Hampshire, New Jersey, New "
    "Mexico, New York, North Carolina, North Dakota, Ohio, Oklahoma, Oregon, Pennsylvania, Rhode Island, South "
    "Carolina, South Dakota, Tennessee, Texas, Utah, Vermont, Virginia, Washington, West Virginia, Wisconsin, "
    "Wyoming"
)
STATES = tuple(_STATES.split(", "))
"""The 50 states of the USA."""
_COLOURS = np.array(["red", "blue", "green", "yellow", "purple", "orange", "brown", "black", "white"])
_SIDES = (4, 6, 8, 10, 12, 20)


def urn_items(count: int = 1000, seed: int = PUBLISHED_URNS) -> list[DistributionItem]:
    """Fill urns with balls of two to five colours: how probable is each colour?

    The first thousand urns of the default seed are those of Spectrum Tuning's evaluation, in our words: a uniform
    guess has .0407 nats there.

    Args:
        count: Number of urns.
        seed: Seed of the urns.

    Example:
        >>> [urn] = urn_items(1)
        >>> print(urn.text)
        An urn holds 1 red ball, 2 blue balls, 4 orange balls and 6 yellow balls. One ball is drawn at random. What...
        Answer:
        >>> urn.people.round(2).tolist()
        [0.08, 0.15, 0.31, 0.46]
    """
    rng = np.random.RandomState(seed)
    items = []
    for number in range(count):
        n_colours = rng.randint(2, 6)
        most = rng.randint(1, 11, n_colours)
        colours = rng.choice(_COLOURS, n_colours, replace=False)
        balls = rng.randint(1, most + 1, n_colours)
        *first, last = (f"{n} {c} {'ball' if n == 1 else 'balls'}" for n, c in zip(balls, colours, strict=True))
        text = f"An urn holds {', '.join(first)} and {last}. One ball is drawn at random. What is its colour?\nAnswer:"
        items.append(
            DistributionItem(f"urn-{number}", text, tuple(map(str, colours)), balls / balls.sum(), listed=False)
        )
    return items


def state_items() -> list[DistributionItem]:
    """Ask for one of the 50 states of the USA, each with the same chance.

    Example:
        >>> [item] = state_items()
        >>> len(item.options), float(item.people[0])
        (50, 0.02)
    """
    text = "Name one of the 50 states of the USA, each with the same chance.\nAnswer:"
    return [DistributionItem("states", text, STATES, np.full(50, 1 / 50), listed=False)]


def coin_items() -> list[DistributionItem]:
    r"""Toss coins that land heads with 5, 10, ..., 95 percent.

    Example:
        >>> coin_items()[4].text, coin_items()[4].people.tolist()
        ('A coin lands heads with a probability of 25 percent. It is tossed once.\nResult:', [0.25, 0.75])
    """
    return [
        DistributionItem(
            f"coin-{percent}",
            f"A coin lands heads with a probability of {percent} percent. It is tossed once.\nResult:",
            ("heads", "tails"),
            np.array([percent, 100 - percent]) / 100,
            listed=False,
        )
        for percent in range(5, 100, 5)
    ]


def dice_items() -> list[DistributionItem]:
    """Roll fair dice: one die, the sum of two, and the higher of two, of 4 to 20 sides.

    Example:
        >>> {item.name: item.people.round(3).tolist() for item in dice_items()[::2][:2]}
        {'die-4': [0.25, 0.25, 0.25, 0.25], 'higher-4': [0.062, 0.188, 0.312, 0.438]}
    """
    items = []
    for sides in _SIDES:
        faces = range(1, sides + 1)
        pairs = list(itertools.product(faces, faces))
        rolls = {
            "die": (f"A fair die with {sides} sides is rolled. Which number does it show?", list(faces)),
            "sum": (f"Two fair dice with {sides} sides are rolled. What is their sum?", [a + b for a, b in pairs]),
            "higher": (
                f"Two fair dice with {sides} sides are rolled. Which is the higher number?",
                [max(pair) for pair in pairs],
            ),
        }
        for name, (question, outcomes) in rolls.items():
            counts = Counter(outcomes)
            items.append(
                DistributionItem(
                    f"{name}-{sides}",
                    f"{question}\nAnswer:",
                    tuple(str(outcome) for outcome in sorted(counts)),
                    np.array([counts[outcome] for outcome in sorted(counts)]) / len(outcomes),
                    ordinal=True,
                    listed=False,
                )
            )
    return items
