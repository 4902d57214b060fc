"""Memberships of raters while the rewards are still being trained: incremental soft EM.

A table keeps the last known log-likelihood of every judgement in every cluster. Each time the model scores a text, the
entries of its judgements are replaced, so that each judgement counts once however often it was seen; sums per rater
and the prevalence are updated (Neal and Hinton 1998, "A view of the EM algorithm that justifies incremental, sparse,
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
    """Hash who judged what and how; equal judgements have equal hashes, and the hash reveals no name.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("choice").judgements.encode()
        >>> fingerprint(enc) == fingerprint(enc.select(enc.rater > 0))
        False
    """
    digest = hashlib.sha256("\n".join(enc.rater_ids).encode())
    for array in (enc.rater, enc.alternatives, enc.label):
        digest.update(np.ascontiguousarray(array, dtype=np.int64).tobytes())
    return digest.hexdigest()


class RunningMemberships:
    """Posterior memberships `q_uk ∝ pi_k exp(S_uk / T)` from a table of log-likelihoods that is updated in training.

    Args:
        enc: The training judgements.
        num_clusters: `K`.
        dirichlet: `alpha` of the prior on the prevalence.
        temperature: `T` while `annealing` is 1; it falls to 1 with it.

    Attributes:
        log_lik: (N, K) last known log-likelihood of each judgement; 0 in every cluster before it was seen.
        totals: (R, K) `S`, the sum over each rater's judgements, each by its count.
        evidence: (R, K) artificial evidence of a random start about each rater, in nats; fades with `annealing`.
        prevalence: (K,) `pi`.
        annealing: From 1 at the start of training to 0, where the E-step is Bayes' rule.

    Example:
        The first judgement, by rater 0, turns out to be much likelier in the first cluster:

        >>> from reward_models import planted_judgements
        >>> memberships = RunningMemberships(planted_judgements(num_raters=4).judgements.encode(), 2, dirichlet=1.5)
        >>> memberships.record(np.array([0]), np.log([[0.9, 0.1]]))
        >>> memberships.posterior()[0].round(2).tolist()
        [0.93, 0.07]
    """

    def __init__(self, enc: Encoded, num_clusters: int, *, dirichlet: float, temperature: float = 1.0) -> None:
        self.rater, self.count = enc.rater, np.asarray(enc.count, dtype=np.float64)
        self.rater_weight = enc.rater_weight
        self.dirichlet, self.first_temperature = dirichlet, temperature
        self.fingerprint = fingerprint(enc)
        self.log_lik = np.zeros((len(enc), num_clusters))
        self.totals = np.zeros((enc.n_raters, num_clusters))
        self.evidence = np.zeros((enc.n_raters, num_clusters))
        self.prevalence = np.full(num_clusters, 1.0 / num_clusters)
        self.annealing = 0.0

    @property
    def temperature(self) -> float:
        """Current temperature `T` of the E-step."""
        return 1.0 + (self.first_temperature - 1.0) * self.annealing

    def record(self, judgement: np.ndarray, log_lik: np.ndarray) -> None:
        """Replace the log-likelihoods of some judgements and update the prevalence.

        Args:
            judgement: (B,) indices of the judgements; of an index that occurs twice the last entry counts.
            log_lik: (B, K) their log-likelihoods, not multiplied by the count.
        """
        number, last = np.unique(judgement[::-1], return_index=True)
        new = log_lik[::-1][last].astype(np.float64)
        np.add.at(self.totals, self.rater[number], self.count[number, None] * (new - self.log_lik[number]))
        self.log_lik[number] = new
        self.update_prevalence()

    def update_prevalence(self) -> None:
        """Run the M-step of the prevalence under its Dirichlet prior, given the current posterior."""
        expected = self.rater_weight @ self.posterior() + self.dirichlet - 1.0
        self.prevalence = expected / expected.sum()

    def posterior(self) -> np.ndarray:
        """Compute the (R, K) memberships `q`; the prevalence for a rater whose judgements were not seen yet."""
        return softmax(self._log_joint(), axis=1)

    def log_membership(self, rater: np.ndarray, judgement: np.ndarray | None = None) -> np.ndarray:
        """Compute the log membership of raters, given all their judgements except one.

        A judgement must not be explained by a membership that it determined itself, so its entry in the table is
        subtracted; its current likelihood enters through the training loss.

        Args:
            rater: (B,) rater indices; -1 for a rater who is not in the table.
            judgement: (B,) the judgement to exclude for each rater; None excludes none.

        Returns:
            (B, K) log of the (tempered) posterior, nats.
        """
        known = np.where(rater[:, None] >= 0, self._log_joint()[rater], self._log_prevalence())
        if judgement is not None:
            known = known - self.count[judgement, None] * self.log_lik[judgement] / self.temperature
        return log_softmax(known, axis=1)

    def sizes(self) -> np.ndarray:
        """Compute the (K,) expected number of raters in each cluster."""
        return self.posterior().sum(0)

    def entropy(self) -> float:
        """Compute the mean entropy of the raters' memberships, in nats: 0 if every membership is certain."""
        return float(entr(self.posterior()).sum(1).mean())

    def reseed(self, cluster: int) -> np.ndarray:
        """Give an empty cluster the raters who are explained worst, until their judgements are seen again.

        Args:
            cluster: The empty cluster.

        Returns:
            The indices of those raters: half of an equal share of all raters, at least one.
        """
        count = np.bincount(self.rater, self.count, minlength=len(self.totals))
        fit = np.full(len(count), np.inf)
        judged = count > 0
        fit[judged] = logsumexp(self._log_prevalence() + self.totals, axis=1)[judged] / count[judged]
        worst = np.argsort(fit, kind="stable")[: max(1, len(fit) // (2 * len(self.prevalence)))]
        # 0 nats: as if the cluster had predicted these answers with certainty.
        self.totals[worst, cluster] = 0.0
        self.log_lik[np.isin(self.rater, worst), cluster] = 0.0
        self.update_prevalence()
        return worst

    def state(self) -> dict[str, np.ndarray]:
        """Return the arrays that a checkpoint must hold."""
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
