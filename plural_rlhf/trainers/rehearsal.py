"""A policy that goes on saying what it said where it is not trained: a divergence to itself on other texts.

A policy that is trained on few prompts changes everywhere: one that has learnt the answers to twelve questions gives
them to all others. With a rehearsal (Robins 1995, "Catastrophic forgetting, rehearsal and pseudorehearsal",
https://doi.org/10.1080/09540099550039318) the loss gets a term for texts that the training is not about,

    weight · mean over texts and their places of KL(π₀(· | text so far) ‖ π(· | text so far)),

where π₀ is the policy before its first update. It says nothing about the prompts that are trained on, so that their
target stays what it was; policies that can tell the two kinds of prompts apart reach both. Knows no trainer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from plural_rlhf.policies.own_texts import draw_own_texts
from plural_rlhf.policies.reference_texts import ReferenceTexts, check_text_rows


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Rehearsal"]


class Rehearsal:
    """Keeps what a policy says on texts that the training is not about.

    Args:
        texts: How many the policy makes up by itself before training, see `draw_own_texts`; or rows with `prompt` and
            `completion`, strings or conversations, as TRL takes them.
        weight: Factor of the term in the loss, above 0.
        per_step: Texts in each forward pass of the training.
        max_tokens: Tokens of a completion that count, from its beginning.
        seed: Random seed of the texts that the policy makes up.

    Raises:
        ValueError: A number out of its range, or a row that is no text.

    Example:
        >>> from plural_rlhf.policies.answers import encode_prompt
        >>> from plural_rlhf.policies.base_models import tiny_causal_lm, tiny_tokenizer
        >>> tokenizer = tiny_tokenizer()
        >>> model = tiny_causal_lm(tokenizer)
        >>> rehearsal = Rehearsal([{"prompt": "A colour? ", "completion": "red"}], per_step=1)
        >>> rehearsal.begin(model, tokenizer, lambda prompt: encode_prompt(prompt, tokenizer))
        >>> rehearsal.divergence(model, rehearsal.next_texts(0)).detach().abs().round(decimals=5)  # not trained
        tensor(0.)
    """

    def __init__(
        self,
        texts: int | Sequence[Mapping[str, Any]] = 64,
        *,
        weight: float = 1.0,
        per_step: int = 4,
        max_tokens: int = 48,
        seed: int = 0,
    ) -> None:
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not (is_number and math.isfinite(weight) and weight > 0):
            raise ValueError(f"weight is {weight!r}: give a factor above 0, or leave the rehearsal out.")
        counts = {"per_step": per_step, "max_tokens": max_tokens}
        if isinstance(texts, int):
            counts["texts"] = texts
        else:
            check_text_rows(texts)
        for name, value in counts.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value}: give a whole number, 1 or more.")
        self.texts, self.weight, self.per_step = texts, float(weight), per_step
        self.max_tokens, self.seed = max_tokens, seed
        self._before: ReferenceTexts | None = None

    def begin(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        encode_prompt: Callable[[Any], list[int]],
    ) -> None:
        """Take the policy as it is now for π₀; what it makes up by itself is drawn now.

        Args:
            model: The policy, before its first update.
            tokenizer: Its tokenizer.
            encode_prompt: Tokenises a prompt as in the training.

        Raises:
            ValueError: The policy was to make up texts, and made up none.
        """
        rows = self.texts
        if isinstance(rows, int):
            own = draw_own_texts(model, tokenizer, rows, max_new_tokens=self.max_tokens, seed=self.seed)
            rows = [text.row for text in own]
            if not rows:
                raise ValueError(
                    f"{type(model).__name__} makes up no text by itself, so there is nothing to keep. Fix: give texts "
                    "of your own, or leave the rehearsal out."
                )
        self._before = ReferenceTexts.of(model, tokenizer, rows, encode_prompt, max_tokens=self.max_tokens)

    def next_texts(self, micro_step: int, process: int = 0, processes: int = 1) -> list[int]:
        """Return the indices of the texts of a forward pass: all in turn, again and again.

        They follow from the step, so that a training that is resumed goes on with those that it would have had.

        Args:
            micro_step: Forward and backward passes of the training so far.
            process: Number of this process.
            processes: How many there are; each has texts of its own.
        """
        first = (micro_step * processes + process) * self.per_step
        return [(first + n) % len(self._known()) for n in range(self.per_step)]

    def divergence(self, model: torch.nn.Module, chosen: Sequence[int]) -> torch.Tensor:
        """Return the mean divergence of some of the texts, nats per token, without the weight.

        Args:
            model: The policy, perhaps wrapped; gradients flow to it.
            chosen: Indices of the texts.
        """
        return self._known().divergences(model, chosen).mean()

    def _known(self) -> ReferenceTexts:
        if self._before is None:
            raise ValueError("the policy before training is not known yet: call begin() first.")
        return self._before
