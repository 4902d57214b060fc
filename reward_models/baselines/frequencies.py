"""What a jury has to beat: answer frequencies, K separate models, and a table whose raters have lost their taste.

Each baseline is a `predictors.Predictor`. Groups of raters by trait are fitted in `demographics`, VPL in `vpl`;
Bradley-Terry and rater terms alone are `fit_raters(enc, "mixture", 1)` without and with them. Sums over judgements are
made once, so that a fit costs as much as the table has distinct judgements. Knows nothing of juries.

Shapes: `N` judgements, `M` distinct judgements or questions, `R` raters, `I` items, `U` texts, `K` models, `A`
answers.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.special import gammaln, logsumexp
from torch import Tensor

from reward_models.baselines.demographics import DemographicsFit, fit_demographics
from reward_models.errors import JuryError
from reward_models.fitting.em import spectral_start
from reward_models.fitting.text_table import TextTable, extend_to_features, label_information
from reward_models.judgements.encoding import Encoded, soft_as_choice
from reward_models.judgements.texts import Text, prompt_groups
from reward_models.raters.lbfgs import minimise
from reward_models.raters.observation import Observations, public_terms, start_thresholds, term_penalty, torch_terms
from reward_models.raters.predictors import n_answers
from reward_models.stats.groups import centre_within_groups
from reward_models.stats.resampling import heldout_labels


__all__ = [
    "DemographicsFit",
    "ItemMeanFit",
    "KModelsFit",
    "fit_demographics",
    "fit_item_mean",
    "fit_k_models",
    "shuffle_raters",
]

CONCENTRATIONS = 2.0 ** np.arange(-2, 11)  # answers that the marginal is worth
PRECISIONS = (0.03, 0.1, 0.3, 1.0, 3.0)  # of a text's reward around zero
EM_PRECISION, EM_STEPS = 0.3, 12  # while raters still move
TIE_SD = 1.0  # of a model's log tie propensity around the frequency of its own ties
HELDOUT = 0.2


@dataclass(frozen=True)
class ItemMeanFit:
    """How often each item got each answer. A `predictors.Predictor` that takes everybody for the population.

    Attributes:
        items: Row of each known item, by its texts; those of a pair in a fixed order.
        probs: (I, A) answer probabilities.
        marginal: (A,) answer probabilities of an unknown item, before options that are not offered are left out.
        concentration: How many answers the marginal counts for.
        kind: Kind of judgements.
    """

    items: dict[tuple[Text, ...], int]
    probs: np.ndarray
    marginal: np.ndarray
    concentration: float
    kind: str

    def log_probs(self, enc: Encoded, features: np.ndarray | None = None) -> np.ndarray:
        """(N, A) log-probability of every possible answer; see `Predictor`. Neither raters nor features matter.

        Raises:
            JuryError: Another kind of judgements.
        """
        kind = "choice" if enc.kind == "soft" else enc.kind
        if kind != self.kind:
            raise JuryError(
                f"the frequencies are of {self.kind!r} judgements and cannot score {enc.kind!r} judgements"
            )
        keys, question, turned = _items(enc)
        rows = np.array([self.items.get(key, -1) for key in keys], dtype=np.int64)
        width = n_answers(enc)
        table = np.zeros((len(keys), max(width, len(self.marginal))))
        table[:, : len(self.marginal)] = np.where(rows[:, None] >= 0, self.probs[rows], self.marginal)
        p = _turn(table[question][:, :width], turned)
        if kind == "choice":
            p = np.where(enc.alternatives >= 0, np.maximum(p, 1e-9), 0.0)
        with np.errstate(divide="ignore"):
            return np.log(p / p.sum(1, keepdims=True))

    def adapt(self, enc: Encoded, features: np.ndarray | None = None) -> ItemMeanFit:
        """Itself: nobody is adapted."""
        return self


def fit_item_mean(enc: Encoded, features: np.ndarray | None = None) -> ItemMeanFit:
    """Count the answers to each item, shrunk to the marginal.

    The item's answers are drawn from a Dirichlet distribution around the marginal, whose concentration maximises the
    likelihood of the table. In the marginal of pairs neither response is favoured: which one is a means nothing.

    Args:
        enc: Judgements of any kind; rater ids are ignored.
        features: Not used; here because all baselines are called alike.

    Returns:
        The frequencies.
    """
    if enc.kind == "soft":
        enc = soft_as_choice(enc)
    keys, question, turned = _items(enc)
    width = n_answers(enc)
    label = np.where(turned & (enc.label < 2), 1 - enc.label, enc.label)
    counts = np.bincount(question * width + label, enc.weight, len(keys) * width).reshape(-1, width)
    marginal = counts.sum(0)
    if enc.kind == "preference":
        marginal = np.array([marginal[:2].mean(), marginal[:2].mean(), marginal[2]])
    else:
        marginal = marginal + 0.5
    offered = np.ones_like(counts, dtype=bool)
    if enc.kind == "choice":
        offered = np.zeros_like(counts, dtype=bool)
        offered[question] = enc.alternatives >= 0
    prior = np.where(offered, marginal, 0.0)
    prior = prior / prior.sum(1, keepdims=True)
    answered = counts.sum(1)

    def log_evidence(concentration: float) -> float:
        at = np.where(prior > 0, concentration * prior, 1.0)
        per_answer = np.where(prior > 0, gammaln(at + counts) - gammaln(at), 0.0).sum(1)
        return float((gammaln(concentration) - gammaln(concentration + answered) + per_answer).sum())

    best = float(max(CONCENTRATIONS, key=log_evidence))
    probs = (counts + best * prior) / (answered + best)[:, None]
    return ItemMeanFit({key: i for i, key in enumerate(keys)}, probs, marginal / marginal.sum(), best, enc.kind)


def _items(enc: Encoded) -> tuple[list[tuple[Text, ...]], np.ndarray, np.ndarray]:
    """Distinct items by their texts, the (N,) item of each judgement, and whether the judgement turns a and b."""
    unique, row = np.unique(enc.alternatives, axis=0, return_inverse=True)
    index: dict[tuple[Text, ...], int] = {}
    item, turned = np.zeros(len(unique), dtype=np.int64), np.zeros(len(unique), dtype=bool)
    for i, alternatives in enumerate(unique):
        key = tuple(enc.texts[t] for t in alternatives if t >= 0)
        if enc.kind == "preference":
            ordered = tuple(sorted(key, key=repr))
            turned[i], key = ordered != key, ordered
        item[i] = index.setdefault(key, len(index))
    row = row.ravel()
    return list(index), item[row], turned[row]


def _turn(p: np.ndarray, turned: np.ndarray) -> np.ndarray:
    """Swap the first two columns of the rows that are turned."""
    return np.where(turned[:, None], np.concatenate([p[:, 1::-1], p[:, 2:]], axis=1), p) if turned.any() else p


@dataclass(frozen=True)
class KModelsFit:
    """K reward models with nothing in common, and one of them for each rater. A `predictors.Predictor`.

    Attributes:
        table: Reward (K) of each text.
        terms: Shared terms of each model's likelihood.
        prevalence: (K,) share of the training raters; what is assumed of a rater who is not known.
        rater_ids: `R` raters that are adapted.
        assignment: (R,) their model.
        precision: (K,) prior precision of the rewards of each model.
        kind: Kind of judgements.
    """

    table: TextTable
    terms: list[dict[str, np.ndarray]]
    prevalence: np.ndarray
    rater_ids: list[str]
    assignment: np.ndarray
    precision: np.ndarray
    kind: str

    def log_probs(self, enc: Encoded, features: np.ndarray | None = None) -> np.ndarray:
        """(N, A) log-probability of every possible answer; see `Predictor`.

        Raises:
            JuryError: Another kind of judgements, or new texts without features.
        """
        answers = n_answers(enc)
        questions, question = Observations.from_encoded(enc).questions()
        log_p = np.full((len(questions.label), answers, len(self.terms)), -np.inf)
        for answer in range(2 if self.kind == "preference" and "log_tie_mean" not in self.terms[0] else answers):
            log_p[:, answer] = self._log_lik(questions.answering(answer), self._rewards(enc, features))
        known = {rater: i for i, rater in enumerate(self.rater_ids)}
        own = np.array([known.get(rater, -1) for rater in enc.rater_ids], dtype=np.int64)[enc.rater]
        weight = np.tile(self.prevalence, (len(enc), 1))
        weight[own >= 0] = np.eye(len(self.terms))[self.assignment[own[own >= 0]]]
        with np.errstate(divide="ignore"):
            return logsumexp(log_p[question], axis=2, b=weight[:, None])

    def adapt(self, enc: Encoded, features: np.ndarray | None = None) -> KModelsFit:
        """The same models, each rater of `enc` given to the one under which the labels in `enc` are most probable."""
        cells, counts = _cells(enc)
        totals = counts @ self._log_lik(cells, self._rewards(enc, features))
        return replace(self, rater_ids=enc.rater_ids, assignment=totals.argmax(1))

    def _rewards(self, enc: Encoded, features: np.ndarray | None) -> np.ndarray:
        if enc.kind != self.kind:
            raise JuryError(
                f"the models were fitted to {self.kind!r} judgements and cannot score {enc.kind!r} judgements"
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

    Raters are given to the model that explains their labels best, each model is fitted to its own raters, and so on
    until nobody moves (Chakraborty et al., "MaxMin-RLHF", ICML 2024, arXiv 2402.08925, Algorithm 2). No rater terms,
    no sharing between models, no uncertainty about who belongs where. The best of several starts is kept, and the
    strength of each model's prior is chosen on left-out labels.

    Args:
        enc: The judgements.
        num_clusters: `K`.
        features: (U, D) rows for `enc.texts`: the models then score new texts by regression on them.
        assignment: (R,) model of each rater where that is known; nobody moves then.
        precision: Prior precision of the rewards; None: chosen for each model on left-out labels.
        restarts: Number of starts.
        max_iter: Most rounds of a start.
        seed: Seed of the starts and of the labels that are left out.

    Returns:
        The models, by falling prevalence unless the assignment was given.

    Raises:
        JuryError: K below 1 or above the number of raters, a table without raters, or features that do not fit.
    """
    if enc.kind == "soft" or not 1 <= num_clusters <= enc.n_raters:
        raise JuryError(
            f"num_clusters={num_clusters} models for {enc.n_raters} raters of kind {enc.kind!r}: every model needs "
            "raters of its own. Use a table with rater_id and at most as many models as raters"
        )
    cells, counts = _cells(enc)
    n_texts = enc.n_texts
    if assignment is None:
        surprise = _surprise(enc, cells, counts)
        runs = []
        for rng in np.random.default_rng(seed).spawn(restarts if num_clusters > 1 else 1):
            start = spectral_start(surprise, np.ones(enc.n_raters), num_clusters, rng).argmax(1)
            runs.append(_alternate(cells, counts, start, num_clusters, n_texts, max_iter))
        assignment = max(runs, key=lambda run: run[1])[0]
        order = np.argsort(-np.bincount(assignment, minlength=num_clusters), kind="stable")
        assignment = np.argsort(order)[assignment]
    own = [assignment == k for k in range(num_clusters)]
    strength = np.full(num_clusters, precision)
    if precision is None:
        held = heldout_labels(enc.rater, HELDOUT, np.random.default_rng(seed))
        _, known = _cells(enc, np.where(held, 0.0, enc.weight))
        strength = np.array([_precision(cells, known[rows], counts[rows], n_texts) for rows in own])
    models = [_one_model(cells, counts[rows].sum(0), n_texts, p) for rows, p in zip(own, strength, strict=True)]
    rewards = np.stack([reward for reward, _ in models], axis=1)
    if enc.kind != "rating":
        rewards = centre_within_groups(rewards, prompt_groups(enc.texts))
    table = TextTable(enc.texts, rewards)
    if features is not None:
        table = extend_to_features(enc, rewards, label_information(enc), features, seed)
    sizes = np.bincount(assignment, minlength=num_clusters)
    return KModelsFit(
        table, [terms for _, terms in models], sizes / sizes.sum(), enc.rater_ids, assignment, strength, enc.kind
    )


