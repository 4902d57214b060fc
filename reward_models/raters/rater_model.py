"""How raters vary around a jury: what they want (a code) and how they say it (rater terms), on one discrete grid.

A rater is an unknown state `s = (code c, terms t)`. The reward of a text for a rater with code `c` is
`basis(text) . c`, the text's row of basis rewards times the code:

| membership | codes | prior |
|---|---|---|
| `mixture` | the K unit vectors: each rater belongs to one cluster | prevalence |
| `simplex` | lattice points of the simplex: a blend of K prototypes | weight of each point |
| `factor` | (1, z), z on a grid: a consensus and tastes around it | normal |

The rater terms (see `observation`) have normal priors with fitted standard deviations. Because the states are finite,
everything unknown about a rater is summed over exactly: the likelihood of a rater is `sum_s prior_s prod_n p(y_n | s)`
(marginal maximum likelihood; Bock and Aitkin 1981, https://doi.org/10.1007/BF02293801), a new rater is adapted by
Bayes' rule, and predictions average over the posterior (`placement`). Knows nothing of how rewards and priors are
fitted.

Shapes: `N` judgements, `M` distinct judgements, `R` raters, `U` texts, `A` alternatives, `B` basis rewards, `C` codes,
`T` combinations of rater terms, `S = C T` states.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from reward_models.errors import JuryError
from reward_models.judgements.encoding import Encoded, encoded_tables
from reward_models.raters.observation import Observations
from reward_models.raters.placement import Placement
from reward_models.raters.predictors import positions
from reward_models.raters.state_grid import normal_grid, product_grid, slices


__all__ = ["DEFAULT_NODES", "KindTerms", "Membership", "RaterModel", "state_table"]

Membership = Literal["mixture", "simplex", "factor"]
STEP = 0.05  # logits, of a numerical derivative
# Grid points per rater term. Leniency is the widest term and the best known; the others are learnt from few labels.
DEFAULT_NODES = {"intercept": 13, "log_scale": 3, "log_tie": 5, "position": 3, "place": 7, "extremity": 7}
MOST_STATES = 5_000_000  # of a stored model: a damaged number of grid points must not fill the memory
SHARED_TERMS = {
    "preference": ("log_tie_mean", "position_mean", "log_scale_mean"),
    "rating": ("thresholds", "log_scale_mean"),
    "choice": ("log_scale_mean",),
}


@dataclass(frozen=True)
class KindTerms:
    """Terms of the likelihood of one kind of judgements, besides rewards.

    Attributes:
        shared: Terms that all raters share: `thresholds` (L - 1,), `log_tie_mean` (1,), `position_mean` (1,),
            `log_scale_mean` (1,), those that the kind has.
        sd: Standard deviation over raters of each rater term, in logits; a missing term does not vary.

    Example:
        >>> votes = KindTerms({"thresholds": np.array([-1.0, 1.0])}, {"intercept": 1.5})
        >>> votes.sd
        {'intercept': 1.5}
    """

    shared: dict[str, np.ndarray] = field(default_factory=dict)
    sd: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class RaterModel:
    """The states a rater can be in and their prior.

    Attributes:
        membership: `"mixture"`, `"simplex"` or `"factor"`.
        codes: (C, B) codes; the reward of a rater with code c is `basis rewards @ codes[c]`.
        code_log_prior: (C,) log prior of the codes.
        terms: Terms by kind of judgements; several kinds when a jury was fitted on several tables.
        nodes: Grid points per rater term, by name; terms that are not listed have `DEFAULT_NODES`.

    Example:
        Four raters of two clusters whose rewards are known:

        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("choice", num_raters=4)
        >>> model = RaterModel("mixture", np.eye(2), np.log([0.5, 0.5]), {"choice": KindTerms()})
        >>> placement = model.adapt(planted.judgements.encode(), planted.rewards)
        >>> placement.memberships().argmax(1).tolist(), planted.cluster.tolist()
        ([0, 1, 0, 1], [0, 1, 0, 1])
    """

    membership: Membership
    codes: np.ndarray
    code_log_prior: np.ndarray
    terms: dict[str, KindTerms]
    nodes: dict[str, int] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Kind of judgements, the first if there are several."""
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
        """Kind and name of the rater term of each dimension of the grid of terms."""
        return [(kind, name) for kind, terms in self.terms.items() for name in terms.sd]

    @cached_property
    def term_grid(self) -> tuple[np.ndarray, np.ndarray]:
        """(T, number of terms) standard normal nodes and (T,) log weights: all combinations of the rater terms."""
        return product_grid([normal_grid(self.nodes.get(name, DEFAULT_NODES[name])) for _, name in self.term_names])

    @property
    def n_states(self) -> int:
        """Number of states `S = C T`."""
        return len(self.codes) * len(self.term_grid[1])

    @property
    def log_prior(self) -> np.ndarray:
        """(S,) log prior of the states; the terms vary fastest."""
        return (self.code_log_prior[:, None] + self.term_grid[1]).ravel()

    def with_nodes(self, nodes: Mapping[str, int]) -> RaterModel:
        """Return the same model on another grid of rater terms."""
        return replace(self, nodes={**self.nodes, **nodes})

    def of_kind(self, kind: str) -> RaterModel:
        """Return the model of judgements of one kind: terms of other kinds do not change how probable they are."""
        return replace(self, terms={kind: self.terms[kind]})

    def table(self, cells: Observations, rewards: Tensor, alternative: int = 0, step: Tensor | float = 0.0) -> Tensor:
        """Compute the log-likelihood (M, S) of each distinct judgement in each state, given basis rewards (U, B).

        The reward of the given alternative is moved by `step`; see `state_table`.
        """
        terms = self.terms[cells.kind]
        shared = {name: torch.from_numpy(np.asarray(v, dtype=np.float64)) for name, v in terms.shared.items()}
        sds = {name: torch.tensor(sd, dtype=torch.float64) for name, sd in terms.sd.items()}
        return state_table(self, cells, rewards, shared, sds, alternative, step)

    def adapt(self, enc: Encoded | Sequence[Encoded], rewards: np.ndarray | Sequence[np.ndarray]) -> Placement:
        """Infer memberships and terms of raters from their judgements, by Bayes' rule on the grid.

        Args:
            enc: Judgements of `R` raters; several tables of different kinds if the jury was fitted on several.
            rewards: (U, B) basis rewards of `enc.texts`; one array per table.

        Returns:
            The posterior of each rater.

        Raises:
            JuryError: A kind the jury was not fitted to, ties if it was fitted without ties, or rewards or rating
                levels that do not match.
        """
        tables = encoded_tables(enc)
        basis = [rewards] if isinstance(rewards, np.ndarray) else list(rewards)
        rater_ids = list(dict.fromkeys(rater for table in tables for rater in table.rater_ids))
        joint = np.tile(self.log_prior, (len(rater_ids), 1))
        sizes = [len(self.of_kind(kind).term_grid[1]) for kind in self.terms]
        by_kind = joint.reshape(len(rater_ids), len(self.codes), *sizes)
        for table, table_rewards in zip(tables, basis, strict=True):
            self.check(table, table_rewards)
            cells, cell = Observations.from_encoded(table).distinct()
            rater = positions(table.rater_ids, rater_ids)[table.rater]
            counts = csr_array((table.count, (rater, cell.numpy())), shape=(len(rater_ids), len(cells.label)))
            model = self.of_kind(table.kind)
            log_lik = np.zeros((len(rater_ids), model.n_states))
            with torch.no_grad():
                for part in slices(len(cells.label), model.n_states):
                    block = model.table(cells.select(part), torch.from_numpy(table_rewards)).numpy()
                    log_lik += counts[:, part] @ block
            own = [n if kind == table.kind else 1 for kind, n in zip(self.terms, sizes, strict=True)]
            by_kind += log_lik.reshape(len(rater_ids), len(self.codes), *own)
        return Placement(self, rater_ids, _softmax(joint))

    def prior_placement(self, strangers: np.ndarray | None = None) -> Placement:
        """Return a placement of no raters: every rater is predicted from the prior, or as `strangers` (S,)."""
        return Placement(self, [], np.zeros((0, self.n_states)), strangers)

    def reward_information(
        self, cells: Observations, expected: np.ndarray, n_texts: int, table: Callable[[int, float], Tensor]
    ) -> np.ndarray:
        """Compute the Fisher information of expected judgements on each basis reward, the others held fixed.

        Args:
            cells: `M` distinct judgements.
            expected: (M, S) expected number of each in each state.
            n_texts: `U`.
            table: Maps an alternative and a step to the (M, S) log-likelihood with the alternative's reward moved.

        Returns:
            (U, B) in 1 / logits squared.
        """
        by_code = np.zeros((n_texts, len(self.codes)))
        for alternative in range(cells.alternatives.shape[1]):
            slope = (table(alternative, STEP) - table(alternative, -STEP)).numpy() / (2 * STEP)
            squared = (expected * slope**2).reshape(len(expected), len(self.codes), -1).sum(2)
            np.add.at(by_code, cells.alternatives[:, alternative].numpy(), squared)
        return by_code @ self.codes**2

    def check(self, enc: Encoded, rewards: np.ndarray) -> None:
        """Raise if judgements or basis rewards (U, B) do not match the model.

        Raises:
            JuryError: See `adapt`.
        """
        if enc.kind not in self.terms:
            raise JuryError(
                f"the jury was fitted to {' and '.join(map(repr, self.terms))} judgements and cannot adapt raters "
                f"from {enc.kind!r} judgements. Fix: fit it on both tables, or pass judgements of the known kind"
            )
        if rewards.shape != (enc.n_texts, self.n_basis):
            raise JuryError(
                f"rewards have shape {rewards.shape}, but there are {enc.n_texts} texts and {self.n_basis} basis "
                "rewards. Fix: pass one row per entry of Encoded.texts, in that order"
            )
        shared = self.terms[enc.kind].shared
        if enc.kind == "preference" and (enc.label == 2).any() and "log_tie_mean" not in shared:
            raise JuryError(
                f"{int((enc.label == 2).sum())} of {len(enc)} judgements are ties, but the jury was fitted without "
                "ties and gives them probability 0. Fix: fit on judgements that include ties, or drop the ties"
            )
        if enc.kind == "rating" and len(enc.levels or ()) != len(shared["thresholds"]) + 1:
            raise JuryError(
                f"the ratings have {len(enc.levels or ())} levels, the jury was fitted to "
                f"{len(shared['thresholds']) + 1}. Fix: give the same `levels` to both tables"
            )

    def check_values(self) -> None:
        """Raise unless every value is one that a fit can have: for a model that was read from a file.

        Raises:
            JuryError: Shapes that do not match, numbers that are not finite, a prior that is no distribution, or an
                unknown membership, kind or term.
        """
        if self.membership not in get_args(Membership):
            raise JuryError(f"the membership {self.membership!r} is none of {', '.join(get_args(Membership))}")
        if self.codes.ndim != 2 or self.code_log_prior.shape != self.codes.shape[:1] or not len(self.codes):
            raise JuryError(
                f"codes of shape {self.codes.shape} need one log prior each, and there are {self.code_log_prior.shape}"
            )
        total = float(np.exp(self.code_log_prior).sum())
        if not np.isfinite(self.codes).all() or not abs(total - 1) < 1e-3:
            raise JuryError(f"the codes must be finite numbers and their priors sum to 1, and the sum is {total:.6g}")
        if not self.terms:
            raise JuryError("there are no terms of any kind of judgements")
        for kind, terms in self.terms.items():
            _check_terms(kind, terms)
        points = [self.nodes.get(name, DEFAULT_NODES[name]) for _, name in self.term_names]
        if set(self.nodes) - set(DEFAULT_NODES) or any(n < 1 for n in self.nodes.values()):
            raise JuryError(f"nodes={self.nodes} must be at least 1 grid point for some of {', '.join(DEFAULT_NODES)}")
        if len(self.codes) * math.prod(points) > MOST_STATES:
            raise JuryError(f"the grid has {len(self.codes) * math.prod(points):,} states, more than {MOST_STATES:,}")

    def to_dict(self) -> dict[str, Any]:
        """Return the model as plain lists and numbers, for JSON."""
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
        """Read back what `to_dict` returned."""
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


