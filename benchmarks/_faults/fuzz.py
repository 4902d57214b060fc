"""Inputs that nobody meant: every parser answers at once, with a result or with an error of its own.

Inputs are those of a user with pieces cut out, doubled or replaced, at random. Each part is a function of `PARTS`; an
input that is read is `survived`, one that is refused with our error `refused`.
"""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _faults.juries import odd_values
from _faults.outcomes import Effort, Outcome, attempt


__all__ = ["PARTS", "mutated", "mutated_value"]

LIMIT = 20  # seconds for one input
PIECES = (
    *(
        "[",
        "]",
        "{",
        "}",
        "(",
        ")",
        ": ",
        "- ",
        "&a ",
        "*a",
        "!!int ",
        "'",
        '"',
        "\n",
        "\r",
        "  ",
        "\t",
        "|",
        ">",
        "%",
    ),
    *(
        "#",
        "---\n",
        "<<: ",
        "? ",
        "\ufeff",
        "\x85",
        "\ud800",
        "\x00",
        "\x1b[2J",
        "1:30",
        "010",
        "0x",
        "1e999",
        "-1",
        ",",
    ),
    *(
        "=",
        ";",
        "nan",
        "inf",
        "null",
        "true",
        "9" * 400,
        "9" * 5000,
        "a" * 5000,
        "[" * 2000,
        "$x$",
        "[/]",
        "é",
        "é",
        "🙂",
    ),
)
VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        0,
        -1,
        10**400,
        1e999,
        float("nan"),
        "",
        "x",
        "010",
        "\ud800",
        "\x00",
        [],
        {},
        [[]],
        [None],
        {"": {}},
    ),
    *(["x"] * 3, {"a": 1}, 2**32, -0.0, 1e-320, "1e5", "a" * 5000, [[[[[[]]]]]]),
)


def mutated(text: str, draw: random.Random) -> str:
    """A text with up to six pieces cut, doubled or replaced."""
    for _ in range(draw.choice((1, 1, 1, 2, 3, 6))):
        at, width = draw.randrange(len(text) + 1), draw.choice((0, 0, 1, 3, 20, 200))
        piece = draw.choice((*PIECES, "", text[at : at + width] * 2))
        text = text[:at] + piece + text[at + width :]
    return text


def mutated_bytes(content: bytes, draw: random.Random) -> bytes:
    """A file with a byte changed, a piece cut, or its end gone."""
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(content) + 1)
        change = draw.choice(("byte", "cut", "end", "insert"))
        middle = {"byte": bytes([draw.randrange(256)]), "insert": draw.randbytes(draw.randint(1, 9))}.get(change, b"")
        stop = {"byte": at + 1, "cut": at + draw.randint(1, 40), "insert": at}.get(change, len(content))
        content = content[:at] + middle + content[stop:]
    return content


