"""What was found of policies that write text, in sentences: for the page of a run and of any evaluation alike.

The sentences are about one policy, ours where there is one, and compare it with every other. Reads `TextResults`;
knows nothing of plots, Markdown or HTML.
"""

from __future__ import annotations

from collections.abc import Sequence

from plural_rlhf.report.names import Method, Split
from plural_rlhf.report.results_policies import TextResults
from plural_rlhf.report.tables import NO_BREAK
from plural_rlhf.report.texts.tables import LITTLE_KEPT, policy_name, population_results
from plural_rlhf.report.texts.writers import clusters, judge, reference, trained


__all__ = ["text_findings"]

MOSTLY_BROKEN = 0.5
"""Above this share of texts that are no answers, the policy before training is reported as broken."""
CURES = {
    "empty": "train pi_0 longer (sft.steps), or on other texts",
    "repetitive": "train pi_0 less (sft.steps), or with a smaller sft.learning_rate",
    "truncated": "raise policy.max_new_tokens, or train pi_0 longer (sft.steps) so that it learns to end",
}


def text_findings(results: Sequence[TextResults], *, objectives: bool = False) -> list[str]:
    """Put what was found of policies that write into sentences, the most important first.

    Args:
        results: What was measured, by split and weighting.
        objectives: Whether reward models and functions score in place of clusters of people.

    Example:
        >>> rows = [
        ...     {"policy": name, "measure": "share_error", "jury": "training", "value": value}
        ...     for name, value in (("plural", 0.12), ("mine", 0.4))
        ... ]
        >>> settings = {"policies": ["mine", "plural"]}
        >>> text_findings([TextResults(split="heldout", weighting="all", rows=rows, settings=settings)])
        ['Every cluster of people keeps its share of the texts to within 12...% of it; with mine to within 40...
    """
    written = population_results(results)
    if written is None:
        return []
    policies = trained(written)
    if not policies:
        return _broken_reference(written)
    ours = Method.PLURAL if Method.PLURAL in policies else policies[0]
    others = [policy for policy in policies if policy != ours]
    one, whole = ("objective", "objective") if objectives else ("cluster", "cluster of people")
    sentences = _broken_reference(written)
    named = "" if ours == Method.PLURAL else f"{policy_name(ours)}: "
    sentences += [
        named + sentence
        for sentence in (
            _shares(written, ours, others, whole),
            _classes(written, ours, others),
            _worst(written, ours, others, one),
        )
        if sentence
    ]
    sentences += [sentence for policy in (ours, *others) for sentence in _over_optimised(written, policy)]
    worst = written.row(ours, "approval_worst_cluster", jury=judge(written))
    if worst is not None and worst.n == 1:
        sentences.append("All this is measured on one prompt, so it has no intervals: a first impression.")
    return sentences


def _broken_reference(results: TextResults) -> list[str]:
    before = reference(results) or Method.WARM
    broken = results.row(before, "degenerate")
    if broken is None or broken.value is None or broken.value <= MOSTLY_BROKEN:
        return []
    faults = {name: row.value or 0.0 for name in CURES if (row := results.row(before, name)) is not None}
    why = max(faults, key=lambda name: faults[name], default=None)
    most = "" if why is None else f", most of them {why}"
    cure = "" if why is None else f" Fix: {CURES[why]}."
    return [
        f"Of the texts of {_before(results)} {_percent(broken.value)} are no answers{most}: nothing below means "
        f"much.{cure}"
    ]


def _shares(results: TextResults, ours: str, others: Sequence[str], whole: str) -> str:
    jury = judge(results)
    row = results.row(ours, "share_error", jury=jury)
    if row is None:
        return ""
    rivals = [
        f"; with {policy_name(policy)} to within {_percent(value)}"
        for policy, value in _values(results, others, "share_error", jury=jury)
    ]
    split = "held-out" if results.split == Split.HELDOUT else "trained"
    by = "a jury of raters that took no part" if jury == "heldout" else "what it was trained on"
    where = f"(on {split} prompts, by {by})"
    if row.value is None:
        if row.reason is None or len(clusters(results, jury)) < 2:
            return ""
        others_keep = "".join(rivals).replace(" to within", f" every {whole} keeps its share to within", 1)
        return f"For which {whole} its texts were written cannot be told {where}: {row.reason}{others_keep}."
    chance = ""
    if row.floor is not None and row.baseline is not None:
        chance = f" (by chance {_percent(row.floor)}, for one alone {_percent(row.baseline)})"
    kept = f"Every {whole} keeps its share of the texts to within {_percent(row.value)} of it"
    return f"{kept}{chance}{''.join(rivals)} {where}."


def _classes(results: TextResults, ours: str, others: Sequence[str]) -> str:
    row = results.row(ours, "classes_ratio_to_reference")
    if row is None or row.value is None:
        return ""
    rivals = [
        f", {policy_name(policy)}'s {_percent(value)}"
        for policy, value in _values(results, others, "classes_ratio_to_reference")
    ]
    return (
        f"Its texts say {_percent(row.value)} as many different things as those of "
        f"{_before(results)}{''.join(rivals)}."
    )


def _worst(results: TextResults, ours: str, others: Sequence[str], one: str) -> str:
    jury = judge(results)
    row = results.row(ours, "approval_worst_cluster", jury=jury)
    if row is None or row.value is None:
        return ""
    gain = "" if row.gain is None else f", {100 * row.gain:+.0f} points against {_before(results)}"
    rivals = [
        f"; of {policy_name(policy)}'s {_percent(value)}"
        for policy, value in _values(results, others, "approval_worst_cluster", jury=jury)
    ]
    return f"In the {one} that likes its texts least {_percent(row.value)} approve{gain}{''.join(rivals)}."


def _over_optimised(results: TextResults, policy: str) -> list[str]:
    kept = results.row(policy, "heldout_share_of_gain")
    if kept is None or kept.value is None or kept.ci_high is None or kept.ci_high >= LITTLE_KEPT:
        return []
    whose = "" if policy == Method.PLURAL else f" ({policy_name(policy)})"
    return [
        f"Over-optimised{whose}: of the gain that the training jury sees, the held-out jury sees "
        f"{_percent(kept.value)}. Train less, or with a larger beta."
    ]


def _values(results: TextResults, policies: Sequence[str], measure: str, **labels: str) -> list[tuple[str, float]]:
    """Return the policies of which the measure is known, with its value."""
    rows = {policy: results.row(policy, measure, **labels) for policy in policies}
    return [(policy, row.value) for policy, row in rows.items() if row is not None and row.value is not None]


def _before(results: TextResults) -> str:
    """Return what the policy before training is called within a sentence."""
    name = reference(results)
    return "pi_0" if name in ("", Method.WARM) else policy_name(name)


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", f"{NO_BREAK}%")