def _alternate(
    cells: Observations, counts: csr_array, assignment: np.ndarray, num_clusters: int, n_texts: int, max_iter: int
) -> tuple[np.ndarray, float]:
    """Hard EM from an assignment (R,) of raters: the last assignment and the log-likelihood."""
    totals = np.zeros((len(assignment), num_clusters))
    models: list[tuple[np.ndarray, dict[str, np.ndarray]]] = []
    for _ in range(max_iter):
        starts = [reward for reward, _ in models] or [np.zeros(n_texts)] * num_clusters
        models = [
            _one_model(cells, counts[assignment == k].sum(0), n_texts, EM_PRECISION, start, EM_STEPS)
            for k, start in enumerate(starts)
        ]
        totals = counts @ np.stack([_log_lik(cells, reward, terms) for reward, terms in models], axis=1)
        moved = totals.argmax(1)
        if (moved == assignment).all():
            break
        assignment = moved
    return assignment, float(totals.max(1).sum())


def _cells(enc: Encoded, weight: np.ndarray | None = None) -> tuple[Observations, csr_array]:
    """Distinct judgements, and (R, M) how often each rater gave them."""
    obs = dataclasses.replace(Observations.from_encoded(enc), first=None)
    cells, cell = obs.distinct()
    values = enc.weight if weight is None else weight
    return cells, csr_array((values, (enc.rater, cell.numpy())), shape=(enc.n_raters, len(cells.label)))


