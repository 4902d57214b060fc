"""What a report says of freely written texts: one section per question a reader may have.

Reads a `TextRecord`; knows nothing of Markdown, HTML or files.
"""

from __future__ import annotations

import math

from plural_rlhf.report.sections import Section
from plural_rlhf.report.tables import DASH, TextTable, format_nats, format_percent
from plural_rlhf.report.texts.figures import plot_approvals, plot_covered, plot_gain_against_kl, plot_map
from plural_rlhf.report.texts.record import PEOPLE, MeasuredRow, TextRecord, WrittenText


__all__ = ["text_findings", "text_sections"]

SHARES = ("share", "probability")
LEAST_KEPT = 0.6
"""Share of a gain that the heldout jury should see."""
LISTED = 4000
"""Most texts in the table of samples."""
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


def text_findings(record: TextRecord) -> list[str]:
    r"""Put what was found about each policy into a sentence.

    Example:
        >>> worst = {"policy": "grpo", "measure": "approval_worst_cluster", "jury": "training"}
        >>> classes = {"policy": "grpo", "measure": "classes_ratio_to_reference", "value": 0.4}
        >>> settings = {"policies": ["pi_0", "grpo"], "reference": "pi_0", "clusters": {"training": {"all": 1.0}}}
        >>> record = {"rows": [{**worst, "value": 0.6, "gain": -0.1}, classes], "settings": settings}
        >>> [sentence] = text_findings(TextRecord.model_validate(record))
        >>> sentence.replace("\u00a0", " ")
        'grpo: 60.0 % of the cluster that likes it least approve (−0.100); 0.40 times as many different answers in ...'
    """
    sentences = []
    for policy in record.policies:
        if policy == record.reference:
            continue
        parts = []
        worst = record.row(policy, "approval_worst_cluster", jury=record.judge)
        if worst is not None and math.isfinite(worst.value):
            share = format_percent(worst.value)
            parts.append(f"{share} of the cluster that likes it least approve ({_signed(worst.gain)})")
        ratio = record.row(policy, "classes_ratio_to_reference")
        if ratio is not None and math.isfinite(ratio.value):
            parts.append(f"{ratio.value:.2f} times as many different answers in effect")
        kept = record.row(policy, "heldout_share_of_gain")
        if kept is not None and math.isfinite(kept.value):
            warning = " (over-optimised)" if kept.ci_high < LEAST_KEPT else ""
            parts.append(f"the heldout jury sees {format_percent(kept.value)} of the gain{warning}")
        if parts:
            sentences.append(f"{policy}: {'; '.join(parts)}.")
    return sentences


def text_sections(record: TextRecord) -> list[Section]:
    """Make the sections about freely written texts.

    Example:
        >>> [section.key for section in text_sections(TextRecord())]
        ['text_approvals', 'text_people', 'text_map', 'text_gain', 'text_drift', 'text_samples']
        >>> all(section.missing for section in text_sections(TextRecord()))
        True
    """
    nothing = "" if record.rows else "No texts were measured."
    approvals, covered, plane, gain = (
        plot(record) for plot in (plot_approvals, plot_covered, plot_map, plot_gain_against_kl)
    )
    approval_of = record.settings.get("approval_of", {}).get("training", "votes")
    return [
        Section(
            "text_approvals",
            "Whom do the texts please?",
            "Marks further right are better; lines are 95 % intervals over prompts. An approval is "
            f"{'agreement, as people vote' if approval_of == 'votes' else approval_of}. The heldout jury knows other "
            "people and did not take part in training, so believe it where the two differ.",
            approvals,
            [_approval_table(record)],
            [_wins_table(record)],
            missing=nothing,
        ),
        Section(
            "text_people",
            "Do the texts sound like the people?",
            "People against people is the best that can be reached; people's texts to another question are the worst. "
            "A policy that writes one answer well covers little of what people say, however many texts it writes.",
            covered,
            [_measure_table(record, FIDELITY, "Distance is 0 for texts by the same people; told apart is .5.")],
            missing=nothing,
        ),
        Section(
            "text_map",
            "Where among people's answers does each policy write?",
            "Each panel is one prompt and one policy, in the plane in which people's texts differ the most. Clouds "
            "should cover the grey ones.",
            plane,
            missing=nothing or ("" if plane else "The texts have no vectors, or people wrote none."),
        ),
        Section(
            "text_gain",
            "Was the jury over-optimised?",
            "The further apart the two marks of a policy, the more of the gain only the training jury sees. The last "
            "column says what the heldout jury sees of differences between people's own texts, without optimisation.",
            gain,
            [_gain_table(record)],
            missing=nothing,
        ),
        Section(
            "text_drift",
            "Did length or form drift?",
            "Compare with people and with the policy before training. Texts that are empty, repetitive or truncated "
            "are no answers.",
            None,
            [_measure_table(record, DRIFT, "Means over prompts, with 95 % intervals.")],
            missing=nothing,
        ),
        Section(
            "text_samples",
            "What do the texts say?",
            "Type into the field to see the texts with these words only: a policy, a prompt, a word.",
            None,
            [],
            [_samples_table(record)],
            missing=nothing,
            fold_in_markdown=False,
        ),
    ]


