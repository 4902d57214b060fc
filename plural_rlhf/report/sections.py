"""What a report says, in order: the headline in words, then one section per question a reader may have.

Knows the results of a run, the tables and the plots; knows nothing of Markdown, HTML or files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure

from plural_rlhf.report import plots
from plural_rlhf.report.rules import picks_table, plot_rules, rules_sentence, rules_table
from plural_rlhf.report.tables import (
    STAGE_NAMES,
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


__all__ = ["Section", "headline", "report_sections"]

Results = Mapping[str, Any]


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
        missing: Why there is nothing to show; empty if there is.
    """

    key: str
    title: str
    reading: str
    figure: Figure | None = None
    tables: list[TextTable] = field(default_factory=list)
    folded: list[TextTable] = field(default_factory=list)
    missing: str = ""


def headline(results: Results) -> list[str]:
    """The findings of a run in sentences, the most important first. Says so where something was not measured."""
    rows = Rows(results)
    sentences = [_distance_sentence(results, rows), _rivals_sentence(rows), _coverage_sentence(rows)]
    sentences.append(_steering_sentence(rows))
    sentences += [_clusters_sentence(results), rules_sentence(results), _headroom_sentence(results)]
    return [sentence for sentence in sentences if sentence]


def report_sections(results: Results) -> list[Section]:
    """All sections of the report, in order; a section without data says what is missing and why."""
    reasons = {entry["what"]: entry["reason"] for entry in results.get("skipped", [])}
    return [
        Section(
            "distances",
            "How far are the answers from those of the people?",
            "Shorter bars are better. Black lines are intervals over people and questions. Grey lines need no "
            "training: uniform answers; marginal, the average answers of the trained questions; floor, the distance "
            "that the people have to themselves because they are few.",
            plots.plot_distances(results),
            [summary_text(results)],
            missing=_missing(results, "rows", "the evaluation has not run"),
        ),
        Section(
            "distributions",
            "What do the people say, and what do the models say?",
            "Each bar is all the probability there is; an empty part went to text that is no answer. Ours should look "
            "like the people; a bar of one colour has collapsed. Questions in bold were never trained on."
            + (f" GRPO is absent: {reasons['grpo']}." if "grpo" in reasons else ""),
            plots.plot_distributions(results),
            folded=[_questions_table(results)],
            missing=_missing(results, "questions", "the evaluation has not run"),
        ),
        Section(
            "clusters",
            "Who disagrees with whom?",
            "One line per cluster of raters, one column per question; white is the answer of all raters together.",
            plots.plot_clusters(results),
            [clusters_text(results)],
            [_selection_table(results)],
            _missing(results, "clusters", "no jury was fitted"),
        ),
        Section(
            "information",
            "What does it help to know about a rater?",
            "How much better an answer is predicted once the rater's group is known, on raters and answers that were "
            "not used to find the groups. Blue: clusters of the jury; orange: demographic groups; grey: controls that "
            "should be at or below zero.",
            plots.plot_information(results),
            folded=[headroom_text(results["headroom"])] if "headroom" in results else [],
            missing=_missing(results, "groupings", "the groupings were not compared"),
        ),
        Section(
            "steering",
            "Does the policy follow the weights it is given?",
            "Each mark is one answer of one question: across, its share as the jury predicts it under these weights; "
            "upwards, the share the policy gives it. Marks on the line are perfect steering.",
            plots.plot_steering(results),
            folded=[_steering_table(results)],
            missing=_missing(results, "steering", reasons.get("steering", "steering was not evaluated")),
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
            _missing(results, "rules", "there is one cluster, or evaluate.rules is empty"),
        ),
        Section(
            "training",
            "Did the training settle, and what did it cost?",
            "Thin: every step; thick: the average around it. Losses should flatten out. The warm-up gives the "
            "reference pi_ref that both methods start from.",
            plots.plot_training(results),
            [_budget_table(results)],
            missing=_missing(results, "training", "nothing was trained"),
        ),
        Section(
            "record",
            "How was this made?",
            "Everything needed to repeat the run.",
            tables=[_record_table(results)] + ([_skipped_table(results)] if results.get("skipped") else []),
            folded=[_config_table(results)],
        ),
    ]


