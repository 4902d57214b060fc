"""The models that `evaluate-jury` sets side by side: the jury, one reward for everybody, and answers without a reward.

All know of leniency, scale, ties and position what the jury knows, so that a comparison is about taste alone. Knows
nothing of metrics or files.

Shapes: `U` texts, `K` clusters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reward_models.evaluation.cells import Cells
from reward_models.evaluation.controls import FixedAnswers, Strangers
from reward_models.evaluation.language_models.continuations import LanguageModel
from reward_models.evaluation.language_models.in_context import fit_in_context
from reward_models.evaluation.language_models.log_probability import response_log_probs
from reward_models.evaluation.saved_jury import SavedJury, fit_rater_model
from reward_models.judgements.records import Judgements
from reward_models.judgements.texts import Text
from reward_models.jury.scorer import JuryScorer
from reward_models.raters.predictors import Predictor


__all__ = ["BASE_JURY", "ONE_REWARD", "measured_models"]

ONE_REWARD, BASE_JURY = "one reward, rater terms", "base jury"


def measured_models(
    scorer: JuryScorer,
    base: JuryScorer | None,
    texts: list[Text],
    rewards: np.ndarray,
    base_rewards: np.ndarray | None,
    cells: Cells,
    train: Judgements | None,
    baselines: Sequence[str] = (),
    lm: LanguageModel | None = None,
    seed: int = 0,
) -> tuple[SavedJury, dict[str, Predictor]]:
    """Return the jury, and by name all models that are measured; they adapt to raters of the training table.

    Args:
        scorer: The jury.
        base: A jury of one cluster to compare with, or None.
        texts: `U` texts of all tables.
        rewards: (U, K) rewards of the jury.
        base_rewards: (U, 1) rewards of the base; None without one.
        cells: The judgements by case.
        train: Judgements that the jury was fitted to; None if they are not known.
        baselines: `"in-context"`, `"log-probability"`: further models, of the language model.
        lm: That language model.
        seed: Random seed of the labels that the in-context baseline is calibrated by.
    """
    known = train if train is not None else cells.adapt
    assert known is not None  # the command raised for a table without labels to adapt by
    labels = known.encode()
    row = {text: i for i, text in enumerate(texts)}
    of_labels = [row[text] for text in labels.texts]

    def saved(
        values: np.ndarray, prevalence: np.ndarray, source: JuryScorer | None = None, rater_terms: bool = True
    ) -> SavedJury:
        stored = None if source is None else source.state.rater_model
        fits = stored is not None and stored.n_basis == values.shape[1] and labels.kind in stored.terms
        model = stored if fits else fit_rater_model(labels, values[of_labels], prevalence, rater_terms=rater_terms)
        assert model is not None
        variance = strangers = None
        if source is not None and fits:
            variance, strangers = source.reward_variance(texts), source.state.strangers
        jury = SavedJury.unadapted(model, texts, values, variance, strangers)
        return jury if train is None else jury.adapt(labels)

    one, mean = np.ones(1), rewards @ scorer.prevalence[:, None]
    jury = saved(rewards, scorer.prevalence, scorer)
    models: dict[str, Predictor] = {"jury": jury, "jury, raters unknown": Strangers(jury)}
    models["one reward"] = saved(mean, one, rater_terms=False)
    models[ONE_REWARD] = saved(mean, one, scorer)  # its rater model is used only if the jury itself is of one cluster
    if base is not None and base_rewards is not None:
        models[BASE_JURY] = saved(base_rewards, one, base)
    if lm is not None and "log-probability" in baselines:
        log_probs = response_log_probs(lm, texts)
        models["log-probability"] = saved(log_probs[:, :1], one)
        models["log-probability per token"] = saved(log_probs[:, 1:], one)
    if lm is not None and "in-context" in baselines:
        models["in-context"] = fit_in_context(labels, lm, seed=seed)
    return jury, models | {"marginal": FixedAnswers(labels), "uniform": FixedAnswers()}
