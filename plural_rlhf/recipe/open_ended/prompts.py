"""The prompts of a run whose policies write text, and what people wrote in answer to them.

Knows the judgements and files of prompts or texts; knows nothing of models, training or measures.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from plural_rlhf.recipe.config import RunConfig
from plural_rlhf.recipe.data import RunData
from plural_rlhf.report.names import Split
from reward_models.errors import JudgementError, did_you_mean
from reward_models.judgements.texts import Prompt, as_messages, freeze_prompt, prompt_wording
from reward_models.seeds import seeded_rng
from reward_models.sources.formats.files import read_cells


__all__ = ["OpenPrompt", "preferred_texts", "run_prompts", "training_prompts"]

TEXT_COLUMNS = ("prompt", "text")
RATER = "rater_id"
UNREAD = ("weights", "rule")
"""Columns of a file of prompts that would be ignored."""


@dataclass(frozen=True)
class OpenPrompt:
    """A prompt that policies answer with text.

    Attributes:
        prompt: A text or a frozen conversation.
        split: `train`, or `heldout` for one that policies are tested on only.
        given: What people wrote that policies may learn from; empty for a held-out prompt.
        compared: What other people wrote, that policies are compared with.

    Example:
        >>> prompt = OpenPrompt("What should the city build?", "train", given=("Parks.",), compared=("Roads.",))
        >>> prompt.messages
        [{'role': 'user', 'content': 'What should the city build?'}]
    """

    prompt: Prompt
    split: str
    given: tuple[str, ...] = ()
    compared: tuple[str, ...] = ()

    @property
    def messages(self) -> list[dict[str, str]]:
        """The prompt as a conversation: what the jury reads."""
        return as_messages(self.prompt)

    @property
    def wording(self) -> str:
        """The prompt as one text."""
        return prompt_wording(self.prompt)


def run_prompts(config: RunConfig, data: RunData) -> list[OpenPrompt]:
    """Return the prompts of a run in the order of their wording, training prompts first.

    What people wrote is divided by author where authors are known (texts of held-out raters are compared with, the
    others may be learnt from), else at random in the proportion of the raters.

    Args:
        config: The run.
        data: Its judgements.

    Raises:
        JudgementError: A file that cannot be read, lacks a column or has one that a run does not read, a prompt that
            is held out and trained on in another form (as a conversation, in other case or spacing), or no prompt to
            train on.

    Example:
        >>> from reward_models import planted_judgements
        >>> from plural_rlhf.recipe.config import make_config
        >>> from plural_rlhf.recipe.data import read_data
        >>> import tempfile
        >>> table = planted_judgements("preference", num_raters=12, num_items=10).judgements.frame
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "pairs.jsonl"
        ...     table.to_json(path, orient="records", lines=True)
        ...     settings = {"source": "table", "path": str(path), "written": "judged"}
        ...     config = make_config({"data": settings, "jury": {"clusters": 1}}, origin="example")
        ...     prompts = run_prompts(config, read_data(config))
        >>> [sum(prompt.split == split for prompt in prompts) for split in ("train", "heldout")]
        [8, 2]
        >>> len(prompts[0].given), len(prompts[0].compared), prompts[-1].given
        (1, 1, ())
    """
    heldout, order = data.heldout_prompts, _own_prompts(data)
    if config.prompts.path is not None:
        order, heldout = _prompts_of_file(config, data)
    if len(heldout) == len(order):
        raise JudgementError(
            f"all {len(order)} prompts are held out, and none is left to train on. Fix: lower prompts.heldout or "
            "data.heldout_prompts."
        )
    _check_forms([prompt for prompt in order if prompt not in heldout], {*heldout, *data.heldout_prompts})
    written = _written(config, data)
    _check_written(config, written, order)
    prompts = []
    for prompt in order:
        texts = written.get(prompt, {True: (), False: ()})
        held = prompt in heldout
        given = () if held else texts[False]
        compared = (*texts[False], *texts[True]) if held else texts[True]
        prompts.append(OpenPrompt(prompt, Split.HELDOUT if held else Split.TRAIN, tuple(given), tuple(compared)))
    return sorted(prompts, key=lambda prompt: prompt.split != Split.TRAIN)


def training_prompts(prompts: Iterable[OpenPrompt]) -> list[OpenPrompt]:
    """Return the prompts that are trained on, in their order.

    Example:
        >>> prompts = [OpenPrompt("Why?", "train"), OpenPrompt("How?", "heldout")]
        >>> [prompt.prompt for prompt in training_prompts(prompts)]
        ['Why?']
    """
    return [prompt for prompt in prompts if prompt.split == Split.TRAIN]


def preferred_texts(data: RunData, prompts: Iterable[OpenPrompt]) -> dict[Prompt, list[str]]:
    """Return the texts that training raters preferred, by prompt: the better of a pair, or rated above the mean.

    Args:
        data: The judgements.
        prompts: The prompts; held-out ones get nothing.

    Raises:
        JudgementError: No text was preferred.
    """
    enc = data.train.encode()
    wanted = {prompt.prompt for prompt in training_prompts(prompts)}
    if enc.kind == "preference":
        chosen = enc.alternatives[np.arange(len(enc.label)), np.minimum(enc.label, 1)]
        indices = chosen[enc.label < 2]  # two is a tie
    else:
        levels = np.array(enc.levels)[enc.label]
        text = enc.alternatives[:, 0]
        counts = np.bincount(text, minlength=len(enc.texts))
        means = np.bincount(text, levels, minlength=len(enc.texts)) / np.maximum(counts, 1)
        of_prompt: dict[Prompt, list[float]] = {}
        for index in np.flatnonzero(counts):
            of_prompt.setdefault(enc.texts[index].prompt, []).append(means[index])
        usual = {prompt: np.mean(values) for prompt, values in of_prompt.items()}
        indices = np.array([i for i in np.flatnonzero(counts) if means[i] > usual[enc.texts[i].prompt]], dtype=int)
    preferred: dict[Prompt, list[str]] = {}
    for index in indices.tolist():
        if enc.texts[index].prompt in wanted and enc.texts[index].response.strip():
            preferred.setdefault(enc.texts[index].prompt, []).append(enc.texts[index].response)
    if not preferred:
        raise JudgementError(
            "sft.texts is 'preferred', but no response to a training prompt was preferred to another. Fix: set "
            "sft.texts=none."
        )
    return preferred


def _check_forms(trained: Iterable[Prompt], heldout: Iterable[Prompt]) -> None:
    """Raise if a prompt that is trained on asks what a held-out one asks."""
    asked = {_asked(prompt): prompt for prompt in heldout}
    for prompt in trained:
        if (other := asked.get(_asked(prompt))) is not None:
            raise JudgementError(
                f"the prompt {prompt_wording(other)[:80]!r} is held out, and trained on in another form: "
                f"{str(prompt)[:120]!r}. Fix: remove one of the two, or write both alike, so that they count as one."
            )


def _asked(prompt: Prompt) -> str:
    """What a prompt asks, whatever its system message, its case and its spaces."""
    said = [message["content"] for message in as_messages(prompt) if message["role"] != "system"]
    return " ".join(unicodedata.normalize("NFKC", " ".join(said)).casefold().split())


def _own_prompts(data: RunData) -> list[Prompt]:
    return sorted({text.prompt for text in data.everything.encode().texts}, key=str)


def _prompts_of_file(config: RunConfig, data: RunData) -> tuple[list[Prompt], set[Prompt]]:
    """Prompts of `prompts.path`, and those of them that are held out."""
    section = config.prompts
    assert section.path is not None
    frame = _read_frame(section.path, "prompts.path")
    _require_columns(frame, (section.column,), section.path, "prompts.column")
    for column in UNREAD:
        if column in frame and column != section.column:
            raise JudgementError(
                f"prompts.path: {str(section.path)!r} has a column {column!r}, and a run has one rule and the same "
                "weights for all prompts. Fix: remove the column, and set plural.rule or juries for the run."
            )
    values = [_prompt_of(value, section.path, n) for n, value in enumerate(frame[section.column], 1)]
    prompts = list(dict.fromkeys(values))[: section.limit]
    fixed = {prompt for prompt in prompts if prompt in data.heldout_prompts}
    drawn = [prompt for prompt in prompts if prompt not in fixed]
    number = round(section.heldout * len(drawn))
    order = seeded_rng(config.seed, "held-out prompts of a file").permutation(len(drawn))
    return sorted(prompts, key=str), fixed | {drawn[i] for i in order[:number]}


def _prompt_of(value: Any, path: Path, number: int) -> Prompt:
    usable = isinstance(value, str) and bool(value.strip())
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str) and len(value):
        usable = all(
            isinstance(m, Mapping) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str)
            for m in value
        )
    if not usable:
        raise JudgementError(
            f"{str(path)!r}, prompt {number}: {str(value)[:80]!r} is neither a text nor a list of chat messages, each "
            "with role and content. Fix: correct or remove it."
        )
    return freeze_prompt(value)


def _written(config: RunConfig, data: RunData) -> dict[Prompt, dict[bool, list[str]]]:
    """What people wrote, by prompt and by whether it is only compared with."""
    source = config.data.written
    if source is None:
        return {}
    if source == "judged":
        tables = [data.everything, *data.other_tables]
        texts = sorted({text for table in tables for text in table.encode().texts}, key=str)
        frame = pd.DataFrame({"prompt": [t.prompt for t in texts], "text": [t.response for t in texts]})
    else:
        assert isinstance(source, Path)
        named = {column: name for name, column in config.data.written_columns.items()}
        frame = _read_frame(source, "data.written")
        _require_columns(frame, tuple(named), source, "data.written_columns")
        frame = frame.rename(columns=named)
        _require_columns(frame, TEXT_COLUMNS, source, "data.written")
        prompts = [_prompt_of(value, source, n) for n, value in enumerate(frame["prompt"], 1)]
        frame["prompt"] = pd.Series(prompts, dtype=object, index=frame.index)
    texts_of_people = frame["text"].map(lambda text: isinstance(text, str) and bool(text.strip()))
    frame = frame[texts_of_people].reset_index(drop=True)
    if RATER in frame:
        compared = frame[RATER].astype(str).isin(set(data.heldout_raters.raters)).to_numpy()
    else:
        rng = seeded_rng(config.seed, "texts to compare with")
        compared = np.zeros(len(frame), dtype=bool)
        for rows in frame.groupby(frame["prompt"].map(str)).indices.values():
            number = round(config.data.heldout_raters * len(rows))
            compared[rng.permutation(rows)[:number]] = True
    written: dict[Prompt, dict[bool, list[str]]] = {}
    for prompt, text, apart in zip(frame["prompt"], frame["text"], compared.tolist(), strict=True):
        written.setdefault(prompt, {True: [], False: []})[apart].append(text)
    return written


def _check_written(config: RunConfig, written: Mapping[Prompt, Any], prompts: Sequence[Prompt]) -> None:
    source = config.data.written
    if source is not None and not any(prompt in written for prompt in prompts):
        raise JudgementError(
            f"data.written: {str(source)!r} has no text in answer to any prompt of the run. Fix: its prompts must "
            "have the wording of the judgements' prompts, or set data.written=null."
        )
    if config.sft.texts == "written" and config.sft.steps and source is None:
        raise JudgementError(
            "sft.texts is 'written', but data.written says of no text that people wrote it. Fix: set data.written, or "
            "sft.texts=preferred (the better responses), or sft.texts=none (the base model as it is)."
        )


def _read_frame(path: Path, key: str) -> pd.DataFrame:
    if not path.is_file():
        raise JudgementError(f"{key}: there is no file {str(path)!r}.")
    return read_cells(path).frame


def _require_columns(frame: pd.DataFrame, columns: Sequence[str], path: Path, key: str) -> None:
    for column in columns:
        if column not in frame:
            names = [str(name) for name in frame.columns]
            raise JudgementError(
                f"{key}: {str(path)!r} has no column {column!r}; it has {', '.join(names) or 'none'}."
                f"{did_you_mean(column, names)}"
            )
