"""What a report says, in order: one section per question a reader may have.

Reads `RunResults` and uses the tables and the plots; knows nothing of Markdown, HTML or files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from plural_rlhf.report import plots
from plural_rlhf.report.names import METHOD_NAMES, Method, SkippedPart
from plural_rlhf.report.points import elsewhere_table, forms_table, margins, plot_forms, points_of, points_table
from plural_rlhf.report.results import RunResults
from plural_rlhf.report.results_policies import Budget
from plural_rlhf.report.rules import picks_table, plot_rules, rules_table
from plural_rlhf.report.survey import (
    NO_KINDS_OF_PEOPLE,
    by_table,
    dependence_table,
    missing_table,
    plot_traits,
    reliability_table,
    shares_sentence,
    sizes_table,
    traits_table,
)
from plural_rlhf.report.tables import (
    TextTable,
    clusters_text,
    format_nats,
    format_percent,
    format_points,
    headroom_text,
    summary_text,
)
from reward_models.stats.verdicts import MIN_ITEMS, shortage


__all__ = ["Section", "report_sections", "sections_beside_texts"]


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


def report_sections(results: RunResults) -> list[Section]:
    """Make all sections of the report, in order; a section without data says what is missing and why.

    Example:
        >>> sections = report_sections(RunResults())
        >>> [section.key for section in sections if not section.missing]
        ['record']
    """
    if results.scope == "labels":
        return [
            _distributions(results),
            _clusters(results),
            *_survey(results),
            _information(results),
            _record(results),
        ]
    return [
        Section(
            "distances",
            "How far are the answers from those of the people?",
            "Shorter bars are better. Thin lines are intervals over people and questions. Grey lines need no "
            "training: uniform answers; marginal, the average answers of the trained questions; floor, the distance "
            "that the people have to themselves because they are few." + _heads_up(results),
            plots.plot_distances(results),
            [summary_text(results), points_table(results)],
            missing=_missing(results.rows, "the evaluation has not run"),
        ),
        _distributions(results),
        *_forms(results),
        *_elsewhere(results),
        _clusters(results),
        *_survey(results),
        _information(results),
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
            "keeps all answers; this is what choosing one would mean." + _few_questions(_questions_of_rules(results)),
            plot_rules(results),
            [rules_table(results)],
            [picks_table(results)],
            _missing(
                results.rules,
                results.reason(SkippedPart.RULES) or "the jury has one cluster, or evaluate.rules is empty",
            ),
        ),
        _training(results),
        _record(results),
    ]


def sections_beside_texts(results: RunResults) -> list[Section]:
    """Make the sections of a run whose policies write that are not about texts: raters, trainings and the record.

    Example:
        >>> [section.key for section in sections_beside_texts(RunResults())]
        ['record']
    """
    sections = [_clusters(results), *_survey(results), _training(results), _record(results)]
    return [section for section in sections if not section.missing]


def _training(results: RunResults) -> Section:
    return Section(
        "training",
        "Did the training settle, and what did it cost?",
        "Thin: every step; thick: the average around it. Losses should flatten out. The warm-up gives the "
        "reference pi_ref that both methods start from.",
        plots.plot_training(results),
        [_budget_table(results)],
        missing=_missing(results.training, "nothing was trained"),
    )


def _distributions(results: RunResults) -> Section:
    whiskers = " Thin lines on the bar of people: 95 % margins of error, at each end of an answer's part."
    if results.scope == "labels":
        return Section(
            "distributions",
            "What do the people say?",
            f"One bar per question: the shares of its answers among all who answered it.{whiskers}",
            plots.plot_distributions(results),
            folded=[_questions_table(results)],
            missing=_missing(
                results.questions, "answers are shown for questions and ratings, of which there are none"
            ),
            fold_in_markdown=False,
        )
    return Section(
        "distributions",
        "What do the people say, and what do the models say?",
        "Each bar is all the probability there is; an empty part went to text that is no answer. Ours should look "
        "like the people; a bar of one colour has collapsed. Questions in bold were never trained on."
        + whiskers
        + _grpo_sentence(results),
        plots.plot_distributions(results),
        folded=[_questions_table(results)],
        missing=_missing(results.questions, "the evaluation has not run"),
        fold_in_markdown=False,
    )


def _forms(results: RunResults) -> list[Section]:
    """The section on how questions are put; none for a run of an earlier version, which did not ask."""
    if not results.forms:
        return []
    return [
        Section(
            "forms",
            "Does it matter how a question is put?",
            "The same questions, for everybody, with their answers shown in other ways. Forms in bold are those of "
            "the training. A policy that is near to people in these alone has learnt a form, not people's answers.",
            plot_forms(results),
            folded=[forms_table(results)],
        )
    ]


def _elsewhere(results: RunResults) -> list[Section]:
    """The section on what has changed elsewhere; none for a run of an earlier version, which did not ask."""
    if not results.elsewhere:
        return []
    return [
        Section(
            "elsewhere",
            "What has the training changed elsewhere?",
            "How far each policy is from the language model on conversations that it makes up by itself. A policy "
            "that has moved here may answer any question as it has learnt to answer these.",
            tables=[elsewhere_table(results)],
        )
    ]


def _clusters(results: RunResults) -> Section:
    return Section(
        "clusters",
        "Who disagrees with whom?",
        "One line per cluster of raters, one column per question; white is the answer of all raters together. "
        + shares_sentence(results),
        plots.plot_clusters(results),
        [clusters_text(results)],
        [_selection_table(results)],
        _missing(results.clusters, "no jury was fitted"),
    )


def _survey(results: RunResults) -> list[Section]:
    """The sections on who the clusters are; none for a run of an earlier version, which did not ask."""
    if results.survey is None:
        return []
    survey = results.survey
    one = "the jury has one cluster" if len(results.clusters) == 1 else ""
    return [
        Section(
            "traits",
            "Who are the clusters?",
            NO_KINDS_OF_PEOPLE,
            plot_traits(results),
            [by_table(results), traits_table(results)],
            missing=_missing(
                (survey.traits or survey.by) and not one, one or "the data has no traits (columns rater:<trait>)"
            ),
        ),
        Section(
            "fit",
            "How well are the clusters told apart, and what do they leave unexplained?",
            "Indices that a latent class analysis is published with.",
            tables=[sizes_table(results), dependence_table(results)],
        ),
        Section(
            "reliability",
            "Can the answers be relied on?",
            "Agreement, repetition, and raters who may have answered without reading. Nobody was left out for it.",
            tables=[reliability_table(results), *([missing_table(results)] if survey.missing else [])],
            missing=_missing(survey.reliability, "it was not measured"),
        ),
    ]


def _information(results: RunResults) -> Section:
    return Section(
        "information",
        "What does it help to know about a rater?",
        _information_text(results),
        plots.plot_information(results),
        folded=[
            headroom_text(ladder, new_texts=ladder is results.headroom_new_texts)
            for ladder in (results.headroom, results.headroom_new_texts)
            if ladder is not None
        ],
        missing=_missing(results.groupings, _few_raters(results) or "the groupings were not compared"),
    )


def _record(results: RunResults) -> Section:
    return Section(
        "record",
        "How was this made?",
        "Everything needed to repeat the run.",
        tables=[_record_table(results)] + ([_skipped_table(results)] if results.skipped else []),
        folded=[_config_table(results)],
    )


def _heads_up(results: RunResults) -> str:
    """Warn where the intervals rest on too few people or questions."""
    data = results.data
    if data is None:
        return ""
    if (few := shortage(data.heldout_raters)) is not None:
        return f" Heads-up: {few}, so the true uncertainty is larger than these intervals."
    return _few_questions({"held-out": len(data.heldout_questions), "trained": len(data.train_questions)})


def _few_questions(counts: Mapping[str, int]) -> str:
    """Warn of intervals over fewer than five questions, by the kind of question; none at all need no warning."""
    few = [f"{n} {kind} question{'' if n == 1 else 's'}" for kind, n in counts.items() if 0 < n < MIN_ITEMS]
    if not few:
        return ""
    return (
        f" Heads-up: intervals rest on {' and '.join(few)}; with fewer than {MIN_ITEMS} they are too narrow, so that "
        "the true uncertainty is larger."
    )


def _questions_of_rules(results: RunResults) -> dict[str, int]:
    """Number of questions behind the intervals of the rules."""
    counts = [change.n for effect in results.rules for change in effect.clusters.values()]
    return {"judged": counts[0]} if counts else {}


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


def _questions_table(results: RunResults) -> TextTable:
    body = []
    for question in results.questions:
        low, high = margins(question, np.array(question.human))
        people = [
            f"{option} {format_percent(p)} [{format_points(below)}, {format_points(above)}]"
            for option, p, below, above in zip(question.options, question.human, low, high, strict=True)
        ]
        body.append([question.prompt, question.split, f"people ({question.n})", ", ".join(people), ""])
        speakers = {"jury": question.jury} if question.jury and results.scope != "labels" else {}
        for method, name in METHOD_NAMES.items():
            if (probs := question.population_answers(method)) is not None:
                speakers[name] = probs
        off = {name: points_of(question, method) for method, name in {**METHOD_NAMES, Method.JURY: "jury"}.items()}
        for speaker, probs in speakers.items():
            shares = ", ".join(f"{o} {format_percent(p)}" for o, p in zip(question.options, probs, strict=True))
            body.append([question.prompt, question.split, speaker, shares, format_points(off[speaker])])
    caption = "All answers, question by question; in brackets the 95 % margins of error of people, in points of 100."
    return TextTable(["question", "split", "who", "answers", "points off"], body, caption)


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
        body.append([METHOD_NAMES[stage], f"{budget.steps}{_kept(budget)}", sequences, f"{budget.seconds:.0f}"])
    return TextTable(["stage", "steps", "sequences", "seconds"], body, "What each stage was given.")


def _kept(budget: Budget) -> str:
    """How much of a training was kept, and what it was chosen by."""
    if budget.kept_share is None:
        return ""
    told = ", ".join(
        f"{format_nats(kl)} for {format_percent(float(share))}" for share, kl in (budget.kept_of or {}).items()
    )
    by = f" (KL to the target, by a few texts: {told})" if told else ""
    return f", {format_percent(budget.kept_share)} of the change kept{by}"


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
