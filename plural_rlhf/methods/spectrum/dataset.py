"""Sequences as a data set that is drawn anew in every epoch: order, number of examples, description or none.

Knows nothing of models.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import datasets
import numpy as np

from plural_rlhf.methods.spectrum.sequences import SpectrumSequence, names_of
from plural_rlhf.methods.spectrum.template import SpectrumTemplate
from plural_rlhf.methods.spectrum.tokens import IGNORED, SpectrumTokens, encode_sequence, sequence_parts
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

    An example that does not fit into `max_length` by itself, after the description, is dropped when the data set is
    made; those after it stay. What is drawn is shown as far as it fits. Every row has an output to learn: where the
    first two drawn do not fit together and no description was drawn, the description is shown, or, if there is none,
    two others are drawn that do fit.

    Args:
        sequences: What to imitate.
        tokenizer: The model's.
        template: From `template_for`.
        max_length: Most tokens of a sequence; examples that do not fit are dropped, none is cut.
        draws: What is drawn; None for everything, in the given order.

    Attributes:
        dropped: Sequences without anything to learn: one example and no description, or nothing that fits.
        too_long: Examples that do not fit by themselves.

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
        self._sequences: list[SpectrumSequence] = []
        self._fitting_pairs: list[_Pairs] = []
        self._places: list[int] = []  # of the sequences that are kept among the given ones
        self._never_shown = [0] * len(sequences)
        self.too_long = 0
        alone: list[SpectrumSequence] = []
        long: list[SpectrumSequence] = []
        cut: list[SpectrumSequence] = []
        for place, sequence in enumerate(sequences):
            parts = sequence_parts(sequence, template, tokenizer)
            room = parts.room()
            fits = [max_length is None or tokens <= max_length for tokens in room]
            self._never_shown[place] = fits.count(False)
            self.too_long += fits.count(False)
            cut += [sequence] * (not all(fits))
            if not sequence.learnable:
                alone.append(sequence)
                continue
            kept = tuple(itertools.compress(sequence.examples, fits))
            # The second of a pair comes after one more message, without what begins the sequence.
            least = len(parts.start) - len(parts.between)
            pairs = _Pairs(list(itertools.compress(room, fits)), None if max_length is None else max_length + least)
            if not kept or not (sequence.description or pairs.any):
                self._never_shown[place] = len(sequence.examples)
                long.append(sequence)
                continue
            self._sequences.append(replace(sequence, examples=kept))
            self._fitting_pairs.append(pairs)
            self._places.append(place)
        self.dropped = len(alone) + len(long)
        if alone:
            logger.warning(
                "%d of %d sequences have one example and no description, so there is nothing to learn from them; they "
                "are left out: %s.", len(alone), len(sequences), names_of(alone),
            )  # fmt: skip
        if long:
            logger.warning(
                "%d of %d sequences have no output to learn within max_length=%s tokens; they are left out: %s. Fix: "
                "raise max_length.", len(long), len(sequences), max_length, names_of(long),
            )  # fmt: skip
        if cut:
            total = sum(len(sequence.examples) for sequence in sequences)
            logger.warning(
                "%d of %d examples do not fit into max_length=%s tokens by themselves; they are dropped, none is cut: "
                "%s. Fix: raise max_length.", self.too_long, total, max_length, names_of(cut),
            )  # fmt: skip
        if not self._sequences:
            raise ValueError(
                f"none of {len(sequences)} sequences has anything to learn: {len(alone)} have one example and no "
                f"description, {len(long)} do not fit into max_length={max_length} tokens. Fix: give more examples "
                "per sequence or descriptions, or raise max_length."
            )

    def not_shown(self) -> list[int]:
        """Count the examples of each given sequence that there is no room for in this epoch.

        They do not fit by themselves, or were drawn and do not fit after those drawn before them.
        """
        counts = list(self._never_shown)
        for index, place in enumerate(self._places):
            counts[place] += len(self._drawn(index)[0].examples) - len(self._tokens(index).outputs)
        return counts

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
        tokens = self._tokens(index)
        return {"input_ids": tokens.input_ids, "labels": tokens.labels}

    def _tokens(self, index: int) -> SpectrumTokens:
        """The tokens of a sequence in this epoch, with something to learn."""
        drawn, rng = self._drawn(index)
        tokens = self._encode(drawn)
        if any(label != IGNORED for label in tokens.labels):
            return tokens
        sequence = self._sequences[index]
        if sequence.description:
            return self._encode(replace(drawn, description=sequence.description))
        places = self._fitting_pairs[index].draw(None if self._draws is None else rng)
        if self._draws is not None and self._draws.shuffle and sequence.exchangeable:
            places = [places[i] for i in rng.permutation(2)]
        return self._encode(replace(sequence, examples=tuple(sequence.examples[place] for place in places)))

    def _drawn(self, index: int) -> tuple[SpectrumSequence, np.random.Generator]:
        """The sequence as it is drawn in this epoch, and what it was drawn with."""
        sequence, draws = self._sequences[index], self._draws
        seed = 0 if draws is None else draws.seed
        rng = seeded_rng(seed, "examples of a Spectrum sequence", self._epoch, index)
        if draws is None:
            return sequence, rng
        examples = list(sequence.examples)
        free = sequence.exchangeable and draws.shuffle
        if free:
            examples = [examples[place] for place in rng.permutation(len(examples))]
        described = rng.random() < draws.description_share
        if draws.mean_examples is not None:
            examples = examples[: number_of_examples(draws.mean_examples, rng)]
        shown = sequence.description if described or len(examples) == 1 else None
        if shown is None and len(examples) == 1:  # without a description one example teaches nothing
            places = rng.permutation(len(sequence.examples))[:2] if free else range(2)
            examples = [sequence.examples[place] for place in places]
        return replace(sequence, examples=tuple(examples), description=shown), rng


@dataclass(frozen=True)
class _Pairs:
    """Pairs of examples that fit together without a description.

    Attributes:
        room: Tokens of each example.
        most: Most tokens of both; None for no limit.
    """

    room: list[int]
    most: int | None

    @property
    def any(self) -> bool:
        """Whether there is a pair."""
        return len(self.room) > 1 and (self.most is None or sum(sorted(self.room)[:2]) <= self.most)

    def draw(self, rng: np.random.Generator | None) -> list[int]:
        """Return the places of one, in order; the first without `rng`."""
        pairs = itertools.combinations(range(len(self.room)), 2)
        fitting = [pair for pair in pairs if self.most is None or self.room[pair[0]] + self.room[pair[1]] <= self.most]
        return list(fitting[0 if rng is None else int(rng.integers(len(fitting)))])
