"""How probable a model finds each example of a sequence after those before it: the curve of in-context learning.

Knows nothing of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm.auto import tqdm

from plural_rlhf.methods.spectrum.sequences import SpectrumSequence
from plural_rlhf.methods.spectrum.template import SpectrumTemplate
from plural_rlhf.methods.spectrum.tokens import encode_sequence
from plural_rlhf.policies.log_probs import span_losses
from reward_models.inference import evaluating


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["ExampleLosses", "example_losses"]


@dataclass(frozen=True)
class ExampleLosses:
    """Losses of examples by their place in the sequence.

    Attributes:
        nats: `(S, E)` negative log-probability of each output with its end token, NaN where there is no example.
        correct: `(S, E)` whether every token of the output was the most probable one; False where there is none.

    Example:
        >>> losses = ExampleLosses(np.array([[2.0, 1.0], [4.0, np.nan]]), np.array([[False, True], [False, False]]))
        >>> losses.curve().tolist(), losses.accuracy().tolist()
        ([3.0, 1.0], [0.0, 1.0])
    """

    nats: np.ndarray
    correct: np.ndarray

    def curve(self) -> np.ndarray:
        """Return the mean loss after 0, 1, ... examples, `(E,)` nats."""
        return np.nanmean(self.nats, axis=0)

    def accuracy(self) -> np.ndarray:
        """Return the share of correct outputs after 0, 1, ... examples, `(E,)`."""
        return np.where(np.isnan(self.nats), 0, self.correct).sum(axis=0) / (~np.isnan(self.nats)).sum(axis=0)


def example_losses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sequences: Sequence[SpectrumSequence],
    template: SpectrumTemplate,
    *,
    max_length: int | None = None,
    progress: bool = True,
) -> ExampleLosses:
    """Score every output of every sequence once, given the examples before it.

    The first output is scored too, with or without a description: what a model gains from examples is the difference
    to it.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        sequences: `S` sequences of up to `E` examples.
        template: From `template_for`.
        max_length: Most tokens of a sequence; examples that do not fit are not scored.
        progress: Whether to show a bar.

    Example:
        >>> from plural_rlhf.methods.spectrum import coin_flips, template_for
        >>> from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
        >>> tokenizer = tiny_tokenizer()
        >>> flips = coin_flips(2, 3)
        >>> example_losses(tiny_causal_lm(tokenizer), tokenizer, flips, template_for(tokenizer)).nats.shape
        (2, 3)
    """
    nats = np.full((len(sequences), max(len(s.examples) for s in sequences)), np.nan)
    correct = np.zeros(nats.shape, dtype=bool)
    with evaluating(model), torch.no_grad():
        for row, sequence in enumerate(tqdm(sequences, desc="Scoring sequences", disable=not progress)):
            tokens = encode_sequence(sequence, template, tokenizer, max_length)
            ids = torch.tensor([tokens.input_ids], device=model.device)
            scored = len(tokens.outputs)
            nats[row, :scored], correct[row, :scored] = span_losses(model(ids).logits[0], ids[0], tokens.outputs)
    return ExampleLosses(nats, correct)
