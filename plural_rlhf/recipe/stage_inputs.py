"""What each stage of a run depends on: settings, data, the model, and the stages before it.

A stage is kept only where all of it is as it was, see `run_folder.folder.check_folder`. Knows nothing of how a stage
works.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plural_rlhf.policies.base_models import base_model_place
from plural_rlhf.recipe.config import RunConfig
from plural_rlhf.recipe.run_folder.fingerprints import (
    adapted_hash,
    all_files_hash,
    judgements_hash,
    large_files_hash,
    model_hash,
)
from plural_rlhf.recipe.run_folder.stage_record import StageInputs
from plural_rlhf.report.names import Stage
from plural_rlhf.settings.base import Section
from reward_models.content_hashes import file_hash, value_hash
from reward_models.replaced_files import folder_to_read


if TYPE_CHECKING:
    from plural_rlhf.recipe.data import RunData

__all__ = ["READ_BY_STAGE", "RunInputs", "default_settings", "settings_of", "settings_of_earlier_versions"]

EVERY_STAGE = ("seed", "data", "policy.model")
TEXTS = ("prompts", "policy.max_new_tokens")
"""What the stages of policies that write text read besides; of others it keeps its defaults."""
SHOWN = ("policy.layouts", "policy.shuffle_answers", "rehearsal")
"""What the stages of policies read besides where answers are offered."""
FORMERLY = {"policy.layouts": ["line"], "policy.shuffle_answers": False, "rehearsal.weight": 0.0}
"""What versions did that did not have a setting yet, where it is not today's default."""
READ_BY_STAGE: Mapping[Stage, tuple[tuple[str, ...], tuple[Stage, ...]]] = {
    Stage.JURY: ((*EVERY_STAGE, "jury"), ()),
    Stage.WARM: ((*EVERY_STAGE, *TEXTS, "policy.lora", "warmup", "sft"), (Stage.JURY,)),
    Stage.PLURAL: ((*EVERY_STAGE, *TEXTS, "plural", "juries"), (Stage.JURY, Stage.WARM)),
    Stage.GRPO: ((*EVERY_STAGE, *TEXTS, "grpo"), (Stage.JURY, Stage.WARM)),
    Stage.RLOO: ((*EVERY_STAGE, *TEXTS, "rloo"), (Stage.JURY, Stage.WARM)),
    Stage.EVALUATE: (
        (*EVERY_STAGE, *TEXTS, "juries", "evaluate", "grpo.steps", "rloo.steps", "best_of_n", "prompting"),
        (Stage.JURY, Stage.WARM, Stage.PLURAL, Stage.GRPO, Stage.RLOO),
    ),
}
"""Per stage the settings that it depends on (whole sections or keys), and the stages whose output it reads."""
MODELS_READ: Mapping[Stage, Mapping[str, str]] = {
    Stage.JURY: {"jury.backbone": "backbone of the jury", "jury.describe": "model that describes clusters"},
    Stage.EVALUATE: {
        "jury.backbone": "backbone of the jury",
        "evaluate.embedder": "embedder",
        "evaluate.heldout_backbone": "backbone of the held-out jury",
    },
}
"""Per stage the settings that name a model beside `policy.model`, with what it is called in messages."""


