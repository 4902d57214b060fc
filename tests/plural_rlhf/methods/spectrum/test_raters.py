"""One sequence per rater, and sequences in files."""

import numpy as np
import pandas as pd
import pytest

from plural_rlhf.methods.spectrum import Example, SpectrumSequence, rater_sequences, read_sequences
from reward_models import Judgements, planted_judgements


@pytest.mark.parametrize("kind", ["choice", "preference", "rating"])
def test_every_judgement_becomes_one_example_of_its_rater(kind):
    judgements = planted_judgements(kind, num_raters=6, num_items=7, strength=3.0).judgements
    sequences = rater_sequences(judgements)
    assert [s.name for s in sequences] == sorted(judgements.raters)
    assert sum(len(s.examples) for s in sequences) == len(judgements)
    assert all(s.exchangeable and s.description is None for s in sequences)


def test_a_count_is_so_many_examples_and_traits_are_told_only_where_asked():
    rows = {
        "rater_id": ["ann", "ann", "bob"],
        "prompt": ["Tea?", "Cake?", "Tea?"],
        "response": ["Yes.", "Yes.", "Yes."],
        "rating": [1, -1, -1],
        "count": [3, 1, 1],
        "rater:party": ["left", "left", np.nan],
    }
    table = Judgements.from_frame(pd.DataFrame(rows), levels=(-1, 1))
    ann, bob = rater_sequences(table, traits=["party"], rating_words={-1: "disagree", 1: "agree"})
    assert sorted(e.output for e in ann.examples) == ["agree", "agree", "agree", "disagree"]
    assert ann.description == "Judgements of one person. party: left."
    assert bob.description is None
    assert rater_sequences(table)[0].description is None
    with pytest.raises(ValueError, match=r"no trait 'age'\. Fix: use party"):
        rater_sequences(table, traits=["age"])
    with pytest.raises(ValueError, match="no word for the level -1"):
        rater_sequences(table, rating_words={1: "agree"})


def test_sequences_are_the_same_after_a_file(tmp_path):
    import json

    sequences = [
        SpectrumSequence((Example("yes", "Tea?"), Example("no")), "Ann.", exchangeable=False, name="ann"),
        SpectrumSequence((Example("schön"),), name="bob"),
    ]
    file = tmp_path / "sequences.jsonl"
    file.write_text("\n".join(json.dumps(s.to_dict()) for s in sequences), "utf-8-sig")
    assert read_sequences(file) == sequences


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[1]", "it is a list"),
        ('{"examples": [1]}', "neither a text nor a pair"),
        ('{"examples": []}', "has no example"),
        ('{"example": ["a"]}', "unknown key 'example'"),
        ('{"examples": ["a"', "is no sequence"),
        ('{"examples": "ab"}', "no list `examples`"),
        ('{"examples": ["a"], "exchangeable": "no"}', "exchangeable is 'no'. Fix: write true or false"),
        ('{"examples": ["a"], "description": 3}', "description is 3. Fix: write a text"),
        ('{"examples": ["a"], "options": "ab"}', "options is 'ab'. Fix: write a list of different texts"),
        ('{"examples": ["a"], "options": ["a", "a"]}', "options is ['a', 'a']. Fix: write a list of different texts"),
        ('{"examples": ["a"], "options": [1, 2]}', "options is [1, 2]. Fix: write a list of different texts"),
        ('{"examples": ["a"], "options": ["a"], "shares": ["x"]}', "shares is ['x']. Fix: write a list of numbers"),
        ('{"examples": ["a"], "options": ["a"], "shares": [true]}', "shares is [True]. Fix: write a list of numbers"),
        ('{"examples": ["a"], "options": ["a", "b"], "shares": [0.9, 0.9]}', "2 shares that sum to 1.8"),
    ],
)
def test_a_line_that_is_no_sequence_is_named(tmp_path, line, reason):
    file = tmp_path / "sequences.jsonl"
    file.write_text('{"examples": ["a"]}\n\n' + line)
    with pytest.raises(ValueError, match="line 3 of") as error:
        read_sequences(file)
    assert reason in str(error.value)


def test_evaluation_and_training_word_a_judgement_alike():
    """What a model is trained on is what it is asked: the same question and, but for ties, the same answer."""
    from plural_rlhf.evaluation import judgement_sequences

    for kind in ("choice", "preference", "rating"):
        judgements = planted_judgements(kind, num_raters=6, num_items=7, strength=3.0).judgements
        trained = {s.name: {(e.input, e.output) for e in s.examples} for s in rater_sequences(judgements)}
        for person in judgement_sequences(judgements):
            for example in person.examples:
                question = example.input.removesuffix("\nAnswer:").split(" (")[0]
                answer = "both alike" if example.output == "tie" else example.output
                assert any(said == answer and asked.startswith(question) for asked, said in trained[person.person])
