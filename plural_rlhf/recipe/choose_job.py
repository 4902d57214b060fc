"""Choose what a run does after its jury, by its judgements, and refuse settings that such a run does not read.

Knows nothing of trainings and measures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from plural_rlhf.recipe.config import ConfigError, RunConfig
from plural_rlhf.recipe.job import Job
from plural_rlhf.recipe.settings.texts import SampledSection
from plural_rlhf.recipe.stage_inputs import default_settings, settings_of


if TYPE_CHECKING:
    from plural_rlhf.recipe.data import RunData

__all__ = ["job_of"]

ONLY_CHOICE = (
    "warmup",
    "rehearsal",
    "policy.layouts",
    "policy.shuffle_answers",
    "plural.divergence",
    "plural.reference_power",
    "plural.steps",
    "plural.learning_rate",
    "plural.prompts_per_step",
    "plural.validation_questions",
    "plural.evaluate_every",
    "evaluate.rules",
)
ONLY_TEXT = (
    "prompts",
    "sft",
    "rloo",
    "best_of_n",
    "prompting",
    "grpo.rule",
    "plural.mode",
    "plural.candidates",
    "plural.candidate_pool",
    "plural.sampled",
    "policy.max_new_tokens",
    "data.written",
    "data.written_columns",
    "evaluate.samples",
    "evaluate.reference_samples",
    "evaluate.rivals",
    "evaluate.along",
    "evaluate.along_samples",
    "evaluate.keep",
    "evaluate.raters",
    "evaluate.mixed_decoding",
    "evaluate.prompts",
    "evaluate.embedder",
    "evaluate.heldout_backbone",
)
_SAMPLING = tuple(
    f"plural.sampled.{name}"
    for name in SampledSection.model_fields
    if name not in ("steps", "learning_rate", "prompts_per_step", "num_generations")
)
_ONLY_CANDIDATES = ("plural.candidates", "plural.candidate_pool")
UNREAD_BY_MODE = {
    "rl": _ONLY_CANDIDATES,
    "rerank": ("plural.sampled", "evaluate.mixed_decoding"),
    "distil": _SAMPLING,
    "dpo": (*_SAMPLING, "plural.sampled.prompts_per_step", *_ONLY_CANDIDATES, "plural.rule", "plural.rho"),
}
"""Settings that a way of training policies that write does not read, by `plural.mode`."""
INSTEAD = {
    "warmup": "sft",
    "sft": "warmup",
    "plural.steps": "plural.sampled.steps",
    "plural.learning_rate": "plural.sampled.learning_rate",
    "plural.prompts_per_step": "plural.sampled.prompts_per_step",
    "plural.sampled": "plural",
}


def job_of(config: RunConfig, data: RunData, folder: Path) -> Job:
    """Return what a run does after its jury.

    Args:
        config: The run.
        data: Its judgements, which say of which kind it is.
        folder: Folder of the run.

    Raises:
        ConfigError: Settings that a run on such data does not read.
        JudgementError: Prompts or texts that cannot be used.
    """
    unread = list(_unread(config, ONLY_CHOICE if data.writes_text else ONLY_TEXT))
    if unread:
        kind = "which policies answer with text" if data.writes_text else "whose answers are offered"
        raise ConfigError(
            config.name,
            [
                f"{key} is set, but the judgements are about prompts {kind} (kind {data.everything.kind!r}), and such "
                f"a run does not read it. Fix: remove it{_instead(key)}"
                for key in unread
            ],
        )
    if data.writes_text:
        mode = config.plural.mode
        faults = [
            f"{key} is set, but plural.mode is {mode}, which does not read it. Fix: remove it"
            for key in _unread(config, UNREAD_BY_MODE[mode])
        ]
        if mode == "dpo" and data.pairs() is None:
            faults.append(
                "plural.mode is dpo, and the run has no pairs to learn from. Fix: name a table of pairs in `data` or "
                "data.tables, or set plural.mode to rl, rerank or distil"
            )
        if faults:
            raise ConfigError(config.name, faults)
        from plural_rlhf.recipe.open_ended.job import open_ended_job

        return open_ended_job(config, data, folder)
    from plural_rlhf.recipe.multiple_choice.job import multiple_choice_job

    return multiple_choice_job(config, data, folder)


def _unread(config: RunConfig, keys: Sequence[str]) -> Iterator[str]:
    usual = default_settings()
    for key, value in settings_of(config).items():
        if value != usual[key] and any(key == of or key.startswith(f"{of}.") for of in keys):
            yield key


def _instead(key: str) -> str:
    return next((f", or use {other}" for of, other in INSTEAD.items() if key == of or key.startswith(f"{of}.")), "")