class RunInputs:
    """What the stages of a run read.

    Args:
        config: The run.

    Example:
        >>> settings = RunInputs(RunConfig()).of(Stage.GRPO).settings
        >>> "grpo.steps" in settings, "plural.steps" in settings
        (True, False)
    """

    def __init__(self, config: RunConfig) -> None:
        self._settings = settings_of(config)
        self._sources = {str(path): file_hash(path) for path in _files(config)}
        texts = {"prompts.path": config.prompts.path, "data.written": config.data.written}
        self._texts = {
            key: file_hash(path) for key, path in texts.items() if isinstance(path, Path) and path.is_file()
        }
        self._objectives = None
        if config.jury.objectives is not None:
            from plural_rlhf.recipe.scorers.objectives import objectives_hash

            self._objectives = objectives_hash(config.jury.objectives)
        path = config.jury.path
        self._jury = folder_to_read(path) if path is not None and path.is_dir() else None
        self._rivals = config.evaluate.rivals
        self._cache_dir, self._seed = config.policy.cache_dir, config.seed
        self._content: dict[str, str | None] = {}
        self._model: str | None = None
        self._shown: tuple[str, ...] = ()  # until the data are read, it is not known whether answers are offered

    def add_content(self, data: RunData, model: str) -> None:
        """Add what was read: until then the inputs of a stage are its settings only.

        Args:
            data: The judgements and their splits.
            model: The base model as `prepare_base_model` returns it.
        """
        self._model = model
        self._shown = () if data.writes_text else SHOWN
        split = [data.train.raters, data.heldout_raters.raters, data.heldout_items]
        self._content = {
            "judgements": judgements_hash(data.everything),
            "split of raters and items": value_hash(split),
        }
        if data.other_tables:
            self._content["further tables"] = value_hash([judgements_hash(table) for table in data.other_tables])

    def of(self, stage: Stage, outputs: Mapping[Stage, str] | None = None) -> StageInputs:
        """Return what one stage reads.

        Args:
            stage: The stage.
            outputs: Hash of the output of each stage that is complete.
        """
        sections, before = READ_BY_STAGE[stage]
        sections += () if stage == Stage.JURY else self._shown
        settings = {
            key: value
            for key, value in self._settings.items()
            if any(key == section or key.startswith(f"{section}.") for section in sections)
        }
        done = outputs or {}
        # A rival that earlier versions did not know is named only where it was trained.
        named = [earlier for earlier in before if earlier in done or earlier != Stage.RLOO]
        content = {f"output of the stage {earlier}": done.get(earlier) for earlier in named}
        if self._model is not None:
            content["base model"] = model_hash(self._model)  # not kept: a download may be going on
            # Beside it, because records of earlier versions know the quick hash only.
            content["weights of the base model"] = large_files_hash(self._model)
            content["model that the base model is an adapter of"] = adapted_hash(self._model)
            content |= self._models(stage)
        if stage != Stage.JURY:
            content |= self._texts
        elif self._objectives is not None:
            content["objectives"] = self._objectives
        elif self._jury is not None:
            content["saved jury"] = value_hash([model_hash(self._jury), large_files_hash(self._jury)])
        if stage == Stage.EVALUATE:
            content |= {f"rival {name}": model_hash(path) for name, path in self._rivals.items()}
            content |= {f"weights of the rival {name}": _rival_hash(path) for name, path in self._rivals.items()}
        return StageInputs(settings, {**content, **self._content}, self._sources)

    def _models(self, stage: Stage) -> dict[str, str | None]:
        """Hashes of the models that a stage reads beside the base model, by their name in words."""
        named = {words: self._settings[key] for key, words in MODELS_READ.get(stage, {}).items()}
        places = {
            words: base_model_place(name, self._cache_dir, seed=self._seed) for words, name in named.items() if name
        }
        return {words: all_files_hash(place) for words, place in places.items()}

    def of_every_stage(self) -> dict[str, StageInputs]:
        """Return what each stage reads, without the output of earlier stages."""
        return {stage.value: self.of(stage) for stage in Stage}


def default_settings() -> dict[str, Any]:
    """Return the default of every setting, by its key.

    Example:
        >>> default_settings()["plural.beta"]
        1.0
    """
    return settings_of(RunConfig())


def settings_of_earlier_versions() -> dict[str, Any]:
    """Return what a run did where its record does not name a setting, because its version did not have it.

    Example:
        >>> settings_of_earlier_versions()["policy.layouts"], default_settings()["policy.layouts"]
        (['line'], ['line', 'list', 'sentence'])
    """
    return {**default_settings(), **FORMERLY}


def settings_of(config: RunConfig) -> dict[str, Any]:
    """Return every setting of a run by its key.

    Example:
        >>> settings_of(RunConfig(seed=3))["seed"]
        3
    """
    return dict(_settings(config, config.model_dump(mode="json")))


def _settings(section: Section, values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting by its key; a setting that is a mapping itself, such as `juries`, is one value."""
    for name in type(section).model_fields:
        part = getattr(section, name)
        if isinstance(part, Section):
            yield from _settings(part, values[name], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", values[name]


def _rival_hash(policy: Path) -> str:
    """Hash of every file of a policy and of what its training left on the way; both go onto the base of this run."""
    from plural_rlhf.recipe.checkpoints import adapters_along

    return value_hash([all_files_hash(folder, base=False) for folder in (policy, *adapters_along(policy).values())])


def _files(config: RunConfig) -> list[Path]:
    """The files that the judgements are read from, where they are files."""
    tables = [(config.data.path, config.data.columns), *((t.path, t.columns) for t in config.data.tables)]
    paths = [path for table in tables for path in table if isinstance(path, Path)]
    paths += [path for path in (config.prompts.path, config.data.written) if isinstance(path, Path)]
    return [path for path in paths if path.is_file()]
