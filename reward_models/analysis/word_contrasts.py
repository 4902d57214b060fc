"""Words and phrases that tell texts with a high contrast from texts with a low one.

The log-odds ratio with an informative Dirichlet prior: how much more often a term occurs in the texts on one side than
in those on the other, as a z-value, where the prior, the use of the term in all texts, keeps rare terms from standing
out by chance: Monroe, Colaresi and Quinn (2008), Fightin' Words, https://doi.org/10.1093/pan/mpn018. Terms are
counted once per text, and a text counts by how far it lies on a side. Knows nothing of raters or of where the contrast
comes from.

Shapes: `U` texts.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np


__all__ = ["TermIndex", "distinctive_terms"]

LONGEST_TERM = 3  # words
LONGEST_WORD = 24  # letters; longer ones are links, or sentences of a script without spaces
LEAST_TEXTS = 3  # that a term must occur in
MOST_TEXTS = 1 / 3  # share of the texts; what is in more of them is the subject, not a side
PRIOR_SHARE = 0.02  # weight of the Dirichlet prior, as a share of all occurrences
LEAST_PRIOR = 0.5  # occurrences of a single term
MOST_CONTRAST = 2.0  # of one text, in root mean squares
LEAST_Z = 1.0
PHRASE_SHARE = 0.7  # of the z-value of a word that a phrase with it must reach to be preferred: it says more
SAME_TEXTS = 0.6  # share of common texts from which on two terms say one thing
ALIKE = 6  # letters: words with a longer common beginning are forms of one word

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"  # scripts without spaces: kana and Han
_WORD = re.compile(rf"[{_CJK}]+|[^\W_{_CJK}]+(?:['’\-][^\W_{_CJK}]+)*")
_PAUSE = re.compile(rf"[^\w\s'’\-{_CJK}]+|\n+")
_ENGLISH = """
a about above after again against all almost also although always am among an and another any anybody anyone
anything anyway are around as at away back be became because become been before being below between both but by can
cannot come could did do does doing done down during each either else enough etc even ever every everybody everyone
everything few for from further get gets getting give given go goes going gone got had has have having he her here
hers herself him himself his how however i if in instead into is it its itself just keep kind know knows less let
like likely long lot lots made make makes making many may maybe me might mine more most much must my myself need
needs neither nor nothing now of off often ok okay on once one ones only onto or other others otherwise ought our
ours ourselves out over own people per perhaps person please put quite rather really regarding same say saying says
see seem seems several shall she should since so some somebody someone something sometimes somewhat soon still such
sure take takes than that the their theirs them themselves then there these they thing things think this those
though through thus till to together too toward towards try trying under until up upon us use used using usually
various very via want wants was way ways we well went were what whatever when where whether which while who whoever
whole whom whose why will with within without would yes yet you your yours yourself yourselves able actually
basically believe certain currently feel feels felt i'd i'll i'm i've it's that's there's they're they've we're
we've you're you've aren't can't couldn't didn't doesn't don't hadn't hasn't haven't isn't shouldn't wasn't weren't
won't wouldn't
"""
_FUNCTION_WORDS = frozenset(_ENGLISH.split())
_NEGATIONS = frozenset(("no", "not", "never"))
_CHINESE = """
一個 可以 不是 我覺 覺得 应该 應該 因為 因为 所以 但是 如果 這個 这个 沒有 没有 他們 他们 我們 我们 就是 目前 需要
"""
_FUNCTION_CHARACTERS = frozenset(_CHINESE.split())


class TermIndex:
    """The terms of texts, and which texts have them.

    A term is a phrase of up to three words that neither begins nor ends with a function word of English (`freedom of
    speech`; it may begin with a negation) and has no punctuation inside; of Chinese and Japanese, two to four
    characters. Letter case, plural and possessive are levelled. Words of other languages are taken as they are.

    Args:
        responses: `U` texts.
        prompts: What each responds to; its words do not count in the response. None: nothing.

    Attributes:
        texts: Per term, the texts that have it, in order.

    Example:
        >>> index = TermIndex(["Free speech matters.", "free speech!", "They were free: speech is not."])
        >>> index.texts["free speech"], index.texts["matter"]
        ([0, 1], [0])
        >>> index.wording("free speech"), index.wording("matter")
        ('free speech', 'matters')
    """

    def __init__(self, responses: Sequence[str], prompts: Sequence[str] | None = None) -> None:
        self.size = len(responses)
        self.texts: dict[str, list[int]] = defaultdict(list)
        self._wordings: dict[str, Counter[str]] = defaultdict(Counter)
        last, of_prompt = None, frozenset[str]()
        for number, (response, prompt) in enumerate(zip(responses, prompts or [""] * self.size, strict=True)):
            if prompt != last:
                words = {_level(word) for word in _WORD.findall(prompt)}
                last, of_prompt = prompt, frozenset(words | {word[:ALIKE] for word in words if len(word) >= ALIKE})
            for term, wording in dict(_terms(response, of_prompt)).items():
                self.texts[term].append(number)
                self._wordings[term][wording] += 1

    def wording(self, term: str) -> str:
        """Return the usual spelling of a term; with capital letters only if it is hardly ever written without them."""
        spellings = self._wordings[term]
        levelled: Counter[str] = Counter()
        for spelling, n in spellings.items():
            levelled[spelling.lower()] += n
        usual = levelled.most_common(1)[0][0]
        cased = Counter({spelling: n for spelling, n in spellings.items() if spelling.lower() == usual})
        return usual if cased[usual] * 5 >= cased.total() else cased.most_common(1)[0][0]


def distinctive_terms(index: TermIndex, contrast: np.ndarray, top: int = 3) -> list[tuple[str, float]]:
    """Return the terms that the texts with a positive contrast have more often than those with a negative one.

    Terms that say the same are given once: forms of one word, a word and the phrase it is in, terms of the same texts.

    Args:
        index: The terms of the texts.
        contrast: (U,) how far each text lies on the one side (positive) or the other; zero: it does not count.
        top: Number of terms.

    Returns:
        Up to `top` terms with their z-values, the most telling first; empty where no term reaches `LEAST_Z`.

    Example:
        >>> texts = ["quiet parks", "parks please", "more parks", "wider roads", "roads first", "better roads"]
        >>> distinctive_terms(TermIndex(texts), np.array([1.0, 1.0, 1.0, -1.0, -1.0, -1.0]))
        [('parks', 2.7)]
    """
    scale = np.sqrt((contrast**2).mean()) if len(contrast) else 0.0
    if scale == 0.0:
        return []
    z = _z_values(index, np.clip(contrast / scale, -MOST_CONTRAST, MOST_CONTRAST))
    found: list[str] = []
    for term in sorted(z, key=lambda t: (-z[t], t)):
        if z[term] < LEAST_Z or len(found) == top:
            break
        term = _longest_phrase(term, z)
        if not any(_say_the_same(term, other, index.texts) for other in found):
            found.append(term)
    return [(index.wording(term), round(float(z[term]), 1)) for term in found]


def _z_values(index: TermIndex, contrast: np.ndarray) -> dict[str, float]:
    """Compute the z-value of the log-odds ratio of each term that is neither rare nor everywhere."""
    for_it, against = np.maximum(contrast, 0.0), np.maximum(-contrast, 0.0)
    single = [texts for term, texts in index.texts.items() if " " not in term]
    n_for, n_against = (sum(float(side[texts].sum()) for texts in single) for side in (for_it, against))
    prior_total = PRIOR_SHARE * (n_for + n_against)
    # With few texts a term may be in half of them and tell sides apart.
    most = max(MOST_TEXTS * index.size, min(index.size / 2, 10.0))
    z = {}
    for term, texts in index.texts.items():
        if not LEAST_TEXTS <= len(texts) <= most:
            continue
        y, other = float(for_it[texts].sum()), float(against[texts].sum())
        prior = max(prior_total * (y + other) / (n_for + n_against), LEAST_PRIOR)
        y, other = y + prior, other + prior
        log_odds = np.log(y / max(n_for + prior_total - y, LEAST_PRIOR))
        log_odds -= np.log(other / max(n_against + prior_total - other, LEAST_PRIOR))
        z[term] = float(log_odds / np.sqrt(1 / y + 1 / other))
    return z


def _longest_phrase(term: str, z: Mapping[str, float]) -> str:
    """Return the most telling longer phrase with the term if it tells nearly as much, else the term."""
    longer = [p for p in z if p != term and _contains(p, term) and z[p] >= PHRASE_SHARE * z[term]]
    return max(longer, key=lambda p: (z[p], p), default=term)


def _contains(phrase: str, term: str) -> bool:
    return f" {term} " in f" {phrase} " or (term in phrase and re.match(f"[{_CJK}]", term) is not None)


def _say_the_same(one: str, other: str, texts: Mapping[str, Sequence[int]]) -> bool:
    if _contains(one, other) or _contains(other, one):
        return True
    if any(_alike(a, b) for a in one.split() for b in other.split() if {a, b}.isdisjoint(_SKIPPED)):
        return True
    common = len(set(texts[one]) & set(texts[other]))
    return common >= SAME_TEXTS * min(len(texts[one]), len(texts[other]))


def _alike(one: str, other: str) -> bool:
    """Return whether two words begin alike, as `disrupt` and `disruptive` do."""
    same = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return same >= min(len(one), len(other), ALIKE)


def _terms(response: str, of_prompt: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield (levelled, as written) for every term of a text."""
    for part in _PAUSE.split(response):
        words = _WORD.findall(part)
        levelled = [_level(word) for word in words]
        telling = [_telling(word, level, of_prompt) for word, level in zip(words, levelled, strict=True)]
        for start in range(len(words)):
            if re.match(f"[{_CJK}]", words[start]):
                yield from ((gram, gram) for gram in _characters(words[start]) if gram not in of_prompt)
                continue
            for end in range(start + 1, min(start + LONGEST_TERM, len(words)) + 1):
                if telling[end - 1] and (telling[start] or levelled[start] in _NEGATIONS):
                    yield " ".join(levelled[start:end]), " ".join(words[start:end])


def _telling(word: str, levelled: str, of_prompt: Collection[str]) -> bool:
    return (
        levelled not in _SKIPPED
        and levelled not in of_prompt
        and levelled[:ALIKE] not in of_prompt
        and 2 < len(word) <= LONGEST_WORD
        and any(map(str.isalpha, word))
        and not re.match(f"[{_CJK}]", word)
    )


def _characters(run: str) -> Iterable[str]:
    grams = (run[i : i + n] for n in (2, 3, 4) for i in range(len(run) - n + 1))
    return (gram for gram in grams if not any(part in gram for part in _FUNCTION_CHARACTERS))


def _level(word: str) -> str:
    """Level letter case, apostrophe, possessive and plural."""
    word = word.lower().replace("’", "'")
    word = word.removesuffix("'s") if word not in _FUNCTION_WORDS else word
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


_SKIPPED = (
    _NEGATIONS
    | _FUNCTION_WORDS
    | {_level(word) for word in _FUNCTION_WORDS}
    | {word.replace("'", "") for word in _FUNCTION_WORDS if "'" in word}
)
