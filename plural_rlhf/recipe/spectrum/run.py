"""A run of Spectrum Tuning from top to bottom: sequences, the untouched model, training, the tuned model, the page.

Each task of each model is kept when it is measured, and training goes on from its last checkpoint, so that a run that
was stopped loses minutes. Knows no command.
"""

from __future__ import annotations

import datetime
import itertools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from plural_rlhf.methods.spectrum import (
    SequenceDraws,
    SpectrumDataset,
    SpectrumSequence,
    SpectrumTemplate,
    copy_special_rows,
    encode_sequence,
    template_for,
)
from plural_rlhf.policies.base_models import base_model_place, prepare_base_model
from plural_rlhf.recipe.interruption import Interruption
from plural_rlhf.recipe.run_folder.fingerprints import all_files_hash
from plural_rlhf.recipe.run_folder.folder import TUNED, TUNED_BASE, RunFolder, open_run_folder
from plural_rlhf.recipe.run_folder.stage_record import StageInputs, StageRecord
from plural_rlhf.recipe.sequence_tuning import SequenceTuning
from plural_rlhf.recipe.spectrum.config import SpectrumRun
from plural_rlhf.recipe.spectrum.measure import SequenceMeasures, compare_task, measure_task
from plural_rlhf.recipe.spectrum.sequences import RunSequences, load_run_sequences
from plural_rlhf.recipe.trainings import with_new_adapter
from plural_rlhf.report.results import Meta
from plural_rlhf.report.spectrum.page import write_spectrum_report
from plural_rlhf.report.spectrum.results import SpectrumResults, SpectrumTaskRecord
from reward_models.content_hashes import folder_records
from reward_models.inference import default_device
from reward_models.seeds import derived_seed
from reward_models.whole_file import whole_folder


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["run_spectrum"]

logger = logging.getLogger(__name__)

TRAIN = "train"


@dataclass(frozen=True)
class _Run:
    """What all stages of a run share."""

    config: SpectrumRun
    sequences: RunSequences
    base: str
    tokenizer: PreTrainedTokenizerBase
    template: SpectrumTemplate
    show: Callable[[str], object]

    def inputs(self, *sections: str, content: object) -> StageInputs:
        """Return what a stage reads: some sections of the run file, the sequences, and models."""
        model = self.config.model
        models = {"base model": all_files_hash(self.base)}
        if model.sibling is not None:
            place = base_model_place(model.sibling, model.cache_dir, seed=self.config.seed)
            models["sibling of the base model"] = all_files_hash(place)
        return StageInputs.of_sections(self.config, sections, {"sequences": content}, models)


def run_spectrum(
    config: SpectrumRun, *, overwrite: bool = False, command: str = "", show: Callable[[str], object] = print
) -> SpectrumResults:
    """Tune a model on sequences and measure it on held-out tasks beside the untouched model.

    Args:
        config: The settings.
        overwrite: Delete what an earlier run left in the output folder.
        command: Command line, for the record.
        show: Called with a sentence about what is done.

    Returns:
        The results, as `results.json` in the output folder holds them; the tuned adapter or model is in `tuned`. With
        a sibling the adapter's base model, with the rows of the sibling, is in `base`, and the adapter names it.

    Raises:
        ConfigError: A task is unknown or empty, or nothing is left to train on.
        RunFolderError: The output folder holds another run.
        RunInterrupted: The run was stopped; the same call goes on.

    Example:
        >>> import tempfile
        >>> settings = {"model": {"base": "tiny"}, "data": {"tasks": ["coin"], "heldout": ["wheel"], "sequences": 4}}
        >>> settings["data"] |= {"heldout_sequences": 5, "examples": 4}
        >>> settings |= {"train": {"steps": 1}, "evaluate": {"positions": [0, 2], "formats": ["auto"], "draws": 50}}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     settings["model"]["cache_dir"] = f"{folder}/models"
        ...     results = run_spectrum(SpectrumRun(**settings, output_dir=f"{folder}/run"), show=lambda text: None)
        >>> [number.metric for number in results.numbers]
        ['js_0', 'js_geq_1', 'choice_0', 'choice_geq_1', 'loss_geq_1']
    """
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    path = prepare_base_model(config.model.base, config.model.cache_dir, seed=config.seed)
    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    template = template_for(tokenizer, config.model.template)  # what cannot be put into words is said at once
    run = _Run(config, load_run_sequences(config.data, config.seed), path, tokenizer, template, show)
    if run.sequences.dropped:
        show(f"not trained on, because a held-out task has their source: {', '.join(run.sequences.dropped)}")
    flat = [sequence for of_task in run.sequences.train.values() for sequence in of_task]
    too_long = _too_long(run, flat)  # raises if nothing can be learnt
    train_inputs = run.inputs("model", "train", content=[sequence.to_dict() for sequence in flat])
    interruption = Interruption(show)
    values = config.model_dump(mode="json")
    opened = open_run_folder(config.output_dir, values, {TRAIN: train_inputs}, overwrite=overwrite)
    with opened as folder, interruption.handled():
        path = _with_sibling_rows(run, folder, path)
        untouched = _untouched(run, folder, path)
        training = _train(run, folder, path, flat, train_inputs, interruption)
        tuned = _tuned(run, folder, path)
        results = SpectrumResults(
            name=config.name,
            tasks=_records(run, too_long),
            same_source=run.sequences.dropped,
            training_loss=training.result["loss"],
            config=values,
            meta=Meta.of_this_process(config.seed, command, started, {TRAIN: training.seconds}),
            **_compared(run, tuned, untouched),
        )
        results.write(folder.path / "results.json")
        write_spectrum_report(results, folder.path)
    return results


