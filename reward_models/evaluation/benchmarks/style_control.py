"""Style control: is the better response still preferred when the other one looks better?

RM-Bench (Liu and others 2024, https://arxiv.org/abs/2410.16184) writes each chosen and each rejected response in three
styles, from a concise text to a long one with Markdown, and compares all nine pairs. *Hard* are the pairs whose chosen
response is the plainer one, *normal* those of equal style, *easy* those whose chosen response is the more adorned one.
`style_accuracies` is this measure.

`judged_style` sorts pairs that people judged in the same way, by what their texts look like: words, and marks of
Markdown. It is not RM-Bench: there the content is the same in all styles, here longer responses also say more, so that
a rater who prefers them need not be misled. It says how much of an accuracy comes from pairs that a ruler decides.

Knows nothing of files or models.

Shapes: `N` pairs, `U` texts, `I` items.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from reward_models.judgements.encoding import Encoded


__all__ = ["LEVELS", "adornment", "judged_style", "style_accuracies"]

LEVELS = ("easy", "normal", "hard")
MUCH_LONGER = np.log(4 / 3)
"""A more adorned response has over a third more words; a mark of Markdown counts as ten words in the hundred."""
MARKUP = re.compile(r"^\s*(?:#{1,6}\s|[-*+•]\s|\d+[.)]\s|>\s|\|)|\*\*|```|`[^`\n]+`", re.MULTILINE)


def style_accuracies(chosen: Sequence[np.ndarray], rejected: Sequence[np.ndarray]) -> np.ndarray:
    """Compute the accuracy of each item at each level of difficulty, as RM-Bench does: equal scores are wrong.

    Args:
        chosen: For each of `I` items, (3,) scores of the chosen response in the three styles, plainest first.
        rejected: The same of the rejected response.

    Returns:
        (I, 3) easy, normal, hard.

    Example:
        A reward that counts words: the longer style wins whatever it says.

        >>> style_accuracies([np.array([1.0, 2.0, 3.0])], [np.array([1.0, 2.0, 3.0])]).tolist()
        [[1.0, 0.0, 0.0]]
    """
    wins = np.stack([c[:, None] > r[None] for c, r in zip(chosen, rejected, strict=True)]).astype(np.float64)
    row, column = np.indices(wins.shape[1:])
    return np.stack([wins[:, where].mean(1) for where in (row > column, row == column, row < column)], axis=1)


def adornment(text: str) -> float:
    r"""Compute how adorned a text looks: the log of its words, plus a tenth for each mark of Markdown in 100 words.

    Example:
        >>> round(adornment("two words"), 2), round(adornment("- **two**\n- **words**"), 2)
        (0.69, 2.89)
    """
    words = max(len(text.split()), 1)
    return float(np.log(words) + 0.1 * min(100 * len(MARKUP.findall(text)) / words, 15.0))


def judged_style(enc: Encoded) -> np.ndarray:
    """Sort judged pairs by whether the preferred response is the more adorned one.

    Args:
        enc: `N` pairs.

    Returns:
        (N,) index into `LEVELS`; -1 for ties, which have no preferred response.

    Example:
        >>> import pandas as pd
        >>> from reward_models import Judgements
        >>> rows = [("ann", "Pet?", "A cat.", "A dog, because dogs are loyal.", choice) for choice in ("a",)]
        >>> rows += [("bob", "Pet?", "A cat.", "A dog, because dogs are loyal.", "b")]
        >>> frame = pd.DataFrame(rows, columns=["rater_id", "prompt", "response_a", "response_b", "choice"])
        >>> [LEVELS[level] for level in judged_style(Judgements.from_frame(frame).encode())]
        ['hard', 'easy']
    """
    looks = np.array([adornment(text.response) for text in enc.texts])
    gap = looks[enc.alternatives[:, 0]] - looks[enc.alternatives[:, 1]]
    gap = np.where(enc.label == 0, gap, -gap)
    much = MUCH_LONGER + 1e-9  # exactly a third is not over a third, whatever the logarithms are rounded to
    level = np.where(gap > much, 0, np.where(gap < -much, 2, 1))
    return np.where(enc.label == 2, -1, level)
