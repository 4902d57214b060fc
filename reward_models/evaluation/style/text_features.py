"""Features of a response that have a name: how it is written, and which words it has.

English word lists; in other languages only length, punctuation, numerals and lists mean something. Knows nothing of
rewards.

Shapes: `U` texts, `F` features.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np


__all__ = ["STYLE_FEATURES", "content_words", "style_features", "word_features"]

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
LIST_ITEM = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s", re.MULTILINE)
LEAST_LETTERS = 4  # of a content word
FORM_WORDS = """
about after again also although another around away back been before being both came come does doing done down each
else even ever every from getting goes going gone have having here hers himself into itself just keep kind know less
like made make makes many more most much only other over really same self some someone something still such sure take
than that their them themselves then there these they thing things this those through till until upon used using very
want wants well were what when where whether which while whom whose will with within would
"""
LISTED = {
    "first person": "i me my mine myself we us our ours i'm i've i'd i'll we're we've",
    "second person": "you your yours yourself you're",
    "hedging": """maybe perhaps might may could possibly probably likely seem seems seemed somewhat guess think believe
    suppose unsure sometimes usually generally""",
    "negation": "no not never none nothing nobody neither nor without cannot",
    "obligation": "must should ought shall need needs required",
    "reasons": "because since therefore thus hence so reason reasons due",
    "politeness": "please thank thanks sorry welcome appreciate respect respectful",
}
"""Words that are counted together; none of them is a content word."""
NO_CONTENT = frozenset(" ".join([FORM_WORDS, *LISTED.values()]).split())


def _words(text: str) -> list[str]:
    return [word.lower().replace("’", "'") for word in WORD.findall(text)]


def _count(name: str, ending: str | None = None) -> Callable[[str], float]:
    """Return the log of one plus the number of listed words, and of words with an ending."""
    wanted = frozenset(LISTED[name].split())

    def feature(text: str) -> float:
        words = _words(text)
        return float(np.log1p(sum(word in wanted or bool(ending and word.endswith(ending)) for word in words)))

    return feature


STYLE_FEATURES: dict[str, Callable[[str], float]] = {
    "length": lambda text: float(np.log1p(len(_words(text)))),
    "long sentences": lambda text: float(np.log1p(len(_words(text)) / max(len(re.findall(r"[.!?]+", text)), 1))),
    "long words": lambda text: float(np.mean([len(word) for word in _words(text)] or [0])),
    **{name: _count(name, "n't" if name == "negation" else None) for name in LISTED},
    "question marks": lambda text: float(np.log1p(text.count("?"))),
    "exclamation marks": lambda text: float(np.log1p(text.count("!"))),
    "numerals": lambda text: float(np.log1p(len(re.findall(r"\d+", text)))),
    "list items": lambda text: float(np.log1p(len(LIST_ITEM.findall(text)))),
    "words in capitals": lambda text: float(np.log1p(sum(w.isupper() and len(w) > 1 for w in WORD.findall(text)))),
    "quotation marks": lambda text: float(np.log1p(sum(map(text.count, '"“”«»')))),
}
"""Features of how a response is written: counts as the log of one plus the count."""


def style_features(responses: Sequence[str]) -> np.ndarray:
    """Compute (U, F) the features of `STYLE_FEATURES`, in that order.

    Example:
        >>> names, [row] = list(STYLE_FEATURES), style_features(["I think we should not! Why?"])
        >>> np.expm1(row[names.index("first person")]).round(), np.expm1(row[names.index("negation")]).round()
        (np.float64(2.0), np.float64(1.0))
    """
    return np.array([[feature(response) for feature in STYLE_FEATURES.values()] for response in responses])


def content_words(responses: Sequence[str], most: int = 20, share: tuple[float, float] = (0.03, 0.5)) -> list[str]:
    """Select the words of content that occur in the most responses.

    Args:
        responses: `U` responses.
        most: How many words.
        share: Smallest and largest share of the responses that a word occurs in.

    Returns:
        Words of at least four letters, the most frequent first; no form words, and none that a feature of style
        counts.

    Example:
        >>> content_words(["More police.", "Less police, more parks.", "They would park there.", "Nothing"], most=1)
        ['police']
    """
    listed = Counter(word for response in responses for word in set(_words(response)))
    low, high = (end * len(responses) for end in share)
    words = [
        word
        for word, count in listed.items()
        if low <= count <= high and len(word) >= LEAST_LETTERS and word not in NO_CONTENT and "'" not in word
    ]
    return sorted(words, key=lambda word: (-listed[word], word))[:most]


def word_features(responses: Sequence[str], words: Sequence[str]) -> np.ndarray:
    """Compute (U, F) whether each response has each word.

    Example:
        >>> word_features(["More police.", "Parks"], ["police", "parks"]).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    sets = [set(_words(response)) for response in responses]
    return np.array([[float(word in has) for word in words] for has in sets]).reshape(len(sets), len(words))
