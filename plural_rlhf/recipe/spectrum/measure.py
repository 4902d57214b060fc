"""What a model makes of held-out sequences, and how far one model is ahead of another, sequence by sequence.

Knows no run folder.

Shapes: `S` sequences, `E` examples, `P` positions at which options are scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from plural_rlhf.evaluation.intervals import bca_interval
from plural_rlhf.methods.spectrum.losses import example_losses
from plural_rlhf.methods.spectrum.options import option_curves
from plural_rlhf.methods.spectrum.sequences import SpectrumSequence
from plural_rlhf.methods.spectrum.template import SpectrumTemplate
from plural_rlhf.report.spectrum.results import SpectrumCurve, SpectrumNumber
from reward_models.stats.answers import js_divergence


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["SequenceMeasures", "compare_task", "measure_task"]

METRICS = {
    "js_0": "JS divergence to the true shares, no example read",
    "js_geq_1": "JS divergence to the true shares, after at least one example",
    "choice_0": "loss of the answer among the options, no example read",
    "choice_geq_1": "loss of the answer among the options, after at least one example",
    "loss_geq_1": "loss of the whole output, after at least one example",
}
"""What is compared, in nats; less is better."""


@dataclass(frozen=True)
class SequenceMeasures:
    """What a model made of the sequences of a task.

    Attributes:
        positions: `P` numbers of examples read at which options were scored.
        nats: `(S, E)` loss of each output with its end token, NaN where there is none.
        js: `(S, P)` divergence from the true shares, NaN where they are unknown.
        choice: `(S, P)` loss of the output among the options, NaN where there are none.

    Example:
        >>> measures = SequenceMeasures((0, 1), np.array([[3.0, 1.0]]), np.array([[0.4, 0.2]]), np.array([[1.0, 0.5]]))
        >>> {name: values.tolist() for name, values in measures.by_sequence().items()}["js_geq_1"]
        [0.2]
    """

    positions: tuple[int, ...]
    nats: np.ndarray
    js: np.ndarray
    choice: np.ndarray

    def by_sequence(self) -> dict[str, np.ndarray]:
        """Return each metric, `(S,)`; NaN where a sequence has none."""
        first = np.array([place == 0 for place in self.positions], dtype=bool)
        return {
            "js_0": _mean(self.js[:, first]),
            "js_geq_1": _mean(self.js[:, ~first]),
            "choice_0": _mean(self.choice[:, first]),
            "choice_geq_1": _mean(self.choice[:, ~first]),
            "loss_geq_1": _mean(self.nats[:, 1:]),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, null for NaN."""
        tables = {"nats": self.nats, "js": self.js, "choice": self.choice}
        plain = {
            name: [[None if np.isnan(value) else float(value) for value in row] for row in table]
            for name, table in tables.items()
        }
        return {"positions": list(self.positions), **plain}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SequenceMeasures:
        """Read what `to_dict` returned."""
        tables = {name: np.array(data[name], dtype=np.float64) for name in ("nats", "js", "choice")}
        return cls(tuple(data["positions"]), **tables)


def measure_task(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sequences: Sequence[SpectrumSequence],
    template: SpectrumTemplate,
    *,
    positions: Sequence[int],
    max_length: int,
) -> SequenceMeasures:
    """Score the outputs of every sequence, and its options where all sequences have some.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        sequences: `S` sequences.
        template: How they are put.
        positions: Numbers of examples read at which options are scored.
        max_length: Most tokens of a sequence.

    Example:
        >>> from plural_rlhf.methods.spectrum import coin_flips, template_for
        >>> from plural_rlhf.policies.base_models import tiny_causal_lm, tiny_tokenizer
        >>> tokenizer = tiny_tokenizer()
        >>> model, template = tiny_causal_lm(tokenizer), template_for(tokenizer)
        >>> flips = coin_flips(2, 4)
        >>> measure_task(model, tokenizer, flips, template, positions=[0, 2], max_length=200).js.shape
        (2, 2)
    """
    losses = example_losses(model, tokenizer, sequences, template, max_length=max_length)
    if not all(sequence.options for sequence in sequences):
        missing = np.full((len(sequences), len(positions)), np.nan)
        return SequenceMeasures(tuple(positions), losses.nats, missing, missing)
    curves = option_curves(model, tokenizer, sequences, template, positions=positions, max_length=max_length)
    return SequenceMeasures(curves.positions, losses.nats, curves.js_nats, curves.choice_nats)


