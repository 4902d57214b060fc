"""How a training reads its texts: as conversations or plain text, with which special tokens, up to which length.

The finished jury reads texts in the same way. Knows nothing of models and training steps.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from reward_models.jury.backbones.loading import usual_reading
from reward_models.jury.modeling_jury import JuryRewardModel
from reward_models.jury.reading import SEPARATOR, ReadingSettings, TextFormat
from reward_models.trainer.checkpoint import STATE_FILE, read_reading
from reward_models.trainer.data import JuryData
from reward_models.trainer.jury_reward_config import JuryRewardConfig


__all__ = ["resumed_reading", "training_reading"]


def training_reading(
    args: JuryRewardConfig,
    data: JuryData,
    tokenizer: PreTrainedTokenizerBase,
    jury: JuryRewardModel | None = None,
) -> ReadingSettings:
    """Return how a training reads its texts, which is how the finished jury reads texts.

    Args:
        args: `max_length`, and what is to differ from the default: `as_conversations`, `special_tokens`,
            `read_prompt`.
        data: The training data. Judgement tables are read as conversations where the tokenizer has a template, TRL's
            `chosen`/`rejected` as TRL reads them.
        tokenizer: The backbone's.
        jury: The model that is trained. One that says how it reads texts (`JuryConfig.reading`) keeps that. The texts
            of an encoder or a sentence embedder are pooled as it was made to, and get its special tokens. None: a
            decoder, of which the last token is read.

    Example:
        >>> from reward_models import planted_judgements
        >>> from reward_models.jury.tiny import tiny_tokenizer
        >>> from reward_models.trainer.data import read_data
        >>> data = read_data(planted_judgements(num_raters=10, num_items=4).judgements)
        >>> reading = training_reading(JuryRewardConfig("out", max_length=2048, bf16=False), data, tiny_tokenizer())
        >>> reading.format, reading.max_length
        ('conversations', 2048)
    """
    usual = ReadingSettings.for_tables(tokenizer) if jury is None else usual_reading(jury.model, tokenizer)
    longest = args.max_length
    if usual.pooling != "last_token" and usual.max_length is not None:  # an encoder, which reads no more
        longest = min(longest or usual.max_length, usual.max_length)
    if jury is not None and jury.config.reading is not None:
        reading = ReadingSettings.from_dict(jury.config.reading)
    elif data.from_trl:
        pooled = {name: getattr(usual, name) for name in ("pooling", "unit_length", "end_token")}
        reading = ReadingSettings(format=_format(data), special_tokens=True, **pooled)
    else:
        reading = usual
    if not args.read_prompt:
        reading = replace(reading, read_prompt=False)
    if args.as_conversations:
        reading = replace(reading, format="conversations")
    elif args.as_conversations is False and reading.format == "conversations":
        reading = replace(reading, format=_format(data), separator=SEPARATOR)
    if args.special_tokens is not None:
        reading = replace(reading, special_tokens=args.special_tokens)
    return replace(reading, max_length=longest, dtype="float32")


def resumed_reading(folder: str, reading: ReadingSettings, args: JuryRewardConfig, data: JuryData) -> ReadingSettings:
    """Return how the training of a checkpoint reads texts, and warn where that is not how this one would.

    Args:
        folder: The checkpoint. One that does not say how it reads texts is of a version that read them as they came;
            one without a state is refused later, by `read_state`.
        reading: How this training would read them.
        args: Its settings.
        data: Its training data.

    Example:
        >>> import tempfile
        >>> from reward_models import planted_judgements
        >>> from reward_models.trainer.data import read_data
        >>> data = read_data(planted_judgements(num_raters=10, num_items=4).judgements)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     resumed_reading(folder, ReadingSettings(512), JuryRewardConfig("out", bf16=False), data).max_length
        512
    """
    if not os.path.isfile(os.path.join(folder, STATE_FILE)):
        return reading
    special_tokens = data.from_trl if args.special_tokens is None else args.special_tokens
    former = ReadingSettings(args.max_length, special_tokens=special_tokens)
    of_checkpoint = read_reading(folder) or former
    here, there = reading.to_dict(), of_checkpoint.to_dict()
    differences = [f"{name}={there[name]!r} (here: {here[name]!r})" for name in here if here[name] != there[name]]
    if differences:
        warnings.warn(
            f"the training of the checkpoint {folder!r} reads texts with {', '.join(differences)}, and goes on to. "
            "Start a new training in another output_dir to read them otherwise.",
            UserWarning,
            stacklevel=3,
        )
    return of_checkpoint


def _format(data: JuryData) -> TextFormat:
    plain = {isinstance(text.prompt, str) for text in data.enc.texts}
    return "any" if len(plain) > 1 else "text" if True in plain else "conversations"
