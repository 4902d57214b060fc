"""Fit a jury to judgements and features of texts together: texts and raters in one likelihood.

Rewards are linear in the features plus a residual of the text. Where hundreds judge a text the residuals win; where
five do, the features carry it. How strong each is follows from the judgements (`strengths`). Several tables of the
same raters, of different kinds, are fitted together: one reward, one membership per rater. A text that nobody judged
keeps the variance of its residual and of what the features leave open. Knows nothing of where features come from.

Shapes: `N` judgements, `R` raters, `U` texts, `D` features, `d` coordinates, `P` parts (consensus and tastes), `B`
basis rewards, `C` codes, `A` answers.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from reward_models.errors import JuryError, settings_or_default
from reward_models.fitting.em import FitConfig
from reward_models.fitting.joint.problem import JointProblem, Params, Strengths
from reward_models.fitting.joint.starts import start_from, taste_starts
from reward_models.fitting.joint.strengths import (
    Consensus,
    Curvature,
    fit_consensus,
    rescaled,
    strength,
    usual_tastes,
)
from reward_models.fitting.joint.text_posterior import text_posterior
from reward_models.fitting.joint.text_space import TextSpace
from reward_models.fitting.starting_point import check_judged_twice
from reward_models.fitting.text_table import check_features, feature_rows
from reward_models.judgements.encoding import Encoded, encoded_tables
from reward_models.judgements.texts import Text, prompt_groups
from reward_models.raters.lbfgs import one_thread
from reward_models.raters.placement import OfRaters, Placement
from reward_models.raters.predictors import positions
from reward_models.raters.rater_model import Membership, RaterModel
from reward_models.stats.answers import adjusted_rand_index


__all__ = ["JointFit", "JointTables", "consensus_fit", "fit_around", "fit_joint", "one_reward_on_new_texts"]

SHORT_ITERATIONS = 30
# Where texts have few judgements, tastes that are learnt freely are noise. Where they have many, tastes may be much
# stronger than usual, and are found in fewer rounds from above.
FIRST_TASTE = {"few": 1.0, "many": 2.0}  # strength of tastes before it is learnt, in units of the usual one
TASTE_VALUES = {"few": 30.0, "many": 10.0}  # determined values that the usual strength counts for
TASTE_ROUNDS = {"few": 3, "many": 6}


@dataclass(frozen=True)
class JointTables:
    """Tables of judgements and what is known of their texts, checked; `JointTables.of` makes them.

    Attributes:
        tables: One per kind of judgements, ratings first: their labels are about the text itself.
        space: Where the features of the texts lie.
        coordinates: (U', d) for the texts of each table.

    Example:
        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("rating")
        >>> JointTables.of(planted.judgements.encode(), planted.rewards).coordinates[0].shape
        (12, 2)
    """

    tables: list[Encoded]
    space: TextSpace
    coordinates: list[np.ndarray]

    @classmethod
    def of(cls, enc: Encoded | Sequence[Encoded], features: np.ndarray | Sequence[np.ndarray] | None) -> JointTables:
        """Check tables and features.

        Args:
            enc: Judgements; several tables must be of different kinds.
            features: (U', D) rows for the texts of each table; one array for one table. None: no features.

        Raises:
            JuryError: No judgements, a `soft` table, or features that do not match the texts or are not finite.
        """
        tables = encoded_tables(enc)
        if features is None:
            rows = [np.zeros((table.n_texts, 0)) for table in tables]
        else:
            rows = feature_rows(features)
        if len(rows) != len(tables):
            raise JuryError(
                f"{len(rows)} arrays of features for {len(tables)} tables of judgements. Fix: pass one array per "
                "table, with a row for each of its Encoded.texts"
            )
        for table, of_table in zip(tables, rows, strict=True):
            _check_table(table)
            check_features(table, of_table)
        if len({of_table.shape[1] for of_table in rows}) > 1:
            raise JuryError(
                f"the tables have {', '.join(str(x.shape[1]) for x in rows)} features. Fix: compute the features of "
                "all tables with one model"
            )
        order = sorted(range(len(tables)), key=lambda i: tables[i].kind != "rating")
        tables, rows = [tables[i] for i in order], [rows[i].astype(np.float64) for i in order]
        by_text = {t: row for table, of_table in zip(tables, rows, strict=True) for t, row in _judged(table, of_table)}
        groups = None if tables[0].kind == "rating" else prompt_groups(list(by_text))
        space = TextSpace.of(np.stack(list(by_text.values())), groups)
        if rows[0].shape[1] and not space.axes.shape[1] and len(by_text) > 1:
            message = (
                "the features of all texts are equal, so they say nothing of new texts. Check where they are from."
            )
            warnings.warn(message, UserWarning, stacklevel=4)
        return cls(tables, space, [space.coordinates(of_table) for of_table in rows])

    def problem(self, membership: Membership, num_clusters: int, config: FitConfig) -> JointProblem:
        """Join the tables on raters and texts."""
        return JointProblem.of(self.tables, self.coordinates, membership, num_clusters, config)


def _check_table(table: Encoded) -> None:
    if table.kind == "soft":
        raise JuryError(
            "kind='soft': a table of answer shares does not say who answered, and a joint fit sums out raters. Fix: "
            "use judgements with rater_id, or fit_mixture(judgements, 1)"
        )
    if not len(table):
        raise JuryError(f"the table of {table.kind!r} judgements is empty. Fix: pass at least one judgement")


def _judged(table: Encoded, rows: np.ndarray) -> list[tuple[Text, np.ndarray]]:
    judged = np.unique(table.alternatives[table.alternatives >= 0])
    return [(table.texts[i], rows[i]) for i in judged]


@dataclass(frozen=True)
class JointFit(OfRaters):
    """Rewards of any text, and how raters vary around them. A `predictors.Predictor`.

    Everything that a prediction needs is in these arrays, so that a stored jury predicts what the fitted one did.

    Attributes:
        model: States of a rater and their prior.
        placement: Posterior of the training raters.
        mixing: (P, B) from parts to basis rewards.
        weight: (D, P) parts of a text that nobody judged, from its features.
        bias: (P,) constant of the same.
        new_variance: (P,) variance of its parts around that.
        texts: `U` judged texts.
        parts: (U, P) their parts.
        variance: (U, P) variance of them.
        strengths: Prior standard deviations of the parts, learnt or given.
        log_likelihood: Of the judgements, raters summed out, in nats.
        stability: Mean adjusted Rand index of the restarts' assignments with the best one's; 1 for a single start.

    Example:
        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("rating", num_items=20)
        >>> enc = planted.judgements.encode()
        >>> jury = fit_joint(enc, planted.rewards, "mixture", 2)
        >>> jury.heads.shape, jury.prevalence.round(1).tolist()  # basis rewards, features
        ((2, 2), [0.5, 0.5])
        >>> jury.log_probs(enc, planted.rewards).shape  # judgements, levels
        (600, 3)
    """

    model: RaterModel
    placement: Placement
    mixing: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    new_variance: np.ndarray
    texts: list[Text]
    parts: np.ndarray
    variance: np.ndarray
    strengths: Strengths
    log_likelihood: float
    stability: float

    @property
    def heads(self) -> np.ndarray:
        """Basis rewards as linear functions of the features (B, D)."""
        return (self.weight @ self.mixing).T

    @property
    def known_rewards(self) -> np.ndarray:
        """Basis rewards (U, B) of the judged texts, in logits."""
        return self.parts @ self.mixing

    def linear_rewards(self, features: np.ndarray) -> np.ndarray:
        """Compute the basis rewards (U', B) of texts that nobody judged, from their features (U', D)."""
        return (features.astype(np.float64) @ self.weight + self.bias) @ self.mixing

    def rewards(self, texts: Sequence[Text], features: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Compute the mean (U', B) and the variance by part (U', P) of the basis rewards of texts.

        Args:
            texts: Any texts; those that were judged in the fit have the reward that was fitted to them.
            features: (U', D); required if a text is new and the jury was fitted with features.

        Raises:
            JuryError: A new text without features.
        """
        row = positions(texts, self.texts)
        new = row < 0
        parts, variance = self.parts[row], self.variance[row]
        if new.any():
            if features is None and len(self.weight):
                raise JuryError(
                    f"{int(new.sum())} of {len(texts)} texts were not in the fit, the first: "
                    f"{texts[int(new.argmax())]!r}. Fix: pass features, one row per text, as in the fit"
                )
            if features is not None and features.shape != (len(texts), len(self.weight)) and len(self.weight):
                raise JuryError(
                    f"features have shape {features.shape}, but there are {len(texts)} texts and the jury was fitted "
                    f"to {len(self.weight)} features. Fix: compute them with the model that the fit used"
                )
            parts[new] = self.bias
            if features is not None and len(self.weight):
                parts[new] += features[new].astype(np.float64) @ self.weight
            variance[new] = self.new_variance
        return parts @ self.mixing, variance

    def log_probs(self, enc: Encoded, features: np.ndarray | None = None) -> np.ndarray:
        """Compute the (N, A) log-probability of every possible answer; see `Predictor`."""
        rewards, variance = self.rewards(enc.texts, features)
        return self.placement.log_probs(enc, rewards, code_variance=self._code_variance(variance))

    def adapt(
        self, enc: Encoded | Sequence[Encoded], features: np.ndarray | Sequence[np.ndarray | None] | None = None
    ) -> JointFit:
        """Return the same jury with the raters of `enc` adapted from their labels; all other raters are forgotten.

        Strangers are predicted as before.

        Args:
            enc: Labels of the raters, in one table or one of each kind.
            features: Rows for the texts of each table; None where all texts were judged in the fit.
        """
        tables = encoded_tables(enc)
        if features is None or isinstance(features, np.ndarray):
            rows: list[np.ndarray | None] = [features] * len(tables)
        else:
            rows = list(features)
        rewards = [self.rewards(table.texts, of_table)[0] for table, of_table in zip(tables, rows, strict=True)]
        return replace(self, placement=self.placement.adapt(tables, rewards))

    def _code_variance(self, variance: np.ndarray) -> np.ndarray:
        """(U, C) variance of the reward of each text for a rater with each code."""
        return variance @ (self.mixing @ self.model.codes.T) ** 2


def fit_joint(
    enc: Encoded | Sequence[Encoded],
    features: np.ndarray | Sequence[np.ndarray] | None,
    membership: Membership = "mixture",
    num_clusters: int = 2,
    *,
    config: FitConfig | None = None,
) -> JointFit:
    """Fit rewards as functions of texts, and how raters vary around them, in one likelihood.

    Args:
        enc: Judgements; several tables of different kinds are joined on the names of raters and on texts.
        features: (U', D) rows for the texts of each table; one array for one table. None: residuals only.
        membership: How a rater combines the basis rewards; see `rater_model`.
        num_clusters: `K` clusters of a mixture, `K` prototypes of a simplex, or the rank of a factor model. One
            cluster is one reward for everybody.
        config: Restarts, priors; None: the defaults.

    Returns:
        The fit.

    Raises:
        JuryError: Tables, features or a number of clusters that cannot work; several clusters where no rater judged
            twice.

    Example:
        Rewards of texts that nobody judged, in two clusters that want opposite things:

        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("rating", num_items=20)
        >>> jury = fit_joint(planted.judgements.encode(), planted.rewards, "mixture", 2)
        >>> rewards, variance = jury.rewards([Text("?", "new")], np.array([[2.0, -2.0]]))
        >>> sorted(rewards[0].round(0).tolist())
        [-2.0, 2.0]
    """
    with one_thread():
        tables, config = JointTables.of(enc, features), settings_or_default(config, FitConfig)
        consensus = fit_consensus(tables.problem("mixture", 1, config))
        return fit_around(tables, consensus, membership, num_clusters, config)


def fit_around(
    tables: JointTables,
    consensus: Consensus,
    membership: Membership,
    num_clusters: int,
    config: FitConfig,
) -> JointFit:
    """Fit tastes and the consensus together, starting from the consensus alone."""
    if num_clusters == 1 and membership != "factor":
        problem = tables.problem("mixture", 1, config).with_strengths(consensus.strengths)
        params, _ = problem.maximise(consensus.params, config.max_iter, config.tol, _scales(consensus.params))
        return _result(tables, problem, params, 1.0)
    problem = tables.problem(membership, num_clusters, config)
    check_judged_twice(tables.tables, num_clusters)
    n_tastes = problem.n_parts - 1
    first = FIRST_TASTE[problem.density]
    usual = usual_tastes(consensus.strengths, problem.coordinates.shape[1])
    tastes = [np.repeat(first * strength_of_part, n_tastes) for strength_of_part in usual]
    learnt = consensus.strengths.features, consensus.strengths.residual
    problem = problem.with_strengths(Strengths(*(np.append(*parts) for parts in zip(learnt, tastes, strict=True))))
    fixed = _scales(consensus.params)
    runs = [
        problem.maximise(start_from(problem, consensus, tastes), SHORT_ITERATIONS, 1e-5, fixed)
        for tastes in taste_starts(problem, tables.problem("mixture", 1, config), tables.tables, consensus)
    ]
    runs.sort(key=lambda run: run[1])
    params = runs[0][0]
    for _ in range(TASTE_ROUNDS[problem.density]):
        before = problem.strengths
        problem, params = _learn_tastes(problem, params)
        params, _ = problem.maximise(params, SHORT_ITERATIONS, 1e-5, fixed)
        if problem.strengths.near(before):
            break
    params, _ = problem.maximise(params, config.max_iter, config.tol, fixed)
    best, *others = (_assignments(problem, run) for run in [params, *(run for run, _ in runs[1:])])
    stability = float(np.mean([adjusted_rand_index(best, other) for other in others])) if others else 1.0
    return _result(tables, problem, params, stability)


def consensus_fit(tables: JointTables, consensus: Consensus, config: FitConfig) -> JointFit:
    """Return the fit of one reward for everybody that a consensus is."""
    problem = tables.problem("mixture", 1, config).with_strengths(consensus.strengths)
    return _result(tables, problem, consensus.params, 1.0)


def one_reward_on_new_texts(fit: JointFit, one: JointFit) -> JointFit:
    """Return a fit whose clusters agree on texts that nobody judged, and differ on judged ones as before.

    A new text has the reward of the fit `one` of one cluster. Tastes of it are zero, give or take as much as tastes of
    judged texts differ, so that predictions are no surer than those of `one`.
    """
    consensus = np.arange(len(fit.bias)) == 0
    spread = (fit.parts**2 + fit.variance).mean(0)
    return replace(
        fit,
        weight=np.where(consensus, one.weight, 0.0),
        bias=np.where(consensus, one.bias, 0.0),
        new_variance=np.where(consensus, one.new_variance, spread),
    )


def _scales(params: Params) -> list[str]:
    """Scales stay as they are once the consensus is fitted.

    The mode of a further kind's scale would make up for shrinkage; the spread over raters could run away from a start
    with strong tastes, to raters who are all but deaf to rewards and raters who hear nothing else.
    """
    return [name for name in params if name.endswith((".log_scale_mean", ".log_sd.log_scale"))]


def _assignments(problem: JointProblem, params: Params) -> np.ndarray:
    """(R,) most probable code of each rater."""
    with torch.no_grad():
        return problem.by_code({k: torch.from_numpy(v) for k, v in params.items()}).argmax(1).numpy()


def _information_share(problem: JointProblem, by_code: Tensor) -> np.ndarray:
    """(P,) share of the information that is about each part: the square of the mean code of a rater, averaged.

    A rater whose cluster is uncertain tells little about tastes.
    """
    mean_part = by_code.softmax(1).numpy() @ (problem.mixing @ problem.model.codes.T).T
    return np.average(mean_part**2, axis=0, weights=problem.rater_weight)


def _alike(problem: JointProblem) -> list[np.ndarray]:
    """Tastes of one strength: contrasts between clusters are arbitrary axes of one space, factors are not."""
    tastes = np.arange(1, problem.n_parts)
    return [tastes[[i]] for i in range(len(tastes))] if problem.model.membership == "factor" else [tastes]


def _learn_tastes(problem: JointProblem, params: Params) -> tuple[JointProblem, Params]:
    """Re-estimate the strengths of tastes at the mode; the rewards stay the same."""
    with torch.no_grad():
        by_code = problem.by_code({k: torch.from_numpy(v) for k, v in params.items()})
    share = _information_share(problem, by_code)
    curvature = Curvature.at(problem, params)
    features, residual = problem.strengths.features.copy(), problem.strengths.residual.copy()
    for part in _alike(problem):
        j, size = part[0], len(part)
        weights, residuals = curvature.determined(problem, features[j], residual[j], share[part].mean())
        usual, values = usual_tastes(problem.strengths, problem.coordinates.shape[1]), TASTE_VALUES[problem.density]
        features[part] = strength(features[j], params["weight"][:, part], size * weights, usual[0], values)
        residual[part] = strength(residual[j], params["residual"][:, part], size * residuals, usual[1], values)
    learnt = Strengths(features, residual)
    return problem.with_strengths(learnt), rescaled(params, problem.strengths, learnt)


def _result(tables: JointTables, problem: JointProblem, params: Params, stability: float) -> JointFit:
    """Read the fit off the mode; clusters of a mixture are sorted by prevalence."""
    model, mixing = problem.fitted_model(params), problem.mixing
    tensors = {k: torch.from_numpy(v) for k, v in params.items()}
    with torch.no_grad():
        parts = problem.parts(tensors).numpy()
        by_code = problem.by_code(tensors)
        log_likelihood = float(torch.from_numpy(problem.rater_weight) @ by_code.logsumexp(1))
    if model.membership == "mixture":
        order = np.argsort(-model.code_log_prior, kind="stable")
        model, mixing = replace(model, code_log_prior=model.code_log_prior[order]), mixing[:, order]
    share = _information_share(problem, by_code)
    curvature = Curvature.at(problem, params)
    s, t = problem.strengths.features, problem.strengths.residual
    new_variance = np.zeros(problem.n_parts)
    for part in [np.array([0]), *(_alike(problem) if problem.n_parts > 1 else [])]:
        j = part[0]
        new_variance[part] = curvature.new_variance(problem, s[j], t[j], share[part].mean())
    shift, variance = text_posterior(problem, params, new_variance, curvature.texts, share)
    weight, bias = tables.space.heads(params["weight"] * s)
    offset = 0.0 if problem.centre is None else problem.centre @ parts
    judged = np.flatnonzero(problem.judged > 0)  # a text of the tables that nobody judged is a new one
    fit = JointFit(
        model=model,
        placement=Placement(model, [], np.zeros((0, model.n_states))),
        mixing=mixing,
        weight=weight,
        bias=bias - offset,
        new_variance=new_variance,
        texts=[problem.texts[i] for i in judged],
        parts=(parts - offset + shift)[judged],
        variance=variance[judged],
        strengths=problem.strengths,
        log_likelihood=log_likelihood,
        stability=stability,
    )
    rewards = [fit.known_rewards[positions(table.texts, fit.texts)] for table in tables.tables]
    return replace(fit, placement=model.adapt(tables.tables, rewards))
