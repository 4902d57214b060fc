"""A new rater: memberships after a few judgements, and the most informative question to ask next.

Adapting a rater is Bayes' rule on the states of `rater_model`: no gradient, a few milliseconds. A rater without
judgements is a random member of the population. The next question is the one whose answer is expected to tell most
about the rater's code,

    I(code; answer) = H(E_code,terms p) - E_code H(E_terms|code p)   in nats;

rater terms such as leniency are averaged out before entropies are taken, so that a question is not ranked by what it
tells about them. Knows nothing of language models: rewards of texts come in as arrays.

Shapes: `R` raters, `K` clusters (basis rewards), `N` questions, `U` texts, `S` states, `C` codes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.special import entr

from reward_models.errors import JuryError
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.spelling import one_form
from reward_models.judgements.texts import Text, freeze_prompt
from reward_models.raters.observation import Observations
from reward_models.raters.placement import Placement
from reward_models.raters.predictors import positions
from reward_models.raters.rater_model import RaterModel


__all__ = ["Adaptation", "Question", "adapt", "information_gain", "rank_questions"]

CHUNK = 5_000_000  # most elements of one temporary array


@dataclass(frozen=True)
class Adaptation:
    """Memberships and terms of raters, inferred from their judgements.

    Attributes:
        cluster_names: `K` names.
        rater_ids: `R` names.
        memberships: (R, K) posterior probability of each cluster (`mixture`), or posterior mean of the blend
            (`simplex`) or of the tastes (`factor`).
        low: (R, K) lower ends of the 95 percent intervals. A rater of a mixture belongs to one cluster, so that the
            interval of a cluster is [0, 0], [1, 1], or [0, 1] where that is uncertain.
        high: (R, K) upper ends.
        terms: Posterior mean (R,) of each rater term (leniency and so on), in logits; never part of a reward.
        num_judgements: (R,) judgements that each rater was adapted from; None where the number was not stored.
        placement: The whole posterior, which also predicts answers: `placement.log_probs`.

    Example:
        >>> from reward_models import fit_mixture, planted_judgements
        >>> planted = planted_judgements("preference", num_raters=20)
        >>> enc = planted.judgements.encode()
        >>> fit = fit_mixture(enc, 2)
        >>> adaptation = Adaptation.of(fit.placement, ["city", "country"])
        >>> adaptation.summary()
        '20 raters: city 10, country 10, not settled 0'
        >>> adaptation.weights("r0").round(2).tolist(), adaptation.weights("somebody new").round(2).tolist()
        ([0.0, 1.0], [0.5, 0.5])
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
        """Summarise a placement of `R` raters.

        Args:
            placement: The posterior.
            cluster_names: `K` names.
            num_judgements: (R,) judgements that each rater was adapted from; None if not known.
        """
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
        """Return the weights (K,) under which the jury scores for one rater; for a stranger their mean membership.

        Raises:
            JuryError: For a `factor` jury: its tastes may be negative, weights may not.
        """
        model = self.placement.model
        if model.membership == "factor":
            raise JuryError(
                "membership='factor': the tastes of a rater may be negative, so they cannot be weights over clusters. "
                "Fix: compute the reward of a rater as cluster_rewards @ memberships[row of the rater]"
            )
        if rater_id in self.rater_ids:
            return self.memberships[self.rater_ids.index(rater_id)]
        strangers = self.placement.select([rater_id])
        return replace(self.placement, posterior=strangers).memberships()[0]

    def summary(self) -> str:
        """Return one line: the memberships of a single rater, or how many raters surely belong to each cluster."""
        if len(self.rater_ids) == 1:
            shares = sorted(zip(self.memberships[0], self.cluster_names, strict=True), key=lambda pair: -pair[0])
            line = f"{self.rater_ids[0]}: {', '.join(f'{name} {share:.2f}' for share, name in shares)}"
            return line if self.num_judgements is None else f"{line} (judgements: {self.num_judgements[0]})"
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
    strangers: np.ndarray | None = None,
) -> Adaptation:
    """Infer memberships and terms of raters from their judgements.

    Args:
        model: How raters vary.
        tables: Their judgements; one table, or one per kind of judgements that the jury was fitted to.
        rewards: (U, K) basis rewards of each table's texts.
        cluster_names: `K` names.
        strangers: (S,) what is taken for all other raters; None: the prior.

    Raises:
        JuryError: See `RaterModel.adapt`.

    Example:
        >>> from reward_models import fit_mixture, planted_judgements
        >>> enc = planted_judgements("choice", num_raters=20).judgements.encode()
        >>> fit = fit_mixture(enc, 2)
        >>> one_rater = enc.select(enc.rater == 0, drop_raters=True)
        >>> adapt(fit.model, [one_rater], [fit.rewards], ["city", "country"]).summary()
        'r0: country 1.00, city 0.00 (judgements: 12)'
    """
    placement = model.prior_placement(strangers).adapt(tables, rewards)
    counts = np.zeros(len(placement.rater_ids), dtype=np.int64)
    for enc in tables:
        np.add.at(counts, positions(enc.rater_ids, placement.rater_ids)[enc.rater], 1)
    return Adaptation.of(placement, cluster_names, counts)


