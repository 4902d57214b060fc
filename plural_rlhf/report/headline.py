"""The findings of a run in sentences, the most important first, for readers who do not know the method.

The first sentence is about people and percentage points; the second names the best answer that needs no such training,
even where it beats ours. Reads `RunResults`; knows nothing of plots, Markdown or HTML.
"""

from __future__ import annotations

import numpy as np

from plural_rlhf.report.names import BASELINES, METHOD_NAMES, Method, Metric, Split
from plural_rlhf.report.points import elsewhere_sentence, forms_sentence, points_by_question
from plural_rlhf.report.results import RunResults
from plural_rlhf.report.rules import rules_sentence
from plural_rlhf.report.tables import (
    Rows,
    distance_metric,
    format_interval,
    format_nats,
    format_percent,
    format_points,
    short_labels,
)
from plural_rlhf.report.texts.findings import text_findings


__all__ = ["headline"]

RIVALS = (Method.GRPO, Method.UNTOUCHED, *(method for method in BASELINES if method != Method.FLOOR))
"""What the policy is compared with: answers that need no training of ours."""
NAMED_QUESTIONS = 3


def headline(results: RunResults) -> list[str]:
    """Put the findings of a run into sentences, the most important first; say so where something was not measured.

    Example:
        >>> headline(RunResults())
        ['The distribution-preserving policy was not evaluated in this run.']
    """
    rows = Rows(results.rows)
    if results.scope == "labels":
        sentences = [_people_sentence(results)]
    elif results.texts:
        sentences = text_findings(results.texts, objectives=has_objectives(results))
    else:
        sentences = [_points_sentence(results, rows), _best_rival_sentence(results, rows)]
        sentences += [_distance_sentence(results, rows), _rivals_sentence(rows), _coverage_sentence(rows)]
        sentences += [_steering_sentence(rows), forms_sentence(results), elsewhere_sentence(results)]
    sentences += [_clusters_sentence(results), rules_sentence(results), _headroom_sentence(results)]
    return [sentence for sentence in sentences if sentence]


def has_objectives(results: RunResults) -> bool:
    """Whether reward models and functions scored in place of a jury of raters.

    Example:
        >>> has_objectives(RunResults(config={"jury": {"objectives": {"brief": {"function": "lengths:brief"}}}}))
        True
    """
    return bool(results.config.get("jury", {}).get("objectives"))


def _people_sentence(results: RunResults) -> str:
    data, clusters = results.data, results.clusters
    if data is None or not clusters:
        return ""
    groups = "one cluster: everybody" if len(clusters) == 1 else f"{len(clusters)} clusters by how they answered"
    alike = "" if data.effective_raters is None else f" (weighted; as precise as {data.effective_raters:,.0f})"
    return (
        f"{data.n_raters:,} people{alike}, {data.n_judgements:,} answers, {data.n_items:,} items: the people "
        f"fall into {groups}. No language model was used."
    )


def _measured_split(results: RunResults) -> Split:
    """The split that the headline is about: held-out questions, trained ones where none was held out."""
    data = results.data
    return Split.TRAIN if data is not None and not data.heldout_questions else Split.HELDOUT


def _points_sentence(results: RunResults, rows: Rows) -> str:
    """How far off the policy is, question by question, in percentage points."""
    split = _measured_split(results)
    points = points_by_question(results, split)
    if not points:
        return ""
    short = short_labels(results.questions, width=60)
    labels = {q.id: short[q.id] if q.label in ("", q.id) else q.label for q in results.questions}
    named = list(points)
    if len(named) > NAMED_QUESTIONS:
        named = [*named[: NAMED_QUESTIONS - 1], named[-1]]
    listed = ", ".join(
        f"{format_points(points[q])}{' points off' if q == named[0] else ''} on {labels[q]}" for q in named
    )
    average = format_points(float(np.mean(list(points.values()))))
    interval = rows.interval(Method.PLURAL, split, Metric.POINTS)
    span = "" if interval is None else f" (between {format_points(interval[0])} and {format_points(interval[1])})"
    floor = rows.value(Method.FLOOR, split, Metric.POINTS)
    chance = "" if floor is None else f"; {format_points(floor)} would be chance, because the people are few"
    asked = f"{len(points)} question{'' if len(points) == 1 else 's'}"
    new = f"the {asked} it was never trained on" if split == Split.HELDOUT else f"the {asked} it was trained on"
    only = "" if split == Split.HELDOUT else " No question was held out, so nothing is known of new questions."
    spread = " (largest and smallest)" if len(points) > NAMED_QUESTIONS else ""
    return (
        f"On {new}, the model is {listed}{spread}; on average {average}{span}: of 100 people, so many would have to "
        f"answer otherwise for people and model to agree{chance}.{only}"
    )


