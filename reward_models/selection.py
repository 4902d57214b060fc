"""How many clusters: held-out raters decide, and the answer may be one.

Candidates are fitted on some raters; the others are placed by half of their judgements and scored on the other half.
Knows nothing of features or language models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reward_models.em import FitConfig
from reward_models.encoding import Encoded
from reward_models.errors import JuryError
from reward_models.memberships import predictive_log_lik
from reward_models.mixture import check_num_clusters, fit_mixture, subset
from reward_models.records import Judgements
from reward_models.resampling import halve_labels


__all__ = ["KSelection", "select_num_clusters"]

BOOTSTRAP_DRAWS = 1000


@dataclass(frozen=True)
class KSelection:
    """Held-out likelihood per number of clusters, and the choice.

    Attributes:
        table: One row per candidate: `num_clusters`, `nll` (nats per held-out judgement), `se` (over raters), `info`
            (gain over one cluster, nats), `behind` (paired difference to the best candidate) and `behind_se`.
        chosen: The smallest K within one standard error of the best.
        reason: The choice in words.
    """

    table: list[dict[str, float]]
    chosen: int
    reason: str


def select_num_clusters(
    judgements: Judgements,
    candidates: Sequence[int],
    config: FitConfig | None = None,
    *,
    heldout: float = 0.25,
    seed: int = 0,
) -> KSelection:
    """Choose the number of clusters by held-out raters, with the one-standard-error rule on paired differences.

    Each held-out rater is placed by one half of the labels and scored on the other, then the other way round; no label
    is scored by a posterior that has seen it. Judgements of texts that only held-out raters judged are not scored.

    Args:
        judgements: A table with raters.
        candidates: Numbers of clusters to compare; 1 is always fitted as the baseline.
        config: How each candidate is fitted.
        heldout: Share of raters held out, in (0, 1).
        seed: Seed of the split and of the bootstrap over raters.

    Returns:
        The table, the choice and the reason.

    Raises:
        JuryError: No candidates, a share outside (0, 1), or a K that the training raters cannot support.
    """
    enc = judgements.encode()
    if enc.kind == "soft":
        raise JuryError(
            "kind='soft': there are no raters to hold out; a table of answer shares supports num_clusters=1 only"
        )
    wanted = sorted(set(candidates))
    if not wanted:
        raise JuryError("candidates=[]: name at least one number of clusters, e.g. (1, 2, 3, 4)")
    if not 0 < heldout < 1 or enc.n_raters < 2:
        raise JuryError(
            f"heldout={heldout} of {enc.n_raters} raters: needs a share in (0, 1) that leaves a rater on each side; "
            "use 0.25"
        )
    rng = np.random.default_rng(seed)
    n_out = min(max(round(heldout * enc.n_raters), 1), enc.n_raters - 1)
    out = np.zeros(enc.n_raters, dtype=bool)
    out[rng.permutation(enc.n_raters)[:n_out]] = True
    train = subset(enc, ~out[enc.rater], drop_raters=True)
    for num_clusters in wanted:
        check_num_clusters(train, num_clusters)
    test = _known_texts(train, subset(enc, out[enc.rater], drop_raters=True))
    half = halve_labels(test.rater, rng)
    scores = {k: _heldout_log_lik(train, test, half, k, config) for k in sorted({1, *wanted})}

    per_rater = np.stack([np.bincount(test.rater, -scores[k] * test.weight, test.n_raters) for k in scores], axis=1)
    per_rater = np.column_stack([per_rater, np.bincount(test.rater, test.weight, test.n_raters)])
    draws = rng.multinomial(test.n_raters, np.full(test.n_raters, 1 / test.n_raters), size=BOOTSTRAP_DRAWS) @ per_rater
    resampled = draws[:, :-1] / draws[:, -1:]
    nll = per_rater[:, :-1].sum(0) / per_rater[:, -1].sum()
    column = {k: i for i, k in enumerate(scores)}
    best = min(wanted, key=lambda k: nll[column[k]])
    behind = resampled - resampled[:, [column[best]]]
    table = [
        {
            "num_clusters": k,
            "nll": float(nll[i]),
            "se": float(resampled[:, i].std()),
            "info": float(nll[0] - nll[i]),
            "behind": float(nll[i] - nll[column[best]]),
            "behind_se": float(behind[:, i].std()),
        }
        for k, i in column.items()
        if k in wanted
    ]
    chosen = next(row for row in table if row["behind"] <= row["behind_se"])
    k = int(chosen["num_clusters"])
    reason = f"K={best} has the lowest held-out loss ({nll[column[best]]:.4f} nats per judgement)"
    if k == best:
        reason += ", and no smaller K is within one standard error of it"
    else:
        reason += (
            f"; K={k} is {chosen['behind']:.4f} behind, within one standard error ({chosen['behind_se']:.4f}) of the "
            "paired difference over raters, and simpler"
        )
    reason += f" [{test.n_raters} held-out raters, {len(test)} judgements]"
    if k == 1:
        reason += ": no sign of clusters, one reward for everybody is enough"
    return KSelection(table=table, chosen=k, reason=reason)


def _known_texts(train: Encoded, test: Encoded) -> Encoded:
    """Drop test judgements of texts that no training rater judged."""
    seen = np.zeros(train.n_texts, dtype=bool)
    seen[train.alternatives[train.alternatives >= 0]] = True
    test = subset(test, (seen[test.alternatives] | (test.alternatives < 0)).all(1), drop_raters=True)
    if not len(test):
        raise JuryError(
            "no text was judged by both a training and a held-out rater, so free rewards per text cannot be "
            "compared; choose K on features instead, or collect judgements of the same texts by several raters"
        )
    return test


def _heldout_log_lik(
    train: Encoded, test: Encoded, half: np.ndarray, num_clusters: int, config: FitConfig | None
) -> np.ndarray:
    """(N,) predictive log-likelihood of each test judgement given the other half of its rater's judgements."""
    fit = fit_mixture(train, num_clusters, config)
    score = np.empty(len(test))
    for placing in (half, ~half):
        posterior, terms = fit.adapt(subset(test, placing))
        scored = subset(test, ~placing)
        score[~placing] = predictive_log_lik(posterior[scored.rater], fit.judgement_log_lik(scored, terms))
    return score
