"""Judgement tables as TRL's preference data, and the memberships of their raters in the clusters of a jury.

A jury that was saved without its raters adapts them from the training pairs themselves, by Bayes' rule. Knows nothing
of policies, tokens or losses.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from transformers import AutoTokenizer

from reward_models.errors import JudgementError, JuryError
from reward_models.judgements.records import Judgements
from reward_models.judgements.texts import as_messages, freeze_prompt
from reward_models.jury.scorer import JuryScorer
from reward_models.jury.state import StoredRaters
from reward_models.raters.placement import Placement
from reward_models.trainer.data import read_data


__all__ = ["adapted_raters", "as_pairs", "has_chat_template"]

_KEPT = ("rater_id", "count", "rater_weight")
_READ = ("prompt", "chosen", "rejected", "rater_id", "count")


def as_pairs(data: Any, *, conversations: bool) -> Any:
    """Return a judgement table as TRL's preference data; data sets, mappings of them and None as they are.

    Args:
        data: What a trainer was given.
        conversations: Whether prompts in plain words become conversations of one user message, as a policy with a
            chat template reads them.

    Returns:
        For a table, a data set with `prompt`, `chosen`, `rejected`, `tie`, and the rater, count and sampling weight
        where the table has them. Of a tie, which response is `chosen` says nothing.

    Raises:
        JudgementError: A table of another kind than pairs.

    Example:
        >>> from reward_models import planted_judgements
        >>> table = planted_judgements("preference", num_raters=2, num_items=3).judgements
        >>> as_pairs(table, conversations=False)[0]["prompt"]
        'Question 1?'
        >>> as_pairs(table, conversations=True)[0]["chosen"][0]["content"]
        'answer A'
    """
    if isinstance(data, Mapping):
        return {name: as_pairs(table, conversations=conversations) for name, table in data.items()}
    if not isinstance(data, Judgements):
        return data
    if data.kind != "preference":
        raise JudgementError(
            f"the table holds {data.kind!r} judgements, and a policy is trained on pairs of responses. Fix: give a "
            "table of kind 'preference'; for ratings and choices train with PluralGRPOTrainer on the jury's scores."
        )
    frame = data.frame
    wins_b = (frame["choice"] == "b").to_numpy()
    a, b = (frame[column].to_numpy(dtype=object) for column in ("response_a", "response_b"))
    prompts = [freeze_prompt(prompt) for prompt in frame["prompt"]]
    as_turns = [conversations or not isinstance(prompt, str) for prompt in prompts]

    def turn(response: str, is_turn: bool) -> Any:
        return [{"role": "assistant", "content": response}] if is_turn else response

    columns = {
        "prompt": [as_messages(p) if is_turn else p for p, is_turn in zip(prompts, as_turns, strict=True)],
        "chosen": [turn(text, is_turn) for text, is_turn in zip(np.where(wins_b, b, a), as_turns, strict=True)],
        "rejected": [turn(text, is_turn) for text, is_turn in zip(np.where(wins_b, a, b), as_turns, strict=True)],
        "tie": (frame["choice"] == "tie").tolist(),
    }
    return datasets.Dataset.from_dict(columns | {name: frame[name].tolist() for name in _KEPT if name in frame})


def adapted_raters(
    scorer: str | Path | JuryScorer, pairs: Judgements | datasets.Dataset, stored: StoredRaters | None = None
) -> StoredRaters:
    """Adapt the raters of the training pairs to a jury; those that it has stored keep their posterior.

    Args:
        scorer: The jury, with a rater model; a path is loaded.
        pairs: The judgements, or TRL's preference data with `rater_id`; ties are left out.
        stored: Posteriors of training raters of the jury.

    Returns:
        Posteriors of all raters who preferred something; of the stored ones alone if the jury was fitted to judgements
        of another kind than pairs, so that it can adapt nobody.

    Raises:
        JuryError: The jury cannot be loaded, has no rater model, or can adapt nobody and has no raters stored.

    Example:
        >>> from reward_models import fit_jury, planted_judgements
        >>> from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
        >>> table = planted_judgements("preference", num_raters=12, num_items=8).judgements
        >>> tokenizer = tiny_tokenizer()
        >>> jury = fit_jury(table, tiny_causal_lm(tokenizer), tokenizer, clusters=2, progress=False)
        >>> len(adapted_raters(jury, table).pseudonyms)
        12
    """
    jury = scorer if isinstance(scorer, JuryScorer) else JuryScorer.from_pretrained(scorer)
    model = jury.state.rater_model
    if model is None:
        raise JuryError("the jury has no rater model, so it cannot adapt raters. Fix: save it with JuryScorer.")
    table = pairs if isinstance(pairs, Judgements) else _table(pairs)
    known = np.zeros(table.n_raters, dtype=bool) if stored is None else stored.knows(table.raters)
    remembered = [rater for rater, is_known in zip(table.raters, known, strict=True) if is_known]
    placement = Placement(model, [], np.zeros((0, model.n_states)))
    if stored is not None:
        placement = stored.placement(remembered, model)
    of_strangers = ~table.frame["rater_id"].isin(remembered) & (table.frame["choice"] != "tie")
    if of_strangers.any() and (stored is None or "preference" in model.terms):
        found = jury.adapt(table.select(of_strangers.to_numpy())).placement
        placement = Placement(
            model, placement.rater_ids + found.rater_ids, np.concatenate([placement.posterior, found.posterior])
        )
    return StoredRaters.of(placement)


def _table(dataset: datasets.Dataset) -> Judgements:
    """Read TRL's preference data as a table, without its ties."""
    ties = dataset["tie"] if "tie" in dataset.column_names else [False] * len(dataset)
    preferred = dataset.select([n for n, tie in enumerate(ties) if not tie])
    return read_data(preferred.select_columns([name for name in _READ if name in dataset.column_names])).judgements


def has_chat_template(model: Any, tokenizer: Any = None) -> bool:
    """Return whether a policy reads conversations: whether its tokenizer, given or saved with it, has a chat template.

    Example:
        >>> from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
        >>> has_chat_template(tiny_causal_lm(), tiny_tokenizer())
        True
    """
    if tokenizer is None:
        name = model if isinstance(model, str) else model.config.name_or_path
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    return tokenizer.chat_template is not None
