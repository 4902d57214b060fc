"""Measure several models of raters on the same judgements, case by case, and compare them with a base.

The cases are {seen, unseen rater} x {seen, unseen prompt}, where seen means: in the training judgements. Models adapt
to unseen raters by a part of their labels, and only the rest is scored. Works on any `raters.predictors.Predictor`;
knows nothing of files, language models or how a model was fitted. `reward_models.evaluate` is the command; `report`
writes the results.

Shapes: `N` judgements, `A` answers, `R` raters, `U` texts, `D` features, `K` clusters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from reward_models.errors import JuryError, did_you_mean, renamed_arguments
from reward_models.evaluation import calibration_metrics, metrics, population
from reward_models.evaluation.cells import evaluation_cells
from reward_models.evaluation.clusters import Clusters, known_memberships
from reward_models.evaluation.comparisons import Comparison, compare, holm, in_words
from reward_models.evaluation.controls import Strangers
from reward_models.evaluation.format_leak import FormatLeak, fixed_options, format_leak
from reward_models.evaluation.judgement_bootstrap import Bootstrap, Metric
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.records import Judgements
from reward_models.judgements.splits import By
from reward_models.judgements.texts import Text
from reward_models.progress import track
from reward_models.raters.predictors import Predictor


__all__ = ["JuryEvaluation", "evaluate_jury"]

Ensemble = tuple[Callable[[Encoded], np.ndarray], np.ndarray]
DRAWS = 200
# Why a metric has no value, by the beginning of its name.
_REASONS = {
    "nll": "infinite: an answer was given that the model rules out",
    "ece": "no judgement without a tie",
    "accuracy": "no judgement without a tie",
    "tie": "no rater judged two pairs",
    "pairwise": "no pair was judged by two raters",
    "share": "no item was judged by two raters",
    "agreement": "no item was judged by two raters",
    "contested": "predicted or observed agreement is the same for all items",
    "regret": "no prompt has two responses",
}


@dataclass(frozen=True)
class JuryEvaluation:
    """Result of `evaluate_jury`, which has an example.

    Attributes:
        rows: Flat rows: `case`, `method`, `metric`, `value`, `ci_low`, `ci_high`, `n`, `counted`, `unit`, `direction`;
            comparisons also have `p_value`, `p_holm` and `outcome`; what could not be measured has `skipped`, the
            reason.
        comparisons: Every model against the base, in every case; Holm's family is all of them.
        leak: How much length and format explain; None if that could not be measured, for the reason in the row
            `format`.
        verdict: In words.

    Example:
        >>> evaluation = JuryEvaluation(rows=[], comparisons=[], leak=None, verdict="nothing was compared.")
        >>> evaluation.verdict
        'nothing was compared.'
    """

    rows: list[dict[str, Any]]
    comparisons: list[Comparison]
    leak: FormatLeak | None
    verdict: str


@renamed_arguments(jury="model")
def evaluate_jury(
    predictors: Mapping[str, Predictor],
    test: Judgements,
    train: Judgements | None = None,
    *,
    base: str = "bt",
    rivals: Sequence[str] = (),
    model: str | None = None,
    adapt_share: float = 0.5,
    by: By = "prompt",
    clusters: Clusters | None = None,
    ensembles: Mapping[str, Ensemble] | None = None,
    features: Callable[[Sequence[Text]], np.ndarray] | None = None,
    seed: int = 0,
    bootstrap: Bootstrap | None = None,
) -> JuryEvaluation:
    """Measure models on the same judgements and compare them with a base.

    Seen raters are predicted as each model knows them; to unseen raters it adapts (`Predictor.adapt`) by labels that
    are not scored. Loss, accuracy, calibration of answers, worst raters and clusters, and welfare are measured on
    these predictions. Metrics of a population (pairwise and share calibration, divergence, agreement) are measured on
    predictions for raters whom the model does not know: does the model as a whole answer as people do?

    Args:
        predictors: Fitted models by name.
        test: Judgements that no model was fitted to.
        train: Judgements that the models were fitted to; see `evaluation_cells`, also for `adapt_share` and `by`.
        base: Name of the model that the others are compared with.
        rivals: Names of further models that the verdict compares `model` with, e.g. the frequencies of the answers.
        model: Name of the model that the verdict is about; the first one that is not the base if None.
        adapt_share: Share of an unseen rater's labels that models adapt by.
        by: `"prompt"` or `"item"`.
        clusters: Clusters for worst-cluster and welfare metrics; None to omit these.
        ensembles: By name of a model, a function from a table to the rewards (U, K) of its texts, and their weights
            (K,): for pairwise calibration of the rewards themselves, hard and smooth.
        features: Computes the (U, D) features of texts, for models on features.
        seed: Random seed of the choice of adaptation labels.
        bootstrap: Resampling of the intervals; 200 draws if None.

    Raises:
        JuryError: No model, or `base`, `model` or one of `rivals` is not among them.
        JudgementError: See `evaluation_cells`.

    Example:
        >>> from reward_models import fit_raters, planted_judgements, split_raters
        >>> train, test = split_raters(planted_judgements("rating", num_raters=40).judgements, 0.5, seed=0)
        >>> models = {"two clusters": fit_raters(train.encode()), "bt": fit_raters(train.encode(), num_clusters=1)}
        >>> evaluation = evaluate_jury(models, test, train, by="item", bootstrap=Bootstrap(draws=20))
        >>> print(evaluation.verdict.split(" (")[0])
        two clusters is better than bt
    """
    measured = _check_names(predictors, base, model, rivals)
    bootstrap = bootstrap or Bootstrap(draws=DRAWS, seed=seed)
    cells = evaluation_cells(test, train, adapt_share=adapt_share, by=by, seed=seed)
    unscored = [table.encode() for table in (train, cells.adapt) if table is not None]
    adapt = None if cells.adapt is None else unscored[-1]
    context = _Context(clusters, ensembles or {}, features, unscored, bootstrap)
    adapted = {name: context.adapt(predictor, adapt) for name, predictor in predictors.items()}

    rows = [_skipped(case, "all", reason) for case, reason in cells.empty.items()]
    comparisons: list[Comparison] = []
    case_of_comparison: list[str] = []
    scored: list[tuple[Encoded, dict[str, np.ndarray]]] = []
    for case, table in cells.scored.items():
        enc = table.encode()
        predictions: dict[str, np.ndarray] = {}
        models = predictors if case.startswith("seen") else adapted
        for name, predictor in track(models.items(), f"measuring the models: {case}", len(models)):
            try:
                if isinstance(predictor, JuryError):
                    raise predictor
                log_probs, values = context.measure(name, predictor, enc)
            except JuryError as error:
                rows.append(_skipped(case, name, str(error).splitlines()[0]))
                continue
            predictions[name] = log_probs
            rows += [_row(metric, case, name, enc.kind) for metric in values]
        scored.append((enc, predictions))
        if base in predictions:
            comparisons += compare(predictions, enc, base, level=bootstrap.level, seed=bootstrap.seed)
        for rival in rivals:
            if {rival, measured} <= predictions.keys() and rival != base:
                pair = {name: predictions[name] for name in (rival, measured)}
                comparisons += compare(pair, enc, rival, level=bootstrap.level, seed=bootstrap.seed)
        case_of_comparison += [case] * (len(comparisons) - len(case_of_comparison))
    corrected = holm([comparison.p_value for comparison in comparisons])
    comparisons = [replace(c, p_holm=float(p)) for c, p in zip(comparisons, corrected, strict=True)]
    rows += [comparison.row(case) for comparison, case in zip(comparisons, case_of_comparison, strict=True)]

    about = [c for c in comparisons if c.method == measured]
    against = [in_words([c for c in about if c.base == name]) for name in dict.fromkeys(c.base for c in about)]
    verdict = f"{'; '.join(against) or in_words([])}."
    knows_train = predictors[base] if train is not None else adapted[base]
    leak = context.leak(scored, base, measured, knows_train)
    if isinstance(leak, str):
        return JuryEvaluation([*rows, _skipped("format", measured, leak)], comparisons, None, verdict)
    verdict = f"{verdict} {leak.verdict[0].upper()}{leak.verdict[1:]}."
    return JuryEvaluation([*rows, *_leak_rows(leak, measured)], comparisons, leak, verdict)


@dataclass(frozen=True)
class _Context:
    """What every case and model is measured with; `unscored` are the tables of labels that are not scored."""

    clusters: Clusters | None
    ensembles: Mapping[str, Ensemble]
    features: Callable[[Sequence[Text]], np.ndarray] | None
    unscored: list[Encoded]
    bootstrap: Bootstrap

    def features_of(self, enc: Encoded) -> np.ndarray | None:
        """Compute (U, D) features of a table's texts."""
        return None if self.features is None else self.features(enc.texts)

    def adapt(self, model: Predictor, adapt: Encoded | None) -> Predictor | JuryError:
        """Adapt the model to unseen raters, or return why it cannot."""
        if adapt is None:
            return Strangers(model)
        try:
            return model.adapt(adapt, self.features_of(adapt))
        except JuryError as error:
            return error

    def measure(self, name: str, model: Predictor, enc: Encoded) -> tuple[np.ndarray, list[Metric]]:
        """Return the predictions (N, A) of one model in one case, and all metrics."""
        bootstrap = self.bootstrap
        log_probs = model.log_probs(enc, self.features_of(enc))
        for_strangers = Strangers(model).log_probs(enc, self.features_of(enc))
        values = [
            metrics.nll(log_probs, enc, level=bootstrap.level),
            metrics.nll(log_probs, enc, over="raters", level=bootstrap.level),
            metrics.accuracy(log_probs, enc, level=bootstrap.level),
            metrics.accuracy(log_probs, enc, over="raters", level=bootstrap.level),
            metrics.brier(log_probs, enc, level=bootstrap.level),
            calibration_metrics.calibration_error(log_probs, enc, bootstrap=bootstrap),
            *metrics.worst_raters(log_probs, enc, bootstrap=bootstrap),
        ]
        if enc.kind == "preference":
            values += calibration_metrics.tie_calibration(log_probs, enc, bootstrap=bootstrap)
            for suffix, share in self._preferring_shares(name, for_strangers, enc).items():
                title = f"pairwise_calibration{suffix}"
                values.append(calibration_metrics.pairwise_calibration(share, enc, name=title, bootstrap=bootstrap))
        values.append(calibration_metrics.share_calibration(for_strangers, enc, bootstrap=bootstrap))
        values += population.answer_divergence(for_strangers, enc, bootstrap=bootstrap)
        values += population.agreement(for_strangers, enc, bootstrap=bootstrap)
        if self.clusters is not None:
            memberships, weights = known_memberships(self.clusters, self.unscored, enc), self.clusters.weights
            values += metrics.by_cluster(log_probs, enc, memberships, self.clusters.names, bootstrap=bootstrap)
            values += population.welfare_regret(log_probs, enc, memberships, weights, bootstrap=bootstrap)
        return log_probs, values

    def _preferring_shares(self, name: str, for_strangers: np.ndarray, enc: Encoded) -> dict[str, np.ndarray]:
        """Predict (N,) the share that prefers a, by suffix of the metric."""
        shares = {"": population.answer_shares(np.exp(for_strangers), enc)[:, 0]}
        if name in self.ensembles:
            rewards, weights = self.ensembles[name]
            for kind in ("hard", "smooth"):
                shares[f"_{kind}"] = calibration_metrics.preferring_share(
                    rewards(enc), weights, enc, smooth=kind == "smooth"
                )
        return shares

    def leak(
        self,
        scored: Sequence[tuple[Encoded, Mapping[str, np.ndarray]]],
        base: str,
        model: str,
        knows_train: Predictor | JuryError,
    ) -> FormatLeak | str:
        """Ask how much length and format explain in the largest case that `base` and `model` both predict.

        Returns:
            The answer, or why the question cannot be asked.
        """
        both = [(enc, predictions) for enc, predictions in scored if base in predictions and model in predictions]
        if not self.unscored or not both or isinstance(knows_train, JuryError):
            return "no labels to fit the format-only classifier to, or no base to compare with"
        train = self.unscored[0]
        enc, predictions = max(both, key=lambda case: len(case[0]))
        if (reason := fixed_options(train, enc)) is not None:
            return reason
        memberships = None
        if self.clusters is not None:
            memberships = (
                known_memberships(self.clusters, self.unscored, train),
                known_memberships(self.clusters, self.unscored, enc),
            )
        return format_leak(
            train,
            enc,
            base=(knows_train.log_probs(train, self.features_of(train)), predictions[base]),
            model=predictions[model],
            memberships=memberships,
            bootstrap=self.bootstrap,
        )


