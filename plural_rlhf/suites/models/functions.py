"""Models that are not language models of transformers: a Python function, and texts that were recorded.

Knows no task.
"""

from __future__ import annotations

import inspect
import json
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from plural_rlhf.suites.models.protocol import EvaluatedModel, NotSupported, OptionRequest, TextSettings
from reward_models.content_hashes import file_hash, value_hash
from reward_models.whole_file import json_lines


__all__ = ["CallableModel", "RecordedModel", "source_hash"]

OptionShares = Callable[[str, Sequence[str]], Sequence[float]]
WriteTexts = Callable[..., Sequence[str]]


class CallableModel(EvaluatedModel):
    """A model that is a Python function, or two.

    Args:
        name: What the report calls it.
        option_shares: Given a prompt and its options, returns their probabilities (they may sum to less than 1).
        write: Given a prompt, a number `n` and `seed=`, returns `n` texts.
        identity: Hash of whatever the answers depend on; None for the names and source files of the functions, which
            say nothing of what else they read. Answers of lambdas and inner functions are kept by no later process.

    Raises:
        ValueError: Neither function is given.

    Example:
        >>> stub = CallableModel("always first", option_shares=lambda prompt, options: np.eye(len(options))[0])
        >>> stub.option_log_probs([OptionRequest("Parks?", ("yes", "no"))])[0].tolist()
        [0.0, -inf]
    """

    kind = "callable"

    def __init__(
        self,
        name: str,
        *,
        option_shares: OptionShares | None = None,
        write: WriteTexts | None = None,
        identity: str | None = None,
    ) -> None:
        if option_shares is None and write is None:
            raise ValueError(f"{name}: no function is given. Fix: give option_shares, write, or both")
        self.name = name
        self.option_shares = option_shares
        self.write = write
        functions = [function for function in (option_shares, write) if function is not None]
        self.identity = identity or value_hash([source_hash(function) for function in functions])[:24]

    def option_log_probs(self, requests: Sequence[OptionRequest]) -> list[np.ndarray]:
        """Return the logarithms of what the function returns.

        Raises:
            ValueError: It returns another number of probabilities, or negative ones, or more than 1 together.
        """
        if self.option_shares is None:
            return super().option_log_probs(requests)
        out = []
        for request in requests:
            returned = self.option_shares(request.prompt, request.options)
            try:
                shares = np.asarray(returned, dtype=np.float64)
            except (TypeError, ValueError):  # no numbers
                shares = np.array(np.nan)
            fits = shares.shape == (len(request.options),) and (shares >= 0).all() and shares.sum() <= 1 + 1e-6
            if not fits:
                raise ValueError(
                    f"{self.name} returned {returned!r:.80} for the {len(request.options)} options of "
                    f"{request.prompt[-60:]!r}. Fix: return one probability per option, together at most 1"
                )
            with np.errstate(divide="ignore"):
                out.append(np.log(shares))
        return out

    def write_texts(self, prompts: Sequence[str], n: int, settings: TextSettings) -> list[list[str]]:
        """Return the texts of the function.

        Raises:
            ValueError: It returns something else than `n` texts.
        """
        if self.write is None:
            return super().write_texts(prompts, n, settings)
        out = []
        for number, prompt in enumerate(prompts):
            texts = self.write(prompt, n, seed=settings.seed + number)
            is_list = isinstance(texts, list | tuple) and all(isinstance(text, str) for text in texts)
            if not is_list or len(texts) != n:
                raise ValueError(
                    f"{self.name} returned {f'{len(texts)} texts' if is_list else repr(texts)[:80]} for "
                    f"{prompt[:60]!r}. Fix: return a list of {n} text{'s' * (n != 1)}, as many as are asked for"
                )
            out.append(list(texts))
        return out


class RecordedModel(EvaluatedModel):
    """Texts that some model wrote before, read from a JSONL file with `prompt` and `text` or `texts` in every line.

    Args:
        name: What the report calls it.
        path: The file. `plural-rlhf evaluate SUITE.yaml --prompts FILE` writes the prompts that a suite asks for.

    Raises:
        ValueError: A line is no JSON object with a prompt and texts; the message names it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "texts.jsonl"
        ...     _ = path.write_text('{"prompt": "A colour?", "texts": ["red", "blue"]}')
        ...     RecordedModel("theirs", path).sample(["A colour?"], 2)
        [['red', 'blue']]
    """

    kind = "recorded"

    def __init__(self, name: str, path: str | Path) -> None:
        self.name = name
        self.path = Path(path)
        self.identity = file_hash(self.path)[:24]
        self.texts: dict[str, list[str]] = {}
        for number, line in json_lines(self.path):
            prompt, texts = _recorded_line(line, f"{self.path}, line {number}")
            self.texts.setdefault(prompt, []).extend(texts)

    def write_texts(self, prompts: Sequence[str], n: int, settings: TextSettings) -> list[list[str]]:
        """Return the first `n` texts of each prompt.

        Raises:
            NotSupported: A prompt has fewer texts.
        """
        few = [prompt for prompt in prompts if len(self.texts.get(prompt, ())) < n]
        if few:
            raise NotSupported(
                f"{self.path} has {len(self.texts.get(few[0], ()))} of {n} texts for {few[0][:60]!r}, and too few for "
                f"{len(few)} of {len(prompts)} prompts"
            )
        return [self.texts[prompt][:n] for prompt in prompts]


def _recorded_line(line: str, place: str) -> tuple[str, list[str]]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{place}: is not JSON ({error}). Fix: write one JSON object per line") from error
    texts = row.get("texts", [row["text"]] if "text" in row else None) if isinstance(row, dict) else None
    if not (isinstance(texts, list) and all(isinstance(t, str) for t in texts) and isinstance(row.get("prompt"), str)):
        raise ValueError(f'{place}: {line[:80]!r}. Fix: write {{"prompt": "...", "texts": ["...", "..."]}} per line')
    return row["prompt"], texts


def source_hash(function: Callable[..., object]) -> str:
    """Hash the name and source file of a function; what has no name of its own is another function every time.

    Example:
        >>> source_hash(source_hash) == source_hash(source_hash), source_hash(lambda: 1) == source_hash(lambda: 1)
        (True, False)
    """
    name = getattr(function, "__qualname__", "<object>")
    try:
        source = file_hash(inspect.getfile(inspect.unwrap(function)))
    except (TypeError, OSError):
        source = ""
    return uuid.uuid4().hex if "<" in name or not source else f"{function.__module__}.{name} {source}"
