"""The kinds of values that settings have, and the section that is strict about its keys. Knows no setting."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator


__all__ = [
    "AnyNumber",
    "AtLeastOne",
    "AtLeastTwo",
    "Count",
    "NamedRun",
    "OpenUnit",
    "Positive",
    "RuleText",
    "Seats",
    "Section",
    "Seed",
    "Share",
    "not_a_switch",
    "one_or_more",
]


def not_a_switch(value: object) -> object:
    """Raise for a boolean: YAML 1.1 reads yes/no/on/off as booleans, and pydantic reads those as 1 and 0.

    Example:
        >>> not_a_switch(3)
        3
    """
    if isinstance(value, bool):
        raise ValueError("is a yes/no value where a number is needed")
    return value


def one_or_more(value: object) -> object:
    """Read one number as a list of it.

    Example:
        >>> one_or_more(2)
        [2]
    """
    return [value] if isinstance(value, int) and not isinstance(value, bool) else value


def _not_nan(value: float) -> float:
    if math.isnan(value):
        raise ValueError("is not a number")
    return value


Count = Annotated[int, Field(ge=0), BeforeValidator(not_a_switch)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1), BeforeValidator(not_a_switch)]  # as far as numpy.random.seed goes
AtLeastOne = Annotated[int, Field(ge=1), BeforeValidator(not_a_switch)]
AtLeastTwo = Annotated[int, Field(ge=2), BeforeValidator(not_a_switch)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(not_a_switch)]
OpenUnit = Annotated[float, Field(gt=0, lt=1), BeforeValidator(not_a_switch)]
Share = Annotated[float, Field(ge=0, le=1), BeforeValidator(not_a_switch)]
RuleText = str | dict[str, Any]
"""A welfare rule as `plural_rlhf.core.rules.Rule.parse` reads it; the recipe checks its name and options."""
Seats = Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(not_a_switch)]
AnyNumber = Annotated[float, BeforeValidator(not_a_switch), AfterValidator(_not_nan)]


class Section(BaseModel):
    """A part of the run file: read-only, and strict about unknown keys.

    Example:
        >>> from pydantic import ValidationError
        >>> class Trial(Section):
        ...     steps: int = 1
        >>> try:
        ...     Trial(stesp=3)
        ... except ValidationError as error:
        ...     error.errors()[0]["type"]
        'extra_forbidden'
    """

    model_config = ConfigDict(extra="forbid", frozen=True)


class NamedRun(Section):
    """A run file, whose results go to `runs/<name>` where `output_dir` is not given.

    Example:
        >>> from pathlib import Path
        >>> class Trial(NamedRun):
        ...     name: str = "trial"
        ...     output_dir: Path = Path("runs/trial")
        >>> Trial(name="second").output_dir.as_posix()
        'runs/second'
    """

    @model_validator(mode="before")
    @classmethod
    def _folder_of_name(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("output_dir") is None and isinstance(values.get("name"), str):
            return {**values, "output_dir": f"runs/{values['name']}"}
        return values