def _missing(results: Results, key: str, reason: str) -> str:
    return "" if results.get(key) else f"Nothing to show: {reason}."


def _distance_sentence(results: Results, rows: Rows) -> str:
    ours = rows.get("plural", "heldout", "jsd_nats")
    if ours is None:
        return "The distribution-preserving policy was not evaluated in this run."
    people = results.get("data", {}).get("heldout_raters")
    questions = results.get("data", {}).get("heldout_questions", [])
    which = f"the {len(questions)} questions" if questions else "questions"
    whom = f"{people} people" if people else "people"
    text = (
        f"On {which} it was never trained on, the policy's answers are {format_interval(ours)} nats (Jensen-Shannon, "
        f"with its interval) from those of {whom} who had no part in the training"
    )
    trained = rows.value("plural", "train", "jsd_nats")
    return text + (f"; on the trained questions {format_nats(trained)}." if trained is not None else ".")


def _rivals_sentence(rows: Rows) -> str:
    """What the distance should be compared with."""
    rivals = [
        f"{STAGE_NAMES[stage]} {format_nats(value)}"
        for stage in ("grpo", "untouched", "uniform", "marginal", "floor")
        if (value := rows.value(stage, "heldout", "jsd_nats")) is not None
    ]
    if not rivals:
        return ""
    text = f"For comparison, on the same held-out questions: {', '.join(rivals)}."
    ours, marginal = (rows.value(stage, "heldout", "jsd_nats") for stage in ("plural", "marginal"))
    if ours is not None and marginal is not None and ours >= marginal:
        text += " Ours is no better than answering every question with the average of the trained ones."
    return text


def _coverage_sentence(rows: Rows) -> str:
    shares = [
        f"{STAGE_NAMES[stage]} {format_percent(value)}"
        for stage in ("plural", "grpo", "untouched")
        if (value := rows.value(stage, "heldout", "coverage")) is not None
    ]
    return f"Probability put on the offered answers, held-out questions: {', '.join(shares)}." if shares else ""


def _steering_sentence(rows: Rows) -> str:
    trained, heldout = (rows.cluster_mean("plural", split, "jsd_nats") for split in ("train", "heldout"))
    if trained is None and heldout is None:
        return ""
    return (
        f"Steered to one cluster alone, it is {format_nats(trained)} nats from that cluster's own people on trained "
        f"and {format_nats(heldout)} on held-out questions (mean over clusters)."
    )


def _clusters_sentence(results: Results) -> str:
    clusters = results.get("clusters", [])
    if not clusters:
        return ""
    if len(clusters) == 1:
        return "The jury found one kind of rater: a plain reward model says as much."
    named = ", ".join(f"“{c['name']}” ({format_percent(c['prevalence'])})" for c in clusters)
    text = f"The jury tells {len(clusters)} kinds of raters apart: {named}."
    groupings = results.get("groupings")
    if groupings and groupings["best_demographic"] is not None:
        best, gap = groupings["best_demographic"], groupings["paired_difference"]
        interval = format_interval({"value": gap["value"], "ci_low": gap["low"], "ci_high": gap["high"]})
        worth = format_nats(groupings["clusters"]["info"])
        text += (
            f" Knowing a rater's cluster is worth {worth} nats per answer; the best demographic grouping, "
            f"{best['grouping'].removeprefix('rater:')}, {format_nats(best['info'])}; the difference is {interval}."
        )
    return text


def _headroom_sentence(results: Results) -> str:
    return f"Headroom verdict: {results['headroom']['verdict']}" if "headroom" in results else ""


