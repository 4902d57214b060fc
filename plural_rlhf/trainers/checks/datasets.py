"""The data sets that a trainer is given: their columns, weights, rules and supports.

Every error says which row or column, what it holds, why it cannot work and what to do. Knows nothing of training.
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
    """Return whether nothing is sampled, and whether rows with and rows without a support are mixed.

    Args:
        train: The training data.
        args: The settings; `args.exact` decides if it is not None.

    Example:
        >>> from datasets import Dataset
        >>> args = PluralGRPOConfig("out", use_cpu=True, bf16=False)
        >>> modes(Dataset.from_dict({"prompt": ["a", "b"], "support": [["1", "2"], None]}), args)
        (False, True)
    """
    has_support = "support" in columns_of(train)
    if args.exact is not None or not has_support or not hasattr(train, "select_columns"):
        return has_support if args.exact is None else args.exact, False
    supported = [row["support"] is not None for row in train.select_columns("support")]
    return all(supported), any(supported) and not all(supported)


def check_datasets(train: Any, evaluation: Any, args: PluralGRPOConfig, exact: bool, reward: JuryReward) -> None:
    """Raise if a column, or the weights, the rule or the support of any row cannot be used.

    Args:
        train: The training data.
        evaluation: The evaluation data, one data set or a dictionary of them.
        args: The settings.
        exact: Whether nothing is sampled.
        reward: The jury.

    Raises:
        ValueError: Says the column, or the row.
        JuryError: The jury cannot use the weights or the rule of a row.
    """
    for dataset in each_dataset(train, evaluation):
        check_columns(dataset)
        if args.max_min and "weights" in columns_of(dataset):
            raise ValueError(
                "max_min searches the weights itself, and the data set has a column 'weights': remove the column "
                "(dataset.remove_columns('weights')), or set max_min=False."
            )
        check_weights(dataset, reward)
        # If completions are drawn, a support says which of them are valid.
        required = exact or args.offsets == "exact"
        if required or "support" in columns_of(dataset):
            check_support(answered_rows(dataset), required)


def check_weights(dataset: Any, reward: JuryReward) -> None:
    """Raise if the jury cannot use the weights or the rule of a row.

    Raises:
        JuryError: Says the row, its value and what is wrong with it.

    Example:
        >>> from types import SimpleNamespace
        >>> import numpy as np
        >>> from datasets import Dataset
        >>> scorer = SimpleNamespace(
        ...     cluster_names=["warm", "cold"], prevalence=np.array([0.7, 0.3]), cluster_rewards=None
        ... )
        >>> check_weights(Dataset.from_dict({"prompt": ["a"], "weights": ["wram"]}), JuryReward(scorer))
        Traceback (most recent call last):
        reward_models.errors.JuryError: row 0: weights is 'wram': ... Did you mean 'warm'? ...
    """
    for name, read in (("weights", reward.row_weights), ("rule", reward.row_rules)):
        if name in columns_of(dataset):
            for n, row in enumerate(dataset.select_columns(name)):
                try:
                    read([row[name]], 1)
                except (ValueError, TypeError) as error:
                    raise JuryError(f"row {n}: {name} is {row[name]!r}: {error}") from error


def each_dataset(train: Any, evaluation: Any) -> Iterator[Any]:
    """Yield the data sets of a trainer.

    Example:
        >>> list(each_dataset("training", {"seen": "evaluation", "unseen": None}))
        ['training', 'evaluation']
    """
    for dataset in (train, *(evaluation.values() if isinstance(evaluation, Mapping) else [evaluation])):
        if dataset is not None:
            yield dataset


def columns_of(dataset: Any) -> list[str]:
    """Return the names of the columns of a data set; none for None, or for a stream that does not know them.

    Example:
        >>> from datasets import Dataset
        >>> columns_of(Dataset.from_dict({"prompt": ["a"]})), columns_of(None)
        (['prompt'], [])
    """
    return list(dataset.column_names or []) if dataset is not None else []


def check_columns(dataset: Any) -> None:
    """Raise if a data set has a column of images, which would not be read.

    Raises:
        ValueError: Says the column.

    Example:
        >>> from datasets import Dataset
        >>> check_columns(Dataset.from_dict({"prompt": ["a"], "image": ["a.png"]}))
        Traceback (most recent call last):
        ValueError: the data set has a column 'image', but log-probabilities are computed from text alone here: ...
    """
    for name in ("image", "images"):
        if name in columns_of(dataset):
            raise ValueError(
                f"the data set has a column {name!r}, but log-probabilities are computed from text alone here: remove "
                f"the column (dataset.remove_columns({name!r})), or use trl.GRPOTrainer for images."
            )


def answered_rows(dataset: Any, whole: bool = False) -> Iterator[dict[str, Any]]:
    """Yield the rows of a data set that has a column `support`.

    Args:
        dataset: The data set.
        whole: Whether to yield all columns, which costs more, or `support` only.

    Raises:
        ValueError: It has no such column.

    Example:
        >>> from datasets import Dataset
        >>> list(answered_rows(Dataset.from_dict({"prompt": ["a"], "support": [["1", "2"]]})))
        [{'support': ['1', '2']}]
    """
    if "support" not in columns_of(dataset):
        raise ValueError(
            f"the data set has no column 'support' (it has {', '.join(columns_of(dataset))}), which the exact mode "
            "needs: add the list of allowed answers of each prompt, or set exact=False to sample."
        )
    yield from dataset if whole else dataset.select_columns("support")


def check_support(rows: Iterable[Mapping[str, Any]], required: bool = True) -> None:
    """Raise if the support of a row is not a list of at least two different answers.

    Answers that differ in the space around them only are the same answer, because that space is ignored in
    completions.

    Args:
        rows: Rows of a data set.
        required: Whether every row must have a support; None is allowed otherwise.

    Raises:
        ValueError: A support is missing, has fewer than two answers, an empty one, or one twice; says the row.

    Example:
        >>> check_support([{"support": ["yes", "no"]}, {"support": ["yes", " yes"]}])
        Traceback (most recent call last):
        ValueError: row 1: support is ['yes', ' yes']: give at least two different answers, none of them empty; the
        space around an answer does not count.
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
