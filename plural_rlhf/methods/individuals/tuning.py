"""Tuning in two steps: to read people at all, then to read people about the questions at hand.

Both steps are Spectrum Tuning; only the sequences differ. Knows nothing of predictions.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plural_rlhf.evaluation.in_context.sequences import PersonSequence
from plural_rlhf.methods.spectrum.sequences import Example, SpectrumSequence
from plural_rlhf.methods.spectrum.spectrum_config import SpectrumConfig
from plural_rlhf.methods.spectrum.spectrum_trainer import SpectrumTrainer
from plural_rlhf.trainers.checkpointed_trainer import STATE_FILE
from reward_models.trainer.whole_checkpoints import checkpoint_fault, resumed_checkpoint


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["person_to_spectrum", "tune_to_individuals"]


def person_to_spectrum(person: PersonSequence) -> SpectrumSequence:
    """Return all answers of a person as one exchangeable sequence.

    Example:
        >>> from plural_rlhf.evaluation.in_context.sequences import Example as Answer
        >>> answers = (Answer("Parks?", "yes", ("yes", "no"), "q1"), Answer("Roads?", "no", ("yes", "no"), "q2"))
        >>> person_to_spectrum(PersonSequence("ann", answers)).examples[1].output
        'no'
    """
    examples = tuple(Example(example.output, example.input) for example in person.examples)
    return SpectrumSequence(examples, person.description or None, name=person.person)


def tune_to_individuals(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    args: SpectrumConfig,
    people: Sequence[PersonSequence],
    *,
    meta_people: Sequence[PersonSequence] = (),
    meta_args: SpectrumConfig | None = None,
    resume: bool = False,
    **kwargs: Any,
) -> PreTrainedModel:
    """Tune a model on people of other tables (meta-tuning), then on training people of this one (data-set tuning).

    Args:
        model: A pretrained model.
        tokenizer: Its tokenizer.
        args: Settings of the data-set tuning.
        people: Training people of this table; none for meta-tuning alone.
        meta_people: People of other tables; none for data-set tuning alone.
        meta_args: Settings of the meta-tuning; None: those of `args` in the folder `meta` beneath it.
        resume: Whether to go on from the last whole checkpoint in `args.output_dir`, if there is one; later ones that
            were cut short or damaged are left out with a warning. A meta-tuning whose second step has a checkpoint is
            not repeated.
        **kwargs: Of `SpectrumTrainer`, such as `peft_config`, for the first step.

    Returns:
        The tuned model.

    Raises:
        ValueError: Neither `people` nor `meta_people` is given; or there are checkpoints to go on from, and none is
            whole.
        JuryError: The checkpoint is of other people.

    Example:
        >>> import io, tempfile
        >>> from contextlib import redirect_stdout
        >>> from plural_rlhf.evaluation.in_context.sequences import judgement_sequences
        >>> from plural_rlhf.policies.base_models import tiny_causal_lm, tiny_tokenizer
        >>> from reward_models import planted_judgements
        >>> people = judgement_sequences(planted_judgements("choice", num_raters=4, num_items=3).judgements)
        >>> quiet = {"report_to": "none", "save_strategy": "no", "disable_tqdm": True, "logging_strategy": "no"}
        >>> with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):  # TRL prints a summary
        ...     args = SpectrumConfig(folder, max_steps=1, use_cpu=True, bf16=False, **quiet)
        ...     tuned = tune_to_individuals(tiny_causal_lm(), tiny_tokenizer(), args, people[2:])
        >>> tuned.num_parameters()
        40992
    """
    if not people and not meta_people:
        raise ValueError("there is nobody to learn from. Fix: give people, meta_people, or both.")
    begun = _last_checkpoint(args) if resume else None
    if meta_people and begun is None:
        if meta_args is None:
            meta_args = copy.deepcopy(args)
            meta_args.output_dir = str(Path(str(args.output_dir)) / "meta")
        checkpoint = _last_checkpoint(meta_args) if resume else None
        model = _tuned(model, tokenizer, meta_args, meta_people, checkpoint, **kwargs)
        kwargs = {}  # an adapter is there now
    if people:
        model = _tuned(model, tokenizer, args, people, begun, **kwargs)
    return model


def _tuned(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    args: SpectrumConfig,
    people: Sequence[PersonSequence],
    checkpoint: Path | None,
    **kwargs: Any,
) -> PreTrainedModel:
    sequences = [person_to_spectrum(person) for person in people]
    trainer = SpectrumTrainer(model, args, sequences, processing_class=tokenizer, **kwargs)
    trainer.train(resume_from_checkpoint=checkpoint)
    return trainer.model


def _last_checkpoint(args: SpectrumConfig) -> Path | None:
    """The last whole checkpoint of a tuning; None if it has not come to one yet."""
    return resumed_checkpoint(True, args.output_dir, partial(checkpoint_fault, last=STATE_FILE))
