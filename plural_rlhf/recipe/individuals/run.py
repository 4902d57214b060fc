"""A run that steers to individuals, from top to bottom: people, two tunings, predictions of other people, the page.

Each tuning goes on from its last checkpoint, and each batch of predictions is kept, so that a run that was stopped
loses minutes. Knows no command.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from plural_rlhf.evaluation.in_context.sequences import PersonSequence, judgement_sequences
from plural_rlhf.methods.individuals import (
    PeopleSplit,
    Predictor,
    ReadingComparison,
    Targets,
    check_lengths,
    compare_readers,
    individual_shares,
    most_recent,
    most_similar,
    person_to_spectrum,
    with_traits,
)
from plural_rlhf.methods.individuals.demonstrations import Chooser
from plural_rlhf.methods.spectrum import (
    SpectrumDataset,
    SpectrumSequence,
    SpectrumTemplate,
    template_for,
)
from plural_rlhf.policies.base_models import prepare_base_model
from plural_rlhf.policies.base_weights import BaseWeights
from plural_rlhf.recipe.individuals.config import IndividualsRun, PeopleTable
from plural_rlhf.recipe.inputs import read_judgements
from plural_rlhf.recipe.interruption import Interruption
from plural_rlhf.recipe.run_folder.fingerprints import all_files_hash
from plural_rlhf.recipe.run_folder.folder import META, TUNED, RunFolder, open_run_folder
from plural_rlhf.recipe.run_folder.stage_record import StageInputs, StageRecord
from plural_rlhf.recipe.sequence_tuning import SequenceTuning
from plural_rlhf.recipe.trainings import with_new_adapter
from plural_rlhf.report.individuals.page import write_individuals_report
from plural_rlhf.report.individuals.results import IndividualsResults, ReadingGain, ReadingLoss
from plural_rlhf.report.results import Meta
from plural_rlhf.settings.faults import ConfigError
from reward_models.content_hashes import value_hash
from reward_models.inference import default_device
from reward_models.seeds import derived_seed


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["read_people", "run_individuals"]

MODEL, UNTOUCHED = "model", "untouched model"


@dataclass(frozen=True)
class _Run:
    """What all stages of a run share."""

    config: IndividualsRun
    split: PeopleSplit
    meta: list[PersonSequence]
    base: str
    tokenizer: PreTrainedTokenizerBase
    template: SpectrumTemplate
    show: Callable[[str], object]

    def inputs(self, *sections: str, content: object) -> StageInputs:
        """Return what a stage reads: some sections of the run file, people or weights, and models.

        The embedder is not among them: by which judgements it chose, predictions are told apart.
        """
        models = {"base model": all_files_hash(self.base)}
        if (adapter := self.config.model.adapter) is not None:
            models["adapter to start from"] = all_files_hash(adapter, base=False)
        return StageInputs.of_sections(self.config, sections, {"people": content}, models)

    def load(self, adapter: Path | None, *, trainable: bool = False) -> PreTrainedModel | PeftModel:
        """Load the base model, with an adapter if there is one."""
        model = AutoModelForCausalLM.from_pretrained(self.base, dtype="float32", trust_remote_code=False)
        if adapter is not None:
            try:
                if fault := BaseWeights(model).fault(adapter):
                    raise ValueError(fault)
                model = PeftModel.from_pretrained(model, adapter, is_trainable=trainable)
            except (RuntimeError, ValueError) as error:
                raise ConfigError(
                    "model",
                    [f"adapter = {str(adapter)!r}: it does not go with the base model {self.config.model.base!r} "
                     f"({str(error).splitlines()[0]}). Fix: name the base that it was trained on"],
                ) from None  # fmt: skip
        return model.to(default_device())


def run_individuals(
    config: IndividualsRun, *, overwrite: bool = False, command: str = "", show: Callable[[str], object] = print
) -> IndividualsResults:
    """Tune a model to read people, and compare what it predicts of other people with baselines and a jury.

    Args:
        config: The settings.
        overwrite: Delete what an earlier run left in the output folder.
        command: Command line, for the record.
        show: Called with a sentence about what is done.

    Returns:
        The results, as `results.json` in the output folder holds them; the adapter is in `tuned`.

    Raises:
        ConfigError: A table cannot be read person by person, or a question does not fit into the model.
        JudgementError: A table is not usable, or there are too few people.
        RunFolderError: The output folder holds another run.
        RunInterrupted: The run was stopped; the same call goes on.

    Example:
        >>> import tempfile
        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("choice", num_raters=40, num_items=5, strength=4.0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     planted.judgements.frame.to_json(f"{folder}/answers.jsonl", orient="records", lines=True)
        ...     model = {"base": "tiny", "cache_dir": f"{folder}/models", "lora": {"target_modules": ["q_proj"]}}
        ...     people = {"source": "table", "path": f"{folder}/answers.jsonl", "columns": {"index": 0}}
        ...     settings = {"model": model, "people": people, "train": {"steps": 1}, "output_dir": f"{folder}/run"}
        ...     settings["evaluate"] = {"read": [0, 4], "clusters": [2]}
        ...     results = run_individuals(IndividualsRun(**settings), show=lambda text: None)
        >>> results.people
        {'meta': 0, 'train': 20, 'tune': 8, 'test': 12}
    """
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    base = prepare_base_model(config.model.base, config.model.cache_dir, seed=config.seed)
    tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    template = template_for(tokenizer, config.model.template)
    people = read_people(config.people, config.seed, show, traits=config.people.traits)
    split = PeopleSplit.of(people, tune=config.people.tune, test=config.people.test, seed=config.seed)
    meta = [person for table in config.meta for person in read_people(table, config.seed, show)]
    run = _Run(config, split, meta, base, tokenizer, template, show)
    _check(run)
    inputs = {META: run.inputs("model", "train", content=[_content(meta), config.train.meta_steps])}
    inputs[TUNED] = run.inputs("model", "train", content=[_content(part) for part in (meta, split.train, split.tune)])
    if not meta:
        del inputs[META]
    interruption = Interruption(show)
    values = config.model_dump(mode="json")
    opened = open_run_folder(config.output_dir, values, inputs, overwrite=overwrite)
    with opened as folder, interruption.handled():
        records: dict[str, StageRecord] = {}
        start = config.model.adapter
        if meta:
            records[META] = _tune(run, folder, META, start, meta, [], inputs[META], interruption)
            start = folder.path / META
        records[TUNED] = _tune(run, folder, TUNED, start, split.train, split.tune, inputs[TUNED], interruption)
        begun = time.perf_counter()
        comparison = _compare(run, folder, records[TUNED])
        seconds = {stage: record.seconds for stage, record in records.items()}
        results = IndividualsResults(
            name=config.name,
            people={"meta": len(meta), "train": len(split.train), "tune": len(split.tune), "test": len(split.test)},
            **_rows(comparison),
            training_loss={stage: record.result["loss"] for stage, record in records.items()},
            kept_step=records[TUNED].result["kept_step"],
            config=values,
            meta=Meta.of_this_process(
                config.seed, command, started, {**seconds, "measure": time.perf_counter() - begun}
            ),
        )
        results.write(folder.path / "results.json")
        write_individuals_report(results, folder.path)
    return results


def read_people(
    table: PeopleTable, seed: int, show: Callable[[str], object], *, traits: Sequence[str] = ()
) -> list[PersonSequence]:
    """Read a table person by person.

    Args:
        table: A table of the run file.
        seed: Random seed of the choice of people and of the order of their judgements.
        show: Called with a text that says how the table was understood.
        traits: Traits that are written into the descriptions.

    Raises:
        JudgementError: The table is not usable.

    Example:
        >>> people = read_people(PeopleTable(name="gss_abortion", year=2018, most_people=50), 0, lambda text: None)
        >>> len(people), len(people[0].examples)
        (50, 7)
    """
    judgements = read_judgements(table.data_section(), seed, show)
    people = judgement_sequences(
        judgements,
        description=table.description,
        length=table.judgements,
        most_people=table.most_people,
        seed=seed,
    )
    return with_traits(people, judgements, traits) if traits else people


def _check(run: _Run) -> None:
    """Raise, before anything is trained, if there is nothing to predict, or it does not fit."""
    section, length = run.config.evaluate, run.config.train.max_length
    people = [*run.split.tune, *run.split.test]
    longest = max(len(person.examples) for person in people)
    if longest <= section.first_target:
        raise ConfigError(
            "evaluate",
            [f"read = {section.read}: people have {longest} judgements, of which the first {section.first_target} are "
             f"never predicted. Fix: read at most {longest - 1}, or set people.judgements"],
        )  # fmt: skip
    targets = Targets.of(people, section.first_target, section.most_targets)
    try:
        check_lengths(targets.people, targets.positions, run.template, run.tokenizer, length)
        for part in (run.split.train, run.meta):
            if part:
                SpectrumDataset(_sequences(part), run.tokenizer, run.template, max_length=length)
    except ValueError as error:
        raise ConfigError("train", [f"max_length = {length}: {error}"]) from None
    adapter = run.config.model.adapter
    if adapter is not None and not (adapter / "adapter_config.json").is_file():
        fault = f"adapter = {str(adapter)!r}: there is no adapter (adapter_config.json). Fix: name its folder"
        raise ConfigError("model", [fault])
    if adapter is not None:
        base = run.load(adapter)  # raises if it is one of another base
        if not BaseWeights(base).known(adapter):
            run.show(
                f"model.adapter {str(adapter)!r} does not say on which weights it was trained: whether they are those "
                f"of {run.config.model.base!r} is not known"
            )
    if section.demonstrations == "similar":
        _embed(run)(["one text"])  # a folder that is no model is said now


def _content(people: Sequence[PersonSequence]) -> list[Any]:
    return [
        [p.person, p.description, [[e.input, e.output, e.options, e.question] for e in p.examples]] for p in people
    ]


def _sequences(people: Sequence[PersonSequence]) -> list[SpectrumSequence]:
    return [person_to_spectrum(person) for person in people]


def _embed(run: _Run) -> Callable[[Sequence[str]], np.ndarray]:
    from plural_rlhf.evaluation.open_ended.embedder import text_embedder

    return text_embedder(str(run.config.evaluate.embedder))


def _tune(
    run: _Run,
    folder: RunFolder,
    stage: str,
    start: Path | None,
    people: Sequence[PersonSequence],
    tuning: Sequence[PersonSequence],
    inputs: StageInputs,
    interruption: Interruption,
) -> StageRecord:
    """Tune on people and save the adapter, or take what is there.

    Args:
        run: The run.
        folder: Its folder.
        stage: `META` or `TUNED`, also the folder of the adapter.
        start: Adapter to start from; None for a new one.
        people: Who is imitated.
        tuning: On whom the loss is measured on the way; the adapter with the smallest is kept. Empty: the last one.
        inputs: What the stage reads.
        interruption: Whether the run was asked to stop.
    """
    section = run.config.train

    def load() -> PreTrainedModel | PeftModel:
        model: Any = run.load(start, trainable=True)
        return model if start is not None else with_new_adapter(model, run.config.model.lora)

    settings: dict[str, Any] = {
        "per_device_train_batch_size": section.people_per_step,
        "per_device_eval_batch_size": section.people_per_step,
        "max_length": section.max_length,
        "template": run.config.model.template,
        "description_share": 1.0,  # predictions show it, too
    }
    if tuning:
        settings |= {"eval_strategy": "steps", "eval_steps": section.validate_every}
    steps = section.model_copy(update={"steps": section.meta_steps}) if stage == META else section
    label = "reading people of other tables" if stage == META else "reading people"
    first_weights = derived_seed(run.config.seed, "first weights of the adapter that reads people")
    return SequenceTuning(stage, stage, load, first_weights, steps, settings, label).run(
        run.config,
        folder,
        run.tokenizer,
        _sequences(people),
        inputs,
        interruption,
        validation=_sequences(tuning),
        show=run.show,
    )


def _compare(run: _Run, folder: RunFolder, trained: StageRecord) -> ReadingComparison:
    """Predict the test people by the untouched and the tuned model, with baselines and a jury."""
    section = run.config.evaluate
    weights = {name: record["sha256"] for name, record in (trained.files or {}).items()}
    predictors: dict[str, Predictor] = {
        UNTOUCHED: _Predictions(run, folder, "untouched", None, {}),
        MODEL: _Predictions(run, folder, "tuned", folder.path / TUNED, weights),
    }
    return compare_readers(
        run.split,
        predictors,
        first=section.first_target,
        read=section.read,
        clusters=section.clusters,
        most_targets=section.most_targets,
        choose=_chooser(run),
        seed=run.config.seed,
    )


def _chooser(run: _Run) -> Chooser | Literal["informative"]:
    """Return how the judgements that are read are chosen."""
    if run.config.evaluate.demonstrations == "similar":
        return most_similar(_embed(run))
    return "informative" if run.config.evaluate.demonstrations == "informative" else most_recent


class _Predictions:
    """A predictor that keeps what a model predicted, and loads the model for what is not there yet."""

    def __init__(
        self, run: _Run, folder: RunFolder, label: str, adapter: Path | None, weights: Mapping[str, str]
    ) -> None:
        self._run, self._folder, self._label, self._adapter, self._weights = run, folder, label, adapter, weights
        self._model: Any = None

    def __call__(
        self, people: Sequence[PersonSequence], read: Sequence[Sequence[int]], targets: Sequence[int]
    ) -> list[np.ndarray]:
        run = self._run
        shown = [
            [_content([replace(p, examples=tuple(p.examples[i] for i in (*r, t)))]), list(r), t]
            for p, r, t in zip(people, read, targets, strict=True)
        ]
        inputs = run.inputs("model", content=[shown, self._weights, run.config.train.max_length])
        stage = f"predicted-{self._label}-{value_hash(inputs.content)[:12]}"
        record = self._folder.record(stage)
        if record is None or record.inputs != inputs:
            self._model = self._model or run.load(self._adapter)
            most = max(map(len, read), default=0)
            run.show(f"{self._label} model: {len(targets):,} judgements, {most} of the person read before each")
            begun = time.perf_counter()
            length = run.config.train.max_length
            shares = individual_shares(
                self._model, run.tokenizer, people, read, targets, run.template, max_length=length
            )
            result = {"shares": [p.tolist() for p in shares]}
            record = self._folder.finish(stage, StageRecord(result, time.perf_counter() - begun, inputs))
        return [np.array(p) for p in record.result["shares"]]


def _rows(comparison: ReadingComparison) -> dict[str, Any]:
    n = len(comparison.people)
    losses = [
        ReadingLoss(predictor=x.predictor, read=x.read, nats=x.value, ci_low=_end(x.low), ci_high=_end(x.high), n=n)
        for x in comparison.numbers()
    ]
    gains = [
        ReadingGain(
            predictor=x.predictor,
            read=x.read,
            other=x.other,
            other_read=x.other_read,
            nats=x.value,
            ci_low=_end(x.low),
            ci_high=_end(x.high),
            n=n,
        )
        for x in comparison.differences(MODEL)
    ]
    return {
        "losses": losses,
        "gains": gains,
        "clusters": comparison.clusters,
        "exponents": dict(comparison.exponents),
    }


def _end(value: float) -> float | None:
    return None if np.isnan(value) else value
