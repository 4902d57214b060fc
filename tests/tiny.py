"""The tiny language model of `reward_models.jury.tiny` under the names that tests use, and a way to save it.

It is small enough to train inside a test, downloads nothing, and is the same on every call with the same arguments.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer


__all__ = ["save_tiny", "tiny_bert", "tiny_causal_lm", "tiny_tokenizer"]


def save_tiny(path: str | Path, seed: int = 0, **config: Any) -> str:
    """Save the tiny model and its tokenizer under `path` in `from_pretrained` form; return the path as a string."""
    tokenizer = tiny_tokenizer()
    tiny_causal_lm(tokenizer, seed=seed, **config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


def tiny_bert(folder: Path, *, pooler: bool = True) -> tuple[BertModel, BertTokenizerFast]:
    """Make a tiny encoder and a word-piece tokenizer, which puts [CLS] and [SEP] around a text; write its words."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "yes", "no", "is", "it", "right", "too", "little", "?", "."]
    (folder / "vocab.txt").write_text("\n".join(words))
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=64)
    config = BertConfig(
        vocab_size=14, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    torch.manual_seed(0)
    return BertModel(config, add_pooling_layer=pooler), tokenizer
