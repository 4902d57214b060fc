"""Settings, data sets and checkpoints that a trainer is given, checked before anything long begins.

Every refusal names what was given, why it cannot work and what to do. Knows nothing of training.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sized
from pathlib import Path
from typing import Any

from transformers.trainer_utils import get_last_checkpoint

from plural_rlhf.rewards.jury_reward import JuryReward
from plural_rlhf.trainers.plural_grpo_config import PluralGRPOConfig
from reward_models.errors import JuryError


__all__ = [
    "Resume",
    "answered_rows",
    "check_batches",
    "check_checkpoint",
    "check_columns",
    "check_datasets",
    "check_enough_prompts",
    "check_groups",
    "check_reference_draws",
    "check_support",
    "check_weights",
    "columns_of",
    "each_dataset",
    "modes",
]


Resume = bool | str | os.PathLike[str] | None
"""What `Trainer.train` takes as `resume_from_checkpoint`."""


def modes(train: Any, args: PluralGRPOConfig) -> tuple[bool, bool]:
    """Whether nothing is sampled, and whether rows with and without a support are mixed."""
    has_support = "support" in columns_of(train)
    if args.exact is not None or not has_support or not hasattr(train, "select_columns"):
        return has_support if args.exact is None else args.exact, False
    given = [row["support"] is not None for row in train.select_columns("support")]
    return all(given), any(given) and not all(given)


def check_batches(mixed: bool, args: PluralGRPOConfig, num_generations: int, num_processes: int) -> None:
    """Refuses batches in which rows with and without a support cannot stand side by side."""
    if not mixed:
        return
    if num_processes > 1:
        raise ValueError(
            f"some rows have a support and some have none, and there are {num_processes} processes, which would wait "
            "for each other's completions: use one process, two trainers, or exact=False to sample all rows."
        )
    if args.per_device_train_batch_size % num_generations:
        raise ValueError(
            f"some rows have a support and some have none, so a batch must hold whole groups: set "
            f"per_device_train_batch_size (it is {args.per_device_train_batch_size}) to a multiple of "
            f"num_generations ({num_generations})."
        )


def check_groups(args: PluralGRPOConfig) -> None:
    """Refuses evaluation in groups of one where a completion is compared with the others of its group."""
    if args.num_generations_eval == 1 and args.estimator == "vargrad":
        raise ValueError(
            "num_generations_eval is 1 and estimator is 'vargrad', whose baseline is the mean of the others of a "
            "group: set num_generations_eval to 2 or more, or leave it out (num_generations then counts)."
        )


def check_enough_prompts(dataset: Any, args: PluralGRPOConfig, num_generations: int) -> None:
    """Refuses a data set that does not fill one generation batch, of which no step would come."""
    if not isinstance(dataset, Sized) or not args.generation_batch_size:
        return
    prompts = args.generation_batch_size // num_generations
    if len(dataset) < prompts:
        raise ValueError(
            f"train_dataset has {len(dataset)} rows, and a generation batch takes {prompts} different prompts "
            f"({args.generation_batch_size} completions, {num_generations} a prompt), so there would be no step at "
            "all: set a smaller per_device_train_batch_size or steps_per_generation, a larger num_generations, or "
            "give more rows."
        )


def check_reference_draws(args: PluralGRPOConfig, num_generations: int, tools: bool, rollout_func: bool) -> None:
    """Refuses to let the reference draw where it cannot, or would draw something else than the policy."""
    if args.exact:
        return
    elsewhere = [("there are tools", "train without tools")] if tools else []
    elsewhere += [("there is a rollout_func", "pass no rollout_func")] if rollout_func else []
    for what, cure in elsewhere if args.n_ref else ():
        raise ValueError(
            f"n_ref is {args.n_ref} and {what}, which the reference does without when it draws: its answers would be "
            f"of another kind than the policy's, and start the offsets wrongly. Set n_ref=0, or {cure}."
        )
    elsewhere += [] if args.shared_prefix else [("shared_prefix is False", "set shared_prefix=True")]
    for what, cure in elsewhere if args.reference_share else ():
        raise ValueError(
            f"reference_share is {args.reference_share} and {what}, where all completions are drawn at once, none by "
            f"the reference: set reference_share=0.0, or {cure}."
        )
    size = args.per_device_train_batch_size * args.steps_per_generation
    if args.reference_share and size % num_generations:
        raise ValueError(
            f"reference_share is {args.reference_share}, so each process must draw whole groups, but one draws {size} "
            f"completions (per_device_train_batch_size × steps_per_generation): make it a multiple of num_generations "
            f"({num_generations}), or set reference_share=0.0."
        )


def check_datasets(train: Any, evaluation: Any, args: PluralGRPOConfig, exact: bool, reward: JuryReward) -> None:
    """Refuses columns, weights, rules and supports of any row that would not do what they say.

    Raises:
        ValueError: Names the column, or the row.
        JuryError: Weights or a rule that the jury cannot carry out.
    """
    for dataset in each_dataset(train, evaluation):
        check_columns(dataset)
        if args.max_min and "weights" in columns_of(dataset):
            raise ValueError(
                "max_min searches the weights itself, and the data set has a column 'weights': remove the column "
                "(dataset.remove_columns('weights')), or set max_min=False."
            )
        check_weights(dataset, reward)
        # Where completions are drawn, a support decides which of them are valid at all.
        required = exact or args.offsets == "exact"
        if required or "support" in columns_of(dataset):
            check_support(answered_rows(dataset), required)


def check_weights(dataset: Any, reward: JuryReward) -> None:
    """Refuses weights that the jury cannot carry out, and rules, in any row."""
    for name, read in (("weights", reward.row_weights), ("rule", reward.row_rules)):
        if name in columns_of(dataset):
            for n, row in enumerate(dataset.select_columns(name)):
                try:
                    read([row[name]], 1)
                except (ValueError, TypeError) as error:
                    raise JuryError(f"row {n}: {name} is {row[name]!r}: {error}") from error


def each_dataset(train: Any, evaluation: Any) -> Iterator[Any]:
    """The data sets of a trainer, one by one."""
    for dataset in (train, *(evaluation.values() if isinstance(evaluation, dict) else [evaluation])):
        if dataset is not None:
            yield dataset


def columns_of(dataset: Any) -> list[str]:
    """Names of its columns; none where a stream does not say."""
    return list(dataset.column_names or []) if dataset is not None else []


def check_columns(dataset: Any) -> None:
    """Refuses columns that the trainer would not read as their name says."""
    for name in ("image", "images"):
        if name in columns_of(dataset):
            raise ValueError(
                f"the data set has a column {name!r}, but log-probabilities are computed from text alone here: remove "
                f"the column (dataset.remove_columns({name!r})), or use trl.GRPOTrainer for images."
            )


def answered_rows(dataset: Any, whole: bool = False) -> Iterator[dict[str, Any]]:
    """Rows of a data set with the column `support`; of all columns where `whole`, which costs more.

    Raises:
        ValueError: It has no such column.
    """
    if "support" not in columns_of(dataset):
        raise ValueError(
            f"the data set has no column 'support' (it has {', '.join(columns_of(dataset))}), which the exact mode "
            "needs: add the list of allowed answers of each prompt, or set exact=False to sample."
        )
    yield from dataset if whole else dataset.select_columns("support")


def check_checkpoint(resume: Resume, output_dir: str | None, state_file: str) -> Path | None:
    """Refuses to go on from a checkpoint that was not written to its end, and names the last whole one.

    Returns:
        The folder to go on from; `None` where there is nothing to look at.
    """
    if not resume:
        return None
    found = get_last_checkpoint(output_dir) if resume is True and output_dir else resume
    if not isinstance(found, str | os.PathLike) or not Path(found).is_dir():
        return None
    folder = Path(found)
    if (folder / state_file).is_file():
        return folder
    siblings = sorted(folder.parent.glob("checkpoint-*"), key=lambda path: path.stat().st_mtime)
    whole = [str(path) for path in siblings if (path / state_file).is_file()]
    advice = f"resume from {whole[-1]!r}" if whole else "start again"
    raise ValueError(
        f"the checkpoint {str(folder)!r} has no {state_file}, which is written last: it was cut short, or another "
        f"trainer wrote it. Delete it and {advice}."
    )


def check_support(rows: Iterable[Mapping[str, Any]], required: bool = True) -> None:
    """Refuses, before any training, answer sets that no distribution can be matched on.

    Args:
        rows: Rows of a data set.
        required: Whether every row must have one; it is None in the others.

    Raises:
        ValueError: A support that is missing, has fewer than two answers, an empty one, or one twice, be it with other
            space around it, which is one answer where completions are sampled; names the row.
    """
    for n, row in enumerate(rows):
        support = row.get("support")
        if support is None and not required:
            continue
        if not isinstance(support, list | tuple) or not all(isinstance(answer, str) for answer in support):
            raise ValueError(
                f"row {n}: support is {support!r}, but the exact mode needs the list of all allowed answers as "
                "strings: give every row one, or set exact=False to sample instead."
                if required
                else f"row {n}: support is {support!r}: give the list of all allowed answers as strings, or null."
            )
        texts = {answer.strip() for answer in support}
        if len(support) < 2 or len(texts) < len(support) or "" in texts:
            raise ValueError(
                f"row {n}: support is {list(support)!r}: give at least two different answers, none of them empty; the "
                "space around an answer does not count."
            )
