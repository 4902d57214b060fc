"""Fit a jury to labels alone: free basis rewards for every text, and how raters vary around them.

Every text has its own parameters, whatever its words. This takes seconds, needs no language model and is the best that
the labels can tell about the texts in the table; `joint.fit` has rewards for new texts too. The objective is
that of `marginal`, for every membership. Knows nothing of features or language models.

Shapes: `N` judgements, `R` raters, `U` texts, `B` basis rewards, `K` clusters, `A` answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.special import logsumexp

from reward_models.errors import JuryError, settings_or_default
from reward_models.fitting.em import FitConfig
from reward_models.fitting.marginal import Params, Problem
from reward_models.fitting.starting_point import Basis
from reward_models.judgements.encoding import Encoded, encoded_tables
from reward_models.judgements.texts import Text, prompt_groups
from reward_models.progress import track
from reward_models.raters.lbfgs import one_thread
from reward_models.raters.observation import TERM_SD, Observations
from reward_models.raters.placement import OfRaters, Placement
from reward_models.raters.predictors import positions
from reward_models.raters.rater_model import DEFAULT_NODES, Membership, RaterModel
from reward_models.raters.state_grid import CHUNK
from reward_models.seeds import seeded_rng
from reward_models.stats.answers import adjusted_rand_index
from reward_models.stats.groups import centre_within_groups


__all__ = ["RaterFit", "fit_raters"]

SAMPLE_RATERS = 5_000  # distinct raters that starting points are compared on
SAMPLE_JUDGEMENTS = 1_000_000  # distinct (rater, judgement) pairs up to which all raters are used
SHORT_ITERATIONS = 25  # L-BFGS iterations from each starting point
FULL_PASSES = 8  # EM iterations over all raters after a fit to a sample
SPREAD_ROUNDS = 2  # re-estimations of the spread of rewards


@dataclass(frozen=True)
class RaterFit(OfRaters):
    """Rewards of the texts that were judged, and how raters vary around them. A `predictors.Predictor`.

    Attributes:
        model: States of a rater and their prior.
        texts: `U` texts.
        rewards: (U, B) basis rewards in logits; for `mixture` the reward of each cluster, clusters sorted by
            prevalence. For ratings with a leniency term the mean over judgements is zero. For choices and pairs only
            differences between responses to one prompt are meaningful, and the mean over these responses is zero.
        placement: Posterior of the training raters.
        log_likelihood: Marginal log-likelihood of the judgements, nats.
        stability: Mean adjusted Rand index of the restarts' assignments with the best one's; 1 for a single start.
        history: Penalised objective of each restart, best first.
        reward_sd: Spread over texts of the consensus and of the deviations from it (mixture, simplex), or of each
            basis reward (factor), in logits; empty where it was not estimated.
        basis: What the rewards are, see `fit_raters`.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("rating").judgements.encode()
        >>> fit = fit_raters(enc, "mixture", 2)
        >>> fit.num_clusters, fit.rewards.shape, sorted(fit.nuisance)
        (2, (12, 2), ['intercept', 'log_scale', 'thresholds'])
        >>> fit.log_probs(enc).shape  # judgements, levels
        (360, 3)
    """

    model: RaterModel
    texts: list[Text]
    rewards: np.ndarray
    placement: Placement
    log_likelihood: float
    stability: float
    history: list[float]
    reward_sd: tuple[float, ...] = ()
    basis: Basis = "linear"

    @property
    def kind(self) -> str:
        """Kind of judgements of the fit, the first if there are several."""
        return self.model.kind

    @property
    def nuisance(self) -> dict[str, np.ndarray]:
        """Terms of the likelihood that are not rewards: posterior means (R,) and shared terms, see `observation`."""
        return self.placement.terms() | self.model.shared

    def log_probs(self, enc: Encoded, features: np.ndarray | None = None) -> np.ndarray:
        """Compute the (N, A) log-probability of every possible answer; see `Predictor`. `features` are ignored.

        Raises:
            JuryError: A judged text that was not in the fit.
        """
        return self.placement.log_probs(enc, self.known_rewards(enc))

    def adapt(self, enc: Encoded, features: np.ndarray | None = None) -> RaterFit:
        """Return the same jury with the raters of `enc` adapted from their labels; all other raters are forgotten."""
        return replace(self, placement=self.placement.adapt(enc, self.known_rewards(enc)))

    def known_rewards(self, enc: Encoded) -> np.ndarray:
        """Look up the (U', B) basis rewards of `enc.texts`; zero for unknown texts without a judgement in `enc`.

        Raises:
            JuryError: A judged text that was not in the fit.
        """
        row = positions(enc.texts, self.texts)
        judged = np.unique(enc.alternatives[enc.alternatives >= 0])
        unknown = judged[row[judged] < 0]
        if len(unknown):
            raise JuryError(
                f"{len(unknown)} of {len(judged)} texts were not in the fit, the first: {enc.texts[unknown[0]]!r}. A "
                "label-level jury has rewards for the texts of the fit only. Fix: fit_jury(judgements, backbone), or "
                "fit_joint(enc, features) with vectors of your own, scores any text"
            )
        return np.where(row[:, None] >= 0, self.rewards[row], 0.0)

    def judgement_log_lik(self, enc: Encoded, nuisance: dict[str, np.ndarray] | None = None) -> np.ndarray:
        """Compute the log-likelihood of judgements under each basis reward, at a point estimate of the rater terms.

        Args:
            enc: `N` judgements of any raters.
            nuisance: Terms of `enc`'s raters, as `point_estimates` returns them; None: the fitted terms of known
                raters, zero for unknown raters.

        Returns:
            (N, B) nats, not multiplied by weight. `log_probs` averages over the terms instead.
        """
        if nuisance is None:
            row = positions(enc.rater_ids, self.rater_ids)
            nuisance = {
                k: (np.where(row >= 0, v[row], 0.0) if len(v) else np.zeros(len(row))) if k in TERM_SD else v
                for k, v in self.nuisance.items()
            }
        rewards = self.known_rewards(enc)
        self.model.check(enc, rewards)
        obs = Observations.from_encoded(enc)
        with torch.no_grad():
            terms = {name: torch.from_numpy(np.asarray(value)) for name, value in nuisance.items()}
            return obs.log_lik(obs.gather(torch.from_numpy(rewards)), terms).numpy()

    def point_estimates(self, enc: Encoded) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Adapt raters, known or new: return (R', B) posterior mean codes, and terms for `judgement_log_lik`."""
        placement = self.model.adapt(enc, self.known_rewards(enc))
        return placement.memberships(), placement.terms() | self.model.shared

    def posterior(self, enc: Encoded) -> np.ndarray:
        """Return the (R', B) posterior mean code of `enc`'s raters given `enc`'s judgements only."""
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
        enc: Judgements; several tables of different kinds are joined on the names of raters and on texts.
        membership: How a rater combines the basis rewards; see `rater_model`.
        num_clusters: `K` clusters of a mixture, `K` prototypes of a simplex, or the rank of a factor model. A mixture
            of one is Bradley-Terry (pairs), multinomial logit (choices) or proportional odds (ratings).
        basis: `"linear"`: free rewards. `"ideal_point"`: a reward is minus the squared distance between the point of
            the text and that of the prototype (PAL; Chen et al. 2025), for mixture and simplex.
        config: Restarts, priors; None: the defaults.

    Returns:
        The fit.

    Raises:
        JuryError: A number of clusters that cannot work, a combination that cannot work, or two tables of one kind.

    Example:
        >>> from reward_models import adjusted_rand_index, planted_judgements
        >>> planted = planted_judgements("preference")
        >>> fit = fit_raters(planted.judgements.encode(), "mixture", 2)
        >>> adjusted_rand_index(fit.responsibilities.argmax(1), planted.cluster)
        1.0
    """
    with one_thread():
        return _fit(encoded_tables(enc), membership, num_clusters, basis, settings_or_default(config, FitConfig))


def _fit(
    tables: list[Encoded], membership: Membership, num_clusters: int, basis: Basis, config: FitConfig
) -> RaterFit:
    problem = Problem.of(tables, membership, num_clusters, basis, config)
    rows = len(problem.counts.weight)
    if rows > SAMPLE_RATERS and problem.counts.matrix.nnz > SAMPLE_JUDGEMENTS:
        # A sample of raters tells which raters go together; all raters then tell what each cluster wants.
        some = seeded_rng(config.seed, "sample of raters").permutation(rows)[:SAMPLE_RATERS]
        params, reward_sd, stability, history = _best_of_starts(problem.of_rows(some), config)
        problem = replace(problem, reward_sd=reward_sd)
        params, loss = problem.expectation_maximisation(params, FULL_PASSES)
    else:
        params, reward_sd, stability, history = _best_of_starts(problem, config)
        problem = replace(problem, reward_sd=reward_sd)
        params, loss = problem.maximise(params, config.max_iter, config.tol)
    return _result(problem, params, stability, [-loss, *history])


def _best_of_starts(problem: Problem, config: FitConfig) -> tuple[Params, tuple[float, ...], float, list[float]]:
    """Run briefly from several starting points, continue from the best, and learn the spread of rewards.

    Returns:
        Parameters, spread of rewards, mean adjusted Rand index of the other starts with the best, and the penalised
        objectives of the other starts.
    """
    streams = seeded_rng(config.seed, "starts of rater fit").spawn(problem.n_restarts)
    coarse = problem.coarse()
    short = [coarse.maximise(problem.start(rng), SHORT_ITERATIONS, 1e-5) for rng in track(streams, "starting points")]
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
    return np.repeat(codes, problem.counts.size)


def _result(problem: Problem, params: Params, stability: float, history: list[float]) -> RaterFit:
    """The fit: clusters sorted by prevalence, rewards centred, raters adapted on the finest affordable grid."""
    fine = replace(problem, model=problem.model.with_nodes(DEFAULT_NODES))
    if fine.model.n_states * len(problem.counts.weight) <= CHUNK:
        problem = fine
    model, posterior, log_likelihood = _posterior(problem, params)
    with torch.no_grad():
        rewards = problem.rewards({k: torch.from_numpy(v) for k, v in params.items()}).numpy()
    if "rating" not in problem.model.terms:  # ratings compare across prompts
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
        basis=problem.basis,
    )
