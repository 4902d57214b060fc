"""What a run found, as typed models: the recipe makes them, `results.json` stores them, the report reads them.

A stage of a run leaves one of `JuryResults`, `TrainingResults` and `EvaluationResults`; `RunResults` holds all of them
and is what `results.json` contains. Rules for files of other versions:

- `schema_version` counts changes that an older reader would misunderstand. A file without the number has version 1.
  A file with a higher number than `SCHEMA_VERSION` is refused.
- Unknown keys are kept, and written again. Keys that a run has not reached are absent.
- A number that could not be computed is null in the file and NaN in memory.

Units: distances, losses and gains are in nats; shares and probabilities lie between 0 and 1; times are in seconds.
Knows nothing of how anything was measured, drawn or printed.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import sys
from typing import Any, Self

from pydantic import Field, field_validator

import plural_rlhf
from plural_rlhf.report.names import SkippedPart
from plural_rlhf.report.results_base import ResultsError, ResultsFile, ResultsModel
from plural_rlhf.report.results_jury import JuryResults
from plural_rlhf.report.results_policies import Budget, EvaluationResults, LoggedStep, Skipped


__all__ = ["SCHEMA_VERSION", "DataSummary", "Meta", "ResultsError", "RunRecord", "RunResults"]

SCHEMA_VERSION = 1
"""Version of the layout that this code writes, and the highest one that it reads."""


_PACKAGES = ("torch", "transformers", "trl", "accelerate", "datasets", "peft", "numpy", "scipy", "pandas")


class DataSummary(ResultsModel):
    """Counts of the judgements, and how they were split.

    Example:
        >>> data = DataSummary(
        ...     source="answers.csv", kind="choice", n_judgements=432, n_raters=48, n_items=3, train_raters=34,
        ...     heldout_raters=14, train_questions=["parks", "roads"], heldout_questions=["bridges"],
        ... )
        >>> data.train_raters + data.heldout_raters, data.n_raters
        (48, 48)
    """

    source: str = Field(description="Name of the survey or release, or path of the table.")
    kind: str = Field(description="Kind of the judgements.")
    n_judgements: int = Field(description="Judgements in all.")
    n_raters: int = Field(description="Raters in all.")
    effective_raters: float | None = Field(
        default=None, description="Raters of equal weight of the same precision (Kish); null without sampling weights."
    )
    n_items: int = Field(description="Questions in all.")
    train_raters: int = Field(description="Raters that the jury was fitted to.")
    heldout_raters: int = Field(description="Raters that everything is measured against.")
    train_questions: list[str] = Field(description="Item ids of the questions used for training.")
    heldout_questions: list[str] = Field(description="Item ids of the questions used for the test only.")


class Meta(ResultsModel):
    """Where, when and with which versions a run was made.

    Example:
        >>> meta = Meta.of_this_process(0, "plural-rlhf run trial.yaml", "2026-01-01T12:00:00", {"jury": 2.5})
        >>> meta.seconds, meta.peak_memory_gb > 0
        ({'jury': 2.5}, True)
    """

    plural_rlhf_version: str = Field(description="Version of plural-rlhf.")
    versions: dict[str, str] = Field(description="Versions of Python and of the libraries, by name.")
    seed: int = Field(description="Random seed of the run.")
    command: str = Field(description="Command line; empty for a call from Python.")
    machine: dict[str, Any] = Field(description="Operating system, processor and number of cores.")
    started: str = Field(description="Time of the start, ISO 8601.")
    seconds: dict[str, float] = Field(description="Seconds per stage (`names.Stage`).")
    peak_memory_gb: float = Field(description="Largest resident memory of the process, GiB.")

    @classmethod
    def of_this_process(cls, seed: int, command: str, started: str, seconds: dict[str, float]) -> Self:
        """Record the versions, the machine, and the time and memory of this process so far.

        Args:
            seed: Random seed.
            command: The command line.
            started: Time of the start, ISO 8601.
            seconds: Seconds per stage.
        """
        # ru_maxrss is in KiB on Linux and in bytes on macOS.
        unit = 2**30 if sys.platform == "darwin" else 2**20
        return cls(
            plural_rlhf_version=plural_rlhf.__version__,
            versions={"python": platform.python_version(), **{p: importlib.metadata.version(p) for p in _PACKAGES}},
            seed=seed,
            command=command,
            machine={"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count()},
            started=started,
            seconds=seconds,
            peak_memory_gb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit,
        )


class RunRecord(ResultsModel):
    """What is needed to repeat a run: settings, data, versions.

    Example:
        >>> record = RunRecord(skipped=[Skipped(what="stock GRPO", reason="grpo.steps is 0")])
        >>> record.reason(SkippedPart.GRPO), record.reason(SkippedPart.STEERING)
        ('grpo.steps is 0', None)
    """

    schema_version: int = Field(default=1, ge=1, description="Version of the layout; 1 where a file has none.")
    scope: str = Field(default="run", description="`run`; `labels` for clusters alone, without a language model.")
    config: dict[str, Any] = Field(default={}, description="All settings of the run, as plain JSON.")
    data: DataSummary | None = Field(default=None, description="Counts of the judgements.")
    skipped: list[Skipped] = Field(default=[], description="What was left out, and why.")
    meta: Meta | None = Field(default=None, description="Versions, machine and times.")

    @field_validator("schema_version")
    @classmethod
    def _is_known(cls, version: int) -> int:
        if version > SCHEMA_VERSION:
            raise ValueError(
                f"is {version}, and this version of plural-rlhf reads up to {SCHEMA_VERSION}. Fix: update plural-rlhf"
            )
        return version

    @property
    def name(self) -> str:
        """Name of the run, `run` where the settings have none."""
        return str(self.config.get("name", "run"))

    def reason(self, part: SkippedPart) -> str | None:
        """Return why a part was left out, None if it was not."""
        return next((skipped.reason for skipped in self.skipped if skipped.what == part), None)


class RunResults(EvaluationResults, JuryResults, RunRecord, ResultsFile):
    """The results of a run: what `results.json` holds.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from plural_rlhf.report.results_policies import Row
        >>> row = Row(method="plural", split="heldout", cluster="all", metric="jsd_nats", value=0.02)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     RunResults(config={"name": "trial"}, rows=[row]).write(Path(folder) / "results.json")
        ...     results = RunResults.read(Path(folder) / "results.json")
        >>> results.name, results.rows[0].value, results.clusters
        ('trial', 0.02, [])
    """

    KIND = "a run"

    training: dict[str, list[LoggedStep]] = Field(default={}, description="Training curves by stage.")
    budgets: dict[str, Budget] = Field(default={}, description="What each training was given, by stage.")

    def to_dict(self) -> dict[str, Any]:
        """Return what `results.json` holds: plain JSON values, `schema_version` first."""
        return {"schema_version": self.schema_version, **super().to_dict()}
