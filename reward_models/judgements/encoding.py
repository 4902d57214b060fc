"""The integer view of a judgement table: what likelihoods and fitting work on.

There is one entry per unique (prompt, response) text, so that 225,000 votes on 896 statements cost 896 forward passes.
Takes a table that `records` has validated. Knows nothing of rewards, raters' clusters or language models.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from reward_models.errors import NotEncodedError
from reward_models.judgements.columns import CHOICES
from reward_models.judgements.items import first_rows
from reward_models.judgements.texts import Text, freeze_prompt
from reward_models.stats.design import SamplingDesign, mean_one
from reward_models.stats.shares import kish_n


__all__ = ["Encoded", "encode", "encoded_tables", "soft_as_choice"]


@dataclass(frozen=True)
class Encoded:
    """Judgements as integers, one text per unique (prompt, response).

    Shapes: `N` judgements, `R` raters, `I` items, `U` unique texts, `A` the largest number of alternatives of an item.

    Attributes:
        kind: `"preference"`, `"rating"`, `"choice"` or `"soft"`.
        rater_ids: `R` names; empty for `soft`.
        item_ids: `I` names.
        texts: `U` unique texts.
        rater: (N,) index into `rater_ids`; -1 for `soft`.
        item: (N,) index into `item_ids`.
        alternatives: (N, A) index into `texts`, -1 where an item has fewer than `A` alternatives. `choice` and `soft`:
            the options in order; `preference`: (a, b) as the row has them; `rating`: the one response.
        label: (N,) `choice`: option index; `preference`: 0 = a, 1 = b, 2 = tie; `rating`: index into `levels`;
            `soft`: -1.
        count: (N,) how often the rater gave this judgement; for `soft` the number of answers behind the row. What is
            learnt about a rater counts by it.
        shown_first: (N,) `preference` only: 0 = a, 1 = b, -1 = not known. None when the table does not say.
        probs: (N, A) `soft` only: share of each option, 0 at the padding.
        levels: The ordered levels of a `rating` table.
        item_alternatives: (I, A) index into `texts` per item, -1 = padding. A pair is in the order of its first row.

    `Judgements.encode` puts judgements in order by rater and item, and numbers raters, items and texts in order (see
    `ordering`), so that nothing depends on the order of the table's rows.
        design: How the raters were sampled; None: all alike.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("preference", num_raters=4, num_items=3).judgements.encode()
        >>> len(enc), enc.n_raters, enc.n_items, enc.n_texts
        (12, 4, 3, 6)
        >>> enc.texts[enc.alternatives[0, 1]]
        Text(prompt='Question 1?', response='answer B')
    """

    kind: str
    rater_ids: list[str]
    item_ids: list[str]
    texts: list[Text]
    rater: np.ndarray
    item: np.ndarray
    alternatives: np.ndarray
    label: np.ndarray
    count: np.ndarray
    shown_first: np.ndarray | None
    probs: np.ndarray | None
    levels: tuple[float, ...] | None
    item_alternatives: np.ndarray
    design: SamplingDesign | None = None

    def __len__(self) -> int:
        return len(self.label)

    @property
    def n_raters(self) -> int:
        """Number of raters `R`."""
        return len(self.rater_ids)

    @property
    def rater_weight(self) -> np.ndarray:
        """(R,) sampling weight of each rater, mean one; averages over people are weighted by it."""
        return np.ones(self.n_raters) if self.design is None else self.design.weight

    @property
    def effective_raters(self) -> float:
        """Number of raters of equal weight that would give the same precision (Kish)."""
        return float(kish_n(self.rater_weight))

    @property
    def weight(self) -> np.ndarray:
        """(N,) weight of each judgement in averages over people: `count` times the sampling weight of the rater."""
        return self.count if self.design is None else self.count * self.design.weight[self.rater]

    @property
    def n_items(self) -> int:
        """Number of items `I`."""
        return len(self.item_ids)

    @property
    def n_texts(self) -> int:
        """Number of unique texts `U`."""
        return len(self.texts)

    def select(self, keep: np.ndarray, *, drop_raters: bool = False) -> Encoded:
        """Keep some judgements; items and texts keep their numbers, even those left without judgements.

        Args:
            keep: (N,) mask or indices.
            drop_raters: Renumber the raters and drop those without judgements; otherwise they keep their numbers.

        Example:
            >>> from reward_models import planted_judgements
            >>> enc = planted_judgements("rating", num_raters=4, num_items=3).judgements.encode()
            >>> few = enc.select(enc.rater >= 2, drop_raters=True)
            >>> len(few), few.rater_ids, few.n_items
            (6, ['r2', 'r3'], 3)
        """
        rater, rater_ids, design = self.rater[keep], self.rater_ids, self.design
        if drop_raters:
            present, rater = np.unique(rater, return_inverse=True)
            rater_ids = [self.rater_ids[i] for i in present]
            design = None if design is None else design.select(present)
        return dataclasses.replace(
            self,
            rater_ids=rater_ids,
            rater=rater,
            item=self.item[keep],
            alternatives=self.alternatives[keep],
            label=self.label[keep],
            count=self.count[keep],
            shown_first=None if self.shown_first is None else self.shown_first[keep],
            probs=None if self.probs is None else self.probs[keep],
            design=design,
        )

    @property
    def swapped(self) -> np.ndarray:
        """(N,) True where the row has a pair's two responses in the other order than `item_alternatives`."""
        if self.kind != "preference":
            return np.zeros(len(self), dtype=bool)
        return self.alternatives[:, 0] != self.item_alternatives[self.item, 0]

    @property
    def item_label(self) -> np.ndarray:
        """(N,) `label` in the order of `item_alternatives`, so that equal numbers mean equal answers to an item."""
        return np.where(self.swapped & (self.label < 2), 1 - self.label, self.label)

    def answer_matrix(self) -> np.ndarray:
        """Arrange the labels as raters by items, pairs in the order of `item_alternatives` (see `item_label`).

        Of several answers of one rater to one item (anonymous raters only) the first is kept.

        Returns:
            (R, I) int64 label, -1 where the rater did not judge the item.

        Raises:
            ValueError: For `soft` tables, which have no raters.

        Example:
            >>> from reward_models import planted_judgements
            >>> enc = planted_judgements("choice", num_raters=3, num_items=4).judgements.encode()
            >>> enc.answer_matrix().shape
            (3, 4)
        """
        if self.kind == "soft":
            raise ValueError(
                "a 'soft' table has no raters, hence no answer matrix; use probs (N, A) and weight (N,) instead"
            )
        matrix = np.full((self.n_raters, self.n_items), -1, dtype=np.int64)
        matrix[self.rater[::-1], self.item[::-1]] = self.item_label[::-1]  # the last write wins: the first row
        return matrix


