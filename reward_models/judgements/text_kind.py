"""Of which kind texts are (script, common words, length, share of letters), and whether others are of another kind.

A jury keeps this of the texts that it was fitted to, so that texts in another language or of another length are
noticed before they are scored. It tells nothing of a single text: only quantiles are kept, and words that ten texts or
more have. It does not notice another topic, because a jury is there to score texts on other topics. Knows nothing of
juries and of models.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np

from reward_models.errors import JuryError
from reward_models.judgements.texts import Text, prompt_wording


__all__ = ["TextKind"]

MOST_WORDS = 100
FEWEST_TEXTS, SHARE_OF_TEXTS = 10, 0.02
"""A common word is in so many texts, and in this share of them: fewer would tell who wrote."""
SENTENCE = 5
"""Words are counted in texts of so many or more: labels such as `too little` have no language of their own."""
FEWEST_WORDS, FEWEST_COMMON = 30, 10
"""What it takes to say that words are of another language: so many words, and so many common ones to compare with."""
SAME_LANGUAGE = 0.25
"""English texts on other topics have .5 to 1.3 of the share of common words, texts in other languages at most .12."""
SAME_SCRIPT = 0.5
FEWEST_LENGTHS, OTHER_LENGTH, OTHER_LETTERS = 20, 3.0, 0.1
_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class TextKind:
    """Of which kind the texts are that a jury was fitted to.

    Attributes:
        scripts: Share of the letters by Unicode script, e.g. `{"latin": 1.0}`; of prompts and responses.
        words: At most 100 words that most of the prompts and responses have; empty where there are too few texts.
        word_share: Their share of all words of texts with five words or more.
        characters: The .01, .5 and .99 quantiles of the number of characters of a response; empty below 20 responses.
        letters: The same quantiles of the share of letters among the characters that are no spaces.

    Example:
        >>> topics = ["parks", "roads", "schools", "trams", "trees"]
        >>> texts = [f"I think that the city should have more {a} and no {b}" for a in topics for b in topics]
        >>> kind = TextKind.of([Text("What should the city build?", text) for text in texts])
        >>> kind.differences(responses=["The trams are what I think the city needs, and that should be all."] * 3)
        []
        >>> german = [f"Ich finde, dass die Stadt mehr {a} haben soll." for a in ("Bahnen", "Parks", "Wege", "Bäume")]
        >>> print(*kind.differences(responses=german))
        the responses look like another language: the most common words of the fitted texts are 83% of their words, and
        0% of the words of these
    """

    scripts: dict[str, float]
    words: list[str]
    word_share: float
    characters: list[float]
    letters: list[float]

    @classmethod
    def of(cls, texts: Iterable[Text]) -> TextKind:
        """Measure the texts that a jury is fitted to; equal prompts, and equal responses, count once."""
        pairs = list(texts)
        responses = list(dict.fromkeys(text.response for text in pairs))
        strings = [*dict.fromkeys(prompt_wording(text.prompt) for text in pairs), *responses]
        sentences = _sentences(strings)
        texts_with = Counter(word for words in sentences for word in set(words))
        fewest = max(FEWEST_TEXTS, SHARE_OF_TEXTS * len(sentences))
        ranked = sorted(texts_with.items(), key=lambda item: (-item[1], item[0]))
        common = sorted(word for word, number in ranked[:MOST_WORDS] if number >= fewest)
        enough = len(responses) >= FEWEST_LENGTHS
        return cls(
            scripts=_scripts(strings),
            words=common,
            word_share=_share_of(common, sentences),
            characters=_quantiles([len(text) for text in responses]) if enough else [],
            letters=_quantiles([_letter_share(text) for text in responses]) if enough else [],
        )

    def differences(self, prompts: Sequence[str] = (), responses: Sequence[str] = ()) -> list[str]:
        """Say in what texts differ from the fitted ones; empty where they do not, or where too little is known.

        Args:
            prompts: Wordings of prompts; their script and language are compared.
            responses: Responses or completions; their length and share of letters are compared too.
        """
        said = [
            sentence
            for name, texts in (("prompts", prompts), ("responses", responses))
            for sentence in self._of_another_language(name, list(dict.fromkeys(texts)))
        ]
        return said or [*self._of_another_length(responses)]

    def _of_another_language(self, name: str, texts: Sequence[str]) -> Iterable[str]:
        scripts = _scripts(texts)
        shared = sum(min(share, self.scripts.get(script, 0.0)) for script, share in scripts.items())
        if scripts and self.scripts and shared < SAME_SCRIPT:
            fitted, these = (max(shares, key=shares.__getitem__) for shares in (self.scripts, scripts))
            yield f"the {name} are mostly in {these} letters, and the fitted texts mostly in {fitted} letters"
            return
        sentences = _sentences(texts)
        if len(self.words) < FEWEST_COMMON or sum(map(len, sentences)) < FEWEST_WORDS:
            return
        share = _share_of(self.words, sentences)
        if share < SAME_LANGUAGE * self.word_share:
            yield (
                f"the {name} look like another language: the most common words of the fitted texts are "
                f"{self.word_share:.0%} of their words, and {share:.0%} of the words of these"
            )

    def _of_another_length(self, responses: Sequence[str]) -> Iterable[str]:
        if not responses or not self.characters:
            return
        low, usual, high = self.characters
        median = float(np.median([len(text) for text in responses]))
        ratio = (median + 1) / (usual + 1)
        if not low <= median <= high and not 1 / OTHER_LENGTH < ratio < OTHER_LENGTH:
            yield (
                f"half of the responses have {median:,.0f} characters or {'more' if ratio > 1 else 'fewer'}, and of "
                f"the fitted ones 98% have {low:,.0f} to {high:,.0f}"
            )
        low, usual, high = self.letters
        share = float(np.median([_letter_share(text) for text in responses]))
        if not low <= share <= high and abs(share - usual) > OTHER_LETTERS:
            yield (
                f"letters are {share:.0%} of the characters of the responses, and {usual:.0%} of the fitted ones, so "
                "these are of another kind, such as code or numbers"
            )

    def check_values(self) -> None:
        """Raise unless the values are those of texts: for a kind that was read from a file.

        Raises:
            JuryError: A share that is none, quantiles that do not rise, or words that are no texts.
        """
        shares = [*self.scripts.values(), self.word_share, *self.letters]
        if not all(isinstance(share, int | float) and -1e-9 <= share <= 1 + 1e-9 for share in shares):
            raise JuryError(f"the kind of the fitted texts has a share that is none: {shares}")
        for values in (self.characters, self.letters):
            if len(values) not in (0, 3) or sorted(values) != list(values):
                raise JuryError(f"{values} are no quantiles of the fitted texts")
        if len(self.characters) != len(self.letters):
            raise JuryError("the kind of the fitted texts has quantiles of lengths or of letters, but not both")
        if not all(isinstance(word, str) for word in self.words):
            raise JuryError("a common word of the fitted texts is no text")

    def to_dict(self) -> dict[str, Any]:
        """Return the values as plain lists, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TextKind:
        """Read back what `to_dict` returned."""
        return cls(**values)


