"""Rows with intervals, of numbers per prompt: means, gains on the same prompts, and functions of several means.

Knows nothing of how the numbers were measured.

Shapes: `R` prompts, `K` clusters of the training jury, `J` of the heldout jury.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from plural_rlhf.evaluation.open_ended.approvals import share_of_gain_kept
from plural_rlhf.evaluation.open_ended.numbers import Key
from plural_rlhf.evaluation.open_ended.resampled import PromptResamples
from plural_rlhf.evaluation.open_ended.results import MeasureRow
from plural_rlhf.evaluation.open_ended.scored import PEOPLE, Judged
from plural_rlhf.evaluation.open_ended.shares import ShareReading, division_error, error_parts, tells_shares


__all__ = ["Cells", "cell_rows", "derived_rows"]

Cells = Mapping[str, Mapping[Key, np.ndarray]]
"""(R,) numbers by writer and key; nan where a prompt has none."""

Statistic = Callable[[np.ndarray], np.ndarray]


def cell_rows(
    cells: Cells, bootstrap: PromptResamples, *, reference: str, sizes: Mapping[str, int] | None = None
) -> list[MeasureRow]:
    """Make a row of every number: its mean over prompts, and the gain on the reference policy.

    Args:
        cells: The numbers.
        bootstrap: Resamples of the prompts.
        reference: Name of the reference policy.
        sizes: Number of texts per prompt of the measures that depend on it.

    Example:
        >>> from plural_rlhf.evaluation.open_ended.resampled import resample_prompts
        >>> cells = {"reference": {Key("words"): np.array([3.0, 5.0])}, "grpo": {Key("words"): np.array([7.0, 9.0])}}
        >>> rows = cell_rows(cells, resample_prompts(2, draws=50), reference="reference")
        >>> [(row.policy, row.value, row.gain, row.gain_low) for row in rows]
        [('reference', 4.0, None, None), ('grpo', 8.0, 4.0, 4.0)]
    """
    return [
        _row(
            bootstrap,
            writer,
            key,
            values,
            None if writer == reference else cells[reference].get(key),
            k=(sizes or {}).get(key.measure),
        )
        for writer, numbers in cells.items()
        for key, values in numbers.items()
    ]


def derived_rows(
    cells: Cells,
    bootstrap: PromptResamples,
    juries: list[Judged],
    *,
    reference: str,
    targets: Mapping[str, np.ndarray],
    steered: set[str],
    shares: Mapping[tuple[str, str], Sequence[ShareReading | None]],
    kept_by_people: float | None = None,
    no_shares: str | None = None,
) -> list[MeasureRow]:
    """Make the rows of measures that are functions of several means over prompts.

    Args:
        cells: The numbers.
        bootstrap: Resamples of the prompts.
        juries: The training jury, and the heldout jury if there is one.
        reference: Name of the reference policy.
        targets: (K,) weights of the target, by writer.
        steered: Policies with weights of their own, for which the heldout jury knows no shares.
        shares: For whom was written, by writer and jury, of each prompt; None where the writer wrote nothing.
        kept_by_people: `baseline` of `heldout_share_of_gain`.
        no_shares: Why the target promises no shares, so that there is no `share_error`; None if it does.
    """
    rows: list[MeasureRow] = []
    for writer, numbers in cells.items():
        beside = None if writer == reference else cells[reference]
        for judged in juries:
            worst = [Key("approval", judged.jury, cluster) for cluster in judged.names]
            rows.append(
                _derived(bootstrap, writer, Key("approval_worst_cluster", judged.jury), worst, _least, numbers, beside)
            )
            weights = targets[writer] if judged.jury == "training" else judged.weights
            key = Key("share_error", judged.jury)
            if no_shares is not None:
                rows.append(MeasureRow(writer, *key, reason=no_shares))
            elif judged.jury == "heldout" and writer in steered:
                reason = "the policy has weights of its own, which name clusters of the training jury"
                rows.append(MeasureRow(writer, *key, reason=reason))
            elif not (weights > 0).all():
                rows.append(MeasureRow(writer, *key, reason="the weights leave a cluster out"))
            elif len(weights) == 1:
                rows.append(MeasureRow(writer, *key, reason="the jury has one cluster, which has everything"))
            else:
                rows.append(_share_error(bootstrap, writer, key, shares[writer, judged.jury], weights))
        if beside is not None:
            classes = Key("effective_classes")
            ratio = bootstrap.interval(
                np.column_stack([numbers[classes], beside[classes]]), lambda means: means[..., 0] / means[..., 1]
            )
            rows.append(_filled(MeasureRow(writer, "classes_ratio_to_reference"), ratio, numbers[classes]))
        if beside is not None and writer != PEOPLE and len(juries) > 1:
            rows.append(_gain_kept(bootstrap, writer, juries, numbers, beside, kept_by_people))
    return rows


def _row(
    bootstrap: PromptResamples,
    writer: str,
    key: Key,
    values: np.ndarray,
    beside: np.ndarray | None,
    k: int | None = None,
) -> MeasureRow:
    row = _filled(MeasureRow(writer, *key, k=k), bootstrap.interval(values), values)
    return row if beside is None else _with_gain(row, bootstrap.interval(values - beside))


def _derived(
    bootstrap: PromptResamples,
    writer: str,
    key: Key,
    parts: list[Key],
    statistic: Statistic,
    numbers: Mapping[Key, np.ndarray],
    beside: Mapping[Key, np.ndarray] | None,
) -> MeasureRow:
    columns = np.column_stack([numbers[part] for part in parts])
    row = _filled(MeasureRow(writer, *key), bootstrap.interval(columns, statistic), columns)
    if beside is None:
        return row
    both = np.column_stack([columns, *(beside[part] for part in parts)])
    split = len(parts)
    gain = bootstrap.interval(both, lambda means: statistic(means[..., :split]) - statistic(means[..., split:]))
    return _with_gain(row, gain)


def _share_error(
    bootstrap: PromptResamples, writer: str, key: Key, of_prompts: Sequence[ShareReading | None], weights: np.ndarray
) -> MeasureRow:
    """Row of the error of shares, with what chance and a one-camp policy would show; refused where these are alike."""
    readings = [reading for reading in of_prompts if reading is not None]
    shares = np.stack([reading.shares for reading in readings])
    fair = division_error(np.stack([reading.fair for reading in readings], axis=1), weights)
    one_camp = division_error(np.stack([reading.one_camp for reading in readings], axis=1), weights)
    row = MeasureRow(writer, *key, n=len(readings))
    if not tells_shares(fair, one_camp):
        for_nobody = f"{shares[:, -1].mean():.0%} of the texts are for no cluster in particular"
        if np.isnan([fair, one_camp]).any():
            return replace(row, reason=f"{for_nobody}, and hardly any for one")
        reason = (
            f"{for_nobody}, and the others would show an error of {fair.mean():.2f} in the right shares, of "
            f"{one_camp.mean():.2f} for one cluster alone: the jury cannot tell. Fix: draw more texts per prompt"
        )
        return replace(row, reason=reason)
    parts = np.full((len(of_prompts), 2), np.nan)
    parts[[reading is not None for reading in of_prompts]] = np.column_stack(error_parts(shares, weights))
    interval = bootstrap.interval(parts, lambda means: means[..., 0] / means[..., 1])
    return replace(_filled(row, interval, parts), floor=_known(fair.mean()), baseline=_known(one_camp.mean()))


def _gain_kept(
    bootstrap: PromptResamples,
    writer: str,
    juries: list[Judged],
    numbers: Mapping[Key, np.ndarray],
    beside: Mapping[Key, np.ndarray],
    kept_by_people: float | None,
) -> MeasureRow:
    gains = []
    for judged in juries:
        keys = [Key("approval", judged.jury, cluster) for cluster in judged.names]
        gains.append(sum(w * (numbers[key] - beside[key]) for w, key in zip(judged.weights, keys, strict=True)))
    columns = np.column_stack(gains)
    row = MeasureRow(writer, "heldout_share_of_gain", baseline=kept_by_people)
    gain, low, _ = bootstrap.interval(columns[:, 0])
    if not gain > 0 or low <= 0:
        reason = f"the training jury's approval did not rise beyond doubt: {gain:+.3f} over prompts"
        return replace(row, reason=reason, n=len(columns))

    def kept(means: np.ndarray) -> np.ndarray:
        return np.vectorize(share_of_gain_kept)(means[..., 0], means[..., 1])

    return _filled(row, bootstrap.interval(columns, kept), columns)


def _filled(row: MeasureRow, interval: tuple[float, float, float], columns: np.ndarray) -> MeasureRow:
    value, low, high = (_known(number) for number in interval)
    table = columns.reshape(len(columns), -1)
    return replace(row, value=value, ci_low=low, ci_high=high, n=int((~np.isnan(table).any(axis=1)).sum()))


def _with_gain(row: MeasureRow, interval: tuple[float, float, float]) -> MeasureRow:
    gain, low, high = (_known(number) for number in interval)
    return replace(row, gain=gain, gain_low=low, gain_high=high)


def _known(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None


def _least(means: np.ndarray) -> np.ndarray:
    return means.min(axis=-1)
