"""Random streams of both packages, derived from the user's seed and the purpose of the draws.

A simulation by `np.random.default_rng(s)` and a function of ours called with `seed=s` must not see the same random
numbers: raters' judgements drawn from a stream and held out by that stream again are held out by their answers. So no
function seeds a generator with the user's seed itself. The entropy of every stream is a hash of a salt, the purpose,
the seed, and further numbers such as the step. Two purposes with the same seed are independent too.

Knows nothing of what is drawn.
"""

from __future__ import annotations

import hashlib
import operator

import numpy as np


__all__ = ["derived_seed", "seeded_rng"]

_SALT = "plural-rlhf"


def seeded_rng(seed: int | np.random.Generator, purpose: str, *keys: int) -> np.random.Generator:
    """Return the generator of a seed for one purpose.

    Args:
        seed: The user's seed, an integer of at least 0 and any size. A generator is returned as it is.
        purpose: What is drawn; each place that draws has its own.
        *keys: Further integers that tell streams apart, e.g. the training step.

    Raises:
        TypeError: The seed is not an integer.
        ValueError: The seed is negative.

    Example:
        >>> ours, users = seeded_rng(0, "heldout labels"), np.random.default_rng(0)
        >>> bool(ours.random() == seeded_rng(0, "heldout labels").random())
        True
        >>> bool(seeded_rng(0, "heldout labels").random() == users.random())
        False
        >>> seeded_rng(-1, "heldout labels")
        Traceback (most recent call last):
        ValueError: seed=-1 is negative. Fix: pass an integer of at least 0, e.g. seed=0.
    """
    if isinstance(seed, np.random.Generator):
        return seed
    return np.random.default_rng(np.random.SeedSequence(_entropy(seed, purpose, keys)))


def derived_seed(seed: int, purpose: str, *keys: int) -> int:
    """Return an integer of at most 63 bits for generators that are not numpy's, e.g. `torch.Generator`.

    Args:
        seed: An integer, as for `seeded_rng`.
        purpose: As for `seeded_rng`.
        *keys: As for `seeded_rng`.

    Example:
        >>> derived_seed(0, "first heads") == derived_seed(1, "first heads")
        False
        >>> derived_seed(True, "first heads")
        Traceback (most recent call last):
        TypeError: seed=True is a bool, not an integer. Fix: pass an integer of at least 0, e.g. seed=0.
    """
    return _entropy(seed, purpose, keys) >> (256 - 63)


def _entropy(seed: int, purpose: str, keys: tuple[int, ...]) -> int:
    """Hash salt, purpose, seed and keys to 256 bits; a hash, because `SeedSequence` takes `[s, 0]` for `[s]`."""
    fix = "Fix: pass an integer of at least 0, e.g. seed=0."
    try:
        number = operator.index(seed)
    except TypeError:
        number = None
    if number is None or isinstance(seed, bool | np.bool_):
        raise TypeError(f"seed={seed!r} is a {type(seed).__name__}, not an integer. {fix}")
    if number < 0:
        raise ValueError(f"seed={number} is negative. {fix}")
    text = repr((_SALT, purpose, number, *map(int, keys)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")