def _sentences(texts: Iterable[str]) -> list[list[str]]:
    """Words in small letters of every text that has enough of them."""
    lists = (_WORD.findall(unicodedata.normalize("NFC", text).lower()) for text in texts)
    return [words for words in lists if len(words) >= SENTENCE]


def _share_of(common: Iterable[str], sentences: Sequence[Sequence[str]]) -> float:
    known = set(common)
    return sum(word in known for words in sentences for word in words) / max(sum(map(len, sentences)), 1)


def _scripts(texts: Iterable[str]) -> dict[str, float]:
    """Shares of the letters by script."""
    numbers = Counter[str]()
    for letter, number in Counter("".join(texts)).items():
        if letter.isalpha():
            numbers[_script(letter)] += number
    return {script: number / numbers.total() for script, number in numbers.most_common()}


@cache
def _script(letter: str) -> str:
    """Script of a letter: the first word of its name in Unicode; `latin` for `LATIN SMALL LETTER A`."""
    return unicodedata.name(letter, "unknown").split()[0].lower()


def _letter_share(text: str) -> float:
    signs = [sign for sign in text if not sign.isspace()]
    return sum(sign.isalpha() for sign in signs) / max(len(signs), 1)


def _quantiles(values: Sequence[float]) -> list[float]:
    return np.quantile(values, [0.01, 0.5, 0.99]).tolist()
