"""Tidy rows of the collapse benchmark from its runs: metrics, curves, paired differences, aims, and the table.

Knows nothing of how the runs came about. A run is what `_collapse.methods.train` returns; the runs of a method are in
the order of the seeds, the same for all methods.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from _collapse.cases import Aim, Case
from _collapse.methods import LABELS, METHODS
from _collapse.scales import UNITS
from _common import interval, print_table, row


__all__ = ["aim_rows", "curve_rows", "difference_rows", "method_rows", "print_aims", "read", "sequences_to", "show"]

NEAR = 0.001  # nats, of `sequences_to_jsd_001`
COLLAPSED = 0.99  # of the valid mass on the favourite answer
SAME_BETA = "trl-rloo-same-beta"
READ = ("jsd_nats", "jsd_valid_to_reference", "valid_mass", "favourite", "favourite_change")

Run = Mapping[str, Any]


def method_rows(case: Case, method: str, runs: Sequence[Run], **labels: Any) -> list[dict[str, Any]]:
    """Every metric of a method at the end of its runs, its shares, and what was read along the way.

    `sequences_to_jsd_001` counts the sequences that went through the policy until it was first measured within .001
    nats of the target; where not every seed got there (`reached`), what the others spent is counted, which is too
    little.
    """
    finals = [run["final"] for run in runs]
    labels = {"generated": finals[0]["generated"], "scored": finals[0]["scored"], **labels}
    labels["seconds"] = math.fsum(run["seconds"] for run in runs) / len(runs)
    out = [
        _over_seeds(case, method, metric, [final[metric] for final in finals], unit, **labels)
        for metric, unit in UNITS.items()
        if metric in finals[0]
    ]
    for k, (name, weight) in enumerate(case.weights.items()):
        shares = [final["shares"][k] for final in finals]
        out.append(_over_seeds(case, method, "share", shares, "probability", cluster=name, wanted=weight, **labels))
    for i, answer in enumerate(case.answers):
        found = [final["probabilities"][i] for final in finals]
        out.append(_over_seeds(case, method, "probability", found, "probability", answer=answer, **labels))
    if method == "reference":
        return out
    for count in (n for n in case.read_at if n <= finals[0]["generated"]):
        for metric in (name for name in READ if name in finals[0]):
            found = [read(run["curve"], count)[metric] for run in runs]
            out.append(_over_seeds(case, method, f"{metric}_at_{count}", found, UNITS[metric], **labels))
    needed = [sequences_to(run["curve"], "jsd_nats", NEAR) for run in runs]
    spent = [run["curve"][-1]["scored"] if n is None else n for run, n in zip(runs, needed, strict=True)]
    reached = sum(n is not None for n in needed)
    out.append(_over_seeds(case, method, "sequences_to_jsd_001", spent, "sequences", reached=reached, **labels))
    if case.favourite is not None:
        collapsed = [sequences_to(run["curve"], "favourite", COLLAPSED, above=True) for run in runs]
        if all(n is not None for n in collapsed):
            counts = [n for n in collapsed if n is not None]
            out.append(_over_seeds(case, method, "sequences_to_collapse", counts, "sequences", **labels))
    return out


def curve_rows(case: Case, method: str, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The distance from the target along the runs."""
    out = []
    for points in zip(*(run["curve"] for run in runs), strict=True):
        at = {"generated": points[0]["generated"], "scored": points[0]["scored"]}
        out.append(_over_seeds(case, method, "curve_jsd_nats", [p["jsd_nats"] for p in points], "nats", **at))
    return out


def difference_rows(case: Case, runs: Mapping[str, Sequence[Run]]) -> list[dict[str, Any]]:
    """`plural` minus the best of the rivals, and minus RLOO at the same temperature, paired by seed."""
    rivals = [method for method in runs if method.startswith("trl-")]
    if "plural" not in runs or not rivals:
        return []
    best = min(rivals, key=lambda method: math.fsum(run["final"]["jsd_nats"] for run in runs[method]))
    out = []
    for rival in dict.fromkeys([best, *([SAME_BETA] if SAME_BETA in rivals else [])]):
        for metric in ("jsd_nats", "minority_retention"):
            pairs = zip(runs["plural"], runs[rival], strict=True)
            found = [ours["final"][metric] - theirs["final"][metric] for ours, theirs in pairs]
            out.append(_over_seeds(case, f"plural - {rival}", f"{metric}_difference", found, UNITS[metric]))
            out[-1]["best_rival"] = rival == best
    return out