def _best_rival_sentence(results: RunResults, rows: Rows) -> str:
    """Name the best answer that needs no training of ours, even where it beats ours."""
    split, metric = _measured_split(results), distance_metric(rows)
    ours = rows.value(Method.PLURAL, split, metric)
    known = {m: value for m in RIVALS if (value := rows.value(m, split, metric)) is not None}
    if ours is None or not known:
        return ""
    best = min(known, key=lambda method: known[method])
    show = format_points if metric == Metric.POINTS else format_nats
    unit = "points off" if metric == Metric.POINTS else "nats from the people"
    if show(known[best]) == show(ours):
        verdict = "as near to the people as ours"
    else:
        verdict = "closer to the people than ours" if known[best] < ours else "farther from the people than ours"
    return (
        f"The best of the other answers is “{METHOD_NAMES[best]}”: {show(known[best])} {unit} on average, {verdict} "
        f"({show(ours)})."
    )


def _distance_sentence(results: RunResults, rows: Rows) -> str:
    if rows.get(Method.PLURAL, Split.HELDOUT, Metric.JSD) is None:
        return "The distribution-preserving policy was not evaluated in this run."
    data = results.data
    heldout = 0 if data is None else len(data.heldout_questions)
    questions = "questions" if data is None else f"the {heldout} question{'' if heldout == 1 else 's'}"
    people = "people" if data is None else f"{data.heldout_raters} people"
    distance = rows.text(Method.PLURAL, Split.HELDOUT, Metric.JSD)
    text = (
        f"On {questions} it was never trained on, the policy's answers are {distance} nats (Jensen-Shannon, "
        f"with its interval) from those of {people} who had no part in the training"
    )
    debiased = rows.get(Method.PLURAL, Split.HELDOUT, Metric.JSD_DEBIASED)
    if debiased is not None:
        everybody = format_interval(debiased.value, debiased.ci_low, debiased.ci_high)
        text += f", {everybody} if everybody had been asked"
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
        return "" if results.scope == "labels" else "The jury has one cluster: a plain reward model says as much."
    named = ", ".join(f"“{cluster.name}” ({format_percent(cluster.prevalence)})" for cluster in clusters)
    if has_objectives(results):
        return f"There are no raters: {len(clusters)} objectives with weights score the texts: {named}."
    alone = results.scope == "labels"
    text = f"The clusters: {named}." if alone else f"The jury tells {len(clusters)} clusters of raters apart: {named}."
    if groupings is None or groupings.best_demographic is None or groupings.paired_difference is None:
        return text
    best, gap = groupings.best_demographic, groupings.paired_difference
    return (
        f"{text} Knowing a rater's cluster is worth {format_nats(groupings.clusters.info)} nats per answer; the best "
        f"demographic grouping, {best.grouping}, {format_nats(best.info)}; the difference is "
        f"{format_interval(gap.value, gap.low, gap.high)}."
    )


def _headroom_sentence(results: RunResults) -> str:
    ladders = {"": results.headroom, " on texts that nobody judged": results.headroom_new_texts}
    return ". ".join(f"Headroom verdict{where}: {found.verdict}" for where, found in ladders.items() if found)