@dataclass(frozen=True)
class Question:
    """A question that a rater could be asked.

    Attributes:
        information: What the answer is expected to tell about the rater's code, in nats.
        prompt: The prompt, as it stands in the pool.
        responses: The two responses to compare, the options to choose from, or the one response to rate.
        index: Index in the pool, from 0.

    Example:
        >>> Question(0.42, "Best pet?", ("cat", "dog"), index=7).responses
        ('cat', 'dog')
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
    exclude: Collection[frozenset[Text]] = (),
) -> list[Question]:
    """Rank questions by the expected information about a rater's code in the answer.

    Args:
        model: How raters vary.
        posterior: (S,) posterior over the states of the rater; the prior for a new rater.
        pool: `N` (prompt, responses) pairs: two responses for `preference`, two or more for `choice`, one for `rating`
            (may be a plain string).
        kind: The kind of questions.
        score: Maps `U` texts to (U, K) basis rewards.
        exclude: Questions to skip, each as the set of its texts.

    Returns:
        The questions, most informative first; equally informative questions in the order of the pool.

    Raises:
        JuryError: A kind the jury was not fitted to, an empty pool, or a wrong number of responses.

    Example:
        The clusters agree about the first pair and disagree about the second, so the second tells them apart:

        >>> from reward_models.raters.rater_model import KindTerms
        >>> model = RaterModel("mixture", np.eye(2), np.log([0.5, 0.5]), {"preference": KindTerms()})
        >>> rewards = {"tea": [1, 1], "mud": [-1, -1], "cat": [2, -2], "dog": [-2, 2]}
        >>> pool = [("Drink?", ("tea", "mud")), ("Pet?", ("cat", "dog"))]
        >>> score = lambda texts: np.array([rewards[text.response] for text in texts])
        >>> ranked = rank_questions(model, np.exp(model.log_prior), pool, "preference", score)
        >>> [(question.prompt, round(question.information, 2)) for question in ranked]
        [('Pet?', 0.6), ('Drink?', 0.0)]
    """
    if kind not in model.terms:
        raise JuryError(
            f"kind={kind!r}, but the jury was fitted to {' and '.join(map(repr, model.terms))} judgements. Fix: ask "
            "questions of that kind"
        )
    if len(pool) == 0:
        raise JuryError("pool is empty, so there is no question to rank. Fix: give (prompt, responses) pairs")
    texts: dict[Text, int] = {}
    rows, kept = [], []
    for index, (prompt, offered) in enumerate(pool):
        responses = (offered,) if isinstance(offered, str) else tuple(offered)
        if {"rating": len(responses) != 1, "preference": len(responses) != 2}.get(kind, len(responses) < 2):
            needed = {"rating": "one response", "preference": "two responses"}.get(kind, "two or more options")
            raise JuryError(
                f"entry {index} of the pool has {len(responses)} responses: a {kind!r} question has {needed}. Fix: "
                "change or drop the entry"
            )
        alternatives = [Text(freeze_prompt(prompt), one_form(response)) for response in responses]
        if frozenset(alternatives) not in exclude:
            rows.append([texts.setdefault(text, len(texts)) for text in alternatives])
            kept.append((prompt, responses, index))
    if not rows:
        return []
    n_levels = len(model.terms[kind].shared["thresholds"]) + 1 if kind == "rating" else 0
    questions = Observations.of_questions(kind, rows, n_levels)
    information = information_gain(model, posterior, questions, score(list(texts)))
    ranked = [Question(float(nats), *question) for nats, question in zip(information, kept, strict=True)]
    return sorted(ranked, key=lambda question: -question.information)


@torch.no_grad()
def information_gain(
    model: RaterModel, posterior: np.ndarray, questions: Observations, rewards: np.ndarray
) -> np.ndarray:
    """Compute the expected information about a rater's code in the answer to each question.

    Args:
        model: How raters vary.
        posterior: (S,) posterior over the states of the rater; the prior for a new rater.
        questions: `N` questions; their labels are ignored.
        rewards: (U, K) basis rewards.

    Returns:
        (N,) nats, from 0 to the smaller of the entropy of the code's posterior and the logarithm of the number of
        answers.

    Example:
        >>> from reward_models import fit_mixture, planted_judgements
        >>> enc = planted_judgements("choice", num_items=4).judgements.encode()
        >>> fit = fit_mixture(enc, 2)
        >>> questions, _ = Observations.from_encoded(enc).questions()
        >>> gain = information_gain(fit.model, np.exp(fit.model.log_prior), questions, fit.rewards)
        >>> gain.shape, bool((gain < np.log(2)).all())  # two equally large clusters: at most ln 2
        ((4,), True)
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
        block = questions.select(slice(start, start + step))
        tables = (model.table(block.answering(answer), basis).exp().numpy() for answer in range(n_answers))
        # (n, C, A): probability of each answer given the code, the terms averaged out.
        p = np.stack([np.einsum("nct,ct->nc", t.reshape(len(t), *joint.shape), given_code) for t in tables], axis=-1)
        gain[start : start + step] = entr(code @ p).sum(-1) - entr(p).sum(-1) @ code
    return np.maximum(gain, 0.0)  # rounding may leave -1e-17
