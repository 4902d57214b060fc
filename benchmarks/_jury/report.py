"""Tidy rows, tables and the picture of what `jury_quality` measured.

Knows nothing of how methods are fitted: log-probabilities and judgements in, numbers with intervals out.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from _common import print_table, row
from _jury.cells import Cell, Parts, reference_memberships
from _jury.methods import CHOOSING, OURS, TUNED


if TYPE_CHECKING:
    import numpy as np

    from reward_models.evaluation.comparisons import Comparison
    from reward_models.evaluation.judgement_bootstrap import Bootstrap
    from reward_models.stats.answers import Interval

__all__ = ["plot", "show", "summarise"]

BASES = ("bt", "bias-only", "joint-one", "fine-tuned-start")
RATER_TERMS = ("joint-one", "bias-only")  # one reward whose raters differ in habits; the first that was measured
UNSEEN = {"labels:seen": "labels", "labels:unseen": "raters", "labels:seen:shuffled": "labels"}


def summarise(cell: Cell, n: int | None, parts: Parts, draws: int) -> tuple[list[dict[str, Any]], list[Comparison]]:
    """Tidy rows of all methods for one number of placing labels, and the comparisons with BT for the verdict."""
    import numpy as np

    from reward_models.evaluation.comparisons import compare
    from reward_models.evaluation.judgement_bootstrap import Bootstrap
    from reward_models.evaluation.metrics import accuracy, nll

    bootstrap = Bootstrap(draws=draws)
    rows_of_all = np.concatenate([split.test_rows for split in cell.splits])
    scored = cell.case.judgements.select(rows_of_all)
    pooled = scored.encode()
    said = {
        method: [part["arrays"][f"log_probs_{n}"].astype(np.float64) for part in found]
        for method, found in cell.found.items()
    }
    everything = {method: np.concatenate(values)[scored.encoded_rows] for method, values in said.items()}
    more: dict[str, Any] = {
        "cell": cell.name,
        "unseen": UNSEEN.get(cell.name, "texts"),
        "splits": len(cell.splits),
        "n_raters": len(np.unique(pooled.rater)),
        "n_items": len(np.unique(pooled.item)),
    }
    if n is not None:
        more["n_labels"] = n
    rows = []

    def add(
        method: str, metric: str, value: float, unit: str, low: float, high: float, count: int, **extra: Any
    ) -> None:
        if np.isfinite(value):
            rows.append(row(cell.title, method, metric, value, unit, low=low, high=high, n=count, **more, **extra))
        else:
            reason = "an answer that was given has probability zero" if "nll" in metric else "nothing to score"
            rows.append(row(cell.title, method, metric, np.nan, unit, n=0, **more, **extra, skipped=reason))

    for method, log_probs in everything.items():
        for metric, found in (
            ("nll", nll(log_probs, pooled)),
            ("accuracy", accuracy(log_probs, pooled)),
        ):
            add(method, metric, found.value, found.unit, found.low, found.high, found.n)
        for metric, unit, per_split in within_splits(cell, said[method], parts, bootstrap):
            value, low, high = np.mean(per_split, axis=0)
            add(method, metric, value, unit, low, high, len(pooled))
        spent = [part["seconds"] for part in cell.found[method]]
        add(method, "seconds", float(np.mean(spent)), "s", min(spent), max(spent), len(spent))
        if method in (*TUNED, *CHOOSING):
            chosen = [part["chosen"] for part in cell.found[method]]
            sizes = [int(choice.split()[-1]) for choice in chosen]
            add(
                method, "chosen_k", float(np.mean(sizes)), "clusters", min(sizes), max(sizes), len(sizes),
                chosen=", ".join(chosen),
            )  # fmt: skip
    comparisons = []
    for base in BASES:
        if base not in everything:
            continue
        for found in compare(everything, pooled, base, seed=bootstrap.seed):
            if found.metric == "delta_nll_nats":
                metric = f"delta_nll_vs_{base.replace('-', '_')}"
                add(
                    found.method, metric, found.value, "nats", found.low, found.high, found.n,
                    outcome=found.outcome, p_holm=found.p_holm,
                )  # fmt: skip
                if base == "bt":
                    comparisons.append(found)
    base = next((method for method in RATER_TERMS if method in said), None)
    for method, log_probs in said.items() if base else ():
        if method != base:
            for split, n_scored, found, both in minus_rater_terms(cell, log_probs, said[str(base)]):
                add(
                    method, "delta_nll_vs_bias", found.value, "nats", found.low, found.high, n_scored,
                    split=split, base=base, ci_low_items=both.low, ci_high_items=both.high,
                )  # fmt: skip
    return rows, comparisons


def minus_rater_terms(
    cell: Cell, ours: list[np.ndarray], base: list[np.ndarray]
) -> list[tuple[str, int, Interval, Interval]]:
    """Loss minus that of one reward with rater terms, in each split and on the judgements of all splits ("mean").

    Returns:
        Split, number of judgements, and two intervals: for other raters, and for other raters and items.
    """
    import numpy as np

    from reward_models.raters.predictors import answer_log_lik
    from reward_models.stats.judgement_means import two_way_intervals

    rows = [split.test_rows for split in cell.splits]
    parts = [(str(i), *part) for i, part in enumerate(zip(rows, ours, base, strict=True))]
    parts.append(("mean", *(np.concatenate(values) for values in (rows, ours, base))))
    out = []
    for name, scored, of_method, of_base in parts:
        table = cell.case.judgements.select(scored)
        enc = table.encode()
        change = answer_log_lik(of_base[table.encoded_rows], enc) - answer_log_lik(of_method[table.encoded_rows], enc)
        if np.isfinite(change).all():
            over_raters, over_both = (
                two_way_intervals(change[:, None], enc.rater, enc.item, items=items)[0] for items in (False, True)
            )
            out.append((name, len(enc), over_raters, over_both))
    return out


def within_splits(
    cell: Cell, said: list[np.ndarray], parts: Parts, bootstrap: Bootstrap
) -> list[tuple[str, str, list[tuple[float, float, float]]]]:
    """Metrics that are no means over judgements, hence measured in each split; their intervals are averaged too.

    The mean of intervals is wider than the interval of the mean of splits, which share raters and items.
    """
    import numpy as np

    from reward_models.evaluation.calibration_metrics import pairwise_calibration
    from reward_models.evaluation.metrics import by_cluster
    from reward_models.evaluation.population import answer_shares

    worst, calibration = [], []
    for number, (split, log_probs) in enumerate(zip(cell.splits, said, strict=True)):
        test = split.test.encode()
        memberships = reference_memberships(cell, number, parts)
        clusters = by_cluster(log_probs, test, memberships, ["1", "2"], bootstrap=bootstrap)
        worst += [(m.value, m.low, m.high) for m in clusters if m.name == "accuracy_worst_cluster"]
        if test.kind == "preference":
            m = pairwise_calibration(answer_shares(np.exp(log_probs), test)[:, 0], test, bootstrap=bootstrap)
            calibration.append((m.value, m.low, m.high))
    out = [("worst_cluster_accuracy", "share", worst)]
    return [*out, ("pairwise_calibration", "squared share", calibration)] if calibration else out


def show(cell: Cell, n: int | None, rows: list[dict[str, Any]]) -> None:
    """The table of one cell, best method first."""
    found = {(r["method"], r["metric"]): r for r in rows}
    methods = [r["method"] for r in sorted(rows, key=lambda r: r["value"]) if r["metric"] == "nll"]

    def number(method: str, metric: str, form: str) -> str:
        return f"{found[method, metric]['value']:{form}}" if (method, metric) in found else ""

    def span(method: str) -> str:
        r = found.get((method, "delta_nll_vs_bt"))
        return "" if r is None else f"{r['value']:+.4f} [{r['ci_low']:+.4f}, {r['ci_high']:+.4f}] {r['outcome']}"

    header = ["method", "nll", "minus bt, nats", "accuracy", "worst cluster", "pair calibration", "size", "seconds"]
    lines = [
        [
            method,
            number(method, "nll", ".4f"),
            span(method),
            number(method, "accuracy", ".3f"),
            number(method, "worst_cluster_accuracy", ".3f"),
            number(method, "pairwise_calibration", ".4f"),
            found[method, "chosen_k"]["chosen"] if (method, "chosen_k") in found else "",
            number(method, "seconds", ".1f"),
        ]
        for method in methods
    ]
    about = max((r for r in rows if r["metric"] == "nll"), key=lambda r: r["n"])
    suffix = "" if n is None else f", unseen raters placed by {n} labels"
    print_table(
        f"{cell.title}{suffix}: {about['n']:,} judgements, {about['n_raters']:,} raters, {about['n_items']:,} items, "
        f"{about['splits']} splits",
        header,
        lines,
    )


def plot(rows: list[dict[str, Any]], file: Path) -> None:
    """Difference to BT of every method, one panel per cell: left of the line is better."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels: dict[str, list[dict[str, Any]]] = {}
    for r in rows:
        if r["metric"] == "delta_nll_vs_bt" and "skipped" not in r:
            suffix = f", {r['n_labels']} labels" if "n_labels" in r else ""
            panels.setdefault(r["case"] + suffix, []).append(r)
    if not panels:
        return
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(5 * columns, 3.2 * lines), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, (title, found) in zip(axes.flat, panels.items(), strict=False):
        found = sorted(found, key=lambda r: -r["value"])
        for height, r in enumerate(found):
            colour = "tab:blue" if r["method"] in OURS else "tab:gray"
            axis.plot([r["ci_low"], r["ci_high"]], [height, height], color=colour)
            axis.plot(r["value"], height, "o", color=colour)
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_yticks(range(len(found)), [r["method"] for r in found])
        axis.locator_params(axis="x", nbins=5)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("nats per judgement, minus Bradley-Terry")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)
    plt.close(figure)
    print(f"Drawn to {file}")
