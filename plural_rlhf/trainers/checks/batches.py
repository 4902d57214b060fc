"""The sizes of batches and groups, and who may draw completions for them.

Every error says the setting, its value, why it cannot work and what to set. Knows nothing of rewards or models.
"""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

from plural_rlhf.trainers.plural_grpo_config import PluralGRPOConfig


__all__ = ["check_batches", "check_draws", "check_enough_prompts", "check_groups"]


def check_batches(args: PluralGRPOConfig, num_processes: int) -> None:
    """Raise if rows with and rows without a support cannot be in one batch.

    Raises:
        ValueError: There are several processes, or a micro-batch does not hold whole groups.

    Example:
        >>> settings = {"num_generations": 4, "gradient_accumulation_steps": 2, "use_cpu": True, "bf16": False}
        >>> check_batches(PluralGRPOConfig("out", per_device_train_batch_size=2, **settings), num_processes=1)
        Traceback (most recent call last):
        ValueError: some rows have a support and some have none, so a batch must hold whole groups: set
        per_device_train_batch_size (it is 2) to a multiple of num_generations (4).
    """
    if num_processes > 1:
        raise ValueError(
            f"some rows have a support and some have none, and there are {num_processes} processes, which would wait "
            "for each other's completions: use one process, two trainers, or exact=False to sample all rows."
        )
    if args.per_device_train_batch_size % args.num_generations:
        raise ValueError(
            f"some rows have a support and some have none, so a batch must hold whole groups: set "
            f"per_device_train_batch_size (it is {args.per_device_train_batch_size}) to a multiple of "
            f"num_generations ({args.num_generations})."
        )


def check_groups(args: PluralGRPOConfig) -> None:
    """Raise if evaluation groups have one completion and the estimator compares completions of a group.

    Raises:
        ValueError: `num_generations_eval` is 1 with `vargrad`.

    Example:
        >>> settings = {"num_generations_eval": 1, "use_cpu": True, "bf16": False}
        >>> check_groups(PluralGRPOConfig("out", estimator="tb", **settings))
        >>> check_groups(PluralGRPOConfig("out", **settings))
        Traceback (most recent call last):
        ValueError: num_generations_eval is 1 and estimator is 'vargrad', whose baseline is the mean of the other
        completions of a group: ...
    """
    if args.num_generations_eval == 1 and args.estimator == "vargrad":
        raise ValueError(
            "num_generations_eval is 1 and estimator is 'vargrad', whose baseline is the mean of the other "
            "completions of a group: set num_generations_eval to 2 or more, or leave it out (num_generations then "
            "counts)."
        )


def check_enough_prompts(dataset: Any, args: PluralGRPOConfig) -> None:
    """Raise if a data set does not fill one generation batch, so that training would take zero steps.

    Raises:
        ValueError: It has fewer rows than a generation batch has prompts.

    Example:
        >>> args = PluralGRPOConfig("out", per_device_train_batch_size=8, num_generations=4, use_cpu=True, bf16=False)
        >>> check_enough_prompts(["one prompt"], args)
        Traceback (most recent call last):
        ValueError: train_dataset has 1 rows, and a generation batch takes 2 different prompts (8 completions, 4 per
        prompt), so training would take zero steps: ...
    """
    if not isinstance(dataset, Sized) or not args.generation_batch_size:
        return
    prompts = args.generation_batch_size // args.num_generations
    if len(dataset) < prompts:
        raise ValueError(
            f"train_dataset has {len(dataset)} rows, and a generation batch takes {prompts} different prompts "
            f"({args.generation_batch_size} completions, {args.num_generations} per prompt), so training would take "
            "zero steps: set a smaller per_device_train_batch_size or steps_per_generation, a larger "
            "num_generations, or give more rows."
        )


def check_draws(args: PluralGRPOConfig, *, tools: bool, rollout_func: bool, given: bool = False) -> None:
    """Raise if not only the policy is to draw completions and that cannot be, or would be something else than it does.

    Args:
        args: The settings.
        tools: Whether the policy uses tools.
        rollout_func: Whether a function of the user draws the completions.
        given: Whether the data set brings completions along.

    Raises:
        ValueError: `n_ref`, `reference_share` or `given_share` with tools or a function, or a share without
            `shared_prefix` or with parts of groups.

    Example:
        >>> args = PluralGRPOConfig("out", n_ref=16, use_cpu=True, bf16=False)
        >>> check_draws(args, tools=True, rollout_func=False)
        Traceback (most recent call last):
        ValueError: n_ref is 16 and there are tools, which the reference does without when it draws: ...
    """
    if args.exact:
        return
    obstacles = [("there are tools", "train without tools")] if tools else []
    obstacles += [("there is a rollout_func", "pass no rollout_func")] if rollout_func else []
    for obstacle, cure in obstacles if args.n_ref else ():
        raise ValueError(
            f"n_ref is {args.n_ref} and {obstacle}, which the reference does without when it draws: its completions "
            "would be of another kind than the policy's, and the offsets would start from wrong values. Set n_ref=0, "
            f"or {cure}."
        )
    obstacles += [] if args.shared_prefix else [("shared_prefix is False", "set shared_prefix=True")]
    shares = {"reference_share": ("by the reference", args.reference_share)}
    shares |= {"given_share": ("from given_completions", args.given_share)} if given else {}
    size = args.per_device_train_batch_size * args.steps_per_generation
    for name, (source, share) in shares.items():
        if not share:
            continue
        for obstacle, cure in obstacles:
            raise ValueError(
                f"{name} is {share} and {obstacle}, where all completions are drawn at once, none {source}: set "
                f"{name}=0.0, or {cure}."
            )
        if size % args.num_generations:
            raise ValueError(
                f"{name} is {share}, so each process must draw whole groups, but one draws {size} completions "
                "(per_device_train_batch_size × steps_per_generation): make it a multiple of num_generations "
                f"({args.num_generations}), or set {name}=0.0."
            )
