"""Judgements given rewards: the likelihoods applied to a whole table, with the rater terms of each kind.

Joins `encoding` (who judged what) with `likelihoods` (how probable that is), vectorised over judgements. Knows nothing
of the prevalence of clusters, EM or features.

Rater terms, one per rater, shrunk to zero by a normal prior and never part of a reward:

| kind | terms |
|---|---|
| `preference` | `log_scale` b (beta = e^b), `log_tie` (around `log_tie_mean`), `position` (around `position_mean`) |
| `rating` | `intercept` alpha (leniency), `log_scale` b; `thresholds` zeta are shared |
| `choice` | `place`, `extremity`: preference for the last option, and for both ends of the list, whatever their text |

Shapes: `N` judgements, `R` raters, `U` texts, `A` alternatives, `K` clusters, `L` levels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from reward_models.judgements.encoding import Encoded
from reward_models.raters.likelihoods import choice_log_lik, davidson_log_lik, ordinal_log_lik


__all__ = [
    "TERM_SD",
    "Observations",
    "public_terms",
    "start_terms",
    "start_thresholds",
    "term_penalty",
    "torch_terms",
]

# Standard deviations of the rater terms, in logits. Leniency is by far the largest rater effect in rating data.
TERM_SD = {
    "intercept": 1.5,
    "log_scale": 0.3,
    "log_tie": 1.0,
    "position": 0.5,
    "place": 0.7,
    "extremity": 0.7,
}
THRESHOLD_SD = 5.0


@dataclass(frozen=True)
class Observations:
    """A table of judgements as tensors.

    Attributes:
        kind: `"preference"`, `"rating"` or `"choice"`.
        alternatives: (N, A) text index, 0 at the padding.
        mask: (N, A) False at the padding; None when there is none.
        label: (N, 1) label as in `Encoded`.
        rater: (N,) rater index.
        count: (N,) how often each judgement was given: evidence about a rater counts by it.
        weight: (N,) `count` times the sampling weight of the rater: averages over people are weighted by it.
        first: (N, 1) `preference`: +1 where a was shown first, -1 where b was, 0 where unknown; None if it never is.
        n_raters: `R`.
        n_levels: `L` for ratings, else 0.

    Example:
        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("choice", num_raters=20, num_items=5)
        >>> observations = Observations.from_encoded(planted.judgements.encode())
        >>> log_lik = observations.log_lik(observations.gather(torch.tensor(planted.rewards)), {})
        >>> log_lik.shape  # judgements, clusters
        torch.Size([100, 2])
        >>> observations.rater_totals(log_lik)[:4].argmax(1).tolist(), planted.cluster[:4].tolist()
        ([0, 1, 0, 1], [0, 1, 0, 1])
    """

    kind: str
    alternatives: Tensor
    mask: Tensor | None
    label: Tensor
    rater: Tensor
    count: Tensor
    weight: Tensor
    first: Tensor | None
    n_raters: int
    n_levels: int

    @classmethod
    def from_encoded(cls, enc: Encoded, text_index: np.ndarray | None = None) -> Observations:
        """Convert an encoded table; `text_index` (U,) renumbers its texts."""
        alternatives = np.maximum(enc.alternatives, 0)
        padded = enc.alternatives < 0
        first = None
        if enc.shown_first is not None and (enc.shown_first >= 0).any():
            first = torch.from_numpy(np.choose(enc.shown_first + 1, [0.0, 1.0, -1.0]))[:, None]
        return cls(
            kind=enc.kind,
            alternatives=torch.from_numpy(alternatives if text_index is None else text_index[alternatives]),
            mask=torch.from_numpy(~padded) if padded.any() else None,
            label=torch.from_numpy(enc.label)[:, None],
            rater=torch.from_numpy(enc.rater),
            count=torch.tensor(enc.count),  # pandas hands out read-only arrays
            weight=torch.tensor(enc.weight),
            first=first,
            n_raters=enc.n_raters,
            n_levels=len(enc.levels or ()),
        )

    @classmethod
    def of_questions(cls, kind: str, rows: Sequence[Sequence[int]], n_levels: int = 0) -> Observations:
        """Build questions to one rater that nobody has answered yet; their labels are placeholders.

        Args:
            kind: Kind of the questions.
            rows: `N` questions, each by the indices of its texts; they may differ in number.
            n_levels: `L` for ratings.
        """
        width = max(map(len, rows))
        padded = torch.tensor([[*row, *[-1] * (width - len(row))] for row in rows])
        return cls(
            kind=kind,
            alternatives=padded.clamp(min=0),
            mask=padded >= 0 if (padded < 0).any() else None,
            label=torch.zeros((len(rows), 1), dtype=torch.int64),
            rater=torch.zeros(len(rows), dtype=torch.int64),
            count=torch.ones(len(rows), dtype=torch.float64),
            weight=torch.ones(len(rows), dtype=torch.float64),
            first=None,
            n_raters=1,
            n_levels=n_levels,
        )

    def distinct(self) -> tuple[Observations, Tensor]:
        """Merge judgements with the same question and the same answer: 225,000 votes on 896 statements become 1,792.

        Returns:
            `M` distinct judgements, whose `rater`, `count` and `weight` are meaningless, and the (N,) index of each
            judgement into them.
        """
        return self._merge([*self.alternatives.T, self.label[:, 0]])

    def questions(self) -> tuple[Observations, np.ndarray]:
        """Merge judgements with the same question, whatever the answer.

        Returns:
            `M` questions, whose `label`, `rater`, `count` and `weight` are meaningless, and the (N,) index of each
            judgement into them.
        """
        questions, index = self._merge(list(self.alternatives.T))
        return questions, index.numpy()

    def _merge(self, columns: list[Tensor]) -> tuple[Observations, Tensor]:
        if self.mask is not None:
            columns = [*columns, *self.mask.T]
        if self.first is not None:
            columns = [*columns, self.first[:, 0]]
        code = np.zeros(len(self.label), dtype=np.int64)
        for column in columns:  # hashing pairs of columns: sorting rows of ten million judgements takes minutes
            part, values = pd.factorize(column.numpy())
            code = pd.factorize(code * len(values) + part)[0]
        first = np.empty(code.max(initial=-1) + 1, dtype=np.int64)
        first[code[::-1]] = np.arange(len(code))[::-1]
        return self.select(torch.from_numpy(first)), torch.from_numpy(code.astype(np.int64))

    def select(self, rows: Tensor | slice) -> Observations:
        """Select some of the judgements; raters keep their numbers."""
        return dataclasses.replace(
            self,
            alternatives=self.alternatives[rows],
            mask=None if self.mask is None else self.mask[rows],
            label=self.label[rows],
            rater=self.rater[rows],
            count=self.count[rows],
            weight=self.weight[rows],
            first=None if self.first is None else self.first[rows],
        )

    def answering(self, label: int) -> Observations:
        """Return the same questions, all with the same answer."""
        return dataclasses.replace(self, label=torch.full_like(self.label, label))

    def gather(self, rewards: Tensor) -> Tensor:
        """Look up the rewards (U, K) of the alternatives: (N, A, K)."""
        flat = rewards.index_select(0, self.alternatives.reshape(-1))
        return flat.reshape(*self.alternatives.shape, rewards.shape[1])

    def log_lik(self, rewards: Tensor, terms: dict[str, Tensor]) -> Tensor:
        """Compute the log-likelihood of every judgement, with the terms of its rater.

        Args:
            rewards: (N, A, K) rewards of the alternatives.
            terms: Rater terms (R,) and shared terms by name; a missing term is not in the model.

        Returns:
            (N, K) log-likelihood in nats, not multiplied by `count`.
        """
        per_judgement = {k: v.index_select(0, self.rater)[:, None] if k in TERM_SD else v for k, v in terms.items()}
        return self.state_log_lik(rewards, per_judgement)

    def state_log_lik(self, rewards: Tensor, terms: Mapping[str, Tensor]) -> Tensor:
        """Compute the log-likelihood of every judgement in every state of a rater.

        Args:
            rewards: (N, A, ...) rewards of the alternatives.
            terms: Rater terms, which broadcast against (N, ...), and shared terms by name; a missing term is not in
                the model.

        Returns:
            (N, ...) log-likelihood in nats, not multiplied by `count`.
        """
        zero = rewards.new_zeros(())
        label = self.label.reshape(len(self.label), *[1] * (rewards.ndim - 2))
        scale = terms.get("log_scale_mean", zero) + terms.get("log_scale", zero)
        if self.kind == "rating":
            return ordinal_log_lik(rewards[:, 0], label, terms["thresholds"], terms.get("intercept", zero), scale)
        if self.kind == "preference":
            tie = terms["log_tie_mean"] + terms.get("log_tie", zero) if "log_tie_mean" in terms else None
            position: Tensor | float = 0.0
            if self.first is not None and "position_mean" in terms:
                first = self.first.reshape(label.shape)
                position = first * (terms["position_mean"] + terms.get("position", zero))
            return davidson_log_lik(rewards[:, 0], rewards[:, 1], label, scale, tie, position)
        preference = self._list_preference(terms)
        if preference is not None:
            rewards = rewards + preference
        rewards = rewards.movedim(1, -1)
        mask = None if self.mask is None else self.mask.reshape(*label.shape, -1)
        return choice_log_lik(rewards, label, mask)

    def _list_preference(self, terms: Mapping[str, Tensor]) -> Tensor | None:
        """(N, A, ...) preference for an option because of its place in the list; None without such terms."""
        if "place" not in terms and "extremity" not in terms:
            return None
        count, place = self.alternatives.shape[1], torch.arange(self.alternatives.shape[1], dtype=torch.float64)
        offered = torch.full((len(self.label), 1), count) if self.mask is None else self.mask.sum(1, keepdim=True)
        along = 2.0 * place / (offered - 1).clamp(min=1) - 1.0  # from -1, the first option, to 1, the last
        profiles = {"place": along, "extremity": 1.5 * along.square() - 0.5}
        total: Tensor | None = None
        for name, profile in profiles.items():
            if name in terms:
                term = terms[name].unsqueeze(1)  # (N or 1, 1, ...)
                part = profile.reshape(*profile.shape, *[1] * (term.ndim - 2)) * term
                total = part if total is None else total + part
        return total

    def rater_totals(self, log_lik: Tensor) -> Tensor:
        """Sum the (N, K) log-likelihoods of each rater's judgements, each times its count: (R, K)."""
        totals = log_lik.new_zeros((self.n_raters, log_lik.shape[1]))
        return totals.index_add(0, self.rater, self.count[:, None] * log_lik)