def mutated_value(value: Any, draw: random.Random) -> Any:
    """A JSON value with one part of it replaced, removed or added."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        key = draw.choice(list(value))
        if draw.random() < 0.1:
            return {name: part for name, part in value.items() if name != key}
        if draw.random() < 0.05:
            return {**value, draw.choice(("", "surprise", "..", ".")): draw.choice(VALUES)}
        return {**value, key: mutated_value(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.8:
        at = draw.randrange(len(value))
        return [*value[:at], mutated_value(value[at], draw), *value[at + 1 :]]
    return draw.choice(VALUES)


def _fuzz(
    part: str, inputs: int, effort: Effort, make: Callable[[random.Random], Any], read: Callable[[Any], Any]
) -> Iterator[Outcome]:
    draw = random.Random(effort.seed)
    for _ in range(inputs):
        given = make(draw)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield attempt(part, repr(given)[:300], partial(read, given), lambda _: True, limit=LIMIT)


def yaml_texts(work: Path, effort: Effort) -> Iterator[Outcome]:
    """YAML near that of a run file and a column map."""
    from reward_models.yaml_text import parse_yaml

    yield from _fuzz("YAML", effort.inputs, effort, lambda draw: mutated(draw.choice((RUN, MAP)), draw), parse_yaml)


def run_files(work: Path, effort: Effort) -> Iterator[Outcome]:
    """Run files, as texts and as values, and overrides."""
    from plural_rlhf.recipe import load_config
    from plural_rlhf.recipe.config import make_config
    from reward_models.yaml_text import parse_yaml

    values, file = parse_yaml(RUN), work / "run.yaml"

    def read(text: Any) -> None:
        if not isinstance(text, str):
            if isinstance(text, dict):
                make_config(text, origin="a test")
            return
        if text.startswith("--set"):
            file.write_text(RUN, encoding="utf-8")
            load_config(file, [text.removeprefix("--set")])
            return
        file.write_bytes(text.encode("utf-8", errors="surrogatepass"))
        load_config(file)

    def make(draw: random.Random) -> Any:
        kind = draw.randrange(3)
        if kind == 0:
            return mutated_value(values, draw)
        return mutated(RUN, draw) if kind == 1 else "--set" + mutated("plural.steps=[10, 2]", draw)

    yield from _fuzz("run files", effort.inputs, effort, make, read)


def weights(work: Path, effort: Effort) -> Iterator[Outcome]:
    """Weights over clusters: texts, mappings and lists."""
    from reward_models.weights import parse_weights

    names = ["urban", "rural, north", "a=b", "é"]

    def make(draw: random.Random) -> Any:
        kind = draw.randrange(3)
        if kind == 0:
            return mutated("urban=7, rural, north=5,é=1", draw)
        return mutated_value({"urban": 7, "é": 0.5} if kind == 1 else [1, 2.5, 0, 3], draw)

    def read(spec: Any) -> None:
        found = parse_weights(spec, names, [0.1, 0.2, 0.3, 0.4])
        if not (np.isfinite(found).all() and abs(found.sum() - 1) < 1e-9 and (found >= 0).all()):
            raise AssertionError(f"no point on the simplex: {found}")

    yield from _fuzz("weights", effort.inputs, effort, make, read)


def rules(work: Path, effort: Effort) -> Iterator[Outcome]:
    """Welfare rules with options, as they are written on the command line."""
    from plural_rlhf.core.rules import Rule
    from reward_models.errors import JuryError

    texts = ("mean", "cvar(share=0.5)", "soft_minimum(temperature=0.5)", "quantile(q=0.1)")
    make = lambda draw: mutated(draw.choice(texts), draw)  # noqa: E731

    def read(text: str) -> None:
        try:
            Rule.parse(text)
        except (TypeError, ValueError) as error:  # which the commands show as a fault of the option
            if str(error).startswith("rule"):
                raise JuryError(str(error)) from error
            raise

    yield from _fuzz("rules", effort.inputs, effort, make, read)


def column_maps(work: Path, effort: Effort) -> Iterator[Outcome]:
    """Column maps as values and files, with a table that they are for."""
    from reward_models.sources import load_table
    from reward_models.yaml_text import parse_yaml

    table, file, values = work / "answers.csv", work / "map.yaml", parse_yaml(MAP)
    table.write_text(CSV, encoding="utf-8")

    def read(given: Any) -> None:
        if isinstance(given, str):
            file.write_bytes(given.encode("utf-8", errors="surrogatepass"))
        elif not isinstance(given, dict):
            file.write_text(json.dumps(given), encoding="utf-8")
        load_table(table, given if isinstance(given, dict) else file)

    def make(draw: random.Random) -> Any:
        return mutated(MAP, draw) if draw.random() < 0.4 else mutated_value(values, draw)

    yield from _fuzz("column maps", effort.inputs, effort, make, read)


def tables(work: Path, effort: Effort) -> Iterator[Outcome]:
    """Tables of judgements: CSV, JSON lines and Parquet whose bytes or values were changed."""
    import pandas as pd

    from reward_models import planted_judgements
    from reward_models.sources import load_table

    contents: list[tuple[str, bytes]] = [(".csv", CSV.encode()), (".tsv", CSV.replace(",", "\t").encode("utf-16"))]
    rows: list[list[dict[str, Any]]] = []
    for kind in ("choice", "preference", "rating"):
        frame = planted_judgements(kind, num_raters=3, num_items=3).judgements.frame
        path = work / "table.parquet"
        pd.DataFrame(frame).to_parquet(path)
        lines = frame.to_json(orient="records", lines=True)
        contents += [(".parquet", path.read_bytes()), (".jsonl", lines.encode())]
        rows.append([json.loads(line) for line in lines.splitlines()])

    def make(draw: random.Random) -> tuple[str, bytes]:
        if draw.random() < 0.5:
            suffix, content = draw.choice(contents)
            return suffix, mutated_bytes(content, draw)
        table = mutated_value(mutated_value(draw.choice(rows), draw), draw)
        return ".jsonl", "\n".join(map(json.dumps, table if isinstance(table, list) else [table])).encode()

    def read(given: tuple[str, bytes]) -> None:
        path = work / f"given{given[0]}"
        path.write_bytes(given[1])
        load_table(path, {"index": 0} if b"options" in given[1] else None).encode()

    yield from _fuzz("tables", effort.inputs, effort, make, read)


def rows_of_judgements(work: Path, effort: Effort) -> Iterator[Outcome]:
    """Rows that are given in Python."""
    from reward_models import Judgements, planted_judgements

    rows = {
        kind: planted_judgements(kind, num_raters=3, num_items=3).judgements.frame.to_dict("records")
        for kind in ("choice", "preference", "rating")
    }

    def make(draw: random.Random) -> Any:
        table = rows[draw.choice(list(rows))]
        if draw.random() < 0.5:
            return mutated_value(mutated_value(table, draw), draw)
        column, value = draw.choice(list(table[0])), draw.choice(VALUES)
        return [{**row, column: value} for row in table]

    def read(table: Any) -> None:
        if isinstance(table, list) and all(isinstance(row, dict) for row in table):
            Judgements.from_dataset(table).encode()

    yield from _fuzz("rows in Python", effort.inputs, effort, make, read)


def candidates(work: Path, effort: Effort) -> Iterator[Outcome]:
    """Files of responses to rank."""
    from plural_rlhf.ranking.candidates import read_candidates
    from plural_rlhf.ranking.rank import rank

    row = {"prompt": "Parks?", "responses": ["yes", "no"], "rewards": {"urban": [1, 2], "rural": [0, 1]}}
    csv = "prompt,response,reward:urban,reward:rural\nParks?,yes,1,2\nParks?,no,0.5,1e3\n"

    def make(draw: random.Random) -> tuple[str, bytes]:
        kind = draw.randrange(3)
        if kind == 0:
            return ".csv", mutated(csv, draw).encode("utf-8", errors="surrogatepass")
        if kind == 1:
            return ".csv", mutated_bytes(csv.encode(), draw)
        return ".jsonl", "\n".join(json.dumps(mutated_value(row, draw)) for _ in range(2)).encode()

    def read(given: tuple[str, bytes]) -> None:
        path = work / f"given{given[0]}"
        path.write_bytes(given[1])
        rank(read_candidates(path), None, None, "mean")

    yield from _fuzz("candidates", effort.inputs, effort, make, read)


RUN = """\
name: small
seed: 3
data: {source: table, path: answers.csv, heldout_questions: 2, columns: {index: 0}}
policy: {model: tiny}
jury: {clusters: [1, 2], restarts: 1, l2: 1e-2}
plural: {steps: 4, prompts_per_step: 2, beta: 0.5, rho: -1.0}
grpo:
  steps: 2
juries:
  council: {urban: 7, rural: 5}
evaluate: {draws: 20, rules: ["mean", "cvar(share=0.5)"]}
"""
MAP = """\
kind: choice
columns: {rater_id: person, item_id: question, choice: answer, prompt: wording}
traits: {region: region}
options: ["yes", "no"]
values:
  choice: {1: "yes", 2: "no", "010": "no"}
missing: ["NA"]
"""
CSV = """\
person,question,wording,answer,region
007,parks,"More parks, please?",1,north
007,roads,More roads?,2,north
8,parks,"More parks, please?",010,süd
8,roads,More roads?,NA,süd
"""
PARTS: dict[str, Callable[[Path, Effort], Iterator[Outcome]]] = {
    "YAML": yaml_texts,
    "run files": run_files,
    "weights": weights,
    "rules": rules,
    "column maps": column_maps,
    "tables": tables,
    "rows in Python": rows_of_judgements,
    "candidates": candidates,
    "values of jury.json": odd_values,
}