def state_table(
    model: RaterModel,
    cells: Observations,
    rewards: Tensor,
    shared: Mapping[str, Tensor],
    sd: Mapping[str, Tensor],
    alternative: int = 0,
    step: Tensor | float = 0.0,
) -> Tensor:
    """Compute the log-likelihood of distinct judgements in each state, differentiable in rewards and terms.

    Args:
        model: Codes and grid; the values of the terms come from the other arguments.
        cells: `M` distinct judgements.
        rewards: (U, B) basis rewards.
        shared: Shared terms of the kind.
        sd: () standard deviation of each rater term of the kind.
        alternative: Column of `cells.alternatives` whose reward is moved, for numerical derivatives and for averaging
            over an uncertain reward.
        step: How far it is moved, in logits; (M, C) or one number.

    Returns:
        (M, S) nats.
    """
    of_code = cells.gather(rewards @ torch.from_numpy(model.codes).T)  # (M, A, C)
    if isinstance(step, Tensor) or step != 0.0:
        of_code[:, alternative] += step
    points = torch.from_numpy(model.term_grid[0])
    terms: dict[str, Tensor] = dict(shared)
    for dimension, (kind, name) in enumerate(model.term_names):
        if kind == cells.kind:
            terms[name] = (sd[name] * points[:, dimension])[None, None, :]
    log_lik = cells.state_log_lik(of_code[..., None], terms)  # (M, C, T)
    return log_lik.expand(*log_lik.shape[:2], len(points)).reshape(len(log_lik), model.n_states)


