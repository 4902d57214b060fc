"""Fits a jury to labels alone: free basis rewards for every text, and how raters vary around them.

Texts are opaque here: each has parameters of its own. That is what the data can say at best, in seconds, before any
language model is asked; `text_fit` makes the rewards functions of the text. One engine (`marginal`) serves every
membership. Knows nothing of features or language models.

Shapes: `N` judgements, `R` raters, `U` texts, `B` basis rewards, `K` clusters, `A` answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.special import logsumexp

from reward_models.errors import JuryError
from reward_models.fitting.em import FitConfig
from reward_models.fitting.marginal import Params, Problem
from reward_models.fitting.starting_point import Basis
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.texts import Text, prompt_groups
from reward_models.raters.lbfgs import one_thread
from reward_models.raters.observation import TERM_SD, Observations
from reward_models.raters.placement import Placement
from reward_models.raters.rater_model import DEFAULT_NODES, Membership, RaterModel
from reward_models.raters.state_grid import CHUNK
from reward_models.stats.answers import adjusted_rand_index
from reward_models.stats.groups import centre_within_groups


__all__ = ["RaterFit", "fit_raters"]

SAMPLE_RATERS = 5_000
SAMPLE_JUDGEMENTS = 1_000_000
SHORT_ITERATIONS = 25
FULL_PASSES = 8
SPREAD_ROUNDS = 2


@dataclass(frozen=True)
class RaterFit:
    """Rewards of the texts that were judged, and how raters vary around them. A `predictors.Predictor`.

    Attributes:
        model: States of a rater and their prior.
        texts: `U` texts.
        rewards: (U, B) basis rewards in logits; for `mixture` the reward of each cluster, clusters sorted by
            prevalence. Of ratings the mean over judgements is zero; of choices and pairs only differences between
            responses to one prompt mean anything, and their mean is zero.
        placement: The training raters.
        log_likelihood: Marginal log-likelihood of the judgements, nats.
        stability: Mean adjusted Rand index of the restarts' assignments with the best one's; 1 for a single start.
        history: Penalised objective of each restart, best first.
        reward_sd: Spread over texts of the consensus and of the deviations from it (mixture, simplex), or of each
            basis reward (factor), in logits; empty where it was not estimated.
    """

    model: RaterModel
    texts: list[Text]
    rewards: np.ndarray
    placement: Placement
    log_likelihood: float
    stability: float
    history: list[float]
    reward_sd: tuple[float, ...] = ()

    @property
    def kind(self) -> str:
        """Kind of judgements it was fitted to, the first if there are several."""
        return self.model.kind

    @property
    def num_clusters(self) -> int:
        """`K` of a mixture or simplex; the rank of a factor model."""
        return self.rewards.shape[1] - (self.model.membership == "factor")

    @property
    def prevalence(self) -> np.ndarray:
        """(B,) mean code of the population; for a mixture the share of raters in each cluster."""
        return np.exp(self.model.code_log_prior) @ self.model.codes

    @property
    def rater_ids(self) -> list[str]:
        """Names of the training raters."""
        return self.placement.rater_ids

    @property
    def responsibilities(self) -> np.ndarray:
        """(R, B) posterior mean code of `rater_ids`; for a mixture the posterior over clusters."""
        return self.placement.memberships()

    @property
    def nuisance(self) -> dict[str, np.ndarray]:
        """Terms of the likelihood that are not reward: posterior means (R,) and shared terms, see `observation`."""
        return self.placement.terms() | self.model.shared

    def log_probs(self, enc: Encoded, features: np.ndarray | None = None) -> np.ndarray:
        """(N, A) log-probability of every possible answer; see `Predictor`. `features` are not needed.

        Raises:
            JuryError: A text the fit has not seen.
        """
        return self.placement.log_probs(enc, self.known_rewards(enc))

    def adapt(self, enc: Encoded, features: np.ndarray | None = None) -> RaterFit:
        """The same jury with the raters of `enc` placed by their labels, all others forgotten."""
        return replace(self, placement=self.model.adapt(enc, self.known_rewards(enc)))

    def known_rewards(self, enc: Encoded) -> np.ndarray:
        """(U', B) basis rewards of `enc.texts`; zero for texts that no judgement of `enc` mentions.

        Raises:
            JuryError: A text that is judged but was not in the fit.
        """
        index = {text: i for i, text in enumerate(self.texts)}
        own = np.array([index.get(text, -1) for text in enc.texts], dtype=np.int64)
        used = np.unique(enc.alternatives[enc.alternatives >= 0])
        unknown = [enc.texts[i] for i in used if own[i] < 0]
        if unknown:
            raise JuryError(
                f"{len(unknown)} of {len(used)} texts were not in the fit, the first: {unknown[0]!r}. A label-level "
                "jury knows the texts it was fitted to; use fit_features or fit_texts for new ones"
            )
        return np.where(own[:, None] >= 0, self.rewards[own], 0.0)

    def judgement_log_lik(self, enc: Encoded, nuisance: dict[str, np.ndarray] | None = None) -> np.ndarray:
        """Log-likelihood of judgements for each basis reward, at a point estimate of the rater terms.

        Args:
            enc: `N` judgements of any raters.
            nuisance: Terms of `enc`'s raters, as `point_estimates` returns them; None: those of known raters, and
                none for others.

        Returns:
            (N, B) nats, not multiplied by weight. `log_probs` averages over the terms instead.
        """
        if nuisance is None:
            position = {rater: i for i, rater in enumerate(self.rater_ids)}
            own = np.array([position.get(rater, -1) for rater in enc.rater_ids], dtype=np.int64)
            nuisance = {
                k: (np.where(own >= 0, v[own], 0.0) if len(v) else np.zeros(len(own))) if k in TERM_SD else v
                for k, v in self.nuisance.items()
            }
        rewards = self.known_rewards(enc)
        self.model.check(enc, rewards)
        obs = Observations.from_encoded(enc)
        with torch.no_grad():
            terms = {name: torch.from_numpy(np.asarray(value)) for name, value in nuisance.items()}
            return obs.log_lik(obs.gather(torch.from_numpy(rewards)), terms).numpy()

    def point_estimates(self, enc: Encoded) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Place raters, known or new: (R', B) posterior mean code, and terms for `judgement_log_lik`."""
        placement = self.model.adapt(enc, self.known_rewards(enc))
        return placement.memberships(), placement.terms() | self.model.shared

    def posterior(self, enc: Encoded) -> np.ndarray:
        """(R', B) posterior mean code of `enc`'s raters given `enc`'s judgements only."""
        return self.point_estimates(enc)[0]


def fit_raters(
    enc: Encoded | Sequence[Encoded],
    membership: Membership = "mixture",
    num_clusters: int = 2,
    *,
    basis: Basis = "linear",
    config: FitConfig | None = None,
) -> RaterFit:
    """Fit basis rewards per text, the prior over codes and the spread of rater terms.

    Args:
        enc: Judgements; several tables of different kinds share raters and texts (by name).
        membership: How a rater relates to the basis; see `rater_model`.
        num_clusters: `K` clusters of a mixture, `K` prototypes of a simplex, or the rank of a factor model. A mixture
            of one is Bradley-Terry (pairs), multinomial logit (choices) or proportional odds (ratings).
        basis: `"linear"`: free rewards. `"ideal_point"`: rewards are minus the squared distance of a text's point from
            the prototypes' (PAL; Chen et al. 2025), for mixture and simplex.
        config: Restarts, priors; None: the defaults.

    Returns:
        The fit.

    Raises:
        JuryError: A number of clusters or a combination that cannot work, or tables of one kind.
    """
    with one_thread():
        return _fit(
            [enc] if isinstance(enc, Encoded) else list(enc), membership, num_clusters, basis, config or FitConfig()
        )


def _fit(
    tables: list[Encoded], membership: Membership, num_clusters: int, basis: Basis, config: FitConfig
) -> RaterFit:
    problem = Problem.of(tables, membership, num_clusters, basis, config)
    rows = len(problem.counts.weight)
    if rows > SAMPLE_RATERS and problem.counts.matrix.nnz > SAMPLE_JUDGEMENTS:
        # Which raters go together is seen in a sample; all of them then say what each cluster wants.
        some = np.random.default_rng(config.seed).permutation(rows)[:SAMPLE_RATERS]
        params, reward_sd, stability, history = _best_of_starts(problem.of_rows(some), config)
        problem = replace(problem, reward_sd=reward_sd)
        params, loss = problem.expectation_maximisation(params, FULL_PASSES)
    else:
        params, reward_sd, stability, history = _best_of_starts(problem, config)
        problem = replace(problem, reward_sd=reward_sd)
        params, loss = problem.maximise(params, config.max_iter, config.tol)
    return _result(problem, params, stability, [-loss, *history])


def _best_of_starts(problem: Problem, config: FitConfig) -> tuple[Params, tuple[float, ...], float, list[float]]:
    """Run from several starting points for a while, and go on from the best, learning the spread of rewards.

    Returns:
        Parameters, spread of rewards, mean adjusted Rand index of the other starts with the best, and the penalised
        objective of the other starts.
    """
    streams = np.random.default_rng(config.seed).spawn(problem.n_restarts)
    coarse = problem.coarse()
    short = [coarse.maximise(problem.start(rng), SHORT_ITERATIONS, 1e-5) for rng in streams]
    short.sort(key=lambda run: run[1])
    params, _ = short[0]
    for _ in range(SPREAD_ROUNDS):
        problem = problem.learn_spread(params)
        params, _ = problem.maximise(params, SHORT_ITERATIONS, 1e-5)
    best, *others = (_assignments(problem, run) for run in [params, *(run for run, _ in short[1:])])
    stability = float(np.mean([adjusted_rand_index(best, other) for other in others])) if others else 1.0
    return params, problem.reward_sd, stability, [-loss for _, loss in short[1:]]


def _posterior(problem: Problem, params: Params) -> tuple[RaterModel, np.ndarray, float]:
    """The fitted model, (P, S) posterior of the distinct raters, and the marginal log-likelihood."""
    model = problem.fitted_model(params)
    with torch.no_grad():
        table = problem.table({k: torch.from_numpy(v) for k, v in params.items()}).numpy()
    joint = problem.counts.matrix @ table + model.log_prior
    size = logsumexp(joint, axis=1, keepdims=True)
    return model, np.exp(joint - size), float(problem.counts.weight @ size[:, 0])


def _assignments(problem: Problem, params: Params) -> np.ndarray:
    """(R,) most probable code of each rater."""
    model, posterior, _ = _posterior(problem, params)
    codes = posterior.reshape(len(posterior), len(model.codes), -1).sum(2).argmax(1)
    return np.repeat(codes, problem.counts.weight.astype(np.int64))


def _result(problem: Problem, params: Params, stability: float, history: list[float]) -> RaterFit:
    fine = replace(problem, model=problem.model.with_nodes(DEFAULT_NODES))
    if fine.model.n_states * len(problem.counts.weight) <= CHUNK:
        problem = fine  # raters are placed on the finest grid that fits, whatever grid the fit could afford
    model, posterior, log_likelihood = _posterior(problem, params)
    with torch.no_grad():
        rewards = problem.rewards({k: torch.from_numpy(v) for k, v in params.items()}).numpy()
    if "rating" not in problem.model.terms:  # ratings of different prompts are on one scale
        rewards = centre_within_groups(rewards, prompt_groups(problem.texts))
    if model.membership == "mixture":
        order = np.argsort(-model.code_log_prior, kind="stable")
        by_code = posterior.reshape(len(posterior), len(order), -1)[:, order]
        model = replace(model, code_log_prior=model.code_log_prior[order])
        rewards, posterior = rewards[:, order], by_code.reshape(len(posterior), -1)
    return RaterFit(
        model=model,
        texts=problem.texts,
        rewards=rewards,
        placement=Placement(model, problem.rater_ids, posterior[problem.pattern]),
        log_likelihood=log_likelihood,
        stability=stability,
        history=history,
        reward_sd=problem.reward_sd if problem.basis == "linear" else (),
    )
