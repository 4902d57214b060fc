"""A sequence as tokens, with labels on what is learnt: outputs and their end tokens, and nothing else.

Knows nothing of batches or training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from plural_rlhf.methods.spectrum.sequences import SpectrumSequence
from plural_rlhf.methods.spectrum.template import SpectrumTemplate


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["IGNORED", "SequenceParts", "SpectrumTokens", "encode_sequence", "sequence_parts"]

IGNORED = -100
"""The label of a token without loss, as in `transformers`."""


@dataclass(frozen=True)
class SpectrumTokens:
    """A sequence as tokens.

    Attributes:
        input_ids: Tokens of all messages.
        labels: The same where there is a loss, else `IGNORED`.
        outputs: Start and stop of every output with its end token, in order, also of one without loss.
        dropped: Examples at the end of the sequence that did not fit.
    """

    input_ids: list[int]
    labels: list[int]
    outputs: list[tuple[int, int]]
    dropped: int


@dataclass(frozen=True)
class SequenceParts:
    """The tokens of a sequence part by part, before it is decided what fits.

    Attributes:
        start: Before the first example: the token that begins every text, if there is one, and the description.
        examples: Of each example the tokens before its output, and the output with its end token.
        between: Between two messages.
    """

    start: list[int]
    examples: list[tuple[list[int], list[int]]]
    between: list[int]

    def room(self) -> list[int]:
        """Return how many tokens each example takes if it alone follows the description."""
        return [len(self.start) + len(before) + len(output) for before, output in self.examples]


def sequence_parts(
    sequence: SpectrumSequence, template: SpectrumTemplate, tokenizer: PreTrainedTokenizerBase
) -> SequenceParts:
    """Tokenise a sequence, message by message.

    Example:
        >>> from plural_rlhf.methods.spectrum import Example, template_for
        >>> from reward_models.jury.tiny import tiny_tokenizer
        >>> tokenizer = tiny_tokenizer()
        >>> coin = SpectrumSequence((Example("yes"), Example("n")), "A coin.")
        >>> sequence_parts(coin, template_for(tokenizer), tokenizer).room()
        [25, 24]
    """
    end = tokenizer.convert_tokens_to_ids(template.end)
    bos = tokenizer.bos_token_id
    start: list[int] = []
    if bos is not None and tokenizer("")["input_ids"][:1] == [bos]:
        start.append(bos)  # where the tokenizer itself begins every text with it

    roles = ("description", "input", "output")
    between, *of_roles = plain_ids([template.between, *map(template.header_of, roles)], tokenizer)
    headers = dict(zip(roles, of_roles, strict=True))
    texts = [text for example in sequence.examples for text in (example.input or "", example.output)]
    described, *contents = content_ids([sequence.description or "", *texts], tokenizer)
    if sequence.description:
        start += [*headers["description"], *described, end, *between]
    examples = []
    for place, example in enumerate(sequence.examples):
        asked, said = contents[2 * place : 2 * place + 2]
        before = [] if example.input is None else [*headers["input"], *asked, end, *between]
        examples.append(([*before, *headers["output"]], [*said, end]))
    return SequenceParts(start, examples, between)


def encode_sequence(
    sequence: SpectrumSequence,
    template: SpectrumTemplate,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None = None,
) -> SpectrumTokens:
    """Tokenise a sequence and label what is learnt.

    Loss is on the content of outputs and on the end token after it. Without a description the first output has no
    loss: nothing says yet what it is drawn from. An example that does not fit is dropped, and all after it; none is
    cut. (`SpectrumDataset` leaves out beforehand what would not fit by itself.)

    Args:
        sequence: The sequence.
        template: From `template_for`.
        tokenizer: The model's.
        max_length: Most tokens; None for no limit.

    Returns:
        The tokens; no output at all if not even the first example fits.

    Example:
        >>> from plural_rlhf.methods.spectrum import Example, template_for
        >>> from reward_models.jury.tiny import tiny_tokenizer
        >>> tokenizer = tiny_tokenizer()
        >>> coin = SpectrumSequence((Example("yes"), Example("no")))
        >>> tokens = encode_sequence(coin, template_for(tokenizer), tokenizer)
        >>> tokenizer.decode([label for label in tokens.labels if label != IGNORED])  # not the first: no description
        'no<|im_end|>'
    """
    parts = sequence_parts(sequence, template, tokenizer)
    ids, between = list(parts.start), parts.between
    labels = [IGNORED] * len(ids)
    outputs: list[tuple[int, int]] = []
    dropped = 0
    for place, (before, output) in enumerate(parts.examples):
        if max_length is not None and len(ids) + len(before) + len(output) > max_length:
            dropped = len(sequence.examples) - place
            break
        learnt = bool(sequence.description) or place > 0
        start = len(ids) + len(before)
        outputs.append((start, start + len(output)))
        ids += [*before, *output, *between]
        labels += [IGNORED] * len(before) + (output if learnt else [IGNORED] * len(output)) + [IGNORED] * len(between)
    if max_length is not None:
        ids, labels = ids[:max_length], labels[:max_length]  # at most the text between messages is cut
    return SpectrumTokens(ids, labels, outputs, dropped)


def plain_ids(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Return the tokens of texts of a template, in which chat tokens are chat tokens."""
    return tokenizer(list(texts), add_special_tokens=False)["input_ids"]


def content_ids(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Return the tokens of texts that people wrote, none of which may become a chat token."""
    return tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True)["input_ids"]
