"""Which rule says as people do whether two texts say the same?

People judged 1,100 pairs of generations of one prompt each (NoveltyBench). Rules read exact match, words in order,
common words, the longest common subsequence of words, vectors of MiniLM, or words and vectors together; thresholds and
coefficients are fitted to the 1,000 training pairs, accuracy and the area under the curve are those on the 100 others.
The shipped constants (`plural_rlhf.evaluation.EQUIVALENCE_RULES`) are compared with what is fitted here.

  python benchmarks/equivalence.py --smoke
  python benchmarks/equivalence.py --json equivalence.json
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from _common import environment, make_parser, print_table, row, write
from _jury.cases import DATA, Unavailable
from _jury.text_vectors import minilm_vectors


__all__ = ["main", "measure"]

FOLDS, REPEATS = 10, 5
BARE_COSINE = 0.5
"""A threshold that is often used without calibration."""


def measure(pairs: Any, vectors: tuple[Any, Any] | None) -> list[dict[str, Any]]:
    """Fit the rules, and give their rows.

    Args:
        pairs: Table with `generation_0`, `generation_1`, `similar` and `split`.
        vectors: Vectors of both generations; None leaves the rules out that read them.
    """
    import numpy as np

    from plural_rlhf.evaluation import EQUIVALENCE_RULES, fit_equivalence_rules, pair_similarities
    from plural_rlhf.evaluation.diversity.equivalence import rank_auc
    from reward_models.stats.shares import share_interval

    similarities = pair_similarities(pairs["generation_0"], pairs["generation_1"], *(vectors or (None, None)))
    similar, train = pairs["similar"].to_numpy(bool), (pairs["split"] == "train").to_numpy()
    rows = []

    def scored(method: str, score: np.ndarray, threshold: float, **more: Any) -> None:
        right = ((score >= threshold) == similar)[~train]
        low, high = share_interval(right.mean(), np.array(len(right)))
        ends = {"low": float(low), "high": float(high), "n": len(right)}
        rows.append(row("noveltybench", method, "accuracy", float(right.mean()), "share", **ends, **more))
        auc = rank_auc(score[~train], similar[~train])
        rows.append(row("noveltybench", method, "auc", auc, "probability", n=len(right), **more))

    for fit in fit_equivalence_rules(similarities, similar, train):
        rule = fit.rule
        score = sum(c * similarities[name] for name, c in rule.coefficients.items())
        scored(rule.name, score, rule.threshold, coefficients=dict(rule.coefficients), at_least=rule.threshold)
        shipped = EQUIVALENCE_RULES[rule.name]
        if rule.coefficients.keys() == shipped.coefficients.keys():
            score = sum(c * similarities[name] for name, c in shipped.coefficients.items())
            scored(f"{rule.name}, as shipped", score, shipped.threshold)
    if vectors is not None:
        scored("cosine of at least .5", similarities["cosine"], BARE_COSINE)
        rows += short_rows(pairs, similarities, similar)
    return rows


def short_rows(pairs: Any, similarities: dict[str, Any], similar: Any) -> list[dict[str, Any]]:
    """Cross-validate rules of vectors on the pairs of short texts, and score the shipped ones on the few held out."""
    import numpy as np

    from plural_rlhf.evaluation import EQUIVALENCE_RULES, fit_equivalence_rules
    from plural_rlhf.evaluation.diversity.equivalence import SHORT_WORDS, rank_auc
    from reward_models.seeds import seeded_rng
    from reward_models.stats.shares import share_interval

    lengths = [
        (len(a.split()) + len(b.split())) / 2
        for a, b in zip(pairs["generation_0"], pairs["generation_1"], strict=True)
    ]
    short = np.array(lengths) <= SHORT_WORDS
    cosine, same, n = similarities["cosine"][short], similar[short], int(short.sum())
    rng = seeded_rng(0, "folds of short pairs")
    rows = []
    found = []
    for _ in range(REPEATS):
        fold, says = rng.permutation(n) % FOLDS, np.zeros(n, dtype=bool)
        for number in range(FOLDS):
            candidates = {"vectors": ["cosine"]}
            [fit] = fit_equivalence_rules({"cosine": cosine}, same, fold != number, candidates=candidates)
            says[fold == number] = cosine[fold == number] >= fit.rule.threshold
        found.append(balanced(says, same))
    shipped = EQUIVALENCE_RULES["words and vectors"]
    score = sum(c * similarities[name][short] for name, c in shipped.coefficients.items())
    for method, value in (
        ("vectors of short texts, cross-validated", float(np.mean(found))),
        ("words and vectors, as shipped", balanced(score >= shipped.threshold, same)),
    ):
        rows.append(row("noveltybench, short", method, "balanced_accuracy", value, "share", n=n))
    train = (pairs["split"] == "train").to_numpy()[short]
    [fit] = fit_equivalence_rules({"cosine": cosine}, same, train, candidates={"vectors": ["cosine"]})
    threshold = fit.rule.threshold
    rows.append(
        row("noveltybench, short", "vectors of short texts", "threshold", threshold, "cosine", n=int(train.sum()))
    )
    for name in ("vectors of short texts", "words and vectors"):
        rule = EQUIVALENCE_RULES[name]
        score = sum(c * similarities[s][short] for s, c in rule.coefficients.items())[~train]
        right = (score >= rule.threshold) == same[~train]
        low, high = share_interval(right.mean(), np.array(len(right)))
        ends = {"low": float(low), "high": float(high), "n": len(right)}
        method = f"{name}, on short pairs"
        rows.append(row("noveltybench, short", method, "accuracy", float(right.mean()), "share", **ends))
        auc = rank_auc(score, same[~train])
        rows.append(row("noveltybench, short", method, "auc", auc, "probability", n=len(right)))
    return rows


def balanced(says: Any, same: Any) -> float:
    """Mean of the shares that are right among pairs that say the same and among the others."""
    return float((says[same].mean() + (~says[~same]).mean()) / 2)


def main() -> None:
    """Measure, print, write."""
    environment()
    parser = make_parser(__doc__ or "")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the shared data (default: ../shared/data)")
    args = parser.parse_args()
    started = time.perf_counter()
    import pandas as pd

    file = args.data / "noveltybench" / "equivalence.parquet"
    if not file.exists():
        parser.error(f"{file} is not there. Fix: --data FOLDER, the folder of the shared data.")
    pairs = pd.read_parquet(file)
    if args.smoke:
        pairs = pd.concat([of.head(60) for _, of in pairs.groupby(["split", "similar"])])
    texts = [*pairs["generation_0"], *pairs["generation_1"]]
    try:
        both = minilm_vectors(texts)
        vectors = (both[: len(pairs)], both[len(pairs) :])
    except Unavailable as error:
        print(f"Without vectors: {error}")
        vectors = None
    rows = measure(pairs, vectors)
    write(args, rows, started)
    values = {(r["method"], r["metric"]): r for r in rows}
    lines = [
        [method, f"{r['value']:.2f} [{r['ci_low']:.2f}, {r['ci_high']:.2f}]", f"{values[method, 'auc']['value']:.2f}"]
        for (method, metric), r in values.items()
        if metric == "accuracy"
    ]
    print_table("Heldout pairs of texts: does the rule say what people say?", ["rule", "accuracy", "AUC"], lines)


if __name__ == "__main__":
    main()