def _too_long(run: _Run, training: Sequence[SpectrumSequence]) -> dict[str, int]:
    """Count the examples of each task that do not fit into a sequence, and say so.

    Of training tasks as the first epoch draws them, of held-out tasks as they are measured.
    """
    section = run.config.train
    draws = SequenceDraws(
        mean_examples=section.mean_examples, description_share=section.description_share, seed=run.config.seed
    )
    data = SpectrumDataset(training, run.tokenizer, run.template, max_length=section.max_length, draws=draws)
    not_shown = iter(data.not_shown())
    counts = {
        name: sum(itertools.islice(not_shown, len(sequences))) for name, sequences in run.sequences.train.items()
    }
    for name, sequences in run.sequences.heldout.items():
        tokens = (encode_sequence(s, run.template, run.tokenizer, section.max_length) for s in sequences)
        counts[name] = sum(of_sequence.dropped for of_sequence in tokens)
    if any(counts.values()):
        told = ", ".join(f"{count:,} of {name}" for name, count in counts.items() if count)
        run.show(
            f"dropped, because they do not fit into train.max_length={section.max_length} tokens: examples {told}. "
            "None is cut."
        )
    return counts


def _load(run: _Run, path: str) -> PreTrainedModel:
    """Load the untouched model."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=run.config.model.dtype, trust_remote_code=False)
    return model.to(default_device())


def _with_sibling_rows(run: _Run, folder: RunFolder, path: str) -> str:
    """Save the untouched model with the chat tokens of its sibling, if one is named; return where it lies.

    An adapter does not hold these rows: it goes with the model that has them, and with no other.
    """
    section = run.config.model
    if section.sibling is None:
        return path
    target = folder.path.resolve() / TUNED_BASE
    if not target.is_dir():
        sibling = prepare_base_model(section.sibling, section.cache_dir, seed=run.config.seed)
        model, other = (
            AutoModelForCausalLM.from_pretrained(source, dtype=section.dtype, trust_remote_code=False)
            for source in (path, sibling)
        )
        copy_special_rows(model, other, run.tokenizer, run.template.special)
        with whole_folder(target) as unfinished:
            model.save_pretrained(unfinished)
            run.tokenizer.save_pretrained(unfinished)
    return str(target)


def _untouched(run: _Run, folder: RunFolder, path: str) -> dict[str, dict[str, SequenceMeasures]]:
    """Measure the untouched model on every held-out task in every format; by task and format."""
    templates = {
        name: run.template if name == "auto" else template_for(run.tokenizer, name)
        for name in run.config.evaluate.formats
    }
    found: dict[str, dict[str, SequenceMeasures]] = {task: {} for task in run.sequences.heldout}
    measure = _Measurer(run, folder, lambda: _load(run, path))
    for name, template in templates.items():
        for task in run.sequences.heldout:
            found[task][name] = measure(f"untouched-{name}", task, template, {})
    return found


def _tuned(run: _Run, folder: RunFolder, path: str) -> dict[str, SequenceMeasures]:
    """Measure the tuned model on every held-out task."""

    def load() -> PreTrainedModel | PeftModel:
        if run.config.model.lora is None:
            saved = AutoModelForCausalLM.from_pretrained(
                folder.path / TUNED, dtype=run.config.model.dtype, trust_remote_code=False
            )
            return saved.to(default_device())
        return PeftModel.from_pretrained(_load(run, path), folder.path / TUNED)

    measure = _Measurer(run, folder, load)
    weights = {name: record["sha256"] for name, record in folder_records(folder.path / TUNED).items()}
    return {task: measure("tuned", task, run.template, weights) for task in run.sequences.heldout}


class _Measurer:
    """Measures a model on one task after another; what is kept is not measured again, nor the model loaded for it."""

    def __init__(self, run: _Run, folder: RunFolder, load: Callable[[], Any]) -> None:
        self._run, self._folder, self._load = run, folder, load
        self._model: Any = None

    def __call__(
        self, label: str, task: str, template: SpectrumTemplate, weights: Mapping[str, str]
    ) -> SequenceMeasures:
        run, stage = self._run, f"{label}-{task}"
        sequences = run.sequences.heldout[task]
        section = run.config.evaluate
        content = [[sequence.to_dict() for sequence in sequences], run.config.train.max_length, section.positions]
        inputs = run.inputs("model", content=[content, weights])
        record = self._folder.record(stage)
        if record is None or record.inputs != inputs:
            self._model = self._model or self._load()
            run.show(f"measuring {label.replace('-', ', ')} on {task} ({len(sequences)} sequences)")
            begun = time.perf_counter()
            measures = measure_task(
                self._model,
                run.tokenizer,
                sequences,
                template,
                positions=section.positions,
                max_length=run.config.train.max_length,
            )
            record = self._folder.finish(stage, StageRecord(measures.to_dict(), time.perf_counter() - begun, inputs))
        return SequenceMeasures.from_dict(record.result)


def _train(
    run: _Run,
    folder: RunFolder,
    path: str,
    sequences: Sequence[SpectrumSequence],
    inputs: StageInputs,
    interruption: Interruption,
) -> StageRecord:
    """Train and save, or take what is there."""
    section, lora = run.config.train, run.config.model.lora

    def load() -> PreTrainedModel | PeftModel:
        model = _load(run, path)
        return model if lora is None else with_new_adapter(model, lora)

    settings = {
        "per_device_train_batch_size": section.sequences_per_step,
        "max_length": section.max_length,
        "mean_examples": section.mean_examples,
        "description_share": section.description_share,
        "template": run.config.model.template,
    }
    first_weights = derived_seed(run.config.seed, "first weights of the adapter of Spectrum Tuning")
    tuning = SequenceTuning(TRAIN, TUNED, load, first_weights, section, settings, "Spectrum Tuning")
    return tuning.run(run.config, folder, run.tokenizer, sequences, inputs, interruption, show=run.show)


def _records(run: _Run, too_long: Mapping[str, int]) -> list[SpectrumTaskRecord]:
    return [
        SpectrumTaskRecord(
            task=name,
            heldout=heldout,
            sequences=len(sequences),
            examples=sum(len(sequence.examples) for sequence in sequences),
            too_long=too_long[name],
        )
        for heldout, of_split in ((False, run.sequences.train), (True, run.sequences.heldout))
        for name, sequences in of_split.items()
    ]


def _compared(
    run: _Run,
    tuned: Mapping[str, SequenceMeasures],
    untouched: Mapping[str, Mapping[str, SequenceMeasures]],
) -> dict[str, list[Any]]:
    numbers, curves = [], []
    for task, sequences in run.sequences.heldout.items():
        of_task = compare_task(
            task, sequences, tuned[task], untouched[task], draws=run.config.evaluate.draws, seed=run.config.seed
        )
        numbers += of_task[0]
        curves += of_task[1]
    return {"numbers": numbers, "curves": curves}
