"""Predictors to measure a model against: answers without a reward model, and the model without knowledge of raters.

Each is a `raters.predictors.Predictor`. Knows nothing of metrics.

Shapes: `N` judgements, `A` answers, `U` texts, `D` features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from reward_models.judgements.encoding import Encoded
from reward_models.raters.predictors import Predictor, n_answers


__all__ = ["FixedAnswers", "Strangers", "marginal_log_probs"]


@dataclass(frozen=True)
class FixedAnswers:
    """A predictor that knows no reward and no rater: answers by their frequency in `train`, or equal probabilities.

    The frequencies are those of `marginal_log_probs`: per question for choices, of the whole table for other kinds.

    Attributes:
        train: Judgements to count; None: every answer is equally probable.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("rating", num_raters=2, num_items=2).judgements.encode()
        >>> np.exp(FixedAnswers().log_probs(enc))[0].round(2).tolist()
        [0.33, 0.33, 0.33]
    """

    train: Encoded | None = None

    def log_probs(self, enc: Encoded, features: np.ndarray | None = None) -> np.ndarray:
        """Compute (N, A) log-probabilities; see `Predictor`."""
        if self.train is not None:
            return marginal_log_probs(self.train, enc)
        if enc.kind == "choice":
            return _log_shares((enc.alternatives >= 0).astype(np.float64))
        return np.full((len(enc), n_answers(enc)), -math.log(n_answers(enc)))

    def adapt(self, enc: Encoded, features: np.ndarray | None = None) -> FixedAnswers:
        """Return the same object: it knows no rater."""
        return self


@dataclass(frozen=True)
class Strangers:
    """A model that is not told who the raters are: each is predicted as a random member of the population.

    Attributes:
        model: The model, which may know the raters.

    Example:
        >>> from reward_models import fit_raters, planted_judgements
        >>> enc = planted_judgements("rating", num_raters=10, num_items=8).judgements.encode()
        >>> log_probs = Strangers(fit_raters(enc)).log_probs(enc)
        >>> bool((log_probs[enc.item == 0] == log_probs[enc.item == 0][0]).all())  # the same for every rater
        True
    """

    model: Predictor

    def log_probs(self, enc: Encoded, features: np.ndarray | None = None) -> np.ndarray:
        """Compute (N, A) log-probabilities for raters whom the model does not know."""
        return self.model.log_probs(replace(enc, rater_ids=[f"\0stranger {i}" for i in range(enc.n_raters)]), features)

    def adapt(self, enc: Encoded, features: np.ndarray | None = None) -> Strangers:
        """Return the same object: labels are ignored."""
        return self


def marginal_log_probs(train: Encoded, test: Encoded) -> np.ndarray:
    """Compute (N, A) log-probabilities of answers by their frequency in `train`.

    Choices are counted by question; the answers to a question that is not in `train` are predicted by how often its
    options were chosen in other questions. Other kinds are counted over the whole table: the levels of a scale, and
    ties; the sides of a pair are equally probable. Half a judgement is added per answer, so that none is impossible;
    for choices it is shared out by the frequency of the options in all questions.

    Args:
        train: Judgements to count.
        test: `N` judgements to predict.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("preference", num_raters=2, num_items=2).judgements.encode()
        >>> np.exp(marginal_log_probs(enc, enc)[0]).round(3).tolist()  # 4 judgements, no tie: (2 + 0.5) / 5.5
        [0.455, 0.455, 0.091]
    """
    n = n_answers(test)
    if test.kind == "choice":
        return _log_shares(_option_counts(train, test))
    counts = np.bincount(train.label, train.weight, n) + 0.5
    if test.kind == "preference":
        counts[:2] = counts[:2].mean()
    return _log_shares(np.tile(counts, (len(test), 1)))


def _option_counts(train: Encoded, test: Encoded) -> np.ndarray:
    """(N, A) how often each option was chosen in its question, plus half a judgement per option; 0 at the padding.

    Options are found by their text, so that neither the order of the options nor that of the questions matters.
    """
    offered = train.alternatives >= 0
    chosen = np.take_along_axis(train.alternatives, train.label[:, None], axis=1)[:, 0]
    times_chosen = np.bincount(chosen, train.weight, train.n_texts)
    times_offered = np.bincount(train.alternatives[offered], np.repeat(train.weight, offered.sum(1)), train.n_texts)
    of_text = dict(zip(train.texts, times_chosen.tolist(), strict=True))
    of_option: dict[str, np.ndarray] = {}  # times chosen and times offered in any question
    for text, counts in zip(train.texts, np.stack([times_chosen, times_offered], axis=1), strict=True):
        of_option[text.response] = of_option.get(text.response, np.zeros(2)) + counts
    present = test.alternatives >= 0
    width = present.sum(1, keepdims=True)
    in_question = np.array([of_text.get(text, 0.0) for text in test.texts])[test.alternatives]
    anywhere = np.array([of_option.get(text.response, np.zeros(2)) for text in test.texts])[test.alternatives]
    rate = np.where(present, (anywhere[..., 0] + 0.5) / (anywhere[..., 1] + 0.5 * width), 0.0)
    return np.where(present, in_question, 0.0) + 0.5 * width * rate / rate.sum(1, keepdims=True)


def _log_shares(counts: np.ndarray) -> np.ndarray:
    """(N, A) log of the shares of each row; -inf where the count is 0."""
    with np.errstate(divide="ignore"):
        return np.log(counts / counts.sum(1, keepdims=True))
