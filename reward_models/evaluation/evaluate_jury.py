"""Measures several models of raters on the same judgements, case by case, with a verdict.

The cases are {seen, unseen rater} x {seen, unseen prompt}, seen meaning: in the training judgements. Unseen raters are
placed by a part of their own labels, and only the rest is scored. Works on anything that is a `predictors.Predictor`;
knows nothing of files, language models or how a model was fitted. `evaluate` is the command, `evaluation_report`
writes what comes out.

Shapes: `N` judgements, `A` answers, `R` raters, `U` texts, `D` features, `K` clusters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from reward_models.errors import JuryError, did_you_mean
from reward_models.evaluation import metrics, population
from reward_models.evaluation.cells import evaluation_cells
from reward_models.evaluation.comparisons import Comparison, compare, holm, in_words
from reward_models.evaluation.format_leak import FormatLeak, format_leak, marginal_log_probs
from reward_models.evaluation.judgement_bootstrap import Bootstrap, Metric
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.records import Judgements
from reward_models.judgements.splits import By
from reward_models.judgements.texts import Text
from reward_models.raters.predictors import Predictor, n_answers


__all__ = ["Clusters", "FixedAnswers", "JuryEvaluation", "Strangers", "evaluate_jury", "known_memberships"]

Ensemble = tuple[Callable[[Encoded], np.ndarray], np.ndarray]
DRAWS = 200
_REASONS = {
    "nll": "infinite: an answer was given that the model rules out",
    "ece": "no judgement without a tie",
    "accuracy": "no judgement without a tie",
    "tie": "no rater judged two pairs",
    "pairwise": "no pair was judged by two raters",
    "share": "no item was judged by two raters",
    "agreement": "no item was judged by two raters",
    "contested": "all items are predicted, or found, equally contested",
    "regret": "no prompt has two responses",
}


@dataclass(frozen=True)
class Clusters:
    """The clusters that "worst cluster" and welfare speak of: the same ones whatever model is measured.

    Attributes:
        memberships: Gives the (R, K) memberships of a table's raters by its labels, e.g. `RaterFit.posterior`.
        names: `K` names.
        weights: (K,) weights for welfare.
    """

    memberships: Callable[[Encoded], np.ndarray]
    names: Sequence[str]
    weights: np.ndarray


@dataclass(frozen=True)
class JuryEvaluation:
    """What was measured.

    Attributes:
        rows: Flat rows: `case`, `method`, `metric`, `value`, `ci_low`, `ci_high`, `n`, `counted`, `unit`, `direction`;
            comparisons also have `p_value`, `p_holm` and `outcome`, and what could not be measured has `skipped`, the
            reason.
        comparisons: Every model against the base, in every case; Holm's family is all of them.
        leak: What length and format explain; None if it could not be asked.
        verdict: In words.
    """

    rows: list[dict[str, Any]]
    comparisons: list[Comparison]
    leak: FormatLeak | None
    verdict: str


@dataclass(frozen=True)
class FixedAnswers:
    """A predictor that knows no text and no rater: answers by their frequency in `train`, or all alike.

    Attributes:
        train: Judgements to count; None: every answer is equally probable.
    """

    train: Encoded | None = None

    def log_probs(self, enc: Encoded, features: np.ndarray | None = None) -> np.ndarray:
        """(N, A) log-probabilities; see `Predictor`."""
        if self.train is not None:
            return marginal_log_probs(self.train, enc)
        if enc.kind == "choice":
            return marginal_log_probs(enc, enc)  # of choices only the number of options is known
        return np.full((len(enc), n_answers(enc)), -math.log(n_answers(enc)))

    def adapt(self, enc: Encoded, features: np.ndarray | None = None) -> FixedAnswers:
        """Itself: it knows no rater."""
        return self


@dataclass(frozen=True)
class Strangers:
    """A predictor to whom every rater is a stranger, drawn from the population.

    Attributes:
        of: The model that may know raters.
    """

    of: Predictor

    def log_probs(self, enc: Encoded, features: np.ndarray | None = None) -> np.ndarray:
        """(N, A) log-probabilities for somebody whom the model does not know."""
        return self.of.log_probs(replace(enc, rater_ids=[f"\0stranger {i}" for i in range(enc.n_raters)]), features)

    def adapt(self, enc: Encoded, features: np.ndarray | None = None) -> Strangers:
        """Itself: labels are not looked at."""
        return self


def evaluate_jury(
    predictors: Mapping[str, Predictor],
    test: Judgements,
    train: Judgements | None = None,
    *,
    base: str = "bt",
    jury: str | None = None,
    adapt_share: float = 0.5,
    by: By = "prompt",
    clusters: Clusters | None = None,
    ensembles: Mapping[str, Ensemble] | None = None,
    features: Callable[[Sequence[Text]], np.ndarray] | None = None,
    seed: int = 0,
    bootstrap: Bootstrap | None = None,
) -> JuryEvaluation:
    """Measure models on the same judgements and compare them with a base.

    A seen rater is predicted as each model knows them; an unseen one is placed (`Predictor.adapt`) by labels that are
    not scored. Loss, accuracy, calibration of answers, worst raters and clusters, and welfare are those of placed
    raters. Metrics of a population (pairwise and share calibration, divergence, agreement) ask the model about
    strangers: whether the jury as a whole answers as people do.

    Args:
        predictors: Fitted models by name.
        test: Judgements that no model was fitted to.
        train: Judgements that the models were fitted to; see `evaluation_cells`, also for `adapt_share` and `by`.
        base: Name of the model that the others are compared with.
        jury: Name of the model the verdict is about; None for the first that is not the base.
        adapt_share: Share of an unseen rater's labels that places them.
        by: `"prompt"` or `"item"`.
        clusters: Clusters for worst-cluster and welfare metrics; None to leave these out.
        ensembles: Rewards (U, K) of a table's texts and their weights (K,), by name of a model, for pairwise
            calibration of the rewards themselves, hard and smooth.
        features: Gives the (U, D) features of texts, for models on features.
        seed: Of the choice of adaptation labels.
        bootstrap: How intervals are made; None: 200 draws.

    Raises:
        JuryError: No model, or the base or the jury is not among them.
        JudgementError: See `evaluation_cells`.
    """
    jury = _check_names(predictors, base, jury)
    bootstrap = bootstrap or Bootstrap(draws=DRAWS, seed=seed)
    cells = evaluation_cells(test, train, adapt_share=adapt_share, by=by, seed=seed)
    placing = [table.encode() for table in (train, cells.adapt) if table is not None]
    adapt = None if cells.adapt is None else placing[-1]
    context = _Context(clusters, ensembles or {}, features, placing, bootstrap)
    adapted = {name: context.adapt(model, adapt) for name, model in predictors.items()}

    rows = [_skipped(case, "all", reason) for case, reason in cells.empty.items()]
    comparisons: list[Comparison] = []
    of_case: list[str] = []
    scored: list[tuple[Encoded, dict[str, np.ndarray]]] = []
    for case, table in cells.scored.items():
        enc = table.encode()
        predictions: dict[str, np.ndarray] = {}
        for name, model in (predictors if case.startswith("seen") else adapted).items():
            try:
                if isinstance(model, JuryError):
                    raise model
                log_probs, measured = context.measure(name, model, enc)
            except JuryError as error:
                rows.append(_skipped(case, name, str(error).splitlines()[0]))
                continue
            predictions[name] = log_probs
            rows += [_row(metric, case, name) for metric in measured]
        scored.append((enc, predictions))
        if base in predictions:
            comparisons += compare(predictions, enc, base, bootstrap=bootstrap)
            of_case += [case] * (len(comparisons) - len(of_case))
    corrected = holm([comparison.p_value for comparison in comparisons])
    comparisons = [replace(c, p_holm=float(p)) for c, p in zip(comparisons, corrected, strict=True)]
    rows += [comparison.row(case) for comparison, case in zip(comparisons, of_case, strict=True)]

    verdict = f"{in_words([c for c in comparisons if c.method == jury])}."
    leak = None
    both = [value for value in scored if base in value[1] and jury in value[1]]
    knows_train = predictors[base] if train is not None else adapted[base]
    if placing and both and not isinstance(knows_train, JuryError):
        enc, predictions = max(both, key=lambda value: len(value[0]))
        leak = format_leak(
            placing[0],
            enc,
            base=(knows_train.log_probs(placing[0], context.features_of(placing[0])), predictions[base]),
            jury=predictions[jury],
            memberships=context.both_memberships(placing[0], enc),
            bootstrap=bootstrap,
        )
        verdict = f"{verdict} {leak.verdict[0].upper()}{leak.verdict[1:]}."
    return JuryEvaluation([*rows, *_leak_rows(leak, jury)], comparisons, leak, verdict)


def known_memberships(clusters: Clusters, placing: Sequence[Encoded], enc: Encoded) -> np.ndarray:
    """Memberships of raters by labels that are not scored.

    Args:
        clusters: The clusters.
        placing: Tables of labels that are not scored.
        enc: The judgements to score.

    Returns:
        (R, K) memberships of `enc`'s raters; the mean of those known for a rater without such labels.
    """
    known: dict[str, np.ndarray] = {}
    for table in placing:
        known |= dict(zip(table.rater_ids, clusters.memberships(table), strict=True))
    mean = np.stack(list(known.values())).mean(0) if known else np.full(len(clusters.names), 1 / len(clusters.names))
    return np.stack([known.get(rater, mean) for rater in enc.rater_ids])


@dataclass(frozen=True)
class _Context:
    """What every case and model is measured with; `placing` are the labels that are not scored."""

    clusters: Clusters | None
    ensembles: Mapping[str, Ensemble]
    features: Callable[[Sequence[Text]], np.ndarray] | None
    placing: list[Encoded]
    bootstrap: Bootstrap

    def features_of(self, enc: Encoded) -> np.ndarray | None:
        """(U, D) features of a table's texts."""
        return None if self.features is None else self.features(enc.texts)

    def adapt(self, model: Predictor, adapt: Encoded | None) -> Predictor | JuryError:
        """The model with unseen raters adapted, or why it cannot adapt them."""
        if adapt is None:
            return Strangers(model)
        try:
            return model.adapt(adapt, self.features_of(adapt))
        except JuryError as error:
            return error

    def both_memberships(self, train: Encoded, test: Encoded) -> tuple[np.ndarray, np.ndarray] | None:
        """Memberships of the raters of two tables."""
        if self.clusters is None:
            return None
        of_train, of_test = (known_memberships(self.clusters, self.placing, enc) for enc in (train, test))
        return of_train, of_test

    def measure(self, name: str, model: Predictor, enc: Encoded) -> tuple[np.ndarray, list[Metric]]:
        """Predictions (N, A) of one model in one case, and all metrics."""
        how = self.bootstrap
        log_probs = model.log_probs(enc, self.features_of(enc))
        of_strangers = Strangers(model).log_probs(enc, self.features_of(enc))
        found = [
            metrics.nll(log_probs, enc, bootstrap=how),
            metrics.nll(log_probs, enc, over="raters", bootstrap=how),
            metrics.accuracy(log_probs, enc, bootstrap=how),
            metrics.accuracy(log_probs, enc, over="raters", bootstrap=how),
            metrics.brier(log_probs, enc, bootstrap=how),
            metrics.calibration_error(log_probs, enc, bootstrap=how),
            *metrics.worst_raters(log_probs, enc, bootstrap=how),
        ]
        if enc.kind == "preference":
            found += metrics.tie_calibration(log_probs, enc, bootstrap=how)
            shares = {"": population.answer_shares(np.exp(of_strangers), enc)[:, 0]}
            if name in self.ensembles:
                rewards, weights = self.ensembles[name]
                for kind in ("hard", "smooth"):
                    shares[f"_{kind}"] = metrics.preferring_share(rewards(enc), weights, enc, smooth=kind == "smooth")
            for suffix, share in shares.items():
                title = f"pairwise_calibration{suffix}"
                found.append(metrics.pairwise_calibration(share, enc, name=title, bootstrap=how))
        found.append(metrics.share_calibration(of_strangers, enc, bootstrap=how))
        found += population.answer_divergence(of_strangers, enc, bootstrap=how)
        found += population.agreement(of_strangers, enc, bootstrap=how)
        if self.clusters is not None:
            memberships = known_memberships(self.clusters, self.placing, enc)
            found += metrics.by_cluster(log_probs, enc, memberships, self.clusters.names, bootstrap=how)
            found += population.welfare_regret(log_probs, enc, memberships, self.clusters.weights, bootstrap=how)
        return log_probs, found