def start_terms(obs: Observations, rater_terms: bool) -> dict[str, np.ndarray]:
    """Return start values of all terms of a kind: rater terms at zero, shared terms at the marginal of the data.

    Args:
        obs: The judgements.
        rater_terms: Whether each rater has terms.

    Returns:
        Arrays by name. Ordered thresholds appear as `raw_thresholds` (the first threshold, then the log gaps). None
        for `choice`, whose rater terms are optional (`FitConfig.style`).

    Example:
        >>> from reward_models import planted_judgements
        >>> votes = Observations.from_encoded(planted_judgements("rating").judgements.encode())
        >>> {name: values.shape for name, values in start_terms(votes, rater_terms=True).items()}
        {'raw_thresholds': (2,), 'intercept': (30,), 'log_scale': (30,)}
    """
    label, weight = obs.label.numpy().ravel(), obs.weight.numpy()
    terms: dict[str, np.ndarray] = {}
    per_rater: list[str] = []
    if obs.kind == "rating":
        terms["raw_thresholds"] = start_thresholds(np.bincount(label, weight, obs.n_levels))
        per_rater = ["intercept", "log_scale"]
    elif obs.kind == "preference":
        per_rater = ["log_scale"]
        ties, others = float(weight[label == 2].sum()), float(weight[label < 2].sum())
        if ties:
            terms["log_tie_mean"] = np.array([np.log(2 * ties / max(others, 1))])
            per_rater.append("log_tie")
        if obs.first is not None and rater_terms:
            terms["position_mean"] = np.zeros(1)
            per_rater.append("position")
    if rater_terms:
        terms |= {name: np.zeros(obs.n_raters) for name in per_rater}
    return terms


