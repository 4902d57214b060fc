"""How right judged valences are: does a value support a situation, oppose it, or may it do either?

Accuracies in three classes and, without those that may do either, in two, as in Modular Pluralism (Feng et al. 2024,
https://arxiv.org/abs/2406.15951). Intervals are over values, because situations with one value share its errors. Knows
nothing of who judged.

Shapes: `N` rows of a situation and a value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from plural_rlhf.evaluation.tables.valued_situations import VALENCES, ValuedSituation, ValuesError
from reward_models.stats.answers import Interval
from reward_models.stats.few_units import means_interval


__all__ = ["valence_accuracy"]

EITHER = VALENCES.index("either")


def valence_accuracy(rows: Sequence[ValuedSituation], probabilities: np.ndarray) -> dict[str, Interval]:
    """Compute how right judged valences are.

    Args:
        rows: `N` rows with a valence.
        probabilities: (N, 3) as judged.

    Returns:
        `accuracy`, `balanced_accuracy`, `macro_f1`, `nats` (log loss), and `binary_accuracy` over rows of which
        neither the valence nor the judgement is `either` (nan without any), with intervals over values.

    Raises:
        ValuesError: Rows without a valence, or another number of probabilities.

    Example:
        >>> from plural_rlhf.evaluation.tables.valued_situations import Value
        >>> rows = [ValuedSituation("lying", Value(f"Honesty {i}"), VALENCES[i % 3]) for i in range(30)]
        >>> right = np.eye(3)[[i % 3 for i in range(30)]]
        >>> valence_accuracy(rows, right)["accuracy"].value
        1.0
    """
    gold = np.array([-1 if row.valence is None else VALENCES.index(row.valence) for row in rows])
    if (gold < 0).any() or probabilities.shape != (len(rows), len(VALENCES)):
        raise ValuesError(
            f"{(gold < 0).sum()} of {len(rows)} rows have no valence, and the probabilities have shape "
            f"{probabilities.shape}. Fix: leave such rows out, and give three numbers per row."
        )
    names, group = np.unique([row.value.text.casefold() for row in rows], return_inverse=True)
    judged = probabilities.argmax(axis=1)
    losses = -np.log(np.maximum(probabilities[np.arange(len(gold)), gold], 1e-12))
    cells = np.zeros((len(names), len(VALENCES), len(VALENCES)))
    np.add.at(cells, (group, gold, judged), 1)
    nats, sizes = np.bincount(group, losses), np.bincount(group).astype(np.float64)
    columns = np.column_stack([cells.reshape(len(names), -1), nats, sizes])
    measured = {}
    for name, measure in MEASURES.items():
        value, low, high = means_interval(columns, measure)
        low, high = np.clip([low, high], 0.0, np.inf if name == "nats" else 1.0)
        measured[name] = Interval(value, float(low), float(high), n_raters=0, n_items=len(names))
    return measured


def _table(means: np.ndarray) -> np.ndarray:
    """Return confusion tables (..., 3, 3), true valences by judged ones, of means (..., 11) over values."""
    return means[..., :-2].reshape(*means.shape[:-1], len(VALENCES), len(VALENCES))


def _right(table: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        share: np.ndarray = np.trace(table, axis1=-2, axis2=-1) / table.sum(axis=(-2, -1))
    return share


def _balanced_accuracy(means: np.ndarray) -> np.ndarray:
    table = _table(means)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall: np.ndarray = np.nanmean(np.diagonal(table, axis1=-2, axis2=-1) / table.sum(axis=-1), axis=-1)
    return recall


def _macro_f1(means: np.ndarray) -> np.ndarray:
    table = _table(means)
    both = table.sum(axis=-1) + table.sum(axis=-2)
    right = np.diagonal(table, axis1=-2, axis2=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        f1: np.ndarray = np.nanmean(np.where(both > 0, 2 * right / both, np.nan), axis=-1)
    return f1


def _binary_accuracy(means: np.ndarray) -> np.ndarray:
    return _right(np.delete(np.delete(_table(means), EITHER, axis=-2), EITHER, axis=-1))


MEASURES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "accuracy": lambda means: _right(_table(means)),
    "balanced_accuracy": _balanced_accuracy,
    "macro_f1": _macro_f1,
    "binary_accuracy": _binary_accuracy,
    "nats": lambda means: means[..., -2] / means[..., -1],
}
