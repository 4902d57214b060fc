"""Results in the shapes in which the Hub reads them: `.eval_results/*.yaml` of a model, and `model-index` of its card.

The Hub knows `.eval_results` only of data sets that lie on it; all tasks stand in the model index. The shapes are
written by huggingface_hub itself. Knows no model.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, eval_result_entries_to_yaml
from huggingface_hub.repocard_data import eval_results_to_model_index

from plural_rlhf.report.suite.results import MetricResult, SuiteResults, TaskRecord
from plural_rlhf.suites.exports.file_names import file_names
from reward_models.whole_file import whole_file


__all__ = ["hub_results", "write_hub_results"]

_ON_HUB = re.compile(r"https://huggingface\.co/datasets/([\w.-]+/[\w.-]+)")


def hub_results(results: SuiteResults, model: str) -> dict[str, Any]:
    """Return the content of the files of one model, by their names in its repository; the headline of each task.

    Example:
        >>> row = MetricResult(metric="jsd_nats", value=0.02, headline=True)
        >>> task = {"id": "opinions", "title": "Opinions.", "shape": "distribution", "licence": "CC BY 4.0", "n": 9}
        >>> data = [{**task, "source": "https://huggingface.co/datasets/somebody/opinions"}]
        >>> files = hub_results(SuiteResults(data=data, results={"base": {"opinions": [row]}}), "base")
        >>> files[".eval_results/somebody--opinions.yaml"][0]["dataset"]
        {'id': 'somebody/opinions', 'task_id': 'opinions'}
        >>> files["model-index.yaml"]["model-index"][0]["results"][0]["metrics"][0]
        {'type': 'jsd_nats', 'value': 0.02, 'name': 'jsd_nats'}
    """
    files: dict[str, Any] = {}
    indexed = []
    for task in results.data:
        row = results.headline(model, task.id)
        if row is None:
            continue
        indexed.append(_indexed(task, row))
        on_hub = _ON_HUB.match(task.source)
        if on_hub:
            name = f".eval_results/{on_hub[1].replace('/', '--')}.yaml"
            files.setdefault(name, []).extend(eval_result_entries_to_yaml([_entry(on_hub[1], task, row, results)]))
    files["model-index.yaml"] = {"model-index": eval_results_to_model_index(model, indexed)}
    return files


def write_hub_results(results: SuiteResults, folder: str | Path) -> None:
    """Write `<folder>/<model>/model-index.yaml` and `<folder>/<model>/.eval_results/` of every model with results."""
    names = file_names(model.name for model in results.models)
    for model in results.real_models():
        if model not in results.results:
            continue
        of_model = Path(folder) / names[model]
        for name, content in hub_results(results, model).items():
            (of_model / name).parent.mkdir(parents=True, exist_ok=True)
            with whole_file(of_model / name) as file:
                yaml.safe_dump(content, file, sort_keys=False, allow_unicode=True)


def _indexed(task: TaskRecord, row: MetricResult) -> EvalResult:
    return EvalResult(
        task_type="other",
        task_name=task.title,
        dataset_type=task.id,
        dataset_name=task.id,
        metric_type=row.metric,
        metric_name=row.metric,
        metric_value=row.value,
    )


def _entry(dataset: str, task: TaskRecord, row: MetricResult, results: SuiteResults) -> EvalResultEntry:
    date = None if results.meta is None else results.meta.started or None
    return EvalResultEntry(
        dataset_id=dataset, task_id=task.id, value=row.value, date=date, notes=f"{row.metric}, {row.n_items} items"
    )
