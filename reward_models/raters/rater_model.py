"""How raters vary around a jury: what they want (a code) and how they say it (rater terms), on one discrete grid.

A rater is a state `s = (code c, terms t)` that nobody knows. The reward of a text for a rater with code `c` is
`basis(text) . c`, a row of basis rewards times the code:

| membership | codes | prior |
|---|---|---|
| `mixture` | the K unit vectors: one cluster each | prevalence |
| `simplex` | lattice points of the simplex: a blend of K prototypes | weight of each point |
| `factor` | (1, z), z on a grid: a consensus and tastes around it | normal |

The terms (see `observation`) have normal priors with fitted standard deviations. Because states are finite, everything
that is not known of a rater is summed over exactly: the likelihood of a rater is `sum_s prior_s prod_n p(y_n | s)`
(marginal maximum likelihood; Bock and Aitkin 1981, https://doi.org/10.1007/BF02293801), a new rater is placed by
Bayes' rule, and a prediction averages over the posterior. Knows nothing of how rewards and priors are fitted.

Shapes: `N` judgements, `M` distinct judgements, `R` raters, `U` texts, `B` basis rewards, `C` codes, `S` states, `A`
answers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.special import logsumexp
from torch import Tensor

from reward_models.errors import JuryError
from reward_models.judgements.encoding import Encoded
from reward_models.raters.observation import Observations
from reward_models.raters.predictors import n_answers


__all__ = [
    "CHUNK",
    "DEFAULT_NODES",
    "GRID_REACH",
    "KindTerms",
    "Membership",
    "Placement",
    "RaterModel",
    "normal_grid",
    "simplex_lattice",
]

Membership = Literal["mixture", "simplex", "factor"]
GRID_REACH = 3.0  # standard deviations on each side
CHUNK = 20_000_000  # elements of an array that is made at once
STEP = 0.05  # logits, of a numerical derivative


def normal_grid(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes of a standard normal and their log weights.

    Up to five are Gauss-Hermite's, the best for a term that labels hardly tell. More are evenly spaced: the
    trapezoidal rule converges faster than any power on a bell curve, and serves raters with many labels, whose
    posterior is a narrow bell anywhere on the line.

    Args:
        nodes: How many; 1 puts the whole mass at 0.

    Returns:
        (nodes,) values and (nodes,) log weights.
    """
    if nodes <= 5:
        z, weight = np.polynomial.hermite_e.hermegauss(nodes)
        return z, np.log(weight / weight.sum())
    z = np.linspace(-GRID_REACH, GRID_REACH, nodes)
    log_weight = -0.5 * z**2
    return z, log_weight - logsumexp(log_weight)


def simplex_lattice(num_clusters: int, resolution: int) -> np.ndarray:
    """All (C, K) points of the simplex with coordinates that are multiples of `1 / resolution`, the vertices first."""
    parts = itertools.combinations(range(resolution + num_clusters - 1), num_clusters - 1)
    counts = np.array(
        [np.diff([-1, *bars, resolution + num_clusters - 1]) - 1 for bars in parts], dtype=np.float64
    ).reshape(-1, num_clusters)
    points = counts / resolution
    return points[np.lexsort((np.arange(len(points)), -points.max(1)))]