def _writers(record: TextRecord) -> list[str]:
    return [*([PEOPLE] if any(row.policy == PEOPLE for row in record.rows) else []), *record.policies]


def _approval_table(record: TextRecord) -> TextTable:
    juries = [(jury, cluster) for jury in ("training", "heldout") for cluster in record.clusters(jury)]
    header = ["policy", *(f"{cluster} ({jury})" for jury, cluster in juries), "all clusters approve"]
    rows = [
        [
            writer,
            *(_cell(record.row(writer, "approval", jury=jury, cluster=cluster)) for jury, cluster in juries),
            _cell(record.row(writer, "bridging", jury=record.judge)),
        ]
        for writer in _writers(record)
    ]
    clusters = record.clusters(record.judge)
    shares = [
        f"{writer} "
        + " / ".join(_cell(record.row(writer, "answer_share", jury=record.judge, cluster=c), False) for c in clusters)
        for writer in _writers(record)
    ]
    weights = " / ".join(f"{name} {format_percent(weight)}" for name, weight in clusters.items())
    caption = f"Approval. Shares of the answers by the {record.judge} jury ({weights}): {'; '.join(shares)}."
    return TextTable(header, rows, caption)


def _wins_table(record: TextRecord) -> TextTable:
    rows = [
        [row.policy, row.rival, row.cluster, _cell(row), _cell(ties, False)]
        for row in record.rows
        if row.measure == "win_rate" and row.jury == record.judge and row.policy != PEOPLE
        for ties in [record.row(row.policy, "ties", jury=row.jury, cluster=row.cluster, rival=row.rival)]
    ]
    return TextTable(
        ["policy", "against", "cluster", "wins", "ties"], rows, f"Wins by the {record.judge} jury; ties count half."
    )


def _measure_table(record: TextRecord, measures: dict[str, str], caption: str) -> TextTable:
    shown = {m: name for m, name in measures.items() if any(r.measure == m and _known(r) for r in record.rows)}
    rows = [[writer, *(_cell(record.row(writer, measure)) for measure in shown)] for writer in _writers(record)]
    for label, which in (("people against people", "floor"), ("another question", "baseline")):
        cells = [_beside(record, measure, which) for measure in shown]
        if any(cell != DASH for cell in cells):
            rows.append([label, *cells])
    reasons = {r.reason for r in record.rows if r.measure in measures and r.reason and r.policy != PEOPLE}
    return TextTable(
        ["policy", *shown.values()], rows, " ".join([caption, *(f"Missing: {r}." for r in sorted(reasons))])
    )


def _beside(record: TextRecord, measure: str, which: str) -> str:
    """Return the floor, or the mean baseline, of a measure."""
    rows = [row for row in record.rows if row.measure == measure and math.isfinite(getattr(row, which))]
    if not rows:
        return DASH
    value = sum(getattr(row, which) for row in rows) / len(rows)
    return format_percent(value) if rows[0].unit == "share" else format_nats(value)


def _gain_table(record: TextRecord) -> TextTable:
    rows = []
    for policy in record.policies:
        if policy == record.reference:
            continue
        kept = record.row(policy, "heldout_share_of_gain")
        why = DASH if kept is None else kept.reason or _cell(kept)
        beside = DASH if kept is None else format_percent(kept.baseline)
        rows.append([policy, _cell(record.row(policy, "kl_to_reference")), why, beside])
    return TextTable(
        ["policy", "nats from the reference", "share of the gain kept", "kept among people's texts"], rows
    )


def _samples_table(record: TextRecord) -> TextTable:
    names = list(record.clusters(record.judge))
    some = _evenly(record)
    rows = [
        [
            text.policy,
            text.prompt,
            text.text,
            *(format_percent((text.heldout_approvals or text.approvals).get(name)) for name in names),
            text.degenerate or "",
        ]
        for text in some
    ]
    caption = f"{len(rows):,} of {len(record.texts):,} texts, approval by the {record.judge} jury"
    return TextTable(["policy", "prompt", "text", *names, "fault"], rows, caption, filterable=True)


def _evenly(record: TextRecord) -> list[WrittenText]:
    """Return the first texts of every policy and prompt, as many of each as fit into `LISTED`."""
    groups: dict[tuple[str, str], list[WrittenText]] = {}
    for text in record.texts:
        groups.setdefault((text.policy, text.prompt), []).append(text)
    each = max(1, LISTED // max(1, len(groups)))
    return [text for group in groups.values() for text in group[:each]][:LISTED]


def _known(row: MeasuredRow | None) -> bool:
    return row is not None and math.isfinite(row.value)


def _cell(row: MeasuredRow | None, interval: bool = True) -> str:
    if row is None or not math.isfinite(row.value):
        return DASH
    form = format_percent if row.unit in SHARES and row.measure != "auc_to_people" else format_nats
    if not interval or not math.isfinite(row.ci_low):
        return form(row.value)
    return f"{form(row.value)} [{form(row.ci_low)}, {form(row.ci_high)}]"


def _signed(value: float) -> str:
    return f"{'+' if value > 0 else ''}{format_nats(value)}"
