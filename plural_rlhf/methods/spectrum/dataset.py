"""Sequences as a data set that is drawn anew in every epoch: order, number of examples, description or none.

Knows nothing of models.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import datasets
import numpy as np

from plural_rlhf.methods.spectrum.sequences import SpectrumSequence, names_of
from plural_rlhf.methods.spectrum.template import SpectrumTemplate
from plural_rlhf.methods.spectrum.tokens import IGNORED, encode_sequence
from reward_models.seeds import seeded_rng


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["SequenceDraws", "SpectrumDataset", "number_of_examples"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SequenceDraws:
    """What is drawn anew of every sequence in every epoch.

    Attributes:
        shuffle: Whether exchangeable examples are shuffled.
        mean_examples: Mean number of examples, drawn by `number_of_examples`; None for all that fit.
        description_share: Probability that a description is shown, where there is one and more than one example.
        seed: Random seed.
    """

    shuffle: bool = True
    mean_examples: float | None = None
    description_share: float = 0.6
    seed: int = 0


def number_of_examples(mean: float, rng: np.random.Generator) -> int:
    """Draw a number of examples, at least 1: a geometric plus a Poisson number.

    The geometric part lets short and long contexts occur, the Poisson part keeps most near the mean.

    Args:
        mean: Its mean, at least 1.
        rng: Draws two numbers.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> drawn = [number_of_examples(8, rng) for _ in range(4000)]
        >>> min(drawn), bool(abs(np.mean(drawn) - 8) < 0.2)
        (1, True)
    """
    half = (mean - 1) / 2
    return int(rng.geometric(1 / (1 + half))) + int(rng.poisson(half))


class SpectrumDataset:
    """Sequences as tokens and labels, for `SpectrumTrainer`.

    In every epoch the examples of an exchangeable sequence are shuffled, so that the model cannot learn their order,
    and the number of examples and whether the description is shown are drawn. A draw depends on seed, epoch and
    sequence only: a resumed training sees what the unbroken one would have seen.

    Args:
        sequences: What to imitate.
        tokenizer: The model's.
        template: From `template_for`.
        max_length: Most tokens of a sequence; examples that do not fit are dropped, none is cut.
        draws: What is drawn; None for everything, in the given order.

    Attributes:
        dropped: Sequences without anything to learn: one example and no description, or nothing that fits.

    Raises:
        ValueError: No sequence is left.

    Example:
        >>> from plural_rlhf.methods.spectrum import coin_flips, template_for
        >>> from reward_models.jury.tiny import tiny_tokenizer
        >>> tokenizer = tiny_tokenizer()
        >>> data = SpectrumDataset(coin_flips(3, 5), tokenizer, template_for(tokenizer), draws=SequenceDraws())
        >>> first = data[0]["input_ids"]
        >>> data.set_epoch(1)
        >>> len(data), sorted(data[0]["input_ids"]) == sorted(first)
        (3, True)
    """

    def __init__(
        self,
        sequences: Sequence[SpectrumSequence],
        tokenizer: PreTrainedTokenizerBase,
        template: SpectrumTemplate,
        *,
        max_length: int | None = None,
        draws: SequenceDraws | None = None,
    ) -> None:
        self._encode = partial(encode_sequence, template=template, tokenizer=tokenizer, max_length=max_length)
        self._draws, self._epoch = draws, 0
        learnable = [sequence for sequence in sequences if sequence.learnable]
        self._sequences = [s for s in learnable if self._can_learn(s)]
        self.dropped = len(sequences) - len(self._sequences)
        alone, long = len(sequences) - len(learnable), len(learnable) - len(self._sequences)
        if alone:
            left = [s for s in sequences if not s.learnable]
            logger.warning(
                "%d of %d sequences have one example and no description, so there is nothing to learn from them; they "
                "are left out: %s.", alone, len(sequences), names_of(left),
            )  # fmt: skip
        if long:
            kept = {id(s) for s in self._sequences}
            left = [s for s in learnable if id(s) not in kept]
            logger.warning(
                "%d of %d sequences have no output to learn within max_length=%s tokens; they are left out: %s. Fix: "
                "raise max_length.", long, len(sequences), max_length, names_of(left),
            )  # fmt: skip
        if not self._sequences:
            raise ValueError(
                f"none of {len(sequences)} sequences has anything to learn: {alone} have one example and no "
                f"description, {long} do not fit into max_length={max_length} tokens. Fix: give more examples per "
                "sequence or descriptions, or raise max_length."
            )

    def set_epoch(self, epoch: int) -> None:
        """Draw as in that epoch, here and in what `to_dataset` returned."""
        self._epoch = epoch

    def to_dataset(self) -> datasets.Dataset:
        """Return a data set as TRL takes it, whose rows are made when they are read."""
        rows = datasets.Dataset.from_dict({"sequence": list(range(len(self)))})
        return rows.with_transform(self._rows)

    def _rows(self, batch: dict[str, list[int]]) -> dict[str, list[list[int]]]:
        rows = [self[index] for index in batch["sequence"]]
        return {name: [row[name] for row in rows] for name in ("input_ids", "labels")}

    def __len__(self) -> int:
        return len(self._sequences)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        tokens = self._encode(self._drawn(index))
        return {"input_ids": tokens.input_ids, "labels": tokens.labels}

    def _can_learn(self, sequence: SpectrumSequence) -> bool:
        """Whether an output with a loss fits, with the description if there is one, and in the given order."""
        return any(label != IGNORED for label in self._encode(sequence).labels)

    def _drawn(self, index: int) -> SpectrumSequence:
        """The sequence as it is shown in this epoch."""
        sequence, draws = self._sequences[index], self._draws
        if draws is None:
            return sequence
        rng = seeded_rng(draws.seed, "examples of a Spectrum sequence", self._epoch, index)
        examples = list(sequence.examples)
        if sequence.exchangeable and draws.shuffle:
            examples = [examples[place] for place in rng.permutation(len(examples))]
        described = rng.random() < draws.description_share
        if draws.mean_examples is not None:
            examples = examples[: number_of_examples(draws.mean_examples, rng)]
        shown = sequence.description if described or len(examples) == 1 else None
        if shown is None and len(examples) == 1:  # without a description one example teaches nothing
            examples = [sequence.examples[place] for place in rng.permutation(len(sequence.examples))[:2]]
        return replace(sequence, examples=tuple(examples), description=shown)
