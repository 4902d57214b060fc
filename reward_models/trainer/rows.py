"""Judgements as rows of tokens: what `JuryRewardTrainer` is given becomes what its batches hold.

One row is one item with all its judgements, and a batch holds each of its texts once: thirty votes on a statement cost
one forward pass. Reads judgement tables and TRL's preference data. Knows nothing of rewards or clusters.

Shapes: `N` judgements, `A` alternatives of an item, `U` texts of the table, `V` texts of a batch.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import pandas as pd
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedTokenizerBase

from reward_models.errors import JudgementError, JudgementWarning
from reward_models.judgements.encoding import Encoded, soft_as_choice
from reward_models.judgements.items import ANONYMOUS
from reward_models.judgements.records import Judgements
from reward_models.judgements.texts import Text
from reward_models.jury.features import render


__all__ = [
    "COLUMNS",
    "JudgementCollator",
    "JudgementRows",
    "JuryData",
    "PromptSampler",
    "read_data",
    "read_evaluation",
    "tokenise",
]

COLUMNS = ["text", "input_ids", "judgement", "alternatives", "answer", "rater", "weight", "first", "margin"]
"""Keys of a row, which are the columns that the trainer must not lose."""


@dataclass(frozen=True)
class JuryData:
    """What the trainer is given, validated.

    Attributes:
        judgements: The table.
        enc: Its integer view.
        margin: (N,) how far a must be above b, in logits, from TRL's `margin` column; None without.
        from_trl: Whether it was `chosen`/`rejected` data.
    """

    judgements: Judgements
    enc: Encoded
    margin: np.ndarray | None
    from_trl: bool

    @property
    def anonymous(self) -> bool:
        """Whether nobody is known by name, so that there are no clusters to tell apart."""
        return self.enc.rater_ids in ([], [ANONYMOUS])


def read_data(data: Any, levels: Sequence[float] | None = None) -> JuryData:
    """Validate what was given as a training or evaluation set.

    Args:
        data: `Judgements`, or a `datasets.Dataset` with the columns of a judgement table or of TRL's preference data
            (`chosen`, `rejected`, optional `prompt`, `rater_id`, `margin`), conversational or plain.
        levels: Levels of a rating table, for data that do not say.

    Raises:
        JudgementError: See `Judgements.from_frame`; or it is none of these.

    Warns:
        JudgementWarning: A rater answered the same question in different ways.
    """
    margin, from_trl = None, False
    if isinstance(data, Judgements):
        judgements = data
    elif not isinstance(data, datasets.Dataset):
        hint = (
            "the raters and how often each judged must be known before training: load it without streaming=True"
            if isinstance(data, datasets.IterableDataset)
            else "give Judgements or a datasets.Dataset"
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
    _warn_contradictions(enc)
    return JuryData(judgements, enc, margin, from_trl)


def read_evaluation(dataset: Any, train: JuryData) -> JuryData:
    """Read an evaluation set, and refuse what a jury trained on `train` cannot score."""
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
            "gives ties probability 0. Train on ties too, or drop them from the evaluation."
        )
    return data


def _name_repeated(frame: pd.DataFrame) -> pd.DataFrame:
    """Tell the second judgement of the same pair by the same rater from the first, which a table otherwise refuses."""
    prompts = frame["prompt"] if "prompt" in frame else [None] * len(frame)
    key = [
        json.dumps([p, *sorted(json.dumps(side, default=list) for side in pair)], default=list)
        for p, *pair in zip(prompts, frame["chosen"], frame["rejected"], strict=True)
    ]
    code, _ = pd.factorize(np.array(key, dtype=object))
    occasion = pd.Series(code).groupby([frame["rater_id"].to_numpy(), code]).cumcount()
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
        who = np.unique(enc.rater[named[enc.rater]][np.isin(code, several)])
        warnings.warn(
            f"{len(several):,} questions were answered in more than one way by the same rater ({len(who):,} raters, "
            f"e.g. {enc.rater_ids[who[0]]!r}). All answers are kept; drop one of each if only one is meant.",
            JudgementWarning,
            stacklevel=3,
        )


def tokenise(texts: Sequence[Text], tokenizer: PreTrainedTokenizerBase, special_tokens: bool) -> list[np.ndarray]:
    """Turn texts into token ids.

    Args:
        texts: `U` texts.
        tokenizer: The backbone's.
        special_tokens: Give plain texts special tokens and an end token, as `trl.RewardTrainer` does; conversations
            have those of the chat template in any case.

    Returns:
        `U` arrays of ids.
    """
    rendered = [render(prompt, response, tokenizer) for prompt, response in texts]
    plain = [special_tokens and isinstance(text.prompt, str) for text in texts]
    eos = tokenizer.eos_token or ""
    rendered = [text + eos if p and not text.endswith(eos) else text for text, p in zip(rendered, plain, strict=True)]
    ids: list[np.ndarray] = [np.empty(0)] * len(rendered)
    for special in (False, True):
        index = [i for i, p in enumerate(plain) if p == special]
        if index:
            found = tokenizer([rendered[i] for i in index], add_special_tokens=special, verbose=False)["input_ids"]
            for i, row in zip(index, found, strict=True):
                ids[i] = np.asarray(row, dtype=np.int64)
    return ids


class JudgementRows(Dataset):
    """A table as rows of at most `judgements_per_row` judgements of one item.

    Args:
        data: The table.
        tokenizer: The backbone's.
        special_tokens: See `tokenise`.
        max_length: Judgements of longer texts, in tokens, are left out; None keeps all.
        judgements_per_row: See `JuryRewardConfig`.
        name: What the data set is called in messages.
        known_raters: Raters by number in the training data; None numbers the table's own.

    Attributes:
        data: The table, `enc` its integer view (a `soft` table appears as weighted choices).
        rater: (N,) number of each judgement's rater in the training data; -1 for a rater it does not know.
        row_weight: Mean weight of the judgements of a row.

    Raises:
        JudgementError: No judgement is left, or all weights are 0.

    Warns:
        JudgementWarning: Judgements were left out for their length.
    """

    def __init__(
        self,
        data: JuryData,
        tokenizer: PreTrainedTokenizerBase,
        *,
        special_tokens: bool,
        max_length: int | None,
        judgements_per_row: int | None,
        name: str,
        known_raters: Mapping[str, int] | None = None,
    ) -> None:
        self.data = data
        self.enc = soft_as_choice(data.enc) if data.enc.kind == "soft" else data.enc
        margin = data.margin
        self.tokens = tokenise(self.enc.texts, tokenizer, special_tokens)
        length = np.array([len(ids) for ids in self.tokens])
        if (length == 0).any():
            text = self.enc.texts[int(length.argmin())]
            raise JudgementError(f"the text {text!r} of the {name} data has no tokens. Fix: drop it or add a prompt.")
        offered = self.enc.alternatives >= 0
        too_long = offered & (length[self.enc.alternatives] > (max_length or np.inf))
        if (keep := ~too_long.any(1)).sum() < len(keep):
            message = f"{(~keep).sum():,} of {len(keep):,} judgements of the {name} data are of texts longer than "
            message += f"max_length={max_length} tokens"
            if not keep.any():
                raise JudgementError(f"{message}: none is left. Fix: raise max_length to {length.max()}.")
            warnings.warn(
                f"{message} and are left out. Raise max_length to keep them.", JudgementWarning, stacklevel=2
            )
            self.enc, margin = self.enc.select(keep), None if margin is None else margin[keep]
        self.margin = np.zeros(len(self.enc)) if margin is None else margin
        if known_raters is None:
            self.rater = self.enc.rater
        else:
            names = [known_raters.get(rater, -1) for rater in self.enc.rater_ids]
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
            raise JudgementError(f"all weights of the {name} data are 0: there is nothing to learn. Fix: weight them.")

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

    def prompts(self) -> np.ndarray:
        """(number of rows,) a number for each row's prompt."""
        numbers: dict[Any, int] = {}
        texts, alternatives = self.enc.texts, self.enc.alternatives
        found = (texts[alternatives[row[0], 0]].prompt for row in self.rows)
        return np.array([numbers.setdefault(prompt, len(numbers)) for prompt in found])


