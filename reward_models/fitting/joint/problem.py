"""The objective of a joint fit of texts and raters: rewards from features and residuals, raters summed out.

The basis rewards of a text with coordinates `z` (see `TextSpace`) are independent parts, a consensus and `J` tastes,
mixed into `B` basis rewards:

    part_j(text) = s_j z . w_j + t_j e_j(text),     w_j ~ N(0, I),  e_j ~ N(0, I),
    basis = parts @ mixing + bias.

`s_j` (strength of the features) and `t_j` (of the residual of a text) differ by part. For a mixture or simplex of K
the K - 1 tastes are contrasts between clusters, whose deviations sum to zero; one cluster has no taste at all.
For a factor model each factor is a taste. The likelihood of a rater sums over codes and, kind by kind, over rater
terms, which are independent given the code; `sum_u weight_u log L_u` minus penalties is maximised by L-BFGS in
coordinates scaled by the information of the judgements. Knows nothing of how strengths are chosen.

Shapes: `R` raters, `M` distinct judgements of a kind, `U` texts, `d` coordinates, `J` tastes, `B` basis rewards, `C`
codes, `T` combinations of rater terms of a kind, `A` alternatives.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array
from scipy.special import softmax
from torch import Tensor

from reward_models.fitting.em import FitConfig
from reward_models.fitting.marginal import fitted_terms, rater_weights, term_params, term_prior
from reward_models.fitting.starting_point import COARSENING, affordable_model, check_tables, start_kind
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.texts import Text, prompt_groups
from reward_models.raters.lbfgs import minimise
from reward_models.raters.observation import Observations, torch_terms
from reward_models.raters.rater_model import DEFAULT_NODES, KindTerms, Membership, RaterModel
from reward_models.raters.state_grid import CHUNK, normal_grid, product_grid


__all__ = ["JointProblem", "KindCounts", "Params", "Strengths", "taste_mixing"]

Params = dict[str, np.ndarray]
STEP = 0.05  # logits, of a numerical derivative
# Some raters never call a tie and some often do: the term is wide, and few nodes would miss most of it
TIE_NODES = 7
MANY_LABELS = 60  # per rater: with fewer, the posterior of two factors is wide enough for a coarser grid
SPARSE_NODES = 7
MANY_JUDGEMENTS = 15  # of a text
USUAL_INFORMATION = 0.15  # of one judgement about the reward of a text, in 1 / logit^2


@dataclass(frozen=True)
class Strengths:
    """Prior standard deviations, in logits, of the parts of rewards: the consensus first, then each taste.

    Attributes:
        features: (1 + J,) `s`: of the part that is linear in the features, for a text of usual features.
        residual: (1 + J,) `t`: of what a text has beyond its features.

    Example:
        >>> Strengths(np.array([1.0, 0.5]), np.array([0.3, 0.1])).features.tolist()
        [1.0, 0.5]
    """

    features: np.ndarray
    residual: np.ndarray

    def near(self, other: Strengths) -> bool:
        """Whether no strength differs by more than a few hundredths."""
        return all(
            np.allclose(mine, theirs, rtol=0.03)
            for mine, theirs in ((self.features, other.features), (self.residual, other.residual))
        )


@dataclass(frozen=True)
class KindCounts:
    """The judgements of one kind: who gave which, and the grid of the rater terms of that kind.

    Attributes:
        cells: `M` distinct judgements.
        counts: (R, M) how often each rater gave each.
        names: Rater terms of the kind.
        points: (T, number of terms) standard normal nodes.
        log_weight: (T,).
    """

    cells: Observations
    counts: csr_array
    names: list[str]
    points: np.ndarray
    log_weight: np.ndarray


class _KindMarginal(torch.autograd.Function):
    """(R, C) log-likelihood of each rater's judgements of one kind given the code, rater terms summed out."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, kind: KindCounts) -> Tensor:
        n_codes, n_terms = table.shape[1:]
        joint = (kind.counts @ table.reshape(len(table), -1).numpy()).reshape(-1, n_codes, n_terms)
        joint += kind.log_weight
        top = joint.max(2, keepdims=True)
        joint -= top
        np.exp(joint, out=joint)
        size = joint.sum(2, keepdims=True)
        joint /= size
        ctx.posterior, ctx.kind = joint, kind
        return torch.from_numpy((np.log(size) + top)[:, :, 0])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        weighted = (ctx.posterior * grad.numpy()[:, :, None]).reshape(len(grad), -1)
        by_table = ctx.kind.counts.T @ weighted
        return torch.from_numpy(by_table.reshape(-1, *ctx.posterior.shape[1:])), None


