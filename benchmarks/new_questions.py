"""Does the check on known questions tell what new questions will show, as `plural-rlhf predict-questions` says?

Surveys: a third of the questions is held out at random, several times; the others are known. Compared are the
difference between wording and marginal that the check states (JS divergence, nats), that of the held-out questions,
and how many of the held-out shares lie inside the 90 % intervals. Made-up surveys: wordings say nothing, something or
much; the interval of the check should cover the mean difference on 300 new questions of the same kind.

  python benchmarks/new_questions.py --smoke
  python benchmarks/new_questions.py --json new_questions.json      (about five minutes on one core)
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from _common import environment, make_parser, print_table, row, write

from plural_rlhf.methods.new_questions.predict import crossed_shares
from reward_models.baselines.similar_questions import fit_similar_questions
from reward_models.progress import track
from reward_models.seeds import seeded_rng
from reward_models.stats.answers import js_divergence
from reward_models.stats.few_units import crossed_interval, mean_interval


__all__ = ["main"]

SURVEYS = ("gss_spending", "bfi", "verbagg")
TOLD = {"nothing": 0.0, "something": 1.0, "much": 2.0}
"""How much the wordings of made-up surveys say, in logits."""
SIZES = (6, 8, 12, 18, 25)
NEW = 300
NUMBERS = 8
"""Numbers of a made-up vector."""


def surveys(divisions: int, seed: int) -> Iterator[dict[str, Any]]:
    """Rows of the surveys."""
    from _methods.base import minilm

    from plural_rlhf.evaluation.open_ended.embedder import text_embedder
    from plural_rlhf.methods.new_questions import NewQuestion, known_questions, predict_questions
    from reward_models.errors import JudgementWarning
    from reward_models.sources import load_survey

    warnings.simplefilter("ignore", JudgementWarning)
    embed = text_embedder(minilm())
    for survey in SURVEYS:
        table = load_survey(survey)
        [known] = known_questions(table)
        checked, shown, inside, better = [], [], [], []
        for number in track(range(divisions), survey):
            order = seeded_rng(seed + number, f"questions held out of {survey}").permutation(len(known.ids))
            heldout = order[: len(order) // 3]
            names = {known.ids[place] for place in heldout}
            new = [NewQuestion(known.ids[place], known.texts[place]) for place in heldout]
            part = table.select(~table.frame["item_id"].isin(names).to_numpy())
            [[predicted]] = predict_questions(part, new, embed)
            columns = [predicted.known.options.index(option) for option in known.options]
            people, shares = known.shares[heldout], predicted.shares[:, columns]
            by_wording, by_mean = (
                js_divergence(predicted.known.shares, predicted.crossed[way]) for way in ("wording", "marginal")
            )
            checked.append(float((by_wording - by_mean).mean()))
            shown.append(
                float((js_divergence(people, shares) - js_divergence(people, predicted.marginal[columns])).mean())
            )
            inside.append(float((np.abs(shares - people) <= predicted.half_width[columns]).mean()))
            better.append(float(crossed_interval(by_wording - by_mean)[1] < 0))
        for metric, values in (("check", checked), ("heldout", shown)):
            yield row(survey, "wording", f"{metric}_jsd_difference", float(np.mean(values)), "nats", n=divisions)
        yield row(survey, "wording", "inside_90_percent", float(np.mean(inside)), "share", n=divisions)
        yield row(survey, "wording", "called_better", float(np.mean(better)), "share", n=divisions)


def made_up(draws: int, sizes: tuple[int, ...], seed: int) -> Iterator[dict[str, Any]]:
    """Rows of the made-up surveys."""
    for name, told in TOLD.items():
        for size in sizes:
            found = []
            for draw in track(range(draws), f"wordings that say {name}, {size} questions"):
                rng = seeded_rng(seed + draw, "a made-up survey")
                slopes = told * rng.normal(size=(NUMBERS, 3))
                shares, vectors = _questions(rng, size, slopes)
                new_shares, new_vectors = _questions(rng, NEW, slopes)
                crossed = crossed_shares(shares, vectors, np.arange(size))
                gain = js_divergence(shares, crossed["wording"]) - js_divergence(shares, crossed["marginal"])
                fit = fit_similar_questions(shares, vectors)
                truth = js_divergence(new_shares, fit.shares(new_vectors)) - js_divergence(new_shares, fit.marginal)
                ends = crossed_interval(gain), mean_interval(gain)
                found.append([*(low <= truth.mean() <= high for low, high in ends), *(high < 0 for _, high in ends)])
            shares_of = np.mean(found, axis=0)
            for place, method in enumerate(("widened", "plain t")):
                for metric, value in (("covers", shares_of[place]), ("called_better", shares_of[2 + place])):
                    yield row(f"wordings say {name}", method, metric, float(value), "share", n=draws, questions=size)


def _questions(rng: np.random.Generator, number: int, slopes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares and vectors of questions, the shares partly by the direction of the vector."""
    vectors = rng.normal(size=(number, len(slopes)))
    directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    shares = np.exp(directions @ slopes + 0.5 * rng.normal(size=(number, slopes.shape[1])))
    return shares / shares.sum(axis=1, keepdims=True), vectors


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--divisions", type=int, default=12, help="divisions of each survey (default: 12)")
    parser.add_argument("--draws", type=int, default=100, help="made-up surveys of each kind (default: 100)")
    args = parser.parse_args()
    if args.smoke:
        args.divisions, args.draws = 0, 5
    environment()
    started = time.perf_counter()
    rows = list(made_up(args.draws, SIZES[:2] if args.smoke else SIZES, args.seed))
    if args.divisions:
        rows += surveys(args.divisions, args.seed)
    lines = [
        [r["case"], r["method"], str(r.get("questions", "")), r["metric"], f"{r['value']:+.4f}", str(r["n"])]
        for r in rows
    ]
    print_table("predicted questions", ["survey", "interval", "questions", "metric", "value", "n"], lines)
    write(args, rows, started, divisions=args.divisions, draws=args.draws)


if __name__ == "__main__":
    main()
