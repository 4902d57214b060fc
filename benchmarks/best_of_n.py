"""Does selecting by a jury please held-out people more than selecting by one reward?

Real people's answers to open questions are the candidates (polarized issues, about 300 per question). Raters are
halved at random. A jury and one reward are fitted to the votes and pairs of one half, on vectors of MiniLM; a jury of
the other half, on vectors of SmolLM2, says what a selected answer is worth to each of its clusters. Best-of-n is
computed in closed form over all subsets of n answers.

Selection is by one reward; by the jury's mean under its prevalence; by its worst cluster; and once for each cluster of
the judging jury: by the jury under weights that were chosen for that cluster on the *other* questions ("each
audience"), or by the jury's cluster that correlates most with it there ("each cluster"). Gains of all splits
are averaged by question; intervals (Student's t) and differences are over questions, paired.

  python benchmarks/best_of_n.py --smoke
  python benchmarks/best_of_n.py --json best_of_n.json --output-plot best_of_n.png
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _common import environment, make_parser, row, write
from _jury.cases import DATA, FEATURES, Case, Unavailable, load_case
from _jury.polarized import POLARIZED
from _jury.text_vectors import text_features


if TYPE_CHECKING:
    import numpy as np

    from reward_models.evaluation.candidates.best_of_n import BestOfN
    from reward_models.evaluation.candidates.pools import Pool
    from reward_models.fitting.joint.fit import JointFit
    from reward_models.judgements.texts import Text

__all__ = ["main"]

CLUSTERS = ("larger cluster", "smaller cluster")
ONE = "one reward"


@dataclass
class Topic:
    """The judgements on a topic, its texts, and two kinds of vectors of them."""

    case: Case
    texts: list[Text]
    vectors: dict[str, dict[Text, np.ndarray]]

    def fit(self, raters: set[str], clusters: int, model: str, seed: int) -> list[np.ndarray]:
        """Fit a jury to some raters' votes and pairs; (K,) prevalence and (U, K) rewards of all texts."""
        import numpy as np

        from reward_models.fitting.em import FitConfig
        from reward_models.fitting.joint.fit import fit_joint

        tables = [
            table.select(table.frame["rater_id"].isin(raters).to_numpy()).encode()
            for table in (self.case.judgements, *self.case.others)
        ]
        rows = [np.stack([self.vectors[model][text] for text in table.texts]) for table in tables]
        fit: JointFit = fit_joint(tables, rows, "mixture", clusters, config=FitConfig(seed=seed))
        features = np.stack([self.vectors[model][text] for text in self.texts])
        return [fit.prevalence, fit.rewards(self.texts, features)[0]]


def open_topic(name: str, data: Path) -> Topic:
    """Read a topic and the vectors of its texts."""
    case = load_case(f"polarized/{name}", data)
    tables = (case.judgements, *case.others)
    texts = list(dict.fromkeys(text for table in tables for text in table.encode().texts))
    return Topic(case, texts, {model: text_features(model, case) for model in FEATURES})


