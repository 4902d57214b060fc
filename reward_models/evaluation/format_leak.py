"""Could length and format alone have told the answers? A classifier that sees nothing else, as a check on a jury.

Benchmarks leak: a rejected response stored as a Python list is rendered with brackets and quotes, "raters" are made to
prefer the longer text, and a model that reads no word scores 97 %. Here a log-linear classifier of formal features is
fitted on the train side, alone and on top of the base model, and scored on the test side beside the jury. With the
raters' memberships it has weights per cluster, so that it can also be a jury of long-text and short-text lovers. Needs
numpy and scipy only; knows nothing of what the texts say.

Shapes: `N` judgements, `A` answers, `U` texts, `F` features, `R` raters, `K` clusters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

from reward_models.errors import JuryError
from reward_models.evaluation.judgement_bootstrap import Bootstrap, Draw, average
from reward_models.evaluation.metrics import credit
from reward_models.judgements.encoding import Encoded
from reward_models.raters.predictors import answer_log_lik, n_answers


__all__ = ["FORMAT_FEATURES", "FormatLeak", "format_features", "format_leak", "marginal_log_probs"]

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
LEAK = 0.75  # of what the jury knows; on honest pairs of arguments, where length persuades, it is about a half
PART = 0.5  # of the gain over the base


@dataclass(frozen=True)
class FormatLeak:
    """What length and format explain.

    Attributes:
        nll: Held-out loss in nats of `"marginal"` (answer shares only), `"format"`, `"base"`, `"base + format"` and
            `"jury"`.
        accuracy: Share of test answers that format alone gets right.
        explained: Share of what the jury knows, its gain over the marginal, that format alone knows too; with the
            ends of its interval.
        explained_gain: Share of the jury's gain over the base that format on top of the base makes up; with its ends;
            nan if the jury has no gain.
        strongest: The features with the largest weights of the format-only classifier, in logits per standard
            deviation, the strongest first.
        leak: Whether the verdict is an accusation.
        verdict: In words.
    """

    nll: dict[str, float]
    accuracy: float
    explained: tuple[float, float, float]
    explained_gain: tuple[float, float, float]
    strongest: list[tuple[str, float]]
    leak: bool
    verdict: str


def format_features(texts: Sequence[str]) -> np.ndarray:
    """(U, F) features of length and format, in the order of `FORMAT_FEATURES`; counts on a log scale."""
    return np.array([[feature(text) for feature in FORMAT_FEATURES.values()] for text in texts], dtype=np.float64)


def marginal_log_probs(train: Encoded, test: Encoded) -> np.ndarray:
    """(N, A) answers by their frequency in `train`: of levels, and of ties; options and sides are all alike.

    Half a judgement is added to each answer, so that none is impossible.
    """
    n = n_answers(test)
    if test.kind == "choice":
        shares = (test.alternatives >= 0).astype(np.float64)
    else:
        counts = np.bincount(train.label, train.weight, n) + 0.5
        if test.kind == "preference":
            counts[:2] = counts[:2].mean()
        shares = np.tile(counts, (len(test), 1))
    with np.errstate(divide="ignore"):
        return np.log(shares / shares.sum(1, keepdims=True))


def format_leak(
    train: Encoded,
    test: Encoded,
    *,
    base: tuple[np.ndarray, np.ndarray],
    jury: np.ndarray,
    memberships: tuple[np.ndarray, np.ndarray] | None = None,
    bootstrap: Bootstrap | None = None,
) -> FormatLeak:
    """Fit the format-only classifier on `train` and see how much of the jury's success on `test` it explains.

    Args:
        train: Judgements to fit it to; none of them in `test`.
        test: The judgements that the jury was scored on.
        base: Log-probabilities of the base model, (N, A) for `train` and for `test`. A base that was fitted to `train`
            leaves little there for format to add, so that `explained_gain` errs towards not accusing.
        jury: (N, A) log-probabilities of the jury for `test`.
        memberships: (R, K) of the raters of `train` and of `test`, to give each cluster its own taste in format; None
            for one taste.
        bootstrap: How intervals are made; None: the defaults.

    Raises:
        JuryError: The two tables are of different kinds.
    """
    if train.kind != test.kind:
        raise JuryError(f"train holds {train.kind!r} judgements, test {test.kind!r}. Fix: use tables of one kind")
    if memberships is None:
        memberships = np.ones((train.n_raters, 1)), np.ones((test.n_raters, 1))
    known = format_features([text.response for text in train.texts])
    centre, spread = known.mean(0), known.std(0)
    spread = np.where(spread > 0, spread, 1.0)
    designs = [
        _design(enc, (format_features([text.response for text in enc.texts]) - centre) / spread)
        for enc in (train, test)
    ]
    of_raters = memberships[0][train.rater], memberships[1][test.rater]
    marginal = marginal_log_probs(train, train), marginal_log_probs(train, test)
    scored = {"marginal": marginal[1], "base": base[1], "jury": jury}
    weights = {}
    for name, start in (("format", marginal), ("base + format", base)):
        weights[name] = _fit(start[0], designs[0], train, of_raters[0])
        scored[name] = _mixed(start[1], designs[1], weights[name], of_raters[1])
    losses = {name: -answer_log_lik(log_probs, test) for name, log_probs in scored.items()}

    def shares(draw: Draw) -> list[float]:
        nll = {name: average(loss, draw.weight) for name, loss in losses.items()}
        return [
            _ratio(nll["marginal"] - nll["format"], nll["marginal"] - nll["jury"]),
            _ratio(nll["base"] - nll["base + format"], nll["base"] - nll["jury"]),
            nll["base"] - nll["jury"],
            nll["marginal"] - nll["format"],
        ]

    explained, explained_gain, gain, format_gain = (bootstrap or Bootstrap()).estimate(shares, test)
    accuracy = average(credit(scored["format"], test), test.weight)
    leak, verdict = _verdict(accuracy, explained, explained_gain, gain, format_gain, memberships[0].shape[1])
    size = np.abs(weights["format"]).max(0)
    signed = np.take_along_axis(weights["format"], np.abs(weights["format"]).argmax(0)[None], axis=0)[0]
    names = list(FORMAT_FEATURES)
    return FormatLeak(
        nll={
            name: average(losses[name], test.weight)
            for name in ("marginal", "format", "base", "base + format", "jury")
        },
        accuracy=accuracy,
        explained=(float(explained[0]), float(explained[1]), float(explained[2])),
        explained_gain=(float(explained_gain[0]), float(explained_gain[1]), float(explained_gain[2])),
        strongest=[(names[i], float(signed[i])) for i in np.argsort(-size)[:5]],
        leak=leak,
        verdict=verdict,
    )


def _design(enc: Encoded, features: np.ndarray) -> np.ndarray:
    """(N, A, F) what the weights are multiplied with for each answer; a tie lies between a and b."""
    if enc.kind == "rating":
        n = n_answers(enc)
        return np.linspace(-0.5, 0.5, n)[None, :, None] * features[enc.alternatives[:, 0]][:, None, :]
    offered = np.where((enc.alternatives >= 0)[:, :, None], features[enc.alternatives], 0.0)
    if enc.kind == "preference":
        return np.concatenate([offered, offered.mean(1, keepdims=True)], axis=1)
    return offered


def _log_answers(start: np.ndarray, design: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(N, K, A) log-probabilities of each cluster: `start` tilted by its weights (K, F)."""
    logits = start[:, None, :] + np.einsum("naf,kf->nka", design, weight)
    return logits - logsumexp(logits, axis=2, keepdims=True)


