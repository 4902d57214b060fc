"""Which way a value points in a situation: a fitted judge against words and against the most frequent valence.

Each row is judged by a judge that was fitted without its value. `--data` is a file of ValuePrism's shape, or the
steerable file of Modular Pluralism (github.com/BunsenFeng/modular_pluralism, `input/steerable_test_valuekaleidoscope_
small.json`, 4,368 rows); without it planted situations are judged, which says nothing about real ones. Intervals
are over values. `contrasts` are 16 pairs of situations written by hand.

  python benchmarks/value_judges.py --smoke
  python benchmarks/value_judges.py --data steerable_test_valuekaleidoscope_small.json --json value_judges.json
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from _common import environment, make_parser, print_table, row, write

from plural_rlhf.evaluation.tables.valued_situations import VALENCES
from plural_rlhf.methods.kaleidoscope import (
    BackboneVectors,
    contrasts_right,
    fit_value_judge,
    heldout_valences,
    planted_valued_situations,
    read_valued_situations,
    valence_accuracy,
    word_vectors,
)
from plural_rlhf.methods.kaleidoscope.measures import CONTRASTS, majority_valences, word_valences
from reward_models.jury.backbones.loading import minilm_folder
from reward_models.stats.few_units import means_interval
from reward_models.stats.shares import share_interval


__all__ = ["main"]

METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "binary_accuracy", "nats")


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    case = "planted" if args.data is None else args.data.stem
    rows = planted_valued_situations() if args.data is None else read_valued_situations(args.data)
    rows = [r for r in rows if r.valence is not None]
    backbone = args.backbone or minilm_folder()
    vectors = word_vectors if backbone is None or args.smoke else BackboneVectors(backbone)
    judged = {
        "majority": majority_valences(rows, seed=args.seed),
        "words": word_valences(rows, seed=args.seed),
        "fitted": heldout_valences(rows, vectors, seed=args.seed),
    }
    made, lines = [], []
    for method, probabilities in judged.items():
        measured = valence_accuracy(rows, probabilities)
        for name in METRICS:
            of = measured[name]
            made.append(row(case, method, name, of.value, "", low=of.low, high=of.high, n=len(rows)))
        lines.append(
            [method, *(f"{measured[m].value:.3f} [{measured[m].low:.3f}, {measured[m].high:.3f}]" for m in METRICS)]
        )
    gold = np.array([VALENCES.index(str(r.valence)) for r in rows])
    names, group = np.unique([r.value.text.casefold() for r in rows], return_inverse=True)
    right = {m: (p.argmax(axis=1) == gold).astype(float) for m, p in judged.items()}
    for rival in ("majority", "words"):
        of_value = np.column_stack([np.bincount(group, right["fitted"] - right[rival]), np.bincount(group)])
        gain, low, high = means_interval(of_value, lambda means: means[..., 0] / means[..., 1])
        made.append(row(case, "fitted", f"accuracy_minus_{rival}", gain, "", low=low, high=high, n=len(rows)))
        lines.append([f"fitted minus {rival}", f"{gain:+.3f} [{low:+.3f}, {high:+.3f}]", "", "", "", ""])
    if args.data is not None:
        contrasts = contrasts_right(fit_value_judge(rows, vectors, seed=args.seed))
        ends = share_interval(np.array(contrasts.mean()), np.array(len(contrasts)))
        low, high = (float(end) for end in ends)
        made.append(
            row(case, "fitted", "contrasts", float(contrasts.mean()), "", low=low, high=high, n=len(CONTRASTS))
        )
        lines.append(["contrasts", f"{contrasts.sum()} of {len(contrasts)}", "", "", "", ""])
    print_table(f"{case}: {len(rows)} rows, {len(names)} values", ["", *METRICS], lines)
    return made


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--data", type=Path, help="situations with values and valences")
    parser.add_argument("--backbone", help="folder or Hub id of an embedder or a decoder (default: MiniLM)")
    args = parser.parse_args()
    environment()
    started = time.perf_counter()
    rows = run(args)
    write(args, rows, started, backbone=str(args.backbone or "minilm"))


if __name__ == "__main__":
    main()
