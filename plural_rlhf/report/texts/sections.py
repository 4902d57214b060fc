"""What a report says of policies that write text: one section per question a reader may have.

Reads `TextResults`; knows nothing of Markdown, HTML or files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from plural_rlhf.report.names import EVERYBODY
from plural_rlhf.report.results_policies import CheckpointResult, TextResults, TextRow, WrittenText
from plural_rlhf.report.sections import Section
from plural_rlhf.report.tables import DASH, TextTable, format_nats, format_percent
from plural_rlhf.report.texts.figures import (
    not_mapped,
    plot_approvals,
    plot_covered,
    plot_gain_against_kl,
    plot_map,
)
from plural_rlhf.report.texts.tables import (
    policy_name,
    population_results,
    shifts_text,
    steering_text,
)
from plural_rlhf.report.texts.writers import PEOPLE, clusters, judge, trained, writers


__all__ = ["text_sections"]

LISTED = 4000
"""Most texts in the table of texts."""
FIDELITY = {
    "mmd_to_people": "distance",
    "auc_to_people": "told apart",
    "human_classes_covered": "answers covered",
    "effective_classes": "classes in effect",
    "largest_classes": "in the three largest",
    "kl_to_target": "nats to target",
}
DRIFT = {
    "words": "words",
    "several_lines": "several lines",
    "markdown": "Markdown",
    "empty": "empty",
    "repetitive": "repetitive",
    "truncated": "truncated",
    "perplexity": "perplexity",
    "self_bleu": "self-BLEU",
    "distinct_2": "distinct-2",
}


WAY = " Lines lead along each training, by the training jury (solid) and the held-out jury (dashed), from few texts."
LEAKS = (
    " The second table has what asking changes: each row is a request, each column says how much more or less a "
    "cluster approves than when the same policy is asked for the population. What is not in the column that was "
    "asked for has leaked."
)
HELDOUT = " The held-out jury knows other people and took no part in training: believe it where the two differ."


def text_sections(everything: Sequence[TextResults], along: Sequence[CheckpointResult] = ()) -> list[Section]:
    """Make the sections about policies that write text.

    Args:
        everything: Results by split and weighting. Most sections are about those of the population.
        along: What was measured along the trainings.

    Example:
        >>> sections = text_sections([TextResults(split="heldout", weighting="all")])
        >>> [section.key for section in sections]
        ['text_approvals', 'text_people', 'text_map', 'text_gain', 'text_drift', 'text_steering', 'text_samples']
        >>> all(section.missing for section in sections)
        True
    """
    results = population_results(everything)
    if results is None:
        return []
    nothing = "" if results.rows else "No texts were measured."
    plane = plot_map(results)
    several = len({of.weighting for of in everything}) > 1
    shifts = shifts_text(everything)
    way = [one for one in along if one.split == results.split]
    return [
        Section(
            "text_approvals",
            "Whom do the texts please?",
            f"Marks further right are better; lines are 95 % intervals over prompts. An approval is "
            f"{_approval_of(results)}.{HELDOUT if judge(results) == 'heldout' else ''}",
            plot_approvals(results),
            [_approval_table(results)],
            [_wins_table(results)],
            missing=nothing,
        ),
        Section(
            "text_people",
            "Do the texts sound like the people?",
            "People against people is the best that can be reached; people's texts to another question are the worst. "
            "A policy that writes one answer well covers little of what people say, however many texts it writes.",
            plot_covered(results),
            [_measure_table(results, FIDELITY, "Distance is 0 for texts by the same people; told apart is .5.")],
            missing=nothing,
        ),
        Section(
            "text_map",
            "Where among people's answers does each policy write?",
            "Each panel is one prompt and one policy, in the plane in which people's texts differ the most. Clouds "
            f"should cover the grey ones. {not_mapped(results)}".strip(),
            plane,
            missing=nothing or ("" if plane else "The texts have no vectors, or people wrote none."),
        ),
        Section(
            "text_gain",
            "Was the jury over-optimised?",
            "The further apart the two marks of a policy, the more of the gain only the training jury sees. The last "
            "column says what the held-out jury sees of differences between people's own texts, not optimised."
            + (WAY if way else ""),
            plot_gain_against_kl(results, way),
            [_gain_table(results)],
            [_way_table(way)] if way else [],
            missing=nothing,
        ),
        Section(
            "text_drift",
            "Did length or form drift?",
            "Compare with people and with the policy before training. Texts that are empty, repetitive or truncated "
            "are no answers.",
            None,
            [_measure_table(results, DRIFT, "Means over prompts, with 95 % intervals.")],
            missing=nothing,
        ),
        Section(
            "text_steering",
            "Does the policy follow the weights it is given?",
            "Asked for one cluster, the policy should please it more than pi_0 does when asked for the same, and "
            "the others not much less." + (LEAKS if shifts.rows else ""),
            None,
            [steering_text(everything), *([shifts] if shifts.rows else [])],
            missing=nothing or ("" if several else "The policies were asked for one weighting only."),
        ),
        Section(
            "text_samples",
            "What do the texts say?",
            "Type into the field to see the texts with these words only: a policy, a weighting, a prompt, a word.",
            None,
            [],
            [_samples_table(everything, judge(results))],
            missing=nothing,
            fold_in_markdown=False,
        ),
    ]


def _approval_of(results: TextResults) -> str:
    juries = results.settings.get("approval_of")
    what = juries.get("training", "votes") if isinstance(juries, Mapping) else "votes"
    return "agreement, as people vote" if what == "votes" else str(what)


def _approval_table(results: TextResults) -> TextTable:
    jury = judge(results)
    judged = [(one, cluster) for one in ("training", "heldout") for cluster in clusters(results, one)]
    shares = [("answer_share", cluster) for cluster in clusters(results, jury)] + [("share_for_no_cluster", "")]
    rows = [
        [
            policy_name(writer),
            *(_cell(results.row(writer, "approval", jury=one, cluster=cluster)) for one, cluster in judged),
            _cell(results.row(writer, "bridging", jury=jury)),
            " / ".join(
                _cell(row, interval=False)
                for measure, cluster in shares
                if (row := results.row(writer, measure, jury=jury, cluster=cluster)) is not None
            ),
        ]
        for writer in writers(results)
    ]
    weights = " / ".join(f"{name} {format_percent(weight)}" for name, weight in clusters(results, jury).items())
    names = [f"{cluster} ({one})" for one, cluster in judged]
    fitted = any(row.measure == "share_for_no_cluster" for row in results.rows)
    last = "; last the texts for no cluster in particular, as before training" if fitted else ""
    return TextTable(
        ["policy", *names, "all clusters approve", "shares of the texts"],
        rows,
        f"Approval, and each cluster's share of the texts by the {jury} jury, whose clusters are {weights} of people"
        f"{last}.",
    )


def _wins_table(results: TextResults) -> TextTable:
    rows = [
        [policy_name(row.policy), policy_name(row.rival), row.cluster, _cell(row), _cell(ties, interval=False)]
        for row in results.rows
        if row.measure == "win_rate" and row.jury == judge(results) and row.policy != PEOPLE
        for ties in [results.row(row.policy, "ties", jury=row.jury, cluster=row.cluster, rival=row.rival)]
    ]
    caption = f"Wins by the {judge(results)} jury; ties count half."
    return TextTable(["policy", "against", "cluster", "wins", "ties"], rows, caption)


def _measure_table(results: TextResults, measures: Mapping[str, str], caption: str) -> TextTable:
    """Tabulate measures by writer, with floor and baseline below; reasons of what is missing are in the caption."""
    known = {row.measure for row in results.rows if row.value is not None}
    shown = {measure: name for measure, name in measures.items() if measure in known}
    rows = [
        [policy_name(writer), *(_cell(results.row(writer, measure)) for measure in shown)]
        for writer in writers(results)
    ]
    for label, which in (("people against people", "floor"), ("another question", "baseline")):
        cells = [_beside(results, measure, which) for measure in shown]
        if any(cell != DASH for cell in cells):
            rows.append([label, *cells])
    reasons = {row.reason for row in results.rows if row.measure in measures and row.policy != PEOPLE}
    notes = [f"Missing: {reason}." for reason in sorted(reason for reason in reasons if reason)]
    return TextTable(["policy", *shown.values()], rows, " ".join([caption, *notes]))


def _beside(results: TextResults, measure: str, which: str) -> str:
    """Return the floor or the baseline of a measure, averaged over policies."""
    rows = [row for row in results.rows if row.measure == measure and getattr(row, which) is not None]
    if not rows:
        return DASH
    return _number(sum(getattr(row, which) for row in rows) / len(rows), rows[0])


def _gain_table(results: TextResults) -> TextTable:
    rows = []
    for policy in trained(results):
        kept = results.row(policy, "heldout_share_of_gain")
        why = DASH if kept is None else kept.reason or (_cell(kept) if kept.n > 1 else "one prompt does not tell")
        beside = DASH if kept is None else format_percent(kept.baseline)
        rows.append([policy_name(policy), _cell(results.row(policy, "kl_to_reference")), why, beside])
    header = ["policy", "nats from the reference", "share of the gain kept", "kept among people's texts"]
    return TextTable(header, rows)


def _way_table(way: Sequence[CheckpointResult]) -> TextTable:
    """List what was measured along the trainings."""
    rows = [
        [
            policy_name(one.policy),
            f"{one.step:,}{' (kept)' if one.kept else ''}",
            format_nats(one.kl_to_reference),
            format_nats(one.gain),
            DASH if one.heldout_gain is None else format_nats(one.heldout_gain),
            f"{one.n:,}",
        ]
        for one in way
    ]
    header = ["policy", "after steps", "nats from the reference", "gain", "gain by the held-out jury", "texts"]
    return TextTable(header, rows, "Along the trainings: approval above that of pi_0, over clusters by their weights.")


def _samples_table(everything: Sequence[TextResults], jury: str) -> TextTable:
    """List texts with who approves, equally many of each policy, weighting and prompt."""
    names = list(dict.fromkeys(name for of in everything for name in clusters(of, jury)))
    groups: dict[tuple[str, str, str], list[WrittenText]] = {}
    for of in everything:
        for text in of.texts:
            if text.policy != PEOPLE or of.weighting == EVERYBODY:  # people wrote for no weighting
                groups.setdefault((text.policy, of.weighting, text.prompt), []).append(text)
    each = max(1, LISTED // max(1, len(groups)))
    rows = []
    for (policy, weighting, prompt), texts in groups.items():
        for text in texts[:each]:
            approvals = text.heldout_approvals if jury == "heldout" else text.approvals
            shares = [format_percent(approvals.get(name)) for name in names]
            asked = "" if policy == PEOPLE or weighting == EVERYBODY else weighting
            rows.append([policy_name(policy), asked, prompt, text.text, *shares, text.degenerate or ""])
    total = sum(map(len, groups.values()))
    caption = f"{len(rows):,} of {total:,} texts, with approval by the {jury} jury"
    header = ["policy", "asked for", "prompt", "text", *names, "fault"]
    return TextTable(header, rows, caption, filterable=True)


def _cell(row: TextRow | None, *, interval: bool = True) -> str:
    if row is None or row.value is None:
        return DASH
    if not interval or row.ci_low is None or row.ci_high is None:
        return _number(row.value, row)
    return f"{_number(row.value, row)} [{_number(row.ci_low, row)}, {_number(row.ci_high, row)}]"


def _number(value: float, row: TextRow) -> str:
    if row.unit in ("words", "classes", "texts", "per token"):
        return f"{value:,.1f}"
    share = row.unit in ("share", "probability") and row.measure != "auc_to_people"
    return format_percent(value) if share else format_nats(value)
