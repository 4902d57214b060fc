"""Answer frequencies per item: the baseline that knows the questions but not the raters.

Knows nothing of rewards, clusters or features.

Shapes: `N` judgements, `I` items, `A` answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from reward_models.errors import JuryError
from reward_models.judgements.encoding import Encoded, encoded_tables, soft_as_choice
from reward_models.judgements.texts import Text
from reward_models.raters.predictors import n_answers


__all__ = ["ItemMeanFit", "fit_item_mean"]

CONCENTRATIONS = 2.0 ** np.arange(-2, 11)  # candidates for the number of answers that the marginal counts for


@dataclass(frozen=True)
class ItemMeanFit:
    """Answer frequencies of each item. A `predictors.Predictor` that predicts everybody as a random person.

    Attributes:
        items: Row of each known item, by its texts; the texts of a pair in a fixed order.
        probs: (I, A) answer probabilities.
        marginal: (A,) answer probabilities of an unknown item, before options that it does not offer are removed.
        concentration: Number of answers that the marginal counts for.
        kind: Kind of judgements.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("choice", num_items=4).judgements.encode()
        >>> fit = fit_item_mean(enc)
        >>> fit.probs.shape, np.exp(fit.log_probs(enc))[0].sum().round(6)
        ((4, 3), np.float64(1.0))
    """

    items: dict[tuple[Text, ...], int]
    probs: np.ndarray
    marginal: np.ndarray
    concentration: float
    kind: str

    def log_probs(self, enc: Encoded, features: np.ndarray | None = None) -> np.ndarray:
        """Compute the (N, A) log-probability of every possible answer; see `Predictor`. Raters are ignored.

        Raises:
            JuryError: Another kind of judgements.
        """
        kind = "choice" if enc.kind == "soft" else enc.kind
        if kind != self.kind:
            raise JuryError(
                f"the frequencies are of {self.kind!r} judgements and cannot score {enc.kind!r} judgements. Fix: fit "
                "them to judgements of that kind"
            )
        keys, question, turned = _items(enc)
        rows = np.array([self.items.get(key, -1) for key in keys], dtype=np.int64)
        width = n_answers(enc)
        table = np.zeros((len(keys), max(width, len(self.marginal))))
        table[:, : len(self.marginal)] = np.where(rows[:, None] >= 0, self.probs[rows], self.marginal)
        p = _turn(table[question][:, :width], turned)
        if kind == "choice":
            p = np.where(enc.alternatives >= 0, np.maximum(p, 1e-9), 0.0)
        with np.errstate(divide="ignore"):
            return np.log(p / p.sum(1, keepdims=True))

    def adapt(self, enc: Encoded, features: np.ndarray | None = None) -> ItemMeanFit:
        """Return the model itself: it has no memberships to infer."""
        return self


def fit_item_mean(enc: Encoded, features: np.ndarray | None = None) -> ItemMeanFit:
    """Estimate the answer frequencies of each item, shrunk to the marginal.

    The answer probabilities of an item have a Dirichlet prior around the marginal, whose concentration maximises the
    likelihood of the table. The marginal of pairs gives both responses the same probability, because their order is
    arbitrary.

    Args:
        enc: Judgements of any kind; rater ids are ignored.
        features: Not used; all baselines have the same signature.

    Returns:
        The frequencies.

    Example:
        >>> import pandas as pd
        >>> from reward_models import Judgements
        >>> share = {"prompt": ["Pet?"], "options": [["cat", "dog"]], "probs": [[0.8, 0.2]], "n": [1000]}
        >>> fit = fit_item_mean(Judgements.from_frame(pd.DataFrame(share), "soft").encode())
        >>> fit.probs.round(2).tolist()
        [[0.8, 0.2]]
    """
    (enc,) = encoded_tables(enc)
    if enc.kind == "soft":
        enc = soft_as_choice(enc)
    keys, question, turned = _items(enc)
    width = n_answers(enc)
    label = np.where(turned & (enc.label < 2), 1 - enc.label, enc.label)
    counts = np.bincount(question * width + label, enc.weight, len(keys) * width).reshape(-1, width)
    marginal = counts.sum(0)
    if enc.kind == "preference":
        marginal = np.array([marginal[:2].mean(), marginal[:2].mean(), marginal[2]])
    else:
        marginal = marginal + 0.5
    offered = np.ones_like(counts, dtype=bool)
    if enc.kind == "choice":
        offered = np.zeros_like(counts, dtype=bool)
        offered[question] = enc.alternatives >= 0
    prior = np.where(offered, marginal, 0.0)
    prior = prior / prior.sum(1, keepdims=True)
    answered = counts.sum(1)

    def log_evidence(concentration: float) -> float:
        at = np.where(prior > 0, concentration * prior, 1.0)
        per_answer = np.where(prior > 0, gammaln(at + counts) - gammaln(at), 0.0).sum(1)
        return float((gammaln(concentration) - gammaln(concentration + answered) + per_answer).sum())

    best = float(max(CONCENTRATIONS, key=log_evidence))
    probs = (counts + best * prior) / (answered + best)[:, None]
    return ItemMeanFit({key: i for i, key in enumerate(keys)}, probs, marginal / marginal.sum(), best, enc.kind)


def _items(enc: Encoded) -> tuple[list[tuple[Text, ...]], np.ndarray, np.ndarray]:
    """Distinct items by their texts, the (N,) item of each judgement, and whether its a and b are swapped."""
    unique, row = np.unique(enc.alternatives, axis=0, return_inverse=True)
    index: dict[tuple[Text, ...], int] = {}
    item, turned = np.zeros(len(unique), dtype=np.int64), np.zeros(len(unique), dtype=bool)
    for i, alternatives in enumerate(unique):
        key = tuple(enc.texts[t] for t in alternatives if t >= 0)
        if enc.kind == "preference":
            ordered = tuple(sorted(key, key=repr))
            turned[i], key = ordered != key, ordered
        item[i] = index.setdefault(key, len(index))
    row = row.ravel()
    return list(index), item[row], turned[row]


def _turn(p: np.ndarray, turned: np.ndarray) -> np.ndarray:
    """Swap the first two columns of the rows whose pair is swapped."""
    return np.where(turned[:, None], np.concatenate([p[:, 1::-1], p[:, 2:]], axis=1), p) if turned.any() else p