def aim_rows(case: Case, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """1 for an aim that is reached and 0 for one that is missed; nothing for one that was not measured."""
    found = {
        (r["method"], r["metric"]): r
        for r in rows
        if "cluster" not in r and "answer" not in r and not r["metric"].startswith("curve_")
    }
    out = []
    for aim in case.aims:
        own = found.get((aim.method, aim.metric))
        rival = {"value": 1.0} if aim.relative_to is None else found.get((aim.relative_to, aim.metric))
        if own is None or rival is None:
            continue
        value, bound = own["value"], aim.bound * rival["value"]
        met = {"at most": value <= bound, "at least": value >= bound, "within": abs(value) <= bound}[aim.kind]
        # A count of sequences is too small where a seed never got there.
        met = met and own.get("reached", own["n"]) == own["n"]
        out.append(row(case.name, aim.method, "aim", float(met), "reached", aim=_said(aim), found=value, bound=bound))
    return out


def show(case: Case, rows: Sequence[Mapping[str, Any]], seeds: int) -> None:
    """Prints the table of a case, the paired differences and the aims."""
    lines = []
    clusters = len(case.weights)
    for method in ("reference", *METHODS):
        own = [r for r in rows if r["method"] == method and not r["metric"].startswith(("curve_", "jsd_nats_tuning"))]
        value = {r["metric"]: r for r in own if "cluster" not in r and "answer" not in r}
        if not value:
            continue
        js = value["jsd_nats"]
        shares = [f"{r['value']:.1%}" for r in own if r["metric"] == "share"] if clusters > 1 else []
        lines.append(
            [
                LABELS[method],
                f"{js['value']:.4f}" + (f" [{js['ci_low']:.4f}, {js['ci_high']:.4f}]" if js["n"] > 1 else ""),
                f"{value['jsd_valid_to_reference']['value']:.4f}",
                *shares,
                f"{value['valid_mass']['value']:.3f}",
                f"{value['effective_answers']['value']:.1f}",
                f"{js['generated']:,}",
                f"{js['scored']:,}",
                f"{js['seconds']:.0f}",
            ]
        )
    wanted = [f"{name} ({weight:.0%})" for name, weight in case.weights.items()] if clusters > 1 else []
    header = ["method", "JS to target, nats", "JS to start", *wanted, "valid", "answers", "generated", "scored", "s"]
    print_table(f"{case.name}: {len(case.problems)} prompts, {seeds} seeds", header, lines)
    for r in (r for r in rows if r["metric"] == "jsd_nats_difference"):
        low_high = f" [{r['ci_low']:+.4f}, {r['ci_high']:+.4f}]" if r["n"] > 1 else ""
        print(f"  {r['method']}{' (the best rival)' if r['best_rival'] else ''}: {r['value']:+.4f} nats{low_high}")
        same_optimum = clusters == 1 and case.tie_margin == 0 and case.iterations == 1
        if case.aims and same_optimum and r["method"].endswith(SAME_BETA):
            tie = "a tie, as it must be" if abs(r["value"]) < NEAR else "NOT the tie that it must be"
            print(f"  with one cluster, RLOO at the same temperature has the same optimum: {tie}")
    print_aims(rows)
    print(flush=True)


def print_aims(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints whether each aim was reached, and what was found."""
    for r in (r for r in rows if r["metric"] == "aim"):
        print(f"  {'reached' if r['value'] else 'MISSED '}  {r['method']} {r['aim']}: {r['found']:.4g}")


def read(curve: Sequence[Mapping[str, Any]], generated: int) -> Mapping[str, Any]:
    """The last point of a curve with at most `generated` completions."""
    return [point for point in curve if point["generated"] <= generated][-1]


def sequences_to(curve: Sequence[Mapping[str, Any]], metric: str, bound: float, *, above: bool = False) -> int | None:
    """Sequences scored until the metric was first at the bound or below it (`above`: or above it); None if never."""
    for point in curve:
        if (point[metric] >= bound) if above else (point[metric] <= bound):
            return point["scored"]
    return None


def _over_seeds(
    case: Case, method: str, metric: str, values: Sequence[float], unit: str, **labels: Any
) -> dict[str, Any]:
    value, low, high = interval(values)
    return row(case.name, method, metric, value, unit, low=low, high=high, n=len(values), **labels)


def _said(aim: Aim) -> str:
    times = "" if aim.relative_to is None else f" times that of {aim.relative_to}"
    return f"{aim.metric} {aim.kind} {aim.bound:g}{times}"
