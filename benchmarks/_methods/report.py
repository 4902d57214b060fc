"""Distances of the methods' answers from held-out people, paired differences, and their intervals.

A question's value is the mean over the divisions in which it was on that side. Over surveys every survey counts alike.
Intervals resample questions within each survey (countries, where a survey has them). The deviations of a survey of `n`
questions are widened by `sqrt(n / (n - 1))`, because few are resampled too narrowly. Which surveys there are is not
resampled: the intervals are about other questions of these surveys. Knows no method.

Shapes: `I` questions, `A` options, `B` resamples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from _common import row
from _methods.surveys import EVERYBODY, Division


if TYPE_CHECKING:
    import numpy as np

__all__ = ["RIVALS", "Scores", "rows_of", "score"]

RIVALS = ("marginal", "ours")
PARTS = ("trained", "heldout")
DRAWS = 4000
ALL = "all surveys"
METRICS = {"jsd_nats": "nats", "jsd_groups_nats": "nats", "coverage": "probability"}


@dataclass
class Scores:
    """Values of one method by metric, part, survey, and question.

    Attributes:
        values: By metric, part, survey and question: a value per division.
        block: By survey and question: what is resampled as one.
    """

    values: dict[tuple[str, str, str, str], list[float]] = field(default_factory=dict)
    block: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, metric: str, division: Division, position: int, value: float) -> None:
        """Add the value of one question."""
        part = PARTS[int(division.heldout[position])]
        key = metric, part, division.survey, division.items[position]
        self.values.setdefault(key, []).append(value)
        self.block[division.survey, division.items[position]] = division.blocks[position]

    def by_question(self, metric: str, part: str, survey: str) -> dict[str, float]:
        """Mean over the divisions, by question."""
        return {
            question: sum(values) / len(values)
            for (m, p, s, question), values in self.values.items()
            if (m, p, s) == (metric, part, survey)
        }


def score(scores: Scores, division: Division, answers: Mapping[str, np.ndarray]) -> None:
    """Measure the answers of one division."""
    import numpy as np

    from reward_models.stats.answers import js_divergence, normalise

    everybody = np.asarray(answers[EVERYBODY], dtype=float)
    for position in np.flatnonzero(np.isfinite(everybody).all(axis=1)).tolist():
        p = normalise(everybody[position])
        people = division.people[EVERYBODY][position]
        scores.add("jsd_nats", division, position, float(js_divergence(people, p)))
        scores.add("coverage", division, position, float(everybody[position].sum()))
        groups = [
            float(js_divergence(division.people[name][position], normalise(np.asarray(answers[name][position]))))
            for name in division.groups
        ]
        if groups:
            scores.add("jsd_groups_nats", division, position, sum(groups) / len(groups))


def rows_of(scores: Mapping[str, Scores], surveys: Iterable[str], labels: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of every method: each survey, all surveys together, and paired differences from the rivals."""
    rows = []
    surveys = list(surveys)
    for method, of in scores.items():
        for metric, unit in METRICS.items():
            for part in PARTS:
                values = {survey: of.by_question(metric, part, survey) for survey in surveys}
                rows += _survey_rows(method, metric, unit, values, of, {"part": part, **labels})
                for rival in (name for name in RIVALS if name in scores and name != method and metric != "coverage"):
                    other = {survey: scores[rival].by_question(metric, part, survey) for survey in surveys}
                    difference = {
                        survey: {q: v - other[survey][q] for q, v in values[survey].items() if q in other[survey]}
                        for survey in surveys
                    }
                    rows += _survey_rows(
                        method, f"{metric}_difference", unit, difference, of, {"part": part, "rival": rival, **labels}
                    )
    return rows


def _survey_rows(
    method: str,
    metric: str,
    unit: str,
    values: Mapping[str, Mapping[str, float]],
    scores: Scores,
    labels: Mapping[str, Any],
) -> list[dict[str, Any]]:
    import numpy as np

    from reward_models.seeds import seeded_rng

    rows, means, drawn, number = [], [], [], 0
    for survey, by_question in values.items():
        if not by_question:
            continue
        blocks = sorted({scores.block[survey, question] for question in by_question})
        place = {block: position for position, block in enumerate(blocks)}
        sums = np.zeros((len(blocks), 2))
        for question, value in by_question.items():
            sums[place[scores.block[survey, question]]] += value, 1
        picked = seeded_rng(0, f"questions of {survey}").integers(len(blocks), size=(DRAWS, len(blocks)))
        total = sums[picked].sum(axis=1)
        mean = float(sums[:, 0].sum() / sums[:, 1].sum())
        spread = np.sqrt(len(blocks) / max(len(blocks) - 1, 1))
        means.append(mean)
        drawn.append(mean + spread * (total[:, 0] / total[:, 1] - mean))
        number += len(blocks)
        rows.append(_row(survey, method, metric, unit, mean, drawn[-1], len(blocks), labels))
    if len(means) > 1:
        mean = float(np.mean(means))
        rows.append(_row(ALL, method, metric, unit, mean, np.mean(drawn, axis=0), number, labels))
        rows[-1]["surveys"] = len(means)
    return rows


def _row(
    survey: str,
    method: str,
    metric: str,
    unit: str,
    mean: float,
    drawn: np.ndarray,
    number: int,
    labels: Mapping[str, Any],
) -> dict[str, Any]:
    import numpy as np

    low, high = np.quantile(drawn, [0.025, 0.975]) if number > 1 else (np.nan, np.nan)
    return row(
        survey, method, metric, mean, unit, low=float(min(low, mean)), high=float(max(high, mean)), n=number, **labels
    )
