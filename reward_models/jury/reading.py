"""How a jury reads a prompt and a response: one string, then tokens, then the tokens that fit.

Texts are rendered as TRL's GRPO and RLOO trainers render them for a reward model: the chat template over prompt and
completion, or the two strings one after the other. What else changes a score (length, format, special tokens,
precision) is in `ReadingSettings`, which `JuryConfig.reading` stores, so that a saved jury scores a text as it did
when it was fitted. Knows nothing of backbones, judgements or rewards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from reward_models.errors import JuryError, did_you_mean
from reward_models.judgements.spelling import one_form
from reward_models.judgements.texts import Prompt, Text, as_messages


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "MAX_LENGTH",
    "POOLINGS",
    "SEPARATOR",
    "ReadingSettings",
    "Rendered",
    "TextFormat",
    "precision_of",
    "render",
    "shorten",
]

POOLINGS = ("last_token", "mean", "first_token")
MAX_LENGTH = 1024
"""Longest text in tokens where nothing else is said, for features and for scores."""
SEPARATOR = "\n"
"""Between a plain prompt of a judgement table and its response."""

Messages = Sequence[Mapping[str, Any]]
TextFormat = Literal["conversations", "text", "any"]
"""Form of the texts: every prompt a conversation, every prompt a string, or each as it comes."""


class Rendered(NamedTuple):
    """A text as a string, and whether the tokenizer adds its special tokens to it.

    Example:
        >>> Rendered("Which is best? the city").special_tokens
        False
    """

    text: str
    special_tokens: bool = False


def render(
    prompt: Prompt | Messages,
    response: str | Messages,
    tokenizer: PreTrainedTokenizerBase,
    *,
    separator: str | None = None,
) -> str:
    """Write a prompt and a response as the one string that a reward model reads, as TRL 1.16 does.

    Args:
        prompt: A string, a list of messages (`role`, `content`), or the (role, content) pairs of `Text.prompt`.
        response: A string; after a conversational prompt it becomes one assistant message. Or a list of messages.
        tokenizer: Its chat template renders conversations; for two strings it is not used.
        separator: Put between two strings where neither has white space there and neither is empty. None: nothing.

    Returns:
        `prompt + response` for strings, else the chat template over all messages, without a generation prompt.

    Raises:
        JuryError: A list of messages answers a plain string, or a conversation meets a tokenizer without a chat
            template.

    Example:
        >>> from reward_models.jury.tiny import tiny_tokenizer
        >>> render("Which is best? ", "the city", tiny_tokenizer())
        'Which is best? the city'
        >>> render("Which is best?", "The city", tiny_tokenizer(), separator=" ")
        'Which is best? The city'
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
        meets = prompt and response and not prompt[-1].isspace() and not response[0].isspace()
        return f"{prompt}{separator}{response}" if separator and meets else prompt + response
    if tokenizer.chat_template is None:
        raise JuryError(
            f"the prompt {prompt!r} is conversational, but the tokenizer {tokenizer.name_or_path!r} has no chat "
            "template. Set tokenizer.chat_template, or give prompts as plain strings."
        )
    answer = [{"role": "assistant", "content": response}] if isinstance(response, str) else list(response)
    return tokenizer.apply_chat_template([*_messages(prompt), *answer], tokenize=False)


