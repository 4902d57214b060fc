"""What a report says, in order: the headline in words, then one section per question a reader may have.

Reads `RunResults` and uses the tables and the plots; knows nothing of Markdown, HTML or files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure

from plural_rlhf.report import plots
from plural_rlhf.report.names import BASELINES, METHOD_NAMES, Method, Metric, SkippedPart, Split
from plural_rlhf.report.results import RunResults
from plural_rlhf.report.rules import picks_table, plot_rules, rules_sentence, rules_table
from plural_rlhf.report.tables import (
    Rows,
    TextTable,
    clusters_text,
    format_interval,
    format_nats,
    format_percent,
    headroom_text,
    short_labels,
    summary_text,
)
from reward_models.stats.verdicts import shortage


__all__ = ["Section", "headline", "report_sections"]


@dataclass(frozen=True)
class Section:
    """One question of a reader, and its answer.

    Args:
        key: Short name; the plot's file is called so.
        title: The question.
        reading: How to read the plot and tables.
        figure: The plot, if there is one.
        tables: Tables shown at once.
        folded: Tables behind a fold, for those who want every number.
        missing: Why there is nothing to show; empty if there is something.
        fold_in_markdown: Whether Markdown, which cannot fold, shows the folded tables too.

    Example:
        >>> Section("training", "Did it settle?", "Losses should flatten out.", missing="No training.")
        Section(key='training', ...)
    """

    key: str
    title: str
    reading: str
    figure: Figure | None = None
    tables: list[TextTable] = field(default_factory=list)
    folded: list[TextTable] = field(default_factory=list)
    missing: str = ""
    fold_in_markdown: bool = True


def headline(results: RunResults) -> list[str]:
    """Put the findings of a run into sentences, the most important first; say so where something was not measured.

    Example:
        >>> headline(RunResults())
        ['The distribution-preserving policy was not evaluated in this run.']
    """
    rows = Rows(results.rows)
    sentences = [_distance_sentence(results, rows), _rivals_sentence(rows), _coverage_sentence(rows)]
    sentences.append(_steering_sentence(rows))
    sentences += [_clusters_sentence(results), rules_sentence(results), _headroom_sentence(results)]
    return [sentence for sentence in sentences if sentence]


def report_sections(results: RunResults) -> list[Section]:
    """Make all sections of the report, in order; a section without data says what is missing and why.

    Example:
        >>> sections = report_sections(RunResults())
        >>> [section.key for section in sections if not section.missing]
        ['record']
    """
    return [
        Section(
            "distances",
            "How far are the answers from those of the people?",
            "Shorter bars are better. Black lines are intervals over people and questions. Grey lines need no "
            "training: uniform answers; marginal, the average answers of the trained questions; floor, the distance "
            "that the people have to themselves because they are few." + _heads_up(results),
            plots.plot_distances(results),
            [summary_text(results)],
            missing=_missing(results.rows, "the evaluation has not run"),
        ),
        Section(
            "distributions",
            "What do the people say, and what do the models say?",
            "Each bar is all the probability there is; an empty part went to text that is no answer. Ours should look "
            "like the people; a bar of one colour has collapsed. Questions in bold were never trained on."
            + _grpo_sentence(results),
            plots.plot_distributions(results),
            folded=[_questions_table(results)],
            missing=_missing(results.questions, "the evaluation has not run"),
            fold_in_markdown=False,
        ),
        Section(
            "clusters",
            "Who disagrees with whom?",
            "One line per cluster of raters, one column per question; white is the answer of all raters together.",
            plots.plot_clusters(results),
            [clusters_text(results)],
            [_selection_table(results)],
            _missing(results.clusters, "no jury was fitted"),
        ),
        Section(
            "information",
            "What does it help to know about a rater?",
            _information_text(results),
            plots.plot_information(results),
            folded=[] if results.headroom is None else [headroom_text(results.headroom)],
            missing=_missing(results.groupings, _few_raters(results) or "the groupings were not compared"),
        ),
        Section(
            "steering",
            "Does the policy follow the weights it is given?",
            "Each mark is one answer of one question: across, its share as the jury predicts it under these weights; "
            "upwards, the share the policy gives it. Marks on the line are perfect steering.",
            plots.plot_steering(results),
            folded=[_steering_table(results)],
            missing=_missing(results.steering, results.reason(SkippedPart.STEERING) or "the evaluation has not run"),
        ),
        Section(
            "rules",
            "What would each welfare rule pick, and who gains by it?",
            "A rule turns the clusters' rewards into one answer. Points right of zero: the cluster likes what this "
            "rule picks better than what the first picks; black lines are intervals over questions. The policy itself "
            "keeps all answers; this is what choosing one would mean.",
            plot_rules(results),
            [rules_table(results)],
            [picks_table(results)],
            _missing(
                results.rules,
                results.reason(SkippedPart.RULES) or "the jury has one cluster, or evaluate.rules is empty",
            ),
        ),
        Section(
            "training",
            "Did the training settle, and what did it cost?",
            "Thin: every step; thick: the average around it. Losses should flatten out. The warm-up gives the "
            "reference pi_ref that both methods start from.",
            plots.plot_training(results),
            [_budget_table(results)],
            missing=_missing(results.training, "nothing was trained"),
        ),
        Section(
            "record",
            "How was this made?",
            "Everything needed to repeat the run.",
            tables=[_record_table(results)] + ([_skipped_table(results)] if results.skipped else []),
            folded=[_config_table(results)],
        ),
    ]


def _heads_up(results: RunResults) -> str:
    """Warn where the intervals rest on too few people or questions."""
    data = results.data
    few = None if data is None else shortage(data.heldout_raters, len(data.heldout_questions))
    return "" if few is None else f" Heads-up: {few}, so the true uncertainty is larger than these intervals."


def _information_text(results: RunResults) -> str:
    text = (
        "How much better an answer is predicted once the rater's group is known, on raters and answers that were not "
        "used to find the groups. Blue: clusters of the jury; orange: demographic groups; grey: controls that should "
        "be at or below zero. The comparison favours the clusters: a rater's cluster is inferred from half of their "
        "answers (the other half is scored), while the demographic groups have seen none."
    )
    if len(results.clusters) == 1:
        text += " The jury has one cluster; two were fitted for this comparison only."
    return text


def _few_raters(results: RunResults) -> str | None:
    return None if results.data is None else shortage(results.data.n_raters)


def _missing(part: object, reason: str) -> str:
    return "" if part else f"Nothing to show: {reason}."


def _grpo_sentence(results: RunResults) -> str:
    reason = results.reason(SkippedPart.GRPO)
    return "" if reason is None else f" The comparison with stock GRPO was not run because {reason}."


def _distance_sentence(results: RunResults, rows: Rows) -> str:
    if rows.get(Method.PLURAL, Split.HELDOUT, Metric.JSD) is None:
        return "The distribution-preserving policy was not evaluated in this run."
    data = results.data
    questions = "questions" if data is None else f"the {len(data.heldout_questions)} questions"
    people = "people" if data is None else f"{data.heldout_raters} people"
    distance = rows.text(Method.PLURAL, Split.HELDOUT, Metric.JSD)
    text = (
        f"On {questions} it was never trained on, the policy's answers are {distance} nats (Jensen-Shannon, "
        f"with its interval) from those of {people} who had no part in the training"
    )
    trained = rows.value(Method.PLURAL, Split.TRAIN, Metric.JSD)
    return text + (f"; on the trained questions {format_nats(trained)}." if trained is not None else ".")


def _rivals_sentence(rows: Rows) -> str:
    """What the distance should be compared with."""
    rivals = [
        f"{METHOD_NAMES[method]} {format_nats(value)}"
        for method in (Method.GRPO, Method.UNTOUCHED, *BASELINES)
        if (value := rows.value(method, Split.HELDOUT, Metric.JSD)) is not None
    ]
    if not rivals:
        return ""
    text = f"For comparison, on the same held-out questions: {', '.join(rivals)}."
    ours, marginal = (rows.value(method, Split.HELDOUT, Metric.JSD) for method in (Method.PLURAL, Method.MARGINAL))
    if ours is not None and marginal is not None and ours >= marginal:
        text += " Ours is no better than answering every question with the average of the trained ones."
    return text


def _coverage_sentence(rows: Rows) -> str:
    shares = [
        f"{METHOD_NAMES[method]} {format_percent(value)}"
        for method in (Method.PLURAL, Method.GRPO, Method.UNTOUCHED)
        if (value := rows.value(method, Split.HELDOUT, Metric.COVERAGE)) is not None
    ]
    return f"Probability put on the offered answers, held-out questions: {', '.join(shares)}." if shares else ""


def _steering_sentence(rows: Rows) -> str:
    trained, heldout = (rows.cluster_mean(Method.PLURAL, split, Metric.JSD) for split in Split)
    if trained is None and heldout is None:
        return ""
    return (
        f"Steered to one cluster alone, it is {format_nats(trained)} nats from that cluster's own people on trained "
        f"and {format_nats(heldout)} on held-out questions (mean over clusters)."
    )


def _clusters_sentence(results: RunResults) -> str:
    clusters, groupings = results.clusters, results.groupings
    if not clusters:
        return ""
    if len(clusters) == 1:
        return "The jury has one cluster: a plain reward model says as much."
    named = ", ".join(f"“{cluster.name}” ({format_percent(cluster.prevalence)})" for cluster in clusters)
    text = f"The jury tells {len(clusters)} kinds of raters apart: {named}."
    if groupings is None or groupings.best_demographic is None or groupings.paired_difference is None:
        return text
    best, gap = groupings.best_demographic, groupings.paired_difference
    return (
        f"{text} Knowing a rater's cluster is worth {format_nats(groupings.clusters.info)} nats per answer; the best "
        f"demographic grouping, {best.grouping}, {format_nats(best.info)}; the difference is "
        f"{format_interval(gap.value, gap.low, gap.high)}."
    )


def _headroom_sentence(results: RunResults) -> str:
    return "" if results.headroom is None else f"Headroom verdict: {results.headroom.verdict}"


def _questions_table(results: RunResults) -> TextTable:
    labels = short_labels(results.questions, width=60)
    body = []
    for question in results.questions:
        speakers = {"people": question.human, "jury": question.jury}
        for method, name in METHOD_NAMES.items():
            if (probs := question.population_answers(method)) is not None:
                speakers[name] = probs
        for speaker, probs in speakers.items():
            shares = ", ".join(f"{o} {format_percent(p)}" for o, p in zip(question.options, probs, strict=True))
            body.append([labels[question.id], question.split, speaker, shares])
    return TextTable(["question", "split", "who", "answers"], body, "All answers, question by question.")


def _selection_table(results: RunResults) -> TextTable:
    selection = results.selection
    header = ["clusters", "held-out nll (nats)", "standard error", "gain (nats)"]
    if selection is None:
        return TextTable(header, [])
    body = [
        [str(row.num_clusters), format_nats(row.nll), format_nats(row.se), format_nats(row.info)]
        for row in selection.table
    ]
    return TextTable(header, body, f"How many clusters: {selection.chosen} chosen, {selection.reason}.")


def _steering_table(results: RunResults) -> TextTable:
    distances: dict[tuple[str, str], list[float]] = {}
    for entry in results.steering:
        distances.setdefault((entry.weighting, entry.split), []).append(entry.jsd_nats)
    body = [
        [*key, str(len(jsd)), format_nats(sum(jsd) / len(jsd)), format_nats(max(jsd))]
        for key, jsd in distances.items()
    ]
    caption = "Distance between what the jury predicts under these weights and what the policy says."
    return TextTable(["weighting", "split", "questions", "mean JS (nats)", "largest JS (nats)"], body, caption)


def _budget_table(results: RunResults) -> TextTable:
    body = []
    for stage, budget in results.budgets.items():
        counts = {"scored": budget.scored_sequences, "generated": budget.generated_sequences}
        sequences = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count is not None)
        body.append([METHOD_NAMES[stage], str(budget.steps), sequences, f"{budget.seconds:.0f}"])
    return TextTable(["stage", "steps", "sequences", "seconds"], body, "What each stage was given.")


def _record_table(results: RunResults) -> TextTable:
    facts: dict[str, str] = {}
    if (meta := results.meta) is not None:
        facts |= {
            "command": meta.command,
            "started": meta.started,
            "seed": str(meta.seed),
            "versions": _flat({"plural-rlhf": meta.plural_rlhf_version, **meta.versions}),
            "machine": _flat(meta.machine),
            "seconds": _flat({stage: f"{s:.0f}" for stage, s in meta.seconds.items()}),
            "peak memory": f"{meta.peak_memory_gb:.1f} GB",
        }
    if (data := results.data) is not None:
        facts |= {
            "data": _flat(data.model_dump(exclude={"train_questions", "heldout_questions"})),
            "trained questions": ", ".join(data.train_questions),
            "held-out questions": ", ".join(data.heldout_questions),
        }
    return TextTable(["", ""], [[name, text] for name, text in facts.items() if text])


def _skipped_table(results: RunResults) -> TextTable:
    body = [[skipped.what, skipped.reason] for skipped in results.skipped]
    return TextTable(["left out", "because"], body, "What was not measured.")


def _config_table(results: RunResults) -> TextTable:
    body = [[key, json.dumps(value, ensure_ascii=False)] for key, value in _leaves(results.config)]
    return TextTable(["setting", "value"], body, "All settings of the run.")


def _leaves(values: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for key, value in values.items():
        leaves += _leaves(value, f"{above}{key}.") if isinstance(value, Mapping) else [(f"{above}{key}", value)]
    return leaves


def _flat(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items() if value is not None)