def _check_terms(kind: str, terms: KindTerms) -> None:
    """Raise unless the terms of a kind of judgements are known, of the right shape and finite."""
    if kind not in SHARED_TERMS:
        raise JuryError(f"the kind {kind!r} is none of {', '.join(SHARED_TERMS)}")
    for name, value in terms.shared.items():
        if name not in SHARED_TERMS[kind] or not np.isfinite(value).all() or value.ndim != 1 or not value.size:
            raise JuryError(f"the shared term {name!r} of {kind} is {value.tolist()}: unknown, or not finite numbers")
        if name == "thresholds" and (np.diff(value) <= 0).any():
            raise JuryError(f"the thresholds {value.tolist()} must increase")
        if name != "thresholds" and len(value) != 1:
            raise JuryError(f"the shared term {name!r} of {kind} is {value.tolist()}, not one number")
    if kind == "rating" and "thresholds" not in terms.shared:
        raise JuryError("the terms of ratings lack thresholds")
    for name, sd in terms.sd.items():
        if name not in DEFAULT_NODES or not (math.isfinite(sd) and sd >= 0):
            raise JuryError(f"the standard deviation of {name!r} is {sd}: an unknown term, or no number from 0 up")


def _softmax(joint: np.ndarray) -> np.ndarray:
    """Softmax over the last axis with one temporary array."""
    joint = joint - joint.max(1, keepdims=True)
    np.exp(joint, out=joint)
    return joint / joint.sum(1, keepdims=True)
