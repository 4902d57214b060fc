"""The objective of a label-level fit: the likelihood of raters, their unknown states summed out.

The states of a rater are finite (`rater_model`), so the likelihood of all judgements of a rater is

    L_u = sum_s prior_s exp(sum_m counts_um log p(m | s)),

`m` over distinct judgements. With the sampling weights `w_u` of the raters, `sum_u w_u log L_u` minus penalties (a
pseudo-likelihood) is maximised by L-BFGS: its gradient is that of EM (Fisher's identity), its steps are longer. A pass
costs two products of the sparse (raters x distinct judgements) counts with a dense table, linear in the number of
judgements. Standard deviations of rater terms are fitted too (empirical Bayes). Knows nothing of how the fit is used.

Shapes: `R` raters, `P` distinct raters, `M` distinct judgements, `U` texts, `B` basis rewards, `K` clusters, `S`
states.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array, hstack
from torch import Tensor

from reward_models.fitting.em import FitConfig, spectral_embedding, spectral_start
from reward_models.fitting.latent_class import unique_patterns
from reward_models.fitting.starting_point import Basis, affordable_model, check_tables, rater_deviations, start_kind
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.texts import Text
from reward_models.progress import track
from reward_models.raters.lbfgs import minimise
from reward_models.raters.observation import TERM_SD, Observations, torch_terms
from reward_models.raters.rater_model import KindTerms, Membership, RaterModel, state_table
from reward_models.raters.state_grid import CHUNK


__all__ = ["Params", "Problem", "fitted_terms", "rater_weights", "term_params", "term_prior"]

Params = dict[str, np.ndarray]
START_SD = 1.0  # prior standard deviation of rewards before it is learnt, in logits
SD_RANGE = (0.05, 5.0)  # of learnt standard deviations of rewards, in logits
# Prior spread of log sd around its usual value, so that no term vanishes or explodes. Labels determine a rater's scale
# poorly: with a free scale, a few sharp raters would make the model overconfident about everybody.
SD_SPREAD = {"log_scale": 0.05}
USUAL_SPREAD = 0.7
SCALE_SPREAD = 0.5  # prior sd of the log scale of a second table: shrunk rewards would otherwise inflate it
# Grid on which starting points are compared.
COARSE_NODES = {"intercept": 7, "log_scale": 1, "log_tie": 3, "position": 1, "place": 5, "extremity": 3}
M_STEPS = 12  # L-BFGS iterations of an M-step


def term_prior(params: dict[str, Tensor]) -> Tensor:
    """Compute minus the log prior of the shared terms and of the spreads of rater terms, up to a constant.

    Args:
        params: Parameters by name, `kind.term` and `kind.log_sd.term`; others are ignored.

    Example:
        A mean log scale of one standard deviation costs half a nat:

        >>> float(term_prior({"rating.log_scale_mean": torch.tensor([SCALE_SPREAD])}))
        0.5
    """
    total = torch.zeros((), dtype=torch.float64)
    for name, value in params.items():
        if ".log_sd." in name:
            usual = np.log(TERM_SD[name.rsplit(".", 1)[1]])
            spread = SD_SPREAD.get(name.rsplit(".", 1)[1], USUAL_SPREAD)
            total = total + 0.5 * ((value - usual) / spread).square().sum()
        elif name.endswith("log_scale_mean"):
            total = total + 0.5 * (value / SCALE_SPREAD).square().sum()
        elif name.endswith("raw_thresholds"):
            total = total + 0.5 * (value / 5.0).square().sum()
    return total


class _Marginal(torch.autograd.Function):
    """`sum_u w_u log L_u`; its gradient, the expected counts, is computed together with the value."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, log_prior: Tensor, counts: Counts) -> Tensor:
        value, grad_table, grad_prior = counts.marginal(table.numpy(), log_prior.numpy())
        ctx.save_for_backward(torch.from_numpy(grad_table), torch.from_numpy(grad_prior))
        return torch.tensor(value, dtype=torch.float64)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        table, prior = ctx.saved_tensors
        return grad * table, grad * prior, None