def compare_task(
    task: str,
    sequences: Sequence[SpectrumSequence],
    tuned: SequenceMeasures,
    untouched: Mapping[str, SequenceMeasures],
    *,
    draws: int,
    seed: int,
) -> tuple[list[SpectrumNumber], list[SpectrumCurve]]:
    """Compare the tuned model with the untouched one on a task, in the untouched one's best format for each metric.

    Differences are tuned minus untouched on the same sequence, with BCa intervals over sequences.

    Args:
        task: Name of the task.
        sequences: Its sequences.
        tuned: Measures of the tuned model.
        untouched: Measures of the untouched model by format.
        draws: Bootstrap draws.
        seed: Random seed.

    Example:
        >>> from plural_rlhf.methods.spectrum import coin_flips
        >>> def measures(js):
        ...     return SequenceMeasures((0, 1), np.ones((6, 2)), np.full((6, 2), js), np.ones((6, 2)))
        >>> flips = coin_flips(6, 2)
        >>> rivals = {"chat": measures(0.3), "plain": measures(0.2)}
        >>> numbers, curves = compare_task("coin", flips, measures(0.1), rivals, draws=100, seed=0)
        >>> numbers[0].metric, numbers[0].format, round(numbers[0].difference, 3)
        ('js_0', 'plain', -0.1)
    """
    numbers = []
    ours = tuned.by_sequence()
    theirs = {name: measures.by_sequence() for name, measures in untouched.items()}
    references = {name: measures.by_sequence() for name, measures in _references(sequences, tuned.positions).items()}
    for metric, values in ours.items():
        if np.isnan(values).all():
            continue
        best = min(theirs, key=lambda name: np.nanmean(theirs[name][metric]))
        interval = bca_interval(values - theirs[best][metric], draws=draws, seed=seed)
        numbers.append(
            SpectrumNumber(
                task=task,
                metric=metric,
                tuned=float(np.nanmean(values)),
                untouched=float(np.nanmean(theirs[best][metric])),
                format=best,
                difference=interval.value,
                ci_low=None if np.isnan(interval.low) else interval.low,
                ci_high=None if np.isnan(interval.high) else interval.high,
                n=int((~np.isnan(values)).sum()),
                baselines={
                    name: float(np.nanmean(reference[metric]))
                    for name, reference in references.items()
                    if not np.isnan(reference[metric]).all()
                },
            )
        )
    return numbers, _curves(task, tuned, untouched)


def _curves(task: str, tuned: SequenceMeasures, untouched: Mapping[str, SequenceMeasures]) -> list[SpectrumCurve]:
    curves = []
    for model, measures in {"tuned": tuned, **{f"untouched, {name}": m for name, m in untouched.items()}}.items():
        for metric, table in (("js", measures.js), ("choice", measures.choice), ("loss", measures.nats)):
            places = range(table.shape[1]) if metric == "loss" else measures.positions
            known = ~np.isnan(table).all(axis=0)
            if known.any():
                means = np.nanmean(table[:, known], axis=0)
                shown = [place for place, has in zip(places, known, strict=True) if has]
                curves.append(SpectrumCurve(task=task, model=model, metric=metric, k=shown, nats=means.tolist()))
    return curves


def _references(sequences: Sequence[SpectrumSequence], positions: Sequence[int]) -> dict[str, SequenceMeasures]:
    """Predictions that need no model: all options alike, and how often each came before, plus one."""
    shape = (len(sequences), len(positions))
    tables = {name: (np.full(shape, np.nan), np.full(shape, np.nan)) for name in ("uniform", "counts")}
    for row, sequence in enumerate(sequences):
        chosen = [sequence.options.index(e.output) for e in sequence.examples] if sequence.options else []
        for column, place in enumerate(positions):
            if place >= len(chosen):
                continue
            before = np.bincount(chosen[:place], minlength=len(sequence.options)) + 1.0
            for name, counts in (("uniform", np.ones(len(before))), ("counts", before)):
                shares = counts / counts.sum()
                js, choice = tables[name]
                choice[row, column] = -np.log(shares[chosen[place]])
                if sequence.shares:
                    js[row, column] = js_divergence(np.array(sequence.shares), shares)
    none = np.full((len(sequences), 1), np.nan)
    return {name: SequenceMeasures(tuple(positions), none, js, choice) for name, (js, choice) in tables.items()}


def _mean(table: np.ndarray) -> np.ndarray:
    """Return the mean of each row without NaN; NaN for a row of nothing else."""
    known = ~np.isnan(table)
    count = known.sum(axis=1)
    total = np.where(known, table, 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
