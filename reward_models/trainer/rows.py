"""Judgements as rows of tokens: the data set and the batches of `JuryRewardTrainer`.

One row is one item with all its judgements, and a batch holds each of its texts once: thirty votes on a statement cost
one forward pass. Knows nothing of rewards or clusters.

Shapes: `N` judgements, `A` alternatives of an item, `U` texts of the table, `V` texts of a batch.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedTokenizerBase

from reward_models.errors import JudgementError, JudgementWarning, JuryError
from reward_models.judgements.encoding import soft_as_choice
from reward_models.jury.reading import ReadingSettings
from reward_models.trainer.data import JuryData


__all__ = [
    "COLUMNS",
    "JudgementCollator",
    "JudgementRows",
    "PromptSampler",
]

COLUMNS = ["text", "input_ids", "judgement", "alternatives", "answer", "rater", "weight", "first", "margin"]
"""Keys of a row: the columns that the trainer must keep."""


class JudgementRows(Dataset):
    """A table as rows of at most `judgements_per_row` judgements of one item.

    Args:
        data: The table.
        tokenizer: The backbone's.
        reading: How texts are read; judgements of texts longer than its `max_length` are dropped.
        judgements_per_row: See `JuryRewardConfig`.
        name: Name of the data set in messages.
        train: The training data; None: the table is the training data.

    Attributes:
        data: The table; `enc` is its integer view (a `soft` table appears as weighted choices).
        rater: (N,) number of each judgement's rater in the training data; -1 for a rater who is not in it.
        row_weight: Mean total weight of the judgements of a row.

    Raises:
        JudgementError: No judgement is left, or all weights are 0.

    Warns:
        JudgementWarning: Judgements were dropped because of their length.

    Example:
        >>> from reward_models import planted_judgements
        >>> from reward_models.jury.tiny import tiny_tokenizer
        >>> from reward_models.trainer.data import read_data
        >>> data = read_data(planted_judgements("preference", num_raters=10, num_items=4).judgements)
        >>> rows = JudgementRows(data, tiny_tokenizer())
        >>> len(rows), len(rows[0]["answer"]), len(rows[0]["text"])  # four items, ten judgements, two texts
        (4, 10, 2)
    """

    def __init__(
        self,
        data: JuryData,
        tokenizer: PreTrainedTokenizerBase,
        *,
        reading: ReadingSettings | None = None,
        judgements_per_row: int | None = None,
        name: str = "training",
        train: JuryData | None = None,
    ) -> None:
        self.data = data
        self.enc = soft_as_choice(data.enc) if data.enc.kind == "soft" else data.enc
        margin = data.margin
        self._arguments: dict[str, Any] = {
            "data": data,
            "tokenizer": tokenizer,
            "judgements_per_row": judgements_per_row,
        }
        self._arguments |= {"name": name, "train": train}
        reading = reading or ReadingSettings.for_tables(tokenizer, None)
        try:
            tokens = reading.tokenise(reading.render_all(self.enc.texts, tokenizer), tokenizer)
        except JuryError as error:
            raise JudgementError(f"the {name} data cannot be read: {error}") from error
        self.tokens = [np.asarray(ids, dtype=np.int64) for ids in tokens]
        length, max_length = np.array([len(ids) for ids in tokens]), reading.max_length
        offered = self.enc.alternatives >= 0
        too_long = offered & (length[self.enc.alternatives] > (max_length or np.inf))
        if (keep := ~too_long.any(1)).sum() < len(keep):
            message = f"{(~keep).sum():,} of {len(keep):,} judgements of the {name} data are of texts longer than "
            message += f"max_length={max_length} tokens"
            if not keep.any():
                raise JudgementError(f"{message}: none is left. Fix: raise max_length to {length.max()}.")
            warnings.warn(f"{message} and are dropped. Raise max_length to keep them.", JudgementWarning, stacklevel=2)
            self.enc, margin = self.enc.select(keep), None if margin is None else margin[keep]
        self.margin = np.zeros(len(self.enc)) if margin is None else margin
        if train is None:
            self.rater = self.enc.rater
        else:
            known = {} if data.anonymous else {rater: i for i, rater in enumerate(train.enc.rater_ids)}
            names = [known.get(rater, -1) for rater in self.enc.rater_ids]
            self.rater = np.array(names, dtype=np.int64)[self.enc.rater]
        first = self.enc.shown_first
        self.first = np.zeros(len(self.enc)) if first is None else np.choose(first + 1, [0.0, 1.0, -1.0])
        if judgements_per_row is None and data.from_trl and data.anonymous:
            judgements_per_row = 1
        order = np.argsort(self.enc.item, kind="stable")
        items = np.split(order, np.flatnonzero(np.diff(self.enc.item[order])) + 1)
        self.rows = [
            part for rows in items for part in np.array_split(rows, -(-len(rows) // (judgements_per_row or len(rows))))
        ]
        self.row_weight = float(self.enc.weight.sum()) / len(self.rows)
        if self.row_weight == 0:
            raise JudgementError(f"all weights of the {name} data are 0: nothing can be learnt. Fix: give weights.")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        judgement = self.rows[index]
        alternatives = self.enc.alternatives[judgement]
        text = np.unique(alternatives[alternatives >= 0])
        return {
            "text": text,
            "input_ids": [self.tokens[t] for t in text],
            "judgement": judgement,
            "alternatives": alternatives,
            "answer": self.enc.label[judgement],
            "rater": self.rater[judgement],
            "weight": self.enc.weight[judgement],
            "first": self.first[judgement],
            "margin": self.margin[judgement],
        }

    def read_as(self, reading: ReadingSettings, *, by_rows: bool = False) -> JudgementRows:
        """Return the same table read in another way, and with `by_rows` numbered as `JuryData.by_rows` numbers it."""
        arguments, train = self._arguments, self._arguments["train"]
        if by_rows:
            arguments = arguments | {"data": self.data.by_rows(), "train": None if train is None else train.by_rows()}
        return JudgementRows(**arguments, reading=reading)

    def prompts(self) -> np.ndarray:
        """Return (number of rows,) a number for each row's prompt."""
        numbers: dict[Any, int] = {}
        texts, alternatives = self.enc.texts, self.enc.alternatives
        of_rows = (texts[alternatives[row[0], 0]].prompt for row in self.rows)
        return np.array([numbers.setdefault(prompt, len(numbers)) for prompt in of_rows])


