"""Which method predicts judgements best? Juries and published methods side by side on real data.

Four tasks: new labels of known people (`labels:seen`), new people, with adaptation to 0, 5 or 20 of their labels
(`labels:unseen`), texts that nobody has judged (`minilm:unseen`, `smollm2:unseen`; every method uses the same
features), and questions that nobody has answered (`minilm:questions`, `smollm2:questions`). A control shuffles answers
among the raters of each item (`labels:seen:shuffled`): without taste in the data, a method that distinguishes raters
can only lose.

Every method with a size (clusters, prototypes, rank, length of a code) chooses it among the same candidates by the
labels of held-out training raters; scored labels are never used. All are fitted once with the settings of this
package; published methods are re-implementations, see `_jury/methods.py`. Differences are paired: the judgements of
all splits are pooled, and raters and items are resampled, each with all its judgements in all splits. A negative
difference in nats is better.

Finished results are saved beside --json (`FILE.parts/`), and a run that was stopped resumes from there.

  python benchmarks/jury_quality.py --smoke
  python benchmarks/jury_quality.py --json jury_quality.json
  python benchmarks/jury_quality.py --cases polis/vtaiwan-uberx --methods bt auto pal --splits 2 --json taiwan.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _common import environment, make_parser, row, write
from _jury.cases import CASES, CELLS, DATA, FEATURES, SURVEYS, Case, Unavailable, load_case
from _jury.cells import Parts, measure, open_cell
from _jury.methods import CHOOSING, LARGEST, METHODS, ONLY_NAMED, OURS
from _jury.report import plot, show, summarise


if TYPE_CHECKING:
    from tqdm.auto import tqdm

    from reward_models.evaluation.comparisons import Comparison

__all__ = ["main"]

ALL_METHODS = (*METHODS, *CHOOSING)
SMOKE = {
    "cases": ["polis/15-per-hour-seattle", "polis/canadian-electoral-reform"],
    "methods": ["bt", "bias-only", "mixture"],
    "features": ["labels"],
    "splits": 1,
    "sizes": [1, 2],
    "draws": 50,
    "no_controls": True,
}


def skip(title: str, method: str, reason: object) -> dict[str, Any]:
    """A row that says why there is no number, and the same on the terminal."""
    print(f"{title} {method} skipped: {reason}")
    return row(title, method, "skipped", float("nan"), "", n=0, skipped=str(reason))


def run_cell(
    case: Case, name: str, args: argparse.Namespace, parts: Parts, bar: tqdm
) -> tuple[list[dict[str, Any]], list[Comparison]]:
    """Measure all methods in one cell of a case: tidy rows, and comparisons with BT."""
    from reward_models.errors import JuryError

    try:
        cell = open_cell(case, name, args.splits, args.seed)
    except (Unavailable, ImportError) as reason:
        bar.update(len(args.methods) * args.splits)
        return [skip(f"{case.name}:{name}", "all", reason)], []
    rows, comparisons = [], []
    for method in args.methods:
        bar.set_postfix_str(f"{cell.title} {method}")
        found = []
        try:
            for number in range(args.splits):
                found.append(measure(cell, number, method, parts, args.sizes))
                bar.update()
            cell.found[method] = found
        except (Unavailable, JuryError, ImportError) as reason:
            bar.update(args.splits - len(found))
            rows.append(skip(cell.title, method, reason))
    for n in cell.counts if cell.found else []:
        of_cell, compared = summarise(cell, n, parts, args.draws)
        show(cell, n, of_cell)
        rows += of_cell
        comparisons += compared
    return rows, comparisons


def run(args: argparse.Namespace, parts: Parts) -> list[dict[str, Any]]:
    import torch  # noqa: F401  (a second or two, which would be counted as the first method's)
    from tqdm.auto import tqdm

    from reward_models.evaluation.comparisons import in_words

    cells = [name for name in args.cells if name.split(":")[0] in args.features]
    if args.no_controls:
        cells = [name for name in cells if not name.endswith(":shuffled")]
    rows: list[dict[str, Any]] = []
    found: dict[str, list[Comparison]] = {"Verdict": [], "Controls": []}
    with tqdm(total=len(args.cases) * len(cells) * len(args.methods) * args.splits, unit="fit", smoothing=0) as bar:
        for case_name in args.cases:
            try:
                case = load_case(case_name, args.data, max_raters=args.max_raters, seed=args.seed)
            except Unavailable as reason:
                rows.append(skip(case_name, "all", reason))
                bar.update(len(cells) * len(args.methods) * args.splits)
                continue
            for name in cells:
                of_cell, comparisons = run_cell(case, name, args, parts, bar)
                rows += of_cell
                found["Controls" if name.endswith(":shuffled") else "Verdict"] += comparisons
    for title, comparisons in found.items():
        ours = [c for c in comparisons if c.method in (*OURS, "bias-only", "joint-one")]
        if ours:
            print(f"{title}: {in_words(ours)}")
    return rows


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument(
        "--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE", help=", ".join(CASES)
    )
    parser.add_argument(
        "--methods", nargs="+", choices=ALL_METHODS, metavar="METHOD",
        default=[method for method in ALL_METHODS if method not in ONLY_NAMED],
        help=f"{', '.join(ALL_METHODS)} (default: all but {', '.join(ONLY_NAMED)})",
    )  # fmt: skip
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=int,
        default=[1, 2, 3, 4],
        help="candidate sizes: clusters, ranks ... (default: 1 2 3 4)",
    )
    parser.add_argument("--draws", type=int, default=400, help="bootstrap resamples per interval (default: 400)")
    parser.add_argument("--splits", type=int, default=5, help="random splits (default: 5)")
    parser.add_argument(
        "--features", nargs="+", choices=("labels", *FEATURES), default=["labels", *FEATURES],
        help="inputs: labels, or features of a language model (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--cells", nargs="+", choices=CELLS, default=list(CELLS), metavar="CELL",
        help=f"what is held out: {', '.join(CELLS)} (default: all)",
    )  # fmt: skip
    parser.add_argument("--no-controls", action="store_true", help="skip the shuffled controls")
    parser.add_argument(
        "--max-raters", type=int, default=5000, help="random sample of a survey's raters (default: 5000)"
    )
    parser.add_argument("--data", type=Path, default=DATA, help="folder with polis/, ukpconvarg1/, ... (see cases)")
    parser.add_argument(
        "--fresh", action="store_true", help="discard the results saved beside --json, e.g. after a change of code"
    )
    parser.add_argument("--output-plot", type=Path, metavar="PNG", help="draw the differences to BT")
    args = parser.parse_args()
    if args.splits < 1:
        parser.error(f"--splits is {args.splits}, and nothing can be scored without one")
    if args.smoke:
        vars(args).update(SMOKE)
    environment()
    started = time.perf_counter()
    settings = {"seed": args.seed, "max_raters": args.max_raters, "sizes": args.sizes}
    with tempfile.TemporaryDirectory() as scratch:
        kept = Path(scratch) if args.json is None else args.json.with_suffix(".parts")
        rows = run(args, Parts(kept, settings, args.fresh))
    if args.output_plot is not None:
        plot(rows, args.output_plot)
    write(
        args,
        rows,
        started,
        splits=args.splits,
        sizes=args.sizes,
        largest_sizes=json.dumps(LARGEST),
        tuning="every method with a size chose it among `sizes`, by labels of held-out training raters; auto chose "
        "among the memberships and sizes of reward_models.fitting.selection.CANDIDATES in the same way",
        interval="95 %; raters and items resampled, judgements of all splits pooled; worst_cluster_accuracy and "
        "pairwise_calibration: mean of the splits' intervals; seconds and chosen_k: range over splits",
        surveys=f"at most {args.max_raters} raters of {', '.join(SURVEYS)}",
    )


if __name__ == "__main__":
    main()
