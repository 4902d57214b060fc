"""Candidates to be ranked: the responses to each prompt, read from a file or made in Python, and validated.

A prompt may have its own weights and rule, and its responses the scores of every cluster. Knows nothing of scoring or
ranking: that is in `rank`.

Shapes: `N` responses to one prompt.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from plural_rlhf.core.rules import RuleSpec
from plural_rlhf.rewards.completions import completion_text
from reward_models.errors import JuryError, did_you_mean
from reward_models.judgements.spelling import one_form
from reward_models.judgements.texts import freeze_prompt
from reward_models.weights import WeightSpec, weights_from_text


__all__ = ["REWARD", "Candidates", "CandidatesError", "label", "read_candidates"]

REWARD = "reward:"
"""Prefix of a cluster's name in the column of its scores."""

OURS = ("prompt_id", "prompt", "response", "responses", "weights", "rule")
STRUCTURED = ("responses", "weights", "rule")


class CandidatesError(ValueError):
    """Candidates that cannot be ranked; the message names the row.

    Example:
        >>> Candidates("Which?", ["red", " "])
        Traceback (most recent call last):
        plural_rlhf.ranking.candidates.CandidatesError: response B to 'Which?': the response is ' ', and ...
    """


@dataclass(frozen=True)
class Candidates:
    """The responses to one prompt, to be ranked.

    Attributes:
        prompt: A string or a list of messages.
        responses: `N` texts.
        rewards: Scores by cluster, `N` each, if they are known already.
        weights: Weights of the clusters for this prompt; None for those of `rank`.
        rule: Welfare rule for this prompt; None for that of `rank`.
        prompt_id: A name for the prompt.
        rows: Source of each response, for error messages.
        columns: Further columns of each response, which `RankedPrompt.rows` returns.

    Raises:
        CandidatesError: If there is no response, an empty one, or scores are not `N` finite numbers per cluster.

    Example:
        >>> candidates = Candidates("Which?", ["Parks.", "Roads."], rewards={"urban": [2, 0], "rural": [0, 1]})
        >>> candidates.name, candidates.where(1)
        ('Which?', "response B to 'Which?'")
    """

    prompt: str | list[dict[str, str]]
    responses: Sequence[str]
    rewards: Mapping[str, Sequence[float]] | None = None
    weights: WeightSpec | None = None
    rule: RuleSpec | None = None
    prompt_id: str | None = None
    rows: Sequence[str] = ()
    columns: Sequence[Mapping[str, Any]] = ()

    def __post_init__(self) -> None:
        if not self.responses:
            raise CandidatesError(f"the prompt {self.name!r} has no responses. Give one, or leave the prompt out.")
        for n, response in enumerate(self.responses):
            if not isinstance(response, str) or not response.strip():
                raise CandidatesError(
                    f"{self.where(n)}: the response is {response!r}, and a response must be text that is not blank. "
                    "Leave it out, or put a number in quotes."
                )
        for cluster, scores in (self.rewards or {}).items():
            if len(scores) != len(self.responses):
                raise CandidatesError(
                    f"{self.where(0)}: {REWARD}{cluster} has {len(scores)} scores, and there are "
                    f"{len(self.responses)} responses: give one score each."
                )
            for n, score in enumerate(scores):
                if not isinstance(score, Real) or not math.isfinite(score):
                    raise CandidatesError(
                        f"{self.where(n)}: {REWARD}{cluster} is {score!r}, and a score must be a finite number. Score "
                        "the response again, or leave it out."
                    )

    @property
    def name(self) -> str:
        """The prompt's id, or its beginning."""
        if self.prompt_id is not None:
            return self.prompt_id
        text = self.prompt if isinstance(self.prompt, str) else self.prompt[-1]["content"]
        return text if len(text) <= 60 else text[:59] + "…"

    def where(self, n: int) -> str:
        """Return the place of a response, for messages."""
        return self.rows[n] if self.rows else f"response {label(n)} to {self.name!r}"


