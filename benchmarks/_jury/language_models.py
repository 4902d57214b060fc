"""Baselines of SmolLM2-135M-Instruct, untrained on judgements, as methods of `jury_quality`.

What the model says is kept under `.cache/answers`, so that a run that was stopped, or another split with the same
question, does not ask again. Knows nothing of data sets and metrics.
"""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING

from _jury.cases import ROOT, Unavailable


if TYPE_CHECKING:
    from collections.abc import Callable

    from _jury.methods import Training

    from reward_models.evaluation.language_models.continuations import LanguageModel
    from reward_models.raters.predictors import Predictor

__all__ = ["ASKED"]


@cache
def _model() -> LanguageModel:
    from plural_rlhf.policies.base_models import SMOLLM2, prepare_base_model
    from reward_models.evaluation.language_models.continuations import LanguageModel

    try:
        path = prepare_base_model(SMOLLM2, cache_dir=ROOT / ".cache" / "models")
    except FileNotFoundError as error:
        raise Unavailable(str(error)) from error
    return LanguageModel.from_pretrained(path, ROOT / ".cache" / "answers")


def _log_probability(training: Training, size: int, *, column: int) -> Predictor:
    """One reward, the log-probability of the response, with rater terms fitted around it."""
    import numpy as np

    from reward_models.evaluation.language_models.log_probability import response_log_probs
    from reward_models.evaluation.saved_jury import SavedJury, fit_rater_model

    texts = list(dict.fromkeys([*training.enc.texts, *(training.people or training.judgements).encode().texts]))
    rewards = response_log_probs(_model(), texts)[:, [column]]
    row = {text: i for i, text in enumerate(texts)}
    of_training = rewards[[row[text] for text in training.enc.texts]]
    model = fit_rater_model(training.enc, of_training, np.ones(1), seed=training.seed)
    return SavedJury.unadapted(model, texts, rewards).adapt(training.enc)


def _in_context(training: Training, size: int) -> Predictor:
    from reward_models.evaluation.language_models.in_context import fit_in_context

    return fit_in_context(training.enc, _model(), seed=training.seed)


ASKED: dict[str, Callable[[Training, int], Predictor]] = {
    "log-probability": partial(_log_probability, column=0),
    "log-probability-per-token": partial(_log_probability, column=1),
    "in-context": _in_context,
}
"""Methods that ask a language model about every judgement: minutes to hours, so only where they are named."""
