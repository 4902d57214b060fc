"""The column `given_completions` of a training set, and the settings that cannot go with it.

Knows nothing of how completions are chosen or tokenised.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from plural_rlhf.core.estimators import OFF_POLICY
from plural_rlhf.trainers.checks.datasets import columns_of
from plural_rlhf.trainers.grpo.drawers import GIVEN_COLUMN
from plural_rlhf.trainers.plural_grpo_config import PluralGRPOConfig


__all__ = ["check_given", "check_given_rows", "is_given"]


def is_given(train: Any, args: PluralGRPOConfig) -> bool:
    """Return whether the policy learns from completions that the training set brings along.

    Example:
        >>> from datasets import Dataset
        >>> data = Dataset.from_dict({"prompt": ["a"], "given_completions": [["b"]]})
        >>> is_given(data, PluralGRPOConfig("out", use_cpu=True, bf16=False))
        True
    """
    return not args.exact and args.given_share > 0 and GIVEN_COLUMN in columns_of(train)


def check_given(train: Any, args: PluralGRPOConfig) -> None:
    """Raise if given completions cannot be learnt from with these settings, or a row's cannot be used.

    Args:
        train: The training data.
        args: The settings.

    Raises:
        ValueError: Says the setting or the row, the reason and the cure.

    Example:
        >>> from datasets import Dataset
        >>> data = Dataset.from_dict({"prompt": ["a"], "given_completions": [["b"]]})
        >>> check_given(data, PluralGRPOConfig("out", estimator="js", use_cpu=True, bf16=False))
        Traceback (most recent call last):
        ValueError: the data set has given_completions and estimator is 'js', which weighs by the probability ...
    """
    if not is_given(train, args):
        return
    begin = f"the data set has {GIVEN_COLUMN} and"
    leave = f"or given_share=0.0 (the column is then not read; given_share is {args.given_share})"
    if args.estimator not in OFF_POLICY:
        raise ValueError(
            f"{begin} estimator is {args.estimator!r}, which weighs by the probability with which a completion was "
            f"drawn, and that of people is not known: set estimator='vargrad', {leave}."
        )
    if args.variance_reduction != "none":
        raise ValueError(
            f"{begin} variance_reduction is {args.variance_reduction!r}, which is exact only for completions of the "
            f"policy that is updated: set variance_reduction='none', {leave}."
        )
    if args.offsets in ("responsibility", "global"):
        raise ValueError(
            f"{begin} offsets is {args.offsets!r}, which balances the shares of the policy's own completions of whole "
            f"groups: set offsets='ema', {leave}."
        )
    if args.use_vllm or args.use_transformers_continuous_batching:
        raise ValueError(f"{begin} an engine draws whole groups: set use_vllm=False, {leave}.")
    policy_draws = args.num_generations - args.reference_draws - args.given_draws
    if args.given_draws == 0 or policy_draws < 1:
        raise ValueError(
            f"{begin} given_share is {args.given_share}, which is {args.given_draws} of the {args.num_generations} "
            f"completions of a group, beside {args.reference_draws} of the reference: it must be one or more, and "
            "leave one to the policy. Change given_share or num_generations."
        )
    names = [name for name in (GIVEN_COLUMN, "support") if name in columns_of(train)]
    check_given_rows(train.select_columns(names) if hasattr(train, "select_columns") else ())


def check_given_rows(rows: Iterable[Mapping[str, Any]]) -> None:
    """Raise if the given completions of a row are no list of texts, or the row has a support.

    Args:
        rows: Rows of a data set.

    Raises:
        ValueError: Says the row and what it has.

    Example:
        >>> check_given_rows([{"given_completions": ["a"]}, {"given_completions": None}])
        >>> check_given_rows([{"given_completions": ["a", " "]}])
        Traceback (most recent call last):
        ValueError: row 0: given_completions has ' ', which says nothing: ...
    """
    for n, row in enumerate(rows):
        texts = row[GIVEN_COLUMN]
        if texts is None:
            continue
        wrong = next((text for text in texts if not isinstance(text, str)), None) if isinstance(texts, list) else texts
        if wrong is not None:
            raise ValueError(
                f"row {n}: {GIVEN_COLUMN} has {wrong!r}: give the list of completions as strings (of a conversation, "
                "what the assistant says), or null."
            )
        empty = next((text for text in texts if not text.strip()), None)
        if empty is not None:
            raise ValueError(
                f"row {n}: {GIVEN_COLUMN} has {empty!r}, which says nothing: leave empty texts out, or null the row."
            )
        if texts and row.get("support") is not None:
            raise ValueError(
                f"row {n} has a support, of which every answer is scored, and {GIVEN_COLUMN} too: null one of them."
            )