@dataclass(frozen=True)
class Counts:
    """How often each of `P` distinct raters gave each distinct judgement.

    Attributes:
        matrix: (P, M) sparse.
        weight: (P,) sum of the sampling weights of the raters in a row.
        size: (P,) number of raters in a row.
    """

    matrix: csr_array
    weight: np.ndarray
    size: np.ndarray

    def marginal(self, table: np.ndarray, log_prior: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Compute `sum_u w_u log L_u` and its derivatives by `table` (M, S) and `log_prior` (S,)."""
        total, by_table, by_prior = 0.0, np.zeros_like(table), np.zeros_like(log_prior)
        step = max(1, CHUNK // len(log_prior))
        for start in range(0, len(self.weight), step):
            counts, weight = self.matrix[start : start + step], self.weight[start : start + step]
            joint = counts @ table
            joint += log_prior
            top = joint.max(1, keepdims=True)
            joint -= top
            np.exp(joint, out=joint)
            size = joint.sum(1, keepdims=True)
            total += float(weight @ (np.log(size) + top)[:, 0])
            joint *= weight[:, None] / size
            by_table += counts.T @ joint
            by_prior += joint.sum(0)
        return total, by_table, by_prior


@dataclass(frozen=True)
class Problem:
    """Distinct judgements, who gave them, and the penalised likelihood of parameters that explain them.

    Attributes:
        model: Codes and grid; the terms of each kind at their usual spread.
        basis: How rewards follow from parameters.
        cells: `M` distinct judgements, table by table.
        counts: How often each distinct rater gave each of them.
        pattern: (R,) row of `counts` of each rater.
        deviations: (P, ...) how raters deviate from the population, for starting points.
        centre: (U,) share of the judgements of each text if a rater term (leniency) carries the mean reward, else
            None.
        texts: `U` texts.
        rater_ids: `R` names.
        num_clusters: `K`, or the rank.
        config: Penalties.
        reward_sd: Prior standard deviation of the consensus and of deviations from it, or of each factor, in logits.

    Example:
        >>> from reward_models import planted_judgements
        >>> table = planted_judgements("rating").judgements.encode()
        >>> problem = Problem.of([table], "mixture", 2, "linear", FitConfig())
        >>> len(table), sum(len(cells.label) for cells in problem.cells)  # judgements, distinct judgements
        (360, 35)
        >>> params, loss = problem.maximise(problem.start(np.random.default_rng(0)), max_iter=50, tol=1e-6)
        >>> np.exp(problem.fitted_model(params).code_log_prior).round(2).tolist()  # prevalence
        [0.5, 0.5]
    """

    model: RaterModel
    basis: Basis
    cells: list[Observations]
    counts: Counts
    pattern: np.ndarray
    deviations: csr_array
    centre: Tensor | None
    texts: list[Text]
    rater_ids: list[str]
    num_clusters: int
    config: FitConfig
    reward_sd: tuple[float, ...]

    @classmethod
    def of(
        cls, tables: list[Encoded], membership: Membership, num_clusters: int, basis: Basis, config: FitConfig
    ) -> Problem:
        """Join tables on raters and texts."""
        check_tables(tables, membership, num_clusters, basis)
        rater_ids = list(dict.fromkeys(rater for table in tables for rater in table.rater_ids))
        texts = list(dict.fromkeys(text for table in tables for text in table.texts))
        rater_number = {rater: i for i, rater in enumerate(rater_ids)}
        text_number = {text: i for i, text in enumerate(texts)}
        cells: list[Observations] = []
        parts, deviations = [], []
        terms: dict[str, KindTerms] = {}
        centre = None
        for table in tables:
            text = np.array([text_number[t] for t in table.texts], dtype=np.int64)
            rater = np.array([rater_number[r] for r in table.rater_ids], dtype=np.int64)[table.rater]
            observed = Observations.from_encoded(table, text)
            distinct, cell = observed.distinct()
            shape = (len(rater_ids), len(distinct.label))
            parts.append(coo_array((table.count, (rater, cell.numpy())), shape=shape).tocsr())
            cells.append(distinct)
            deviations.append(rater_deviations(table, rater, len(rater_ids), config.nuisance))
            terms[table.kind] = start_kind(observed, bool(terms), config)
            if table.kind == "rating" and "intercept" in terms[table.kind].sd:
                share = np.bincount(text[table.alternatives[:, 0]], table.weight, len(texts))
                centre = torch.from_numpy(share / share.sum())
        matrix, size, pattern = unique_patterns(csr_array(hstack(parts, format="csr")))
        weight = np.bincount(pattern, rater_weights(tables, rater_ids), len(size))
        first = np.empty(len(size), dtype=np.int64)
        first[pattern[::-1]] = np.arange(len(pattern))[::-1]
        return cls(
            model=affordable_model(membership, num_clusters, terms, matrix),
            basis=basis,
            cells=cells,
            counts=Counts(matrix, weight, size.astype(np.int64)),
            pattern=pattern,
            deviations=csr_array(hstack(deviations, format="csr"))[first],
            centre=centre,
            texts=texts,
            rater_ids=rater_ids,
            num_clusters=num_clusters,
            config=config,
            reward_sd=(START_SD,) * (num_clusters + 1 if membership == "factor" else 2),
        )

    @property
    def n_restarts(self) -> int:
        """Number of starting points: one for a single cluster or a factor model, which have no clusters to find."""
        return 1 if self.num_clusters == 1 or self.model.membership == "factor" else self.config.restarts

    def coarse(self) -> Problem:
        """Return the same problem on a coarser grid, on which starting points are compared."""
        return dataclasses.replace(self, model=self.model.with_nodes(COARSE_NODES))

    def of_rows(self, rows: np.ndarray) -> Problem:
        """Return the same problem for some of the distinct raters."""
        counts = Counts(self.counts.matrix[rows], self.counts.weight[rows], self.counts.size[rows])
        return dataclasses.replace(self, counts=counts, deviations=self.deviations[rows])

    def start(self, rng: np.random.Generator) -> Params:
        """Draw a starting point along the directions in which raters differ most."""
        params = term_params(self.model)
        if self.model.membership == "factor":
            _, loadings = spectral_embedding(self.deviations, self.counts.weight, self.num_clusters, rng)
            scale = np.abs(loadings).max() or 1.0
            taste = np.zeros((len(self.texts), self.num_clusters))
            taste += rng.normal(size=taste.shape) * 0.3
            if loadings.shape[1] == len(self.texts):
                taste[:, : len(loadings)] += 2.0 * loadings.T / scale
            return params | {"consensus": np.zeros((len(self.texts), 1)), "taste": taste}
        params["code_logits"] = self.model.code_log_prior - self.model.code_log_prior.max()
        if self.basis == "ideal_point":
            points = rng.normal(size=(len(self.texts), self.num_clusters)) * 0.3
            return params | {"points": points, "prototypes": rng.normal(size=(self.num_clusters, self.num_clusters))}
        params["rewards"] = np.zeros((len(self.texts), self.num_clusters))
        if self.num_clusters == 1:
            return params
        # One M-step: memberships from the spectrum, rater terms at zero.
        memberships = spectral_start(self.deviations, self.counts.weight, self.num_clusters, rng)
        expected = torch.from_numpy(self.counts.matrix.T @ (self.counts.weight[:, None] * memberships))
        plain = dataclasses.replace(
            self.model,
            membership="mixture",
            codes=np.eye(self.num_clusters),
            code_log_prior=np.zeros(self.num_clusters),
            nodes=dict.fromkeys(TERM_SD, 1),
        )
        simple = dataclasses.replace(self, model=plain)
        fixed = {k: torch.from_numpy(v) for k, v in params.items()}

        def loss(free: dict[str, Tensor]) -> Tensor:
            full = fixed | free
            return self._penalty(full) - (expected * simple.table(full)).sum()

        return params | minimise(loss, {"rewards": params["rewards"]}, max_iter=20, tol=1e-4)

    def maximise(self, start: Params, max_iter: int, tol: float) -> tuple[Params, float]:
        """Run L-BFGS and return the parameters and the penalised loss, in nats."""
        params = minimise(self.loss, start, max_iter=max_iter, tol=tol)
        with torch.no_grad():
            return params, float(self.loss({k: torch.from_numpy(v) for k, v in params.items()}))

    def expectation_maximisation(self, start: Params, iterations: int) -> tuple[Params, float]:
        """Run EM: as `maximise`, but each pass over the raters is followed by several steps on expected counts.

        From a start whose clusters are right, a few passes over millions of judgements are enough.
        """
        params, value = start, np.inf
        for _ in track(range(iterations), "passes over all raters"):
            with torch.no_grad():
                tensors = {k: torch.from_numpy(v) for k, v in params.items()}
                table, log_prior = self.table(tensors).numpy(), self.log_prior(tensors).numpy()
                likelihood, by_table, by_prior = self.counts.marginal(table, log_prior)
                before, value = value, float(self._penalty(tensors)) - likelihood
            if before - value < self.config.tol * abs(value):
                break
            expected, states = torch.from_numpy(by_table), torch.from_numpy(by_prior)

            def loss(p: dict[str, Tensor], expected: Tensor = expected, states: Tensor = states) -> Tensor:
                return self._penalty(p) - (expected * self.table(p)).sum() - (states * self.log_prior(p)).sum()

            params = minimise(loss, params, max_iter=M_STEPS, tol=1e-7)
        return params, value

    def loss(self, params: dict[str, Tensor]) -> Tensor:
        """Compute the penalised negative log-likelihood."""
        return self._penalty(params) - _Marginal.apply(self.table(params), self.log_prior(params), self.counts)

    def log_prior(self, params: dict[str, Tensor]) -> Tensor:
        """Compute the (S,) log prior of the states."""
        codes = params["code_logits"].log_softmax(0) if "code_logits" in params else None
        of_code = torch.from_numpy(self.model.code_log_prior) if codes is None else codes
        return (of_code[:, None] + torch.from_numpy(self.model.term_grid[1])).reshape(-1)

    def table(self, params: dict[str, Tensor]) -> Tensor:
        """Compute the (M, S) log-likelihood of the distinct judgements in each state."""
        rewards = self.rewards(params)
        parts = [self._kind_table(params, cells, rewards) for cells in self.cells]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _kind_table(
        self, params: dict[str, Tensor], cells: Observations, rewards: Tensor, alternative: int = 0, step: float = 0.0
    ) -> Tensor:
        """(M, S) log-likelihood of one kind, the reward of an alternative moved by a step."""
        terms = {k.removeprefix(f"{cells.kind}."): v for k, v in params.items() if k.startswith(f"{cells.kind}.")}
        sd = {k.removeprefix("log_sd."): v.exp() for k, v in terms.items() if k.startswith("log_sd.")}
        shared = {k: v for k, v in terms.items() if not k.startswith("log_sd.")}
        return state_table(self.model, cells, rewards, torch_terms(shared), sd, alternative, step)

    def rewards(self, params: dict[str, Tensor]) -> Tensor:
        """Compute the (U, B) basis rewards; their mean is subtracted where a rater term carries it."""
        if "taste" in params:
            rewards = torch.cat([params["consensus"], params["taste"]], dim=1)
        elif "points" in params:
            points = params["points"]
            rewards = 2.0 * points @ params["prototypes"].T - points.square().sum(1, keepdim=True)
        else:
            rewards = params["rewards"]
        return rewards if self.centre is None else rewards - self.centre @ rewards

    def _penalty(self, params: dict[str, Tensor]) -> Tensor:
        """Minus log prior of the parameters, up to a constant."""
        total = term_prior(params)
        if "code_logits" in params and self.config.dirichlet > 1.0:
            total = total - (self.config.dirichlet - 1.0) * params["code_logits"].log_softmax(0).sum()
        if "points" in params:
            return total + 0.5 * (params["points"].square().sum() + params["prototypes"].square().sum())
        parts = zip(self._parts(self.rewards(params)), self.reward_sd, strict=True)
        return total + 0.5 * self.config.smoothing * sum(((part / sd).square().sum() for part, sd in parts), total * 0)

    def _parts(self, rewards: Tensor) -> list[Tensor]:
        """Rewards as independent parts, each with its spread: consensus and deviations, or each factor."""
        if self.model.membership == "factor":
            return list(rewards.unbind(1))
        mean = rewards.mean(1, keepdim=True)
        return [mean, rewards - mean]

    def learn_spread(self, params: Params) -> Problem:
        """Return the same problem with the spread of rewards re-estimated (empirical Bayes).

        One EM step for the variance of each part: the mean over texts of its squared posterior mode plus its posterior
        variance, computed from the information in the judgements (Laplace, diagonal). Where the judgements tell
        nothing of any reward, the spread stays.
        """
        rewards = {k: torch.from_numpy(v) for k, v in params.items()}
        with torch.no_grad():
            values = self.rewards(rewards)
            information = self._information(rewards)
            parts = [part.numpy() for part in self._parts(values)]
        judged = information.sum(1) > 0
        if not judged.any():  # as where every pair is a tie
            return self
        if self.model.membership == "factor":
            of_part, size = list(information.T), [1.0] * len(parts)
        else:
            # K deviations sum to zero, so that they have K - 1 degrees of freedom.
            of_part = [information.sum(1, keepdims=True), information]
            size = [1.0, (self.num_clusters - 1) / self.num_clusters]
        learnt = []
        for part, info, sd, share in zip(parts, of_part, self.reward_sd, size, strict=True):
            variance = part[judged] ** 2 + share / (info[judged] + self.config.smoothing / sd**2)
            learnt.append(float(np.clip(np.sqrt(variance.mean() / max(share, 1e-9)), *SD_RANGE)))
        return dataclasses.replace(self, reward_sd=tuple(learnt))

    def _information(self, params: dict[str, Tensor]) -> np.ndarray:
        """(U, B) information of the judgements on each basis reward, the others held fixed; in 1 / logits squared."""
        table = self.table(params).numpy()
        _, expected, _ = self.counts.marginal(table, self.log_prior(params).numpy())
        rewards = self.rewards(params)
        total = np.zeros((len(self.texts), self.model.n_basis))
        start = 0
        for cells in self.cells:
            count = expected[start : start + len(cells.label)]
            start += len(cells.label)
            moved = partial(self._kind_table, params, cells, rewards)
            total += self.model.reward_information(cells, count, len(self.texts), moved)
        return total

    def fitted_model(self, params: Params) -> RaterModel:
        """Return the rater model at the fitted parameters."""
        prior = self.model.code_log_prior
        if "code_logits" in params:
            prior = torch.from_numpy(params["code_logits"]).log_softmax(0).numpy()
        return dataclasses.replace(self.model, code_log_prior=prior, terms=fitted_terms(self.model, params))


def term_params(model: RaterModel) -> Params:
    """Return the terms of a rater model as free parameters, `kind.term` and `kind.log_sd.term`."""
    params: Params = {}
    for kind, terms in model.terms.items():
        params |= {f"{kind}.{name}": value for name, value in terms.shared.items()}
        params |= {f"{kind}.log_sd.{name}": np.array([np.log(sd)]) for name, sd in terms.sd.items()}
    return params


def fitted_terms(model: RaterModel, params: Params) -> dict[str, KindTerms]:
    """Return the terms of a rater model, by kind of judgements, at free parameters that `term_params` names."""
    terms = {}
    for kind, usual in model.terms.items():
        shared = {name: torch.from_numpy(params[f"{kind}.{name}"]) for name in usual.shared}
        terms[kind] = KindTerms(
            {name: value.numpy() for name, value in torch_terms(shared).items()},
            {name: float(np.exp(params[f"{kind}.log_sd.{name}"][0])) for name in usual.sd},
        )
    return terms


def rater_weights(tables: list[Encoded], rater_ids: list[str]) -> np.ndarray:
    """Return the (R,) sampling weight of each rater: the mean over the tables that have the rater.

    Example:
        >>> from reward_models import planted_judgements
        >>> table = planted_judgements(num_raters=3).judgements.encode()
        >>> rater_weights([table], table.rater_ids).tolist()
        [1.0, 1.0, 1.0]
    """
    number = {rater: i for i, rater in enumerate(rater_ids)}
    total, times = np.zeros(len(rater_ids)), np.zeros(len(rater_ids))
    for table in tables:
        rows = np.array([number[rater] for rater in table.rater_ids], dtype=np.int64)
        total[rows] += table.rater_weight
        times[rows] += 1.0
    return total / times
