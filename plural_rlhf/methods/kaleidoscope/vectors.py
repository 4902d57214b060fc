"""Texts to vectors, for judges that are fitted: of a language model or a sentence embedder, or of words alone.

Knows nothing of values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reward_models.judgements.texts import Text
from reward_models.jury.backbones.loading import load_backbone, weights_hash
from reward_models.jury.features import pooled_features
from reward_models.jury.reading import ReadingSettings


__all__ = ["WORDS", "BackboneVectors", "TextVectors", "WordVectors", "word_vectors"]

WORDS = "words"
COLUMNS = 256


class TextVectors(Protocol):
    """Anything that maps texts to vectors.

    Attributes:
        name: Where they come from, e.g. the folder of a model; saved with a judge.
        identity: What a saved judge is refused by if it has changed, e.g. a hash of the weights.

    Example:
        >>> word_vectors.name, word_vectors(["a phone"]).shape
        ('words', (1, 256))
    """

    @property
    def name(self) -> str:
        """Where the vectors come from."""
        ...

    @property
    def identity(self) -> str:
        """What tells them from other vectors."""
        ...

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return (N, D) vectors of `N` texts."""
        ...


@dataclass(frozen=True)
class WordVectors:
    """Counts of hashed words, (N, 256), scaled to length 1: they need no model, and know no synonym.

    Example:
        >>> a, b, c = word_vectors(["stealing a phone", "Stealing a phone.", "giving away"])
        >>> round(float(a @ b), 3), bool(a @ c < 0.5)
        (1.0, True)
    """

    name: str = WORDS
    identity: str = f"{COLUMNS} columns"

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return (N, 256) vectors."""
        from sklearn.feature_extraction.text import HashingVectorizer

        hashed = HashingVectorizer(n_features=COLUMNS, alternate_sign=False).transform(texts)
        return np.asarray(hashed.todense(), dtype=np.float64)


word_vectors = WordVectors()
"""Vectors of words alone, for a judge without a model."""


@dataclass(frozen=True)
class BackboneVectors:
    """Vectors of a frozen model: a sentence embedder as it was trained, a decoder's last token.

    Each different text is run once.

    Args:
        path: Folder or Hub id; loaded when it is first needed.
        batch_size: Texts per forward pass.
        cache_dir: Folder of stored vectors; None: none are stored.

    Example:
        >>> BackboneVectors("models/not-loaded-before-it-is-asked").name
        'models/not-loaded-before-it-is-asked'
    """

    path: str | Path
    batch_size: int = 64
    cache_dir: str | Path | None = None
    _known: dict[str, np.ndarray] = field(default_factory=dict, init=False, repr=False)

    @property
    def name(self) -> str:
        """Absolute path, or id of the Hub."""
        return str(Path(self.path).resolve()) if Path(self.path).is_dir() else str(self.path)

    @cached_property
    def identity(self) -> str:
        """Hash of the weights."""
        return weights_hash(self._loaded[0])

    @cached_property
    def _loaded(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, ReadingSettings]:
        model, tokenizer, reading = load_backbone(self.path)
        return model, tokenizer, replace(reading, format="any", read_prompt=False)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return (N, D) vectors."""
        model, tokenizer, reading = self._loaded
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            vectors = pooled_features(
                model,
                tokenizer,
                [Text("", text) for text in new],
                batch_size=self.batch_size,
                cache_dir=self.cache_dir,
                reading=reading,
            )
            self._known.update(zip(new, vectors, strict=True))
        return np.stack([self._known[text] for text in texts])
