"""What all models of `results.json` share: unknown keys are kept, a number that could not be computed is null.

Knows nothing of what a run measures; `results` says what the rules are for files of other versions.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from reward_models.stats.verdicts import Outcome
from reward_models.whole_file import write_json


__all__ = ["Number", "ResultsError", "ResultsFile", "ResultsModel", "Shares", "faults", "loss_outcome"]


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


class ResultsError(ValueError):
    """A file of results that cannot be read.

    Example:
        >>> import tempfile
        >>> class Lengths(ResultsFile):
        ...     KIND = "a tape"
        ...     metres: Number
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "results.json"
        ...     _ = path.write_text('{"metres": "many"}')
        ...     try:
        ...         Lengths.read(path)
        ...     except ResultsError as error:
        ...         "holds no results of a tape: metres: " in str(error)
        True
    """


class ResultsFile(ResultsModel):
    """Results that are a file of their own, `results.json`.

    Attributes:
        KIND: What they are the results of, for messages.

    Example:
        >>> import tempfile
        >>> class Lengths(ResultsFile):
        ...     KIND = "a tape"
        ...     metres: Number
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Lengths(metres=2.0).write(Path(folder) / "results.json")
        ...     Lengths.read(Path(folder) / "results.json").metres
        2.0
    """

    KIND: ClassVar[str]

    def write(self, path: str | Path) -> None:
        """Write `results.json`; a reader never finds half a file."""
        write_json(path, self.to_dict())

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read `results.json`, also one of an earlier version.

        Raises:
            FileNotFoundError: There is no such file.
            ResultsError: The file is not JSON, lacks a key, or is of a later version; the message names every fault.
        """
        try:
            return cls.model_validate_json(Path(path).read_bytes())
        except ValidationError as error:
            raise ResultsError(f"{path} holds no results of {cls.KIND}: {faults(error)}") from error


def loss_outcome(ci_low: float | None, ci_high: float | None) -> Outcome:
    """Decide a difference of losses by its interval: better below 0, worse above, else undecided.

    Example:
        >>> loss_outcome(-0.3, -0.1), loss_outcome(-0.1, 0.0), loss_outcome(None, None)
        ('better', 'undecided', 'undecided')
    """
    if ci_high is not None and ci_high < 0:
        return "better"
    return "worse" if ci_low is not None and ci_low > 0 else "undecided"


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
