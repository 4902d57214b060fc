"""Where the tasks of the Spectrum Suite find their files, and how much of them they use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from reward_models.seeds import seeded_rng


__all__ = ["SuiteData", "SuiteDataMissing"]

T = TypeVar("T")


class SuiteDataMissing(ValueError):
    """The data of a task is not there; the message says which and where it is to be had.

    Example:
        >>> raise SuiteDataMissing("there is no file data/netflix.csv. Fix: download it from ...")
        Traceback (most recent call last):
        plural_rlhf.methods.spectrum_suite.data.SuiteDataMissing: there is no file data/netflix.csv. Fix: ...
    """


@dataclass(frozen=True)
class SuiteData:
    """Where tasks find their files, and how much of them they use.

    Attributes:
        folder: Folder of data sets that come in no package.
        sequences: Most sequences per task, selected at random.
        examples: Most examples per sequence, selected at random.
        seed: Random seed of both, and of what is generated.

    Example:
        >>> SuiteData("nowhere").file("numbergame/answers.parquet")
        Traceback (most recent call last):
        plural_rlhf.methods.spectrum_suite.data.SuiteDataMissing: there is no file nowhere/numbergame/...
    """

    folder: str | Path = "data"
    sequences: int = 200
    examples: int = 32
    seed: int = 0

    def file(self, name: str) -> Path:
        """Return the path of a file or folder below the data folder, or raise `SuiteDataMissing`."""
        path = Path(self.folder) / name
        if not path.exists():
            raise SuiteDataMissing(
                f"there is no file {path.as_posix()}. Fix: get it as `plural-rlhf suite show` says, and name the "
                "folder that holds it with --data, or data.folder of a run."
            )
        return path

    def select(self, values: Sequence[T], most: int, purpose: str, *keys: int) -> list[T]:
        """Return at most so many of some values, at random and in their own order."""
        if len(values) <= most:
            return list(values)
        rng = seeded_rng(self.seed, f"Spectrum Suite: selection of {purpose}", *keys)
        return [values[place] for place in np.sort(rng.permutation(len(values))[:most])]
