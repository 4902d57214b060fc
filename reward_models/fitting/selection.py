"""Choose the number of clusters and the membership by held-out raters; the answer may be one cluster.

Candidates are fitted on some raters. The held-out raters are adapted from three quarters of their judgements and
scored on the rest, each quarter in turn. Knows nothing of features or language models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reward_models.errors import JuryError
from reward_models.fitting.em import FitConfig
from reward_models.fitting.mixture import fit_mixture
from reward_models.fitting.rater_fit import RaterFit, fit_raters
from reward_models.fitting.starting_point import check_num_clusters
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.records import Judgements, judged_table
from reward_models.progress import track
from reward_models.raters.predictors import answer_log_lik
from reward_models.raters.rater_model import Membership
from reward_models.seeds import seeded_rng
from reward_models.stats.resampling import label_parts
from reward_models.stats.verdicts import MIN_RATERS, outcome, rules_out_gain, shortage


__all__ = [
    "CANDIDATES",
    "Compared",
    "KSelection",
    "MembershipChoice",
    "choose_membership",
    "only_candidate",
    "select_num_clusters",
]

BOOTSTRAP_DRAWS = 1000
SEVERAL_TABLES = "pass one of them; choose_joint and fit_jury choose by several tables together"
SMALL_TABLE = 30_000  # judgements up to which every rater is held out once
LABEL_PARTS = 4
CANDIDATES: tuple[tuple[Membership, int], ...] = (
    *((("mixture", k)) for k in (1, 2, 3, 4, 6)),
    ("simplex", 2),
    ("simplex", 3),
    ("factor", 1),
    ("factor", 2),
)


@dataclass(frozen=True)
class KSelection:
    """Held-out likelihood per number of clusters, and the choice; `select_num_clusters` and `fit_jury` make it.

    Attributes:
        table: One row per candidate: `num_clusters`, `nll` (nats per held-out judgement), `se` (over raters), `info`
            (gain over one cluster, nats), `behind` (paired difference to the best candidate), `behind_se`; of
            `fit_jury` also `membership`.
        num_clusters: Of `select_num_clusters`: the smallest K within one standard error of the best; the only
            candidate, or the smallest one where the raters are too few to compare. Of `fit_jury`: the K with the
            lowest loss if clusters are surely better than one, else 1; see `choose_joint`.
        reason: The choice in words. It says "undecided" where the 95 % interval of the gain over one cluster allows
            both no gain and one worth having (`stats.verdicts`).

    Example:
        >>> KSelection(table=[], num_clusters=1, reason="8 raters are too few").num_clusters
        1
    """

    table: list[dict[str, Any]]
    num_clusters: int
    reason: str


def only_candidate(num_clusters: int) -> KSelection:
    """Return the choice of a number of clusters that was given.

    Example:
        >>> only_candidate(2).reason
        'K=2 is the only candidate, so no other number of clusters was compared'
    """
    return KSelection([], num_clusters, _only(num_clusters))


@dataclass(frozen=True)
class MembershipChoice:
    """Held-out likelihood per membership and number of clusters, and the choice; `choose_membership` makes it.

    Attributes:
        table: One row per candidate: `membership` and the columns of `KSelection.table`.
        membership: The best membership on held-out raters.
        num_clusters: Its `K`, or rank; a mixture of 1 unless another candidate is better by one standard error.
        reason: The choice in words.

    Example:
        >>> choice = MembershipChoice([], "simplex", 2, reason="simplex of 2 has the lowest held-out loss")
        >>> choice.membership, choice.num_clusters
        ('simplex', 2)
    """

    table: list[dict[str, Any]]
    membership: Membership
    num_clusters: int
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

    Each held-out rater is adapted from three quarters of their labels and scored on the rest, each quarter in turn; no
    label is scored by a posterior that has seen it. Small tables hold out every rater once (cross-validation).
    Judgements of texts that only held-out raters judged are not scored. With fewer than twelve raters nothing is
    compared, and the smallest candidate is the answer. A single candidate is the answer, whatever its loss.

    Args:
        judgements: A table with raters.
        candidates: Numbers of clusters to compare; 1 is always fitted as the baseline.
        config: Settings of the fit of each candidate.
        heldout: Share of the raters to hold out, in (0, 1).
        seed: Random seed of the split and of the bootstrap over raters.

    Returns:
        The table, the choice and the reason.

    Raises:
        JuryError: No candidates, several tables, a share outside (0, 1), or a K beyond the training raters.

    Example:
        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("choice", num_clusters=2)
        >>> select_num_clusters(planted.judgements, (1, 2), FitConfig(restarts=1)).num_clusters
        2
    """
    sizes = sorted(set(candidates))
    if not sizes:
        raise JuryError("candidates=[]: there is nothing to compare. Fix: name numbers of clusters, e.g. (1, 2, 3, 4)")
    enc = _with_raters(judged_table(judgements, SEVERAL_TABLES).encode())
    if enc.n_raters < MIN_RATERS:
        check_num_clusters(enc, sizes[0])
        return KSelection(table=[], num_clusters=sizes[0], reason=_not_compared(enc, sizes))
    try:
        compared = _compare(enc, [("mixture", k) for k in sorted({1, *sizes})], config, heldout, seed)
    except _NoSharedTexts:
        if len(sizes) > 1:
            raise
        reason = f"{_only(sizes[0])}; raters who judged the same texts would be needed to compare it with one cluster"
        return KSelection(table=[], num_clusters=sizes[0], reason=reason)
    rows = compared.rows([("mixture", k) for k in sizes])
    best = min(rows, key=lambda row: row["nll"])
    smallest = next(row for row in rows if row["behind"] <= row["behind_se"])
    num_clusters = int(smallest["num_clusters"])
    if len(sizes) == 1:
        reason = _only(num_clusters)
    else:
        reason = f"K={best['num_clusters']} has the lowest held-out loss ({best['nll']:.4f} nats per judgement)"
        if smallest is best:
            reason += ", and no smaller candidate is within one standard error of it"
        else:
            reason += (
                f"; K={num_clusters} is {smallest['behind']:.4f} behind, within one standard error "
                f"({smallest['behind_se']:.4f}) of the paired difference over raters, and simpler"
            )
    reason += f" {compared.size}"
    if num_clusters > 1:
        reason += f"; {compared.against_one(('mixture', num_clusters))}"
    elif len(sizes) > 1:
        reason += f": {compared.sign_of('clusters', [('mixture', k) for k in sizes if k > 1])}"
    table = [{column: value for column, value in row.items() if column != "membership"} for row in rows]
    return KSelection(table, num_clusters, reason)