def start_thresholds(counts: np.ndarray) -> np.ndarray:
    """Return the raw thresholds (L - 1,) that reproduce the frequencies of `L` levels when all rewards are zero.

    Args:
        counts: (L,) ratings per level; half a rating is added to each.

    Returns:
        The first threshold, then the logs of the gaps between thresholds; `torch_terms` turns them into thresholds.

    Example:
        >>> start_thresholds(np.array([10, 10])).tolist()
        [0.0]
    """
    smoothed = counts + 0.5
    below = np.cumsum(smoothed)[:-1] / smoothed.sum()
    zeta = np.log(below / (1 - below))
    return np.concatenate([zeta[:1], np.log(np.diff(zeta))])


def torch_terms(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """Replace `raw_thresholds` by increasing `thresholds`; all other terms stay.

    Example:
        >>> torch_terms({"raw_thresholds": torch.tensor([-1.0, 0.0])})
        {'thresholds': tensor([-1.,  0.])}
    """
    if "raw_thresholds" not in terms:
        return terms
    raw = terms["raw_thresholds"]
    thresholds = torch.cumsum(torch.cat([raw[:1], raw[1:].exp()]), dim=0)
    return {name: value for name, value in terms.items() if name != "raw_thresholds"} | {"thresholds": thresholds}


def public_terms(terms: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Apply `torch_terms` to arrays.

    Example:
        >>> public_terms({"raw_thresholds": np.array([-1.0, 0.0])})
        {'thresholds': array([-1.,  0.])}
    """
    return {k: v.numpy() for k, v in torch_terms({k: torch.from_numpy(v) for k, v in terms.items()}).items()}


def term_penalty(terms: dict[str, Tensor]) -> Tensor:
    """Compute minus the log of the normal priors N(0, TERM_SD^2) of the rater terms, up to a constant.

    Example:
        A leniency of one standard deviation costs half a nat:

        >>> float(term_penalty({"intercept": torch.tensor([TERM_SD["intercept"]])}))
        0.5
    """
    penalty = torch.zeros((), dtype=torch.float64)
    for name, value in terms.items():
        if name in TERM_SD:
            penalty = penalty + 0.5 * (value / TERM_SD[name]).square().sum()
        elif name == "raw_thresholds":
            penalty = penalty + 0.5 * (value / THRESHOLD_SD).square().sum()
    return penalty
