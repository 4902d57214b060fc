"""What sets clusters apart that were fitted to judged texts: words that one rewards more than the others, and texts.

For pairs, votes and ratings, where the items are texts and their ids say nothing. Words come from the fitted rewards
of all texts (`word_contrasts`); the texts that show a difference best come from the judgements themselves, shrunk to
the population, so that a text that two people judged is no evidence. Takes arrays: the same for a fit to labels, a fit
to texts and a saved jury. Knows nothing of how they were fitted.

Shapes: `N` judgements, `R` raters, `K` clusters, `U` texts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reward_models.analysis.word_contrasts import TermIndex, distinctive_terms
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.texts import Text, as_messages, prompt_groups
from reward_models.raters.predictors import positions
from reward_models.stats.groups import centre_within_groups


__all__ = ["JudgedTexts", "plain_line", "text_evidence", "words_of_clusters"]

PRIOR_JUDGEMENTS = 5.0  # of the population that a cluster's share is mixed with
LEAST_JUDGEMENTS = 5.0  # of a text that is evidence
LEAST_LIFT = 1.1  # of a cluster's share over the population's
LEAST_RATERS = 2.0  # of a cluster that has words
QUOTE_LENGTH = 80
MOST_TEXTS = 5_000  # that words are looked for in, the most judged
MOST_CHARACTERS = 1_000  # of each
_SPECIAL_TOKEN = re.compile(r"<\|[^|>]*\|>|</?s>")  # as chat templates write them


@dataclass(frozen=True)
class JudgedTexts:
    """Texts, the reward of each in every cluster, and the judgements behind them.

    Attributes:
        tables: The judgements, one table per kind.
        texts: `U` texts.
        rewards: (U, K) their rewards; only differences between texts of one prompt count.
        rater_ids: `R` names.
        memberships: (R, K) of those raters.
        prevalence: (K,) share of each cluster.

    Example:
        >>> from reward_models import fit_raters, planted_judgements
        >>> enc = planted_judgements("rating").judgements.encode()
        >>> fit = fit_raters(enc, "mixture", 2)
        >>> judged = JudgedTexts([enc], fit.texts, fit.rewards, fit.rater_ids, fit.responsibilities, fit.prevalence)
        >>> judged.judgements_by_text().sum().round(1)  # 30 raters, 12 texts
        np.float64(360.0)
    """

    tables: Sequence[Encoded]
    texts: Sequence[Text]
    rewards: np.ndarray
    rater_ids: Sequence[str]
    memberships: np.ndarray
    prevalence: np.ndarray

    def judgement_memberships(self, enc: Encoded) -> np.ndarray:
        """Return (N, K) the membership of each judgement's rater, times the weight of the judgement."""
        row = {rater: i for i, rater in enumerate(self.rater_ids)}
        by_rater = self.memberships[[row[rater] for rater in enc.rater_ids]]
        return enc.weight[:, None] * by_rater[enc.rater]

    def judgements_by_text(self) -> np.ndarray:
        """Count (U, K) the judgements of each text by the members of each cluster."""
        counts = np.zeros(self.rewards.shape)
        for enc in self.tables:
            weight, row = self.judgement_memberships(enc), positions(enc.texts, self.texts)
            for column in enc.alternatives.T:
                seen = (column >= 0) & (row[column] >= 0)
                np.add.at(counts, row[column[seen]], weight[seen])
        return counts

    def contrast(self, cluster: int) -> np.ndarray:
        """Compute (U,) how much more a cluster rewards each text than the others do, among the texts of its prompt."""
        share = self.prevalence[cluster]
        others = (self.rewards @ self.prevalence - share * self.rewards[:, cluster]) / (1.0 - share)
        difference = self.rewards[:, cluster] - others
        groups = prompt_groups(list(self.texts))
        if len(self.texts) < 2 * (groups.max(initial=0) + 1):  # hardly a prompt with two texts to compare
            return difference - difference.mean()
        return centre_within_groups(difference[:, None], groups)[:, 0]


def words_of_clusters(judged: JudgedTexts, top: int = 3) -> list[list[tuple[str, float]]]:
    """Find the words and phrases of the texts that each cluster rewards more than the others do.

    Args:
        judged: Texts, rewards and judgements.
        top: Number of words per cluster.

    Returns:
        Per cluster up to `top` terms with their z-values (see `distinctive_terms`); none for a single cluster, and
        none for a cluster of hardly a rater.

    Example:
        Four raters like the texts about parks, four those about roads:

        >>> from reward_models import Judgements, fit_raters
        >>> parks = ["Parks for children", "Plant trees in parks", "Parks need benches", "Greener parks"]
        >>> roads = ["Roads for trucks", "Repair the roads", "Roads need lanes", "Wider roads"]
        >>> rows = [
        ...     {"rater_id": f"r{r}", "prompt": "Plans?", "response": text, "rating": int((text in parks) == (r < 4))}
        ...     for r in range(8) for text in parks + roads
        ... ]
        >>> enc = Judgements.from_dataset(rows, levels=(0, 1)).encode()
        >>> fit = fit_raters(enc, "mixture", 2)
        >>> judged = JudgedTexts([enc], fit.texts, fit.rewards, fit.rater_ids, fit.responsibilities, fit.prevalence)
        >>> sorted(words[0][0] for words in words_of_clusters(judged))
        ['parks', 'roads']
    """
    num_clusters = judged.rewards.shape[1]
    if num_clusters == 1:
        return [[]]
    total = judged.judgements_by_text().sum(axis=1)
    read = np.sort(np.argsort(-total, kind="stable")[:MOST_TEXTS])
    texts = [judged.texts[i] for i in read]
    prompts = [as_messages(text.prompt)[-1]["content"][:MOST_CHARACTERS] for text in texts]
    index = TermIndex([text.response[:MOST_CHARACTERS] for text in texts], prompts)
    certainty = total[read] / (total[read] + PRIOR_JUDGEMENTS)
    words: list[list[tuple[str, float]]] = []
    for cluster in range(num_clusters):
        if judged.memberships[:, cluster].sum() < LEAST_RATERS:
            words.append([])
            continue
        words.append(distinctive_terms(index, certainty * judged.contrast(cluster)[read], top))
    return words


