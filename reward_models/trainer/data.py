"""Judgements that a trainer is given, validated: judgement tables and TRL's preference data.

Knows nothing of tokens, rewards or clusters.

Shapes: `N` judgements.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import datasets
import numpy as np
import pandas as pd

from reward_models.errors import JudgementError, JudgementWarning, JuryError
from reward_models.judgements.encoding import Encoded, encode
from reward_models.judgements.items import ANONYMOUS
from reward_models.judgements.records import Judgements
from reward_models.seeds import seeded_rng


__all__ = ["JuryData", "divide", "hold_out_texts", "read_data", "read_evaluation"]

FEW_PROMPTS = 10  # with fewer, texts are held out and not all answers to a prompt


@dataclass(frozen=True)
class JuryData:
    """A validated training or evaluation set; `read_data` makes it.

    Attributes:
        judgements: The table.
        enc: Its integer view.
        margin: (N,) per judgement of `enc`, how far the reward of a must be above that of b, in logits: TRL's `margin`
            column; None without.
        from_trl: Whether it was `chosen`/`rejected` data.

    Example:
        >>> from reward_models import planted_judgements
        >>> data = read_data(planted_judgements(num_raters=10, num_items=4).judgements)
        >>> len(data.enc), data.anonymous, data.from_trl
        (40, False, False)
    """

    judgements: Judgements
    enc: Encoded
    margin: np.ndarray | None
    from_trl: bool

    @property
    def anonymous(self) -> bool:
        """Whether no rater is known by name, so that there are no clusters to tell apart."""
        return self.enc.rater_ids in ([], [ANONYMOUS])

    def by_rows(self) -> JuryData:
        """Return the same data with judgements, raters and items in the order of the table's rows.

        So they are numbered where the number of a judgement is that of its row, and in trainings that an earlier
        version began.
        """
        table = self.judgements
        margin = None if self.margin is None else self.margin[np.argsort(table.encoded_rows)]
        return replace(self, enc=encode(table.kind, table.frame, table.levels), margin=margin)


def read_data(data: Any, levels: Sequence[float] | None = None) -> JuryData:
    """Validate a training or evaluation set.

    Args:
        data: `Judgements`, or a `datasets.Dataset` or `pandas.DataFrame` with the columns of a judgement table or of
            TRL's preference data (`chosen`, `rejected`, optional `prompt`, `rater_id`, `margin`), conversational or
            plain.
        levels: Levels of a rating table, for data that do not state them.

    Raises:
        JudgementError: See `Judgements.from_frame`; or `data` is of another type.

    Warns:
        JudgementWarning: A rater answered the same question in different ways.

    Example:
        >>> from datasets import Dataset
        >>> rows = [("ann", "Which?", "tea", "milk"), ("ann", "Who?", "you", "me")]
        >>> rows += [("bob", "Which?", "milk", "tea"), ("bob", "Who?", "me", "you")]
        >>> columns = ("rater_id", "prompt", "chosen", "rejected")
        >>> data = read_data(Dataset.from_dict(dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))))
        >>> data.enc.n_raters, data.enc.n_items, data.from_trl
        (2, 2, True)
    """
    margin, from_trl = None, False
    if isinstance(data, pd.DataFrame):
        data = datasets.Dataset.from_pandas(data, preserve_index=False)
    if isinstance(data, Judgements):
        judgements = data
    elif not isinstance(data, datasets.Dataset):
        hint = (
            "the raters and their numbers of judgements must be known before training: load it without streaming=True"
            if isinstance(data, datasets.IterableDataset)
            else "give Judgements, a datasets.Dataset or a pandas.DataFrame"
        )
        raise JudgementError(f"a {type(data).__name__} cannot be trained on. Fix: {hint}.")
    elif {"chosen", "rejected"} <= set(data.column_names):
        frame, from_trl = data.to_pandas(), True
        if "margin" in frame:
            margin = frame.pop("margin").to_numpy(dtype=np.float64)
        if "rater_id" in frame and "item_id" not in frame:
            frame = _name_repeated(frame)
        judgements = Judgements.from_frame(frame, "preference")
    else:
        judgements = Judgements.from_dataset(data, levels=levels if "rating" in data.column_names else None)
    enc = judgements.encode()
    margin = None if margin is None else margin[judgements.encoded_rows]
    _warn_contradictions(enc)
    return JuryData(judgements, enc, margin, from_trl)


def read_evaluation(dataset: Any, train: JuryData) -> JuryData:
    """Validate an evaluation set, and raise if a jury trained on `train` cannot score it.

    Args:
        dataset: See `read_data`.
        train: The training set.

    Raises:
        JudgementError: Another kind or other levels than `train`; ties, if `train` has none; or see `read_data`.

    Example:
        >>> from reward_models import planted_judgements
        >>> train, ratings = read_data(planted_judgements().judgements), planted_judgements("rating").judgements
        >>> read_evaluation(ratings, train)
        Traceback (most recent call last):
        reward_models.errors.JudgementError: the evaluation data hold 'rating' judgements (levels (-1.0, 0.0, 1.0)) and
        the training data 'preference' (levels None): a jury is scored on what it was trained on. Pass data of the same
        kind, with levels= for ratings.
    """
    data, levels = read_data(dataset, train.enc.levels), train.enc.levels
    if (data.enc.kind, data.enc.levels) != (train.enc.kind, levels):
        raise JudgementError(
            f"the evaluation data hold {data.enc.kind!r} judgements (levels {data.enc.levels}) and the training data "
            f"{train.enc.kind!r} (levels {levels}): a jury is scored on what it was trained on. Pass data of the "
            "same kind, with levels= for ratings."
        )
    ties = data.enc.kind == "preference" and int((data.enc.label == 2).sum())
    if ties and not (train.enc.label == 2).any():
        raise JudgementError(
            f"{ties} of {len(data.enc)} evaluation judgements are ties, but the training data hold none, so the jury "
            "predicts ties with probability 0. Train on ties too, or drop them from the evaluation."
        )
    return data


def divide(data: JuryData, evaluation: Any, share: float, seed: int) -> tuple[JuryData, Judgements]:
    """Divide the training data of a training that stops early; see `hold_out_texts`.

    Raises:
        JuryError: There are evaluation data already.
    """
    if evaluation is not None:
        raise JuryError(
            f"heldout_texts={share:g} makes evaluation data of the training data, and eval_dataset gives others: "
            "leave one out."
        )
    kept, heldout = hold_out_texts(data, share, seed)
    return kept, heldout.judgements


def hold_out_texts(data: JuryData, share: float, seed: int) -> tuple[JuryData, JuryData]:
    """Divide judgements by texts: those of texts that remain, and those with a held-out text.

    Texts are held out with all texts of their prompt where there are ten prompts or more, and one by one otherwise; of
    questions with options always with their prompt.

    Args:
        data: The judgements.
        share: Share of the prompts or texts that are held out.
        seed: Random seed.

    Raises:
        JudgementError: Nothing is left on one side.

    Example:
        >>> from reward_models import planted_judgements
        >>> data = read_data(planted_judgements("rating", num_raters=10, num_items=20).judgements)
        >>> train, heldout = hold_out_texts(data, share=0.25, seed=0)
        >>> train.enc.n_texts, heldout.enc.n_texts
        (15, 5)
    """
    enc = data.enc
    prompts = {text.prompt for text in enc.texts}
    by_prompt = len(prompts) >= FEW_PROMPTS or enc.kind in ("choice", "soft")
    units = [text.prompt if by_prompt else text.response for text in enc.texts]
    unit = pd.factorize(np.fromiter(units, dtype=object, count=len(units)))[0]
    n_units = int(unit.max()) + 1
    drawn = seeded_rng(seed, "held-out texts of training").permutation(n_units)[: max(1, round(share * n_units))]
    out = np.append(np.isin(unit, drawn), False)  # last: the padding
    held = out[enc.alternatives].any(axis=1)
    if held.all() or not held.any():
        raise JudgementError(
            f"heldout_texts={share:g} of {n_units} {'prompts' if by_prompt else 'texts'} puts {int(held.sum())} of "
            f"{len(held)} judgements aside, so that one side is empty. Fix: another share, or pass eval_dataset."
        )
    rows = data.judgements.encoded_rows
    in_rows = np.zeros(len(rows), dtype=bool)
    in_rows[rows] = held
    margin = None if data.margin is None else data.margin[np.argsort(rows)]

    def part(mask: np.ndarray) -> JuryData:
        table = data.judgements.select(mask)
        of_part = None if margin is None else margin[mask][table.encoded_rows]
        return JuryData(table, table.encode(), of_part, data.from_trl)

    return part(~in_rows), part(in_rows)


def _name_repeated(frame: pd.DataFrame) -> pd.DataFrame:
    """Name repeated judgements of a pair by one rater apart; without names, a table with repetitions is refused."""
    prompts = frame["prompt"] if "prompt" in frame else [None] * len(frame)
    key = [
        json.dumps([p, *sorted(json.dumps(side, default=list) for side in pair)], default=list)
        for p, *pair in zip(prompts, frame["chosen"], frame["rejected"], strict=True)
    ]
    code, _ = pd.factorize(np.array(key, dtype=object), sort=True)
    # Occasions are numbered by the answer, so that names do not depend on the order of rows.
    answer = pd.Series([json.dumps(side, default=list) for side in frame["chosen"]]).sort_values(kind="stable")
    rater = frame["rater_id"].to_numpy()[answer.index]
    occasion = answer.groupby([rater, code[answer.index]]).cumcount().sort_index()
    if not occasion.any():
        return frame
    names = [f"pair {c}" + (f", occasion {o + 1}" if o else "") for c, o in zip(code, occasion, strict=True)]
    return frame.assign(item_id=names)


def _warn_contradictions(enc: Encoded) -> None:
    named = np.array([rater != ANONYMOUS for rater in enc.rater_ids], dtype=bool)
    if enc.kind == "soft" or not named.any():
        return
    answer = enc.label
    if enc.kind != "rating":
        options = np.concatenate([enc.alternatives, np.full((len(enc), 1), -1)], axis=1)  # a tie is no option
        answer = np.take_along_axis(options, enc.label[:, None], axis=1)[:, 0]
    question = np.concatenate([enc.rater[:, None], np.sort(enc.alternatives, axis=1)], axis=1)
    _, code = np.unique(question[named[enc.rater]], axis=0, return_inverse=True)
    code = code.ravel()
    answers = pd.Series(answer[named[enc.rater]]).groupby(code).nunique()
    several = answers.index[answers > 1]
    if len(several):
        raters = np.unique(enc.rater[named[enc.rater]][np.isin(code, several)])
        warnings.warn(
            f"{len(several):,} questions were answered in more than one way by the same rater ({len(raters):,} "
            f"raters, e.g. {enc.rater_ids[raters[0]]!r}). All answers are kept; drop the wrong ones, if any.",
            JudgementWarning,
            stacklevel=3,
        )