@dataclass
class JudgementCollator:
    """Puts rows into one batch in which every text stands once.

    The batch holds `input_ids` and `attention_mask` (V, T), padded on the right; `text` (V,) their numbers in the
    table; per judgement `alternatives` (N, A), positions among the V texts and -1 at padding; `answer`, `rater`,
    `judgement`, `weight`, `first`, `margin` and `row` (N,), the row of the batch it came from.

    Attributes:
        pad_to_multiple_of: Pad the length to a multiple of this; None: to the longest text.
    """

    pad_to_multiple_of: int | None = None

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Collate `JudgementRows` rows."""
        tokens = {t: ids for row in rows for t, ids in zip(row["text"].tolist(), row["input_ids"], strict=True)}
        text = np.fromiter(tokens, dtype=np.int64)
        order = np.argsort(text)
        padded = np.concatenate([row["alternatives"] for row in rows])
        found = order[np.searchsorted(text[order], np.maximum(padded, text[order[0]]))]
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
            "alternatives": torch.from_numpy(np.where(padded < 0, -1, found)),
            "row": torch.repeat_interleave(torch.tensor([len(row["answer"]) for row in rows])),
        }


class PromptSampler(Sampler[int]):
    """Shuffled rows with those of a prompt next to each other; the order of an epoch depends on seed and epoch alone.

    Args:
        prompt: (number of rows,) number of each row's prompt.
        seed: Of the order.
    """

    def __init__(self, prompt: np.ndarray, seed: int) -> None:
        self.prompt, self.seed, self.epoch = prompt, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Use the order of `epoch` from here on; `Trainer` calls it when an epoch begins."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.prompt)

    def __iter__(self) -> Any:
        rng = np.random.default_rng([self.seed, self.epoch])
        place = rng.permutation(self.prompt.max() + 1)[self.prompt]
        shuffled = rng.permutation(len(place))
        return iter(shuffled[np.argsort(place[shuffled], kind="stable")].tolist())
