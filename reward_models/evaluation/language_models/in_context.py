"""The in-context baseline: a rater's own earlier judgements in the prompt of a language model, which answers the next.

No weight is trained on judgements. What is fitted is how the model's preferences become probabilities: one scale and
a level per answer, on labels that are held out from the rater's own examples. Without them a small model is far too
sure of itself and prefers an answer whatever is asked (Zhao and others 2021, https://arxiv.org/abs/2102.09690, name
both).

Knows nothing of rewards or clusters.

Shapes: `N` judgements, `A` answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from reward_models.errors import JuryError
from reward_models.evaluation.language_models.continuations import Continuation, LanguageModel
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.texts import Prompt
from reward_models.raters.predictors import n_answers
from reward_models.seeds import seeded_rng


__all__ = ["InContext", "fit_in_context", "in_words"]

SHOTS = 8
LEARNT_FROM = 200  # judgements that scale and levels are fitted to, each of another rater
YES_NO = {2: (" no", " yes"), 3: (" no", " unsure", " yes")}
INTRODUCTION = {
    "rating": "One person says whether they agree with what others wrote.\n\n",
    "preference": "One person says which of two responses, A or B, they prefer.\n\n",
    "choice": "One person answers questions by the letter of an option.\n\n",
}
LONGEST = 400  # characters of a text in an example


@dataclass(frozen=True)
class InContext:
    """A language model that reads a rater's own judgements. A `raters.predictors.Predictor`.

    Attributes:
        lm: The language model.
        kind: Kind of judgements.
        examples: By rater, judgements in words, each with its answer.
        scale: How much the model's preferences count.
        level: (A,) what is added to the logit of each answer.
        shots: Most examples that are shown of a rater, the last ones.

    Example:
        See `fit_in_context`.

        >>> InContext.__annotations__["shots"]
        'int'
    """

    lm: LanguageModel
    kind: str
    examples: Mapping[str, Sequence[str]]
    scale: float
    level: np.ndarray
    shots: int = SHOTS
    _known: dict[tuple[str, str], np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def log_probs(self, enc: Encoded, features: np.ndarray | None = None) -> np.ndarray:
        """Compute the (N, A) log-probability of every possible answer; see `Predictor`. `features` are ignored.

        Raises:
            JuryError: Judgements of another kind.
        """
        if enc.kind != self.kind:
            raise JuryError(
                f"the examples are {self.kind!r} judgements and cannot score {enc.kind!r} judgements. Fix: fit the "
                "baseline to judgements of that kind"
            )
        beginnings = [self._beginning(self.examples.get(rater, ())) for rater in enc.rater_ids]
        asked = [(beginnings[rater], question) for rater, (question, _) in zip(enc.rater, in_words(enc), strict=True)]
        preferences = self._preferences(asked, enc)
        width = n_answers(enc)
        level = np.zeros(width)
        level[: min(width, len(self.level))] = self.level[:width]
        return log_softmax(np.where(_offered(enc), self.scale * preferences + level, -np.inf), axis=1)

    def adapt(self, enc: Encoded, features: np.ndarray | None = None) -> InContext:
        """Return the same baseline with the judgements of `enc` as examples; all other raters are forgotten."""
        return replace(self, examples=_examples(enc))

    def _beginning(self, examples: Sequence[str]) -> str:
        return INTRODUCTION[self.kind] + "".join(examples[-self.shots :])

    def _preferences(self, asked: Sequence[tuple[str, str]], enc: Encoded) -> np.ndarray:
        """(N, A) the model's log-probability of each answer; questions that were asked before are remembered."""
        answers = _answers(enc)
        groups: dict[str, dict[str, None]] = {}
        for beginning, question in asked:
            # Another table may have had fewer answers: its longest list of options was shorter.
            if len(self._known.get((beginning, question), ())) < len(answers):
                groups.setdefault(beginning, {})[question] = None
        wanted = [[Continuation(q, a) for q in questions for a in answers] for questions in groups.values()]
        for (beginning, questions), found in zip(groups.items(), self.lm.score(list(groups), wanted), strict=True):
            for question, row in zip(questions, found[:, 0].reshape(len(questions), -1), strict=True):
                self._known[beginning, question] = row
        width = n_answers(enc)
        return np.stack([self._known[key][:width] for key in asked])