@dataclass
class JudgementCollator:
    """Collate rows into one batch in which every text is there once.

    The batch holds `input_ids` and `attention_mask` (V, T), padded on the right; `text` (V,), their numbers in the
    table; and per judgement `alternatives` (N, A), positions among the V texts with -1 at padding, `answer`, `rater`,
    `judgement`, `weight`, `first`, `margin` and `row` (N,), the row of the batch.

    Attributes:
        pad_to_multiple_of: Pad the length to a multiple of this; None: to the longest text.

    Example:
        >>> row = {"text": np.array([7, 9]), "input_ids": [np.array([1, 2]), np.array([3])]}
        >>> row |= {name: np.array([0]) for name in ("judgement", "answer", "rater", "weight", "first", "margin")}
        >>> batch = JudgementCollator()([row | {"alternatives": np.array([[9, 7]])}])
        >>> batch["input_ids"].tolist(), batch["text"].tolist(), batch["alternatives"].tolist()
        ([[1, 2], [3, 0]], [7, 9], [[1, 0]])
    """

    pad_to_multiple_of: int | None = None

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Collate `JudgementRows` rows."""
        tokens = {t: ids for row in rows for t, ids in zip(row["text"].tolist(), row["input_ids"], strict=True)}
        text = np.fromiter(tokens, dtype=np.int64)
        order = np.argsort(text)
        padded = np.concatenate([row["alternatives"] for row in rows])
        position = order[np.searchsorted(text[order], np.maximum(padded, text[order[0]]))]
        ids = [torch.from_numpy(t) for t in tokens.values()]
        longest = max(map(len, ids))
        multiple = self.pad_to_multiple_of or 1
        # Any id does as padding: nothing reads it past the mask.
        width = -(-longest // multiple) * multiple - longest
        input_ids = torch.nn.functional.pad(pad_sequence(ids, batch_first=True), (0, width))
        mask = torch.nn.functional.pad(pad_sequence([torch.ones_like(t) for t in ids], batch_first=True), (0, width))
        batch = {
            name: torch.from_numpy(np.concatenate([row[name] for row in rows]))
            for name in ("judgement", "answer", "rater", "weight", "first", "margin")
        }
        for name in ("weight", "first", "margin"):
            batch[name] = batch[name].float()  # not every accelerator has float64
        return batch | {
            "input_ids": input_ids,
            "attention_mask": mask,
            "text": torch.from_numpy(text),
            "alternatives": torch.from_numpy(np.where(padded < 0, -1, position)),
            "row": torch.repeat_interleave(torch.tensor([len(row["answer"]) for row in rows])),
        }


class PromptSampler(Sampler[int]):
    """Shuffle rows but keep those of a prompt together; the order depends on the seed and the epoch only.

    Args:
        prompt: (number of rows,) number of each row's prompt.
        seed: Random seed of the order.

    Example:
        >>> list(PromptSampler(np.array([0, 1, 0, 1]), seed=0))
        [2, 0, 1, 3]
    """

    def __init__(self, prompt: np.ndarray, seed: int) -> None:
        self.prompt, self.seed, self.epoch = prompt, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Use the order of `epoch` from now on; `Trainer` calls it when an epoch begins."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.prompt)

    def __iter__(self) -> Any:
        # Not a salted stream: checkpoints of earlier versions go on in the order in which they began.
        rng = np.random.default_rng([self.seed, self.epoch])
        rank = rng.permutation(self.prompt.max() + 1)[self.prompt]  # of each row's prompt
        shuffled = rng.permutation(len(rank))
        return iter(shuffled[np.argsort(rank[shuffled], kind="stable")].tolist())
