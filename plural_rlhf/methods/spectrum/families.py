"""Sequences of random variables whose posterior predictive is known: coins, urns, normals.

What a model should say of the next example is then known exactly, so it can be told how well it learnt to infer.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

from plural_rlhf.methods.spectrum.sequences import Example, SpectrumSequence
from reward_models.seeds import seeded_rng


__all__ = ["coin_flips", "normal_draws", "urn_draws"]

_COLOURS = ("red", "blue", "green", "black", "white", "yellow")


def coin_flips(sequences: int, length: int, *, described: bool = False, seed: int = 0) -> list[SpectrumSequence]:
    """Return flips of coins whose probability of heads is uniform on [0, 1].

    After h heads in n flips the next is heads with probability (h + 1) / (n + 2) (Laplace).

    Args:
        sequences: Number of coins.
        length: Flips per coin.
        described: Whether a description says that they are flips of one coin.
        seed: Random seed.

    Example:
        >>> flips = coin_flips(1, 4)[0]
        >>> {example.output for example in flips.examples} <= {"heads", "tails"}
        True
    """
    rng = seeded_rng(seed, "coins of Spectrum")
    text = "Flips of one coin, which may be biased." if described else None
    made = []
    for number in range(sequences):
        flips = rng.random(length)
        bias = float(rng.random())
        examples = tuple(Example("heads" if flip < bias else "tails") for flip in flips)
        made.append(
            SpectrumSequence(
                examples, text, name=f"coin {number}", options=("heads", "tails"), shares=(bias, 1 - bias)
            )
        )
    return made


def urn_draws(
    sequences: int, length: int, *, colours: int = 3, described: bool = False, seed: int = 0
) -> list[SpectrumSequence]:
    """Return draws with replacement from urns whose shares of colours are uniform on the simplex.

    After n draws, c of a colour, the next has that colour with probability (c + 1) / (n + `colours`).

    Args:
        sequences: Number of urns.
        length: Draws per urn.
        colours: Number of colours, 2 to 6, the same in every urn.
        described: Whether a description names the colours.
        seed: Random seed.

    Raises:
        ValueError: `colours` is out of range.

    Example:
        >>> len(urn_draws(2, 5)[1].examples)
        5
    """
    if not 2 <= colours <= len(_COLOURS):
        raise ValueError(f"colours={colours} is out of range. Fix: use 2 to {len(_COLOURS)}.")
    rng = seeded_rng(seed, "urns of Spectrum")
    names = _COLOURS[:colours]
    text = f"Balls from an urn, put back each time: {', '.join(names)}." if described else None
    made = []
    for number in range(sequences):
        shares = rng.dirichlet([1.0] * colours)
        examples = tuple(Example(names[c]) for c in rng.choice(colours, size=length, p=shares))
        made.append(
            SpectrumSequence(examples, text, name=f"urn {number}", options=names, shares=tuple(shares.tolist()))
        )
    return made


def normal_draws(sequences: int, length: int, *, described: bool = False, seed: int = 0) -> list[SpectrumSequence]:
    """Return whole numbers near a mean that is itself normal: mean N(50, 15²), numbers N(mean, 5²), kept in 0 to 99.

    Args:
        sequences: Number of means.
        length: Numbers per mean.
        described: Whether a description says so.
        seed: Random seed.

    Example:
        >>> all(0 <= int(example.output) <= 99 for example in normal_draws(1, 20)[0].examples)
        True
    """
    rng = seeded_rng(seed, "normals of Spectrum")
    text = "Whole numbers from one normal distribution." if described else None
    made = []
    for number in range(sequences):
        mean = rng.normal(50, 15)
        drawn = rng.normal(mean, 5, size=length).round().clip(0, 99).astype(int)
        below = norm.cdf(np.arange(99) + 0.5, mean, 5)  # rounded to 0, 1, ..., 98 or less
        made.append(
            SpectrumSequence(
                tuple(Example(str(n)) for n in drawn),
                text,
                name=f"normal {number}",
                options=tuple(map(str, range(100))),
                shares=tuple(np.diff(below, prepend=0.0, append=1.0).tolist()),
            )
        )
    return made
