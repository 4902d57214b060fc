"""How often 95 % intervals cover the truth, on simulated panels in which both raters and items have effects.

Each panel draws items and raters anew; its people answer questions with four options, and rate answers to questions in
four groups. Two policies are near people, one is far. What is estimated is what is true of all people and all items;
of the OvertonScore, which depends on how many people of a group rate, what as many would give on average. Of gains per
judgement, such as those of `headroom`, every rater has a fifth of the items. Beside our intervals stand naive ones
that let one side vary only: items, or raters.

  python benchmarks/interval_coverage.py --smoke
  python benchmarks/interval_coverage.py --json interval_coverage.json      (twenty minutes on one core)
  python benchmarks/interval_coverage.py --raters 30 100 --items 6 25 --panels 1000
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from _common import environment, make_parser, print_table, row, write
from scipy.special import softmax
from scipy.stats import norm, t

from plural_rlhf.evaluation.overton.score import QuestionRatings, overton_score
from reward_models.progress import track
from reward_models.seeds import seeded_rng
from reward_models.stats.answers import Interval, Resamples, js_divergence, normalise, resample_people
from reward_models.stats.judgement_means import two_way_intervals
from reward_models.stats.shares import share_interval
from reward_models.stats.two_way import two_way_interval


__all__ = ["STATISTICS", "main", "measure"]

A = 4
SCALE = np.arange(A) - (A - 1) / 2
UNIFORM = np.full(A, 1 / A)
EFFECTS = {"usual": (0.9, 0.7), "strong": (1.5, 1.2)}  # standard deviations of items and of raters, in logits
THRESHOLD = 1.7  # mean answer from which a question counts as approved
GROUPS = np.array([-0.6, -0.2, 0.2, 0.6])  # how groups like a policy's answers beyond others
DRAWS = 200

PerItem = Callable[[np.ndarray], np.ndarray]
Policies = dict[str, np.ndarray]


def mean(policies: Policies) -> PerItem:
    return lambda human: human[..., -1]


def distance(policy: str) -> Callable[[Policies], PerItem]:
    return lambda policies: lambda human: js_divergence(human, policies[policy])


def difference(one: str, other: str) -> Callable[[Policies], PerItem]:
    return lambda policies: lambda human: js_divergence(human, policies[one]) - js_divergence(human, policies[other])


def skill(policy: str) -> Callable[[Policies], PerItem]:
    return lambda policies: (
        lambda human: np.stack([js_divergence(human, policies[policy]), js_divergence(human, UNIFORM)], axis=-1)
    )


def approved(policies: Policies) -> PerItem:
    return lambda human: (human @ np.arange(A) >= THRESHOLD).astype(float)


def ratio(means: np.ndarray) -> np.ndarray:
    return 1 - means[..., 0] / means[..., 1]


# Per item, function of the means, whether the bias of few raters is taken off.
STATISTICS: dict[str, tuple[Callable[[Policies], PerItem], Callable[[np.ndarray], np.ndarray] | None, bool]] = {
    "mean": (mean, None, False),
    "divergence, near": (distance("near"), None, True),
    "divergence, far": (distance("far"), None, True),
    "skill, near": (skill("near"), ratio, True),
    "skill, far": (skill("far"), ratio, True),
    "difference, near and near": (difference("near too", "near"), None, False),
    "difference, far and near": (difference("far", "near"), None, False),
    "share above a threshold": (approved, None, False),
}
NAIVE = ("items", "raters")


def population(logits: np.ndarray, spread: float) -> np.ndarray:
    """Answers of all people (I, A) to each item: the raters' normal effect is integrated out."""
    effects = norm.ppf((np.arange(41) + 0.5) / 41) * spread
    return softmax(logits[:, None, :] + effects[:, None] * SCALE, axis=-1).mean(axis=1)