def measure(topic: Topic, split: int, order: list[Pool] | None, counts: tuple[int, ...]) -> tuple[BestOfN, list[Pool]]:
    """Select by a jury of one half of the raters, and ask a jury of the other half.

    Args:
        topic: The topic.
        split: Number of the random division of its raters.
        order: Pools of the first split's judges, whose clusters give this split's clusters their order.
        counts: Numbers of candidates.
    """
    import numpy as np

    from reward_models.evaluation.candidates.best_of_n import best_of_n
    from reward_models.evaluation.candidates.pools import audience_weights, matched_clusters, pools_of
    from reward_models.seeds import seeded_rng

    raters = topic.case.judgements.raters
    mixed = seeded_rng(split, "halves of raters").permutation(raters).tolist()
    half = set(mixed[: len(mixed) // 2])
    prevalence, rewards = topic.fit(half, 2, "minilm", split)
    _, one = topic.fit(half, 1, "minilm", split)
    weights, worth = topic.fit(set(mixed) - half, 2, "smollm2", split)
    mine, judges = pools_of(topic.texts, rewards), pools_of(topic.texts, worth)
    if order is not None:
        first = np.median(matched_clusters(judges, order), axis=0).round().astype(int)
        if len(set(first.tolist())) == len(first):  # each cluster has a counterpart of its own
            weights = weights[first]
            judges = [replace(pool, rewards=pool.rewards[:, first]) for pool in judges]
    matches, audiences = matched_clusters(mine, judges), audience_weights(mine, judges)
    selections = {
        ONE: [pool.rewards[:, 0] for pool in pools_of(topic.texts, one)],
        "jury, mean": [pool.weighted(prevalence) for pool in mine],
        "jury, worst cluster": [(pool.rewards - pool.rewards.mean(0)).min(1) for pool in mine],
        "jury, each cluster": [pool.rewards[:, match] for pool, match in zip(mine, matches, strict=True)],
        "jury, each audience": [pool.rewards @ columns for pool, columns in zip(mine, audiences, strict=True)],
    }
    judge = "a jury of other raters, on other vectors"
    curves = best_of_n(selections, judges, CLUSTERS, weights, base=ONE, judge=judge, counts=counts)
    return curves, judges


def averaged(splits: list[BestOfN]) -> BestOfN:
    """Average gains and regrets of the splits, question by question."""
    import numpy as np

    first = splits[0]
    return replace(
        first,
        gains={m: np.mean([s.gains[m] for s in splits], axis=0) for m in first.gains},
        regrets={m: np.mean([s.regrets[m] for s in splits], axis=0) for m in first.gains},
    )


def joined(topics: list[BestOfN]) -> BestOfN:
    """Put the questions of several topics side by side."""
    import numpy as np

    first = topics[0]
    return replace(
        first,
        gains={m: np.concatenate([t.gains[m] for t in topics]) for m in first.gains},
        regrets={m: np.concatenate([t.regrets[m] for t in topics]) for m in first.gains},
    )


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--topics", nargs="+", choices=POLARIZED, default=list(POLARIZED), help=", ".join(POLARIZED))
    parser.add_argument("--splits", type=int, default=5, help="random halvings of the raters (default: 5)")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with polarized/")
    parser.add_argument("--output-plot", type=Path, metavar="PNG", help="draw the curves")
    args = parser.parse_args()
    if args.smoke:
        args.topics, args.splits = args.topics[:1], 1
    environment()
    from rich.console import Console

    from reward_models.evaluation.candidates.best_of_n import COUNTS
    from reward_models.evaluation.sheets import show

    started = time.perf_counter()
    rows: list[dict[str, Any]] = []
    of_topics = []
    for name in args.topics:
        try:
            topic = open_topic(name, args.data)
        except (Unavailable, ImportError) as reason:
            print(f"{name} skipped: {reason}")
            rows.append(row(name, "all", "skipped", float("nan"), "", n=0, skipped=str(reason)))
            continue
        splits, order = [], None
        for split in range(args.splits):
            curves, judges = measure(topic, args.seed + split, order, COUNTS)
            order = order or judges
            splits.append(curves)
            print(f"{name}, split {split}: {time.perf_counter() - started:.0f} s")
        of_topics.append(averaged(splits))
        rows += [{**found, "case": f"polarized/{name}"} for found in of_topics[-1].rows()]
    if of_topics:
        together = joined(of_topics)
        rows += [{**found, "case": "polarized"} for found in together.rows()]
        console = Console()
        show(together.sheets(), console if console.is_terminal else Console(width=140))
        if args.output_plot is not None:
            from reward_models.evaluation.candidates.plots import plot_best_of_n

            plot_best_of_n(together, args.output_plot)
            print(f"Drawn to {args.output_plot}")
    write(
        args,
        rows,
        started,
        splits=args.splits,
        interval="95 %, Student's t over questions, gains of all splits averaged by question; no interval below five",
    )


if __name__ == "__main__":
    main()
