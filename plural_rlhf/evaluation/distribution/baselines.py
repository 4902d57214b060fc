"""What any model of answers has to beat, and what none can: uniform, marginal, mode, and the noise of few answers.

A distance between a model's distribution and people's cannot be read without them: on two of seven published tables a
uniform guess beats most published rows. Knows no model and no data set.

Shapes: `I` items, `A` options of an item (items of a table may differ).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from plural_rlhf.evaluation.distribution.distances import DISTANCES, Distance
from plural_rlhf.evaluation.distribution.items import DistributionItem, positions_by
from reward_models.seeds import seeded_rng
from reward_models.stats.answers import normalise


__all__ = ["distances_to_people", "global_marginals", "marginals", "modes", "noise_floors", "uniforms"]

Shares = Sequence[np.ndarray]


def uniforms(items: Sequence[DistributionItem]) -> list[np.ndarray]:
    """Return the uniform distribution over the options of each item.

    Example:
        >>> from plural_rlhf.evaluation.distribution.items import counted_item
        >>> [p.tolist() for p in uniforms([counted_item("q", "?", "ab", [3, 1])])]
        [[0.5, 0.5]]
    """
    return [np.full(len(item.options), 1 / len(item.options)) for item in items]


def modes(items: Sequence[DistributionItem]) -> list[np.ndarray]:
    """Return the distribution that always gives people's most frequent answer: what a collapsed model does.

    Example:
        >>> from plural_rlhf.evaluation.distribution.items import counted_item
        >>> [p.tolist() for p in modes([counted_item("q", "?", "ab", [3, 1])])]
        [[1.0, 0.0]]
    """
    return [np.eye(len(item.options))[item.people.argmax()] for item in items]


def marginals(items: Sequence[DistributionItem]) -> list[np.ndarray] | None:
    """Return what people answer elsewhere: the mean of the other groups' distributions over the same options.

    Of an item whose question was asked of one group only, it is the mean over the other items with the same options;
    without such items it is uniform. The item itself is always left out, so that the baseline is one that a model
    could use. Marginals that the items bring along are returned as they are: those of a whole table, from which a few
    items were selected.

    Returns:
        One distribution per item; None unless most items have others with their options.

    Example:
        >>> from plural_rlhf.evaluation.distribution.items import counted_item
        >>> items = [counted_item(g, "?", "ab", [n, 10 - n], group=g, question="q") for g, n in zip("xyz", (9, 5, 7))]
        >>> [p.round(2).tolist() for p in marginals(items)]
        [[0.6, 0.4], [0.8, 0.2], [0.7, 0.3]]
    """
    brought = [item.marginal for item in items if item.marginal is not None]
    if len(brought) == len(items):
        return brought
    result: list[np.ndarray | None] = [None] * len(items)
    for _, positions in positions_by(items, lambda item: item.options):
        _leave_one_out(result, items, positions)
    for _, positions in positions_by(items, lambda item: (item.question, item.options)):
        _leave_one_out(result, items, positions)
    if sum(shares is None for shares in result) >= len(items) / 2:
        return None
    guesses = uniforms(items)
    return [guess if shares is None else shares for shares, guess in zip(result, guesses, strict=True)]


def global_marginals(items: Sequence[DistributionItem]) -> list[np.ndarray] | None:
    """Return the mean distribution over all items with the same options, the item itself among them.

    The literature reports this one; it knows a little of what it is measured on. Uniform for an item with options of
    its own.

    Returns:
        One distribution per item; None unless most items have others with their options.

    Example:
        >>> from plural_rlhf.evaluation.distribution.items import counted_item
        >>> items = [counted_item("p", "?", "ab", [3, 1]), counted_item("q", "?", "ab", [1, 3])]
        >>> [p.tolist() for p in global_marginals(items)]
        [[0.5, 0.5], [0.5, 0.5]]
    """
    result = uniforms(items)
    shared = 0
    for _, positions in positions_by(items, lambda item: item.options):
        if len(positions) < 2:
            continue
        shared += len(positions)
        mean = np.mean([items[position].people for position in positions], axis=0)
        for position in positions:
            result[position] = mean
    return result if shared > len(items) / 2 else None


def distances_to_people(
    items: Sequence[DistributionItem], shares: Shares, measures: Mapping[str, Distance] = DISTANCES
) -> dict[str, np.ndarray]:
    """Compute measures of a distribution over the options of every item against people's.

    Args:
        items: `I` items.
        shares: `I` distributions, each over the options of its item.
        measures: Measures by name. Those of ordered options are left out unless all items are ordinal.

    Returns:
        `(I,)` values by name of the measure.

    Example:
        >>> from plural_rlhf.evaluation.distribution.items import counted_item
        >>> items = [counted_item("q", "?", "ab", [3, 1])]
        >>> values = distances_to_people(items, uniforms(items))
        >>> float(values["total_variation"][0]), round(float(values["jsd_nats"][0]), 4), "wasserstein_1" in values
        (0.25, 0.0338, False)
    """
    ordinal = all(item.ordinal for item in items)
    values = {name: np.empty(len(items)) for name, measure in measures.items() if ordinal or not measure.ordered}
    for _, positions in positions_by(items, lambda item: len(item.options)):
        p = np.stack([items[position].people for position in positions])
        q = np.stack([shares[position] for position in positions])
        for name in values:
            values[name][positions] = measures[name].compute(p, q)
    return values


def noise_floors(
    items: Sequence[DistributionItem],
    measures: Mapping[str, Distance] = DISTANCES,
    *,
    draws: int = 100,
    seed: int = 0,
) -> dict[str, np.ndarray] | None:
    """Compute what a perfect model would still score, because only `n` people were asked.

    Samples of `n` answers are drawn from people's distribution and compared with it (`reward_models.stats.answers`).

    Args:
        items: `I` items.
        measures: As for `distances_to_people`.
        draws: Samples per item.
        seed: Random seed.

    Returns:
        `(I,)` by name of the measure; 0 (or the best value) for an item whose shares are exact. None if all are.

    Example:
        >>> from plural_rlhf.evaluation.distribution.items import counted_item
        >>> items = [counted_item(str(n), "?", "ab", [n, n]) for n in (10, 1000)]
        >>> noise_floors(items, draws=2000)["jsd_nats"].round(3).tolist()  # about 1 / (8 n)
        [0.006, 0.0]
    """
    if all(item.n is None for item in items):
        return None
    rng = seeded_rng(seed, "floor of a table of distributions")
    names = [name for name, m in measures.items() if all(item.ordinal for item in items) or not m.ordered]
    values = {name: np.empty(len(items)) for name in names}
    for _, positions in positions_by(items, lambda item: len(item.options)):
        p = np.stack([items[position].people for position in positions])
        p /= p.sum(axis=-1, keepdims=True)
        n = np.array([items[position].n or 1 for position in positions])
        exact = np.array([items[position].n is None for position in positions])
        samples = normalise(rng.multinomial(n, p, size=(draws, len(p))))
        samples[:, exact] = p[exact]
        for name in names:
            values[name][positions] = measures[name].compute(samples, p).mean(axis=0)
    return values


def _leave_one_out(result: list[np.ndarray | None], items: Sequence[DistributionItem], positions: np.ndarray) -> None:
    """Write the mean of the other items into each of `positions`, if there are others."""
    if len(positions) < 2:
        return
    total = np.sum([items[position].people for position in positions], axis=0)
    for position in positions:
        # Rounding may leave -1e-17 where only this item has an answer.
        result[position] = np.maximum(total - items[position].people, 0.0) / (len(positions) - 1)