def fit_in_context(enc: Encoded, lm: LanguageModel, *, shots: int = SHOTS, seed: int = 0) -> InContext:
    """Make the baseline from judgements whose raters it shall know.

    Args:
        enc: Judgements of any kind that has raters; a rater's last ones are the examples.
        lm: The language model.
        shots: Most examples of a rater.
        seed: Random seed of the labels that scale and levels are fitted to.

    Example:
        >>> from reward_models import planted_judgements
        >>> from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
        >>> enc = planted_judgements("rating", num_raters=4, num_items=4).judgements.encode()
        >>> fit = fit_in_context(enc, LanguageModel(tiny_causal_lm(), tiny_tokenizer()), shots=2)
        >>> np.exp(fit.log_probs(enc))[0].sum().round(6)
        np.float64(1.0)
    """
    if enc.kind not in INTRODUCTION:
        raise JuryError(f"kind={enc.kind!r} does not say who answered. Fix: use judgements with rater_id")
    fit = InContext(lm, enc.kind, _examples(enc), 1.0, np.zeros(n_answers(enc)), shots)
    rng = seeded_rng(seed, "labels of in-context calibration")
    raters = rng.permutation(enc.n_raters)[:LEARNT_FROM]
    rows = np.array([rng.choice(np.flatnonzero(enc.rater == rater)) for rater in raters if (enc.rater == rater).any()])
    held = np.zeros(len(enc), dtype=bool)
    held[rows] = True
    asked = enc.select(held)
    raw = fit.adapt(enc.select(~held))
    beginnings = [raw._beginning(raw.examples.get(rater, ())) for rater in asked.rater_ids]
    keys = [(beginnings[rater], question) for rater, (question, _) in zip(asked.rater, in_words(asked), strict=True)]
    scale, level = _calibrate(raw._preferences(keys, asked), asked)
    return replace(fit, scale=scale, level=level)


def _calibrate(preferences: np.ndarray, enc: Encoded) -> tuple[float, np.ndarray]:
    """Fit scale and levels by penalised maximum likelihood; a scale of 0 is what all answers alike would get."""
    offered = _offered(enc)
    mean = np.where(offered, preferences, 0.0).sum(1, keepdims=True) / offered.sum(1, keepdims=True)
    centred = np.where(offered, preferences - mean, 0.0)

    def loss(values: np.ndarray) -> float:
        logits = np.where(offered, values[0] * centred + values[1:], -np.inf)
        chosen = np.take_along_axis(log_softmax(logits, axis=1), enc.label[:, None], axis=1)
        return float(-chosen.sum() + 0.5 * (values[1:] ** 2).sum() + 0.5 * values[0] ** 2)

    width = preferences.shape[1]
    bounds = [(0.0, None), *[(None, None)] * width]
    found = minimize(loss, np.append(0.5, np.zeros(width)), method="L-BFGS-B", bounds=bounds)
    return float(found.x[0]), found.x[1:]


def in_words(enc: Encoded) -> list[tuple[str, str]]:
    """Say each judgement in words: what is asked, and the rater's answer.

    Args:
        enc: `N` judgements.

    Example:
        >>> from reward_models import planted_judgements
        >>> question, answer = in_words(planted_judgements("rating", num_raters=1).judgements.encode())[0]
        >>> print(question + answer)
        Question 1?
        answer A
        Agree: yes
    """
    answers = _answers(enc)
    out = []
    for row, label in zip(enc.alternatives, enc.label, strict=True):
        texts = [enc.texts[i] for i in row if i >= 0]
        asked = _last_message(texts[0].prompt)
        if enc.kind == "rating":
            question = f"{asked}\n{_cut(texts[0].response)}\nAgree:"
        else:
            options = "\n".join(f"{chr(65 + i)}. {_cut(text.response)}" for i, text in enumerate(texts))
            question = f"{asked}\n{options}\nAnswer:"
        out.append((question, answers[label]))
    return out


def _answers(enc: Encoded) -> list[str]:
    """Return how each answer is written."""
    if enc.kind == "preference":
        return [" A", " B", " both"]
    if enc.kind == "rating":
        levels = enc.levels or ()
        return list(YES_NO.get(len(levels), ())) or [f" {level:g}" for level in levels]
    return [f" {chr(65 + i)}" for i in range(enc.alternatives.shape[1])]


def _examples(enc: Encoded) -> dict[str, list[str]]:
    """Return the judgements of each rater in words."""
    examples: dict[str, list[str]] = {}
    for rater, (question, answer) in zip(enc.rater, in_words(enc), strict=True):
        examples.setdefault(enc.rater_ids[rater], []).append(f"{question}{answer}\n\n")
    return examples


def _offered(enc: Encoded) -> np.ndarray:
    """(N, A) which answers an item has."""
    if enc.kind == "choice":
        return enc.alternatives >= 0
    return np.ones((len(enc), n_answers(enc)), dtype=bool)


def _last_message(prompt: Prompt) -> str:
    return _cut(prompt if isinstance(prompt, str) else prompt[-1][1])


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
