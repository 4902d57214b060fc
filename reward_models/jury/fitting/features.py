"""The texts of judgements as a fit reads them: their features, computed once, and one text where two read the same.

Knows nothing of raters or rewards.

Shapes: `U` texts, `D` features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reward_models.errors import JuryError, did_you_mean
from reward_models.fitting.em import FitConfig
from reward_models.fitting.joint.feature_choice import FeatureChoice, choose_features
from reward_models.fitting.starting_point import is_whole
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.texts import Text
from reward_models.jury.backbones.feature_cache import row_key
from reward_models.jury.features import pooled_features_of_readings
from reward_models.jury.reading import POOLINGS, ReadingSettings, shorten


__all__ = ["TextFeatures", "TextOptions", "candidate_readings", "one_text_each", "text_features"]


@dataclass(frozen=True)
class TextOptions:
    """How texts may be read, as `fit_jury` takes it; a value "auto" is chosen on held-out texts.

    Raises:
        JuryError: A value that is no way of reading texts.

    Example:
        >>> TextOptions(pooling="mean").read_prompt
        True
        >>> TextOptions(pooling="men")
        Traceback (most recent call last):
        reward_models.errors.JuryError: pooling='men' is none of last_token, mean, first_token, auto. Did you mean ...
    """

    pooling: str | None = None
    hidden_layers: Sequence[int] | Literal["auto"] | None = None
    read_prompt: bool | Literal["auto"] = True
    max_length: int | None = None

    def __post_init__(self) -> None:
        poolings = (*POOLINGS, "auto")
        if self.pooling is not None and self.pooling not in poolings:
            hint = did_you_mean(self.pooling, poolings)
            raise JuryError(f"pooling={self.pooling!r} is none of {', '.join(poolings)}.{hint}")
        if not _names_layers(self.hidden_layers):
            raise JuryError(
                f"hidden_layers={self.hidden_layers!r} names no layers. Fix: a list of whole numbers from 1, e.g. "
                'hidden_layers=(6,) or hidden_layers=(6, 12), or "auto"; leave it out for the last'
            )
        if not isinstance(self.read_prompt, bool | np.bool_) and self.read_prompt != "auto":
            raise JuryError(f'read_prompt={self.read_prompt!r} says neither yes nor no. Fix: True, False or "auto"')
        if self.max_length is not None and not is_whole(self.max_length):
            raise JuryError(
                f"max_length={self.max_length!r} is no number of tokens. Fix: a whole number, e.g. max_length=512"
            )


def _names_layers(layers: object) -> bool:
    if layers is None or isinstance(layers, str):
        return layers in (None, "auto")
    return isinstance(layers, Iterable) and all(map(is_whole, layers))


@dataclass(frozen=True)
class TextFeatures:
    """Texts of tables, ready for a fit.

    Attributes:
        tables: The judgements; texts that the backbone reads as the same tokens are one text.
        rows: For each table (U, D) features of its texts.
        reading: How they were read.
        choice: Why they were read so; None where there was one way.
        same: Texts that read the same as another, and the one that stands for them.
    """

    tables: list[Encoded]
    rows: list[np.ndarray]
    reading: ReadingSettings
    choice: FeatureChoice | None
    same: dict[Text, Text]

    def of(self, texts: Sequence[Text]) -> np.ndarray:
        """Return the (U', D) features of some of the texts."""
        row_of = {
            text: row
            for table, rows in zip(self.tables, self.rows, strict=True)
            for text, row in zip(table.texts, rows, strict=True)
        }
        return np.stack([row_of[text] for text in texts])


def candidate_readings(usual: ReadingSettings, options: TextOptions, depth: int) -> dict[str, ReadingSettings]:
    """List the ways to read a text among which a fit chooses, by name; the usual one first.

    Args:
        usual: As the backbone was trained, or by default.
        options: What the user asked for.
        depth: Number of layers of the backbone.

    Example:
        >>> list(candidate_readings(ReadingSettings(), TextOptions(pooling="auto", hidden_layers="auto"), depth=8))[:3]
        ['last_token', 'last_token of layers 4', 'last_token of layers 4, 6, 8']
    """
    if options.max_length is not None:
        usual = replace(usual, max_length=options.max_length)
    poolings: list[str] = [options.pooling or usual.pooling]
    if options.pooling == "auto":
        poolings = list(dict.fromkeys([usual.pooling, "last_token", "mean"]))
    layers: list[tuple[int, ...] | None] = [usual.layers]
    if options.hidden_layers == "auto":
        middle = max(depth // 2, 1)
        layers = list(dict.fromkeys([usual.layers, (middle,), (middle, max(3 * depth // 4, 1), depth)]))
    elif options.hidden_layers is not None:
        layers = [tuple(int(layer) for layer in options.hidden_layers)]
    prompts = [True, False] if options.read_prompt == "auto" else [options.read_prompt]
    readings: dict[str, ReadingSettings] = {}
    for read_prompt in prompts:
        for pooling in poolings:
            for some in layers:
                name = pooling if some is None else f"{pooling} of layers {', '.join(map(str, some))}"
                name += "" if read_prompt else ", responses alone"
                readings[name] = replace(usual, pooling=pooling, layers=some, read_prompt=read_prompt)
    return readings


def text_features(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tables: list[Encoded],
    usual: ReadingSettings,
    options: TextOptions,
    config: FitConfig,
    cache_dir: str | Path | None,
    progress: bool,
    announce: Callable[[str], None],
) -> TextFeatures:
    """Compute the features of all texts, once for all tables, and choose how they are read.

    Args:
        model: The backbone.
        tokenizer: Its tokenizer.
        tables: The judgements.
        usual: How the backbone reads by default.
        options: What is asked for.
        config: Settings of the fits that candidates are compared by.
        cache_dir: See `fit_jury`.
        progress: Show progress bars.
        announce: Called with a sentence when a step begins.

    Example:
        >>> from reward_models import planted_judgements
        >>> from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
        >>> enc, tokenizer = planted_judgements("rating", num_items=6).judgements.encode(), tiny_tokenizer()
        >>> settings = ReadingSettings(), TextOptions(), FitConfig(), None, False, print
        >>> read = text_features(tiny_causal_lm(hidden_size=16), tokenizer, [enc], *settings)
        computing the language model's features of 6 texts
        >>> read.rows[0].shape
        (6, 16)
    """
    texts = list(dict.fromkeys(text for table in tables for text in table.texts))
    candidates = candidate_readings(usual, options, model.base_model.config.get_text_config().num_hidden_layers)
    announce(f"computing the language model's features of {len(texts):,} texts")
    vectors: dict[str, np.ndarray] = {}
    for read_prompt in dict.fromkeys(reading.read_prompt for reading in candidates.values()):
        same_pass = {name: reading for name, reading in candidates.items() if reading.read_prompt == read_prompt}
        found = pooled_features_of_readings(
            model, tokenizer, texts, list(same_pass.values()), progress=progress, cache_dir=cache_dir, exact=True
        )
        vectors |= dict(zip(same_pass, found, strict=True))
    row = {text: i for i, text in enumerate(texts)}
    index = [np.array([row[text] for text in table.texts], dtype=np.int64) for table in tables]
    choice = None
    if len(candidates) > 1:
        announce(f"comparing {len(candidates)} ways to read texts on held-out texts")
        choice = choose_features(tables, {name: [x[i] for i in index] for name, x in vectors.items()}, config)
        announce(choice.reason)
    name = next(iter(candidates)) if choice is None else choice.name
    reading = candidates[name]
    whole = reading.tokenise(reading.render_all(texts, tokenizer), tokenizer)
    keys = [row_key(ids) for ids in shorten(whole, reading.max_length)[0]]
    first: dict[bytes, Text] = {}
    canonical = {text: first.setdefault(key, text) for text, key in zip(texts, keys, strict=True)}
    if len(first) < len(texts):
        doubles = len(texts) - len(first)
        said = "1 text reads the same as another" if doubles == 1 else f"{doubles:,} texts read the same as others"
        announce(f"{said}, and share{'s' * (doubles == 1)} {'its' if doubles == 1 else 'their'} reward")
    merged = [one_text_each(table, canonical) for table in tables]
    of_name = vectors[name]
    same = {text: other for text, other in canonical.items() if text != other}
    return TextFeatures(merged, [of_name[[row[t] for t in table.texts]] for table in merged], reading, choice, same)


def one_text_each(table: Encoded, canonical: dict[Text, Text]) -> Encoded:
    """Replace texts by the one that stands for all that read the same.

    Args:
        table: The judgements.
        canonical: For each text the one that stands for it.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("rating", num_raters=2, num_items=3).judgements.encode()
        >>> merged = one_text_each(enc, dict.fromkeys(enc.texts, enc.texts[0]))
        >>> merged.n_texts, merged.alternatives.max()
        (1, np.int64(0))
    """
    texts = list(dict.fromkeys(canonical[text] for text in table.texts))
    if len(texts) == table.n_texts:
        return table
    number = {text: i for i, text in enumerate(texts)}
    of_text = np.array([*(number[canonical[text]] for text in table.texts), -1], dtype=np.int64)  # last: the padding
    return replace(
        table,
        texts=texts,
        alternatives=of_text[table.alternatives],
        item_alternatives=of_text[table.item_alternatives],
    )
