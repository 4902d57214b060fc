"""Preference pairs as rows: the prompts under which the policy reads a pair, and the columns of a batch.

The reference always reads the plain prompt; the policy reads the same two responses under each prompt that says whose
preferences it should follow. Knows nothing of models or losses, nor of the source of memberships (`pair_clusters`).

Shapes: `N` pairs, `K` clusters, `M` readings of the pairs of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import torch
from trl import extract_prompt

from plural_rlhf.trainers.dpo.pair_clusters import Clusters, judgement_weights
from plural_rlhf.weights.wording import POPULATION, describe_weights, steer_prompt
from reward_models.errors import JuryError
from reward_models.judgements.trl_pairs import Pair, cut_repeated_prompts


__all__ = ["LABELS", "READINGS", "PairCollator", "join_readings", "label_rows", "one_row_per_reading"]

LABELS = "pair_labels"
"""Column with membership, weight, tie, numbers and readings of each pair."""
READINGS = "readings"
"""Column with the tokens of a pair under each prompt that the policy reads."""

_TOKENS = ("prompt_ids", "chosen_ids", "rejected_ids")
_OF_PROMPT = ("prompt", "chosen", "rejected", "tools", "chat_template_kwargs")


def label_rows(
    dataset: datasets.Dataset,
    clusters: Clusters,
    *,
    objective: str,
    public_coef: float = 0.0,
    min_membership: float = 0.0,
    ties: bool = True,
    rater_numbers: Mapping[str, int] | None = None,
) -> datasets.Dataset:
    """Add the column `LABELS`: membership, weight, tie, row number, rater number and readings of each pair.

    A reading is a slot and the words that steer: slot `k < K` is the prompt that names cluster k, slot `K` the row as
    a whole (the public for `"mixture"`, the row's own weights for `"steerable"`, the plain prompt for `"average"`).

    Args:
        dataset: Pairs with `chosen`, `rejected`, optional `prompt`, and the column that `clusters` reads; optional
            `rater_weight`, `count` and `tie` (neither was preferred).
        clusters: See `find_clusters`.
        objective: That of `PluralDPOConfig`.
        public_coef: 0 if the mixture needs no reading of the public.
        min_membership: Memberships below it are taken to be 0 (`"steerable"`).
        ties: Whether the loss knows ties.
        rater_numbers: Number of each rater whose membership is learnt; others get -1.

    Raises:
        JuryError: A column is missing, or a value cannot be used; the message says the row.
        JudgementError: Text and messages are mixed in a row, see `cut_repeated_prompts`.

    Example:
        >>> pairs = datasets.Dataset.from_list([{"chosen": "yes", "rejected": "no", "cluster": "rural"}])
        >>> clusters = Clusters(["urban", "rural"], np.array([0.5, 0.5]), "cluster")
        >>> label = label_rows(pairs, clusters, objective="steerable")[LABELS][0]
        >>> label["membership"], label["slots"], label["words"]
        ([0.0, 1.0], [1], ['Answer as a member of this public: rural.'])
    """
    for column in ("chosen", "rejected"):
        if column not in dataset.column_names:
            raise JuryError(
                f"the data set has no column {column!r} (it has {', '.join(dataset.column_names)}): give TRL's "
                "preference data, with 'prompt', 'chosen' and 'rejected'."
            )
    if LABELS in dataset.column_names:
        return dataset
    dataset = _without_repeated_prompts(dataset)
    k = len(clusters.names)
    membership = clusters.memberships(dataset)
    if objective == "steerable" and clusters.source != "weights":
        least = np.minimum(min_membership, membership.max(1, keepdims=True))
        membership = np.where(membership < least, 0.0, membership)
        membership /= membership.sum(1, keepdims=True)
    steered = [describe_weights(row, clusters.names, clusters.prevalence) for row in np.eye(k)]
    with_public = objective == "mixture" and public_coef > 0
    weight, tie, labels = judgement_weights(dataset).tolist(), _ties_of(dataset, ties), []
    raters = [-1] * len(dataset)
    if rater_numbers is not None:
        raters = [rater_numbers.get(str(rater), -1) for rater in dataset["rater_id"]]
    words: list[str | None]
    for n, q in enumerate(membership):
        if objective == "average":
            slots, words = [k], [None]
        elif objective == "steerable" and clusters.source == "weights":
            slots, words = [k], [describe_weights(q, clusters.names, clusters.prevalence)]
        else:
            slots = [j for j in range(k) if q[j] > 0 or with_public]
            words = [steered[j] for j in slots]
            if with_public:
                # Half of the rows teach the plain prompt, half the words for the population, which mean the same.
                slots, words = [*slots, k], [*words, POPULATION if n % 2 else None]
        label = {"membership": q.tolist(), "weight": weight[n], "tie": tie[n], "row": n, "rater": raters[n]}
        labels.append({**label, "slots": slots, "words": words})
    return dataset.add_column(LABELS, labels)


def _without_repeated_prompts(dataset: datasets.Dataset) -> datasets.Dataset:
    """Return the pairs with responses that begin after the prompt."""
    prompts = dataset["prompt"] if "prompt" in dataset.column_names else [None] * len(dataset)
    pairs = [Pair(*row) for row in zip(prompts, dataset["chosen"], dataset["rejected"], strict=True)]
    cut = cut_repeated_prompts(pairs)
    for name in Pair._fields if cut != pairs else ():
        dataset = dataset.remove_columns(name).add_column(name, [getattr(pair, name) for pair in cut])
    return dataset


def _ties_of(dataset: datasets.Dataset, allowed: bool) -> list[bool]:
    if "tie" not in dataset.column_names:
        return [False] * len(dataset)
    ties = list(dataset["tie"])
    for row, value in enumerate(ties):
        if not isinstance(value, bool):
            raise JuryError(
                f"row {row}, column 'tie' is {value!r}: write True where neither was preferred, else False."
            )
    if any(ties) and not allowed:
        raise JuryError(
            f"{sum(ties)} pairs are ties, the first in row {ties.index(True)}, which are impossible with "
            "tie_propensity=0: set tie_propensity=1.0 (a third of the comparisons of equal responses are ties) or the "
            "value that your data show, or remove the ties."
        )
    return ties


def one_row_per_reading(dataset: datasets.Dataset, num_proc: int | None = None) -> datasets.Dataset:
    r"""Return the labelled pairs once for each of their readings, in order, with the words that steer in the prompt.

    Example:
        >>> pair = {"prompt": "More parks?", "chosen": " yes", "rejected": " no"}
        >>> label = {"words": [None, "Answer as a member of this public: rural."]}
        >>> rows = one_row_per_reading(datasets.Dataset.from_list([{**pair, LABELS: label}]))
        >>> rows["prompt"][:]
        ['More parks?', 'Answer as a member of this public: rural.\nMore parks?']
    """
    if "prompt" not in dataset.column_names:
        dataset = dataset.map(extract_prompt, num_proc=num_proc)
    kept = [column for column in _OF_PROMPT if column in dataset.column_names]

    def repeat(batch: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        where = [(n, words) for n, label in enumerate(batch[LABELS]) for words in label["words"]]
        rows: dict[str, list[Any]] = {column: [batch[column][n] for n, _ in where] for column in kept}
        rows["prompt"] = [
            prompt if words is None else steer_prompt(prompt, words)
            for prompt, (_, words) in zip(rows["prompt"], where, strict=True)
        ]
        return rows

    return dataset.map(repeat, batched=True, remove_columns=dataset.column_names, num_proc=num_proc)


def join_readings(
    pairs: datasets.Dataset, readings: datasets.Dataset | None, max_length: int | None, num_proc: int | None = None
) -> datasets.Dataset:
    """Add the tokens of each pair's readings, and cut the responses to the length that the longest prompt leaves.

    The same length for all readings, because a response that is cut in one of them would be compared with another
    response. Pairs whose prompt alone fills `max_length` are dropped, as in TRL.

    Args:
        pairs: Labelled pairs with TRL's tokens of the plain prompt.
        readings: TRL's tokens of `one_row_per_reading`, and nothing else; None if the policy reads the plain prompt
            only.
        max_length: Maximum length of prompt and response, in tokens; None for no limit.
        num_proc: Number of processes.
    """
    starts = np.cumsum([0, *(len(label["slots"]) for label in pairs[LABELS])])

    def join(pair: dict[str, Any], n: int) -> dict[str, Any]:
        all_tokens = [{column: pair[column] for column in _TOKENS}]
        if readings is not None:
            all_tokens += readings.select(range(starts[n], starts[n + 1])).to_list()
        longest = max(len(tokens["prompt_ids"]) for tokens in all_tokens)
        room = None if max_length is None else max(max_length - longest, 0)
        plain, *steered = (
            {column: ids if column == "prompt_ids" else ids[:room] for column, ids in tokens.items()}
            for tokens in all_tokens
        )
        return plain if readings is None else {**plain, READINGS: steered}

    joined = pairs.map(join, with_indices=True, num_proc=num_proc)
    return joined.filter(lambda pair: bool(pair["chosen_ids"]), num_proc=num_proc)


@dataclass
class PairCollator:
    """Makes a batch of pairs: TRL's columns of the plain prompts, the same of the readings, and the labels as tensors.

    Keys besides TRL's: `steered_<key>` for the readings; `slot` and `pair` `(M,)`, slot and pair of each reading;
    `membership` `(N, K)`, `weight`, `tie`, `row` and `rater` `(N,)`.

    Attributes:
        stock: TRL's collator.

    Example:
        >>> label = {"membership": [0.5, 0.5], "weight": 1.0, "tie": False, "row": 0, "rater": -1, "slots": [0, 1]}
        >>> batch = PairCollator(lambda pairs: {})([{LABELS: label}])
        >>> batch["pair"].tolist(), batch["slot"].tolist()  # the first pair, read twice
        ([0, 0], [0, 1])
    """

    stock: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]

    def __call__(self, pairs: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Make a batch of rows of the prepared data set."""
        batch = self.stock(pairs)
        labels = [pair[LABELS] for pair in pairs]
        for name in ("membership", "weight"):
            batch[name] = torch.tensor([label[name] for label in labels], dtype=torch.float32)
        for name in ("tie", "row", "rater"):
            batch[name] = torch.tensor([label[name] for label in labels])
        batch["slot"] = torch.tensor([slot for label in labels for slot in label["slots"]])
        batch["pair"] = torch.tensor([n for n, label in enumerate(labels) for _ in label["slots"]])
        if READINGS in pairs[0]:
            steered = self.stock([reading for pair in pairs for reading in pair[READINGS]])
            batch |= {f"steered_{name}": tensor for name, tensor in steered.items()}
        return batch
