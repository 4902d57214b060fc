"""Can length and format alone predict the answers? A classifier on formal features, as a check on a model of raters.

Benchmarks leak: if rejected responses were stored as Python lists, they are rendered with brackets and quotes; if
simulated raters prefer the longer text, a model that reads no word scores 97 %. Here a log-linear classifier on formal
features is fitted on the train side, alone and on top of the base model, and scored on the test side beside the model.
With the raters' memberships it has weights per cluster, so it can also represent clusters that differ in preferred
length. Needs numpy and scipy only; knows nothing of the content of texts.

Shapes: `N` judgements, `A` answers, `U` texts, `F` features, `R` raters, `K` clusters.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

from reward_models.errors import JuryError, renamed_arguments
from reward_models.evaluation.controls import marginal_log_probs
from reward_models.evaluation.judgement_bootstrap import Bootstrap, Draw, average
from reward_models.evaluation.metrics import credit
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.texts import Prompt
from reward_models.raters.predictors import answer_log_lik, n_answers


__all__ = ["FORMAT_FEATURES", "FormatLeak", "fixed_options", "format_features", "format_leak"]

FORMAT_FEATURES: dict[str, Callable[[str], float]] = {
    "characters": lambda text: np.log1p(len(text)),
    "words": lambda text: np.log1p(len(text.split())),
    "lines": lambda text: np.log1p(text.count("\n")),
    "list items": lambda text: np.log1p(len(re.findall(r"^\s*(?:[-*•]|\d+[.)])\s", text, flags=re.MULTILINE))),
    "code and markup": lambda text: np.log1p(sum(map(text.count, "`#*_|<>"))),
    "brackets": lambda text: np.log1p(sum(map(text.count, "[]{}()"))),
    "quotes": lambda text: np.log1p(sum(map(text.count, "\"'“”«»"))),
    "digits": lambda text: np.log1p(sum(map(str.isdigit, text))),
    "capitals": lambda text: np.log1p(sum(map(str.isupper, text))),
    "begins with a bracket": lambda text: float(text.lstrip()[:1] in tuple("[{(")),
    "begins with a quote": lambda text: float(text.lstrip()[:1] in tuple("\"'“«")),
    "begins with a capital": lambda text: float(text.lstrip()[:1].isupper()),
    "ends in a bracket": lambda text: float(text.rstrip()[-1:] in tuple("]})")),
    "ends in a full stop": lambda text: float(text.rstrip()[-1:] in tuple(".!?。")),
}
LEAK = 0.75  # share of what the model knows; on pairs of arguments, where length does persuade, it is about a half
PART = 0.5  # share of the model's gain over the base


@dataclass(frozen=True)
class FormatLeak:
    """How much length and format explain; `format_leak` has an example.

    Attributes:
        nll: Heldout loss in nats of `"marginal"` (see `marginal_log_probs`), `"format"`, `"base"`, `"base + format"`
            and `"model"`.
        accuracy: Share of test answers that format alone predicts.
        explained: Share of the model's gain over the marginal that format alone has too; value and ends of the
            interval.
        explained_gain: Share of the model's gain over the base that format on top of the base has too; value and ends
            of the interval; nan if the model has no gain.
        strongest: The features with the largest weights in the format-only classifier, in logits per standard
            deviation, largest first.
        leak: Whether format explains too much.
        verdict: In words.

    Example:
        >>> nan = (float("nan"),) * 3
        >>> FormatLeak({"marginal": 0.69, "format": 0.68}, 0.52, nan, nan, [("words", 0.1)], False, "no leak").leak
        False
    """

    nll: dict[str, float]
    accuracy: float
    explained: tuple[float, float, float]
    explained_gain: tuple[float, float, float]
    strongest: list[tuple[str, float]]
    leak: bool
    verdict: str


def format_features(texts: Sequence[str]) -> np.ndarray:
    """Compute (U, F) features of length and format, in the order of `FORMAT_FEATURES`; counts on a log scale.

    Example:
        >>> row = format_features(["Yes."])[0]
        >>> dict(zip(FORMAT_FEATURES, row.round(2).tolist(), strict=True))["ends in a full stop"]
        1.0
    """
    return np.array([[feature(text) for feature in FORMAT_FEATURES.values()] for text in texts], dtype=np.float64)


def fixed_options(train: Encoded, test: Encoded) -> str | None:
    """Return why length and format say nothing about these choices, or None if they may.

    Where questions share a scale of answers, the length of an option only names it: whoever knows that "no" is the
    shorter word knows how often people say no, and nothing has leaked. The check needs questions with options of their
    own, and more of these than the classifier has weights.

    Args:
        train: Judgements that the classifier would be fitted to.
        test: Judgements that it would be measured on.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("choice", num_raters=5, num_items=4).judgements.encode()
        >>> fixed_options(enc, enc)
        'the options are fixed: 4 of 4 questions have options that other questions offer, too'
    """
    if train.kind != "choice":
        return None
    texts = dict.fromkeys(text for enc in (train, test) for text in enc.texts)
    questions_of = Counter(text.response for text in texts)  # a text is an option of one question
    free: dict[Prompt, int] = {}
    for prompt, response in texts:
        free[prompt] = free.get(prompt, 0) + (questions_of[response] == 1)
    fixed = sum(count < 2 for count in free.values())  # two options of its own can be compared by their format
    if fixed > len(free) / 2:
        return f"the options are fixed: {fixed} of {len(free)} questions have options that other questions offer, too"
    contrasts = sum(max(count - 1, 0) for count in free.values())
    if contrasts < 2 * len(FORMAT_FEATURES):
        return (
            f"the options are too few: {len(free)} questions have {contrasts} alternatives to their first option, and "
            f"the classifier has {len(FORMAT_FEATURES)} weights, with which it could name each option"
        )
    return None


@renamed_arguments(jury="model")
def format_leak(
    train: Encoded,
    test: Encoded,
    *,
    base: tuple[np.ndarray, np.ndarray],
    model: np.ndarray,
    memberships: tuple[np.ndarray, np.ndarray] | None = None,
    bootstrap: Bootstrap | None = None,
) -> FormatLeak:
    """Fit the format-only classifier on `train` and measure how much of a model's success on `test` it explains.

    Args:
        train: Judgements to fit it to; none of them in `test`.
        test: The judgements that the model was scored on.
        base: Log-probabilities of the base model, (N, A) for `train` and for `test`. A base that was fitted to `train`
            leaves little there for format to add, so `explained_gain` is rather too low.
        model: (N, A) log-probabilities of the model for `test`.
        memberships: (R, K) of the raters of `train` and of `test`, for weights of format per cluster; None for one
            set of weights.
        bootstrap: Resampling of the intervals; `Bootstrap()` if None.

    Raises:
        JuryError: The two tables are of different kinds.

    Example:
        >>> from reward_models import fit_raters, planted_judgements, split_raters
        >>> train, test = split_raters(planted_judgements("rating", num_raters=40).judgements, 0.5, seed=0)
        >>> train, test = train.encode(), test.encode()
        >>> marginal = marginal_log_probs(train, train), marginal_log_probs(train, test)
        >>> leak = format_leak(train, test, base=marginal, model=fit_raters(train).log_probs(test))
        >>> leak.leak, leak.accuracy < 0.5  # the planted texts do not differ in format
        (False, True)
    """
    if train.kind != test.kind:
        raise JuryError(f"train holds {train.kind!r} judgements, test {test.kind!r}. Fix: use tables of one kind")
    if memberships is None:
        memberships = np.ones((train.n_raters, 1)), np.ones((test.n_raters, 1))
    train_features = format_features([text.response for text in train.texts])
    centre, spread = train_features.mean(0), train_features.std(0)
    spread = np.where(spread > 0, spread, 1.0)
    designs = [
        _design(enc, (format_features([text.response for text in enc.texts]) - centre) / spread)
        for enc in (train, test)
    ]
    of_raters = memberships[0][train.rater], memberships[1][test.rater]
    marginal = marginal_log_probs(train, train), marginal_log_probs(train, test)
    scored = {"marginal": marginal[1], "base": base[1], "model": model}
    weights = {}
    for name, start in (("format", marginal), ("base + format", base)):
        weights[name] = _fit(start[0], designs[0], train, of_raters[0])
        scored[name] = _mixed(start[1], designs[1], weights[name], of_raters[1])
    losses = {name: -answer_log_lik(log_probs, test) for name, log_probs in scored.items()}

    def shares(draw: Draw) -> list[float]:
        nll = {name: average(loss, draw.weight) for name, loss in losses.items()}
        return [
            _ratio(nll["marginal"] - nll["format"], nll["marginal"] - nll["model"]),
            _ratio(nll["base"] - nll["base + format"], nll["base"] - nll["model"]),
            nll["base"] - nll["model"],
            nll["marginal"] - nll["format"],
            nll["model"] - nll["format"],
        ]

    explained, explained_gain, gain, format_gain, ahead = (bootstrap or Bootstrap()).estimate(shares, test)
    accuracy = average(credit(scored["format"], test), test.weight)
    leak, verdict = _verdict(
        (accuracy, average(credit(model, test), test.weight)),
        explained,
        explained_gain,
        gain,
        format_gain,
        ahead,
        memberships[0].shape[1],
    )
    size = np.abs(weights["format"]).max(0)
    signed = np.take_along_axis(weights["format"], np.abs(weights["format"]).argmax(0)[None], axis=0)[0]
    names = list(FORMAT_FEATURES)
    return FormatLeak(
        nll={
            name: average(losses[name], test.weight)
            for name in ("marginal", "format", "base", "base + format", "model")
        },
        accuracy=accuracy,
        explained=(float(explained[0]), float(explained[1]), float(explained[2])),
        explained_gain=(float(explained_gain[0]), float(explained_gain[1]), float(explained_gain[2])),
        strongest=[(names[i], float(signed[i])) for i in np.argsort(-size)[:5]],
        leak=leak,
        verdict=verdict,
    )


def _design(enc: Encoded, features: np.ndarray) -> np.ndarray:
    """Return the (N, A, F) design of the log-linear classifier; a tie has the mean of a and b."""
    if enc.kind == "rating":
        n = n_answers(enc)
        return np.linspace(-0.5, 0.5, n)[None, :, None] * features[enc.alternatives[:, 0]][:, None, :]
    offered = np.where((enc.alternatives >= 0)[:, :, None], features[enc.alternatives], 0.0)
    if enc.kind == "preference":
        return np.concatenate([offered, offered.mean(1, keepdims=True)], axis=1)
    return offered


def _log_answers(start: np.ndarray, design: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return (N, K, A) log-probabilities of each cluster: `start` tilted by its weights (K, F)."""
    logits = start[:, None, :] + np.einsum("naf,kf->nka", design, weight)
    return logits - logsumexp(logits, axis=2, keepdims=True)


