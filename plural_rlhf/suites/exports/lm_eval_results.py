"""Results in the shape of the files that lm-evaluation-harness writes, for tools that read those. Knows no model."""

from __future__ import annotations

from typing import Any

from plural_rlhf.report.suite.results import ALL, MetricResult, SuiteResults
from plural_rlhf.suites.exports.file_names import file_names


__all__ = ["lm_eval_results"]

HIGHER = {"higher": True, "lower": False}


def lm_eval_results(results: SuiteResults) -> dict[str, dict[str, Any]]:
    """Return the contents of one file per model, by its name as a file name (`file_names`).

    A metric is called `name,none`, its standard error `name_stderr,none`: half the 95 % interval over 1.96.

    Example:
        >>> row = MetricResult(metric="jsd_nats", value=0.02, ci_low=0.0102, ci_high=0.0298, direction="lower")
        >>> models = [{"name": "base", "kind": "causal-lm", "identity": "1"}]
        >>> file = lm_eval_results(SuiteResults(models=models, results={"base": {"urn": [row]}}))["base"]
        >>> {name: round(value, 4) for name, value in file["results"]["urn"].items() if name != "alias"}
        {'jsd_nats,none': 0.02, 'jsd_nats_stderr,none': 0.005}
        >>> file["higher_is_better"]
        {'urn': {'jsd_nats': False}}
    """
    names = file_names(model.name for model in results.models)
    sizes = {task.id: task.n for task in results.data}
    files = {}
    for model in (model for model in results.models if model.name in results.results and model.kind != "pseudo"):
        by_task = {
            task: [row for row in rows if row.group == ALL]
            for task, rows in results.results.get(model.name, {}).items()
        }
        files[names[model.name]] = {
            "results": {task: {"alias": task, **_numbers(rows)} for task, rows in by_task.items()},
            "group_subtasks": {task: [] for task in by_task},
            "configs": {task: {"task": task, "metadata": {"version": 1}} for task in by_task},
            "versions": dict.fromkeys(by_task, 1),
            "n-shot": dict.fromkeys(by_task, 0),
            "higher_is_better": {
                task: {row.metric: HIGHER[row.direction] for row in rows if row.direction in HIGHER}
                for task, rows in by_task.items()
            },
            "n-samples": {task: {"original": sizes.get(task, 0), "effective": sizes.get(task, 0)} for task in by_task},
            "config": {"model": model.kind, "model_args": model.name, "random_seed": results.config.get("seed")},
            "model_name": model.name,
            "model_source": "plural-rlhf",
        }
    return files


def _numbers(rows: list[MetricResult]) -> dict[str, float | str]:
    numbers: dict[str, float | str] = {}
    for row in rows:
        numbers[f"{row.metric},none"] = row.value
        ends = None if row.ci_low is None or row.ci_high is None else (row.ci_low, row.ci_high)
        numbers[f"{row.metric}_stderr,none"] = "N/A" if ends is None else (ends[1] - ends[0]) / 2 / 1.96
    return numbers
