"""How well different predictors read people: loss after so many judgements, against baselines, a jury and a control.

A predictor is anything that gives shares of a target's options (`Predictor`). Beside it, on the same judgements: the
item marginal, the person's own answers, a jury whose number of clusters is chosen on tuning people, the product of
jury and predictor, and the predictor on judgements of exchanged people, which must not help.

Knows no training and no files.

Shapes: `N` targets, `A` options of a question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from plural_rlhf.evaluation.in_context.sequences import Example, PersonSequence
from plural_rlhf.methods.individuals.combination import Combination
from plural_rlhf.methods.individuals.demonstrations import Chooser, most_informative, most_recent
from plural_rlhf.methods.individuals.jury_reader import JuryReader
from plural_rlhf.methods.individuals.targets import Predictor, Targets
from reward_models.errors import JudgementError
from reward_models.seeds import seeded_rng
from reward_models.stats.judgement_means import two_way_intervals


__all__ = ["PeopleSplit", "ReadingComparison", "ReadingDifference", "ReadingNumber", "compare_readers"]

MARGINAL, OWN, JURY, EXCHANGED = "item marginal", "own answers", "jury", "exchanged people"
HALF = 0.5  # of an answer, for each option that nobody gave
PRIOR = 2.0  # answers that the general shares count for, beside a person's own


@dataclass(frozen=True)
class PeopleSplit:
    """People by what they are used for; nobody is in two parts.

    Attributes:
        train: Predictors and juries learn from them.
        tune: Numbers of clusters and exponents are chosen on them.
        test: They are scored.

    Example:
        >>> people = [PersonSequence(f"p{i}", (Example("?", "yes", ("yes", "no"), "q"),) * 2) for i in range(10)]
        >>> split = PeopleSplit.of(people, tune=0.2, test=0.3, seed=0)
        >>> len(split.train), len(split.tune), len(split.test)
        (5, 2, 3)
    """

    train: list[PersonSequence]
    tune: list[PersonSequence]
    test: list[PersonSequence]

    @classmethod
    def of(cls, people: Sequence[PersonSequence], *, tune: float, test: float, seed: int) -> PeopleSplit:
        """Divide people at random.

        Args:
            people: All people.
            tune: Share of them for tuning, above 0.
            test: Share of them for the test, above 0.
            seed: Random seed.

        Raises:
            JudgementError: A part would be empty.
        """
        order = seeded_rng(seed, "people who train, tune and test").permutation(len(people))
        n_tune, n_test = round(tune * len(people)), round(test * len(people))
        n_train = len(people) - n_tune - n_test
        if min(n_train, n_tune, n_test) < 1:
            raise JudgementError(
                f"{len(people)} people are divided into {n_train} to train, {n_tune} to tune and {n_test} to test, "
                "and each part needs somebody. Fix: bring more people, or change the shares."
            )
        parts = np.split(order, [n_train, n_train + n_tune])
        return cls(*([people[i] for i in part.tolist()] for part in parts))


@dataclass(frozen=True)
class ReadingNumber:
    """Mean loss of a predictor after `read` judgements; nats per judgement, 95 % interval over people.

    Example:
        >>> ReadingNumber("jury", 6, 0.218, 0.175, 0.269).predictor
        'jury'
    """

    predictor: str
    read: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ReadingDifference:
    """Loss of one predictor minus that of another on the same targets: below 0 the first is better.

    Example:
        >>> ReadingDifference("model", 6, "model", 0, -0.298, -0.338, -0.249).high < 0
        True
    """

    predictor: str
    read: int
    other: str
    other_read: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ReadingComparison:
    """What `compare_readers` found.

    Attributes:
        nats: Loss of each target, (N,), by predictor and number of judgements read.
        people: Person of each target.
        clusters: Number of clusters of the jury.
        exponents: Of model and jury in their product, by number of judgements read.

    Example:
        >>> nats = {("model", 0): np.ones(40), ("model", 2): np.linspace(0.4, 0.6, 40)}
        >>> found = ReadingComparison(nats, [f"p{i}" for i in range(40)], clusters=2)
        >>> number = found.numbers()[1]
        >>> number.read, round(number.value, 3), 0.45 < number.low < number.high < 0.55
        (2, 0.5, True)
    """

    nats: Mapping[tuple[str, int], np.ndarray]
    people: list[str]
    clusters: int
    exponents: Mapping[int, tuple[float, float]] = field(default_factory=dict)

    def numbers(self) -> list[ReadingNumber]:
        """Return the mean loss of each predictor after each number of judgements."""
        intervals = self._intervals(list(self.nats.values()))
        return [ReadingNumber(*key, *interval) for key, interval in zip(self.nats, intervals, strict=True)]

    def differences(self, main: str) -> list[ReadingDifference]:
        """Return what a predictor gains by reading, over its rivals, and what the control gains."""
        most = max(read for _, read in self.nats)
        best = (main, most)
        pairs = [(best, (main, 0)), *((best, (rival, most)) for rival in (MARGINAL, OWN, JURY))]
        pairs += [((EXCHANGED, most), (main, 0)), ((f"{main} + {JURY}", most), (JURY, most))]
        pairs = [(one, other) for one, other in pairs if one in self.nats and other in self.nats and one != other]
        intervals = self._intervals([self.nats[one] - self.nats[other] for one, other in pairs])
        return [
            ReadingDifference(*one, *other, *interval) for (one, other), interval in zip(pairs, intervals, strict=True)
        ]

    def _intervals(self, columns: list[np.ndarray]) -> list[tuple[float, float, float]]:
        if not columns:
            return []
        rater = np.unique(self.people, return_inverse=True)[1]
        nothing = np.zeros(len(rater), dtype=int)
        found = two_way_intervals(np.column_stack(columns), rater, nothing, items=False)
        return [(interval.value, interval.low, interval.high) for interval in found]


def compare_readers(
    split: PeopleSplit,
    predictors: Mapping[str, Predictor],
    *,
    first: int,
    read: Sequence[int],
    clusters: Sequence[int],
    most_targets: int = 6,
    choose: Chooser | Literal["informative"] = most_recent,
    seed: int = 0,
) -> ReadingComparison:
    """Score predictors, baselines, a jury and the control on the same judgements of test people.

    Args:
        split: The people; predictors have seen those of `split.train` at most.
        predictors: By name; the last one is combined with the jury and put to the control.
        first: Position of the first target of each person; at least the largest of `read`.
        read: Numbers of judgements that are read.
        clusters: Candidates for the number of clusters of the jury.
        most_targets: Most targets per person.
        choose: Which judgements are read; `informative`: those that tell most about the jury's clusters.
        seed: Random seed.

    Raises:
        JudgementError: Nobody among the tuning or test people has a judgement at position `first`.

    Example:
        >>> from plural_rlhf.evaluation.in_context.sequences import judgement_sequences
        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("choice", num_raters=120, num_items=8, strength=4.0)
        >>> split = PeopleSplit.of(judgement_sequences(planted.judgements), tune=0.3, test=0.3, seed=0)
        >>> found = compare_readers(split, {}, first=7, read=[0, 6], clusters=[1, 2])
        >>> mean = {key: nats.mean() for key, nats in found.nats.items()}
        >>> bool(mean["jury", 6] < mean["jury", 0] - 0.2), found.clusters
        (True, 2)
    """
    if first < max(read):
        raise ValueError(f"first={first} is below {max(read)} judgements that are read. Fix: use first={max(read)}.")
    tuning, targets = Targets.of(split.tune, first, most_targets), Targets.of(split.test, first, most_targets)
    for part, of_part in (("tuning", tuning), ("test", targets)):
        if not of_part.people:
            longest = max(len(person.examples) for person in (*split.tune, *split.test))
            raise JudgementError(
                f"nobody among the {part} people has more than {first} judgements (most: {longest}), so there is "
                "nothing to predict. Fix: read fewer judgements, or set a lower first target."
            )
    baselines = _baselines(split.train)
    jury = _jury(split.train, tuning, clusters, tuning.read(max(read), most_recent), seed)
    chooser = most_informative(jury) if choose == "informative" else choose
    main = list(predictors)[-1] if predictors else None
    nats: dict[tuple[str, int], np.ndarray] = {}
    on_tuning: dict[int, tuple[list[np.ndarray], list[np.ndarray], list[int]]] = {}
    predicted = {}
    for n in read:
        shown = targets.read(n, chooser)
        for name, predict in {**predictors, **baselines, JURY: jury.predict}.items():
            predicted[name, n] = targets.predicted(predict, shown)
            nats[name, n] = targets.nats(predicted[name, n])
        if main is None:
            continue
        to_tune = tuning.read(n, chooser)
        by_model, by_jury = (tuning.predicted(predict, to_tune) for predict in (predictors[main], jury.predict))
        on_tuning[n] = (by_model, by_jury, tuning.given)
        control = targets.of_exchanged_people(split.test, seed)
        nats[EXCHANGED, n] = targets.nats(control.predicted(predictors[main], shown))
    exponents: Mapping[int, tuple[float, float]] = {}
    if main is not None:
        combination = Combination.fit(on_tuning)
        exponents = combination.exponents
        for n in read:
            both = zip(predicted[main, n], predicted[JURY, n], strict=True)
            nats[f"{main} + {JURY}", n] = targets.nats([combination.shares(m, j, n) for m, j in both])
    return ReadingComparison(nats, [p.person for p in targets.people], len(jury.prevalence), exponents)


def _baselines(train: Sequence[PersonSequence]) -> dict[str, Predictor]:
    """Return the item marginal of training people, and the person's own answers among those read."""
    of_question: dict[tuple[str, tuple[str, ...]], np.ndarray] = {}
    overall: dict[tuple[str, ...], np.ndarray] = {}
    for person in train:
        for e in person.examples:
            for counts in (
                of_question.setdefault((e.question, e.options), np.full(len(e.options), HALF)),
                overall.setdefault(e.options, np.full(len(e.options), HALF)),
            ):
                counts[e.options.index(e.output)] += 1

    def usual(example: Example) -> np.ndarray:
        return overall.get(example.options, np.ones(len(example.options)))

    def marginal(
        people: Sequence[PersonSequence], read: Sequence[Sequence[int]], targets: Sequence[int]
    ) -> list[np.ndarray]:
        examples = [person.examples[target] for person, target in zip(people, targets, strict=True)]
        counts = [of_question.get((e.question, e.options), usual(e)) for e in examples]
        return [c / c.sum() for c in counts]

    def own(
        people: Sequence[PersonSequence], read: Sequence[Sequence[int]], targets: Sequence[int]
    ) -> list[np.ndarray]:
        shares = []
        for person, shown, target in zip(people, read, targets, strict=True):
            e = person.examples[target]
            counts = PRIOR * usual(e) / usual(e).sum()
            for other in (person.examples[position] for position in shown):
                if other.options == e.options:
                    counts[e.options.index(other.output)] += 1
            shares.append(counts / counts.sum())
        return shares

    return {MARGINAL: marginal, OWN: own}


def _jury(
    train: Sequence[PersonSequence],
    tuning: Targets,
    clusters: Sequence[int],
    shown: Sequence[Sequence[int]],
    seed: int,
) -> JuryReader:
    """Fit juries of several numbers of clusters; return the one that predicts tuning people best."""
    possible = [k for k in clusters if k <= len(train)] or [1]
    juries = [JuryReader.fit(train, k, seed=seed) for k in possible]
    return min(juries, key=lambda jury: tuning.nats(tuning.predicted(jury.predict, shown)).mean())
