"""The stages of one run: each is done once, and read from the run's folder from then on.

Knows nothing of how a stage works, nor of how the folder keeps it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from plural_rlhf.recipe.interruption import Interruption
from plural_rlhf.recipe.run_folder.errors import RunFolderError
from plural_rlhf.recipe.run_folder.fingerprints import output_records
from plural_rlhf.recipe.run_folder.folder import RunFolder, copy_outputs
from plural_rlhf.recipe.run_folder.stage_record import StageRecord, damage
from plural_rlhf.recipe.stage_inputs import READ_BY_STAGE, RunInputs, settings_of_earlier_versions
from plural_rlhf.report.names import Stage
from plural_rlhf.report.results_base import faults
from plural_rlhf.report.results_jury import JuryResults
from plural_rlhf.report.results_policies import EvaluationResults, TrainingResults
from reward_models.borders import cell, lines_to
from reward_models.content_hashes import value_hash
from reward_models.evaluation.heldout import HELDOUT_FILE
from reward_models.progress import track
from reward_models.whole_file import write_json


if TYPE_CHECKING:
    from rich.console import Console

    from plural_rlhf.recipe.checkpoints import TrainingFolder
    from plural_rlhf.recipe.settings.sections import CheckpointSection

__all__ = ["Stages"]

StageResults = TypeVar("StageResults", JuryResults, TrainingResults, EvaluationResults)
JsonValue = TypeVar("JsonValue")

WRITTEN: dict[str, list[str]] = {
    Stage.JURY: [Stage.JURY, HELDOUT_FILE],
    **{stage: [stage] for stage in (Stage.WARM, Stage.PLURAL, Stage.GRPO, Stage.RLOO)},
    Stage.EVALUATE: [],
}
"""Files and folders that each stage leaves in the folder of the run."""


class Stages:
    """The stages of a run.

    Args:
        folder: Where they are kept.
        inputs: What each of them reads.
        interruption: Whether the run was asked to stop.
        checkpoints: How often a training is saved.
        console: Where to report progress.
        reuse: Folder of another run; a stage that it has done with the same inputs is copied from there.

    Attributes:
        seconds: How long each took, by name.
    """

    def __init__(
        self,
        folder: RunFolder,
        inputs: RunInputs,
        interruption: Interruption,
        checkpoints: CheckpointSection,
        console: Console,
        reuse: Path | None = None,
    ) -> None:
        self.folder, self.console = folder, console
        self._reuse = reuse
        self.seconds: dict[str, float] = {}
        self._inputs, self._interruption, self._checkpoints = inputs, interruption, checkpoints
        self._outputs: dict[Stage, str] = {}

    def complete(
        self, stage: Stage, results_type: type[StageResults], work: Callable[[], StageResults]
    ) -> StageResults:
        """Return what the stage left, after doing its work if it is not complete yet.

        What was just made is read back from the folder too, so that it cannot differ from what a later run finds.

        Raises:
            RunFolderError: The stage is complete, but something that it read or wrote has changed since.
        """
        self._interruption.check()
        path = self.folder.path
        record = self.folder.record(stage) or self._copied(stage)
        if record is None:
            start = time.perf_counter()
            results = work()
            seconds = time.perf_counter() - start
            if isinstance(results, TrainingResults):  # which may have gone on from a checkpoint
                seconds = max(seconds, results.budget.seconds)
            files = output_records(path, WRITTEN[stage])
            inputs = self._inputs.of(stage, self._outputs)
            record = self.folder.finish(stage, StageRecord(results.to_dict(), seconds, inputs, files))
        else:
            now = self._inputs.of(stage, self._outputs)
            self.folder.check_stage(stage, now, WRITTEN[stage])
            redone = [earlier for earlier in READ_BY_STAGE[stage][1] if earlier in self._outputs]
            if record.inputs is None and redone:
                reason = f"it is of an earlier version, and the stage {redone[0]} was done again since"
                raise RunFolderError(damage(path, stage, f"record of the stage {stage}", reason))
            unknown = "; it is of an earlier version, so whether its data have changed is unknown"
            note = unknown if record.inputs is None else record.inputs.unknown(now)
            self.console.print(cell(f"{stage}: found in {path}, kept (--overwrite starts over){note}", "dim"))
        if record.files:
            self._outputs[stage] = value_hash(record.files)
        self.seconds[stage] = record.seconds
        try:
            return results_type.model_validate(record.result)
        except ValidationError as error:
            raise RunFolderError(
                f"the record of the stage {stage} in {str(path)!r} cannot be read ({faults(error)}). Fix: --overwrite "
                "deletes that run and starts over."
            ) from error

    def _copied(self, stage: Stage) -> StageRecord | None:
        """Copy a stage from the run to reuse, where that has done it with the same inputs; else return None."""
        if self._reuse is None or not WRITTEN[stage]:
            return None
        other = RunFolder(self._reuse).record(stage)
        if other is None or other.inputs is None or other.files is None:
            return None
        now = self._inputs.of(stage, self._outputs)
        if any(other.inputs.changes(now, settings_of_earlier_versions())):
            return None
        other.check_files(self._reuse, stage)
        copy_outputs(self._reuse, self.folder.path, WRITTEN[stage], other.files)
        self.console.print(cell(f"{stage}: copied from {self._reuse}{other.inputs.unknown(now)}", "dim"))
        return self.folder.finish(stage, other)

    def part(self, stage: Stage, name: str, work: Callable[[], JsonValue]) -> JsonValue:
        """Return a part of a stage's work; one that a stopped run has done is read from its checkpoints.

        Args:
            stage: The stage.
            name: Name of the part.
            work: Does it; the result must be plain JSON.
        """
        return self.pieces(stage, name, [work])[0]

    def pieces(self, stage: Stage, name: str, works: Sequence[Callable[[], JsonValue]]) -> list[JsonValue]:
        """Return the results of a part of a stage's work that is done piece by piece, in their order.

        They are kept every `checkpoints.every_minutes`, when the run is stopped and at the end.

        Args:
            stage: The stage.
            name: Name of the part.
            works: Each does a piece; its result must be plain JSON, and may not depend on when it is done.
        """
        self._interruption.check()
        path = self.kept_in(stage) / f"{name}.json"
        done: list[JsonValue] = []
        with suppress(OSError, ValueError, KeyError, TypeError):  # none, or a damaged one, which is done again
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["sha256"] == value_hash([kept["pieces"], len(works)]):
                done = kept["pieces"]
        before, saved = len(done), time.monotonic()

        def keep() -> None:
            write_json(path, {"pieces": done, "sha256": value_hash([done, len(works)])}, exact=True, indent=None)

        try:
            for work in track(works[before:], f"{stage}: {name}"):
                done.append(work())
                if len(done) < len(works) and time.monotonic() - saved >= 60 * self._checkpoints.every_minutes:
                    keep()
                    saved = time.monotonic()
        finally:
            if len(done) > before:
                keep()
        return done

    def kept_in(self, stage: Stage) -> Path:
        """Return the folder for what a stage goes on from; it is deleted when the stage is complete."""
        return self.folder.begin(stage, self._inputs.of(stage, self._outputs), lines_to(self.console))

    def training(self, stage: Stage) -> TrainingFolder:
        """Return where a training stage saves its policy, and what it goes on from."""
        from plural_rlhf.recipe.checkpoints import TrainingFolder

        return TrainingFolder(
            self.folder.path / stage,
            self.kept_in(stage),
            self._checkpoints,
            self._interruption,
            lines_to(self.console),
            partial(self.pieces, stage),
        )
