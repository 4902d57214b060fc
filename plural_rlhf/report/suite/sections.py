"""What the page of a suite says, in order, and its first sentences. Knows nothing of files."""

from __future__ import annotations

import json

from plural_rlhf.report.sections import Section
from plural_rlhf.report.suite.curves import plot_person_curves
from plural_rlhf.report.suite.figures import plot_skill, plot_worst_items
from plural_rlhf.report.suite.grids import plot_overton
from plural_rlhf.report.suite.results import ALL, DECIDED, SuiteResults
from plural_rlhf.report.suite.scatter import plot_coverage, plot_objectives
from plural_rlhf.report.suite.tables import (
    all_numbers,
    comparison_table,
    data_table,
    endpoint_sentences,
    front_table,
    overview,
    skipped_table,
    undecidable_sentence,
)
from plural_rlhf.report.tables import TextTable, format_nats


__all__ = ["suite_findings", "suite_sections"]

THIN = 0.05
"""Coverage below which shares among the offered answers say little of what a model would answer."""


def suite_findings(results: SuiteResults) -> list[str]:
    """Say in sentences what was found, the counts of what is missing included.

    Example:
        >>> suite_findings(SuiteResults())
        ['Nothing was measured.']
    """
    if not results.tasks():
        return ["Nothing was measured.", *_skipped_sentence(results), *endpoint_sentences(results)]
    models = results.real_models() or [model.name for model in results.models]
    sentences = []
    for model in models:
        skills = [row.value for task in results.tasks() if (row := results.skill(model, task)) is not None]
        if skills:
            ahead = sum(value > 0 for value in skills)
            mean = f"{sum(skills) / len(skills):.2f}".replace("-", "−")
            sentences.append(
                f"{model}: nearer to people than a uniform guess on {ahead} of {len(skills)} tasks, mean skill {mean}."
            )
            thin = [task for task in results.tasks() if _coverage(results, model, task) < THIN]
            if thin:
                sentences.append(
                    f"{model} puts less than {THIN:.0%} of its probability on the offered answers of "
                    f"{', '.join(thin)}: its shares there are shares of what it would hardly say."
                )
    sentences += _jury_sentences(results)
    decided = [one for one in results.comparisons if one.outcome in ("better", "worse") and one.p_holm < DECIDED]
    for model in dict.fromkeys(one.model for one in results.comparisons):
        of_model = [one for one in decided if one.model == model]
        better = sum(one.outcome == "better" for one in of_model)
        total = sum(one.model == model for one in results.comparisons)
        base = next(one.base for one in results.comparisons if one.model == model)
        sentences.append(
            f"{model} against {base}, paired by item: better on {better}, worse on {len(of_model) - better}, "
            f"undecided on {total - len(of_model)} of {total} measures (Holm, 5 %)."
        )
    if stuck := undecidable_sentence(results.comparisons):
        sentences.append(f"{stuck} Give `max_items` and `items_of` accordingly, or ask for fewer tasks or models.")
    sentences += [*_skipped_sentence(results), *endpoint_sentences(results)]
    return sentences or ["Only pseudo-models were measured."]


