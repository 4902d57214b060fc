"""The data sets that a trainer is given: their columns, weights, rules and supports.

Every refusal says which row or column, what it holds, why it cannot work and what to do. Knows nothing of training.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from plural_rlhf.rewards.jury_reward import JuryReward
from plural_rlhf.trainers.plural_grpo_config import PluralGRPOConfig
from reward_models.errors import JuryError


__all__ = [
    "answered_rows",
    "check_columns",
    "check_datasets",
    "check_support",
    "check_weights",
    "columns_of",
    "each_dataset",
    "modes",
]


def modes(train: Any, args: PluralGRPOConfig) -> tuple[bool, bool]:
    """Whether nothing is sampled, and whether rows with and without a support are mixed."""
    has_support = "support" in columns_of(train)
    if args.exact is not None or not has_support or not hasattr(train, "select_columns"):
        return has_support if args.exact is None else args.exact, False
    given = [row["support"] is not None for row in train.select_columns("support")]
    return all(given), any(given) and not all(given)


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
