"""The run file of `plural-rlhf spectrum`, read strictly into `SpectrumRun`. Knows no model and no data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from plural_rlhf.recipe.settings.models import LoraSection
from plural_rlhf.recipe.settings.sections import CheckpointSection
from plural_rlhf.settings.base import AtLeastOne, Count, NamedRun, Positive, Section, Seed, Share


__all__ = [
    "SpectrumData",
    "SpectrumEvaluation",
    "SpectrumModel",
    "SpectrumRun",
    "SpectrumTraining",
]

Template = Literal["auto", "chatml", "llama3", "gemma", "plain"]


class SpectrumModel(Section):
    """The model that is tuned.

    Example:
        >>> SpectrumModel(base="tiny").lora.r
        16
    """

    base: Annotated[str, Field(min_length=1)] = Field(
        default="smollm2-135m", description="Pretrained model: smollm2-135m, tiny, a folder or a Hub id."
    )
    sibling: str | None = Field(
        default=None,
        description="Instruction-tuned model of the family, whose rows of the chat tokens are copied; null: none. "
        "The base model with them is saved in `base`.",
    )
    template: Template = Field(
        default="auto", description="Chat tokens of messages; auto: those that the tokenizer has."
    )
    lora: LoraSection | None = Field(
        default=LoraSection(r=16, alpha=80), description="The low-rank adapter; null to train all parameters."
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        default="float32", description="Precision of the base model; bfloat16 is two to three times faster."
    )
    cache_dir: Path = Field(default=Path(".cache/models"), description="Where converted model weights are kept.")


class SpectrumData(Section):
    """What is imitated, and what is held out.

    Example:
        >>> SpectrumData(tasks=["coin"], heldout=["urn"]).folder.as_posix()
        'data'
    """

    tasks: list[str] = Field(
        default=["train"],
        description="Tasks of the Spectrum Suite to train on; `train`: all of that split whose data is here.",
    )
    files: list[Path] = Field(default=[], description="JSONL files of own sequences to train on.")
    heldout: list[str] = Field(
        default=["test"],
        description="Tasks that are measured; `test`: all of that split whose data is here.",
    )
    heldout_files: list[Path] = Field(default=[], description="JSONL files of own sequences that are measured.")
    folder: Path = Field(default=Path("data"), description="Folder of the data sets that come in no package.")
    catalogue: Path | None = Field(default=None, description="A catalogue of own tasks, in YAML.")
    sequences: AtLeastOne = Field(default=200, description="Most training sequences per task.")
    heldout_sequences: AtLeastOne = Field(default=50, description="Most sequences per held-out task.")
    examples: AtLeastOne = Field(default=32, description="Most examples per sequence.")
    same_source: Literal["drop", "keep"] = Field(
        default="drop",
        description="Training tasks from the source of a held-out task: drop them, or keep them (then say so).",
    )


class SpectrumTraining(Section):
    """The training.

    Example:
        >>> SpectrumTraining(steps=10).sequences_per_step
        4
    """

    steps: Count = Field(default=200, description="Optimiser steps; 0 trains nothing.")
    learning_rate: Positive = Field(
        default=1e-4, description="Learning rate of AdamW: about 1e-4 with LoRA, 3e-6 for all parameters of 8 billion."
    )
    sequences_per_step: AtLeastOne = Field(
        default=4, description="Sequences per step; they lie in one row and do not see each other."
    )
    max_length: AtLeastOne = Field(
        default=1024, description="Most tokens of a sequence; examples beyond are dropped, none is cut."
    )
    mean_examples: Annotated[float, Field(ge=1)] | None = Field(
        default=None, description="Mean number of examples shown; null for all that fit."
    )
    description_share: Share = Field(default=0.6, description="Probability that a description is shown.")


class SpectrumEvaluation(Section):
    """What is measured.

    Example:
        >>> SpectrumEvaluation().positions
        [0, 1, 2, 4, 8, 16]
    """

    positions: list[Count] = Field(
        default=[0, 1, 2, 4, 8, 16], description="Numbers of examples read at which options are scored."
    )
    formats: Annotated[list[Literal["auto", "chat", "plain"]], Field(min_length=1)] = Field(
        default=["auto", "chat", "plain"],
        description="Ways to ask the untouched model; the one that is best on a task counts.",
    )
    draws: AtLeastOne = Field(default=2000, description="Bootstrap draws of the intervals.")


class SpectrumRun(NamedRun):
    """All settings of a run file of `plural-rlhf spectrum`.

    Example:
        >>> run = SpectrumRun(name="trial", data={"tasks": ["coin"], "heldout": ["urn"]})
        >>> run.output_dir.as_posix(), run.train.steps
        ('runs/trial', 200)
    """

    name: Annotated[str, Field(min_length=1)] = Field(default="spectrum", description="Name of the run.")
    seed: Seed = Field(default=0, description="Random seed, 0 to 4294967295.")
    model: SpectrumModel = Field(default=SpectrumModel(), description="The model that is tuned.")
    data: SpectrumData = Field(default=SpectrumData(), description="What is imitated, and what is held out.")
    train: SpectrumTraining = Field(default=SpectrumTraining(), description="The training.")
    evaluate: SpectrumEvaluation = Field(default=SpectrumEvaluation(), description="What is measured.")
    checkpoints: CheckpointSection = Field(default=CheckpointSection(), description="How often training is saved.")
    output_dir: Path = Field(
        default=Path("runs/spectrum"), description="Folder for the results; runs/<name> if it is not given."
    )
