"""How strong the parts of a reward are: what a joint fit needs before it can run.

Strengths of the consensus are learnt by empirical Bayes: the judgements of each text are an observation of its reward
with known noise (`text_observations`), and the strengths of features and of residuals maximise the likelihood of these
observations (`linear_evidence`). Strengths of tastes are re-estimated: the information of the
judgements about each text says how many coordinates and residuals the data determine, and each prior variance becomes
the mean square of those (MacKay 1992, https://doi.org/10.1162/neco.1992.4.3.415). Knows nothing of the choice of K.

Shapes: `R` raters, `U` texts, `d` coordinates, `J` tastes, `M` distinct judgements.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch

from reward_models.fitting.joint.problem import JointProblem, KindCounts, Params, Strengths
from reward_models.fitting.joint.text_observations import text_observations
from reward_models.fitting.linear_evidence import WIDTH, Ridge
from reward_models.seeds import seeded_rng
from reward_models.stats.groups import differences


__all__ = ["Consensus", "Curvature", "fit_consensus", "rescaled", "strength", "usual_tastes"]

ROUNDS = 5  # re-estimations of the strengths
TASTE = 0.5  # usual strength of tastes as a share of that of the consensus
LEAST_CONSENSUS = 1.0  # logits; of a weaker consensus the usual strength of tastes is that of this one
SD_RANGE = (0.02, 5.0)  # of strengths, in logits
SCALE_RANGE = 2.5  # largest log ratio of the scales of two kinds
MAX_ROWS = 20_000  # rows that the curvature of the weights is computed from
ITERATIONS = 40
USUAL = 0.7  # strength in logits, of features and of residuals, where judgements determine little
LEAST_INFORMATION = 1e-3  # about a text, in 1 / logit^2, for its judgements to tell something
FREE_MEAN = 10.0  # logits per unit of strength
MAX_GROUPS = 300  # prompts that the variance of new texts is averaged over
USUAL_REPEATS = 20.0  # judgements beyond one per text from which residuals are told from noise
MAX_TEXTS = 4_000  # texts that the strengths of the consensus are learnt from


@dataclass(frozen=True)
class Consensus:
    """One reward for everybody, with learnt strengths.

    Attributes:
        strengths: Of the features and of the residuals.
        params: At the mode.

    Example:
        >>> Consensus(Strengths(np.ones(1), np.ones(1)), {}).strengths.features.tolist()
        [1.0]
    """

    strengths: Strengths
    params: Params


def fit_consensus(problem: JointProblem, start: Params | None = None) -> Consensus:
    """Fit one reward for everybody; learn its strengths and the scale of each kind of judgements.

    Args:
        problem: With one cluster.
        start: Parameters to start from, e.g. of a larger table; None: zero rewards.

    Example:
        Rewards that are linear in two features leave little to the residuals:

        >>> from reward_models import FitConfig, planted_judgements
        >>> planted = planted_judgements("rating", num_raters=60, num_items=30)
        >>> table, rewards = planted.judgements.encode(), planted.rewards - planted.rewards.mean(0)
        >>> problem = JointProblem.of([table], [rewards], "mixture", 1, FitConfig())
        >>> strengths = fit_consensus(problem).strengths
        >>> bool(strengths.features[0] > strengths.residual[0])
        True
    """
    params = problem.start() if start is None else start
    first = problem.kinds[0].cells.kind
    scales = [name for name in params if name.endswith(".log_scale_mean")]
    if scales and start is None:
        # Rewards are on the scale of the first kind; each other kind has the spread that it has when fitted alone.
        spread = {kind.cells.kind: _spread_alone(problem, kind) for kind in problem.kinds}
        for name in scales:
            ratio = np.log(spread[name.split(".")[0]] / spread[first])
            params[name] = np.array([np.clip(ratio, -SCALE_RANGE, SCALE_RANGE)])
    return _learn(problem, params, scales)


def _spread_alone(problem: JointProblem, kind: KindCounts) -> float:
    """Prior standard deviation of rewards as one kind of judgements alone tells it, in its own logits."""
    alone = dataclasses.replace(
        problem,
        kinds=[kind],
        model=dataclasses.replace(problem.model, terms={kind.cells.kind: problem.model.terms[kind.cells.kind]}),
        centre=problem.centre if kind.cells.kind == "rating" else None,
    )
    params = alone.start()
    strengths = _learn(alone, params, [name for name in params if name.endswith(".log_scale_mean")]).strengths
    return float(np.sqrt(strengths.features[0] ** 2 + strengths.residual[0] ** 2))


def _learn(problem: JointProblem, params: Params, fixed: list[str]) -> Consensus:
    """Alternate between the mode and the strengths.

    The spread of rater scales stays as usual: it could make up for strengths that are too small, and both run away.
    """
    held = [*fixed, *(name for name in params if name.endswith(".log_sd.log_scale"))]
    for _ in range(ROUNDS):
        params, _ = problem.maximise(params, ITERATIONS, 1e-6, held)
        before, strengths = problem.strengths, _restimate(problem, params)
        params = rescaled(params, before, strengths)
        problem = problem.with_strengths(strengths)
        if strengths.near(before):
            break
    return Consensus(problem.strengths, params)


def rescaled(params: Params, before: Strengths, after: Strengths) -> Params:
    """Return parameters of the same rewards under other strengths: a start that is already near the mode.

    Example:
        >>> params = {"weight": np.ones((1, 1)), "residual": np.ones((1, 1))}
        >>> one, two = Strengths(np.ones(1), np.ones(1)), Strengths(np.full(1, 2.0), np.ones(1))
        >>> float(rescaled(params, one, two)["weight"][0, 0])
        0.5
    """
    ratio_s, ratio_t = before.features / after.features, before.residual / after.residual
    return params | {"weight": params["weight"] * ratio_s, "residual": params["residual"] * ratio_t}


def usual_tastes(strengths: Strengths, dimensions: int) -> tuple[float, float]:
    """Return the usual strengths of tastes: half of the consensus, but not nothing where people agree on nothing.

    Args:
        strengths: Of the consensus.
        dimensions: Number of coordinates of a text; without any, the strength of the features says nothing.

    Example:
        >>> usual_tastes(Strengths(np.array([1.6]), np.array([1.2])), dimensions=8)
        (0.8, 0.6)
        >>> [round(strength, 2) for strength in usual_tastes(Strengths(np.array([0.03]), np.array([0.04])), 8)]
        [0.3, 0.4]
    """
    s, t = float(strengths.features[0]) if dimensions else 0.0, float(strengths.residual[0])
    share = TASTE * max(1.0, LEAST_CONSENSUS / float(np.hypot(s, t)))
    return share * s if dimensions else TASTE, share * t


@dataclass(frozen=True)
class Curvature:
    """Expected information of the judgements at the mode; `Curvature.at` computes it.

    Attributes:
        texts: (U,) about the reward of each text, the others held fixed, in 1 / logit^2.
        kinds: Judgements by kind, and the (M, A) information of all equal judgements about each alternative.

    Example:
        >>> from reward_models import FitConfig, planted_judgements
        >>> table = planted_judgements("rating").judgements.encode()
        >>> problem = JointProblem.of([table], [np.zeros((12, 0))], "mixture", 1, FitConfig())
        >>> Curvature.at(problem, problem.start()).texts.shape
        (12,)
    """

    texts: np.ndarray
    kinds: list[tuple[KindCounts, np.ndarray]]

    @classmethod
    def at(cls, problem: JointProblem, params: Params) -> Curvature:
        """Compute the information at parameters of the problem."""
        tensors = {name: torch.from_numpy(value) for name, value in params.items()}
        kinds = [(kind, _judgement_information(problem, tensors, kind)) for kind in problem.kinds]
        texts = np.zeros(len(problem.texts))
        for kind, information in kinds:
            np.add.at(texts, kind.cells.alternatives.numpy(), information)
        return cls(texts, kinds)

    def determined(self, problem: JointProblem, s: float, t: float, share: float = 1.0) -> tuple[float, float]:
        """Compute how many weights and how many residuals of a part the judgements determine.

        Args:
            problem: The problem that was fitted.
            s: Strength of the features.
            t: Strength of the residuals.
            share: Share of the information that is about this part.
        """
        coordinates, information = problem.coordinates, share * self.texts
        discount, covariance = self._posterior(problem, s, t, share)
        uncertain = np.einsum("ud,ud->u", coordinates @ covariance, coordinates)
        residual = 1.0 / discount + (t * s * information / discount) ** 2 * uncertain
        return float(len(covariance) - np.trace(covariance)), float((1.0 - residual)[information > 0].sum())

    def new_variance(self, problem: JointProblem, s: float, t: float, share: float = 1.0) -> float:
        """Compute the variance of a part of a text that nobody judged; arguments as for `determined`.

        It is that of each judged text (or prompt, where texts are compared within prompts alone) without its own
        judgements, averaged. Where texts are few, each has taught the direction in which it lies, and a new one lies
        in another. Its judgements are taken out of the precision: `Q (I - W Q)^-1` with `Q = Z Cov Z^T` (Woodbury).
        """
        if not problem.coordinates.shape[1]:
            return t**2
        discount, covariance = self._posterior(problem, s, t, share)
        weight = s**2 * share * self.texts / discount
        groups = problem.compared_groups
        rng = seeded_rng(0, "sample of new texts of joint fit")
        if groups is None:
            # Leniency or thresholds carry the mean reward: a constant of which nothing is known beforehand.
            z = np.column_stack([problem.coordinates, np.full(len(problem.texts), FREE_MEAN)])
            covariance = np.linalg.inv(np.eye(z.shape[1]) + (z.T * weight) @ z)
            some = rng.permutation(len(z))[:MAX_ROWS]
            z, weight = z[some], weight[some]
            q = np.einsum("ud,ud->u", z @ covariance, z)
            without = np.minimum(q / np.maximum(1.0 - weight * q, 1e-9), (z[:, :-1] ** 2).sum(1))
            return t**2 + s**2 * float(without.mean())
        values = []
        for number in rng.permutation(np.flatnonzero(np.bincount(groups) > 1))[:MAX_GROUPS]:
            members = np.flatnonzero(groups == number)
            z = differences(problem.coordinates[members], np.zeros(len(members), dtype=int))
            q = z @ covariance @ z.T
            without = np.linalg.solve((1.0 + 1e-9) * np.eye(len(z)) - q * weight[members], q)
            values.append(np.clip(np.diag(without), 0.0, (z**2).sum(1)).mean())
        return t**2 + s**2 * float(np.mean(values)) if values else t**2

    def _posterior(self, problem: JointProblem, s: float, t: float, share: float) -> tuple[np.ndarray, np.ndarray]:
        """(U,) loss of information to residuals, a factor; (d, d) covariance of the weights in units of the prior."""
        discount = 1.0 + t**2 * share * self.texts
        curvature = sum((_weight_curvature(problem.coordinates, *kind, discount) for kind in self.kinds), 0.0)
        return discount, np.linalg.inv(np.eye(problem.coordinates.shape[1]) + s**2 * share * curvature)


def _restimate(problem: JointProblem, params: Params) -> Strengths:
    """Strengths of the consensus that are most probable around the mode."""
    information = Curvature.at(problem, params).texts
    told = np.flatnonzero(information > LEAST_INFORMATION)
    groups = problem.compared_groups
    repeats = _repeats(problem)
    if len(told) > MAX_TEXTS:
        rng = seeded_rng(0, "sample of texts of joint fit")
        units = told if groups is None else groups[told]
        chosen = rng.permutation(np.unique(units))[: max(MAX_TEXTS * len(np.unique(units)) // len(told), 1)]
        told = told[np.isin(units, chosen)]
    if groups is not None:
        told = told[np.bincount(groups[told])[groups[told]] > 1]
        groups = np.unique(groups[told], return_inverse=True)[1]
    if not len(told):
        return problem.strengths
    ridge, _, length = Ridge.of(
        problem.coordinates[told], *text_observations(problem, params, information, told), groups
    )
    # A text that was judged once is as well explained by a residual of any size: then residuals stay as usual.
    width = WIDTH * max(repeats / (repeats + USUAL_REPEATS), 0.01)
    best = ridge.most_probable(float(np.log(USUAL)), width_t=width)
    features, residuals = np.exp(best["log_s"]) / length, np.exp(best["log_t"])
    return Strengths(np.clip(features, *SD_RANGE), np.clip(residuals, *SD_RANGE))


def _repeats(problem: JointProblem) -> float:
    """How many judgements there are beyond those that it takes to place each text once."""
    texts, counts = [], []
    for kind in problem.kinds:
        texts.append(kind.cells.alternatives[:, 0].numpy())
        counts.append(kind.counts.T @ problem.rater_weight)
    alone = np.arange(len(problem.texts))
    groups = alone if problem.compared_groups is None else problem.compared_groups
    judged = np.bincount(groups[np.concatenate(texts)], np.concatenate(counts), len(alone))
    # Within a prompt one text of all may lie anywhere.
    needed = np.bincount(groups, minlength=len(alone)) - (problem.compared_groups is not None)
    return float(np.maximum(judged - np.maximum(needed, 0), 0.0).sum())


def strength(now: float, values: np.ndarray, determined: float, usual: float, weight: float) -> float:
    """Re-estimate a prior standard deviation from values that it scales and the number that the data determine.

    Args:
        now: Present strength.
        values: Weights or residuals, in units of the present strength.
        determined: How many of them the judgements determine.
        usual: Strength where the judgements determine nothing.
        weight: How many determined values the usual strength counts for.

    Returns:
        The root mean square of the determined values and of `weight` more of the usual size.

    Example:
        >>> strength(1.0, np.zeros(5), determined=0.0, usual=2.0, weight=1.0)
        2.0
        >>> round(strength(1.0, np.full(8, 2.0), determined=10.0, usual=1.0, weight=1.0), 3)
        1.732
    """
    total = now**2 * np.square(values).sum() + weight * usual**2
    return float(np.clip(np.sqrt(total / (max(determined, 0.0) + weight)), *SD_RANGE))


def _judgement_information(problem: JointProblem, params: dict[str, torch.Tensor], kind: KindCounts) -> np.ndarray:
    """(M, A) expected information of all judgements alike about the reward of each alternative; 0 at the padding."""
    with torch.no_grad():
        rewards = problem.rewards(params)
        expected = problem.expected(params, kind)
        out = np.zeros(kind.cells.alternatives.shape)
        for alternative in range(out.shape[1]):
            slope = problem.slopes(params, kind, rewards, alternative)
            out[:, alternative] = (expected * slope**2).sum((1, 2))
    return out if kind.cells.mask is None else out * kind.cells.mask.numpy()


def _weight_curvature(
    coordinates: np.ndarray, kind: KindCounts, information: np.ndarray, discount: np.ndarray
) -> np.ndarray:
    """(d, d) information of the judgements of one kind about the weights, residuals integrated out."""
    alternatives = kind.cells.alternatives.numpy()
    offered = np.ones(alternatives.shape, bool) if kind.cells.mask is None else kind.cells.mask.numpy()
    share = 1.0
    if len(alternatives) > MAX_ROWS:
        some = seeded_rng(0, "sample of rows of joint fit").permutation(len(alternatives))[:MAX_ROWS]
        share = len(some) / len(alternatives)
        alternatives, offered, information = alternatives[some], offered[some], information[some]
    weight = information / discount[alternatives] / share
    x = coordinates[alternatives] * offered[:, :, None]
    if alternatives.shape[1] > 1:  # only differences between alternatives count
        count = offered.sum(1)[:, None]
        x = (x - x.sum(1, keepdims=True) / count[:, :, None]) * offered[:, :, None]
        weight = weight * count / np.maximum(count - 1, 1)
    flat = x.reshape(weight.size, x.shape[2]) * np.sqrt(weight.reshape(-1, 1))
    return flat.T @ flat
