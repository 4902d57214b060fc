"""Sequences of examples of one distribution, as data and as JSON Lines.

Knows nothing of tokens or models.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from reward_models.whole_file import json_lines


__all__ = ["Example", "SpectrumSequence", "read_sequences"]


@dataclass(frozen=True)
class Example:
    """One example: an output, and the input that it answers if there is one.

    Attributes:
        output: What was drawn, said or written; the loss is on it.
        input: What it is about; None where the distribution is of outputs alone.

    Raises:
        ValueError: The output is empty.

    Example:
        >>> Example("heads")
        Example(output='heads', input=None)
        >>> Example(" ")
        Traceback (most recent call last):
        ValueError: an example has an empty output (input None). Fix: drop it, or write what an empty answer means.
    """

    output: str
    input: str | None = None

    def __post_init__(self) -> None:
        if not self.output.strip():
            raise ValueError(
                f"an example has an empty output (input {self.input!r}). Fix: drop it, or write what an empty answer "
                "means."
            )


@dataclass(frozen=True)
class SpectrumSequence:
    """Examples of one distribution.

    Attributes:
        examples: In order; at least one.
        description: What they are drawn from; None where nothing is said, so that the first output cannot be known. A
            blank one is none.
        exchangeable: Whether their order means nothing: they are then shuffled anew in every epoch.
        name: What the distribution is called in messages and results, e.g. the rater or the task.
        options: The outputs that there are, the same for all examples; empty where they are not known. Used to
            measure, never shown.
        shares: Probability of each option, where every example is drawn from them; empty where they are not known.

    Raises:
        ValueError: There is no example, an output is none of the options, or the shares do not fit the options.

    Example:
        >>> SpectrumSequence((Example("heads"), Example("tails")), "A fair coin.").to_dict()["description"]
        'A fair coin.'
        >>> SpectrumSequence((), name="rater 7")
        Traceback (most recent call last):
        ValueError: the sequence 'rater 7' has no example. Fix: leave it out.
    """

    examples: tuple[Example, ...]
    description: str | None = None
    exchangeable: bool = True
    name: str = ""
    options: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for field in ("examples", "options", "shares"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        if self.description is not None and not self.description.strip():
            object.__setattr__(self, "description", None)
        if not self.examples:
            raise ValueError(f"the sequence {self.name!r} has no example. Fix: leave it out.")
        strange = [e.output for e in self.examples if self.options and e.output not in self.options]
        if strange:
            raise ValueError(
                f"the sequence {self.name!r} has the output {strange[0]!r}, which is none of its options "
                f"{', '.join(self.options)}. Fix: add it to `options`, or leave `options` out."
            )
        total = math.fsum(self.shares)
        fits = len(self.shares) == len(self.options) and min(self.shares, default=0) >= 0 and abs(total - 1) < 1e-6
        if self.shares and not fits:
            raise ValueError(
                f"the sequence {self.name!r} has {len(self.options)} options and {len(self.shares)} shares that sum "
                f"to {total:.4g}. Fix: give one share of at least 0 per option, which sum to 1, or no `shares`."
            )

    @property
    def learnable(self) -> bool:
        """Whether any output can be learnt: without a description the first one cannot."""
        return bool(self.description) or len(self.examples) > 1

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data; `from_dict` reads it again."""
        examples: list[Any] = [e.output if e.input is None else [e.input, e.output] for e in self.examples]
        data = {
            "name": self.name,
            "description": self.description,
            "exchangeable": self.exchangeable,
            "examples": examples,
        }
        known = {"options": list(self.options), "shares": list(self.shares)}
        return data | {key: values for key, values in known.items() if values}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SpectrumSequence:
        """Read what `to_dict` returned.

        Args:
            data: `examples`, a list of outputs or of pairs of input and output; optionally `description`,
                `exchangeable`, `name`, `options` and `shares`.

        Raises:
            ValueError: A key is unknown or missing, a value is of another type, or an example is neither a text nor a
                pair of texts.

        Example:
            >>> SpectrumSequence.from_dict({"examples": [["2 + 2?", "4"]]}).examples
            (Example(output='4', input='2 + 2?'),)
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(data) - known):
            raise ValueError(f"a sequence has the unknown key {unknown[0]!r}. Fix: use {', '.join(sorted(known))}.")
        if not isinstance(data.get("examples"), list):
            raise ValueError("a sequence has no list `examples`. Fix: give outputs, or pairs of input and output.")
        examples = tuple(_example(value) for value in data["examples"])
        for key, kind in _KINDS.items():
            if key in data and not kind.fits(data[key]):
                raise ValueError(f"{key} is {data[key]!r:.80}. Fix: write {kind.named}, or leave {key} out.")
        more = {key: data[key] for key in ("description", "exchangeable", "options", "shares") if key in data}
        return cls(examples, name=str(data.get("name", "")), **more)


class _Kind(NamedTuple):
    """What a value of a sequence may be, and how it is called in a message."""

    fits: Callable[[Any], bool]
    named: str


def _listed(value: Any, kind: type[str] | tuple[type, ...]) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(v, kind) and not isinstance(v, bool) for v in value)


_KINDS = {
    "description": _Kind(lambda value: value is None or isinstance(value, str), "a text"),
    "exchangeable": _Kind(lambda value: isinstance(value, bool), "true or false"),
    "options": _Kind(lambda value: _listed(value, str) and len(set(value)) == len(value), "a list of different texts"),
    "shares": _Kind(lambda value: _listed(value, (int, float)), "a list of numbers"),
}


def _example(value: Any) -> Example:
    if isinstance(value, str):
        return Example(value)
    if isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value):
        return Example(value[1], value[0])
    raise ValueError(f"the example {value!r} is neither a text nor a pair of texts. Fix: write [input, output].")


def read_sequences(path: str | Path) -> list[SpectrumSequence]:
    r"""Read sequences from a file of JSON Lines, one `SpectrumSequence.to_dict` a line.

    Args:
        path: The file, in UTF-8.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A line is no sequence; with its number and the reason.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "coins.jsonl")
        ...     _ = file.write_text('{"examples": ["heads", "tails"], "description": "A coin."}\n')
        ...     [len(sequence.examples) for sequence in read_sequences(file)]
        [2]
    """
    sequences: list[SpectrumSequence] = []
    for number, line in json_lines(path):
        try:
            data = json.loads(line)
            if not isinstance(data, dict):
                raise ValueError(f"it is a {type(data).__name__}, not an object. Fix: write one JSON object per line.")
            sequences.append(SpectrumSequence.from_dict(data))
        except ValueError as error:
            raise ValueError(f"line {number} of {path} is no sequence: {error}") from error
    if not sequences:
        raise ValueError(f"{path} has no sequence. Fix: write one JSON object with `examples` per line.")
    return sequences


def names_of(sequences: Sequence[SpectrumSequence], most: int = 3) -> str:
    """Return the names of some sequences for a message."""
    shown = ", ".join(repr(sequence.name) for sequence in sequences[:most])
    return shown + (", ..." if len(sequences) > most else "")
