"""How loss and accuracy change with the number of a person's answers read, and whether the person matters.

Knows no model and no data set.

Shapes: `S` people, `T` positions of a sequence; at position `k` a model has read `k` answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from plural_rlhf.evaluation.in_context.rivals import rival_predictions
from plural_rlhf.evaluation.in_context.sequences import PersonSequence
from plural_rlhf.evaluation.open_ended.resampled import PromptResamples, resample_prompts
from reward_models.stats.verdicts import MIN_RATERS


__all__ = ["curve_positions", "measure_sequences"]

Numbers = Sequence[np.ndarray]


def curve_positions(length: int) -> list[int]:
    """Choose the numbers of answers at which a curve is reported: 0, 1, 2, 4, 8, ... and the last.

    Example:
        >>> curve_positions(20)
        [0, 1, 2, 4, 8, 16, 19]
    """
    powers = [0, *(2**i for i in range(length.bit_length()))]
    return [*[k for k in powers if k < length - 1], length - 1]


def measure_sequences(
    sequences: Sequence[PersonSequence],
    nats: Numbers,
    correct: Numbers,
    *,
    shuffled_nats: Numbers | None = None,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Measure how well a model predicts people's answers from their earlier ones.

    `loss_geq_1_nats` and `accuracy_geq_1` are means over all positions with at least one answer before (Spectrum
    Tuning's headline); a model's loss is that of the whole text of the answer, which a model that does not know the
    options spends on their form too. `person_gain_nats` takes this out: the loss where the answers were exchanged
    between people (`shuffled_people`) minus the loss where they are one person's. `skill_marginal` compares with what
    the others answered: `1 - loss / loss of the marginal`.

    Args:
        sequences: `S` people with `T` answers each.
        nats: Per person `(T,)` loss of each answer.
        correct: Per person `(T,)` whether the model's most probable answer was right.
        shuffled_nats: The losses of the same model on `shuffled_people(sequences)`.
        draws: Resamples of people.
        level: Level of the intervals.
        seed: Random seed.

    Returns:
        One dictionary per number, with the columns of `measure_distributions`. The group says how many answers the
        model had read, e.g. `"k = 4"`.

    Raises:
        ValueError: Sequences of different lengths, of fewer than two answers, or numbers that do not fit them.

    Example:
        >>> from plural_rlhf.evaluation.in_context.sequences import Example
        >>> def person(name, answer):
        ...     return PersonSequence(name, tuple(Example("?", answer, ("yes", "no"), f"q{i}") for i in range(3)))
        >>> people = [person(f"p{i}", "yes" if i % 2 else "no") for i in range(12)]
        >>> rows = measure_sequences(people, [np.array([0.7, 0.5, 0.3])] * 12, [np.array([0, 1, 1])] * 12)
        >>> {row["metric"]: round(row["value"], 3) for row in rows if row["group"] == "all"}
        {'skill_marginal': 0.492, 'loss_geq_1_nats': 0.4, 'accuracy_geq_1': 1.0, 'gain_of_examples_nats': 0.4}
    """
    length = len(sequences[0].examples) if sequences else 0
    lengths = {len(numbers) for table in (nats, correct, shuffled_nats or []) for numbers in table}
    lengths |= {len(sequence.examples) for sequence in sequences}
    people_of = {len(table) for table in (nats, correct, sequences if shuffled_nats is None else shuffled_nats)}
    if lengths != {length} or length < 2 or people_of != {len(sequences)}:
        raise ValueError(
            f"{len(sequences)} sequences, and numbers for {sorted(people_of)}, have the lengths {sorted(lengths)}. "
            "Fix: give sequences of one length of at least 2, and a number per answer."
        )
    lowest = min(float(np.min(numbers)) for table in (nats, shuffled_nats or []) for numbers in table)
    if lowest < -1e-6:
        raise ValueError(
            f"the losses go down to {lowest:.4g} nats. Fix: give minus the log-probability of each answer."
        )
    loss = {"model": np.stack(list(nats))}
    hits = {"model": np.stack(list(correct)).astype(np.float64)}
    for name, (of_rival, rival_hits) in _rivals(sequences).items():
        loss[name], hits[name] = np.stack(of_rival), np.stack(rival_hits)
    if all(example.best_nats is not None for sequence in sequences for example in sequence.examples):
        loss["ceiling"] = np.array([[e.best_nats for e in s.examples] for s in sequences], dtype=np.float64)
        hits["ceiling"] = np.array([[e.best_correct for e in s.examples] for s in sequences], dtype=np.float64)
    if shuffled_nats is not None:
        loss["shuffled"] = np.stack(list(shuffled_nats))
    people = resample_prompts(len(sequences), draws=draws, level=level, seed=seed)
    later = {name: table[:, 1:].mean(axis=1) for name, table in loss.items()}  # (S,)
    rows = []
    if shuffled_nats is not None:
        gain = later["shuffled"] - later["model"]
        rows.append(_row("person_gain_nats", gain, people, "nats", "higher") | {"headline": True})
    with np.errstate(divide="ignore", invalid="ignore"):
        pair = np.column_stack([later["model"], later["marginal"]])
        value, low, high = people.interval(pair, lambda means: 1 - means[..., 0] / means[..., 1])
    skill = _row("skill_marginal", later["model"], people, "skill", "higher")
    known = len(sequences) >= MIN_RATERS and np.isfinite(low)
    ends = {"value": value, "ci_low": low if known else None, "ci_high": high if known else None}
    against = {who: 1 - float(later[who].mean() / later["marginal"].mean()) for who in later if who != "model"}
    rows.append(skill | ends | {"baselines": against, "headline": shuffled_nats is None})
    rows.append(_row("loss_geq_1_nats", later["model"], people, "nats", "lower") | _beside(later))
    later_hits = {name: table[:, 1:].mean(axis=1) for name, table in hits.items()}
    rows.append(_row("accuracy_geq_1", later_hits["model"], people, "share", "higher") | _beside(later_hits))
    gained = loss["model"][:, 0] - loss["model"][:, -1]
    rows.append(_row("gain_of_examples_nats", gained, people, "nats", "higher"))
    for metric, tables, unit, direction in (
        ("loss_nats", loss, "nats", "lower"),
        ("accuracy", hits, "share", "higher"),
    ):
        for k in curve_positions(length):
            column = {name: table[:, k] for name, table in tables.items()}
            row = _row(metric, column["model"], people, unit, direction) | _beside(column)
            rows.append(row | {"group": f"k = {k}", "n_items": len(sequences)})
    return rows


def _rivals(sequences: Sequence[PersonSequence]) -> dict[str, tuple[Numbers, Numbers]]:
    """Return the baselines that the sequences bring along, or those that the sequences themselves give."""
    brought = [sequence.rivals for sequence in sequences if sequence.rivals is not None]
    if len(brought) < len(sequences):
        return dict(rival_predictions(sequences))
    return {name: ([one[name][0] for one in brought], [one[name][1] for one in brought]) for name in brought[0]}


def _beside(columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {"baselines": {name: float(column.mean()) for name, column in columns.items() if name != "model"}}


def _row(metric: str, values: np.ndarray, people: PromptResamples, unit: str, direction: str) -> dict[str, Any]:
    value, low, high = people.interval(values)
    known = len(values) >= MIN_RATERS
    return {
        "metric": metric,
        "value": value,
        "ci_low": low if known else None,
        "ci_high": high if known else None,
        "n_items": len(values),
        "n_raters": len(values),
        "unit": unit,
        "direction": direction,
        "kind": f"{len(values)} people resampled",
        "group": "all",
        "baselines": {},
        "headline": False,
    }