@dataclass(frozen=True)
class KindTerms:
    """What the likelihood of one kind of judgements needs besides rewards.

    Attributes:
        shared: `thresholds` (L - 1,), `log_tie_mean` (1,), `position_mean` (1,), `log_scale_mean` (1,), as the kind
            has them.
        sd: Standard deviation of each rater term over raters, in logits; a term that is absent does not vary.
    """

    shared: dict[str, np.ndarray] = field(default_factory=dict)
    sd: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class RaterModel:
    """The states a rater can be in, their prior, and what each says about a judgement.

    Attributes:
        membership: `"mixture"`, `"simplex"` or `"factor"`.
        codes: (C, B) the reward of a rater with code c is `basis rewards @ codes[c]`.
        code_log_prior: (C,) log prior.
        terms: Terms by kind of judgements; several kinds when a jury was fitted on several tables.
        nodes: Grid points per rater term, by name; the rest have `DEFAULT_NODES`.
    """

    membership: Membership
    codes: np.ndarray
    code_log_prior: np.ndarray
    terms: dict[str, KindTerms]
    nodes: dict[str, int] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The kind of judgements, the first if there are several."""
        return next(iter(self.terms))

    @property
    def shared(self) -> dict[str, np.ndarray]:
        """Shared terms of `kind`."""
        return self.terms[self.kind].shared

    @property
    def term_sd(self) -> dict[str, float]:
        """Standard deviations of the rater terms of `kind`."""
        return self.terms[self.kind].sd

    @property
    def n_basis(self) -> int:
        """Number of basis rewards `B`."""
        return self.codes.shape[1]

    @cached_property
    def term_names(self) -> list[tuple[str, str]]:
        """(kind, term) of each dimension of the grid of terms."""
        return [(kind, name) for kind, terms in self.terms.items() for name in terms.sd]

    @cached_property
    def term_grid(self) -> tuple[np.ndarray, np.ndarray]:
        """(T, number of terms) standard normal nodes and (T,) log weights: the product over terms."""
        grids = [normal_grid(self.nodes.get(name, DEFAULT_NODES[name])) for _, name in self.term_names]
        if not grids:
            return np.zeros((1, 0)), np.zeros(1)
        points = np.stack(np.meshgrid(*[g[0] for g in grids], indexing="ij"), -1).reshape(-1, len(grids))
        weights = np.stack(np.meshgrid(*[g[1] for g in grids], indexing="ij"), -1).reshape(-1, len(grids))
        return points, weights.sum(1)

    @property
    def n_states(self) -> int:
        """Number of states `S = C T`."""
        return len(self.codes) * len(self.term_grid[1])

    @property
    def log_prior(self) -> np.ndarray:
        """(S,) log prior of the states; terms vary fastest."""
        return (self.code_log_prior[:, None] + self.term_grid[1]).ravel()

    def with_nodes(self, nodes: Mapping[str, int]) -> RaterModel:
        """The same raters on another grid of terms."""
        return replace(self, nodes={**self.nodes, **nodes})

    def table(self, cells: Observations, rewards: Tensor, place: int = 0, step: Tensor | float = 0.0) -> Tensor:
        """Log-likelihood (M, S) of each distinct judgement in each state, given basis rewards (U, B).

        The reward of the alternative at `place` is moved by `step`, see `state_table`.
        """
        terms = self.terms[cells.kind]
        tensors = {name: torch.from_numpy(np.asarray(v, dtype=np.float64)) for name, v in terms.shared.items()}
        sds = {name: torch.tensor(sd, dtype=torch.float64) for name, sd in terms.sd.items()}
        return state_table(self, cells, rewards, tensors, sds, place, step)

    def adapt(self, enc: Encoded | Sequence[Encoded], rewards: np.ndarray | Sequence[np.ndarray]) -> Placement:
        """Place raters by their labels: Bayes' rule on the grid, no gradient.

        Args:
            enc: Labels of `R` raters; several tables of different kinds if the jury was fitted on several.
            rewards: (U, B) basis rewards of `enc.texts`; one array per table.

        Returns:
            The posterior of each rater.

        Raises:
            JuryError: A kind the jury was not fitted to, ties where it knows none, or rewards that do not fit.
        """
        tables = [enc] if isinstance(enc, Encoded) else list(enc)
        values = [rewards] if isinstance(rewards, np.ndarray) else list(rewards)
        rater_ids = list(dict.fromkeys(rater for table in tables for rater in table.rater_ids))
        number = {rater: i for i, rater in enumerate(rater_ids)}
        joint = np.tile(self.log_prior, (len(rater_ids), 1))
        for table, value in zip(tables, values, strict=True):
            self.check(table, value)
            cells, cell = Observations.from_encoded(table).distinct()
            own = np.array([number[rater] for rater in table.rater_ids], dtype=np.int64)
            counts = csr_array(
                (table.weight, (own[table.rater], cell.numpy())), shape=(len(rater_ids), len(cells.label))
            )
            with torch.no_grad():
                for part in _slices(len(cells.label), self.n_states):
                    block = self.table(cells.select(part), torch.from_numpy(value)).numpy()
                    joint += counts[:, part] @ block
        return Placement(self, rater_ids, _softmax(joint))

    def unplaced(self) -> Placement:
        """Nobody is known: every rater is drawn from the prior."""
        return Placement(self, [], np.zeros((0, self.n_states)))

    def check(self, enc: Encoded, rewards: np.ndarray) -> None:
        """Refuse judgements or rewards (U, B) that do not fit the model.

        Raises:
            JuryError: See `place`.
        """
        if enc.kind not in self.terms:
            raise JuryError(
                f"the jury was fitted to {' and '.join(map(repr, self.terms))} judgements and cannot place raters by "
                f"{enc.kind!r} judgements. Fix: fit it on both tables, or give judgements of the known kind"
            )
        if rewards.shape != (enc.n_texts, self.n_basis):
            raise JuryError(
                f"rewards have shape {rewards.shape}, but there are {enc.n_texts} texts and {self.n_basis} basis "
                "rewards; pass one row per entry of Encoded.texts, in that order"
            )
        shared = self.terms[enc.kind].shared
        if enc.kind == "preference" and (enc.label == 2).any() and "log_tie_mean" not in shared:
            raise JuryError(
                f"{int((enc.label == 2).sum())} of {len(enc)} judgements are ties, but the fit saw no tie and gives "
                "them probability 0; fit on judgements that include ties, or drop them here"
            )
        if enc.kind == "rating" and len(enc.levels or ()) != len(shared["thresholds"]) + 1:
            raise JuryError(
                f"the ratings have {len(enc.levels or ())} levels, the jury was fitted to "
                f"{len(shared['thresholds']) + 1}. Fix: give the same `levels` to both tables"
            )

    def to_dict(self) -> dict[str, Any]:
        """The model as plain lists and numbers, for JSON."""
        return {
            "membership": self.membership,
            "codes": self.codes.tolist(),
            "code_log_prior": self.code_log_prior.tolist(),
            "terms": {
                kind: {"shared": {k: np.asarray(v).tolist() for k, v in t.shared.items()}, "sd": dict(t.sd)}
                for kind, t in self.terms.items()
            },
            "nodes": dict(self.nodes),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RaterModel:
        """Read back what `to_dict` wrote."""
        return cls(
            membership=values["membership"],
            codes=np.asarray(values["codes"], dtype=np.float64),
            code_log_prior=np.asarray(values["code_log_prior"], dtype=np.float64),
            terms={
                kind: KindTerms(
                    {k: np.asarray(v, dtype=np.float64) for k, v in t["shared"].items()},
                    {k: float(v) for k, v in t["sd"].items()},
                )
                for kind, t in values["terms"].items()
            },
            nodes={k: int(v) for k, v in values["nodes"].items()},
        )


# Leniency is the widest term and the best known one; the others are learnt from few labels.
DEFAULT_NODES = {"intercept": 13, "log_scale": 3, "log_tie": 5, "position": 3, "place": 7, "extremity": 7}


def state_table(
    model: RaterModel,
    cells: Observations,
    rewards: Tensor,
    shared: Mapping[str, Tensor],
    sd: Mapping[str, Tensor],
    place: int = 0,
    step: Tensor | float = 0.0,
) -> Tensor:
    """Log-likelihood of distinct judgements in each state, differentiable in rewards and terms.

    Args:
        model: Its codes and grid; the terms' values come from the other arguments.
        cells: `M` distinct judgements.
        rewards: (U, B) basis rewards.
        shared: Shared terms of the kind.
        sd: () standard deviation of each rater term of the kind.
        place: Alternative whose reward is moved, to see what judgements know of it or what its uncertainty does.
        step: How far; (M, C) or one number.

    Returns:
        (M, S) nats.
    """
    of_code = cells.gather(rewards @ torch.from_numpy(model.codes).T)  # (M, A, C)
    if isinstance(step, Tensor) or step != 0.0:
        of_code[:, place] += step
    points = torch.from_numpy(model.term_grid[0])
    terms: dict[str, Tensor] = dict(shared)
    for dimension, (kind, name) in enumerate(model.term_names):
        if kind == cells.kind:
            terms[name] = (sd[name] * points[:, dimension])[None, None, :]
    log_lik = cells.state_log_lik(of_code[..., None], terms)  # (M, C, T)
    return log_lik.expand(*log_lik.shape[:2], len(points)).reshape(len(log_lik), model.n_states)


@dataclass(frozen=True)
class Placement:
    """What is known of some raters.

    Attributes:
        model: The raters' model.
        rater_ids: `R` names.
        posterior: (R, S) over the model's states.
    """

    model: RaterModel
    rater_ids: list[str]
    posterior: np.ndarray

    def code_posterior(self) -> np.ndarray:
        """(R, C) posterior over codes, the terms summed out."""
        return self._by_code().sum(2)

    def _by_code(self) -> np.ndarray:
        """(R, C, T) posterior."""
        return self.posterior.reshape(len(self.posterior), len(self.model.codes), len(self.model.term_grid[1]))

    def memberships(self) -> np.ndarray:
        """(R, B) posterior mean of the code; for a mixture the probability of each cluster."""
        return self.code_posterior() @ self.model.codes

    def intervals(self, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """(R, B) lower and upper ends of the posterior interval of each coordinate of the code.

        For a mixture a coordinate is 0 or 1, and what is uncertain is which; its interval is [0, 1] unless one
        cluster has all but `1 - level` of the probability.
        """
        posterior = self.code_posterior()
        low, high = (np.empty((len(posterior), self.model.n_basis)) for _ in range(2))
        for column in range(self.model.n_basis):
            values, group = np.unique(self.model.codes[:, column], return_inverse=True)
            mass = np.zeros((len(posterior), len(values)))
            np.add.at(mass.T, group, posterior.T)
            cumulative = mass.cumsum(1)
            last = len(values) - 1
            low[:, column] = values[np.minimum((cumulative < (1 - level) / 2).sum(1), last)]
            high[:, column] = values[np.minimum((cumulative < (1 + level) / 2 - 1e-12).sum(1), last)]
        return low, high

    def terms(self) -> dict[str, np.ndarray]:
        """Posterior mean (R,) of each rater term; named `kind.term` if there are several kinds."""
        points, _ = self.model.term_grid
        weight = self._by_code().sum(1)
        several = len(self.model.terms) > 1
        return {
            f"{kind}.{name}" if several else name: weight @ (self.model.terms[kind].sd[name] * points[:, i])
            for i, (kind, name) in enumerate(self.model.term_names)
        }

    def select(self, rater_ids: Sequence[str]) -> np.ndarray:
        """(len, S) posterior of the given raters; the prior for one who is not known."""
        known = {rater: i for i, rater in enumerate(self.rater_ids)}
        rows = np.array([known.get(rater, -1) for rater in rater_ids], dtype=np.int64)
        table = np.concatenate([self.posterior, np.exp(self.model.log_prior)[None]])
        return table[rows]

    def log_probs(self, enc: Encoded, rewards: np.ndarray, variance: np.ndarray | None = None) -> np.ndarray:
        """Log-probability of every possible answer, averaged over what is not known of the rater.

        Args:
            enc: `N` questions; their labels are not looked at.
            rewards: (U, B) basis rewards of `enc.texts`.
            variance: (U, B) variance of the basis rewards of texts that are themselves predictions; averaged over, for
                ratings and pairs. None: the rewards are known.

        Returns:
            (N, A) nats; see `predictors.Predictor`.
        """
        answers = n_answers(enc)
        everyone = self.select(enc.rater_ids)
        questions, question = Observations.from_encoded(enc).questions()
        out = np.full((len(enc), answers), -np.inf)
        order = np.argsort(question, kind="stable")
        start = 0
        basis = torch.from_numpy(rewards)
        ties = enc.kind != "preference" or "log_tie_mean" in self.model.terms[enc.kind].shared
        with torch.no_grad(), np.errstate(divide="ignore"):
            for part in _slices(len(questions.label), self.model.n_states * answers):
                asked = questions.select(part)
                stop = start + int(np.searchsorted(question[order[start:]], part.stop))
                rows = order[start:stop]
                for answer in range(answers if ties else 2):
                    table = self._answer_probs(asked.answering(answer), basis, variance)
                    for some in _slices(len(rows), self.model.n_states):
                        at = rows[some]
                        p = np.einsum("ns,ns->n", everyone[enc.rater[at]], table[question[at] - part.start])
                        out[at, answer] = np.log(p)
                start = stop
        return out - logsumexp(out, axis=1, keepdims=True)

    def _answer_probs(self, cells: Observations, basis: Tensor, variance: np.ndarray | None) -> np.ndarray:
        """(M, S) probability of judgements in each state, averaged over uncertain rewards."""
        if variance is None or cells.kind == "choice":
            return self.model.table(cells, basis).exp().numpy()
        of_code = torch.from_numpy(variance @ (self.model.codes**2).T)
        sd = cells.gather(of_code).sum(1).sqrt()  # of a rating's reward, or of the gap between two
        nodes, log_weight = normal_grid(5)
        parts = [
            weight * self.model.table(cells, basis, 0, float(z) * sd).exp()
            for z, weight in zip(nodes, np.exp(log_weight), strict=True)
        ]
        return torch.stack(parts).sum(0).numpy()

    def information(self, enc: Encoded, rewards: np.ndarray) -> np.ndarray:
        """How much the judgements of the placed raters say about each basis reward, the others held fixed.

        Args:
            enc: Judgements of these raters.
            rewards: (U, B) basis rewards of `enc.texts`.

        Returns:
            (U, B) Fisher information, in 1 / logits squared.
        """
        cells, cell = Observations.from_encoded(enc).distinct()
        shape = (enc.n_raters, len(cells.label))
        counts = csr_array((enc.weight, (enc.rater, cell.numpy())), shape=shape)
        expected = counts.T @ self.select(enc.rater_ids)
        basis = torch.from_numpy(rewards)
        with torch.no_grad():
            return information(
                self.model, cells, expected, enc.n_texts, lambda p, step: self.model.table(cells, basis, p, step)
            )


def information(
    model: RaterModel,
    cells: Observations,
    expected: np.ndarray,
    n_texts: int,
    table: Callable[[int, float], Tensor],
) -> np.ndarray:
    """Fisher information of expected judgements on each basis reward, the others held fixed.

    Args:
        model: Its codes.
        cells: `M` distinct judgements.
        expected: (M, S) how often each was made in each state.
        n_texts: `U`.
        table: (M, S) log-likelihood with the reward of the alternative at a place moved by a step.

    Returns:
        (U, B) in 1 / logits squared.
    """
    by_code = np.zeros((n_texts, len(model.codes)))
    for place in range(cells.alternatives.shape[1]):
        slope = (table(place, STEP) - table(place, -STEP)).numpy() / (2 * STEP)
        seen = (expected * slope**2).reshape(len(expected), len(model.codes), -1).sum(2)
        np.add.at(by_code, cells.alternatives[:, place].numpy(), seen)
    return by_code @ model.codes**2


def _softmax(joint: np.ndarray) -> np.ndarray:
    joint = joint - joint.max(1, keepdims=True)
    np.exp(joint, out=joint)
    return joint / joint.sum(1, keepdims=True)


def _slices(rows: int, width: int) -> list[slice]:
    """Cut rows of the given width into blocks of at most `CHUNK` elements."""
    step = max(1, CHUNK // max(width, 1))
    return [slice(i, min(i + step, rows)) for i in range(0, rows, step)]
