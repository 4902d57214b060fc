"""Which option a model expects next after 0, 1, 2, ... examples, for sequences whose outputs are one of some options.

What a model spends on the form of an answer is left out: probabilities are shares among the options. Knows nothing of
training.
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
from plural_rlhf.methods.spectrum.tokens import content_ids, encode_sequence
from plural_rlhf.policies.log_probs import completion_log_probs, pad_left
from reward_models.inference import evaluating
from reward_models.stats.answers import js_divergence


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["OptionCurves", "option_curves"]


@dataclass(frozen=True)
class OptionCurves:
    """Distances of what a model expects from what is true, by number of examples read.

    Attributes:
        positions: `P` numbers of examples read.
        js_nats: `(S, P)` Jensen-Shannon divergence between the model's shares of the options and the true ones; NaN
            where the true ones are unknown or there is no such example.
        choice_nats: `(S, P)` negative logarithm of the share of the output that came; NaN where there is none.
        coverage: `(S, P)` probability of all options together.

    Example:
        >>> curves = OptionCurves((0, 4), np.array([[0.2, 0.1], [0.4, np.nan]]), np.zeros((2, 2)), np.ones((2, 2)))
        >>> curves.js_curve().round(2).tolist()
        [0.3, 0.1]
    """

    positions: tuple[int, ...]
    js_nats: np.ndarray
    choice_nats: np.ndarray
    coverage: np.ndarray

    def js_curve(self) -> np.ndarray:
        """Return the mean divergence after each number of examples, `(P,)` nats."""
        return np.nanmean(self.js_nats, axis=0)


def option_curves(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sequences: Sequence[SpectrumSequence],
    template: SpectrumTemplate,
    *,
    positions: Sequence[int] = (0, 1, 2, 4, 8, 16),
    max_length: int | None = None,
    progress: bool = True,
) -> OptionCurves:
    """Score every option of every sequence after some numbers of examples.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        sequences: `S` sequences with `options`.
        template: From `template_for`.
        positions: Numbers of examples read.
        max_length: Most tokens of a sequence; positions beyond are not scored.
        progress: Whether to show a bar.

    Raises:
        ValueError: A sequence has no options.

    Example:
        >>> from plural_rlhf.methods.spectrum import coin_flips, template_for
        >>> from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
        >>> tokenizer = tiny_tokenizer()
        >>> curves = option_curves(
        ...     tiny_causal_lm(tokenizer), tokenizer, coin_flips(2, 3), template_for(tokenizer), positions=(0, 2)
        ... )
        >>> curves.js_nats.shape, bool((curves.choice_nats > 0).all())
        ((2, 2), True)
    """
    for sequence in sequences:
        if not sequence.options:
            raise ValueError(
                f"the sequence {sequence.name!r} has no options, so that there is nothing to choose from. Fix: give "
                "`options`, or measure it by example_losses."
            )
    places = tuple(positions)
    js, choice, coverage = (np.full((len(sequences), len(places)), np.nan) for _ in range(3))
    with evaluating(model), torch.no_grad():
        for row, sequence in enumerate(tqdm(sequences, desc="Scoring options", disable=not progress)):
            tokens = encode_sequence(sequence, template, tokenizer, max_length)
            columns = [column for column, place in enumerate(places) if place < len(tokens.outputs)]
            if not columns:
                continue  # not even the first example fits
            prompts = [tokens.input_ids[: tokens.outputs[places[column]][0]] for column in columns]
            logs = _option_logs(model, tokenizer, prompts, sequence.options, template)  # (columns, A)
            for log, column in zip(logs, columns, strict=True):
                total = np.logaddexp.reduce(log)
                shares = np.exp(log - total)
                coverage[row, column] = np.exp(total)
                came = sequence.options.index(sequence.examples[places[column]].output)
                choice[row, column] = total - log[came]
                if sequence.shares:
                    js[row, column] = js_divergence(np.array(sequence.shares), shares)
    return OptionCurves(places, js, choice, coverage)


def _option_logs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    options: Sequence[str],
    template: SpectrumTemplate,
) -> np.ndarray:
    """Return log-probabilities of the options with their end token after each prompt, `(prompts, A)`."""
    end = tokenizer.convert_tokens_to_ids(template.end)
    answers = [[*ids, end] for ids in content_ids(options, tokenizer)]
    longest = max(map(len, answers))
    prompt_ids, prompt_mask = pad_left([prompt for prompt in prompts for _ in answers], end)
    padded = [[*ids, *[end] * (longest - len(ids))] for ids in answers] * len(prompts)
    real = [[1] * len(ids) + [0] * (longest - len(ids)) for ids in answers] * len(prompts)
    rows = {
        "prompt_ids": prompt_ids.to(model.device),
        "prompt_mask": prompt_mask.to(model.device),
        "completion_ids": torch.tensor(padded, device=model.device),
        "completion_mask": torch.tensor(real, device=model.device),
    }
    logs = completion_log_probs(model, rows).sum(dim=1).double().cpu().numpy()
    return logs.reshape(len(prompts), len(answers))
