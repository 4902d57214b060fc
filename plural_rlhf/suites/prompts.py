"""The prompts that a suite asks for, as a file to fill in: for models that only somebody else can run.

Knows no measure: tasks are asked as always, by a model that writes down the prompts and says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from plural_rlhf.suites.config import SuiteConfig
from plural_rlhf.suites.models.protocol import EvaluatedModel, TextSettings
from plural_rlhf.suites.run import run_loaded
from reward_models.whole_file import write_json_lines


__all__ = ["write_prompts"]


class _Collector(EvaluatedModel):
    """Says nothing, and remembers what it was asked to write."""

    name, identity, kind = "prompts", "prompts", "pseudo"

    def __init__(self) -> None:
        self.asked: dict[str, dict[str, Any]] = {}

    def write_texts(self, prompts: Sequence[str], n: int, settings: TextSettings) -> list[list[str]]:
        """Remember the prompts; a prompt that is asked for twice needs as many texts as the larger number."""
        for prompt in prompts:
            before = self.asked.get(prompt, {"n": 0, "max_new_tokens": 0})
            self.asked[prompt] = {
                "prompt": prompt,
                "n": max(n, before["n"]),
                "max_new_tokens": max(settings.max_new_tokens, before["max_new_tokens"]),
                "temperature": settings.temperature,
                "stop": list(settings.stop),
                "texts": [],
            }
        return [[""] * n for _ in prompts]


def write_prompts(config: SuiteConfig, path: str | Path) -> int:
    """Write one line per prompt of a suite, with `n` and the settings of sampling, and an empty list `texts`.

    A file whose `texts` are filled in is a model of the kind `recorded`. Tasks that need probabilities have no
    prompts, unless options are scored by sampling.

    Args:
        config: The suite; its models are not asked.
        path: The file to write.

    Returns:
        The number of prompts.

    Example:
        >>> import json, tempfile
        >>> suite = SuiteConfig(tasks=["urn"], max_items=3, scoring="sampling", option_samples=8, permutations=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     number = write_prompts(suite, f"{folder}/prompts.jsonl")
        ...     first = json.loads(Path(f"{folder}/prompts.jsonl").read_text().splitlines()[0])
        >>> number, first["n"], first["texts"]
        (3, 8, [])
    """
    collector = _Collector()
    loaded, _ = config.load_tasks()
    for task in loaded:
        with suppress(ValueError, ArithmeticError):  # measures of texts that are empty
            run_loaded([collector], [task], replace(config.asking, draws=1))
    write_json_lines(path, collector.asked.values())
    return len(collector.asked)