def read_candidates(path: str | Path, limit: int | None = None) -> list[Candidates]:
    r"""Read candidates from a file, prompts in the order of their first occurrence.

    A row is a candidate (`prompt`, `response`), or a prompt with the list `responses`. Optional columns: `prompt_id`;
    `weights` (`uniform`, a cluster's name, `name=share,...` or a mapping) and `rule`, which must agree within a prompt
    and may stand in only one of its rows; `reward:<cluster>`, known scores (a list if `responses` is one). All other
    columns are kept.

    Args:
        path: A `.jsonl`, `.json` (a list of rows), `.csv`, `.tsv` or `.parquet` file. In CSV and TSV lists and
            mappings are JSON.
        limit: Read only the first so many prompts.

    Raises:
        FileNotFoundError: If there is no such file.
        CandidatesError: If the file cannot be read, a column is missing, rows of one prompt disagree, or see
            `Candidates`.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "answers.csv")
        ...     _ = file.write_text("prompt,response,reward:urban\nWhich?,Parks.,2\nWhich?,Roads.,0.5\n")
        ...     [candidates] = read_candidates(file)
        >>> candidates.responses, candidates.rewards, candidates.where(1)
        (['Parks.', 'Roads.'], {'urban': [2.0, 0.5]}, 'row 2')
    """
    path = Path(path)
    if not path.is_file():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise FileNotFoundError(f"{path} does not exist.{did_you_mean(path.name, beside)} Fix: check the path.")
    rows = _read_rows(path)
    columns = list(dict.fromkeys(column for _, row in rows for column in row))
    answers = [column for column in ("response", "responses") if column in columns]
    if "prompt" not in columns or len(answers) != 1:
        near = did_you_mean("response" if "prompt" in columns else "prompt", columns)
        raise CandidatesError(
            f"{path.name} has the columns {', '.join(map(repr, columns)) or 'of no row'}, and 'prompt' and one of "
            f"'response' and 'responses' are needed.{near} Rename a column."
        )
    clusters = [column.removeprefix(REWARD) for column in columns if column.startswith(REWARD)]
    prompts: dict[Any, list[tuple[str, dict[str, Any]]]] = {}
    for where, row in rows:
        prompts.setdefault(_prompt_key(where, row), []).append((where, row))
    return [_candidates(members, answers[0], clusters) for members in list(prompts.values())[:limit]]


