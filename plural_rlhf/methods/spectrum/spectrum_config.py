"""Settings of `SpectrumTrainer`: those of TRL's `SFTConfig`, with other defaults, and what is drawn of sequences."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trl import SFTConfig

from plural_rlhf.methods.spectrum.dataset import SequenceDraws
from plural_rlhf.methods.spectrum.template import template_names
from reward_models.errors import did_you_mean


__all__ = ["SpectrumConfig"]


@dataclass
class SpectrumConfig(SFTConfig):
    """Settings of `SpectrumTrainer`.

    Attributes:
        template: Name of the template, see `template_for`.
        mean_examples: Mean number of examples shown per sequence and epoch; None for all that fit.
        description_share: Probability that a description is shown where there are several examples.
        shuffle_examples: Whether exchangeable examples are shuffled in every epoch; off only to compare.
        learning_rate: Default 3e-6, the published one for all parameters of models of 8 to 14 billion; for LoRA and
            small models about 1e-4.
        max_length: Most tokens of a sequence; default 1024, as published. Examples beyond are dropped, not cut.

    Raises:
        ValueError: A setting is out of range, or one of TRL's is set that has no meaning here.

    Example:
        >>> SpectrumConfig("out", use_cpu=True, bf16=False).max_length
        1024
        >>> SpectrumConfig("out", use_cpu=True, bf16=False, packing=True)
        Traceback (most recent call last):
        ValueError: packing=True has no effect here: the sequences of a batch are always in one row ...
    """

    template: str = field(default="auto", metadata={"help": "Template: auto, chatml, llama3, gemma or plain."})
    mean_examples: float | None = field(
        default=None, metadata={"help": "Mean number of examples per sequence; all that fit if not given."}
    )
    description_share: float = field(
        default=0.6, metadata={"help": "Probability that a description is shown where there are several examples."}
    )
    shuffle_examples: bool = field(
        default=True, metadata={"help": "Whether exchangeable examples are shuffled in every epoch."}
    )
    learning_rate: float = field(default=3e-6, metadata={"help": "Initial learning rate of AdamW."})
    max_length: int | None = field(default=1024, metadata={"help": "Most tokens of a sequence."})

    def __post_init__(self) -> None:
        if self.packing:
            raise ValueError(
                "packing=True has no effect here: the sequences of a batch are always in one row and do not see "
                "each other. Fix: leave it out, and set per_device_train_batch_size."
            )
        if not 0 <= self.description_share <= 1:
            raise ValueError(f"description_share={self.description_share} is no probability. Fix: use 0 to 1.")
        if self.mean_examples is not None and not self.mean_examples >= 1:
            raise ValueError(f"mean_examples={self.mean_examples} is below 1. Fix: use at least 1, or leave it out.")
        if self.max_length is not None and self.max_length < 1:
            raise ValueError(f"max_length={self.max_length} leaves room for nothing. Fix: use at least 1, or None.")
        if self.template not in template_names():
            raise ValueError(
                f"unknown template {self.template!r}.{did_you_mean(self.template, template_names())} Fix: use one of "
                f"{', '.join(template_names())}."
            )
        if self.assistant_only_loss or self.completion_only_loss:
            raise ValueError(
                "assistant_only_loss and completion_only_loss have no effect here: the loss is on outputs. Fix: leave "
                "them out."
            )
        given: dict[str, Any] = getattr(self, "dataset_kwargs", None) or {}
        self.dataset_kwargs = {**given, "skip_prepare_dataset": True}
        self.remove_unused_columns = False  # tokens are made when a row is read
        super().__post_init__()

    @property
    def draws(self) -> SequenceDraws:
        """What is drawn of the training sequences in every epoch."""
        return SequenceDraws(self.shuffle_examples, self.mean_examples, self.description_share, self.seed)
