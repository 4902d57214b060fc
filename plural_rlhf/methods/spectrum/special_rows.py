"""Chat tokens of a base model: their rows are copied from a sibling that was trained to read them.

A base model has rows for its family's chat tokens that no training ever touched; all else stays as it was pretrained.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["copy_special_rows"]


def copy_special_rows(
    model: PreTrainedModel,
    sibling: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tokens: Iterable[str],
) -> list[int]:
    """Copy the embedding and unembedding rows of some tokens from a sibling, in place.

    Args:
        model: The base model, changed in place.
        sibling: The instruction-tuned model of the same family and size.
        tokenizer: Of both.
        tokens: Which, e.g. `template.special`.

    Returns:
        The ids of the tokens.

    Raises:
        ValueError: A token is unknown, or the models are of different sizes.

    Example:
        >>> from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
        >>> tokenizer, base, sibling = tiny_tokenizer(), tiny_causal_lm(seed=0), tiny_causal_lm(seed=1)
        >>> before = base.get_input_embeddings().weight.clone()
        >>> ids = copy_special_rows(base, sibling, tokenizer, ["<|im_start|>"])
        >>> changed = (base.get_input_embeddings().weight != before).any(dim=1)
        >>> changed.nonzero().flatten().tolist() == ids
        True
    """
    vocabulary = tokenizer.get_vocab()
    names = list(tokens)
    for token in names:
        if token not in vocabulary:
            raise ValueError(
                f"the tokenizer has no token {token!r}. Fix: pass the special tokens of its own template."
            )
    ids = [vocabulary[token] for token in names]
    pairs = [(model.get_input_embeddings(), sibling.get_input_embeddings())]
    if model.get_output_embeddings() is not None and not model.config.tie_word_embeddings:
        pairs.append((model.get_output_embeddings(), sibling.get_output_embeddings()))
    for ours, theirs in pairs:
        if (
            theirs is None
            or ours.weight.shape[1] != theirs.weight.shape[1]
            or len(theirs.weight) <= max(ids, default=0)
        ):
            shape = None if theirs is None else tuple(theirs.weight.shape)
            raise ValueError(
                f"the sibling's embedding is {shape}, the model's {tuple(ours.weight.shape)}. Fix: take the "
                "instruction-tuned model of the same family and size."
            )
    with torch.no_grad():
        for ours, theirs in pairs:
            ours.weight[ids] = theirs.weight[ids].to(ours.weight)
    return ids