def _mixed(start: np.ndarray, design: np.ndarray, weight: np.ndarray, membership: np.ndarray) -> np.ndarray:
    """(N, A) log-probabilities, averaged over the clusters (N, K) of the rater."""
    return logsumexp(_log_answers(start, design, weight), axis=1, b=membership[:, :, None])


def _fit(start: np.ndarray, design: np.ndarray, enc: Encoded, membership: np.ndarray) -> np.ndarray:
    """(K, F) weights at their posterior mode under a standard normal prior, memberships as they are."""
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
    found = minimize(loss, np.zeros(shape[0] * shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    return found.x.reshape(shape)


def _ratio(part: float, whole: float) -> float:
    """`part / whole`, not below 0; nan where there is nothing to explain."""
    return max(part, 0.0) / whole if whole > 1e-9 else np.nan


def _verdict(
    accuracy: float,
    explained: np.ndarray,
    explained_gain: np.ndarray,
    gain: np.ndarray,
    format_gain: np.ndarray,
    num_clusters: int,
) -> tuple[bool, str]:
    """Accuse only where format predicts held-out answers beyond chance (lower end above 0)."""
    alone = f"length and format alone get {accuracy:.0%} of the answers right"
    all_of_it = format_gain[1] > 0 and explained[0] >= LEAK
    the_gain = format_gain[1] > 0 and gain[1] > 0 and explained_gain[0] >= PART
    if the_gain and (num_clusters > 1 or not all_of_it):
        return True, (
            f"format: {explained_gain[0]:.0%} of the jury's gain over the base is made up by taste in length and "
            f"format ({alone}). Its clusters may be lovers of long and of short texts; compare on pairs of like length"
        )
    if all_of_it:
        return True, (
            f"leak: {alone} and hold {explained[0]:.0%} of what the jury knows. Look at how the two sides were "
            "rendered (lists, brackets, quotes, cut texts) before believing any accuracy on these data"
        )
    of_gain = f", and {explained_gain[0]:.0%} of its gain over the base" if gain[1] > 0 else ""
    known = "nothing" if np.isnan(explained[0]) else f"{explained[0]:.0%}"
    return False, f"no leak: {alone}, which is {known} of what the jury knows{of_gain}"
