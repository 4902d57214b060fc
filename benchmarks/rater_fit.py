"""Time to fit a jury on frozen features while judgements grow tenfold: is it linear?

Planted data: votes of raters in eight clusters on statements whose rewards are linear in 64 features, with a leniency
per rater; a hundred votes per rater. Timed are `fit_raters` (K clusters with rater terms) and `fit_texts` (heads on
the features), without importing and making the data. Each size runs in its own process, so that its peak memory can be
measured. The exponent is the slope of log seconds on log judgements. With `--case texts` a text has ten votes, however
many there are, and 576 features: timed is `fit_joint`, texts and raters in one likelihood.

    python benchmarks/rater_fit.py --json rater_fit.json
    python benchmarks/rater_fit.py --case texts --clusters 2 --sizes 1e4 1e5 1e6 --json texts.json
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

from _common import make_parser, print_table, row, write


__all__ = ["main"]

VOTES_PER_RATER = 100
FEATURES = 64
VOTES_PER_TEXT, TEXT_FEATURES = 10, 576  # of the case "texts"


def plant(judgements: int, texts: int, clusters: int, seed: int, dimensions: int = FEATURES) -> tuple[Any, Any, Any]:
    """Votes as an `Encoded` table, (U, D) features, and the (R,) cluster of each rater."""
    import numpy as np

    from reward_models.judgements.encoding import Encoded
    from reward_models.judgements.texts import Text

    rng = np.random.default_rng(seed)
    raters = max(judgements // VOTES_PER_RATER, clusters * 10)
    features = rng.normal(size=(texts, dimensions))
    rewards = features @ rng.normal(size=(dimensions, clusters)) / np.sqrt(dimensions) * 1.5
    cluster, leniency = rng.integers(clusters, size=raters), rng.normal(size=raters)
    rater = np.repeat(np.arange(raters), -(-judgements // raters))[:judgements]
    text = rng.integers(texts, size=judgements)
    odds = rewards[text, cluster[rater]] + leniency[rater]
    label = (rng.random(judgements) < 1 / (1 + np.exp(-odds))).astype(np.int64)
    table = Encoded(
        kind="rating",
        rater_ids=[str(i) for i in range(raters)],
        item_ids=[str(i) for i in range(texts)],
        texts=[Text("", str(i)) for i in range(texts)],
        rater=rater,
        item=text,
        alternatives=text[:, None],
        label=label,
        count=np.ones(judgements),
        shown_first=None,
        probs=None,
        levels=(0.0, 1.0),
        item_alternatives=np.arange(texts)[:, None],
    )
    return table, features, cluster


def one_size(judgements: int, args: argparse.Namespace) -> dict[str, float]:
    """Fit one size in this process."""
    import numpy as np

    from reward_models.fitting.joint.fit import fit_joint
    from reward_models.fitting.rater_fit import fit_raters
    from reward_models.fitting.text_fit import fit_texts
    from reward_models.stats.answers import adjusted_rand_index

    joint = args.case == "texts"
    texts, dimensions = (judgements // VOTES_PER_TEXT, TEXT_FEATURES) if joint else (args.texts, FEATURES)
    table, features, cluster = plant(judgements, texts, args.clusters, args.seed, dimensions)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = labels = time.perf_counter()
    if joint:
        fit: Any = fit_joint(table, features, "mixture", args.clusters)
    else:
        fit = fit_raters(table, "mixture", args.clusters)
        labels = time.perf_counter()
        fit_texts(fit, table, features)
    end = time.perf_counter()
    found = fit.responsibilities.argmax(1)
    judged = np.bincount(table.rater, minlength=table.n_raters) > 0
    return {
        "seconds": end - start,
        "label_seconds": labels - start,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "data_mib": before,
        "ari": adjusted_rand_index(found[judged], cluster[judged]),
    }


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--sizes", nargs="+", type=float, default=[1e5, 1e6, 1e7], help="judgements per case")
    parser.add_argument("--texts", type=int, default=5000, help="unique statements (default: 5000)")
    parser.add_argument("--clusters", type=int, default=8, help="number of clusters, K (default: 8)")
    parser.add_argument("--case", choices=("labels", "texts"), default="labels", help="what grows (default: labels)")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one_size(args.one, args)))
        return
    if args.smoke:
        args.sizes, args.texts, args.clusters = [1e4, 3e4], 200, 3
    started = time.perf_counter()
    found: dict[int, dict[str, float]] = {}
    for size in map(int, args.sizes):
        command = [sys.executable, __file__, "--one", str(size), "--seed", str(args.seed)]
        command += ["--texts", str(args.texts), "--clusters", str(args.clusters), "--case", args.case]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"the case of {size:,} judgements failed:\n{done.stderr[-2000:]}")
        found[size] = json.loads(done.stdout.splitlines()[-1])
        print(
            f"{size:>12,} judgements: {found[size]['seconds']:.1f} s, {found[size]['peak_mib']:,.0f} MiB", flush=True
        )
    rows, lines = [], []
    sizes = list(found)
    for previous, size in zip([None, *sizes], sizes, strict=False):
        case = ("texts:" if args.case == "texts" else "") + f"{size:.0e}".replace("e+0", "e")
        values = dict(found[size])
        if previous is not None:
            from math import log

            values["exponent"] = log(values["seconds"] / found[previous]["seconds"]) / log(size / previous)
        units = {"seconds": "s", "label_seconds": "s", "peak_mib": "MiB", "data_mib": "MiB"}
        rows += [
            row(case, "mixture", k, v, units.get(k, ""), n=size, clusters=args.clusters) for k, v in values.items()
        ]
        exponent = f"{values['exponent']:.2f}" if "exponent" in values else ""
        lines.append(
            [case, f"{values['seconds']:.1f}", f"{values['peak_mib']:,.0f}", exponent, f"{values['ari']:.3f}"]
        )
    print_table("fit on frozen features", ["judgements", "seconds", "peak MiB", "exponent", "ARI"], lines)
    write(
        args,
        rows,
        started,
        clusters=args.clusters,
        texts=f"judgements / {VOTES_PER_TEXT}" if args.case == "texts" else args.texts,
        features=TEXT_FEATURES if args.case == "texts" else FEATURES,
        votes_per_rater=VOTES_PER_RATER,
    )


if __name__ == "__main__":
    main()
