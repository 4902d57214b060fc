"""Tasks of the shape `distribution` as task files that lm-evaluation-harness loads: YAML, questions, measures.

The prompts, the answers and the measures are ours, so that the harness finds the numbers that a suite finds. Needs the
harness only to run the files, not to write them. Knows no model.

Shapes: `A` options.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from plural_rlhf.suites.tasks.distributions import DistributionTask, option_questions
from plural_rlhf.suites.tasks.protocol import TaskUnavailable
from plural_rlhf.suites.tasks.questions import Layout, OptionQuestion, option_request
from reward_models.stats.answers import js_divergence, normalise, total_variation
from reward_models.whole_file import json_lines, whole_file, write_json_lines


if TYPE_CHECKING:
    from datasets import DatasetDict

    from plural_rlhf.suites.config import SuiteConfig
    from plural_rlhf.suites.run import LoadedTask

__all__ = ["harness_questions", "process_results", "write_lm_eval_tasks"]

CODE_FILE = "plural_rlhf_tasks.py"
_CODE = '''"""What lm-evaluation-harness calls for the task files of this folder; needs the package plural_rlhf."""

from pathlib import Path

from plural_rlhf.suites.exports.lm_eval_tasks import harness_questions, process_results  # noqa: F401


def load(file, **_):
    return harness_questions(Path(__file__).parent / file)
'''
HIGHER_IS_BETTER = {"jsd_nats": False, "total_variation": False, "coverage": True, "uniform_jsd_nats": False}
"""What is measured; the last is what a uniform guess has: skill is 1 - jsd_nats / uniform_jsd_nats."""


def write_lm_eval_tasks(config: SuiteConfig, folder: str | Path) -> dict[str, int]:
    """Write `plural_<task>.yaml` and its questions for every task with offered answers of a suite.

    `lm_eval --include_path FOLDER --tasks plural_urn` runs one; `plural_rlhf` runs all, as a group.

    Args:
        config: The suite: tasks, data, `max_items`, `seed` and `layout` are read.
        folder: Folder of the files; it may be moved.

    Returns:
        Number of questions by task.

    Raises:
        TaskUnavailable: No task of the suite has offered answers and its data.

    Example:
        >>> import tempfile
        >>> from plural_rlhf.suites import SuiteConfig
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_lm_eval_tasks(SuiteConfig(tasks=["urn", "personas"], max_items=5), folder)
        ...     sorted(path.name for path in Path(folder).iterdir())
        {'urn': 5}
        ['plural_rlhf.yaml', 'plural_rlhf_tasks.py', 'plural_urn.jsonl', 'plural_urn.yaml']
    """
    folder = Path(folder)
    loaded, skipped = config.load_tasks()
    tasks = {one.task.name: one for one in loaded if isinstance(one.task, DistributionTask)}
    if not tasks:
        reasons = "; ".join(f"{one.task}: {one.reason}" for one in skipped)
        raise TaskUnavailable(
            f"no task of {', '.join(config.tasks)} has offered answers and its data {reasons}. Fix: name tasks of the "
            "shape distribution, e.g. urn"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name, one in tasks.items():
        _write_task(f"plural_{name.replace('-', '_')}", one, folder, config.layout)
    group = {"group": "plural_rlhf", "task": [f"plural_{name.replace('-', '_')}" for name in tasks]}
    _write(folder / "plural_rlhf.yaml", yaml.safe_dump(group, sort_keys=False))
    _write(folder / CODE_FILE, _CODE)
    return {name: len(one.items) for name, one in tasks.items()}


def _write_task(name: str, one: LoadedTask, folder: Path, layout: Layout) -> None:
    questions = option_questions(one.items, layout)
    records = [_record(item.name, question, layout) for item, question in zip(one.items, questions, strict=True)]
    write_json_lines(folder / f"{name}.jsonl", records)
    metrics = [
        {"metric": metric, "aggregation": "mean", "higher_is_better": higher}
        for metric, higher in HIGHER_IS_BETTER.items()
    ]
    settings = {
        "task": name,
        "custom_dataset": "FUNCTION load",
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "prompt",
        "doc_to_choice": "answers",
        "doc_to_target": "mode",
        "target_delimiter": " ",
        "process_results": "FUNCTION process_results",
        "metric_list": metrics,
        "metadata": {"version": 1, "file": f"{name}.jsonl"},
    }
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    for function in ("load", "process_results"):
        text = text.replace(f"FUNCTION {function}\n", f"!function {Path(CODE_FILE).stem}.{function}\n")
    head = f"# {one.task.title} Source: {one.task.source}. Licence: {one.task.licence}.\n"
    _write(folder / f"{name}.yaml", head + text)


def _record(item: str, question: OptionQuestion, layout: Layout) -> dict[str, Any]:
    request = option_request(question, layout=layout)
    assert request.people is not None
    return {
        "item": item,
        "prompt": request.prompt,
        "answers": [f"{option}\n" for option in request.options],  # the line break ends an answer, as in a suite
        "people": normalise(request.people).tolist(),
        "mode": int(np.argmax(request.people)),
    }


def harness_questions(path: str | Path) -> DatasetDict:
    """Return the questions of a task file as the harness takes data."""
    from datasets import Dataset, DatasetDict

    return DatasetDict({"test": Dataset.from_list([json.loads(line) for _, line in json_lines(Path(path))])})


def process_results(doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """Measure the log-probabilities that the harness found for the `A` answers of a question.

    Example:
        >>> question = {"people": [0.75, 0.25]}
        >>> measured = process_results(question, [(np.log(0.3), False), (np.log(0.1), False)])
        >>> {name: round(value, 6) for name, value in measured.items()}
        {'jsd_nats': 0.0, 'total_variation': 0.0, 'coverage': 0.4, 'uniform_jsd_nats': 0.033822}
    """
    log_probs = np.array([log_prob for log_prob, _ in results], dtype=np.float64)
    people = np.asarray(doc["people"], dtype=np.float64)
    shares = normalise(np.exp(log_probs - log_probs.max()))
    return {
        "jsd_nats": float(js_divergence(people, shares)),
        "total_variation": float(total_variation(people, shares)),
        "coverage": float(np.exp(log_probs).sum()),
        "uniform_jsd_nats": float(js_divergence(people, np.full(len(people), 1 / len(people)))),
    }


def _write(path: Path, text: str) -> None:
    with whole_file(path) as file:
        file.write(text)