def _check_names(predictors: Mapping[str, Predictor], base: str, jury: str | None) -> str:
    """Name of the jury; refuses names that are not there."""
    for name in (base, jury or base):
        if name not in predictors:
            raise JuryError(
                f"{name!r} is not among the models ({', '.join(predictors) or 'none given'})."
                f"{did_you_mean(name, predictors)} Fix: add it to predictors, or name another one as base or jury"
            )
    return jury or next((name for name in predictors if name != base), base)


def _leak_rows(leak: FormatLeak | None, jury: str) -> list[dict[str, Any]]:
    if leak is None:
        return [_skipped("format", jury, "no labels to fit the format-only classifier to, or no base to compare with")]
    found = [("format_explained", leak.explained), ("format_explained_gain", leak.explained_gain)]
    return [_row(Metric(name, *ends, 1, "classifiers", "share", "context"), "format", jury) for name, ends in found]


def _row(metric: Metric, case: str, method: str) -> dict[str, Any]:
    """The metric as a row, with the reason if there is no number."""
    row = metric.row(case, method)
    if math.isfinite(metric.value):
        return row
    reasons = [reason for start, reason in _REASONS.items() if metric.name.startswith(start)]
    if "_worst_" in metric.name and math.isnan(metric.value):
        reasons = ["no rater has five judgements"]
    return row | {"value": None, "skipped": reasons[0] if reasons else "there is nothing to explain"}


def _skipped(case: str, method: str, reason: str) -> dict[str, Any]:
    return {
        "case": case,
        "method": method,
        "metric": "all",
        "value": None,
        "ci_low": None,
        "ci_high": None,
        "n": 0,
        "counted": "judgements",
        "unit": "",
        "direction": "context",
        "skipped": reason,
    }
