"""Read reward model benchmarks from a local copy, in the schema in which they are published.

| schema | a row has |
|---|---|
| `rewardbench` | `prompt`, `chosen`, `rejected` (texts), `subset`, `id` |
| `rewardbench-2` | `prompt`, `chosen`, `rejected` (lists), `subset`, `id`; in its subset Ties `ref:7` or `tied:7` |
| `rm-bench` | `prompt`, `chosen`, `rejected` (lists of three styles), `domain`, `id` |

The data sets are allenai/reward-bench (Lambert and others 2024), allenai/reward-bench-2 (Malik and others 2025) and
THU-KEG/RM-Bench (Liu and others 2024). Nothing is downloaded. Knows nothing of scores.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from reward_models.errors import JudgementError
from reward_models.judgements.texts import Prompt, Text, freeze_prompt
from reward_models.whole_file import json_lines


__all__ = ["STYLES", "TIES", "Benchmark", "BenchmarkItem", "Schema", "read_benchmark"]

Schema = Literal["rewardbench", "rewardbench-2", "rm-bench"]
STYLES = ("concise", "detailed", "detailed, Markdown")
"""Styles of RM-Bench's three chosen and three rejected responses, in their order."""
TIES = "Ties"
"""Subset of RewardBench 2 whose prompts have several correct responses."""
NEEDED = ("prompt", "chosen", "rejected")


@dataclass(frozen=True)
class BenchmarkItem:
    """One prompt with responses that should win and responses that should lose.

    Attributes:
        id: Id in the data set.
        subset: Subset, or domain.
        prompt: The prompt.
        chosen: Responses that should win.
        rejected: Responses that should lose.

    Example:
        >>> item = BenchmarkItem("1", "math", "1 + 1?", ("2",), ("3", "11"))
        >>> [text.response for text in item.texts]
        ['2', '3', '11']
    """

    id: str
    subset: str
    prompt: Prompt
    chosen: tuple[str, ...]
    rejected: tuple[str, ...]

    @property
    def texts(self) -> list[Text]:
        """The chosen responses, then the rejected ones."""
        return [Text(self.prompt, response) for response in (*self.chosen, *self.rejected)]


@dataclass(frozen=True)
class Benchmark:
    """The items of a benchmark; `read_benchmark` reads them.

    Attributes:
        schema: Which of the schemas.
        items: `I` items.

    Example:
        >>> Benchmark("rewardbench", [BenchmarkItem("1", "math", "1 + 1?", ("2",), ("3",))]).subsets
        ['math']
    """

    schema: Schema
    items: list[BenchmarkItem]

    @property
    def subsets(self) -> list[str]:
        """Subsets in the order in which they occur."""
        return list(dict.fromkeys(item.subset for item in self.items))

    @property
    def texts(self) -> list[Text]:
        """Different texts of all items."""
        return list(dict.fromkeys(text for item in self.items for text in item.texts))


def read_benchmark(path: str | Path) -> Benchmark:
    """Read a local copy; the columns say which schema it has.

    Args:
        path: A `.parquet`, `.jsonl` or `.json` file of the data set.

    Raises:
        JudgementError: The file is missing, has another ending, or a row has another schema; row and column are named.

    Example:
        >>> import tempfile
        >>> rows = [{"id": 7, "subset": "math", "prompt": "1 + 1?", "chosen": "2", "rejected": "3"}]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "filtered.json").write_text(json.dumps(rows))
        ...     benchmark = read_benchmark(f"{folder}/filtered.json")
        >>> benchmark.schema, benchmark.items[0].rejected
        ('rewardbench', ('3',))
    """
    path = Path(path)
    rows = _rows(path)
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise JudgementError(
            f"{path} is no list of rows with named columns. Fix: give the file of the data set itself"
        )
    if not rows:
        raise JudgementError(f"{path} has no rows. Fix: give the file of the data set itself")
    missing = [name for name in NEEDED if name not in rows[0]]
    if missing:
        raise JudgementError(
            f"{path}: the first row has no {', '.join(missing)} (columns: {', '.join(rows[0])}). Fix: give a copy of "
            "RewardBench, RewardBench 2 or RM-Bench, with its own columns"
        )
    schema = _schema(rows[0])
    items = [_item(path, number, row, schema) for number, row in enumerate(rows, start=1)]
    if schema == "rewardbench-2":
        times = Counter(item.id for item in items if item.subset == TIES)
        if twice := [name for name, count in times.items() if count > 1]:
            raise JudgementError(
                f"{path}: {len(twice)} ids of the subset {TIES} are there twice, e.g. {twice[0]!r}, by which its "
                "prompts are paired. Fix: give an unchanged copy of the data set"
            )
    return Benchmark(schema, items)


def _rows(path: Path) -> Any:
    """Return what the file holds: rows, if it is a data set."""
    if not path.is_file():
        raise JudgementError(f"{path} does not exist or is a folder. Fix: give one file of a local copy")
    try:
        if path.suffix == ".parquet":
            import pandas as pd

            rows = pd.read_parquet(path).to_dict("records")
            return [{str(name): value for name, value in row.items()} for row in rows]
        if path.suffix == ".jsonl":
            return [json.loads(line) for _, line in json_lines(path)]
        if path.suffix == ".json":
            return json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise JudgementError(f"{path} cannot be read: {error}. Fix: download the file again") from error
    raise JudgementError(f"{path} ends in {path.suffix!r}. Fix: give a .parquet, .jsonl or .json file")


def _schema(row: Mapping[str, Any]) -> Schema:
    if isinstance(row["chosen"], str):
        return "rewardbench"
    return "rm-bench" if "domain" in row and "subset" not in row else "rewardbench-2"


def _item(path: Path, number: int, row: Mapping[str, Any], schema: Schema) -> BenchmarkItem:
    """Check one row and make an item of it."""
    chosen, rejected = (_responses(row.get(side), schema) for side in ("chosen", "rejected"))
    for side, responses in (("chosen", chosen), ("rejected", rejected)):
        if not responses or (schema == "rm-bench" and len(responses) != len(STYLES)):
            wanted = {"rewardbench": "a text", "rewardbench-2": "a list of texts"}.get(schema, "a list of three texts")
            raise JudgementError(
                f"{path}, row {number}: {side!r} is {row.get(side)!r:.80}, but {schema} has {wanted} there. "
                "Fix: give a whole and unchanged copy of the data set"
            )
    prompt: Any = row.get("prompt")
    if not isinstance(prompt, str):
        try:
            prompt = freeze_prompt([dict(message) for message in prompt])
        except (KeyError, TypeError, ValueError):
            prompt = ()
    if prompt == ():
        raise JudgementError(
            f"{path}, row {number}: 'prompt' is {row.get('prompt')!r:.80}, but {schema} has a text there, or messages "
            "with role and content. Fix: give a whole and unchanged copy of the data set"
        )
    subset = row.get("subset", row.get("domain", "all"))
    return BenchmarkItem(str(row.get("id", number)), str(subset), prompt, tuple(chosen), tuple(rejected))


def _responses(value: Any, schema: Schema) -> Sequence[str]:
    """Return the texts of one side; empty if they are not what the schema has."""
    if schema == "rewardbench":
        return [value] if isinstance(value, str) else []
    texts = [] if value is None or isinstance(value, str) else list(value)
    return texts if all(isinstance(text, str) for text in texts) else []