def taste_mixing(membership: Membership, num_clusters: int) -> np.ndarray:
    """Return the (1 + J, B) map from the parts of a reward to basis rewards.

    For a mixture or simplex each deviation of a cluster has the variance of one taste, and deviations sum to zero.

    Example:
        >>> taste_mixing("mixture", 2).tolist()
        [[1.0, 1.0], [1.0, -1.0]]
        >>> taste_mixing("mixture", 1).tolist(), taste_mixing("factor", 1).tolist()
        ([[1.0]], [[1.0, 0.0], [0.0, 1.0]])
    """
    if membership == "factor":
        return np.eye(num_clusters + 1)
    contrasts = np.zeros((num_clusters - 1, num_clusters))
    for row in range(num_clusters - 1):  # Helmert contrasts: orthogonal to each other and to a constant
        contrasts[row, : row + 1] = 1.0
        contrasts[row, row + 1] = -(row + 1.0)
        contrasts[row] /= np.sqrt((row + 1.0) * (row + 2.0))
    return np.vstack([np.ones((1, num_clusters)), contrasts * np.sqrt(num_clusters / max(num_clusters - 1, 1))])


def _affordable(
    membership: Membership, num_clusters: int, terms: dict[str, KindTerms], counts: dict[str, csr_array]
) -> RaterModel:
    """Codes, and the grid of terms that the table of each kind and the posterior of all raters can afford."""
    of_kind = [affordable_model(membership, num_clusters, {kind: terms[kind]}, counts[kind]) for kind in terms]
    nodes = {"log_tie": TIE_NODES}
    for alone in of_kind:
        nodes |= {name: min(number, nodes.get(name, number)) for name, number in alone.nodes.items()}
    model = RaterModel(membership, of_kind[0].codes, of_kind[0].code_log_prior, terms, nodes)
    if len(terms) > 1:  # in sparse tables of several kinds scales take what is taste, and the grids multiply
        model = model.with_nodes({"log_scale": 1})
    n_raters = next(iter(counts.values())).shape[0]
    for name, coarser in COARSENING:
        if model.n_states * n_raters > CHUNK and name in {term for _, term in model.term_names}:
            model = model.with_nodes({name: coarser})
    return model