def _check_names(predictors: Mapping[str, Predictor], base: str, model: str | None, rivals: Sequence[str]) -> str:
    """Return the name of the model that the verdict is about; raise if a name is not among the models."""
    for name in (base, model or base, *rivals):
        if name not in predictors:
            raise JuryError(
                f"{name!r} is not among the models ({', '.join(predictors) or 'none given'})."
                f"{did_you_mean(name, predictors)} Fix: add it to predictors, or name another one as base, rival or "
                "model"
            )
    return model or next((name for name in predictors if name != base), base)


def _leak_rows(leak: FormatLeak, model: str) -> list[dict[str, Any]]:
    shares = [("format_explained", leak.explained), ("format_explained_gain", leak.explained_gain)]
    return [_row(Metric(name, *ends, 1, "classifiers", "share", "context"), "format", model) for name, ends in shares]


def _row(metric: Metric, case: str, method: str, kind: str = "") -> dict[str, Any]:
    """Return the metric as a row, with the reason if it has no value."""
    row = metric.row(case, method)
    if math.isfinite(metric.value):
        return row
    reasons = [reason for start, reason in _REASONS.items() if metric.name.startswith(start)]
    ties = kind == "preference" and metric.name.startswith("accuracy")
    if metric.name.endswith("]") and math.isnan(metric.value):
        reasons = [f"no judgement{' without a tie' * ties} by a rater of this cluster"]
    elif metric.name.endswith("_percent") and math.isnan(metric.value):
        reasons = [f"no rater has five judgements{', one of them without a tie' * ties}"]
    return row | {"value": None, "skipped": reasons[0] if reasons else "there is nothing to explain"}


def _skipped(case: str, method: str, reason: str) -> dict[str, Any]:
    row = Metric("all", math.nan, math.nan, math.nan, 0, "judgements", "", "context").row(case, method)
    return row | {"value": None, "ci_low": None, "ci_high": None, "skipped": reason}
