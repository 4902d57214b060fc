"""The run file: one YAML, read strictly into `RunConfig`.

All faults of a file are reported at once, each with the value seen, the reason and the fix. The settings and their
limits are in `settings`; whether a question or a cluster exists is only known when the data is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from plural_rlhf.recipe.settings.data import DataSection
from plural_rlhf.recipe.settings.models import JurySection, PolicySection
from plural_rlhf.recipe.settings.sections import (
    CheckpointSection,
    EvaluateSection,
    PluralSection,
    RehearsalSection,
    WarmupSection,
)
from plural_rlhf.recipe.settings.stock import BestOfNSection, GrpoSection, PromptingSection, RlooSection
from plural_rlhf.recipe.settings.texts import PromptsSection, SftSection
from plural_rlhf.report.names import EVERYBODY, POPULATION
from plural_rlhf.settings.base import NamedRun, Seats, Seed
from plural_rlhf.settings.faults import ConfigError, read_yaml, validated
from reward_models.weights import WORDS


__all__ = ["ConfigError", "RunConfig", "load_config", "make_config"]

RESERVED = (EVERYBODY, POPULATION, *WORDS)
"""Names of weights that no jury of a run file may have."""


class RunConfig(NamedRun):
    """All settings of one run; every key has a default. `model_dump(mode="json")` is plain JSON.

    Example:
        >>> config = RunConfig(name="trial", jury={"clusters": 2})
        >>> config.output_dir.as_posix(), config.jury.clusters
        ('runs/trial', [2])
    """

    name: Annotated[str, Field(min_length=1)] = Field(default="quickstart", description="Name of the run.")
    seed: Seed = Field(default=0, description="Random seed, 0 to 4294967295.")
    output_dir: Path = Field(
        default=Path("runs/quickstart"), description="Folder for the results; runs/<name> if it is not given."
    )
    data: DataSection = Field(default=DataSection(), description="The judgements.")
    policy: PolicySection = Field(default=PolicySection(), description="The language model.")
    jury: JurySection = Field(
        default=JurySection(), description="The jury, a reward model with a score per rater cluster."
    )
    juries: dict[str, dict[str, Seats]] = Field(
        default={},
        description="Juries by name, each with seats by cluster, e.g. {council: {urban: 7, rural: 5}}. The policy is "
        "trained to answer as each jury, and the report has a panel for it.",
    )
    prompts: PromptsSection = Field(default=PromptsSection(), description="Prompts, where policies write text.")
    sft: SftSection = Field(
        default=SftSection(), description="Supervised training that gives pi_0, where policies write text."
    )
    warmup: WarmupSection = Field(default=WarmupSection(), description="Training of the answer format; gives pi_ref.")
    rehearsal: RehearsalSection = Field(
        default=RehearsalSection(), description="What keeps the policies as they are elsewhere."
    )
    plural: PluralSection = Field(default=PluralSection(), description="Distribution-preserving training.")
    grpo: GrpoSection = Field(default=GrpoSection(), description="Stock GRPO, for comparison.")
    rloo: RlooSection = Field(default=RlooSection(), description="Stock RLOO, where policies write text.")
    best_of_n: BestOfNSection = Field(default=BestOfNSection(), description="Best of n, where policies write text.")
    prompting: PromptingSection = Field(
        default=PromptingSection(), description="An instruction to pi_0, where policies write text."
    )
    evaluate: EvaluateSection = Field(
        default=EvaluateSection(), description="Intervals and welfare rules of the evaluation."
    )
    checkpoints: CheckpointSection = Field(
        default=CheckpointSection(), description="How often a training can be gone on from after a kill."
    )

    @field_validator("juries")
    @classmethod
    def _somebody_sits(cls, juries: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        for name, seats in juries.items():
            if name in RESERVED:
                raise ValueError(f"has a jury named {name!r}, which is a word for weights; give it another name")
            if not any(seats.values()):
                raise ValueError(f"has no seats on the jury {name!r}; give at least one cluster a seat")
        return juries

    @model_validator(mode="before")
    @classmethod
    def _objectives_need_no_judgements(cls, values: Any) -> Any:
        jury, data = (values.get(key) for key in ("jury", "data")) if isinstance(values, Mapping) else (None, None)
        if not isinstance(jury, Mapping) or jury.get("objectives") is None:
            return values
        if data is None or (isinstance(data, Mapping) and not {"source", "name", "path"} & set(data)):
            return {**values, "data": {**(data or {}), "source": "none"}}
        return values

    @model_validator(mode="after")
    def _something_scores(self) -> RunConfig:
        if self.data.source == "none" and self.jury.is_fitted:
            raise ValueError(
                "data.source is none, and a jury is fitted to judgements: name the judgements in `data`, a saved "
                "jury in jury.path, or objectives in jury.objectives"
            )
        if self.data.source != "none" and self.jury.objectives is not None:
            raise ValueError(
                f"jury.objectives is set, and such a run reads no judgements, but data.source is {self.data.source}: "
                "set data.source to none and name the prompts in prompts.path, or remove jury.objectives"
            )
        if self.data.source == "none" and self.prompts.path is None:
            raise ValueError(
                "prompts.path is missing: without judgements (data.source: none) the prompts come from a file; set it "
                "to a JSONL, CSV, Excel or Parquet file with a column `prompt`"
            )
        return self

    @model_validator(mode="after")
    def _clusters_fit_raters(self) -> RunConfig:
        raters, largest = self.data.max_raters, max(self.jury.clusters)
        if self.jury.is_fitted and raters is not None and largest > raters:
            raise ValueError(
                f"jury.clusters asks for {largest} clusters of the {raters} raters that data.max_raters keeps; "
                f"raise data.max_raters or lower jury.clusters"
            )
        return self


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run file.

    Args:
        path: YAML file with any of the keys of `RunConfig`.
        overrides: Settings that replace those of the file, each `section.key=value` with a YAML value.

    Returns:
        The validated configuration.

    Raises:
        ConfigError: The file is missing, is not a YAML mapping, or has unknown keys or invalid values. The message
            lists every fault.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "run.yaml"
        ...     _ = path.write_text("name: trial")
        ...     config = load_config(path, ["plural.steps=10", "jury.clusters=[2, 3]"])
        >>> config.name, config.plural.steps, config.jury.clusters
        ('trial', 10, [2, 3])
    """
    path = Path(path)
    return make_config(read_yaml(path), overrides, origin=str(path))


def make_config(values: dict[str, Any], overrides: Sequence[str] = (), *, origin: str) -> RunConfig:
    """Validate settings that do not come from a run file.

    Args:
        values: A mapping as a run file holds it; the overrides are written into it.
        overrides: As for `load_config`.
        origin: Where the values come from, for messages.

    Returns:
        The validated configuration.

    Raises:
        ConfigError: Unknown keys or invalid values; the message lists every fault.

    Example:
        >>> make_config({"plural": {"btea": 1}}, origin="notebook")
        Traceback (most recent call last):
        plural_rlhf.settings.faults.ConfigError: notebook: 1 fault
          - plural.btea: unknown key 'btea' in section `plural`. Did you mean 'beta'? ...
    """
    return validated(RunConfig, values, overrides, origin)
