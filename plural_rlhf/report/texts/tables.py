"""Policies that write text, in tables: what two juries and people's own texts say of each.

Reads `RunResults.texts`; knows nothing of plots, Markdown or HTML.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.table import Table

from plural_rlhf.report.names import EVERYBODY, METHOD_NAMES, Method, Split
from plural_rlhf.report.results_policies import TextResults, TextRow
from plural_rlhf.report.tables import DASH, NO_BREAK, TextTable, format_nats, format_percent, rich_table
from plural_rlhf.report.texts.writers import PEOPLE, clusters, judge, writers


__all__ = [
    "policy_name",
    "population_results",
    "shifts_text",
    "steering_text",
    "tells_share_of_gain",
    "text_summary",
    "text_tables",
]

NAMES = {
    Method.UNTOUCHED: "untouched model",
    Method.WARM: "pi_0, before training",
    Method.PLURAL: "plural (ours)",
    PEOPLE: "people",
}


LITTLE_KEPT = 0.6
"""A warning if the whole interval of the share of the training jury's gain is below this."""


def policy_name(policy: str) -> str:
    """Return what a policy is called in a report.

    Example:
        >>> policy_name("grpo"), policy_name("warm"), policy_name("people")
        ('stock GRPO', 'pi_0, before training', 'people')
    """
    return NAMES.get(policy) or METHOD_NAMES.get(policy, policy)


def population_results(results: Sequence[TextResults]) -> TextResults | None:
    """Return what policies wrote for the population, on held-out prompts where there are some; None without texts.

    Example:
        >>> written = [TextResults(split=split, weighting="all") for split in ("train", "heldout")]
        >>> population_results(written).split
        'heldout'
    """
    for split in (Split.HELDOUT, Split.TRAIN):
        for of in results:
            if (of.split, of.weighting) == (split, EVERYBODY):
                return of
    return None


def text_summary(results: Sequence[TextResults]) -> TextTable:
    """Tabulate one row per measure and one column per policy, people first.

    Example:
        >>> from plural_rlhf.report.results_policies import TextRow
        >>> rows = [
        ...     TextRow(policy="plural", measure="approval", jury="training", cluster=name, value=value)
        ...     for name, value in (("urban", 0.75), ("rural", 0.5))
        ... ]
        >>> who = {"policies": ["plural"], "clusters": {"training": {"urban": 0.5, "rural": 0.5}}}
        >>> table = text_summary([TextResults(split="train", weighting="all", rows=rows, settings=who)])
        >>> table.header, [row[0] for row in table.rows]
        (['', 'plural (ours)'], ['approval by urban', 'approval by rural'])
    """
    written = population_results(results)
    if written is None:
        return TextTable(header=[], rows=[], caption="no text was measured")
    jury, policies = judge(written), writers(written)
    names = list(clusters(written, jury))
    body = []
    for title, measure, labels, show in _lines(jury, names):
        rows = [written.row(policy, measure, **labels) for policy in policies]
        floor = next((row.floor for row in rows if row is not None and row.floor is not None), None)
        cells = [
            show(row.value) if row is not None and row.value is not None and _is_shown(row) else DASH for row in rows
        ]
        if PEOPLE in policies and cells[policies.index(PEOPLE)] == DASH and floor is not None:
            cells[policies.index(PEOPLE)] = show(floor)  # people against people
        if any(cell != DASH for cell in cells):
            body.append([title, *cells])
    by = "a jury of raters that took no part" if jury == "heldout" else "what the policies were trained on"
    split = "held-out" if written.split == Split.HELDOUT else "training"
    return TextTable(
        header=["", *map(policy_name, policies)],
        rows=body,
        caption=f"On {split} prompts, for the population. Approval and shares by {by}. Distance to people: kernel "
        "two-sample. KL in nats per text.",
    )


Line = tuple[str, str, dict[str, str], Callable[[float], str]]


def _lines(jury: str, clusters: Sequence[str]) -> list[Line]:
    """Title, measure, labels and format of each line of the summary."""
    lines: list[Line] = [
        (f"{title} {cluster}", measure, {"jury": jury, "cluster": cluster}, _percent)
        for title, measure in (("approval by", "approval"), ("share of the texts:", "answer_share"))
        for cluster in clusters
    ]
    return [
        *lines,
        ("texts for no cluster in particular", "share_for_no_cluster", {"jury": jury}, _percent),
        ("largest relative error of a share", "share_error", {"jury": jury}, _percent),
        ("texts that every cluster approves", "bridging", {"jury": jury}, _percent),
        ("different texts (effective number)", "effective_classes", {}, lambda value: f"{value:.1f}"),
        ("distance to people", "mmd_to_people", {}, lambda value: f"{value:.3f}"),
        ("people's classes of texts covered", "human_classes_covered", {}, _percent),
        ("KL to pi_0", "kl_to_reference", {}, format_nats),
        ("KL to the target", "kl_to_target", {}, format_nats),
        ("texts drawn for each one", "completions_per_text", {}, lambda value: f"{value:.0f}"),
        ("gain that the held-out jury sees too", "heldout_share_of_gain", {}, _percent),
        ("words", "words", {}, lambda value: f"{value:.0f}"),
        ("texts that are no answer", "degenerate", {}, _percent),
    ]


