"""The observer test: do the words of a profile let a reader tell whose answers these are?

A reader gets the profiles of two clusters in words, and how heldout raters of one of them judged an item that no
profile was made from; it says which of the two they are. Half of the answers are right by chance. Readers: a table of
training raters' judgements that knows of a cluster only what its words say (`TableReader`), or any model
(`ModelReader`).

Shapes: `S` cells (all options of all items), `A` options of an item, `K` clusters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from plural_rlhf.methods.value_profiles.decoder import ProfileTables
from plural_rlhf.methods.value_profiles.encoders import AnswerEncoder
from plural_rlhf.methods.value_profiles.words import describe_groups, read_claims
from plural_rlhf.suites.models.protocol import EvaluatedModel, NotSupported, OptionRequest
from reward_models.analysis.answer_cells import AnswerCells, answer_cells, shrunken_tables
from reward_models.analysis.naming import answer_text, item_labels
from reward_models.fitting.latent_class import population
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.texts import prompt_wording
from reward_models.progress import track
from reward_models.seeds import seeded_rng
from reward_models.stats.few_units import means_interval
from reward_models.stats.resampling import halve_labels


__all__ = ["ModelReader", "ObserverResult", "ObserverTrial", "Reader", "TableReader", "observer_test"]

LEAST = 10  # heldout judgements of a cluster and item, below which their distribution says little


@dataclass(frozen=True)
class ObserverTrial:
    """One question to the reader.

    Attributes:
        item: Index of the item.
        wording: The item in words.
        options: Its `A` answers.
        shares: (A,) how heldout raters of one of the two clusters judged it.
    """

    item: int
    wording: str
    options: tuple[str, ...]
    shares: np.ndarray


class Reader(Protocol):
    """What reads two profiles and says whose answers it sees."""

    name: str

    def first_is_it(self, first: str, second: str, trial: ObserverTrial) -> float:
        """Return how far the first profile speaks for the answers rather than the second: above 0 says the first."""
        ...


@dataclass(frozen=True)
class ObserverResult:
    """Share of right answers.

    Attributes:
        accuracy: Over all trials; a tie counts half.
        low: Lower end of the 95 % interval over items.
        high: Upper end.
        ceiling: Share of right answers of who knows the training raters' answers to the very items: where clusters
            agree, nobody can tell them apart.
        trials: Number of trials.
        reader: Name of the reader.
    """

    accuracy: float
    low: float
    high: float
    ceiling: float
    trials: int
    reader: str


class TableReader:
    """A reader that knows training raters' judgements, and of a profile nothing but its words.

    The claims of the words are taken for the answers of a rater, and the item x profile table says what such a rater
    would answer elsewhere; the profile under which the shown shares are more probable is chosen.

    Args:
        tables: Fitted to training raters, with the vectors of `AnswerEncoder`.
        known: Label, answer and cell of everything that can be claimed.
        cells: Judgements with the cells and items of the table.

    Example:
        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("choice", num_raters=80, num_items=16)
        >>> enc = planted.judgements.encode()
        >>> group = planted.cluster[[int(rater[1:]) for rater in enc.rater_ids]]  # they are encoded in another order
        >>> train = np.array([int(rater[1:]) < 40 for rater in enc.rater_ids])
        >>> of_train, of_heldout = np.where(train, group, -1), np.where(train, -1, group)
        >>> result = observer_test(enc, of_train, of_heldout, TableReader.of(enc, train))
        >>> result.accuracy > 0.8
        True
    """

    name = "table"

    def __init__(self, tables: ProfileTables, known: Sequence[tuple[str, str, int]], cells: AnswerCells) -> None:
        self.tables, self.known, self.cell_item = tables, known, cells.cell_item

    @classmethod
    def of(cls, enc: Encoded, train: np.ndarray, *, seed: int = 0) -> TableReader:
        """Fit the table to training raters.

        Args:
            enc: The judgements.
            train: (R,) True for training raters.
            seed: Random seed.
        """
        cells = answer_cells(enc)
        read = halve_labels(cells.rater, seeded_rng(seed, "judgements that a reader's table is fitted by"))
        of_train = train[cells.rater]
        base = population(np.bincount(cells.cell, cells.weight * of_train, len(cells.cell_item)), cells.cell_item)
        encoder, training = AnswerEncoder(), cells.select(of_train)
        tables = ProfileTables.fit(training, cells.select(of_train & ~read), encoder.vectors(cells, read), base)
        # How many neighbours count is chosen; those are then found by all that they said.
        whole = encoder.vectors(cells, of_train)[np.unique(training.rater)]
        tables = dataclasses.replace(tables, vectors=whole)
        labels, first = item_labels(enc), np.searchsorted(cells.cell_item, np.arange(enc.n_items))
        known = [
            (labels[enc.item_ids[item]], answer_text(enc, int(item), cell - int(first[item])), cell)
            for cell, item in enumerate(cells.cell_item)
        ]
        return cls(tables, known, cells)

    def first_is_it(self, first: str, second: str, trial: ObserverTrial) -> float:
        """Return the difference of the mean log-probabilities of the shares under the two profiles."""
        log_p = np.log(np.stack([self._predicted(text) for text in (first, second)]))
        here = self.cell_item == trial.item
        return float((log_p[0, here] - log_p[1, here]) @ trial.shares)

    def _predicted(self, text: str) -> np.ndarray:
        """Return (S,) what a rater would answer who had said what the words claim."""
        vector = np.zeros(len(self.cell_item), dtype=np.float32)
        for cell in read_claims(text, self.known):
            of_item = self.cell_item == self.cell_item[cell]
            vector[of_item] -= self.tables.base[of_item]
            vector[cell] += 1.0
        length = np.linalg.norm(vector)
        if not length:
            return self.tables.base
        return self.tables.probabilities((vector / length)[None])[0]


class ModelReader:
    """Any model as the reader: asked in both orders, so that a liking for the first costs nothing.

    Args:
        model: A model that gives probabilities of options; one that only writes texts is asked for a text.

    Example:
        >>> from plural_rlhf.suites.models.functions import CallableModel
        >>> says_one = CallableModel("says 1", option_shares=lambda prompt, options: [0.9, 0.1])
        >>> trial = ObserverTrial(0, "Parks?", ("yes", "no"), np.array([0.8, 0.2]))
        >>> ModelReader(says_one).first_is_it("Likes parks.", "Likes roads.", trial)  # the orders cancel out
        0.0
    """

    def __init__(self, model: EvaluatedModel) -> None:
        self.model, self.name = model, model.name

    def first_is_it(self, first: str, second: str, trial: ObserverTrial) -> float:
        """Return the mean over both orders of the log-odds, or of votes, for the first profile."""
        return (self._one_order(first, second, trial) - self._one_order(second, first, trial)) / 2

    def _one_order(self, first: str, second: str, trial: ObserverTrial) -> float:
        shares = "\n".join(f"{share:.0%} {option}" for option, share in zip(trial.options, trial.shares, strict=True))
        prompt = (
            f"Two groups of people.\n\nGroup 1. {first}\n\nGroup 2. {second}\n\nOne of the groups answered "
            f"a question that is not mentioned above.\nQuestion: {trial.wording}\nAnswers:\n{shares}\n\n"
            "Which group answered so, 1 or 2? Answer with the number only.\nGroup:"
        )
        try:
            [log_p] = self.model.option_log_probs([OptionRequest(prompt, ("1", "2"))])
            return float(log_p[0] - log_p[1])
        except NotSupported:
            [[text]] = self.model.sample([prompt], 1, max_new_tokens=8, temperature=0.0)
            digit = next((letter for letter in text if letter in "12"), "")
            return {"1": 1.0, "2": -1.0}.get(digit, 0.0)


def observer_test(
    enc: Encoded,
    train_group: np.ndarray,
    heldout_group: np.ndarray,
    reader: Reader,
    *,
    keep: np.ndarray | None = None,
    top: int = 5,
    most_trials: int = 400,
    seed: int = 0,
) -> ObserverResult:
    """Ask a reader, for every pair of clusters and every item, whose judgements these are.

    The items are halved at random. The words of one half describe the clusters, and the items of the other half are
    shown; then the other way round.

    Args:
        enc: The judgements.
        train_group: (R,) cluster of each training rater, who make the words; -1 for all others.
        heldout_group: (R,) cluster of each heldout rater, whose judgements are shown; -1 for all others.
        reader: Reads the words.
        keep: (N,) True for judgements that may be shown, e.g. those that the cluster was not inferred from.
        top: Most claims of a profile.
        most_trials: Most trials, chosen at random.
        seed: Random seed.

    Returns:
        The share of right answers; nan without a trial (one cluster, or too few heldout judgements).

    Example:
        See `TableReader`.
    """
    rng = seeded_rng(seed, "trials of the observer test")
    cells = answer_cells(enc)
    half = rng.permutation(enc.n_items) < enc.n_items // 2
    known = cells.select(train_group[cells.rater] >= 0)
    n_groups = int(train_group.max(initial=-1)) + 1
    base = population(np.bincount(known.cell, known.weight, len(cells.cell_item)), cells.cell_item)
    log_p = shrunken_tables(known, np.maximum(train_group, 0), max(n_groups, 1), np.log(base))
    shown = cells if keep is None else cells.select(keep)
    shown = shown.select(heldout_group[shown.rater] >= 0)
    trials = []
    for of_words in (half, ~half):
        words = describe_groups(enc, train_group, top=top, keep=of_words[cells.item] & (train_group[cells.rater] >= 0))
        for item in np.flatnonzero(~of_words):
            for mine, trial in _shown_judgements(enc, shown, heldout_group, int(item), n_groups):
                trials += [(words[mine].text, words[k].text, mine, k, trial) for k in range(n_groups) if k != mine]
    if len(trials) > most_trials:
        trials = [trials[place] for place in np.sort(rng.choice(len(trials), size=most_trials, replace=False))]
    right, best = np.zeros(len(trials)), np.zeros(len(trials))
    for number, (first, second, mine, other, trial) in enumerate(track(trials, f"observer test ({reader.name})")):
        right[number] = _score(reader.first_is_it(first, second, trial))
        here = cells.cell_item == trial.item
        best[number] = _score(float((log_p[here, mine] - log_p[here, other]) @ trial.shares))
    return _result(right, best, np.array([trial.item for *_, trial in trials], dtype=np.int64), reader.name)


def _score(leaning: float) -> float:
    return 1.0 if leaning > 0 else 0.5 if leaning == 0 else 0.0


def _shown_judgements(
    enc: Encoded, shown: AnswerCells, group: np.ndarray, item: int, n_groups: int
) -> Iterator[tuple[int, ObserverTrial]]:
    """Yield each cluster with enough judgements of an item, and those judgements."""
    here = np.flatnonzero(shown.cell_item == item)
    of_item = shown.select(shown.item == item)
    counts = np.zeros((len(here), n_groups))
    np.add.at(counts, (of_item.cell - here[0], group[of_item.rater]), of_item.weight)
    options = tuple(answer_text(enc, item, place) for place in range(len(here)))
    for k in range(n_groups):
        if counts[:, k].sum() >= LEAST:
            yield k, ObserverTrial(item, _wording(enc, item), options, counts[:, k] / counts[:, k].sum())


def _result(right: np.ndarray, best: np.ndarray, items: np.ndarray, reader: str) -> ObserverResult:
    """Average over trials, with an interval over items: the trials of one item stand or fall together."""
    if not len(right):
        return ObserverResult(np.nan, np.nan, np.nan, np.nan, 0, reader)
    row = np.unique(items, return_inverse=True)[1]
    of_item = np.column_stack([np.bincount(row, right), np.bincount(row)])
    value, low, high = means_interval(of_item, lambda means: means[..., 0] / means[..., 1])
    return ObserverResult(value, max(low, 0.0), min(high, 1.0), float(best.mean()), len(right), reader)


def _wording(enc: Encoded, item: int) -> str:
    """Return an item in words: the question, and what is rated or compared."""
    texts = [enc.texts[index] for index in enc.item_alternatives[item] if index >= 0]
    asked = prompt_wording(texts[0].prompt)
    if enc.kind == "rating":
        return "\n".join(part for part in (asked, texts[0].response) if part)
    if enc.kind == "preference":
        return "\n".join([asked, *(text.response for text in texts)])
    return asked