def encoded_tables(tables: Encoded | Sequence[Encoded]) -> list[Encoded]:
    """Return one table or several as a list, or raise where one is not encoded.

    Raises:
        NotEncodedError: Something else than `Encoded`.

    Example:
        >>> from reward_models import planted_judgements
        >>> encoded_tables(planted_judgements().judgements)
        Traceback (most recent call last):
        reward_models.errors.NotEncodedError: encoded judgements are expected, not a Judgements. Fix: pass ...
    """
    listed: list[Any] = list(tables) if isinstance(tables, list | tuple) else [tables]
    for table in listed:
        if not isinstance(table, Encoded):
            raise NotEncodedError(
                f"encoded judgements are expected, not a {type(table).__name__}. Fix: pass judgements.encode()"
            )
    return listed


def encode(
    kind: str, frame: pd.DataFrame, levels: Sequence[float] | None, items: Sequence[str] | None = None
) -> Encoded:
    """Encode a validated table row by row; `Judgements.encode` calls it on the table in order.

    Args:
        kind: Kind of judgement.
        frame: `N` judgements in canonical columns.
        levels: The ordered levels of a `rating` table, else None.
        items: The item ids in the order in which they and their texts are numbered; None: that of their first rows.

    Returns:
        The integer view; raters are numbered in the order of their first row.

    Example:
        >>> from reward_models import planted_judgements
        >>> table = planted_judgements("rating", num_raters=2, num_items=2).judgements
        >>> encode(table.kind, table.frame, table.levels).rater.tolist()
        [0, 0, 1, 1]
    """
    n_rows = len(frame)
    item_ids = pd.unique(frame["item_id"]) if items is None else list(items)
    item = pd.Index(item_ids).get_indexer(pd.Index(frame["item_id"]))
    first_row = first_rows(item, len(item_ids))
    if kind == "soft":
        rater, rater_ids = np.full(n_rows, -1, dtype=np.int64), []
    else:
        rater, rater_index = pd.factorize(frame["rater_id"])
        rater_ids = [str(r) for r in rater_index]

    shown_first = probs = None
    count = frame["count"].to_numpy(dtype=np.float64) if "count" in frame else np.ones(n_rows)
    if kind in ("choice", "soft"):
        texts, item_alternatives = _option_texts(frame.iloc[first_row])
        alternatives = item_alternatives[item]
        label = frame["choice"].to_numpy(dtype=np.int64) if kind == "choice" else np.full(n_rows, -1, dtype=np.int64)
        if kind == "soft":
            probs = np.zeros(alternatives.shape)
            for row, shares in enumerate(frame["probs"]):
                probs[row, : len(shares)] = shares
            count = frame["n"].to_numpy(dtype=np.float64)
    else:
        columns = ["response_a", "response_b"] if kind == "preference" else ["response"]
        texts, alternatives = _response_texts(frame, columns, None if items is None else item)
        item_alternatives = alternatives[first_row]
        if kind == "preference":
            label = pd.Categorical(frame["choice"], categories=list(CHOICES)).codes.astype(np.int64)
            if "shown_first" in frame:
                shown_first = pd.Categorical(frame["shown_first"], categories=["a", "b"]).codes.astype(np.int64)
        else:
            label = np.searchsorted(np.asarray(levels), frame["rating"].to_numpy(dtype=np.float64))

    return Encoded(
        kind=kind,
        rater_ids=rater_ids,
        item_ids=[str(i) for i in item_ids],
        texts=texts,
        rater=rater.astype(np.int64),
        item=item.astype(np.int64),
        alternatives=alternatives,
        label=label.astype(np.int64),
        count=count,
        shown_first=shown_first,
        probs=probs,
        levels=None if levels is None else tuple(levels),
        item_alternatives=item_alternatives,
        design=None if kind == "soft" else _design(frame, rater, len(rater_ids)),
    )


