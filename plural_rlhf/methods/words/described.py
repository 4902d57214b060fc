"""Raters' descriptions in words, before what they are asked: rows for a policy to imitate, a table for a jury to fit.

The words are the same in training and in use, and stand where the weights of a steerable policy stand
(`plural_rlhf.weights.wording`): in the system message. Knows the table of judgements; knows no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from plural_rlhf.methods.modular.answered import answered_texts
from plural_rlhf.policies.layouts import OFFERED, Layout
from plural_rlhf.weights.wording import POPULATION, steer_prompt
from reward_models.errors import JudgementError, did_you_mean
from reward_models.judgements.records import Judgements
from reward_models.judgements.texts import as_messages, freeze_prompt
from reward_models.judgements.traits import trait_groups
from reward_models.seeds import seeded_rng


__all__ = ["described_answers", "described_judgements", "public_in_words", "rater_words"]


def public_in_words(traits: Mapping[str, object]) -> str:
    """Return the sentence that asks for an answer of people with some traits.

    Example:
        >>> public_in_words({"party": "Democrat", "age": "18 to 29"})
        'Answer as a member of this public: party: Democrat; age: 18 to 29.'
        >>> public_in_words({})
        'Answer as a member of the public.'
    """
    words = "; ".join(f"{trait}: {value}" for trait, value in traits.items())
    return f"Answer as a member of this public: {words}." if words else POPULATION


def rater_words(judgements: Judgements, traits: Sequence[str]) -> dict[str, str]:
    """Return the sentence of each rater; traits that are not known of a rater are left out of it.

    Args:
        judgements: A table with columns `rater:<trait>`.
        traits: Names of traits, without `rater:`. Quantities are cut into groups (`trait_groups`).

    Raises:
        JudgementError: No trait is named, or the table lacks one.

    Example:
        >>> from reward_models import planted_judgements
        >>> frame = planted_judgements("choice", num_raters=3, num_items=2).judgements.frame.copy()
        >>> frame["rater:town"] = frame["rater_id"].map({"r0": "York", "r1": "Bath", "r2": None})
        >>> rater_words(Judgements.from_frame(frame), ["town"])["r1"]
        'Answer as a member of this public: town: Bath.'
    """
    known = [trait.removeprefix("rater:") for trait in judgements.traits]
    unknown = [trait for trait in traits if trait not in known]
    if unknown or not traits:
        hint = f"{unknown[0]!r} is none of them.{did_you_mean(unknown[0], known)}" if unknown else "none is named."
        raise JudgementError(
            f"the traits of the table are {', '.join(map(repr, known)) or 'none'}; {hint} Fix: name one or more "
            "columns rater:<trait>, without rater:."
        )
    groups = trait_groups(judgements)[list(traits)].astype(object)
    return {
        str(rater): public_in_words({trait: row[trait] for trait in traits if row[trait] == row[trait]})
        for rater, row in zip(groups.index, groups.to_dict("records"), strict=True)
    }


def described_answers(
    judgements: Judgements,
    traits: Sequence[str],
    *,
    undescribed: float = 0.25,
    layouts: Sequence[Layout] = OFFERED,
    shuffled: bool = True,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Return a row per answer for supervised training, with its rater's words in the system message.

    Args:
        judgements: What is imitated, as `answered_texts` reads it.
        traits: As for `rater_words`.
        undescribed: Share of the rows that ask for a member of the public instead, so that the policy also answers
            for everybody; drawn at random.
        layouts: How offered answers are shown, as for `answered_texts`.
        shuffled: Whether in random order.
        seed: Random seed.

    Returns:
        Rows with `prompt` and `completion`, lists of messages.

    Raises:
        JudgementError: As `rater_words`; or `undescribed` is no share.

    Example:
        >>> from reward_models import planted_judgements
        >>> frame = planted_judgements("choice", num_raters=4, num_items=3).judgements.frame.copy()
        >>> frame["rater:town"] = frame["rater_id"].map(lambda rater: "York" if rater < "r2" else "Bath")
        >>> rows = described_answers(Judgements.from_frame(frame), ["town"], undescribed=0.0)
        >>> len(rows), rows[0]["prompt"][0]["content"], rows[0]["prompt"][1]["role"]
        (12, 'Answer as a member of this public: town: Bath.', 'user')
    """
    if not 0 <= undescribed <= 1:
        raise JudgementError(f"undescribed={undescribed} is no share. Fix: a number from 0 to 1, e.g. 0.25.")
    members: dict[str, list[str]] = {}
    for rater, words in rater_words(judgements, traits).items():
        members.setdefault(words, []).append(rater)
    rng = seeded_rng(seed, "answers without a description")
    shown = seeded_rng(seed, "how described answers are shown")
    rows = []
    for words in sorted(members):
        of_these = int(shown.integers(2**31))
        for row in answered_texts(judgements, members[words], layouts=layouts, shuffled=shuffled, seed=of_these):
            said = POPULATION if rng.random() < undescribed else words
            rows.append({**row, "prompt": steer_prompt(row["prompt"], said)})
    return rows


def described_judgements(judgements: Judgements, traits: Sequence[str]) -> Judgements:
    """Return the table with each rater's words before the prompt: `fit_jury` on it is a jury of `p(y | x, words)`.

    The same question to people of other words is another item, so that a text has the words of those who judged it.
    One cluster (`clusters=1`) says what words say; more say what is left to say once they are known.

    Args:
        judgements: A table with raters.
        traits: As for `rater_words`.

    Raises:
        JudgementError: As `rater_words`.

    Example:
        >>> from reward_models import planted_judgements
        >>> frame = planted_judgements("choice", num_raters=4, num_items=3).judgements.frame.copy()
        >>> frame["rater:town"] = frame["rater_id"].map(lambda rater: "York" if rater < "r2" else "Bath")
        >>> described = described_judgements(Judgements.from_frame(frame), ["town"])
        >>> described.n_items, described.frame["prompt"][0][0]["content"]
        (6, 'Answer as a member of this public: town: York.')
    """
    words = rater_words(judgements, traits)
    frame = judgements.frame.copy()
    said = frame["rater_id"].astype(str).map(words)
    if "item_id" in frame:
        frame["item_id"] = frame["item_id"].astype(str) + " | " + said
    prompts = [steer_prompt(as_messages(freeze_prompt(p)), of) for p, of in zip(frame["prompt"], said, strict=True)]
    frame["prompt"] = pd.Series(prompts, index=frame.index, dtype=object)
    return Judgements.from_frame(frame, kind=judgements.kind, levels=judgements.levels)