def policies_of(shares: np.ndarray, rng: np.random.Generator) -> Policies:
    spreads = {"near": 0.15, "near too": 0.15, "far": 0.5}
    return {name: normalise(shares * np.exp(rng.normal(0, s, shares.shape))) for name, s in spreads.items()}


@cache
def truths(effects: str) -> dict[str, float]:
    rng = seeded_rng(99, "truths of simulated panels")
    of_items, of_raters = EFFECTS[effects]
    shares = population(rng.normal(0, of_items, (40_000, A)), of_raters)
    policies, truth = policies_of(shares, rng), {}
    for name, (per_item, statistic, _) in STATISTICS.items():
        means = per_item(policies)(shares).reshape(len(shares), -1).mean(axis=0)
        truth[name] = float(means[0] if statistic is None else statistic(means))
    return truth | {"difference, near and near": 0.0}


def naive_intervals(people: Resamples, per_item: PerItem, estimate: float) -> dict[str, Interval]:
    """Intervals of a mean over items that resample one side only."""
    values = per_item(people.human)
    n = values.shape[1]
    half = t.ppf(0.975, n - 1) * values[0].std(ddof=1) / np.sqrt(n)
    drawn = values[1:].mean(axis=1)
    low, high = np.quantile(drawn - drawn.mean(), [0.025, 0.975]) + estimate
    return {
        "items": Interval(estimate, estimate - half, estimate + half, 0, n),
        "raters": Interval(estimate, float(low), float(high), people.n_raters, n),
    }


