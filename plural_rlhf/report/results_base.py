"""What all models of `results.json` share: unknown keys are kept, a number that could not be computed is null.

Knows nothing of what a run measures; `results` says what the rules are for files of other versions.
"""

from __future__ import annotations

import json
import math
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError


__all__ = ["Number", "ResultsModel", "Shares", "faults"]


def _nan_for_none(value: Any) -> Any:
    return math.nan if value is None else value


def _as_list(values: Any) -> Any:
    values = values.tolist() if hasattr(values, "tolist") else values
    return [_nan_for_none(value) for value in values] if isinstance(values, list) else values


Number = Annotated[float, BeforeValidator(_nan_for_none)]
"""A float; null in JSON and NaN in memory where it could not be computed."""
Shares = Annotated[list[float], BeforeValidator(_as_list)]
"""One probability per offered answer, null in JSON and NaN in memory where unknown; numpy arrays are accepted."""


class ResultsModel(BaseModel):
    """A part of the results: read-only, and tolerant of keys that it does not know.

    Example:
        >>> class Length(ResultsModel):
        ...     metres: Number
        >>> length = Length.model_validate({"metres": None, "measured_by": "hand"})
        >>> length.metres, length.to_dict()
        (nan, {'metres': None, 'measured_by': 'hand'})
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values: the keys that were set, unknown ones included, with null for NaN."""
        values: dict[str, Any] = json.loads(self.model_dump_json(exclude_unset=True))
        return values

    def parts(self) -> dict[str, Any]:
        """Return the fields that were set, as they are: models stay models."""
        return {name: getattr(self, name) for name in self.model_fields_set}


def faults(error: ValidationError, most: int = 5) -> str:
    """List what a model refused: the key and the reason of each fault, at most so many.

    Example:
        >>> class Length(ResultsModel):
        ...     metres: Number
        >>> try:
        ...     Length.model_validate({"metres": "many"})
        ... except ValidationError as error:
        ...     faults(error)
        'metres: Input should be a valid number, unable to parse string as a number'
    """
    lines = [f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()]
    return "; ".join(lines[:most]) + (f" and {len(lines) - most} more" if len(lines) > most else "")