def suite_sections(results: SuiteResults) -> list[Section]:
    """Make all sections of the page; one without data says what is missing.

    Example:
        >>> [section.key for section in suite_sections(SuiteResults())]
        ['overview', 'worst', 'comparisons', 'numbers', 'skipped', 'data', 'record']
    """
    nothing = "" if results.tasks() else "Nothing was measured."
    record = {**results.config, **({} if results.meta is None else results.meta.to_dict())}
    settings = [[key, json.dumps(value, ensure_ascii=False)] for key, value in record.items()]
    usage = [[model.name, json.dumps(model.usage)] for model in results.models if model.usage]
    return [
        Section(
            "overview",
            "How near to people is each model?",
            "Marks to the right are better: 0 is a uniform guess, 1 what people themselves answer. Lines are 95 % "
            "intervals.",
            plot_skill(results),
            [overview(results)],
            missing=nothing,
        ),
        Section(
            "worst",
            "Where do people and model differ most?",
            "The questions with the largest divergence, at most four of a task. Shares are among the offered answers; "
            "how much of the model's probability is on them at all is `coverage`.",
            plot_worst_items(results),
            missing="" if results.worst_items else "No task with offered answers was measured.",
        ),
        *_plots_of_some_tasks(results),
        Section(
            "comparisons",
            "Which differences between models are more than chance?",
            "Every model against the first, on the same items.",
            tables=[comparison_table(results.comparisons)],
            missing="" if results.comparisons else "There is only one model.",
        ),
        *_front_sections(results),
        Section(
            "numbers",
            "Every number",
            "Open the table; type words to filter, click a heading to sort. The same numbers are in results.json.",
            folded=[all_numbers(results)],
            missing=nothing,
            fold_in_markdown=False,
        ),
        Section(
            "skipped",
            "What was not measured?",
            "A task is skipped where its data is not there or a model cannot do what it asks for.",
            tables=[skipped_table(results)],
            missing="" if results.skipped else "Everything was measured.",
        ),
        Section(
            "data",
            "On what data?",
            "Hashes of the files are in results.json.",
            tables=[data_table(results)],
            missing="" if results.data else "No data was loaded.",
        ),
        Section(
            "record",
            "How is it made again?",
            "The settings below as a YAML file, and the versions of the libraries, give the same numbers.",
            tables=[TextTable(["endpoint", "requests and cost"], usage)] if usage else [],
            folded=[TextTable(["setting", "value"], settings, "Settings, versions, seconds")],
        ),
    ]


def _plots_of_some_tasks(results: SuiteResults) -> list[Section]:
    """Return a section for every kind of task that was measured and has a plot of its own."""
    sections = [
        Section(
            "people",
            "Does it help to read what a person answered before?",
            "Lower is better, and a line should fall. Where the answers read are those of another person, it should "
            "not: what falls there is knowledge of the form and of people in general. Vertical lines are 95 % "
            "intervals, where people are enough.",
            plot_person_curves(results),
        ),
        Section(
            "valid",
            "How many texts are valid, and how many of the valid ones differ?",
            "Towards the upper right is better. Dotted lines join what has equally many different valid answers per "
            "100 texts. Arrows lead from the first model to the others.",
            plot_coverage(results),
        ),
        Section(
            "overton",
            "Who agrees with the answers?",
            "Of 100 answers to a question, those that each cluster of people agrees with, as a jury of their votes "
            "predicts; the first column is what people themselves wrote. A line that is dark for people and pale for "
            "a model is a view that the model leaves out.",
            plot_overton(results),
        ),
    ]
    return [section for section in sections if section.figure is not None]


def _front_sections(results: SuiteResults) -> list[Section]:
    """Return the section of tasks with several objectives, if there is such a task."""
    if not results.fronts:
        return []
    return [
        Section(
            "objectives",
            "Which model is better in every objective?",
            "Several objectives make no single order: a model is better than another for certain only where it is at "
            "least as good in all of them and better in one.",
            plot_objectives(results),
            [front_table(results.fronts)],
        )
    ]


def _jury_sentences(results: SuiteResults) -> list[str]:
    """Say of each saved jury how well it predicts people, and what its tasks put beside it."""
    sentences = []
    for model in results.models:
        for task in results.tasks() if model.kind == "jury" else ():
            row = results.headline(model.name, task)
            if row is None or row.direction not in ("lower", "higher") or not row.baselines:
                continue
            best = (min if row.direction == "lower" else max)(row.baselines.items(), key=lambda named: named[1])
            sentences.append(
                f"{model.name}, {task}: {row.metric} {format_nats(row.value)}; the best of what stands beside it, "
                f"{best[0]}, has {format_nats(best[1])}."
            )
    return sentences


def _skipped_sentence(results: SuiteResults) -> list[str]:
    skipped = len(results.skipped)
    return [f"{skipped} {'is' if skipped == 1 else 'are'} not measured: see below."] if skipped else []


def _coverage(results: SuiteResults, model: str, task: str) -> float:
    """Return the probability on the offered answers, 1 where a task has none."""
    rows = results.results.get(model, {}).get(task, [])
    return next((row.value for row in rows if row.metric == "coverage" and row.group == ALL), 1.0)