def answered_panel(effects: str, raters: int, items: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw the answers (R, I) of a panel, and what all people would answer (I, A)."""
    of_items, of_raters = EFFECTS[effects]
    logits = rng.normal(0, of_items, (items, A))
    utilities = logits + rng.normal(0, of_raters, raters)[:, None, None] * SCALE
    return (utilities + rng.gumbel(size=utilities.shape)).argmax(axis=-1), population(logits, of_raters)


def rated_panel(effects: str, raters: int, items: int, rng: np.random.Generator) -> dict[str, QuestionRatings]:
    """Draw ratings of one answer per question by the same raters, in four groups of equal size."""
    of_items, of_raters = EFFECTS[effects]
    group = np.arange(raters) % len(GROUPS)
    likes = (
        3.5
        + rng.normal(0, of_items / 2, (items, 1))
        + rng.normal(0, of_items / 2, (items, len(GROUPS)))[:, group]
        + (GROUPS[group] + rng.normal(0, of_raters, raters))
        + rng.normal(0, 1, (items, raters))
    )
    ratings = np.clip(np.round(likes), 1, 5)
    return {
        str(i): QuestionRatings(ratings[i : i + 1], group.tolist(), raters=list(range(raters))) for i in range(items)
    }


@cache
def overton_truth(effects: str, raters: int) -> float:
    rng = seeded_rng(98, "truths of simulated ratings")
    return float(np.mean([overton_score(of_few(effects, raters, rng), draws=2).value for _ in range(600)]))


def of_few(effects: str, raters: int, rng: np.random.Generator) -> dict[str, QuestionRatings]:
    """Ratings of 25 questions without the names of raters, which only intervals need."""
    panel = rated_panel(effects, raters, 25, rng)
    return {name: QuestionRatings(of.ratings, of.groups) for name, of in panel.items()}


def gains_panel(effects: str, raters: int, items: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Draw a skewed gain (N,) for each of the judgements that raters (N,) gave of items (N,); its mean is 0."""
    of_items, of_raters = (spread / 3 for spread in EFFECTS[effects])
    judged = rng.random((raters, items)).argsort(axis=1) < max(2, items // 5)
    rater, item = np.nonzero(judged)
    surprise = rng.exponential(size=items) - 1
    gains = of_items * surprise[item] + of_raters * rng.normal(size=raters)[rater] + rng.normal(0, 0.5, len(rater))
    return gains, rater, item


def measure(
    effects: str, raters: int, items: int, panels: int, seed: int = 0, overton: bool = True
) -> dict[tuple[str, str], tuple[float, float]]:
    """Return the share of panels that are covered and the median width, by statistic and by what is resampled."""
    rng = seeded_rng(seed, f"simulated panels of {raters} raters and {items} items, {effects} effects")
    intervals: dict[tuple[str, str], list[Interval]] = defaultdict(list)
    for panel in range(panels):
        answers, shares = answered_panel(effects, raters, items, rng)
        people = resample_people(answers, A, draws=DRAWS, seed=panel)
        policies = policies_of(shares, rng)
        for name, (per_item, statistic, debias) in STATISTICS.items():
            both = two_way_interval(people, per_item(policies), statistic, debias=debias, share=per_item is approved)
            intervals[name, "both"].append(both)
            if statistic is None:
                for side, interval in naive_intervals(people, per_item(policies), both.value).items():
                    intervals[name, side].append(interval)
        gains, rater, item = gains_panel(effects, raters, items, rng)
        for side in ("both", "raters"):
            [interval] = two_way_intervals(gains[:, None], rater, item, items=side == "both")
            intervals["gain per judgement", side].append(interval)
        if overton:
            rated = rated_panel(effects, raters, items, rng)
            intervals["OvertonScore", "both"].append(overton_score(rated, draws=DRAWS, seed=panel))
            unnamed = {name: QuestionRatings(of.ratings, of.groups) for name, of in rated.items()}
            intervals["OvertonScore", "items"].append(overton_score(unnamed))
    truth = (
        truths(effects)
        | {"gain per judgement": 0.0}
        | ({"OvertonScore": overton_truth(effects, raters)} if overton else {})
    )
    return {
        (name, side): (
            float(np.mean([of.low <= truth[name] <= of.high for of in found])),
            float(np.median([of.high - of.low for of in found])),
        )
        for (name, side), found in intervals.items()
    }


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    sizes = [(raters, items) for items in args.items for raters in args.raters]
    made: list[dict[str, Any]] = []
    for effects in args.effects:
        for raters, items in track(sizes, f"panels, {effects} effects"):
            case = f"{raters} x {items}, {effects}"
            for (name, side), (share, width) in measure(effects, raters, items, args.panels, args.seed).items():
                low, high = (float(end) for end in share_interval(np.array(share), np.array(args.panels)))
                made.append(
                    row(case, side, f"coverage of {name}", share, "share", low=low, high=high, n=args.panels)
                    | {"effects": effects, "raters": raters, "items": items, "statistic": name, "width": width}
                )
        for side in ("both", *NAIVE):
            of_side = [r for r in made if r["method"] == side and r["effects"] == effects]
            lines = [
                [name, *(f"{_value(of_side, name, *size):.2f}" for size in sizes)]
                for name in dict.fromkeys(r["statistic"] for r in of_side)
            ]
            header = ["", *(f"{raters}x{items}" for raters, items in sizes)]
            print_table(f"{effects} effects, {side} resampled: share of 95 % intervals that cover", header, lines)
    return made


def _value(rows: list[dict[str, Any]], name: str, raters: int, items: int) -> float:
    [share] = [r["value"] for r in rows if (r["statistic"], r["raters"], r["items"]) == (name, raters, items)]
    return float(share)


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--raters", type=int, nargs="+", default=[12, 30, 100, 700])
    parser.add_argument("--items", type=int, nargs="+", default=[5, 6, 12, 25, 60])
    parser.add_argument("--panels", type=int, default=400, help="panels of each size (default: 400)")
    parser.add_argument("--effects", nargs="+", choices=tuple(EFFECTS), default=list(EFFECTS))
    args = parser.parse_args()
    if args.smoke:
        args.raters, args.items, args.panels, args.effects = [30], [6, 12], 20, ["usual"]
    environment()
    started = time.perf_counter()
    rows = run(args)
    write(args, rows, started)


if __name__ == "__main__":
    main()