@dataclass(frozen=True)
class ReadingSettings:
    r"""All that decides which tokens a jury reads of a text, and how exactly it computes with them.

    The chat template is the tokenizer's, saved with the jury.

    Attributes:
        max_length: Longest text in tokens; a longer one loses its beginning, because the response is what is judged.
            None: no limit.
        format: `"conversations"`: a plain prompt becomes one user message. `"text"`: a conversation of one user
            message becomes a plain prompt, any other is refused. `"any"`: texts are read as they come.
        separator: Put between a plain prompt and its response, see `render`. None: nothing, and with the format
            `"text"` conversations are refused, because it is unknown how the jury's texts write them.
        special_tokens: Give plain texts the tokenizer's special tokens and an end token, as TRL's reward trainer
            does; conversations have those of the chat template.
        truncation_side: Side on which long texts are cut: `"left"`.
        pooling: What the heads read of the hidden states of the tokens: `"last_token"`, their `"mean"`, or the
            `"first_token"` (of encoders that were trained so).
        dtype: Precision of the backbone.
        layers: Layers of which the heads read the hidden states, one after the other, from 1; None: the last. Those
            before the last are scaled to a mean square of 1, as the final norm would.
        read_prompt: Whether the prompt is read before the response. False: the response alone, for texts that stand by
            themselves.
        unit_length: Scale the vector of a text to length 1, as some sentence embedders were trained.
        end_token: With `special_tokens`, whether the tokenizer's end token is put after a plain text.

    Raises:
        JuryError: A value that this version does not know.

    Example:
        >>> from reward_models.jury.tiny import tiny_tokenizer
        >>> reading = ReadingSettings(format="text", separator="\n", special_tokens=True)
        >>> rendered = reading.render([{"role": "user", "content": "Which?"}], "Tea.", tiny_tokenizer())
        >>> rendered
        Rendered(text='Which?\nTea.<|im_end|>', special_tokens=True)
        >>> ReadingSettings.from_dict(reading.to_dict()) == reading
        True
    """

    max_length: int | None = MAX_LENGTH
    format: TextFormat = "any"
    separator: str | None = None
    special_tokens: bool = False
    truncation_side: str = "left"
    pooling: str = "last_token"
    dtype: str = "float32"
    layers: tuple[int, ...] | None = None
    read_prompt: bool = True
    unit_length: bool = False
    end_token: bool = True

    def __post_init__(self) -> None:
        if self.max_length is not None and self.max_length < 1:
            raise JuryError(f"max_length={self.max_length} leaves nothing to score: give at least 1.")
        known = {
            "format": get_args(TextFormat),
            "truncation_side": ("left",),
            "pooling": POOLINGS,
            "dtype": ("float32", "bfloat16", "float16", "float64"),
        }
        if self.layers is not None and (not self.layers or min(self.layers) < 1):
            raise JuryError(
                f"layers={self.layers} must name layers of the backbone, from 1. Leave it out for the last."
            )
        for name, values in known.items():
            if (value := getattr(self, name)) not in values:
                raise JuryError(
                    f"{name}={value!r} is no way of reading texts that this version knows; it knows "
                    f"{', '.join(values)}.{did_you_mean(str(value), values)} If a later version wrote it, upgrade: "
                    "pip install --upgrade plural-rlhf."
                )

    @classmethod
    def for_tables(cls, tokenizer: PreTrainedTokenizerBase, max_length: int | None = MAX_LENGTH) -> ReadingSettings:
        """Return how texts of judgement tables are read: as conversations, where the tokenizer has a template.

        Without a template, prompt and response stand on lines of their own: a prompt of a table is a sentence, and
        "…in Seattle.It will…" is none.
        """
        if tokenizer.chat_template is None:
            return cls(max_length, "text", SEPARATOR)
        return cls(max_length, "conversations")

    @classmethod
    def for_embedder(cls, **settings: Any) -> ReadingSettings:
        r"""Return how a sentence embedder reads texts: in plain words, with its special tokens.

        Args:
            **settings: Its `pooling`, `unit_length` and `max_length`.

        Example:
            >>> ReadingSettings.for_embedder(pooling="mean", max_length=256).pooling
            'mean'
        """
        return cls(
            **{"format": "text", "separator": SEPARATOR, "special_tokens": True, "end_token": False, **settings}
        )

    @classmethod
    def stored(cls, values: Mapping[str, Any] | None, fitted_on: Mapping[str, int]) -> ReadingSettings:
        """Return the settings of a saved jury; without any, those with which its version scored.

        Args:
            values: `JuryConfig.reading`.
            fitted_on: `JuryState.fitted_on`, which in that version said whether prompts were conversations.
        """
        if values is not None:
            return cls.from_dict(values)
        return cls(format="conversations" if fitted_on.get("conversations") else "any")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ReadingSettings:
        """Read what `to_dict` returned; a setting that is missing has its default.

        Raises:
            JuryError: A setting or a value that this version does not know.
        """
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise JuryError(
                f"the jury reads texts by {', '.join(unknown)}, which this version does not know, and its scores "
                "would differ. Upgrade: pip install --upgrade plural-rlhf."
            )
        layers = values.get("layers")
        return cls(**{**values, "layers": None if layers is None else tuple(layers)})

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, for JSON."""
        return {**asdict(self), "layers": None if self.layers is None else list(self.layers)}

    @property
    def vector_name(self) -> str:
        """Short name of what is made of the hidden states; empty for the last layer's last token."""
        layers = "" if self.layers is None else "-".join(map(str, self.layers))
        parts = ["" if self.pooling == "last_token" else self.pooling, layers, "unit" if self.unit_length else ""]
        return "-".join(part for part in parts if part)

    def render(
        self, prompt: Prompt | Messages, response: str | Messages, tokenizer: PreTrainedTokenizerBase
    ) -> Rendered:
        """Write a prompt and a response as one string, in the format of the jury and, as in tables, in NFC.

        Raises:
            JuryError: A conversation that cannot be written as the jury's plain texts, or see `render`.
        """
        prompt, response = one_form(prompt), one_form(response)
        if not self.read_prompt:
            return self._of_response(response)
        if self.format == "conversations" and isinstance(prompt, str):
            prompt = as_messages(prompt)
        elif self.format == "text" and not isinstance(prompt, str):
            prompt, response = self._as_plain(_messages(prompt), response)
        plain = isinstance(prompt, str)
        text = render(prompt, response, tokenizer, separator=self.separator)
        if not (plain and self.special_tokens):
            return Rendered(text)
        end = tokenizer.eos_token or "" if self.end_token else ""
        return Rendered(text if text.endswith(end) else text + end, special_tokens=True)

    def _of_response(self, response: str | Messages) -> Rendered:
        """Write a response alone."""
        text = response if isinstance(response, str) else SEPARATOR.join(m["content"] for m in response)
        if not text.strip():
            raise JuryError("a response is empty, and the jury reads responses alone (read_prompt=False): drop it.")
        return Rendered(text, special_tokens=self.special_tokens)

    def render_all(self, texts: Sequence[Text], tokenizer: PreTrainedTokenizerBase) -> list[Rendered]:
        """Render `U` texts, see `render`."""
        return [self.render(prompt, response, tokenizer) for prompt, response in texts]

    def tokenise(self, rendered: Sequence[Rendered], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
        """Turn rendered texts into token ids, uncut.

        Raises:
            JuryError: A text has no token.
        """
        ids: list[list[int]] = [[]] * len(rendered)
        for special in (False, True):
            index = [i for i, text in enumerate(rendered) if text.special_tokens == special]
            if index:
                strings = [rendered[i].text for i in index]
                rows = tokenizer(strings, add_special_tokens=special, verbose=False)["input_ids"]
                for i, row in zip(index, rows, strict=True):
                    ids[i] = row
        for text, row in zip(rendered, ids, strict=True):
            if not row:
                raise JuryError(
                    f"the text {text.text!r} has no tokens, so there is no last token to score: drop it or add a "
                    "prompt."
                )
        return ids

    def _as_plain(self, prompt: Messages, response: str | Messages) -> tuple[str, str]:
        """Write a conversation of one question and one answer as two strings."""
        answer = [{"role": "assistant", "content": response}] if isinstance(response, str) else list(response)
        roles = [message["role"] for message in [*prompt, *answer]]
        if self.separator is None:
            raise JuryError(
                f"the prompt {_shown(prompt)} is a conversation, but the jury was trained on plain chosen/rejected "
                "texts, and how they would write it is unknown. Ask with plain prompts in their form; or train the "
                "jury on conversations: JuryRewardConfig(as_conversations=True), or messages in the data."
            )
        if roles != ["user", "assistant"]:
            raise JuryError(
                f"the prompt {_shown(prompt)} with its response has the roles {', '.join(roles)}, but the jury was "
                "fitted on plain prompts, of which only one user message and one answer are a counterpart. Ask with "
                "plain prompts, or fit the jury with a tokenizer that has a chat template."
            )
        return prompt[0]["content"], answer[0]["content"]


def shorten(rows: Sequence[Sequence[int]], max_length: int | None) -> tuple[list[Sequence[int]], str | None]:
    """Keep the last `max_length` ids of each row, and say how many rows were cut.

    Returns:
        The rows, and a sentence with the number of those that were cut; None where all fit.

    Example:
        >>> shorten([[1, 2, 3], [4]], max_length=2)
        ([[2, 3], [4]], '1 of 2 texts are longer than max_length=2 tokens (the longest has 3) and lose their
        beginning.')
    """
    if max_length is None:
        return list(rows), None
    lengths = [len(row) for row in rows if len(row) > max_length]
    if not lengths:
        return list(rows), None
    return [row[-max_length:] for row in rows], (
        f"{len(lengths):,} of {len(rows):,} texts are longer than max_length={max_length} tokens (the longest has "
        f"{max(lengths):,}) and lose their beginning."
    )


def _messages(prompt: Prompt | Messages) -> list[Any]:
    """Return the messages of a conversation; pairs come from `Text.prompt`, where a prompt has to be hashable."""
    return as_messages(prompt) if isinstance(prompt, tuple) else list(prompt)


def _shown(prompt: Messages) -> str:
    line = repr(list(prompt))
    return line if len(line) <= 100 else f"{line[:97]}..."


def precision_of(backbone: PreTrainedModel) -> str:
    """Return the precision of a backbone; float32 where it is quantised or mixed, in which it is then loaded.

    Example:
        >>> from reward_models.jury.tiny import tiny_causal_lm
        >>> precision_of(tiny_causal_lm())
        'float32'
    """
    dtypes = {parameter.dtype for parameter in backbone.parameters()}
    return str(dtypes.pop()).removeprefix("torch.") if len(dtypes) == 1 else "float32"