def _mixed(start: np.ndarray, design: np.ndarray, weight: np.ndarray, membership: np.ndarray) -> np.ndarray:
    """Return (N, A) log-probabilities, averaged over the clusters (N, K) of the rater."""
    return logsumexp(_log_answers(start, design, weight), axis=1, b=membership[:, :, None])


def _fit(start: np.ndarray, design: np.ndarray, enc: Encoded, membership: np.ndarray) -> np.ndarray:
    """Return (K, F) weights at their posterior mode under a standard normal prior; memberships are fixed."""
    kept = np.isfinite(answer_log_lik(start, enc))
    start, design, membership = start[kept], design[kept], membership[kept]
    label, mass = enc.label[kept], enc.weight[kept]
    chosen = np.take_along_axis(design, label[:, None, None], axis=1)[:, 0]
    with np.errstate(divide="ignore"):
        log_membership = np.log(membership)

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        weight = theta.reshape(membership.shape[1], -1)
        log_p = _log_answers(start, design, weight)
        joint = log_membership + np.take_along_axis(log_p, label[:, None, None], axis=2)[:, :, 0]
        total = logsumexp(joint, axis=1, keepdims=True)
        responsibility = mass[:, None] * np.exp(joint - total)
        expected = np.einsum("nk,nka,naf->kf", responsibility, np.exp(log_p), design, optimize=True)
        gradient = weight + expected - responsibility.T @ chosen
        return 0.5 * float((weight**2).sum()) - float(mass @ total[:, 0]), gradient.ravel()

    shape = membership.shape[1], design.shape[2]
    result = minimize(loss, np.zeros(shape[0] * shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    return result.x.reshape(shape)


def _ratio(part: float, whole: float) -> float:
    """Return `part / whole`, at least 0; nan if there is nothing to explain."""
    return max(part, 0.0) / whole if whole > 1e-9 else np.nan


def _verdict(
    accuracies: tuple[float, float],
    explained: np.ndarray,
    explained_gain: np.ndarray,
    gain: np.ndarray,
    format_gain: np.ndarray,
    ahead: np.ndarray,
    num_clusters: int,
) -> tuple[bool, str]:
    """Report a leak only if format predicts heldout answers beyond chance (lower end above 0).

    Args:
        accuracies: Of format alone, and of the model.
        explained: Value and ends of the share of the model's gain over the marginal; nan if it has none.
        explained_gain: The same of its gain over the base.
        gain: The model's gain over the base, nats.
        format_gain: Gain of format over the marginal, nats.
        ahead: Gain of format over the model, nats.
        num_clusters: `K` sets of weights.
    """
    accuracy, of_model = accuracies
    alone = f"length and format alone predict {accuracy:.0%} of the answers, and the model {of_model:.0%}"
    if np.isnan(accuracy):
        alone = "every judgement is a tie, so that length and format predict no answer"
    tells = format_gain[1] > 0
    knows = not np.isnan(explained[0])  # the model beats the frequencies of the answers
    check = "Check how the two sides were rendered (lists, brackets, quotes, cut texts)"
    if tells and (not knows or ahead[1] > 0):
        return True, (
            f"leak: {alone}: a classifier that reads no word predicts better ({-ahead[0]:+.3f} nats per judgement). "
            f"{check}, and whether the model read the texts in full"
        )
    explains_all = tells and explained[0] >= LEAK
    explains_gain = tells and gain[1] > 0 and explained_gain[0] >= PART
    if explains_gain and (num_clusters > 1 or not explains_all):
        return True, (
            f"format: preferences for length and format explain {explained_gain[0]:.0%} of the model's gain over the "
            f"base ({alone}). Its clusters may differ in preferred length only; compare on pairs of equal length"
        )
    if explains_all:
        return True, (
            f"leak: {alone}: format has {explained[0]:.0%} of what the model knows. {check} before you trust an "
            "accuracy on these data"
        )
    little = knows and explained[0] < PART
    if not little and (accuracy > of_model or ahead[0] > 0 or explained[0] >= LEAK):
        interval = f"[{-ahead[2]:+.3f}, {-ahead[1]:+.3f}]"
        if not np.isfinite(ahead[1:]).all():
            interval = "without an interval, for which there are too few raters or items"
        return False, (
            f"undecided whether format leaks: {alone}, which may be chance with so few raters and items "
            f"(format against the model {-ahead[0]:+.3f} nats per judgement {interval})"
        )
    if not knows:
        return False, f"no leak: {alone}; neither predicts better than the frequencies of the answers"
    of_gain = f", and {explained_gain[0]:.0%} of its gain over the base" if gain[1] > 0 else ""
    return False, f"no leak: {alone}; format has {explained[0]:.0%} of what the model knows{of_gain}"