def _design(frame: pd.DataFrame, rater: np.ndarray, n_raters: int) -> SamplingDesign | None:
    """Read how the raters were sampled off the first row of each."""
    columns = [column for column in ("rater_weight", "rater_stratum", "rater_psu") if column in frame]
    if not columns:
        return None
    first = frame[columns].iloc[first_rows(rater, n_raters)]
    weight = first["rater_weight"].to_numpy(dtype=np.float64) if "rater_weight" in first else np.ones(n_raters)
    groups = ("rater_stratum", "rater_psu")
    stratum, psu = (pd.factorize(first[name], sort=True)[0] if name in first else None for name in groups)
    return SamplingDesign(mean_one(weight), stratum, psu)


def _option_texts(items: pd.DataFrame) -> tuple[list[Text], np.ndarray]:
    """Number the texts of `I` items with options: U texts and (I, A) indices padded with -1."""
    index: dict[Text, int] = {}
    width = max((len(options) for options in items["options"]), default=0)
    alternatives = np.full((len(items), width), -1, dtype=np.int64)
    for row, (prompt, options) in enumerate(zip(items["prompt"], items["options"], strict=True)):
        frozen = freeze_prompt(prompt)
        for column, option in enumerate(options):
            alternatives[row, column] = index.setdefault(Text(frozen, option), len(index))
    return list(index), alternatives


def _response_texts(frame: pd.DataFrame, columns: list[str], item: np.ndarray | None) -> tuple[list[Text], np.ndarray]:
    """Number the texts of `N` rows with one response per column: U texts and (N, len(columns)) indices.

    They are numbered item by item, or without items row by row; a before b of the same row.
    """
    prompts = (freeze_prompt(prompt) for prompt in frame["prompt"])
    prompt, unique_prompts = pd.factorize(np.fromiter(prompts, dtype=object, count=len(frame)))
    responses = np.concatenate([frame[column].to_numpy(dtype=object) for column in columns])
    response, unique_responses = pd.factorize(responses)
    key = np.tile(prompt, len(columns)).astype(np.int64) * max(len(unique_responses), 1) + response
    by_row = key.reshape(len(columns), -1).T
    visited = slice(None) if item is None else np.argsort(item, kind="stable")
    unique_keys = pd.unique(by_row[visited].ravel())
    code = pd.Index(unique_keys).get_indexer(by_row.ravel())
    texts = [
        Text(unique_prompts[k // len(unique_responses)], unique_responses[k % len(unique_responses)])
        for k in unique_keys
    ]
    return texts, code.reshape(by_row.shape).astype(np.int64)


def soft_as_choice(enc: Encoded) -> Encoded:
    """Turn a table of answer shares into counted choices of one stand-in rater.

    Args:
        enc: A `soft` table.

    Returns:
        A `choice` table with one row per (row, option) of positive share; the rater is 0 throughout.

    Example:
        >>> from reward_models import Judgements
        >>> row = {"prompt": "Tea or coffee?", "options": ["tea", "coffee"], "probs": [0.25, 0.75], "n": 8}
        >>> choices = soft_as_choice(Judgements.from_dataset([row]).encode())
        >>> choices.label.tolist(), choices.count.tolist()
        ([0, 1], [2.0, 6.0])
    """
    assert enc.probs is not None
    row, option = np.nonzero(enc.probs > 0)
    return dataclasses.replace(
        enc,
        kind="choice",
        rater_ids=["population"],
        rater=np.zeros(len(row), dtype=np.int64),
        item=enc.item[row],
        alternatives=enc.alternatives[row],
        label=option,
        count=enc.count[row] * enc.probs[row, option],
        probs=None,
    )
