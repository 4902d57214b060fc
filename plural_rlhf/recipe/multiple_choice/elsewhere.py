"""What a training changes where nothing was trained: how far policies are from the language model on other texts.

The texts are conversations that the language model makes up by itself, others than those that a rehearsal trains on.
Knows nothing of questions and people.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from plural_rlhf.policies.answers import encode_prompt
from plural_rlhf.policies.reference_texts import ReferenceTexts
from plural_rlhf.recipe.config import RunConfig
from plural_rlhf.recipe.job import KeepPieces
from plural_rlhf.recipe.multiple_choice.policies import own_text_rows
from plural_rlhf.report.results_policies import ElsewhereResult
from reward_models.inference import evaluating
from reward_models.seeds import derived_seed
from reward_models.stats.few_units import mean_interval


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["TEXTS", "Elsewhere", "elsewhere_results"]

TEXTS = 16
"""Conversations on which policies are measured."""
_BATCH = 8


class Elsewhere:
    """Conversations of the language model, and what it would say at each of their places.

    Args:
        config: The run.
        base: The language model without any adapter.
        tokenizer: Its tokenizer.
        keep: Given a name and pieces of work, returns their results.
    """

    def __init__(
        self, config: RunConfig, base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, keep: KeepPieces
    ) -> None:
        seed = derived_seed(config.seed, "conversations that are measured")
        [rows] = keep("own texts", [partial(own_text_rows, config, base, tokenizer, TEXTS, seed)])
        encode, longest = partial(encode_prompt, tokenizer=tokenizer), config.rehearsal.max_tokens
        self._before = ReferenceTexts.of(base, tokenizer, rows, encode, max_tokens=longest)

    def pieces(self, model: PreTrainedModel) -> list[Callable[[], list[float]]]:
        """Return the work of measuring a policy: each piece gives divergences of some texts, nats per token."""

        def measure(start: int) -> list[float]:
            chosen = range(start, min(start + _BATCH, len(self._before)))
            with torch.no_grad(), evaluating(model):
                return self._before.divergences(model, chosen).double().clamp(min=0).tolist()

        return [partial(measure, start) for start in range(0, len(self._before), _BATCH)]


def elsewhere_results(divergences: Mapping[str, Sequence[float]], level: float) -> Iterator[ElsewhereResult]:
    """Yield how far each policy is from the language model, with intervals over texts.

    Args:
        divergences: Of each text, nats per token, by policy.
        level: Level of the intervals.

    Example:
        >>> [row] = elsewhere_results({"plural": [0.1, 0.2, 0.3]}, level=0.95)
        >>> round(row.kl_per_token, 3), row.n
        (0.2, 3)
    """
    for method, of_text in divergences.items():
        if not of_text:  # the language model makes up nothing
            continue
        low, high = mean_interval(np.array(of_text), level)
        yield ElsewhereResult(
            method=method, kl_per_token=float(np.mean(of_text)), ci_low=max(0.0, low), ci_high=high, n=len(of_text)
        )
