"""The head of a jury under fixed weights as the last layer of a sentence embedder, for `export_scalar`.

Classifiers of transformers read one token. Where a jury reads the mean over tokens, or an encoder that has no plain
linear classifier, the nearest thing that other tools load without our code is a folder of sentence-transformers whose
last module is a linear layer with one output:

    SentenceTransformer(folder).encode(texts)  # (N, 1) rewards

The modules are written as files; sentence-transformers itself is not needed. Knows nothing of clusters.

Shapes: `N` texts, `D` features.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reward_models.jury.reading import ReadingSettings
from reward_models.whole_file import write_arrays, write_json


__all__ = ["write_embedder"]

MODULES = "sentence_transformers.models"
POOLING_MODES = {
    "mean": "pooling_mode_mean_tokens",
    "first_token": "pooling_mode_cls_token",
    "last_token": "pooling_mode_lasttoken",
}


def write_embedder(
    folder: Path,
    backbone: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    reading: ReadingSettings,
    head: np.ndarray,
    constant: float,
) -> None:
    """Write backbone, pooling and linear head as modules of sentence-transformers.

    Args:
        folder: An empty folder.
        backbone: The encoder or decoder, without a head.
        tokenizer: Its tokenizer, which adds the special tokens that the jury reads.
        reading: How the jury reads texts.
        head: (D,) weights of the reward.
        constant: Its constant.

    Example:
        >>> import tempfile
        >>> from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
        >>> reading = ReadingSettings(pooling="mean", unit_length=True)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     backbone = tiny_causal_lm().base_model
        ...     write_embedder(Path(folder), backbone, tiny_tokenizer(), reading, np.ones(32), 0.5)
        ...     sorted(path.name for path in Path(folder).iterdir() if path.is_dir())
        ['1_Pooling', '2_Normalize', '3_Dense']
    """
    backbone.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    pooling = {mode: name == reading.pooling for name, mode in POOLING_MODES.items()}
    parts: dict[str, dict[str, Any]] = {"Pooling": {"word_embedding_dimension": len(head), **pooling}}
    if reading.unit_length:
        parts["Normalize"] = {}
    parts["Dense"] = {
        "in_features": len(head),
        "out_features": 1,
        "bias": True,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    modules: list[dict[str, Any]] = [{"idx": 0, "name": "0", "path": "", "type": f"{MODULES}.Transformer"}]
    for number, (name, settings) in enumerate(parts.items(), 1):
        path = f"{number}_{name}"
        modules.append({"idx": number, "name": str(number), "path": path, "type": f"{MODULES}.{name}"})
        (folder / path).mkdir()
        if settings:
            write_json(folder / path / "config.json", settings)
    write_json(folder / "modules.json", modules)
    longest = {"max_seq_length": reading.max_length, "do_lower_case": False}
    write_json(folder / "sentence_bert_config.json", longest)
    weights = {"linear.weight": head[None], "linear.bias": np.array([constant])}
    as_float32 = {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in weights.items()}
    write_arrays(folder / modules[-1]["path"] / "model.safetensors", as_float32)