def _surprise(enc: Encoded, cells: Observations, counts: csr_array) -> csr_array:
    """(R, M) answers given, each counting the share of people who answered the same question otherwise."""
    _, question = cells.questions()
    given = counts.sum(0)
    share = given / np.bincount(question, given)[question]
    return csr_array(counts.multiply(1.0 - share[None]).tocsr())


def _log_lik(cells: Observations, reward: np.ndarray, terms: dict[str, np.ndarray]) -> np.ndarray:
    """(M,) log-likelihood of distinct judgements under one reward (U,)."""
    with torch.no_grad():
        shared = {name: torch.from_numpy(value) for name, value in terms.items()}
        return cells.state_log_lik(cells.gather(torch.from_numpy(reward)[:, None]), shared)[:, 0].numpy()


def _precision(cells: Observations, known: csr_array, counts: csr_array, n_texts: int) -> float:
    """The prior precision under which the known labels of some raters best predict the others."""
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
    """One reward (U,) per text and shared terms, from the weight (M,) of each distinct judgement."""
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


def shuffle_raters(enc: Encoded, seed: int = 0) -> Encoded:
    """Permute the raters among the judgements of each item: a table with nothing to personalise.

    Every item keeps its answers, and every rater the items judged (hence the number of judgements), but whose answer
    is whose is chance. Leniency and other rater terms are lost with the taste.

    Args:
        enc: A table with raters.
        seed: Of the permutations.

    Returns:
        The same judgements with other raters.

    Raises:
        JuryError: A table without raters.
    """
    if enc.kind == "soft":
        raise JuryError("kind='soft': a table of answer shares has no raters to shuffle")
    by_item = np.argsort(enc.item, kind="stable")
    shuffled = np.lexsort((np.random.default_rng(seed).random(len(enc)), enc.item))
    rater = enc.rater.copy()
    rater[by_item] = enc.rater[shuffled]
    return dataclasses.replace(enc, rater=rater)
