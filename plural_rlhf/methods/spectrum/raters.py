"""From a table of judgements to one sequence per rater: what the rater judged, and how.

Knows nothing of tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from plural_rlhf.methods.spectrum.sequences import Example, SpectrumSequence
from reward_models.judgements.texts import prompt_wording


if TYPE_CHECKING:
    from reward_models.judgements.records import Judgements

__all__ = ["rater_sequences"]

_PREFERRED = {"a": "A", "b": "B", "tie": "both alike"}


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
    if judgements.kind not in _EXAMPLES:
        raise ValueError(
            f"judgements of kind {judgements.kind!r} have no raters. Fix: use a table of {', '.join(_EXAMPLES)}."
        )
    frame = judgements.frame
    known = [str(column)[6:] for column in frame.columns if str(column).startswith("rater:")]
    if unknown := [trait for trait in traits if trait not in known]:
        raise ValueError(
            f"the table has no trait {unknown[0]!r}. Fix: use {', '.join(known) or 'a table that has some'}."
        )
    words = None if rating_words is None else {float(level): word for level, word in rating_words.items()}
    levels = {float(level) for level in frame["rating"]} if judgements.kind == "rating" else set()
    if words is not None and (missing := sorted(levels - set(words))):
        raise ValueError(f"rating_words has no word for the level {missing[0]:g}. Fix: add it.")
    example_of = _EXAMPLES[judgements.kind]
    sequences = []
    for rater, rows in frame.groupby("rater_id", sort=True):
        records = rows.to_dict("records")
        examples = [example_of(row, words) for row in records for _ in range(int(row.get("count", 1)))]
        said = [f"{trait}: {records[0][f'rater:{trait}']}" for trait in traits if _is_given(records[0], trait)]
        description = f"Judgements of one person. {'; '.join(said)}." if said else None
        sequences.append(SpectrumSequence(tuple(examples), description, name=str(rater)))
    return sequences


def _is_given(row: Mapping[Any, Any], trait: str) -> bool:
    value = row[f"rater:{trait}"]
    return value is not None and value == value and str(value).strip() != ""


def _choice(row: Mapping[Any, Any], words: Mapping[float, str] | None) -> Example:
    options = "".join(f"\n- {option}" for option in row["options"])
    return Example(str(row["options"][int(row["choice"])]), f"{prompt_wording(row['prompt'])}{options}")


def _preference(row: Mapping[Any, Any], words: Mapping[float, str] | None) -> Example:
    shown = f"{prompt_wording(row['prompt'])}\nA: {row['response_a']}\nB: {row['response_b']}"
    return Example(_PREFERRED[str(row["choice"])], shown)


def _rating(row: Mapping[Any, Any], words: Mapping[float, str] | None) -> Example:
    level = float(row["rating"])
    return Example(
        f"{level:g}" if words is None else words[level], f"{prompt_wording(row['prompt'])}\n{row['response']}"
    )


_EXAMPLES: Mapping[str, Callable[[Mapping[Any, Any], Mapping[float, str] | None], Example]] = {
    "choice": _choice,
    "preference": _preference,
    "rating": _rating,
}
