"""Tables and files of an evaluation: the printed report, and a result file in the format of RewardBench.

Knows nothing of how anything was measured.
"""

from __future__ import annotations

import importlib.metadata
import math
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console

from reward_models.evaluation.clusters import check_memberships
from reward_models.evaluation.evaluate_jury import JuryEvaluation
from reward_models.evaluation.sheets import Sheet, interval_text, number_text, show
from reward_models.judgements.encoding import Encoded


__all__ = ["print_report", "report_sheets", "rewardbench", "versions"]

# The metrics of the printed table; results.json has all.
SHOWN = {
    "nll_nats": "NLL, nats",
    "accuracy": "accuracy",
    "accuracy_per_rater": "per rater",
    "accuracy_worst_10_percent": "worst 10 %",
    "accuracy_worst_cluster": "worst cluster",
    "ece": "ECE",
    "pairwise_calibration": "pairwise cal.",
    "share_calibration": "share cal.",
    "jsd_nats": "JSD, nats",
    "regret_mean": "regret",
}
COMPARED = """\
outcome: better or worse if the whole interval is; undecided if it contains 0. The interval is about other raters and
other items. detectable: the smallest true difference that judgements like these would show four times in five.
p (Holm): about other raters on these very items, so that it can be small beside an interval that contains 0: the
finding then holds for these items, and perhaps for no others."""
PACKAGES = ("plural-rlhf", "torch", "transformers", "numpy", "scipy")


def print_report(evaluation: JuryEvaluation, console: Console) -> None:
    """Print a table per case, the comparisons, what was skipped, and the verdict.

    Example:
        >>> from reward_models.evaluation.evaluate_jury import JuryEvaluation
        >>> print_report(JuryEvaluation([], [], None, "two clusters is better than bt."), Console(width=80))
        Verdict: two clusters is better than bt.
    """
    show(report_sheets(evaluation), console)


def report_sheets(evaluation: JuryEvaluation) -> list[Sheet | str]:
    """Return a table per case, the comparisons, what was skipped, and the verdict.

    Example:
        >>> from reward_models.evaluation.evaluate_jury import JuryEvaluation
        >>> report_sheets(JuryEvaluation([], [], None, "two clusters is better than bt."))
        ['Verdict: two clusters is better than bt.']
    """
    rows = evaluation.rows
    sheets: list[Sheet | str] = []
    for case in dict.fromkeys(row["case"] for row in rows if row["metric"] == "nll_nats"):
        here = {(row["method"], row["metric"]): row for row in rows if row["case"] == case}
        shown = [metric for metric in SHOWN if any(name == metric for _, name in here)]
        first = next(row for row in here.values() if row["metric"] == "nll_nats")
        methods = dict.fromkeys(method for method, name in here if name == "nll_nats")
        lines = [[method, *(_number(here.get((method, metric))) for metric in shown)] for method in methods]
        sheets.append(Sheet(f"{case}: {first['n']:,} judgements", ["model", *(SHOWN[m] for m in shown)], lines))
    compared = [row for row in rows if "p_holm" in row]
    if compared:
        level = next((f"{100 * c.level:g} %" for c in evaluation.comparisons), "95 %")
        columns = ["case", "model", "metric", f"difference, {level} interval", "detectable", "p (Holm)", "outcome"]
        lines = [
            [
                row["case"],
                row["method"],
                row["metric"],
                interval_text(row, 4),
                number_text(row["minimum_detectable"], 4),
                number_text(row["p_holm"], 4),
                row["outcome"],
            ]
            for row in compared
        ]
        sheets.append(Sheet("Against the base", columns, lines, COMPARED, words=3))
    skipped = [row for row in rows if "skipped" in row]
    if skipped:
        sheets.append("\n".join([f"{len(skipped)} rows could not be measured:", *_reasons(skipped)]))
    return [*sheets, f"Verdict: {evaluation.verdict}"]


def _reasons(skipped: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line per reason, with the first place where it applies."""
    lines = []
    for reason in dict.fromkeys(row["skipped"] for row in skipped):
        places = [f"{row['case']} / {row['method']} / {row['metric']}" for row in skipped if row["skipped"] == reason]
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        lines.append(f"  skipped: {reason} ({places[0]}{more})")
    return lines


def rewardbench(
    rewards: np.ndarray,
    enc: Encoded,
    model: str,
    chat_template: str | None,
    subsets: Mapping[str, np.ndarray],
    memberships: np.ndarray | None = None,
    names: Sequence[str] = (),
) -> dict[str, Any]:
    """Compute the share of pairs whose preferred response scores higher, in the format of RewardBench's result files.

    Equal scores count half; judged ties have no preferred response and are ignored. The subsets are those of this
    evaluation, not RewardBench's own, so that the file cannot be mistaken for an entry of its leaderboard.

    Args:
        rewards: (U,) one score per text.
        enc: `N` pairs.
        model: Name of the model.
        chat_template: Chat template of the texts; None for plain texts.
        subsets: (N,) masks by name.
        memberships: (R, K) memberships of the raters, for a subset per cluster.
        names: `K` names.

    Returns:
        `model`, `model_type`, `chat_template`, and an accuracy per subset; a subset without pairs is omitted.

    Raises:
        JuryError: Memberships of another shape.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("preference", num_raters=2, num_items=2).judgements.encode()
        >>> first = np.array([1.0, 0.0, 1.0, 0.0])  # the first response of both pairs scores higher
        >>> enc.label.tolist(), rewardbench(first, enc, "first", None, {"all": np.ones(4)})["all"]
        ([0, 1, 0, 1], 0.5)
    """
    ahead = rewards[enc.alternatives[:, 0]] - rewards[enc.alternatives[:, 1]]
    right = 0.5 * (1 + np.sign(np.where(enc.label == 0, ahead, -ahead)))
    weights = {name: mask * enc.weight for name, mask in subsets.items()}
    if memberships is not None:
        check_memberships(memberships, enc, len(names))
        of_rater = memberships[enc.rater]
        weights |= {f"raters: {name}": enc.weight * column for name, column in zip(names, of_rater.T, strict=True)}
    result: dict[str, Any] = {"model": model, "model_type": "Seq. Classifier", "chat_template": chat_template}
    for name, weight in weights.items():
        weight = np.where(enc.label == 2, 0.0, weight)
        if weight.sum() > 0:
            result[name] = float(weight @ right / weight.sum())
    return result


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on.

    Example:
        >>> sorted(versions())
        ['numpy', 'plural-rlhf', 'python', 'scipy', 'torch', 'transformers']
    """
    version_of = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            version_of[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            version_of[package] = "not installed"
    return version_of


def _number(row: Mapping[str, Any] | None) -> str:
    if row is None or row["value"] is None:
        return "-"
    if math.isnan(row["ci_low"]):
        return number_text(row["value"])
    half = number_text((row["ci_high"] - row["ci_low"]) / 2)
    return f"{number_text(row['value'])} ±{half.removeprefix('0')}"
