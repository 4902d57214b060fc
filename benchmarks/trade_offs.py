"""Does best-of-n under a jury follow the weights? On real judgements, without training.

A jury of K clusters is fitted to each data set with the library (labels only), its heads are calibrated to one scale,
and all weights of a grid select among n texts to the same question: a random slate (n = 4, 16) or all texts. A slate
of n texts is an item, and the result of given weights is the clusters' mean reward of their selections.

- `largest_regret`: regret of the selections under three rules, each by its own measure, against a loop over all texts
  that shares no code with the rules. Must be 0 (to rounding).
- `mean_oracle_regret`, `matched`, `spearman`, `violations`, `steerable_score` and more: as defined in
  `plural_rlhf.evaluation.steerable.trade_offs`. They measure by the weighted mean, so only method `mean` can be
  right throughout. `deaf` selects by the prevalence under all weights.
- `hypervolume_share`: the hypervolume dominated by the selections under all weights, as a share of that of all texts
  of the slate; 1 is the whole front. Texts inside the hull, which no weighted mean selects, are out of reach.

The clusters serve as objectives here; how good they are is measured in jury_quality.py. The selections are evaluated
by the same rewards that made them, so this measures the selection, not the jury.

    python benchmarks/trade_offs.py --json trade_offs.json
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _common import environment, make_parser, print_table, row, write
from _jury.cases import DATA, Unavailable, load_case


if TYPE_CHECKING:
    import numpy as np


__all__ = ["main"]

CASES = (
    "ukpconvarg1",
    "polis/15-per-hour-seattle",
    "polis/affordable-housing",
    "polis/biodiversity",
    "polis/canadian-electoral-reform",
    "polis/vtaiwan-uberx",
)
METHODS = ("mean", "nash", "min", "median", "borda", "deaf")
EXHAUSTED = ("mean", "nash", "min")
CLUSTERS = 3
SEATS = 6  # the weightings: all ways to give this many seats to the clusters


def jury_rewards(name: str, clusters: int, data: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(U, K) calibrated rewards of the judged texts, (U,) their question, (K,) prevalence."""
    import numpy as np
    import torch

    from reward_models.fitting import fit_mixture
    from reward_models.jury.calibration import calibrate

    fit = fit_mixture(load_case(name, data).judgements.encode(), clusters)
    prompt = np.unique([str(text.prompt) for text in fit.texts], return_inverse=True)[1]
    scaled = calibrate(fit.rewards, prompt).apply(torch.as_tensor(fit.rewards)).numpy()
    return scaled, prompt, fit.prevalence


