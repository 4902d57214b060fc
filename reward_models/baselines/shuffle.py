"""A table whose raters have lost their taste: the control in which there is nothing to personalise.

Knows nothing of models.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from reward_models.judgements.encoding import Encoded
from reward_models.raters.predictors import require_raters
from reward_models.seeds import seeded_rng


__all__ = ["shuffle_raters"]


def shuffle_raters(enc: Encoded, seed: int = 0) -> Encoded:
    """Permute the raters among the judgements of each item: a table with nothing to personalise.

    Every item keeps its answers and every rater the items judged (hence the number of judgements), but the assignment
    of answers to raters is random. Leniency and other rater terms are lost with the taste.

    Args:
        enc: A table with raters.
        seed: Random seed of the permutations.

    Returns:
        The same judgements with other raters.

    Raises:
        JuryError: A table without raters.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("choice", num_raters=30, num_items=2).judgements.encode()
        >>> shuffled = shuffle_raters(enc)
        >>> [sorted(table.rater[table.item == 0]) == list(range(30)) for table in (enc, shuffled)]
        [True, True]
    """
    require_raters(enc, "shuffling raters")
    by_item = np.argsort(enc.item, kind="stable")
    shuffled = np.lexsort((seeded_rng(seed, "shuffled raters").random(len(enc)), enc.item))
    rater = enc.rater.copy()
    rater[by_item] = enc.rater[shuffled]
    return dataclasses.replace(enc, rater=rater)