def _shown(row: TextRow, show: Callable[[float], str]) -> str:
    return DASH if row.value is None or not _is_shown(row) else show(row.value)


def _is_shown(row: TextRow) -> bool:
    return row.measure != "heldout_share_of_gain" or tells_share_of_gain(row)


def tells_share_of_gain(row: TextRow | None) -> bool:
    """Whether the share of a gain that is kept is worth printing: a ratio of two gains, not from one prompt alone.

    Example:
        >>> tells_share_of_gain(TextRow(policy="plural", measure="heldout_share_of_gain", value=1.2, n=1))
        False
    """
    return row is not None and row.value is not None and row.n > 1


def _percent(share: float) -> str:
    return f"{100 * share:.0f}{NO_BREAK}%"


def steering_text(results: Sequence[TextResults]) -> TextTable:
    """Tabulate the approval of every cluster when the policy is asked for one, against pi_0 under the same words.

    Example:
        >>> from plural_rlhf.report.results_policies import TextRow
        >>> row = TextRow(policy="plural", measure="approval", jury="training", cluster="urban", value=0.8, gain=0.1)
        >>> rows = [row]
        >>> who = {"clusters": {"training": {"urban": 1.0}}}
        >>> table = steering_text([TextResults(split="train", weighting="urban", rows=rows, settings=who)])
        >>> table.rows[0][:2], table.rows[0][2].split()[-1]
        (['urban', 'train'], '(+10)')
    """
    asked = [of for of in results if of.rows]
    if not asked:
        return TextTable(header=[], rows=[], caption="")
    jury = judge(asked[0])
    names = list(clusters(asked[0], jury))
    body = []
    for of in asked:
        cells = [of.weighting if of.weighting != EVERYBODY else "the population", of.split]
        for cluster in names:
            row = of.row(Method.PLURAL, "approval", jury=jury, cluster=cluster)
            gain = "" if row is None or row.gain is None else f" ({100 * row.gain:+.0f})"
            cells.append(DASH if row is None else f"{format_percent(row.value)}{gain}")
        body.append(cells)
    return TextTable(
        header=["asked for", "prompts", *(f"approval of {name}" for name in names)],
        rows=body,
        caption="In brackets: percentage points above pi_0 when it is asked for the same.",
    )


def shifts_text(results: Sequence[TextResults]) -> TextTable:
    """Tabulate what each request changes: approval of every cluster against the same policy asked for the population.

    Example:
        >>> from plural_rlhf.report.results_policies import TextRow
        >>> row = {"policy": "plural", "measure": "approval_shift", "jury": "training"}
        >>> rows = [TextRow(**row, cluster="urban", value=0.1), TextRow(**row, cluster="rural", value=-0.02)]
        >>> who = {"clusters": {"training": {"urban": 0.5, "rural": 0.5}}}
        >>> table = shifts_text([TextResults(split="train", weighting="urban", rows=rows, settings=who)])
        >>> table.rows
        [['plural (ours)', 'urban', 'train', '+10', '-2']]
    """
    body, names = [], list[str]()
    jury = judge(results[0]) if results else "training"
    for of in results:
        names = names or list(clusters(of, jury))
        shifts = [row for row in of.rows if row.measure == "approval_shift" and row.jury == jury]
        for policy in dict.fromkeys(row.policy for row in shifts):
            cells = [_points(of.row(policy, "approval_shift", jury=jury, cluster=name)) for name in names]
            body.append([policy_name(policy), of.weighting, of.split, *cells])
    by = "a jury of raters that took no part" if jury == "heldout" else "what the policies were trained on"
    return TextTable(
        header=["policy", "asked for", "prompts", *(f"approval of {name}" for name in names)],
        rows=body,
        caption=f"Percentage points against the same policy asked for the population, by {by}; in brackets 95 % "
        "intervals over prompts. The policy before training shows what words alone do.",
    )


def _points(row: TextRow | None) -> str:
    if row is None or row.value is None:
        return DASH
    ends = "" if row.ci_low is None or row.ci_high is None else f" [{100 * row.ci_low:+.0f}, {100 * row.ci_high:+.0f}]"
    return f"{100 * row.value:+.0f}{ends}"


def text_tables(results: Sequence[TextResults]) -> list[Table]:
    """Make the tables that are printed at the end of a run whose policies write.

    Example:
        >>> [str(table.title) for table in text_tables([TextResults(split="train", weighting="all")])]
        ['Who approves of what the policies write?', 'Does the policy follow the weights it is given?']
    """
    return [
        rich_table(text_summary(results), "Who approves of what the policies write?"),
        rich_table(steering_text(results), "Does the policy follow the weights it is given?"),
    ]
