"""How long does it take to fit a jury while judgements grow tenfold: is it linear?

Planted data: votes of raters in K clusters on statements whose rewards are linear in features, with a leniency per
rater. Each size runs in its own process, so that its peak memory can be measured; importing and making data are not
timed. Seconds are those of the clock, `cpu_seconds` those of the processor, which do not depend on what else runs; the
exponent is the slope of log processor seconds on log judgements.

| `--case` | timed | texts | features |
|---|---|---|---|
| `labels` | `fit_raters`: K clusters with rater terms, from labels alone | 5,000, however many votes | none |
| `texts` | `fit_joint`: texts and raters in one likelihood | ten votes a text | 576 |
| `choosing` | `choose_joint`: K from 1 to 4 on held-out raters and texts, and the fit | ten votes a text | 384 |

    python benchmarks/rater_fit.py --json rater_fit.json
    python benchmarks/rater_fit.py --case texts --clusters 2 --sizes 1e4 1e5 1e6 --json texts.json
    python benchmarks/rater_fit.py --case choosing --clusters 2 --sizes 12e3 --json choosing.json
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

VOTES_PER_TEXT = 10  # of the cases with features
FEATURES = {"labels": 64, "texts": 576, "choosing": 384}
VOTES_PER_RATER = {"labels": 100, "texts": 100, "choosing": 30}
SIZES = (1, 2, 3, 4)  # K that are compared


def plant(judgements: int, texts: int, clusters: int, seed: int, case: str) -> tuple[Any, Any, Any]:
    """Votes as an `Encoded` table, (U, D) features, and the (R,) cluster of each rater."""
    import numpy as np

    from reward_models.judgements.encoding import Encoded
    from reward_models.judgements.texts import Text

    rng = np.random.default_rng(seed)
    dimensions = FEATURES[case]
    raters = max(judgements // VOTES_PER_RATER[case], clusters * 10)
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

    from reward_models.fitting.joint.choice import choose_joint
    from reward_models.fitting.joint.fit import fit_joint
    from reward_models.fitting.rater_fit import fit_raters
    from reward_models.stats.answers import adjusted_rand_index

    texts = args.texts if args.case == "labels" else judgements // VOTES_PER_TEXT
    table, features, cluster = plant(judgements, texts, args.clusters, args.seed, args.case)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start, cpu_start = time.perf_counter(), time.process_time()
    fit: Any
    if args.case == "texts":
        fit = fit_joint(table, features, "mixture", args.clusters)
    elif args.case == "choosing":
        fit = choose_joint(table, features, [("mixture", k) for k in SIZES]).fit
    else:
        fit = fit_raters(table, "mixture", args.clusters)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    found = fit.responsibilities.argmax(1)
    judged = np.bincount(table.rater, minlength=table.n_raters) > 0
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "data_mib": before,
        "ari": adjusted_rand_index(found[judged], cluster[judged]),
    }


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--sizes", nargs="+", type=float, default=[1e5, 1e6, 1e7], help="judgements per case")
    parser.add_argument("--texts", type=int, default=5000, help="unique statements (default: 5000)")
    parser.add_argument("--clusters", type=int, default=8, help="number of clusters, K (default: 8)")
    parser.add_argument("--case", choices=tuple(FEATURES), default="labels", help="what is timed (default: labels)")
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
        took = f"{found[size]['seconds']:.1f} s ({found[size]['cpu_seconds']:.1f} of the processor)"
        print(f"{size:>12,} judgements: {took}, {found[size]['peak_mib']:,.0f} MiB", flush=True)
    rows, lines = [], []
    sizes = list(found)
    for previous, size in zip([None, *sizes], sizes, strict=False):
        case = ("" if args.case == "labels" else f"{args.case}:") + f"{size:.2g}".replace("e+0", "e")
        values = dict(found[size])
        if previous is not None:
            from math import log

            growth = values["cpu_seconds"] / found[previous]["cpu_seconds"]
            values["exponent"] = log(growth) / log(size / previous)
        units = {"seconds": "s", "cpu_seconds": "s", "peak_mib": "MiB", "data_mib": "MiB"}
        rows += [
            row(case, "mixture", k, v, units.get(k, ""), n=size, clusters=args.clusters) for k, v in values.items()
        ]
        exponent = f"{values['exponent']:.2f}" if "exponent" in values else ""
        times = [f"{values[name]:.1f}" for name in ("seconds", "cpu_seconds")]
        lines.append([case, *times, f"{values['peak_mib']:,.0f}", exponent, f"{values['ari']:.3f}"])
    print_table("fits", ["judgements", "seconds", "of processor", "peak MiB", "exponent", "ARI"], lines)
    write(
        args,
        rows,
        started,
        clusters=args.clusters,
        texts=args.texts if args.case == "labels" else f"judgements / {VOTES_PER_TEXT}",
        features=FEATURES[args.case],
        votes_per_rater=VOTES_PER_RATER[args.case],
    )


if __name__ == "__main__":
    main()
