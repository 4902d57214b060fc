"""How many votes a statement before labels alone are enough? Labels, features and both, at growing density.

Votes of Polis conversations. A fifth of the votes is held out; of the others each statement keeps at most 3, 5, 10,
30, or all. Three fits of the same membership and size are scored on the held-out votes of statements and people that
the thinned table has: labels alone (`fit_raters`), a consensus that is linear in the vectors (`linear`, a joint fit
whose texts have residuals of tastes only, which are learnt), and both together (`fit_joint`). Rows are nats per vote;
`joint minus better` is the joint fit minus the better of its two rivals, with an interval over raters, the votes of
all splits pooled.

The vectors are MiniLM's. For vtaiwan-uberx, which is Chinese, they are those of SmolLM2, whose byte tokens can spell
it and which knows little of it: features that say next to nothing.

  python benchmarks/thinning.py --smoke
  python benchmarks/thinning.py --json thinning.json --output-plot thinning.png
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _common import environment, interval, make_parser, print_table, row, write
from _jury.cases import DATA, POLIS, load_case
from _jury.text_vectors import text_features


if TYPE_CHECKING:
    import numpy as np

    from reward_models.fitting.em import FitConfig
    from reward_models.judgements.encoding import Encoded
    from reward_models.raters.predictors import Predictor

__all__ = ["main"]

HELDOUT = 0.2
NO_RESIDUAL = 0.02  # logits: the smallest strength that a fit may have
FITS = ("labels", "linear", "joint")


def thinned(enc: Encoded, votes: int, rng: np.random.Generator) -> tuple[Encoded, Encoded]:
    """At most `votes` votes per statement, and the held-out votes of the same statements and raters."""
    import numpy as np

    text = enc.alternatives[:, 0]
    held = rng.random(len(enc)) < HELDOUT
    order = np.lexsort((rng.random(len(enc)), held, text))  # by statement, held-out votes last, otherwise at random
    rank = np.empty(len(enc), dtype=np.int64)
    rank[order] = np.arange(len(enc)) - np.searchsorted(text[order], text[order])
    kept = ~held & (rank < votes)
    known = np.isin(enc.rater, enc.rater[kept]) & np.isin(text, text[kept])
    return enc.select(kept, drop_raters=True), enc.select(held & known)


def fit(name: str, train: Encoded, features: np.ndarray, clusters: int, config: FitConfig) -> Predictor:
    """Fit one of `FITS`."""
    import numpy as np

    from reward_models.fitting.joint.fit import JointTables, fit_around, fit_joint
    from reward_models.fitting.joint.problem import Strengths
    from reward_models.fitting.joint.strengths import Consensus, fit_consensus
    from reward_models.fitting.rater_fit import fit_raters
    from reward_models.raters.lbfgs import one_thread

    if name == "labels":
        return fit_raters(train, "mixture", clusters, config=config)
    if name == "joint":
        return fit_joint(train, features, "mixture", clusters, config=config)
    tables = JointTables.of(train, features)
    with one_thread():
        consensus = fit_consensus(tables.problem("mixture", 1, config))
        linear = Strengths(consensus.strengths.features, np.array([NO_RESIDUAL]))
        return fit_around(tables, Consensus(linear, consensus.params), "mixture", clusters, config)


def measure(name: str, args: Any) -> list[dict[str, Any]]:
    """Rows of one conversation."""
    import numpy as np

    from reward_models.fitting.em import FitConfig
    from reward_models.raters.predictors import answer_log_lik
    from reward_models.seeds import seeded_rng
    from reward_models.stats.judgement_means import two_way_intervals

    case = load_case(f"polis/{name}", args.data)
    model = "minilm" if case.language == "en" else "smollm2"
    vectors = text_features(model, dataclasses.replace(case, language="en"))
    enc = case.judgements.encode()
    features = np.stack([vectors[text] for text in enc.texts]).astype(np.float64)
    rows, lines = [], []
    for votes in args.votes:
        losses: dict[str, list[np.ndarray]] = {fit_name: [] for fit_name in FITS}
        raters, items = [], []
        for split in range(args.splits):
            rng = seeded_rng(args.seed + split, f"thinning {name} {votes}")
            train, test = thinned(enc, votes, rng)
            for fit_name in FITS:
                fitted = fit(fit_name, train, features, args.clusters, FitConfig(seed=args.seed + split))
                losses[fit_name].append(-answer_log_lik(fitted.log_probs(test, features), test))
            raters.append(test.rater)
            items.append(test.item)
        density = "all" if votes >= len(enc) else str(votes)
        title, mean = f"{name}:{density}", {k: float(np.concatenate(v).mean()) for k, v in losses.items()}
        for fit_name, per_split in losses.items():
            _, low, high = interval([float(values.mean()) for values in per_split])
            rows.append(
                row(title, fit_name, "nll", mean[fit_name], "nats", low=low, high=high, n=args.splits, features=model)
            )
        rival = min(("labels", "linear"), key=lambda fit_name: mean[fit_name])
        change = np.concatenate(losses["joint"]) - np.concatenate(losses[rival])
        gap = two_way_intervals(change[:, None], np.concatenate(raters), np.concatenate(items), items=False)[0]
        rows.append(
            row(title, "joint", "joint_minus_better", gap.value, "nats", low=gap.low, high=gap.high, n=len(change))
        )
        difference = f"{gap.value:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"
        lines.append([density, *(f"{mean[fit_name]:.4f}" for fit_name in FITS), difference])
    print_table(f"{name}, {model}, K = {args.clusters}", ["votes", *FITS, "joint minus better rival"], lines)
    return rows


def plot(rows: list[dict[str, Any]], file: Path) -> None:
    """Loss by density, one panel per conversation."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(r["case"].split(":")[0] for r in rows))
    figure, axes = plt.subplots(1, len(names), figsize=(4.5 * len(names), 3.4), squeeze=False, layout="constrained")
    for axis, name in zip(axes[0], names, strict=True):
        for fit_name, style in zip(FITS, ("o--", "s:", "D-"), strict=True):
            of_fit = [r for r in rows if r["case"].startswith(f"{name}:") and r["method"] == fit_name]
            of_fit = [r for r in of_fit if r["metric"] == "nll"]
            axis.plot(range(len(of_fit)), [r["value"] for r in of_fit], style, label=fit_name)
            axis.set_xticks(range(len(of_fit)), [r["case"].split(":")[1] for r in of_fit])
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("votes per statement")
    axes[0, 0].set_ylabel("nats per held-out vote")
    axes[0, 0].legend()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
    print(f"Drawn to {file}")


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument(
        "--conversations", nargs="+", choices=POLIS, default=["vtaiwan-uberx", "bowling-green"], metavar="NAME",
        help=f"{', '.join(POLIS)} (default: vtaiwan-uberx bowling-green)",
    )  # fmt: skip
    parser.add_argument(
        "--votes", nargs="+", type=int, default=[3, 5, 10, 30, 10**9], help="votes a statement (default: 3 ... all)"
    )
    parser.add_argument("--clusters", type=int, default=2, help="K of all fits (default: 2)")
    parser.add_argument("--splits", type=int, default=5, help="random splits (default: 5)")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with polis/")
    parser.add_argument("--output-plot", type=Path, metavar="PNG", help="draw the losses")
    args = parser.parse_args()
    environment()
    started = time.perf_counter()
    if args.smoke:
        args.conversations, args.votes, args.splits = ["15-per-hour-seattle"], [5, 30], 2
    rows = [r for name in args.conversations for r in measure(name, args)]
    if args.output_plot is not None:
        plot(rows, args.output_plot)
    write(args, rows, started, splits=args.splits, clusters=args.clusters, heldout=HELDOUT)


if __name__ == "__main__":
    main()
