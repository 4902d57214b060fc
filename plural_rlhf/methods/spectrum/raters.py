"""From a table of judgements to one sequence per rater: what the rater judged, and how.

Knows nothing of tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from plural_rlhf.methods.spectrum.sequences import Example, SpectrumSequence
from reward_models.judgements.texts import judgement_texts


if TYPE_CHECKING:
    from reward_models.judgements.records import Judgements

__all__ = ["rater_sequences"]


def rater_sequences(
    judgements: Judgements,
    *,
    traits: Sequence[str] = (),
    rating_words: Mapping[float, str] | None = None,
) -> list[SpectrumSequence]:
    r"""Return one exchangeable sequence per rater.

    A choice is the text of the option, after the question and its options; a preference is A, B or "both alike", after
    the prompt and the two responses; a rating is its number or word, after the prompt and the response.

    Args:
        judgements: Table with raters.
        traits: Columns `rater:<trait>` that become the description, without the prefix. None by default: a trait says
            something of people whose judgements are not known, and may say what they did not agree to have said.
        rating_words: What each level of a rating means, e.g. `{-1: "disagree", 1: "agree"}`; numbers otherwise.

    Raises:
        ValueError: The table has no raters, a trait is not in it, or a level has no word.

    Example:
        >>> import pandas as pd
        >>> from reward_models import Judgements
        >>> rows = [("ann", "Tea or coffee?", ["tea", "coffee"], 1), ("bob", "Tea or coffee?", ["tea", "coffee"], 0)]
        >>> frame = pd.DataFrame(rows, columns=["rater_id", "prompt", "options", "choice"])
        >>> ann, bob = rater_sequences(Judgements.from_frame(frame))
        >>> ann.examples[0]
        Example(output='coffee', input='Tea or coffee?\n- tea\n- coffee')
    """
    if judgements.kind == "soft":
        raise ValueError("published shares have no raters. Fix: use a table of choices, preferences or ratings.")
    frame = judgements.frame
    known = [trait.removeprefix("rater:") for trait in judgements.traits]
    if unknown := [trait for trait in traits if trait not in known]:
        raise ValueError(
            f"the table has no trait {unknown[0]!r}. Fix: use {', '.join(known) or 'a table that has some'}."
        )
    words = None if rating_words is None else {float(level): word for level, word in rating_words.items()}
    levels = {float(level) for level in frame["rating"]} if judgements.kind == "rating" else set()
    if words is not None and (missing := sorted(levels - set(words))):
        raise ValueError(f"rating_words has no word for the level {missing[0]:g}. Fix: add it.")
    sequences = []
    for rater, rows in frame.groupby("rater_id", sort=True):
        records = rows.to_dict("records")
        examples = [_example(judgements.kind, row, words) for row in records for _ in range(int(row.get("count", 1)))]
        said = [f"{trait}: {records[0][f'rater:{trait}']}" for trait in traits if _is_given(records[0], trait)]
        description = f"Judgements of one person. {'; '.join(said)}." if said else None
        sequences.append(SpectrumSequence(tuple(examples), description, name=str(rater)))
    return sequences


def _is_given(row: Mapping[Any, Any], trait: str) -> bool:
    value = row[f"rater:{trait}"]
    return value is not None and value == value and str(value).strip() != ""


def _example(kind: str, row: Mapping[Any, Any], words: Mapping[float, str] | None) -> Example:
    asked, answer = judgement_texts(kind, row)
    if kind == "choice":
        asked += "".join(f"\n- {option}" for option in row["options"])
    elif kind == "rating" and words is not None:
        answer = words[float(row["rating"])]
    return Example("both alike" if kind == "preference" and answer == "tie" else answer, asked)
