"""`SpectrumTrainer`: TRL's `SFTTrainer` on sequences of examples, with the loss on outputs only.

Spectrum Tuning (Sorensen and others, 2025): maximum likelihood of `Σ_j log p(y_j | description, x_j, examples before)`
over many distributions makes a model that takes up a new one from its examples.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback
from trl import SFTTrainer

from plural_rlhf.methods.spectrum.collator import PackedCollator
from plural_rlhf.methods.spectrum.dataset import SpectrumDataset
from plural_rlhf.methods.spectrum.sequences import SpectrumSequence
from plural_rlhf.methods.spectrum.spectrum_config import SpectrumConfig
from plural_rlhf.methods.spectrum.template import template_for
from plural_rlhf.trainers.checkpointed_trainer import STATE_FILE, CheckpointedTrainer
from reward_models.content_hashes import value_hash
from reward_models.errors import JuryError


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerState

__all__ = ["SpectrumTrainer"]


class SpectrumTrainer(CheckpointedTrainer, SFTTrainer):
    """Train a causal language model to imitate whatever distribution its context comes from.

    A checkpoint lists its files with size and SHA-256: one that is cut short, or of which a file is missing or
    damaged, is not resumed from, and neither is one of other sequences.

    Args:
        model: A pretrained base model; its chat tokens may need rows (`copy_special_rows`), or, with LoRA,
            `LoraConfig(trainable_token_indices=...)`.
        args: Settings.
        train_sequences: What to imitate.
        eval_sequences: Sequences for the loss in evaluations, in their own order and with their descriptions.
        processing_class: The tokenizer.
        **kwargs: Of `SFTTrainer`, such as `peft_config` and `callbacks`.

    Attributes:
        template: The template that is used.

    Raises:
        ValueError: See `template_for` and `SpectrumDataset`.

    Example:
        >>> from plural_rlhf.methods.spectrum import coin_flips
        >>> from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
        >>> tokenizer = tiny_tokenizer()
        >>> args = SpectrumConfig("out", max_steps=1, use_cpu=True, bf16=False, report_to="none")
        >>> trainer = SpectrumTrainer(tiny_causal_lm(tokenizer), args, coin_flips(8, 6), processing_class=tokenizer)
        >>> trainer.template.end
        '<|im_end|>'
    """

    def __init__(
        self,
        model: str | PreTrainedModel,
        args: SpectrumConfig,
        train_sequences: Sequence[SpectrumSequence],
        eval_sequences: Sequence[SpectrumSequence] | None = None,
        *,
        processing_class: PreTrainedTokenizerBase,
        **kwargs: Any,
    ) -> None:
        self.template = template_for(processing_class, args.template)

        def tokens(sequences: Sequence[SpectrumSequence], training: bool) -> SpectrumDataset:
            draws = args.draws if training else None
            return SpectrumDataset(sequences, processing_class, self.template, max_length=args.max_length, draws=draws)

        self._fingerprint = value_hash([asdict(args.draws), [sequence.to_dict() for sequence in train_sequences]])
        train = tokens(train_sequences, training=True)
        super().__init__(
            model,
            args,
            data_collator=PackedCollator(args.pad_to_multiple_of),
            train_dataset=train.to_dataset(),
            eval_dataset=None if eval_sequences is None else tokens(eval_sequences, training=False).to_dataset(),
            processing_class=processing_class,
            **kwargs,
        )
        self.add_callback(_Epochs(train))

    def _check_state(self, folder: Path) -> None:
        state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        if state["sequences"] != self._fingerprint:
            raise JuryError(
                f"the checkpoint {str(folder)!r} was trained on other sequences, or saw them in another way: resume "
                "with the same, or use another output_dir."
            )

    def _save_state(self, folder: Path) -> dict[str, Any]:
        return {"sequences": self._fingerprint}

    def _load_state(self, folder: Path) -> None:
        pass  # what is drawn of the sequences follows from the seed and the epoch


class _Epochs(TrainerCallback):
    """Tells the training sequences which epoch begins, also where training resumes within one."""

    def __init__(self, sequences: SpectrumDataset) -> None:
        self._sequences = sequences

    def on_epoch_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self._sequences.set_epoch(int((state.epoch or 0) + 1e-6))