def choose_membership(
    judgements: Judgements | Encoded,
    candidates: Sequence[tuple[Membership, int]] = CANDIDATES,
    config: FitConfig | None = None,
    *,
    heldout: float = 0.25,
    seed: int = 0,
) -> MembershipChoice:
    """Choose the membership and the number of clusters by held-out raters.

    The choice is the candidate with the lowest held-out loss if it is better than one cluster by a standard error, and
    one cluster otherwise. Raters are held out as in `select_num_clusters`.

    Args:
        judgements: A table with raters; may be encoded already.
        candidates: Pairs of membership and number of clusters (or rank). Pairs that the raters cannot support are
            skipped; a mixture of 1 is always compared.
        config: Fit settings, the same for all candidates.
        heldout: As for `select_num_clusters`.
        seed: Random seed of the split and the bootstrap.

    Returns:
        The choice, with the table of all candidates.

    Raises:
        JuryError: A share outside (0, 1), several tables, or a table without raters.

    Example:
        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("choice", num_clusters=2)
        >>> choice = choose_membership(planted.judgements, [("mixture", 2)], FitConfig(restarts=1))
        >>> choice.membership, choice.num_clusters
        ('mixture', 2)
    """
    one = judgements if isinstance(judgements, Encoded) else judged_table(judgements, SEVERAL_TABLES).encode()
    enc = _with_raters(one)
    if enc.n_raters < MIN_RATERS:
        return MembershipChoice(table=[], membership="mixture", num_clusters=1, reason=_not_compared(enc, [1]))
    at_most = max(1, round((1 - heldout) * enc.n_raters) // 4)
    supported = list(dict.fromkeys([("mixture", 1), *((m, k) for m, k in candidates if k <= at_most)]))
    compared = _compare(enc, supported, config, heldout, seed)
    return compared.choice(supported)


@dataclass(frozen=True)
class Compared:
    """Losses of candidates on the same held-out judgements, and what they say.

    Attributes:
        candidates: Membership and size of each; the first is one cluster.
        losses: (R, candidates) summed over the held-out judgements of each rater, times the sampling weight, nats.
        weight: (R,) held-out judgements of each rater, times the sampling weight.
        resampled: (draws, candidates) mean losses, raters resampled.
        n_judgements: Held-out judgements of all raters.
        shortage: Why raters or items are too few for an interval; None if there are enough.

    Example:
        Two clusters gain a tenth of a nat on every judgement:

        >>> losses = np.column_stack([np.full(20, 1.0), np.full(20, 0.9)])
        >>> rng, once = np.random.default_rng(0), np.ones(20)
        >>> compared = Compared.of([("mixture", 1), ("mixture", 2)], losses, once, once, rng)
        >>> compared.choice([("mixture", 1), ("mixture", 2)]).num_clusters
        2
    """

    candidates: list[tuple[Membership, int]]
    losses: np.ndarray
    weight: np.ndarray
    resampled: np.ndarray
    n_judgements: float
    shortage: str | None = None

    @classmethod
    def of(
        cls,
        candidates: list[tuple[Membership, int]],
        losses: np.ndarray,
        weight: np.ndarray,
        count: np.ndarray,
        rng: np.random.Generator,
        shortage: str | None = None,
    ) -> Compared:
        """Resample the raters; `count` (R,) are their judgements without the sampling weight."""
        draws = rng.multinomial(len(weight), np.full(len(weight), 1 / len(weight)), size=BOOTSTRAP_DRAWS)
        resampled = (draws @ losses) / (draws @ weight)[:, None]
        return cls(candidates, losses, weight, resampled, float(count.sum()), shortage)

    def choice(self, candidates: Sequence[tuple[Membership, int]], decided: bool = False) -> MembershipChoice:
        """Choose the candidate with the lowest loss if it is better than one cluster by a standard error, else one.

        Args:
            candidates: Those to choose from; the first is one cluster.
            decided: Whether the 95 % interval of its gain must be above zero as well.
        """
        rows = self.rows(candidates)
        best, one = min(rows, key=lambda row: row["nll"]), rows[0]
        finding = (
            f"{best['membership']} of {best['num_clusters']} has the lowest held-out loss ({best['nll']:.4f} nats"
        )
        if one["behind"] <= one["behind_se"]:
            reason = (
                f"{finding}), but one reward for everybody is {one['behind']:.4f} behind, within one standard error "
                f"({one['behind_se']:.4f}) {self.size}: {self.sign_of('taste', candidates[1:])}"
            )
            return MembershipChoice(rows, "mixture", 1, reason)
        reason = f"{finding}) {self.size}; {self.against_one((best['membership'], best['num_clusters']))}"
        if decided and outcome(*self.gain((best["membership"], best["num_clusters"]))[1:]) != "better":
            reason += "; one reward for everybody is the simplest choice"
            return MembershipChoice(rows, "mixture", 1, reason)
        return MembershipChoice(rows, best["membership"], int(best["num_clusters"]), reason)

    @property
    def size(self) -> str:
        """What the losses were measured on, in words."""
        return f"[{len(self.weight)} held-out raters, {self.n_judgements:g} judgements]"

    def against_one(self, candidate: tuple[Membership, int]) -> str:
        """Say whether a candidate predicts better than one cluster, by the 95 % interval of the paired difference."""
        gain, low, high = self.gain(candidate)
        if self.shortage:
            return f"whether it predicts better than one reward for everybody is undecided: {self.shortage}"
        numbers = f"{gain:+.4f} nats per judgement [{low:+.4f}, {high:+.4f}]"
        return {
            "better": f"it gains {numbers} over one reward for everybody",
            "undecided": f"whether it predicts better than one reward for everybody is undecided ({numbers})",
            "worse": f"it predicts worse than one reward for everybody ({numbers})",
        }[outcome(low, high)]

    def sign_of(self, noun: str, candidates: Sequence[tuple[Membership, int]]) -> str:
        """Say what it means that one cluster was chosen: nothing to gain, or too little data to tell."""
        if self.shortage:
            return f"whether there are {noun} is undecided: {self.shortage}"
        gains = {candidate: self.gain(candidate) for candidate in candidates}
        if all(rules_out_gain(high) for _, _, high in gains.values()):
            return f"no sign of {noun}, one reward for everybody is enough"
        (membership, number), (gain, low, high) = max(gains.items(), key=lambda item: item[1][0])
        return (
            f"whether there are {noun} is undecided ({membership} of {number} gains {gain:+.4f} nats per judgement "
            f"[{low:+.4f}, {high:+.4f}]); one reward for everybody is the simplest choice"
        )

    def gain(self, candidate: tuple[Membership, int]) -> tuple[float, float, float]:
        """Return the gain over one cluster, nats per judgement, and the ends of its 95 % interval."""
        column = self.candidates.index(candidate)
        losses = self.losses.sum(0) / self.weight.sum()
        low, high = np.quantile(self.resampled[:, 0] - self.resampled[:, column], [0.025, 0.975])
        return float(losses[0] - losses[column]), float(low), float(high)

    def rows(self, candidates: Sequence[tuple[Membership, int]]) -> list[dict[str, Any]]:
        """Return one row for each of the given candidates; the first of all candidates is the baseline."""
        nll = self.losses.sum(0) / self.weight.sum()
        columns = [self.candidates.index(candidate) for candidate in candidates]
        best = min(columns, key=lambda column: nll[column])
        behind = self.resampled - self.resampled[:, [best]]
        return [
            {
                "membership": self.candidates[i][0],
                "num_clusters": self.candidates[i][1],
                "nll": float(nll[i]),
                "se": float(self.resampled[:, i].std()),
                "info": float(nll[0] - nll[i]),
                "behind": float(nll[i] - nll[best]),
                "behind_se": float(behind[:, i].std()),
            }
            for i in columns
        ]


def _compare(
    enc: Encoded,
    candidates: list[tuple[Membership, int]],
    config: FitConfig | None,
    heldout: float,
    seed: int,
) -> Compared:
    if not 0 < heldout < 1 or enc.n_raters < 2:
        raise JuryError(
            f"heldout={heldout} of {enc.n_raters} raters: needs a share in (0, 1) that leaves a rater on each side. "
            "Fix: use 0.25"
        )
    rng = seeded_rng(seed, "heldout raters of selection")
    n_out = min(max(round(heldout * enc.n_raters), 1), enc.n_raters - 1)
    order = rng.permutation(enc.n_raters)
    n_folds = -(-enc.n_raters // n_out) if len(enc) <= SMALL_TABLE else 1
    parts = []
    for fold in track(range(n_folds), "choosing the number of clusters: held-out raters"):
        out = np.zeros(enc.n_raters, dtype=bool)
        out[order[fold * n_out : (fold + 1) * n_out]] = True
        parts.append(_one_fold(enc, out, candidates, config, rng))
    losses, weight, count = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return Compared.of(candidates, losses, weight, count, rng, shortage(len(weight), enc.n_items))


def _one_fold(
    enc: Encoded,
    out: np.ndarray,
    candidates: list[tuple[Membership, int]],
    config: FitConfig | None,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Losses (R', candidates), weights (R',) and numbers of judgements (R',) of the held-out raters."""
    train = enc.select(~out[enc.rater], drop_raters=True)
    for _, num_clusters in candidates:
        check_num_clusters(train, num_clusters)
    test = _known_texts(train, enc.select(out[enc.rater], drop_raters=True))
    part = label_parts(test.rater, LABEL_PARTS, rng)
    scores = [_heldout_log_lik(train, test, part, *candidate, config) for candidate in track(candidates, "candidates")]
    losses = np.stack([np.bincount(test.rater, -score * test.weight, test.n_raters) for score in scores], axis=1)
    weight, count = (np.bincount(test.rater, values, test.n_raters) for values in (test.weight, test.count))
    return losses, weight, count


def _with_raters(enc: Encoded) -> Encoded:
    if enc.kind == "soft":
        raise JuryError(
            "kind='soft': a table of answer shares has no raters to hold out, and supports num_clusters=1 only. Fix: "
            "use judgements with rater_id, or fit one cluster"
        )
    return enc


def _not_compared(enc: Encoded, sizes: Sequence[int]) -> str:
    if len(sizes) == 1:
        return f"{_only(sizes[0])}; {shortage(enc.n_raters)}"
    chosen = "one reward for everybody" if sizes[0] == 1 else f"the smallest candidate, K={sizes[0]},"
    return f"undecided: {shortage(enc.n_raters)}, so no candidates were compared; {chosen} is used"


def _only(num_clusters: int) -> str:
    return f"K={num_clusters} is the only candidate, so no other number of clusters was compared"


class _NoSharedTexts(JuryError):
    """Held-out raters judged other texts than the training raters."""


def _known_texts(train: Encoded, test: Encoded) -> Encoded:
    """Drop test judgements of texts that no training rater judged."""
    seen = np.zeros(train.n_texts, dtype=bool)
    seen[train.alternatives[train.alternatives >= 0]] = True
    test = test.select((seen[test.alternatives] | (test.alternatives < 0)).all(1), drop_raters=True)
    if not len(test):
        raise _NoSharedTexts(
            "no text was judged by both a training and a held-out rater, so numbers of clusters cannot be compared. "
            "Fix: give one number of clusters instead of several (e.g. clusters=1), or collect judgements of the same "
            "texts by several raters"
        )
    return test


def _heldout_log_lik(
    train: Encoded,
    test: Encoded,
    part: np.ndarray,
    membership: Membership,
    num_clusters: int,
    config: FitConfig | None,
) -> np.ndarray:
    """(N,) predictive log-likelihood of each test judgement given the other parts of its rater's judgements."""
    fit: RaterFit = (
        fit_mixture(train, num_clusters, config)
        if membership == "mixture"
        else fit_raters(train, membership, num_clusters, config=config)
    )
    score = np.empty(len(test))
    for current in np.unique(part):
        scored = test.select(part == current)
        score[part == current] = answer_log_lik(fit.adapt(test.select(part != current)).log_probs(scored), scored)
    return score
