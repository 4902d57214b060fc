"""A new rater: where they stand after a few judgements, and what to ask them next.

Placing is Bayes' rule on the states of `rater_model`, no gradient, a few milliseconds; a rater of whom nothing is
known is the population. The next question is the one whose answer is expected to say most about what they want,

    I(code; answer) = H(E_code,terms p) - E_code H(E_terms|code p)   in nats,

not about how they say it: leniency, position habits and the like are averaged out before entropies are taken. Knows
nothing of language models: rewards of texts come in as arrays.

Shapes: `R` raters, `K` clusters (basis rewards), `N` questions, `U` texts, `S` states, `C` codes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import entr

from reward_models.errors import JuryError
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.texts import Text, freeze_prompt
from reward_models.raters.observation import Observations
from reward_models.raters.placement import Placement
from reward_models.raters.rater_model import RaterModel


__all__ = ["Adaptation", "Question", "adapt", "information_gain", "rank_questions"]

CHUNK = 5_000_000  # numbers in the largest array


@dataclass(frozen=True)
class Adaptation:
    """Where raters stand.

    Attributes:
        cluster_names: `K` names.
        rater_ids: `R` names.
        memberships: (R, K) posterior probability of each cluster (`mixture`), or posterior mean of the blend
            (`simplex`) or of the tastes (`factor`).
        low: (R, K) lower ends of the 95 percent intervals. A mixture's rater is in one cluster, so its interval is
            [0, 0], [1, 1], or [0, 1] where that is not settled.
        high: (R, K) upper ends.
        terms: Posterior mean (R,) of each rater term (leniency and so on), in logits; never part of a reward.
        num_judgements: (R,) labels that each was placed by; None where that was not kept.
        placement: The whole posterior, which also predicts answers: `placement.log_probs`.
    """

    cluster_names: list[str]
    rater_ids: list[str]
    memberships: np.ndarray
    low: np.ndarray
    high: np.ndarray
    terms: dict[str, np.ndarray]
    num_judgements: np.ndarray | None
    placement: Placement

    @classmethod
    def of(
        cls, placement: Placement, cluster_names: Sequence[str], num_judgements: np.ndarray | None = None
    ) -> Adaptation:
        """Summarise a placement of raters who gave `num_judgements` (R,) labels."""
        low, high = placement.intervals()
        return cls(
            cluster_names=list(cluster_names),
            rater_ids=list(placement.rater_ids),
            memberships=placement.memberships(),
            low=low,
            high=high,
            terms=placement.terms(),
            num_judgements=num_judgements,
            placement=placement,
        )

    def weights(self, rater_id: str) -> np.ndarray:
        """Weights (K,) of the clusters that make the jury speak for one rater; the prevalence for an unknown one.

        Raises:
            JuryError: For a `factor` jury, whose tastes may be negative, and weights may not.
        """
        model = self.placement.model
        if model.membership == "factor":
            raise JuryError(
                "the raters of a 'factor' jury differ by tastes that may be negative, so they are no weights over "
                "clusters. Fix: the reward of the rater is cluster_rewards @ memberships of their row."
            )
        if rater_id in self.rater_ids:
            return self.memberships[self.rater_ids.index(rater_id)]
        return np.exp(model.code_log_prior) @ model.codes

    def summary(self) -> str:
        """One line: who is where."""
        if len(self.rater_ids) == 1:
            shares = sorted(zip(self.memberships[0], self.cluster_names, strict=True), key=lambda pair: -pair[0])
            said = ", ".join(f"{name} {share:.2f}" for share, name in shares)
            if self.num_judgements is None:
                return f"{self.rater_ids[0]}: {said}"
            return f"{self.rater_ids[0]}: {said} (judgements: {self.num_judgements[0]})"
        if self.placement.model.membership != "mixture":
            means = ", ".join(
                f"{n} {m:.2f}" for n, m in zip(self.cluster_names, self.memberships.mean(axis=0), strict=True)
            )
            return f"{len(self.rater_ids)} raters, on average {means}"
        settled = self.memberships >= 0.95
        counts = ", ".join(f"{n} {c}" for n, c in zip(self.cluster_names, settled.sum(axis=0), strict=True))
        return f"{len(self.rater_ids)} raters: {counts}, not settled {int((~settled.any(axis=1)).sum())}"


def adapt(
    model: RaterModel,
    tables: Sequence[Encoded],
    rewards: Sequence[np.ndarray],
    cluster_names: Sequence[str],
) -> Adaptation:
    """Place raters by their labels.

    Args:
        model: How raters vary.
        tables: Their labels; one table, or one per kind of judgements that the jury was fitted to.
        rewards: (U, K) basis rewards of each table's texts.
        cluster_names: `K` names.

    Raises:
        JuryError: See `RaterModel.place`.
    """
    placement = model.adapt(tables, rewards)
    number = {rater: i for i, rater in enumerate(placement.rater_ids)}
    counts = np.zeros(len(number), dtype=np.int64)
    for enc in tables:
        np.add.at(counts, np.array([number[rater] for rater in enc.rater_ids], dtype=np.int64)[enc.rater], 1)
    return Adaptation.of(placement, cluster_names, counts)


@dataclass(frozen=True)
class Question:
    """A question to put to a rater.

    Attributes:
        information: What the answer is expected to say about the rater's code, in nats.
        prompt: As it was given.
        responses: The two responses to compare, the options to choose from, or the one response to rate.
        index: Place in the pool, from 0.
    """

    information: float
    prompt: Any
    responses: tuple[str, ...]
    index: int


def rank_questions(
    model: RaterModel,
    posterior: np.ndarray,
    pool: Sequence[tuple[Any, str | Sequence[str]]],
    kind: str,
    score: Callable[[list[Text]], np.ndarray],
    asked: Collection[frozenset[Text]] = (),
) -> list[Question]:
    """Rank questions by the expected information about a rater's code in the answer.

    Args:
        model: How raters vary.
        posterior: (S,) what is known of the rater; the prior for a new one.
        pool: `N` (prompt, responses) pairs. The responses of a `preference` are two; of a `choice` two or more; of a
            `rating` one, which may be a plain string.
        kind: The kind of questions.
        score: Maps `U` texts to (U, K) basis rewards.
        asked: Questions to leave out, each by its texts.

    Returns:
        The questions, the most informative first; equal ones in the order of the pool.

    Raises:
        JuryError: A kind the jury was not fitted to, an empty pool, or a wrong number of responses.
    """
    if kind not in model.terms:
        raise JuryError(
            f"kind={kind!r}, but the jury was fitted to {' and '.join(map(repr, model.terms))} judgements. Ask those."
        )
    if len(pool) == 0:
        raise JuryError("the pool is empty: give at least one (prompt, responses) pair.")
    texts: dict[Text, int] = {}
    rows, kept = [], []
    for index, (prompt, given) in enumerate(pool):
        responses = (given,) if isinstance(given, str) else tuple(given)
        if {"rating": len(responses) != 1, "preference": len(responses) != 2}.get(kind, len(responses) < 2):
            needed = {"rating": "one response", "preference": "two responses"}.get(kind, "two or more options")
            raise JuryError(
                f"entry {index} of the pool has {len(responses)} responses: a {kind!r} question has {needed}."
            )
        about = [Text(freeze_prompt(prompt), response) for response in responses]
        if frozenset(about) not in asked:
            rows.append([texts.setdefault(text, len(texts)) for text in about])
            kept.append((prompt, responses, index))
    if not rows:
        return []
    width = max(map(len, rows))
    alternatives = torch.tensor([row + [-1] * (width - len(row)) for row in rows])
    questions = Observations(
        kind=kind,
        alternatives=alternatives.clamp(min=0),
        mask=alternatives >= 0 if (alternatives < 0).any() else None,
        label=torch.zeros((len(rows), 1), dtype=torch.int64),
        rater=torch.zeros(len(rows), dtype=torch.int64),
        weight=torch.ones(len(rows), dtype=torch.float64),
        first=None,
        n_raters=1,
        n_levels=len(model.terms[kind].shared["thresholds"]) + 1 if kind == "rating" else 0,
    )
    information = information_gain(model, posterior, questions, score(list(texts)))
    ranked = [Question(float(nats), *question) for nats, question in zip(information, kept, strict=True)]
    return sorted(ranked, key=lambda question: -question.information)


@torch.no_grad()
def information_gain(
    model: RaterModel, posterior: np.ndarray, questions: Observations, rewards: np.ndarray
) -> np.ndarray:
    """Expected information about a rater's code in the answer to each question.

    Args:
        model: How raters vary.
        posterior: (S,) what is known of the rater; the prior for a new one.
        questions: `N` questions; their labels are not looked at.
        rewards: (U, K) basis rewards.

    Returns:
        (N,) nats, from 0 to the entropy of the code's posterior or the logarithm of the number of answers, whichever
        is smaller.
    """
    joint = posterior.reshape(len(model.codes), -1)
    code = joint.sum(1)
    given_code = joint / np.where(code > 0, code, 1.0)[:, None]
    basis = torch.from_numpy(np.asarray(rewards, dtype=np.float64))
    shared = model.terms[questions.kind].shared
    n_answers = {"preference": 2 + ("log_tie_mean" in shared), "rating": questions.n_levels}.get(
        questions.kind, questions.alternatives.shape[1]
    )
    gain = np.empty(len(questions.label))
    step = max(1, CHUNK // (model.n_states * questions.alternatives.shape[1]))
    for start in range(0, len(gain), step):
        asked = questions.select(slice(start, start + step))
        tables = (model.table(asked.answering(answer), basis).exp().numpy() for answer in range(n_answers))
        # (n, C, A): how each answer depends on the code, the terms averaged out.
        p = np.stack([np.einsum("nct,ct->nc", t.reshape(len(t), *joint.shape), given_code) for t in tables], axis=-1)
        gain[start : start + step] = entr(code @ p).sum(-1) - entr(p).sum(-1) @ code
    return np.maximum(gain, 0.0)  # rounding may leave -1e-17
