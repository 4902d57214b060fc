"""Which model is better than which in all objectives: Pareto improvements among the models of a suite.

Works on the records of items, as comparisons do. Knows no model.

Shapes: `M` models, `R` items, `D` objectives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from plural_rlhf.evaluation.steerable.pareto import dominance
from plural_rlhf.report.suite.results import PEOPLE, FrontMember


__all__ = ["OBJECTIVES", "front_members"]

OBJECTIVES, OF_PEOPLE = "objectives", "objectives_of_people"


def front_members(
    task: str, records: Mapping[str, Sequence[Mapping[str, Any]]], *, draws: int = 1000, seed: int = 0
) -> list[FrontMember]:
    """Compare the objectives of models on the items that all of them answered; people are one of them if known.

    Args:
        task: Name of the task.
        records: By model the records of its items: `item`, `objectives` and, if known, `objectives_of_people`.
        draws: Resamples of the items.
        seed: Random seed.

    Returns:
        One member per model, none without two to compare.

    Example:
        >>> said = lambda a, b: [{"item": f"q{i}", "objectives": {"a": a, "b": b}} for i in range(5)]
        >>> good, bad = front_members("talk", {"good": said(0.9, 0.5), "bad": said(0.2, 0.4)})
        >>> good.on_front, bad.on_front, good.improves_on
        (1.0, 0.0, {'bad': 1.0})
    """
    by_model = {name: {r["item"]: r[OBJECTIVES] for r in rows} for name, rows in records.items()}
    known = [{r["item"]: r[OF_PEOPLE] for r in rows if OF_PEOPLE in r} for rows in records.values()]
    if known and all(len(of_people) == len(rows) for of_people, rows in zip(known, records.values(), strict=True)):
        by_model[PEOPLE] = {item: values for of_people in known for item, values in of_people.items()}
    items = [item for item in next(iter(by_model.values()), {}) if all(item in of for of in by_model.values())]
    if len(by_model) < 2 or not items:
        return []
    names = list(next(iter(by_model.values()))[items[0]])
    scores = np.array([[[of_model[item][n] for n in names] for item in items] for of_model in by_model.values()])
    result = dominance(scores, draws, seed)
    return [
        FrontMember(
            task=task,
            model=model,
            objectives=dict(zip(names, result.means[m].tolist(), strict=True)),
            on_front=float(result.on_front[m]),
            improves_on={other: float(result.probability[m, o]) for o, other in enumerate(by_model) if o != m},
            n_items=len(items),
        )
        for m, model in enumerate(by_model)
    ]