def text_evidence(
    judged: JudgedTexts, top: int = 5, labels: Mapping[str, str] | None = None
) -> list[list[dict[str, Any]]]:
    """List, per cluster, the texts whose judgements set it apart from the population.

    Of a rated text, an answer is a level; of a compared one, whether it was preferred to the other text, over all its
    pairs. A cluster's share is shrunk to the population's by `PRIOR_JUDGEMENTS`, and a text needs `LEAST_JUDGEMENTS`.

    Args:
        judged: Texts, rewards and judgements.
        top: Number of texts per cluster.
        labels: Short names of rated items by item id; the beginning of the text where there is none.

    Returns:
        Per cluster, by falling contribution `p_cluster log(p_cluster / p_population)`: `item` (the text), `label`,
        `answer`, `p_cluster`, `p_population`, `lift`, and `judgements`, their number for this text by all raters.

    Example:
        >>> from reward_models import fit_raters, planted_judgements
        >>> enc = planted_judgements("rating").judgements.encode()
        >>> fit = fit_raters(enc, "mixture", 2)
        >>> judged = JudgedTexts([enc], fit.texts, fit.rewards, fit.rater_ids, fit.responsibilities, fit.prevalence)
        >>> first = text_evidence(judged, top=1)[0][0]
        >>> first["label"], first["answer"], round(first["p_cluster"], 2), round(first["p_population"], 2)
        ('answer A', '1', 0.88, 0.53)
    """
    rows: list[list[tuple[float, dict[str, Any]]]] = [[] for _ in judged.prevalence]
    for enc in judged.tables:
        named = _named_texts(enc, labels or {})
        counts, answers, texts = _answers(enc, judged.judgement_memberships(enc))
        seen = counts.sum(axis=(0, 2))
        everybody = counts.sum(axis=0)
        population = everybody / np.maximum(everybody.sum(axis=1, keepdims=True), 1e-12)
        size = counts.sum(axis=2, keepdims=True)
        share = (counts + PRIOR_JUDGEMENTS * population) / (size + PRIOR_JUDGEMENTS)
        contribution = np.where(
            share > population, share * np.log(np.maximum(share, 1e-12) / np.maximum(population, 1e-12)), 0
        )
        contribution[:, seen < LEAST_JUDGEMENTS] = 0.0
        for cluster, of_cluster in enumerate(contribution):
            for flat in np.argsort(-of_cluster, axis=None, kind="stable")[:top]:
                text, answer = divmod(int(flat), len(answers))
                if of_cluster.flat[flat] > 1e-9:
                    p, of_all = float(share[cluster, text, answer]), float(population[text, answer])
                    evidence = {
                        "item": texts[text].response,
                        "label": named.get(text, plain_line(texts[text].response, QUOTE_LENGTH)),
                        "answer": answers[answer],
                        "p_cluster": p,
                        "p_population": of_all,
                        "lift": p / of_all,
                        "judgements": round(float(seen[text]), 1),
                    }
                    rows[cluster].append((float(of_cluster.flat[flat]), evidence))
    return [[evidence for _, evidence in sorted(of_cluster, key=lambda row: -row[0])[:top]] for of_cluster in rows]


def plain_line(text: str, length: int) -> str:
    r"""Return the beginning of a text in one line, without control characters and special tokens, fit for a prompt.

    Example:
        >>> plain_line("More\nparks,\x07 please<|im_end|>", 12)
        'More parks,…'
        >>> plain_line("Parks<|im_end|> first", 40)
        'Parks first'
    """
    text = _SPECIAL_TOKEN.sub(" ", text)
    line = " ".join("".join(c if unicodedata.category(c)[0] != "C" else " " for c in text).split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def _named_texts(enc: Encoded, labels: Mapping[str, str]) -> dict[int, str]:
    if enc.kind != "rating":
        return {}
    texts = enc.item_alternatives[:, 0].tolist()
    return {text: labels[item] for text, item in zip(texts, enc.item_ids, strict=True) if item in labels}


def _answers(enc: Encoded, membership: np.ndarray) -> tuple[np.ndarray, list[str], list[Text]]:
    """Count (K, U', A) judgements per cluster, text and answer, with the names of the answers, and the texts."""
    if enc.kind == "rating":
        assert enc.levels is not None
        names = [f"{level:g}" for level in enc.levels]
        cells = [(enc.alternatives[:, 0], enc.label, np.ones(len(enc)))]
    else:
        names, cells = ["preferred", "not preferred"], []
        for side in (0, 1):
            won = np.where(enc.label == 2, 0.5, enc.label == side)
            cells += [
                (enc.alternatives[:, side], np.zeros(len(enc), dtype=np.int64), won),
                (enc.alternatives[:, side], np.ones(len(enc), dtype=np.int64), 1.0 - won),
            ]
    counts = np.zeros((membership.shape[1], enc.n_texts * len(names)))
    for text, answer, weight in cells:
        for of_cluster, share in zip(counts, membership.T, strict=True):
            of_cluster += np.bincount(text * len(names) + answer, share * weight, counts.shape[1])
    return counts.reshape(-1, enc.n_texts, len(names)), names, enc.texts
