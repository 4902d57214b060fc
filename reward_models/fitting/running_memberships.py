"""Who belongs to which cluster while the rewards are still being learnt: incremental soft EM.

A table keeps the last known log-likelihood of every judgement in every cluster. Whenever the model has read a text
again, the entries of its judgements are replaced, so that each judgement counts once however often it was seen; sums
per rater and prevalence follow (Neal and Hinton 1998, "A view of the EM algorithm that justifies incremental, sparse,
and other variants"). numpy only; knows nothing of texts, models or processes.

Shapes: `N` judgements, `R` raters, `K` clusters; log-likelihoods in nats.
"""

from __future__ import annotations

import hashlib

import numpy as np
from scipy.special import entr, log_softmax, logsumexp, softmax

from reward_models.judgements.encoding import Encoded


__all__ = ["RunningMemberships", "fingerprint"]


def fingerprint(enc: Encoded) -> str:
    """A hash of who judged what and how, without a name in it: the same judgements give the same one."""
    digest = hashlib.sha256("\n".join(enc.rater_ids).encode())
    for array in (enc.rater, enc.alternatives, enc.label):
        digest.update(np.ascontiguousarray(array, dtype=np.int64).tobytes())
    return digest.hexdigest()


class RunningMemberships:
    """Posterior memberships `q_uk ∝ pi_k exp(S_uk / T)` from a running table of log-likelihoods.

    Args:
        enc: The training judgements.
        num_clusters: `K`.
        dirichlet: `alpha` of the prior on the prevalence.
        temperature: `T` while `annealing` is 1; it falls to 1 with it.

    Attributes:
        log_lik: (N, K) last known log-likelihood of each judgement; 0, which tells nothing, before it was seen.
        totals: (R, K) `S`, the weighted sum over each rater's judgements.
        evidence: (R, K) in nats, what a random start pretends to know of each rater; fades with `annealing`.
        prevalence: (K,) `pi`.
        annealing: From 1 at the start of training to 0 where the E-step is Bayes' rule.
    """

    def __init__(self, enc: Encoded, num_clusters: int, *, dirichlet: float, temperature: float = 1.0) -> None:
        self.rater, self.weight = enc.rater, np.asarray(enc.weight, dtype=np.float64)
        self.dirichlet, self.first_temperature = dirichlet, temperature
        self.fingerprint = fingerprint(enc)
        self.log_lik = np.zeros((len(enc), num_clusters))
        self.totals = np.zeros((enc.n_raters, num_clusters))
        self.evidence = np.zeros((enc.n_raters, num_clusters))
        self.prevalence = np.full(num_clusters, 1.0 / num_clusters)
        self.annealing = 0.0

    @property
    def temperature(self) -> float:
        """Temperature `T` of the E-step now."""
        return 1.0 + (self.first_temperature - 1.0) * self.annealing

    def record(self, judgement: np.ndarray, log_lik: np.ndarray) -> None:
        """Replace what is known of some judgements, and move the prevalence to where that puts it.

        Args:
            judgement: (B,) numbers of the judgements; where one comes twice, the last counts.
            log_lik: (B, K) their log-likelihood, not multiplied by weight.
        """
        number, last = np.unique(judgement[::-1], return_index=True)
        new = log_lik[::-1][last].astype(np.float64)
        np.add.at(self.totals, self.rater[number], self.weight[number, None] * (new - self.log_lik[number]))
        self.log_lik[number] = new
        self.update_prevalence()

    def update_prevalence(self) -> None:
        """M-step of the prevalence under its Dirichlet prior, given the posterior now."""
        expected = self.posterior().sum(0) + self.dirichlet - 1.0
        self.prevalence = expected / expected.sum()

    def posterior(self) -> np.ndarray:
        """(R, K) memberships `q` given everything known; a rater of whom nothing is known is the prevalence."""
        return softmax(self._log_joint(), axis=1)

    def log_membership(self, rater: np.ndarray, judgement: np.ndarray | None = None) -> np.ndarray:
        """Log membership of raters, given their judgements but for one.

        A judgement must not be explained by a membership that it decided alone, so what the table says of it is
        taken out; its present likelihood comes in again through `tempered_loss`.

        Args:
            rater: (B,) rater numbers; -1 for a rater who is not in the table.
            judgement: (B,) the judgement to leave out; None leaves none out.

        Returns:
            (B, K) log of the (tempered) posterior, nats.
        """
        known = np.where(rater[:, None] >= 0, self._log_joint()[rater], self._log_prevalence())
        if judgement is not None:
            known = known - self.weight[judgement, None] * self.log_lik[judgement] / self.temperature
        return log_softmax(known, axis=1)

    def sizes(self) -> np.ndarray:
        """(K,) expected number of raters in each cluster."""
        return self.posterior().sum(0)

    def entropy(self) -> float:
        """Mean entropy of the raters' memberships, nats: 0 where every rater is placed for certain."""
        return float(entr(self.posterior()).sum(1).mean())

    def reseed(self, cluster: int) -> np.ndarray:
        """Give an empty cluster the raters who are explained worst, until their judgements are seen again.

        Args:
            cluster: The empty cluster.

        Returns:
            The numbers of those raters: half of what would be an equal share, at least one.
        """
        weight = np.bincount(self.rater, self.weight, minlength=len(self.totals))
        fit = np.full(len(weight), np.inf)
        judged = weight > 0
        fit[judged] = logsumexp(self._log_prevalence() + self.totals, axis=1)[judged] / weight[judged]
        worst = np.argsort(fit, kind="stable")[: max(1, len(fit) // (2 * len(self.prevalence)))]
        mine = np.isin(self.rater, worst)
        # 0 nats: as if the cluster had predicted these answers for certain.
        self.totals[worst, cluster] = 0.0
        self.log_lik[mine, cluster] = 0.0
        self.update_prevalence()
        return worst

    def state(self) -> dict[str, np.ndarray]:
        """What a checkpoint must hold."""
        names = ("log_lik", "totals", "evidence", "prevalence")
        return {name: getattr(self, name) for name in names}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Continue from what `state` returned."""
        self.log_lik, self.totals = state["log_lik"].copy(), state["totals"].copy()
        self.evidence, self.prevalence = state["evidence"].copy(), state["prevalence"].copy()

    def _log_prevalence(self) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return np.log(self.prevalence)

    def _log_joint(self) -> np.ndarray:
        known = self.totals + self.annealing * self.evidence
        return self._log_prevalence() + known / self.temperature
