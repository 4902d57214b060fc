"""How a sequence becomes text: messages of the roles description, input and output, in the model's own chat tokens.

Knows nothing of losses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["TEMPLATES", "SpectrumTemplate", "template_for", "template_names"]


@dataclass(frozen=True)
class SpectrumTemplate:
    r"""The texts around the content of a message: `header`, content, `end`, `between`.

    Attributes:
        header: Before the content; `{role}` is `description`, `input` or `output`.
        end: After the content, one token: the loss is on it after an output, so that the model learns to stop.
        between: After that, before the next message.
        special: The chat tokens in it, which an untrained base model has never seen; see `copy_special_rows`.
        roles: Other names of some roles, e.g. `{"output": "assistant"}`.

    Example:
        >>> TEMPLATES["chatml"].message("output", "heads")
        '<|im_start|>output\nheads<|im_end|>\n'
    """

    header: str
    end: str
    between: str
    special: tuple[str, ...]
    roles: Mapping[str, str] = field(default_factory=dict)

    def header_of(self, role: str) -> str:
        """Return the text before the content of a message."""
        return self.header.format(role=self.roles.get(role, role))

    def message(self, role: str, content: str) -> str:
        """Return a message as text."""
        return f"{self.header_of(role)}{content}{self.end}{self.between}"


TEMPLATES: Mapping[str, SpectrumTemplate] = {
    "chatml": SpectrumTemplate("<|im_start|>{role}\n", "<|im_end|>", "\n", ("<|im_start|>", "<|im_end|>")),
    "llama3": SpectrumTemplate(
        "<|start_header_id|>{role}<|end_header_id|>\n\n",
        "<|eot_id|>",
        "",
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    "gemma": SpectrumTemplate("<start_of_turn>{role}\n", "<end_of_turn>", "\n", ("<start_of_turn>", "<end_of_turn>")),
}
"""By name: `chatml` is for Qwen and SmolLM, `llama3` for Llama 3, `gemma` for Gemma 2 and 3."""

_CHAT_ROLES = {"description": "system", "input": "user", "output": "assistant"}


def template_names() -> list[str]:
    """Return the names that `template_for` knows."""
    return [*TEMPLATES, "plain", "auto", "chat"]


def template_for(tokenizer: PreTrainedTokenizerBase, name: str = "auto") -> SpectrumTemplate:
    """Return the template of a tokenizer.

    Args:
        tokenizer: Its chat tokens tell the family.
        name: One of `TEMPLATES`; `plain` for role names and the tokenizer's end token, which every tokenizer has;
            `auto` for the first family whose chat tokens the tokenizer has, else `plain`; `chat` for the same with the
            roles system, user and assistant, which an instruction-tuned model knows.

    Raises:
        ValueError: The name is unknown, the tokenizer lacks a chat token of the template, or it has no end token.

    Example:
        >>> from reward_models.jury.tiny import tiny_tokenizer
        >>> template_for(tiny_tokenizer()) is TEMPLATES["chatml"]
        True
        >>> template_for(tiny_tokenizer(), "gemma")
        Traceback (most recent call last):
        ValueError: the tokenizer has no token '<start_of_turn>', which the template 'gemma' needs. Fix: use 'auto' ...
    """
    names = template_names()
    if name not in names:
        raise ValueError(f"unknown template {name!r}. Fix: use one of {', '.join(names)}.")
    if name == "chat":
        return replace(template_for(tokenizer), roles=_CHAT_ROLES)
    vocabulary = tokenizer.get_vocab()
    if name == "auto":
        fitting = (
            key for key, template in TEMPLATES.items() if all(token in vocabulary for token in template.special)
        )
        name = next(fitting, "plain")
    if name == "plain":
        if tokenizer.eos_token is None:
            raise ValueError("the tokenizer has no end token. Fix: set tokenizer.eos_token.")
        return SpectrumTemplate("{role}: ", str(tokenizer.eos_token), "\n", ())
    for token in TEMPLATES[name].special:
        if token not in vocabulary:
            raise ValueError(
                f"the tokenizer has no token {token!r}, which the template {name!r} needs. Fix: use 'auto' or "
                "'plain', or add the token to tokenizer and model."
            )
    return TEMPLATES[name]
