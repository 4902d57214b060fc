"""A suite from its settings to its folder: results.json, a record of every item, the page, a file in lm-eval's shape.

Knows no command. Rows of models come from `run`, differences from `comparisons`.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from plural_rlhf.report.results import Meta
from plural_rlhf.report.suite.page import write_suite_report
from plural_rlhf.report.suite.results import (
    PEOPLE,
    ClusterAgreement,
    Difference,
    FrontMember,
    ItemResult,
    MetricResult,
    ModelRecord,
    SkippedTask,
    SuiteResults,
    TaskRecord,
)
from plural_rlhf.suites.against_first import against_first
from plural_rlhf.suites.comparisons import SAMPLES, ScoredItems, differences, item_scores
from plural_rlhf.suites.config import SuiteConfig
from plural_rlhf.suites.exports.hub_results import write_hub_results
from plural_rlhf.suites.exports.lm_eval_results import lm_eval_results
from plural_rlhf.suites.fronts import OBJECTIVES, front_members
from plural_rlhf.suites.models.choose import check_models, open_models
from plural_rlhf.suites.models.runs import expand_runs
from plural_rlhf.suites.run import SuiteFindings, TaskFindings, run_loaded
from plural_rlhf.suites.tasks.generation.overton import REPRESENTED, REPRESENTED_OF_PEOPLE
from reward_models.whole_file import write_json, write_json_lines


__all__ = ["StrictError", "evaluate_suite", "suite_results"]

WORST_OF_A_TASK = 4
"""Items of a task among those that are drawn, so that not all are of the one on which a model is worst."""


class StrictError(ValueError):
    """A task could not be measured, and the suite is strict."""


def evaluate_suite(config: SuiteConfig, *, command: str = "") -> SuiteResults:
    """Evaluate every model of a suite on every task and write the folder of results.

    Args:
        config: The settings.
        command: Command line, for the record.

    Returns:
        The results, as `results.json` holds them.

    Raises:
        FileNotFoundError: A model is not there; nothing was done.
        StrictError: With `strict`, a task could not be measured; the results are written all the same.

    Example:
        >>> import tempfile
        >>> settings = {"tasks": ["urn"], "pseudo_models": ["gold", "uniform"], "max_items": 20, "draws": 50}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     paths = {"answers_dir": f"{folder}/answers", "output_dir": f"{folder}/out"}
        ...     results = evaluate_suite(SuiteConfig(**settings, **paths))
        ...     written = sorted(path.name for path in (Path(folder) / "out").iterdir())
        >>> [(model.name, round(results.headline(model.name, "urn").value)) for model in results.models]
        [('gold', 1), ('uniform', 0)]
        >>> written
        ['figures', 'report.html', 'report.md', 'results.json', 'samples']
    """
    sections = expand_runs(config.models)
    check_models(sections)
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    loaded, skipped = config.load_tasks()
    models = open_models(sections, config.pseudo_models)
    found = run_loaded(models, loaded, config.asking, answers_dir=config.answers_dir)
    found.skipped[:0] = skipped
    results = suite_results(found, config, command=command, started=started)
    folder = config.output_dir
    write_samples(found, folder / SAMPLES)
    results.write(folder / "results.json")
    for model, of_model in lm_eval_results(results).items():
        write_json(folder / "lm_eval" / f"results_{model}.json", of_model)
    write_hub_results(results, folder / "hub")
    write_suite_report(results, folder)
    if config.strict and results.skipped:
        reasons = "\n".join(f"  - {one.task} ({one.model or 'all models'}): {one.reason}" for one in results.skipped)
        raise StrictError(
            f"strict: {len(results.skipped)} could not be measured:\n{reasons}\nThe rest is in {folder}. Fix: get the "
            "data, leave the tasks out, or run without strict"
        )
    return results


def suite_results(found: SuiteFindings, config: SuiteConfig, *, command: str = "", started: str = "") -> SuiteResults:
    """Make the results of a suite from what was found."""
    results: dict[str, dict[str, list[MetricResult]]] = {}
    for one in found.findings:
        results.setdefault(one.model, {})[one.task] = [MetricResult(**asdict(row)) for row in one.result.rows]
    for model, task, rows in _against_first(found, config):
        results[model][task] += rows
    seconds: dict[str, float] = {}
    for one in found.findings:
        seconds[one.task] = round(seconds.get(one.task, 0.0) + one.seconds, 2)
    return SuiteResults(
        schema_version=1,
        name=config.name,
        config=config.model_dump(mode="json"),
        meta=Meta.of_this_process(config.seed, command, started, seconds),
        models=[ModelRecord(**asdict(model)) for model in found.models],
        data=[
            TaskRecord(
                id=one.task.name,
                title=one.task.title,
                shape=one.task.shape,
                source=one.task.source,
                licence=one.task.licence,
                n=len(one.items),
                sha256=dict(one.files),
                content=one.content,
            )
            for one in found.tasks
        ],
        results=results,
        comparisons=_comparisons(found, config),
        fronts=_fronts(found, config),
        agreement=_agreement(found),
        worst_items=_worst_items(found),
        skipped=[SkippedTask(**asdict(one)) for one in found.skipped],
    )


def write_samples(found: SuiteFindings, folder: Path) -> None:
    """Write `<task>.jsonl`, one line per model and item."""
    for task in dict.fromkeys(one.task for one in found.findings):
        records = (
            {"model": one.model, **record}
            for one in found.findings
            if one.task == task
            for record in one.result.records
        )
        write_json_lines(folder / f"{task}.jsonl", records)


def _comparisons(found: SuiteFindings, config: SuiteConfig) -> list[Difference]:
    """Compare every model with the first, pseudo-models aside."""
    real = [model.name for model in found.models if model.kind != "pseudo"]
    contents = {one.task.name: one.content for one in found.tasks}
    scored = {
        (one.model, one.task): ScoredItems(
            one.model,
            one.task,
            contents[one.task],
            item_scores(one.result.records),
            {row.metric: row.direction for row in one.result.rows},
        )
        for one in found.findings
        if one.model in real
    }
    pairs = [
        (scored[model, task], scored[real[0], task])
        for model in real[1:]
        for task in contents
        if (model, task) in scored and (real[0], task) in scored
    ]
    return differences(pairs, draws=config.draws, seed=config.seed)


def _against_first(found: SuiteFindings, config: SuiteConfig) -> Iterator[tuple[str, str, list[MetricResult]]]:
    """Hold one answer of every model to several of the first, in each task that knows whom answers represent."""
    real = [model.name for model in found.models if model.kind != "pseudo"]
    records = {
        (one.model, one.task): one.result.records
        for one in found.findings
        if one.result.records and all(REPRESENTED in record for record in one.result.records)
    }
    for (model, task), of_model in records.items():
        if model in real[1:] and (real[0], task) in records:
            first = records[real[0], task]
            yield model, task, against_first(of_model, first, name=real[0], draws=config.draws, seed=config.seed)


def _fronts(found: SuiteFindings, config: SuiteConfig) -> list[FrontMember]:
    """Compare the models in each task whose records have several objectives, pseudo-models aside."""
    real = {model.name for model in found.models if model.kind != "pseudo"}
    by_task: dict[str, dict[str, Sequence[Mapping[str, Any]]]] = {}
    for one in found.findings:
        if one.model in real and one.result.records and all(OBJECTIVES in record for record in one.result.records):
            by_task.setdefault(one.task, {})[one.model] = one.result.records
    return [
        member
        for task, records in by_task.items()
        for member in front_members(task, records, draws=config.draws, seed=config.seed)
    ]


def _agreement(found: SuiteFindings) -> list[ClusterAgreement]:
    """Return the share of answers that each cluster agrees with, people's own once per task before those of models."""
    cells: dict[tuple[str, str, str, str], ClusterAgreement] = {}
    for side in (REPRESENTED_OF_PEOPLE, REPRESENTED):
        for one in found.findings:
            for record in one.result.records:
                for cluster, shares in record.get(side, {}).items():
                    cell = ClusterAgreement(
                        task=one.task,
                        model=PEOPLE if side == REPRESENTED_OF_PEOPLE else one.model,
                        question=record["item"],
                        cluster=cluster,
                        share=float(np.mean(shares)),
                        n_answers=len(shares),
                    )
                    cells[cell.task, cell.model, cell.question, cluster] = cell
    return list(cells.values())


def _worst_items(found: SuiteFindings) -> list[ItemResult]:
    """Return the items of each model on which people and model differ most."""
    worst = []
    for model in found.models:
        records = [(one.task, record) for one in found.findings if one.model == model.name for record in _shown(one)]
        records.sort(key=lambda pair: -pair[1]["scores"]["jsd_nats"])
        if model.kind != "pseudo":
            of_task: dict[str, int] = {}
            for task, record in records:
                of_task[task] = of_task.get(task, 0) + 1
                if of_task[task] <= WORST_OF_A_TASK:
                    worst.append(_item_result(model.name, task, record))
    return worst


def _shown(one: TaskFindings) -> Sequence[Mapping[str, Any]]:
    needed = {"options", "people", "answer"}
    return [r for r in one.result.records if needed <= set(r) and "jsd_nats" in r.get("scores", {})]


def _item_result(model: str, task: str, record: Mapping[str, Any]) -> ItemResult:
    return ItemResult(
        model=model,
        task=task,
        item=str(record["item"]),
        text=str(record.get("text", record["item"])),
        options=list(record["options"]),
        people=list(record["people"]),
        answer=list(record["answer"]),
        n=record.get("n"),
        score=float(record["scores"]["jsd_nats"]),
    )