def _questions_table(results: Results) -> TextTable:
    questions = results.get("questions", [])
    labels = short_labels(questions, width=60)
    body = []
    for question in questions:
        speakers = {"people": question["human"], "jury": question["jury"]}
        for stage, name in STAGE_NAMES.items():
            if "all" in question["policy"].get(stage, {}):
                speakers[name] = question["policy"][stage]["all"]["probs"]
        for speaker, probs in speakers.items():
            shares = ", ".join(f"{o} {format_percent(p)}" for o, p in zip(question["options"], probs, strict=True))
            body.append([labels[question["id"]], question["split"], speaker, shares])
    return TextTable(["question", "split", "who", "answers"], body, "All answers, question by question.")


def _selection_table(results: Results) -> TextTable:
    selection = results.get("selection", {"table": [], "chosen": None, "reason": "not recorded"})
    body = [
        [str(r["num_clusters"]), format_nats(r["nll"]), format_nats(r["se"]), format_nats(r["info"])]
        for r in selection["table"]
    ]
    caption = f"How many clusters: {selection['chosen']} chosen, {selection['reason']}."
    return TextTable(["clusters", "held-out nll (nats)", "standard error", "gain (nats)"], body, caption)


def _steering_table(results: Results) -> TextTable:
    sums: dict[tuple[str, str], list[float]] = {}
    for entry in results.get("steering", []):
        sums.setdefault((entry["weighting"], entry["split"]), []).append(entry["jsd_nats"])
    body = [[*key, str(len(v)), format_nats(sum(v) / len(v)), format_nats(max(v))] for key, v in sums.items()]
    caption = "Distance between what the jury predicts under these weights and what the policy says."
    return TextTable(["weighting", "split", "questions", "mean JS (nats)", "largest JS (nats)"], body, caption)


def _budget_table(results: Results) -> TextTable:
    body = []
    for stage, spent in results.get("budgets", {}).items():
        kinds = [
            f"{spent[key]} {key.split('_')[0]}" for key in ("scored_sequences", "generated_sequences") if key in spent
        ]
        body.append([STAGE_NAMES[stage], str(spent["steps"]), ", ".join(kinds), f"{spent['seconds']:.0f}"])
    return TextTable(["stage", "steps", "sequences", "seconds"], body, "What each stage was given.")


def _record_table(results: Results) -> TextTable:
    meta, data = results.get("meta", {}), results.get("data", {})
    facts = {
        "command": meta.get("command"),
        "started": meta.get("started"),
        "seed": meta.get("seed"),
        "versions": _flat({"plural-rlhf": meta.get("plural_rlhf_version"), **meta.get("versions", {})}),
        "machine": _flat(meta.get("machine", {})),
        "seconds": _flat({stage: f"{s:.0f}" for stage, s in meta.get("seconds", {}).items()}),
        "peak memory": f"{meta['peak_memory_gb']:.1f} GB" if "peak_memory_gb" in meta else None,
        "data": _flat({k: v for k, v in data.items() if not isinstance(v, list)}),
        "trained questions": ", ".join(data.get("train_questions", [])),
        "held-out questions": ", ".join(data.get("heldout_questions", [])),
    }
    return TextTable(["", ""], [[k, str(v)] for k, v in facts.items() if v not in (None, "")])


def _skipped_table(results: Results) -> TextTable:
    body = [[entry["what"], entry["reason"]] for entry in results["skipped"]]
    return TextTable(["left out", "because"], body, "What was not measured.")


def _config_table(results: Results) -> TextTable:
    body = [[key, json.dumps(value, ensure_ascii=False)] for key, value in _leaves(results.get("config", {}))]
    return TextTable(["setting", "value"], body, "All settings of the run.")


def _leaves(values: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for key, value in values.items():
        leaves += _leaves(value, f"{above}{key}.") if isinstance(value, Mapping) else [(f"{above}{key}", value)]
    return leaves


def _flat(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items() if value is not None)