@dataclass(frozen=True)
class JointProblem:
    """Judgements of one or more kinds, coordinates of the texts, and the penalised likelihood of parameters.

    Attributes:
        model: Codes and grid; the terms of each kind at their usual spread.
        kinds: Judgements by kind.
        coordinates: (U, d) of the texts; d = 0 without features.
        judged: (U,) number of judgements of each text.
        centre: (U,) share of the judgements of each text if a rater term (leniency) carries the mean reward, else
            None.
        texts: `U` texts.
        rater_ids: `R` names.
        rater_weight: (R,) sampling weight of each rater, outside the likelihood of a rater.
        num_clusters: `K`, or the rank.
        config: Prior on prevalence, iterations.
        strengths: Prior standard deviations of the parts.
        mixing: (1 + J, B) from parts to basis rewards.

    Example:
        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("rating")
        >>> table = planted.judgements.encode()
        >>> problem = JointProblem.of([table], [planted.rewards - planted.rewards.mean(0)], "mixture", 2, FitConfig())
        >>> problem.rewards({k: torch.from_numpy(v) for k, v in problem.start().items()}).shape
        torch.Size([12, 2])
    """

    model: RaterModel
    kinds: list[KindCounts]
    coordinates: np.ndarray
    judged: np.ndarray
    centre: np.ndarray | None
    texts: list[Text]
    rater_ids: list[str]
    rater_weight: np.ndarray
    num_clusters: int
    config: FitConfig
    strengths: Strengths
    mixing: np.ndarray
    _z: Tensor = field(repr=False, compare=False)

    @classmethod
    def of(
        cls,
        tables: list[Encoded],
        coordinates: list[np.ndarray],
        membership: Membership,
        num_clusters: int,
        config: FitConfig,
    ) -> JointProblem:
        """Join tables on raters and texts.

        Args:
            tables: Judgements, one table of each kind.
            coordinates: (U', d) rows for the texts of each table.
            membership: Kind of codes.
            num_clusters: `K`, or the rank.
            config: Prior on prevalence, iterations, whether there are rater terms.
        """
        check_tables(tables, membership, num_clusters, "linear")
        rater_ids = list(dict.fromkeys(rater for table in tables for rater in table.rater_ids))
        rater_number = {rater: i for i, rater in enumerate(rater_ids)}
        row_of: dict[Text, np.ndarray] = {}
        for table, rows in zip(tables, coordinates, strict=True):
            row_of |= {text: row for text, row in zip(table.texts, rows, strict=True) if text not in row_of}
        texts = list(row_of)
        text_number = {text: i for i, text in enumerate(texts)}
        joined: list[tuple[Observations, csr_array]] = []
        terms: dict[str, KindTerms] = {}
        centre = None
        judged = np.zeros(len(texts))
        for table in tables:
            text = np.array([text_number[t] for t in table.texts], dtype=np.int64)
            rater = np.array([rater_number[r] for r in table.rater_ids], dtype=np.int64)[table.rater]
            observed = Observations.from_encoded(table, text)
            cells, cell = observed.distinct()
            shape = (len(rater_ids), len(cells.label))
            joined.append((cells, coo_array((table.count, (rater, cell.numpy())), shape=shape).tocsr()))
            terms[table.kind] = start_kind(observed, bool(terms), config)
            offered = table.alternatives >= 0
            count = np.broadcast_to(table.count[:, None], offered.shape)[offered]
            judged += np.bincount(text[table.alternatives[offered]], count, len(texts))
            if table.kind == "rating" and "intercept" in terms[table.kind].sd:
                share = np.bincount(text[table.alternatives[:, 0]], table.weight, len(texts))
                centre = share / share.sum()
        widest = max((counts for _, counts in joined), key=lambda counts: counts.shape[1])
        model = _affordable(membership, num_clusters, terms, {cells.kind: counts for cells, counts in joined})
        if membership == "factor" and num_clusters == 2 and np.median(widest.sum(1)) < MANY_LABELS:
            z, log_prior = product_grid([normal_grid(SPARSE_NODES)] * num_clusters)
            codes = np.column_stack([np.ones(len(z)), z])
            model = dataclasses.replace(model, codes=codes, code_log_prior=log_prior)
        kinds = []
        for cells, counts in joined:
            names = list(terms[cells.kind].sd)
            grid = product_grid([normal_grid(model.nodes.get(name, DEFAULT_NODES[name])) for name in names])
            kinds.append(KindCounts(cells, counts, names, *grid))
        mixing = taste_mixing(membership, num_clusters)
        z = np.stack([row_of[text] for text in texts]) if texts else np.zeros((0, 0))
        return cls(
            model=model,
            kinds=kinds,
            coordinates=z,
            judged=judged,
            centre=centre,
            texts=texts,
            rater_ids=rater_ids,
            rater_weight=rater_weights(tables, rater_ids),
            num_clusters=num_clusters,
            config=config,
            strengths=Strengths(np.full(len(mixing), 0.7), np.full(len(mixing), 0.5)),
            mixing=mixing,
            _z=torch.from_numpy(z),
        )

    @property
    def n_parts(self) -> int:
        """Number of parts, `1 + J`."""
        return len(self.mixing)

    @property
    def compared_groups(self) -> np.ndarray | None:
        """(U,) prompt of each text if only texts of one prompt are compared with each other; None with ratings."""
        return None if any(kind.cells.kind == "rating" for kind in self.kinds) else prompt_groups(self.texts)

    @property
    def density(self) -> str:
        """Whether a usual text has `"few"` or `"many"` judgements."""
        judged = self.judged[self.judged > 0]
        return "many" if len(judged) and float(np.median(judged)) >= MANY_JUDGEMENTS else "few"

    def with_strengths(self, strengths: Strengths) -> JointProblem:
        """Return the same problem under other prior standard deviations."""
        return dataclasses.replace(self, strengths=strengths)

    def start(self) -> Params:
        """Return parameters at which every text has the reward zero."""
        params = term_params(self.model)
        if self.model.membership != "factor" and len(self.model.codes) > 1:
            params["code_logits"] = np.zeros(len(self.model.codes))
        params["weight"] = np.zeros((self.coordinates.shape[1], self.n_parts))
        params["residual"] = np.zeros((len(self.texts), self.n_parts))
        return params

    def maximise(self, start: Params, max_iter: int, tol: float, fixed: Collection[str] = ()) -> tuple[Params, float]:
        """Run L-BFGS and return the parameters and the penalised loss, in nats; `fixed` parameters stay."""
        scale = self._scales(start)
        held = {name: torch.from_numpy(value) for name, value in start.items() if name in fixed}
        inverse = {name: torch.from_numpy(1.0 / value) for name, value in scale.items()}

        def loss(free: dict[str, Tensor]) -> Tensor:
            return self.loss(held | {name: value * inverse[name] for name, value in free.items()})

        scaled = {name: value * scale[name] for name, value in start.items() if name not in fixed}
        best = minimise(loss, scaled, max_iter=max_iter, tol=tol)
        params = {name: best[name] / scale[name] if name in best else value for name, value in start.items()}
        with torch.no_grad():
            return params, float(self.loss({k: torch.from_numpy(v) for k, v in params.items()}))

    def _scales(self, params: Params) -> dict[str, np.ndarray]:
        """Square root of the usual curvature along each parameter, so that L-BFGS starts well scaled."""
        information = USUAL_INFORMATION * self.judged
        energy = (self.coordinates**2 * information[:, None]).sum(0)
        s, t = self.strengths.features, self.strengths.residual
        of_terms = {kind.cells.kind: USUAL_INFORMATION * float(kind.counts.sum()) for kind in self.kinds}
        of_raters = USUAL_INFORMATION * float(self.rater_weight.sum())
        scale = {}
        for name, value in params.items():
            curvature = of_raters if ".log_sd." in name else of_terms.get(name.split(".")[0], of_raters)
            scale[name] = np.full(value.shape, np.sqrt(1.0 + curvature))
        scale["weight"] = np.sqrt(1.0 + energy[:, None] * s**2)
        scale["residual"] = np.sqrt(1.0 + information[:, None] * t**2)
        return scale

    def loss(self, params: dict[str, Tensor]) -> Tensor:
        """Compute the penalised negative log-likelihood."""
        log_lik = self.log_likelihoods(params)
        return self.penalty(params) - torch.from_numpy(self.rater_weight) @ log_lik

    def by_code(self, params: dict[str, Tensor]) -> Tensor:
        """Compute the (R, C) log-likelihood of all judgements of each rater given the code, plus its log prior."""
        rewards = self.rewards(params)
        total: Tensor | None = None
        for kind in self.kinds:
            part = _KindMarginal.apply(self.table(params, kind, rewards), kind)
            total = part if total is None else total + part
        assert total is not None
        return total + self.log_prior(params)

    def log_likelihoods(self, params: dict[str, Tensor]) -> Tensor:
        """Compute the (R,) log-likelihood of each rater."""
        return self.by_code(params).logsumexp(1)

    def log_prior(self, params: dict[str, Tensor]) -> Tensor:
        """Compute the (C,) log prior of the codes."""
        if "code_logits" in params:
            return params["code_logits"].log_softmax(0)
        return torch.from_numpy(self.model.code_log_prior)

    def table(
        self,
        params: dict[str, Tensor],
        kind: KindCounts,
        rewards: Tensor,
        alternative: int = 0,
        step: Tensor | float = 0.0,
    ) -> Tensor:
        """Compute the (M, C, T) log-likelihood of the judgements of one kind, one alternative's reward moved.

        `step` is one number or (M, C).
        """
        prefix = f"{kind.cells.kind}."
        terms = {k.removeprefix(prefix): v for k, v in params.items() if k.startswith(prefix)}
        shared = torch_terms({k: v for k, v in terms.items() if not k.startswith("log_sd.")})
        for dimension, name in enumerate(kind.names):
            points = torch.from_numpy(kind.points[:, dimension])
            shared[name] = (terms[f"log_sd.{name}"].exp() * points)[None, None, :]
        of_code = kind.cells.gather(rewards @ torch.from_numpy(self.model.codes).T)
        if isinstance(step, Tensor) or step != 0.0:
            of_code[:, alternative] += step
        log_lik = kind.cells.state_log_lik(of_code[..., None], shared)
        return log_lik.expand(*log_lik.shape[:2], len(kind.points))

    def slopes(self, params: dict[str, Tensor], kind: KindCounts, rewards: Tensor, alternative: int) -> np.ndarray:
        """Compute the (M, C, T) derivative of the log-likelihood by the reward of an alternative, numerically."""
        above, below = (self.table(params, kind, rewards, alternative, step) for step in (STEP, -STEP))
        return ((above - below) / (2 * STEP)).numpy()

    def term_posterior(self, params: dict[str, Tensor], kind: KindCounts) -> np.ndarray:
        """Compute the (R, C, T) posterior of the rater terms of one kind given the code."""
        table = self.table(params, kind, self.rewards(params)).numpy()
        joint = (kind.counts @ table.reshape(len(table), -1)).reshape(-1, *table.shape[1:]) + kind.log_weight
        return softmax(joint, axis=2)

    def expected(self, params: dict[str, Tensor], kind: KindCounts) -> np.ndarray:
        """Compute the (M, C, T) expected number of each judgement of one kind in each code and state of the terms."""
        of_code = self.by_code(params).softmax(1).numpy() * self.rater_weight[:, None]
        joint = self.term_posterior(params, kind) * of_code[:, :, None]
        return (kind.counts.T @ joint.reshape(len(joint), -1)).reshape(-1, *joint.shape[1:])

    def rewards(self, params: dict[str, Tensor]) -> Tensor:
        """Compute the (U, B) basis rewards; their mean is subtracted where a rater term carries it."""
        rewards = self.parts(params) @ torch.from_numpy(self.mixing)
        return rewards if self.centre is None else rewards - torch.from_numpy(self.centre) @ rewards

    def parts(self, params: dict[str, Tensor]) -> Tensor:
        """Compute the (U, 1 + J) parts, before centring."""
        s, t = torch.from_numpy(self.strengths.features), torch.from_numpy(self.strengths.residual)
        return self._z @ (params["weight"] * s) + params["residual"] * t

    def split(self, tastes: np.ndarray) -> Params:
        """Divide tastes of the texts (U, J) into `weight` (d, J) and `residual` (U, J) as the prior expects."""
        z, params = self.coordinates, {"weight": np.zeros((self.coordinates.shape[1], tastes.shape[1]))}
        params["residual"] = np.zeros(tastes.shape)
        for j, (s, t) in enumerate(zip(self.strengths.features[1:], self.strengths.residual[1:], strict=True)):
            precision = s**2 * z.T @ z + t**2 * np.eye(z.shape[1])
            params["weight"][:, j] = s * np.linalg.solve(precision, z.T @ tastes[:, j])
            params["residual"][:, j] = (tastes[:, j] - s * z @ params["weight"][:, j]) / t
        return params

    def penalty(self, params: dict[str, Tensor]) -> Tensor:
        """Compute minus the log prior of the parameters, up to a constant."""
        total = 0.5 * (params["weight"].square().sum() + params["residual"].square().sum()) + term_prior(params)
        if "code_logits" in params and self.config.dirichlet > 1.0:
            total = total - (self.config.dirichlet - 1.0) * params["code_logits"].log_softmax(0).sum()
        return total

    def fitted_model(self, params: Params) -> RaterModel:
        """Return the rater model at the fitted parameters."""
        prior = self.log_prior({k: torch.from_numpy(v) for k, v in params.items()}).numpy()
        return dataclasses.replace(self.model, code_log_prior=prior, terms=fitted_terms(self.model, params))