def label(n: int) -> str:
    """Return the letter of a response: A, B, ..., Z, AA, AB, ...

    Example:
        >>> [label(n) for n in (0, 25, 26, 27)]
        ['A', 'Z', 'AA', 'AB']
    """
    return ("" if n < 26 else label(n // 26 - 1)) + chr(ord("A") + n % 26)


def _read_rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return each row with its place in the file, without blank cells."""
    try:
        if path.suffix == ".jsonl":
            lines = path.read_text(encoding="utf-8").split("\n")
            numbered = [(f"line {n}", _json_row(f"line {n}", line)) for n, line in enumerate(lines, 1) if line.strip()]
        else:
            if path.suffix == ".json":
                records = json.loads(path.read_text(encoding="utf-8"))
            elif path.suffix in (".csv", ".tsv"):
                # As text: an answer may be "007" or "null".
                table = pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",", dtype=str, keep_default_na=False)
                records = [{str(c): _from_cell(str(c), v) for c, v in row.items()} for row in table.to_dict("records")]
            elif path.suffix == ".parquet":
                records = pd.read_parquet(path).to_dict("records")
            else:
                raise CandidatesError("not one of .jsonl, .json, .csv, .tsv and .parquet. Convert it to one of them.")
            if not isinstance(records, list) or not all(isinstance(row, dict) for row in records):
                raise CandidatesError("a .json file must hold a list of rows, each a mapping. Or use .jsonl.")
            numbered = [(f"row {n}", row) for n, row in enumerate(records, 1)]
    except (ValueError, OSError, RecursionError) as error:
        raise CandidatesError(f"{path.name} cannot be read: {error}") from error
    return [(where, {c: v for c, v in _plain(row).items() if not _is_blank(c, v)}) for where, row in numbered]


def _is_blank(column: str, value: Any) -> bool:
    """Return whether a cell is empty: None, blank, or NaN; but a NaN score is an error that `Candidates` reports."""
    missing = isinstance(value, float) and math.isnan(value) and not column.startswith(REWARD)
    return value is None or missing or (isinstance(value, str) and not value.strip())


def _json_row(where: str, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CandidatesError(f"{where} is not JSON ({error}).") from error
    if not isinstance(row, dict):
        raise CandidatesError(f"{where} is not a mapping from column to value.")
    return row


def _from_cell(column: str, cell: str) -> Any:
    """Read a cell of a CSV file: as JSON where a list or a mapping is allowed, as a number in a column of scores."""
    try:
        if (column in STRUCTURED or column.startswith(REWARD)) and cell.lstrip()[:1] in ("[", "{"):
            return json.loads(cell)
        return float(cell) if cell and column.startswith(REWARD) else cell
    except (ValueError, RecursionError):
        return cell


def _plain(value: Any) -> Any:
    """Convert numpy's values to Python's and texts to NFC, and drop None from mappings: keys of other rows."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, np.ndarray | list):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else one_form(value)


def _prompt_key(where: str, row: dict[str, Any]) -> Any:
    """Return the key that the rows of one prompt share."""
    try:
        frozen = freeze_prompt(row["prompt"])
    except (KeyError, TypeError):
        frozen = ()
    if not frozen:
        raise CandidatesError(
            f"{where}: the prompt is {row.get('prompt')!r}. Give a text, or a list of messages with role and content."
        )
    return str(row["prompt_id"]) if "prompt_id" in row else frozen


def _candidates(members: list[tuple[str, dict[str, Any]]], answers: str, clusters: list[str]) -> Candidates:
    """Return the candidates of the rows of one prompt."""
    responses, rows, columns = [], [], []
    rewards: dict[str, list[Any]] = {cluster: [] for cluster in clusters}
    for where, row in members:
        cell = row.get(answers)
        if answers == "responses" and not isinstance(cell, list):
            raise CandidatesError(f"{where}: responses is {cell!r}, and must be a list of texts.")
        texts = cell if isinstance(cell, list) and answers == "responses" else [cell]
        for cluster in clusters:
            scores = row.get(REWARD + cluster)
            rewards[cluster] += scores if answers == "responses" and isinstance(scores, list) else [scores]
        for number, text in enumerate(texts, 1):
            is_chat = isinstance(text, list) and text and all(isinstance(message, Mapping) for message in text)
            responses.append(completion_text(text) if is_chat else text)
            rows.append(where if answers == "response" else f"{where}, response {number}")
            columns.append({c: v for c, v in row.items() if c not in OURS and not c.startswith(REWARD)})
    first = members[0][1]
    weights = _agreed("weights", members)
    try:
        weights = weights_from_text(weights) if isinstance(weights, str) else weights
    except JuryError as error:
        raise CandidatesError(f"{rows[0]}: {error}") from error
    return Candidates(
        _agreed("prompt", members),
        responses,
        rewards or None,
        weights,
        _agreed("rule", members),
        str(first["prompt_id"]) if "prompt_id" in first else None,
        rows,
        columns,
    )


def _agreed(column: str, members: list[tuple[str, dict[str, Any]]]) -> Any:
    """Return the value on which the rows of a prompt agree in a column; None if no row has one."""
    values = [(where, row[column]) for where, row in members if column in row]
    for where, value in values:
        if value != values[0][1]:
            raise CandidatesError(
                f"{where}: {column} is {value!r}, but {values[0][0]} has {values[0][1]!r} for the same prompt. Make "
                "them equal, or give the prompts different ids."
            )
    return values[0][1] if values else None
