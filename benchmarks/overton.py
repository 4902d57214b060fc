"""Does a jury know with which answers each cluster of people agrees? To be known before it judges any model.

Polarized issues: about 310 people per topic voted on about 20 of each other's answers to four open questions. A fifth
of the answers is held out with all their votes and pairs; a jury on MiniLM vectors is fitted to the others, with two
or three clusters, and predicts for every held-out answer how probably a member of each cluster agrees
(`plural_rlhf.evaluation.judge_validity`). People are in the cluster that their votes on the other answers say. Beside
it: one jury for everybody on the same votes, what the jury says of another cluster, and the length of the answer.

The Spearman correlation is over answers, of which each has a few votes of a cluster, so that even a judge that knew
every probability would not reach 1: `ceiling` is what it would reach.

  python benchmarks/overton.py --smoke
  python benchmarks/overton.py --json overton.json
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _common import environment, make_parser, print_table, row, write
from _jury.cases import DATA, Unavailable, load_case, make_split
from _jury.polarized import POLARIZED
from _jury.text_vectors import text_features


if TYPE_CHECKING:
    import numpy as np

    from reward_models.fitting.joint.fit import JointFit
    from reward_models.judgements.records import Judgements

__all__ = ["main", "measure"]


def measure(case: Any, features: dict[Any, Any], seed: int, clusters: Sequence[int] = (2, 3)) -> list[dict[str, Any]]:
    """Fit juries to one split and compare what they predict with the votes on its held-out answers.

    Args:
        case: Votes, with pairs of the same people.
        features: Vector of every text.
        seed: Of the split.
        clusters: Candidates for the number of clusters.
    """
    import numpy as np

    from plural_rlhf.evaluation import judge_validity
    from reward_models import fit_vector_jury

    split = make_split(case, "minilm:unseen", seed)
    tables = [split.train, *split.others]
    rows = [np.stack([features[text] for text in table.encode().texts]) for table in tables]
    jury, one = (fit_vector_jury(tables, rows, clusters=k) for k in (list(clusters), 1))
    test = split.test.encode()
    vectors = np.stack([features[text] for text in test.texts])
    group = rater_groups(jury.fit, test.rater_ids)[test.rater]
    votes = {"answer": test.alternatives[:, 0], "group": group, "agrees": agreements(split.test, test)}
    names = [f"{name} ({share:.0%})" for name, share in zip(jury.cluster_names, jury.prevalence, strict=True)]
    words = np.array([len(text.response.split()) for text in test.texts], dtype=np.float64)
    judged = agreement(jury.fit, vectors)
    judges = {
        "jury": judged,
        "another cluster": np.roll(judged, 1, axis=1),
        "one for everybody": np.repeat(agreement(one.fit, vectors), len(names), axis=1),
        "length": np.repeat(words[:, None], len(names), axis=1),
    }
    found = []
    for method, numbers in judges.items():
        for validity in judge_validity(numbers, names=names, seed=seed, **votes):
            more = {"cluster": validity.group, "split": seed, "votes": validity.num_votes}
            ends = {"low": validity.ci_low, "high": validity.ci_high, "n": validity.num_answers}
            found.append(row(case.name, method, "spearman", validity.spearman, "correlation", **ends, **more))
            for metric, value, unit in (
                ("ceiling", validity.ceiling, "correlation"),
                ("auc", validity.auc, "probability"),
                ("predicted", validity.mean_judged, "share"),
                ("agreed", validity.mean_agreed, "share"),
            ):
                if method != "length" or metric == "auc":
                    found.append(row(case.name, method, metric, value, unit, n=validity.num_votes, **more))
    return found


def rater_groups(fit: JointFit, rater_ids: Sequence[str]) -> np.ndarray:
    """Cluster of each rater by the votes of the fit."""
    known = dict(zip(fit.rater_ids, fit.responsibilities.argmax(axis=1), strict=True))
    import numpy as np

    return np.array([known[rater] for rater in rater_ids])


def agreement(fit: JointFit, vectors: np.ndarray) -> np.ndarray:
    """(N, K) probability that a member of each cluster agrees with a new text."""
    from types import SimpleNamespace

    from plural_rlhf.evaluation import vote_approval

    approval = vote_approval(SimpleNamespace(state=SimpleNamespace(rater_model=fit.model, temperature=None)))
    assert approval is not None, "the jury is fitted to votes"
    return approval(fit.linear_rewards(vectors))


def agreements(table: Judgements, encoded: Any) -> np.ndarray:
    """(V,) whether a vote agrees: the higher of two levels."""
    return encoded.label == encoded.label.max()


def main() -> None:
    """Measure, print and write."""
    parser = make_parser(__doc__)
    parser.add_argument("--splits", type=int, default=5, help="random divisions (default: 5)")
    parser.add_argument("--topics", nargs="+", default=list(POLARIZED), choices=POLARIZED, help="default: both")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with polarized/")
    args = parser.parse_args()
    environment()
    started, rows = time.perf_counter(), []
    for topic in args.topics[: 1 if args.smoke else None]:
        try:
            case = load_case(f"polarized/{topic}", args.data)
            features = text_features("minilm", case)
        except Unavailable as error:
            rows.append(row(f"polarized/{topic}", "jury", "spearman", float("nan"), "correlation", skipped=str(error)))
            print(f"skipped {topic}: {error}")
            continue
        for seed in range(args.seed, args.seed + (1 if args.smoke else args.splits)):
            rows += measure(case, features, seed, clusters=(2,) if args.smoke else (2, 3))
            write(args, rows, started, finished=False)
        show(topic, [r for r in rows if r["case"] == case.name])
    write(args, rows, started)


def show(topic: str, rows: list[dict[str, Any]]) -> None:
    """Print a line per split and cluster, and the means."""
    value = {(r["split"], r["cluster"], r["method"], r["metric"]): r["value"] for r in rows}
    lines = []
    for r in rows:
        if (r["method"], r["metric"]) != ("jury", "spearman"):
            continue
        key = (r["split"], r["cluster"])
        lines.append(
            [
                f"{key[0]}: {key[1]}",
                f"{r['value']:.2f} [{r['ci_low']:.2f}, {r['ci_high']:.2f}]",
                *(f"{value[(*key, *rest)]:.2f}" for rest in _COLUMNS.values()),
                f"{r['n']} / {r['votes']}",
            ]
        )
    print_table(topic, ["split: cluster", "Spearman", *_COLUMNS, "answers / votes"], lines)


_COLUMNS = {
    "ceiling": ("jury", "ceiling"),
    "one for all": ("one for everybody", "spearman"),
    "another": ("another cluster", "spearman"),
    "length": ("length", "spearman"),
    "AUC": ("jury", "auc"),
    "AUC, one for all": ("one for everybody", "auc"),
    "predicted": ("jury", "predicted"),
    "agreed": ("jury", "agreed"),
}


if __name__ == "__main__":
    main()
