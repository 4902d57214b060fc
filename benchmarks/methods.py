"""All methods on one table: how near are their answers to people's, on trained questions and on new ones?

Half of the people and a third of the questions of each survey are held out, several times at random. Each method maps
what is left to answer distributions, of everybody and of each group (party, gender). Measured against the people held
out: `jsd_nats` of everybody, `jsd_groups_nats` (the mean over the groups), `coverage` (probability of the offered
answers), with paired differences from the marginal and from ours. `_methods/methods.py` says what each method is,
`_methods/surveys.py` what is held out, `_methods/report.py` how intervals are made. Trained methods read the same
number of answers with the same learning rate, which is not tuned for any of them.

Answers are kept in --parts or beside --json (`FILE.parts/`) by survey, division and method; a benchmark that was
stopped goes on.

  python benchmarks/methods.py --smoke
  python benchmarks/methods.py --methods uniform marginal wording wording-exchanged --splits 10 --json wording.json
  python benchmarks/methods.py --surveys gss_spending bfi --splits 2 --json methods.json      about an hour on a core
  python benchmarks/methods.py --model smollm2 --surveys gss_spending --splits 1 --json methods_smollm2.json
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

from _collapse.runs import add_parts, parts
from _common import environment, make_parser, print_table, write
from _methods.base import Budget
from _methods.methods import METHODS, OF_SHARES, Answers, methods_of, produce
from _methods.report import Scores, rows_of, score
from _methods.surveys import SURVEYS, Division, divide


__all__ = ["main"]

SHOWN = ("jsd_nats", "jsd_nats_difference", "jsd_groups_nats")


def kept_answers(producer: str, division: Division, budget: Budget, folder: Path) -> dict[str, Answers]:
    """Answers of a producer, from the folder if they are there."""
    import numpy as np

    from reward_models.whole_file import write_json

    people = None if division.table is None else division.table.n_raters
    about = json.dumps([division.survey, division.number, people, producer, vars(budget)])
    file = (
        folder
        / f"{division.survey}_{division.number}_{producer}_{hashlib.sha256(about.encode()).hexdigest()[:8]}.json"
    )
    if not file.is_file():
        started = time.perf_counter()
        answers = produce(producer, division, budget)
        plain = {m: {who: np.asarray(p).tolist() for who, p in of.items()} for m, of in answers.items()}
        write_json(file, {"about": about, "answers": plain, "seconds": time.perf_counter() - started}, indent=None)
        print(
            f"  {division.survey}, division {division.number}: {producer}, {time.perf_counter() - started:.0f} s",
            flush=True,
        )
    answers = json.loads(file.read_text(encoding="utf-8"))["answers"]
    return {method: {who: np.array(rows, dtype=float) for who, rows in of.items()} for method, of in answers.items()}


def show(rows: list[dict[str, Any]]) -> None:
    """Prints what is compared, of each survey and of all."""
    lines = [
        [
            r["method"], r["case"], r["part"], r["metric"], r.get("rival", ""), f"{r['value']:+.4f}",
            f"[{r['ci_low']:+.4f}, {r['ci_high']:+.4f}]", str(r["n"]),
        ]
        for r in rows
        if r["metric"] in SHOWN
    ]  # fmt: skip
    print_table("methods", ["method", "survey", "questions", "metric", "minus", "value", "interval", "n"], lines)


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--model", choices=("tiny", "small", "smollm2"), default="small", help="base (default: small)")
    parser.add_argument("--surveys", nargs="+", choices=SURVEYS, default=list(SURVEYS), help="default: all")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS), help="default: all")
    parser.add_argument("--splits", type=int, default=2, help="divisions of each survey (default: 2)")
    parser.add_argument(
        "--answers", type=int, default=2400, help="answers that a method is trained on (default: 2400)"
    )
    parser.add_argument("--rate", type=float, help="learning rate (default: 0.01, of smollm2 0.0005)")
    parser.add_argument("--people", type=int, default=12, help="people read in context, per group (default: 12)")
    parser.add_argument("--max-raters", type=int, help="people of a survey (default: all)")
    add_parts(parser)
    args = parser.parse_args()
    if args.smoke:
        args.surveys, args.methods, args.splits, args.max_raters = ["gss_abortion"], list(METHODS)[:4], 1, 300
    environment()
    started = time.perf_counter()
    rate = args.rate or (5e-4 if args.model == "smollm2" else 1e-2)
    budget = Budget(args.model, args.answers, rate, args.people)
    scores: dict[str, Scores] = {}
    with parts(args) as folder:
        for number in range(args.seed, args.seed + args.splits):
            for survey in args.surveys:
                division = divide(survey, number, most_people=args.max_raters)
                for producer in args.methods:
                    if division.table is None and producer not in OF_SHARES:
                        continue
                    answers = kept_answers(producer, division, budget, folder)
                    for method in methods_of(producer):
                        score(scores.setdefault(method, Scores()), division, answers[method])
    rows = rows_of(scores, args.surveys, {"model": args.model})
    show(rows)
    skipped = sorted({p for p in args.methods if p not in OF_SHARES}) if "wvs_immigration" in args.surveys else []
    write(
        args,
        rows,
        started,
        model=args.model,
        answers=args.answers,
        rate=rate,
        splits=args.splits,
        skipped=dict.fromkeys(skipped, "wvs_immigration has no single people to train on"),
    )


if __name__ == "__main__":
    main()
