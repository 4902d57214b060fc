"""Texts to vectors: rendering, batches sorted by length, and the hidden state of the last token.

Texts are rendered as TRL's GRPO and RLOO trainers render them for a reward model, so that a jury reward model fitted
here scores the same strings in training: no end token after a plain completion, the chat template over prompt and
completion otherwise. The backbone may be any decoder of transformers. Knows nothing of judgements, raters or rewards.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from reward_models.errors import JuryError
from reward_models.judgements.texts import Prompt, Text, as_messages
from reward_models.jury.feature_cache import FeatureCache, row_key
from reward_models.jury.inference import evaluating


__all__ = ["Batch", "batches", "last_token", "pooled_features", "render", "truncate_backbone"]

Messages = Sequence[Mapping[str, Any]]
Batch = tuple[list[int], torch.Tensor, torch.Tensor]
FEW_BATCHES = 4

logger = logging.get_logger(__name__)


def render(prompt: Prompt | Messages, response: str | Messages, tokenizer: PreTrainedTokenizerBase) -> str:
    """Write a prompt and a response as the one string that a reward model reads, as TRL 1.16 does.

    Args:
        prompt: A string, a list of messages (`role`, `content`), or the (role, content) pairs of `Text.prompt`.
        response: A string; after a conversational prompt it becomes one assistant message. Or a list of messages.
        tokenizer: Its chat template renders conversations; for two strings it is not used.

    Returns:
        `prompt + response` for strings, else the chat template over all messages, without a generation prompt.

    Raises:
        JuryError: A list of messages answers a plain string, or a conversation meets a tokenizer without a chat
            template.

    Example:
        >>> from reward_models.jury.tiny import tiny_tokenizer
        >>> render("Which is best? ", "the city", tiny_tokenizer())
        'Which is best? the city'
        >>> print(render([{"role": "user", "content": "Which is best?"}], "the city", tiny_tokenizer()))
        <|im_start|>user
        Which is best?<|im_end|>
        <|im_start|>assistant
        the city<|im_end|>
    """
    if isinstance(prompt, str):
        if not isinstance(response, str):
            raise JuryError(
                f"the response {response!r} is a list of messages, but the prompt {prompt!r} is a string. "
                "Give the prompt as [{'role': 'user', 'content': ...}], or the response as a string."
            )
        return prompt + response
    if tokenizer.chat_template is None:
        raise JuryError(
            f"the prompt {prompt!r} is conversational, but the tokenizer {tokenizer.name_or_path!r} has no chat "
            "template. Set tokenizer.chat_template, or give prompts as plain strings."
        )
    # Pairs come from `Text.prompt`, where a prompt has to be hashable.
    messages = as_messages(prompt) if isinstance(prompt, tuple) else list(prompt)
    answer = [{"role": "assistant", "content": response}] if isinstance(response, str) else list(response)
    return tokenizer.apply_chat_template([*messages, *answer], tokenize=False)


def last_token(hidden: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
    """Select the hidden state of each row's last real token, whichever side the padding is on.

    The mask decides, not the token ids: where the padding token is also the end token, an id cannot tell them apart.

    Args:
        hidden: (B, T, D) hidden states.
        attention_mask: (B, T), 1 at real tokens; None when there is no padding.

    Returns:
        (B, D).

    Example:
        >>> hidden = torch.arange(3.0).view(1, 3, 1)
        >>> last_token(hidden, torch.tensor([[1, 1, 0]])).tolist(), last_token(hidden).tolist()
        ([[1.0]], [[2.0]])
    """
    if attention_mask is None:
        return hidden[:, -1]
    positions = torch.arange(hidden.shape[1], device=hidden.device)
    last = (positions * attention_mask.to(hidden.device).ne(0)).argmax(-1)
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), last]


def batches(
    texts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    batch_size: int,
    max_length: int,
    progress: bool = False,
    description: str = "features",
) -> Iterator[Batch]:
    """Tokenise rendered texts and yield them longest first, in batches padded on the right.

    A text longer than `max_length` tokens loses its beginning, not its end: the response is what is judged.

    Args:
        texts: `U` rendered texts.
        tokenizer: No special tokens are added; the rendering has them.
        batch_size: Texts per batch.
        max_length: Longest row, in tokens.
        progress: Show a bar over texts if there are more than four batches.
        description: Label of the bar.

    Yields:
        The positions in `texts`, `input_ids` (B, T) and `attention_mask` (B, T).

    Raises:
        JuryError: A text has no token, or `batch_size` or `max_length` is below one.

    Example:
        >>> from reward_models.jury.tiny import tiny_tokenizer
        >>> for index, input_ids, mask in batches(["a", "abc", "xz"], tiny_tokenizer(), batch_size=2, max_length=9):
        ...     index, mask.tolist()
        ([1, 2], [[1, 1, 1], [1, 1, 0]])
        ([0], [[1]])
    """
    yield from _row_batches(
        _token_rows(texts, tokenizer, max_length), batch_size, progress=progress, description=description
    )


def _token_rows(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[list[int]]:
    """Tokenise rendered texts, keeping the last `max_length` ids of each."""
    if max_length < 1:
        raise JuryError(f"max_length={max_length} leaves nothing to score: give at least 1.")
    if not texts:
        return []
    rows = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    for text, row in zip(texts, rows, strict=True):
        if not row:
            raise JuryError(
                f"the text {text!r} has no tokens, so there is no last token to score: drop it or add a prompt."
            )
    if any(len(row) > max_length for row in rows):
        # No counts in the message: `warning_once` knows a message by its text, and training calls this each step.
        logger.warning_once(
            f"Texts longer than max_length={max_length} tokens lose their beginning. Raise max_length to "
            "score them whole."
        )
    return [row[-max_length:] for row in rows]


def _row_batches(
    rows: Sequence[Sequence[int]], batch_size: int, *, progress: bool, description: str = "features"
) -> Iterator[Batch]:
    if batch_size < 1:
        raise JuryError(f"batch_size={batch_size} leaves nothing to score: give at least 1.")
    # Longest first: memory runs out at once or never. Ties keep their order, so the batches are reproducible.
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
    bar = tqdm(
        total=len(rows), desc=description, unit="text", disable=not progress or len(rows) <= FEW_BATCHES * batch_size
    )
    with bar:
        for start in range(0, len(order), batch_size):
            index = order[start : start + batch_size]
            ids = [torch.tensor(rows[i]) for i in index]
            mask = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
            # Any id does as padding: nothing reads it past the mask.
            yield index, pad_sequence(ids, batch_first=True), mask
            bar.update(len(index))


@torch.no_grad()
def pooled_features(
    backbone: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[Text],
    *,
    batch_size: int = 16,
    max_length: int = 512,
    progress: bool = True,
    cache_dir: str | Path | None = None,
) -> np.ndarray:
    """Compute the backbone's vector of each text: the final hidden state of its last token.

    With `cache_dir` each different text is embedded once for all runs: vectors are stored while they are computed
    (see `feature_cache`), and an interrupted run continues where it stopped. Stored and new vectors are both rounded
    to float16, so that a text has the same vector in every run.

    Args:
        backbone: A decoder or a causal language model (its head is not run). Left on its device and in its mode;
            dropout is off while it works.
        tokenizer: The backbone's tokenizer.
        texts: `U` texts.
        batch_size: Texts per forward pass.
        max_length: Longest text in tokens; longer ones lose their beginning, with a warning.
        progress: Show a progress bar when there are more than four batches.
        cache_dir: Folder of stored vectors, of any number of backbones; None computes all and stores none.

    Returns:
        (U, D) float32, in the order of `texts`.

    Raises:
        JuryError: See `render` and `batches`.

    Example:
        >>> from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
        >>> texts = [Text("Which is best?", " the city"), Text("Which is best?", " the country")]
        >>> pooled_features(tiny_causal_lm(hidden_size=16), tiny_tokenizer(), texts).shape
        (2, 16)
    """
    rendered = [render(prompt, response, tokenizer) for prompt, response in texts]
    base = backbone.base_model
    rows = _token_rows(rendered, tokenizer, max_length)
    features = np.empty((len(rows), base.config.get_text_config().hidden_size), dtype=np.float32)

    def embed(todo: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for index, input_ids, mask in _row_batches([rows[i] for i in todo], batch_size, progress=progress):
            mask = mask.to(base.device)
            hidden = base(input_ids=input_ids.to(base.device), attention_mask=mask, use_cache=False).last_hidden_state
            yield todo[index], last_token(hidden, mask).float().cpu().numpy()

    with evaluating(base):
        if cache_dir is None:
            for index, vectors in embed(np.arange(len(rows))):
                features[index] = vectors
        else:
            FeatureCache(cache_dir, base).complete([row_key(row) for row in rows], features, embed)
    return features


def truncate_backbone(model: PreTrainedModel, num_layers: int) -> PreTrainedModel:
    """Keep the first layers of a decoder only, so that features come from its middle and cost less.

    Embeddings and final norm are kept. The layers are shared with `model`, not copied: training one trains the other.

    Args:
        model: A decoder such as `AutoModel` gives, or a causal language model, whose head is dropped.
        num_layers: How many layers to keep, from 1 to all of them.

    Returns:
        A model of the same class as `model`'s decoder. Its last hidden state is the final norm of
        `hidden_states[num_layers]`.

    Raises:
        JuryError: `num_layers` is out of range, or the decoder does not keep its layers in one list.

    Example:
        >>> from reward_models.jury.tiny import tiny_causal_lm
        >>> len(truncate_backbone(tiny_causal_lm(num_hidden_layers=4), 3).layers)
        3
    """
    base = model.base_model
    total = base.config.num_hidden_layers
    if not 1 <= num_layers <= total:
        raise JuryError(
            f"num_layers={num_layers}: {type(base).__name__} has {total} layers; give a number from 1 to {total}."
        )
    names = [name for name, child in base.named_children() if isinstance(child, nn.ModuleList) and len(child) == total]
    if len(names) != 1:
        raise JuryError(
            f"{type(base).__name__} does not keep its {total} layers in one torch.nn.ModuleList, so the first "
            f"{num_layers} cannot be cut out. Use the whole backbone."
        )
    config = copy.deepcopy(base.config)
    config.num_hidden_layers = num_layers
    if getattr(config, "layer_types", None) is not None:
        config.layer_types = config.layer_types[:num_layers]
    truncated = copy.copy(base)
    # A shallow copy shares the dictionary of submodules too; ours must be its own before a list in it is replaced.
    truncated._modules = {**base._modules, names[0]: base.get_submodule(names[0])[:num_layers]}
    truncated.config = config
    return truncated