def slates(prompt: np.ndarray, n: int | None, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Rows of `count` slates of n texts, in turn from each question; of every question all texts where n is None."""
    import numpy as np

    members = [np.flatnonzero(prompt == p) for p in range(prompt.max() + 1)]
    if n is None:
        return [rows for rows in members if len(rows) > 1]
    large = [rows for rows in members if len(rows) >= n]
    return [rng.choice(large[i % len(large)], size=n, replace=False) for i in range(count)]


def seatings(clusters: int, seats: int) -> np.ndarray:
    """All weightings (F, K) of that many seats."""
    import itertools

    import numpy as np

    return np.array([s for s in itertools.product(range(seats + 1), repeat=clusters) if sum(s) == seats]) / seats


def largest_regret(
    rewards: np.ndarray, chosen: list[np.ndarray], weights: np.ndarray, verdicts: np.ndarray, rule: str
) -> float:
    """Of a rule's verdicts, over all slates and weightings."""
    from plural_rlhf.evaluation.steerable.trade_offs import selection_regret

    def worst_off(row: Any, shares: Any) -> float:
        return min(r for r, w in zip(row, shares, strict=True) if w > 0)

    def log_nash(row: Any, shares: Any) -> float:
        return sum(-w * math.log1p(math.exp(-r)) for r, w in zip(row, shares, strict=True))

    welfare = {"mean": None, "min": worst_off, "nash": log_nash}[rule]
    return max(
        selection_regret(rewards[rows], int(verdict[s].argmax()), w, welfare)
        for w, verdict in zip(weights, verdicts, strict=True)
        for s, rows in enumerate(chosen)
    )


def select(
    rewards: np.ndarray, chosen: list[np.ndarray], weights: np.ndarray, method: str, prevalence: np.ndarray
) -> np.ndarray:
    """(F, slates, N) verdicts of a method under each weighting; slates padded with zeros to the longest."""
    import numpy as np

    from plural_rlhf.evaluation.decisions.welfare_effects import verdict_lotteries

    slate = np.repeat(np.arange(len(chosen)), [len(rows) for rows in chosen])
    place = np.concatenate([np.arange(len(rows)) for rows in chosen])
    shown = rewards[np.concatenate(chosen)]
    verdicts = np.zeros((len(weights), len(chosen), place.max() + 1))
    for verdict, w in zip(verdicts, weights, strict=True):
        jury, rule = (prevalence, "mean") if method == "deaf" else (w, method)
        verdict[slate, place] = verdict_lotteries(shown, slate, jury, [rule])[0]
    return verdicts


def hypervolume_share(rewards: np.ndarray, chosen: list[np.ndarray], verdicts: np.ndarray) -> list[float]:
    """Of each slate; the reference is one standard deviation below the slate's worst in every objective."""
    from plural_rlhf.evaluation.steerable.pareto import hypervolume

    shares = []
    for s, rows in enumerate(chosen):
        points, worst = rewards[rows], rewards[rows].min(axis=0) - 1.0
        picked = points[verdicts[:, s, : len(rows)].argmax(axis=1)]
        shares.append(hypervolume(picked, worst) / hypervolume(points, worst))
    return shares


def measure(name: str, n: int | None, args: Any, fitted: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Any:
    """Tidy rows and lines of the table, of one data set and one n."""
    import numpy as np

    from plural_rlhf.evaluation.intervals import bootstrap_means, percentile_interval
    from plural_rlhf.evaluation.steerable.trade_offs import trade_off_report

    rewards, prompt, prevalence = fitted
    case = f"{name} n={n or 'all'}"
    chosen = slates(prompt, n, 20 if args.smoke else args.slates, np.random.default_rng(args.seed))
    weights = seatings(rewards.shape[1], SEATS)
    rows, lines = [], []
    exhaustive = np.array([np.mean([(rewards[rows_] @ w).max() for rows_ in chosen]) for w in weights])
    for method in METHODS:
        verdicts = select(rewards, chosen, weights, method, prevalence)
        own = ""
        if method in EXHAUSTED:
            regret = largest_regret(rewards, chosen, weights, verdicts, method)
            own = f"{regret:.0e}"
            rows.append(row(case, method, "largest_regret", regret, "reward", n=len(chosen) * len(weights)))
        achieved = np.stack(
            [verdicts[:, s, : len(rows_)] @ rewards[rows_] for s, rows_ in enumerate(chosen)], axis=1
        )  # (F, slates, K)
        report = trade_off_report(achieved, weights, oracle=exhaustive, draws=200, seed=args.seed)
        assert report.oracle_regret is not None
        for r in report.to_rows():
            if math.isfinite(r["value"]):  # the deaf have no rank correlation
                low, high = (math.nan if r[c] is None else r[c] for c in ("ci_low", "ci_high"))
                unit = "reward" if "regret" in r["metric"] or "score" in r["metric"] else ""
                rows.append(row(case, method, r["metric"], r["value"], unit, low=low, high=high, n=r["n"]))
        shares = np.array(hypervolume_share(rewards, chosen, verdicts))
        drawn = bootstrap_means(shares[None, :, None], seed=args.seed)[:, 0]
        (share,) = percentile_interval(shares.mean(keepdims=True), drawn, len(shares), bounds=(0.0, 1.0))
        rows.append(
            row(case, method, "hypervolume_share", share.value, "share", low=share.low, high=share.high, n=len(shares))
        )
        followed = ["-" if math.isnan(a.spearman.value) else f"{a.spearman.value:.2f}" for a in report.axes]
        violations, pairs = sum(a.violations for a in report.axes), sum(a.pairs for a in report.axes)
        lines.append(
            [
                case, method, own, f"{round(report.oracle_regret.mean(), 3) + 0.0:.3f}",
                f"{report.steerable_score.value:.2f}", f"{report.matched:.2f}", " ".join(followed),
                f"{violations}/{pairs}", f"{share.value:.2f}",
            ]
        )  # fmt: skip
    return rows, lines


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument(
        "--cases", nargs="+", choices=CASES, metavar="CASE", help=f"any of {', '.join(CASES)} (default: all)"
    )
    parser.add_argument("--slates", type=int, default=192, help="slates of 4 or 16 texts (default: 192)")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with polis/ and ukpconvarg1/")
    args = parser.parse_args()
    environment()
    started = time.perf_counter()
    cases = args.cases or (CASES[1:2] if args.smoke else CASES)
    rows: list[dict[str, Any]] = []
    lines: list[list[str]] = []
    for name in cases:
        try:
            fitted = jury_rewards(name, CLUSTERS, args.data)
        except Unavailable as reason:
            raise SystemExit(f"{name}: {reason}") from reason
        for n in (4,) if args.smoke else (4, 16, None):
            more, printed = measure(name, n, args, fitted)
            rows += more
            lines += printed
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
    header = [
        "case",
        "method",
        "own regret",
        "regret",
        "score",
        "matched",
        "spearman per axis",
        "violations",
        "hypervolume",
    ]
    print_table("best-of-n under every weighting", header, lines)
    write(args, rows, started, clusters=CLUSTERS, seats=SEATS, slates=args.slates)


if __name__ == "__main__":
    main()
