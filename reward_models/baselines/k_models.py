"""K separate reward models, one for each rater: hard assignment of raters as in MaxMin-RLHF.

Sums over judgements are computed once, so that the cost of a fit depends on the number of distinct judgements. Knows
nothing of rater terms or uncertain memberships.

Shapes: `N` judgements, `M` distinct judgements or questions, `R` raters, `U` texts, `K` models, `A` answers.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.sparse import csr_array, diags_array
from scipy.special import logsumexp
from torch import Tensor

from reward_models.errors import JuryError
from reward_models.fitting.em import spectral_start
from reward_models.fitting.text_table import TextTable, extend_to_features, label_information
from reward_models.judgements.encoding import Encoded, encoded_tables
from reward_models.judgements.texts import prompt_groups
from reward_models.raters.lbfgs import minimise
from reward_models.raters.observation import Observations, public_terms, start_thresholds, term_penalty, torch_terms
from reward_models.raters.predictors import n_answers, n_possible_answers, positions
from reward_models.seeds import seeded_rng
from reward_models.stats.groups import centre_within_groups
from reward_models.stats.resampling import heldout_labels


__all__ = ["KModelsFit", "fit_k_models"]

PRECISIONS = (0.03, 0.1, 0.3, 1.0, 3.0)  # candidates for the prior precision of a reward around zero
EM_PRECISION, EM_STEPS = 0.3, 12  # while raters still move between models
TIE_SD = 1.0  # of a model's log tie propensity around the frequency of ties among its raters
HELDOUT = 0.2


@dataclass(frozen=True)
class KModelsFit:
    """K separate reward models, each rater assigned to one of them. A `predictors.Predictor`.

    Attributes:
        table: Reward of each text under each model (U, K).
        terms: Shared terms of the likelihood of each model.
        prevalence: (K,) share of the training raters; the prior for an unknown rater.
        rater_ids: `R` raters that were adapted.
        assignment: (R,) model of each of them.
        precision: (K,) prior precision of the rewards of each model.
        kind: Kind of judgements.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("rating").judgements.encode()
        >>> fit = fit_k_models(enc, 2)
        >>> fit.prevalence.tolist(), fit.log_probs(enc).shape
        ([0.5, 0.5], (360, 3))
    """

    table: TextTable
    terms: list[dict[str, np.ndarray]]
    prevalence: np.ndarray
    rater_ids: list[str]
    assignment: np.ndarray
    precision: np.ndarray
    kind: str

    def log_probs(self, enc: Encoded, features: np.ndarray | None = None) -> np.ndarray:
        """Compute the (N, A) log-probability of every possible answer; see `Predictor`.

        Raises:
            JuryError: Another kind of judgements, or new texts without features.
        """
        answers = n_answers(enc)
        questions, question = Observations.from_encoded(enc).questions()
        log_p = np.full((len(questions.label), answers, len(self.terms)), -np.inf)
        for answer in range(n_possible_answers(enc, self.terms[0])):
            log_p[:, answer] = self._log_lik(questions.answering(answer), self._rewards(enc, features))
        rater = positions(enc.rater_ids, self.rater_ids)[enc.rater]
        weight = np.tile(self.prevalence, (len(enc), 1))
        weight[rater >= 0] = np.eye(len(self.terms))[self.assignment[rater[rater >= 0]]]
        with np.errstate(divide="ignore"):
            return logsumexp(log_p[question], axis=2, b=weight[:, None])

    def adapt(self, enc: Encoded, features: np.ndarray | None = None) -> KModelsFit:
        """Return the same models, each rater of `enc` assigned to the one under which the labels are most probable."""
        cells, counts = _cells(enc)
        totals = counts @ self._log_lik(cells, self._rewards(enc, features))
        return replace(self, rater_ids=enc.rater_ids, assignment=totals.argmax(1))

    def _rewards(self, enc: Encoded, features: np.ndarray | None) -> np.ndarray:
        if enc.kind != self.kind:
            raise JuryError(
                f"the models were fitted to {self.kind!r} judgements and cannot score {enc.kind!r} judgements. Fix: "
                "fit them to judgements of that kind"
            )
        return self.table.rows(enc, features)

    def _log_lik(self, cells: Observations, rewards: np.ndarray) -> np.ndarray:
        """(M, K) log-likelihood of distinct judgements under each model."""
        return np.stack([_log_lik(cells, rewards[:, k], terms) for k, terms in enumerate(self.terms)], axis=1)


def fit_k_models(
    enc: Encoded,
    num_clusters: int = 2,
    features: np.ndarray | None = None,
    *,
    assignment: np.ndarray | None = None,
    precision: float | None = None,
    restarts: int = 3,
    max_iter: int = 30,
    seed: int = 0,
) -> KModelsFit:
    """Fit K separate reward models by hard assignment, as in MaxMin-RLHF.

    Raters are assigned to the model that explains their labels best, each model is fitted to its raters, and so on
    until no rater moves (Chakraborty et al., "MaxMin-RLHF", ICML 2024, arXiv 2402.08925, Algorithm 2). There are no
    rater terms, no sharing between models and no uncertainty about the assignment. The best of several starts is kept,
    and the prior precision of each model is chosen on held-out labels.

    Args:
        enc: The judgements.
        num_clusters: `K`.
        features: (U, D) rows for `enc.texts`: the models then score new texts by regression on them.
        assignment: (R,) known model of each rater; no rater moves then. None: it is inferred.
        precision: Prior precision of the rewards; None: chosen for each model on held-out labels.
        restarts: Number of starts.
        max_iter: Most rounds of a start.
        seed: Random seed of the starts and of the held-out labels.

    Returns:
        The models, by decreasing prevalence unless `assignment` was passed.

    Raises:
        JuryError: K below 1 or above the number of raters, a table without raters, or features that do not match.

    Example:
        >>> from reward_models import adjusted_rand_index, planted_judgements
        >>> planted = planted_judgements("preference")
        >>> fit = fit_k_models(planted.judgements.encode(), 2)
        >>> adjusted_rand_index(fit.assignment, planted.cluster)
        1.0
    """
    (enc,) = encoded_tables(enc)
    if enc.kind == "soft" or not 1 <= num_clusters <= enc.n_raters:
        raise JuryError(
            f"num_clusters={num_clusters} models for {enc.n_raters} raters of {enc.kind!r} judgements: every model "
            "needs at least one rater. Fix: use a table with rater_id, and at most as many models as raters"
        )
    cells, counts = _cells(enc)
    n_texts, people = enc.n_texts, diags_array(enc.rater_weight)
    if assignment is None:
        surprise = _surprise(enc, cells, counts)
        runs = []
        for rng in seeded_rng(seed, "starts of k models").spawn(restarts if num_clusters > 1 else 1):
            start = spectral_start(surprise, enc.rater_weight, num_clusters, rng).argmax(1)
            runs.append(_alternate(cells, counts, enc.rater_weight, start, num_clusters, n_texts, max_iter))
        assignment = max(runs, key=lambda run: run[1])[0]
        order = np.argsort(-np.bincount(assignment, enc.rater_weight, num_clusters), kind="stable")
        assignment = np.argsort(order)[assignment]
    members = [assignment == k for k in range(num_clusters)]
    strength = np.full(num_clusters, precision)
    if precision is None:
        held = heldout_labels(enc.rater, HELDOUT, seeded_rng(seed, "heldout labels of k models"))
        _, known = _cells(enc, np.where(held, 0.0, enc.count))
        known, scored = csr_array(people @ known), csr_array(people @ counts)
        strength = np.array([_precision(cells, known[rows], scored[rows], n_texts) for rows in members])
    models = [
        _one_model(cells, enc.rater_weight[rows] @ counts[rows], n_texts, p)
        for rows, p in zip(members, strength, strict=True)
    ]
    rewards = np.stack([reward for reward, _ in models], axis=1)
    if enc.kind != "rating":
        rewards = centre_within_groups(rewards, prompt_groups(enc.texts))
    table = TextTable(enc.texts, rewards)
    if features is not None:
        table = extend_to_features(enc, rewards, label_information(enc), features, seed)
    sizes = np.bincount(assignment, enc.rater_weight, num_clusters)
    return KModelsFit(
        table, [terms for _, terms in models], sizes / sizes.sum(), enc.rater_ids, assignment, strength, enc.kind
    )


def _alternate(
    cells: Observations,
    counts: csr_array,
    rater_weight: np.ndarray,
    assignment: np.ndarray,
    num_clusters: int,
    n_texts: int,
    max_iter: int,
) -> tuple[np.ndarray, float]:
    """Run hard EM from an assignment (R,) of raters; return the last assignment and the log-likelihood."""
    totals = np.zeros((len(assignment), num_clusters))
    models: list[tuple[np.ndarray, dict[str, np.ndarray]]] = []
    for _ in range(max_iter):
        starts = [reward for reward, _ in models] or [np.zeros(n_texts)] * num_clusters
        models = [
            _one_model(
                cells,
                rater_weight[assignment == k] @ counts[assignment == k],
                n_texts,
                EM_PRECISION,
                start,
                EM_STEPS,
            )
            for k, start in enumerate(starts)
        ]
        totals = counts @ np.stack([_log_lik(cells, reward, terms) for reward, terms in models], axis=1)
        moved = totals.argmax(1)
        if (moved == assignment).all():
            break
        assignment = moved
    return assignment, float(rater_weight @ totals.max(1))


def _cells(enc: Encoded, count: np.ndarray | None = None) -> tuple[Observations, csr_array]:
    """Distinct judgements, and (R, M) how often each rater gave each of them."""
    obs = dataclasses.replace(Observations.from_encoded(enc), first=None)
    cells, cell = obs.distinct()
    values = enc.count if count is None else count
    return cells, csr_array((values, (enc.rater, cell.numpy())), shape=(enc.n_raters, len(cells.label)))


def _surprise(enc: Encoded, cells: Observations, counts: csr_array) -> csr_array:
    """(R, M) answers of each rater, each weighted by the share of people who answered the question otherwise."""
    _, question = cells.questions()
    total = enc.rater_weight @ counts
    share = total / np.bincount(question, total)[question]
    return csr_array(counts.multiply(1.0 - share[None]).tocsr())


def _log_lik(cells: Observations, reward: np.ndarray, terms: dict[str, np.ndarray]) -> np.ndarray:
    """(M,) log-likelihood of distinct judgements under one reward (U,)."""
    with torch.no_grad():
        shared = {name: torch.from_numpy(value) for name, value in terms.items()}
        return cells.state_log_lik(cells.gather(torch.from_numpy(reward)[:, None]), shared)[:, 0].numpy()


def _precision(cells: Observations, known: csr_array, counts: csr_array, n_texts: int) -> float:
    """Prior precision under which the known labels of some raters best predict their held-out labels."""
    seen = known.sum(0)
    heldout = counts.sum(0) - seen
    losses = {}
    for precision in PRECISIONS:
        reward, terms = _one_model(cells, seen, n_texts, precision)
        with np.errstate(invalid="ignore"):
            losses[precision] = -float(heldout[heldout > 0] @ _log_lik(cells, reward, terms)[heldout > 0])
    return min(losses, key=losses.__getitem__)


def _one_model(
    cells: Observations,
    counts: np.ndarray,
    n_texts: int,
    precision: float,
    first: np.ndarray | None = None,
    max_iter: int = 200,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Fit one reward per text (U,) and shared terms to distinct judgements with weights (M,)."""
    weight, label = torch.from_numpy(counts), cells.label[:, 0].numpy()
    start: dict[str, np.ndarray] = {"reward": (np.zeros(n_texts) if first is None else first)[:, None]}
    tie_prior = 0.0
    if cells.kind == "rating":
        start["raw_thresholds"] = start_thresholds(np.bincount(label, counts, cells.n_levels))
    elif cells.kind == "preference" and (label == 2).any():
        ties = counts[label == 2].sum() + 0.5
        tie_prior = float(np.log(2 * ties / (counts[label < 2].sum() + 1.0)))
        start["log_tie_mean"] = np.array([tie_prior])

    def loss(params: dict[str, Tensor]) -> Tensor:
        terms = torch_terms({name: value for name, value in params.items() if name != "reward"})
        log_lik = cells.state_log_lik(cells.gather(params["reward"]), terms)[:, 0]
        penalty = 0.5 * precision * params["reward"].square().sum() + term_penalty(params)
        if "log_tie_mean" in params:
            penalty = penalty + 0.5 * ((params["log_tie_mean"] - tie_prior) / TIE_SD).square().sum()
        return penalty - (weight * log_lik).sum()

    params = minimise(loss, start, max_iter=max_iter, tol=1e-7)
    return params.pop("reward")[:, 0], public_terms(params)
