"""Tasks whose texts have a worth: NoveltyBench's utility and several objectives, with rewards of the user's own."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from plural_rlhf.evaluation.side_effects import monoculture
from plural_rlhf.policies.base_models import prepare_base_model
from plural_rlhf.report.suite.results import SuiteResults
from plural_rlhf.suites.config import SuiteConfig
from plural_rlhf.suites.engine.context import Context
from plural_rlhf.suites.evaluate import evaluate_suite
from plural_rlhf.suites.models.rewards import open_rewards
from plural_rlhf.suites.tasks.generation import monoculture as monoculture_task
from plural_rlhf.suites.tasks.generation.monoculture import MonocultureTask
from plural_rlhf.suites.tasks.generation.multi_objective import MultiObjectiveTask
from plural_rlhf.suites.tasks.generation.novelty import NoveltyTask
from plural_rlhf.suites.tasks.protocol import TaskData
from reward_models import fit_jury, planted_judgements
from reward_models.content_hashes import arrays_hash
from tests.plural_rlhf.suites.generation.test_generation_tasks import Stub, row


HERE = "tests.plural_rlhf.suites.generation.test_rewarded_tasks"
WORDS = ["parks", "roads", "schools", "trains", "taxes", "rivers", "fields", "ships"]


def words(prompts, completions):
    return [float(len(messages[0]["content"].split())) for messages in completions]


def brief(prompts, completions):
    return [-float(len(messages[0]["content"])) for messages in completions]


def broken(prompts, completions):
    return [float("nan")] * len(completions)


def raises(prompts, completions):
    raise RuntimeError("no server")


def long_writer(prompt, n, seed):
    return [f"We want more {WORDS[i % len(WORDS)]} and nothing else at all here number {i}" for i in range(n)]


def short_writer(prompt, n, seed):
    return ["parks"] * n


@pytest.fixture
def data(tmp_path):
    """Ten judged pairs of NoveltyBench with 1 to 10 words, two prompts, and what people wrote on two topics."""
    (tmp_path / "noveltybench").mkdir()
    texts = [" ".join(["word"] * n) for n in range(1, 11)]
    pairs = pd.DataFrame({"prompt": "Say something.", "generation_0": texts, "generation_1": texts, "similar": 1})
    pairs.to_parquet(tmp_path / "noveltybench" / "equivalence.parquet")
    prompts = pd.DataFrame({"id": ["a", "b"], "category": "x", "prompt": ["Colour?", "Animal?"]})
    prompts.to_parquet(tmp_path / "noveltybench" / "curated.parquet")
    (tmp_path / "polarized").mkdir()
    for topic in ("campus-protests", "right-to-assemble"):
        rows = [
            {"question_id": f"{topic}-{q}", "question": f"{topic} {q}?", "text": " ".join([word] * (1 + w % 4))}
            for q in range(3)
            for w, word in enumerate(WORDS)
        ]
        pd.DataFrame(rows).to_parquet(tmp_path / "polarized" / f"{topic}-answers.parquet")
    return tmp_path


def measured(task, model, folder, **rewards):
    loaded = task.load(TaskData(folder, rewards=open_rewards(rewards)))
    return task.measure(loaded, Context(model, draws=100))


def test_utility_counts_new_classes_by_the_deciles_of_their_reward(data):
    """Ten copies of a text of eleven words: one class worth 10, the first of ten: 10 / (1 + .8 + ... + .8 ** 9)."""
    task = NoveltyTask(embedder=lambda: None)
    same = measured(task, Stub(lambda p, rng: " ".join(["same"] * 11)), data, words=f"{HERE}:words")
    weights = 0.8 ** np.arange(10)
    assert row(same, "distinct").value == 1
    assert row(same, "utility", "words").value == pytest.approx(10 / weights.sum())
    assert row(same, "utility", "words").baselines["one_median_text"] == pytest.approx(5.5 / weights.sum())
    assert row(same, "utility", "words").baselines["published: gpt-4o"] == 3.27
    different = measured(task, Stub(lambda p, rng: str(rng.integers(10**9))), data, words=f"{HERE}:words")
    assert row(different, "distinct").value == 10
    assert row(different, "utility", "words").value == pytest.approx(1)  # ten classes of the least worth
    assert different.records[0]["scores"]["utility[words]"] == pytest.approx(1)
    assert [r.metric for r in different.rows if r.headline] == ["distinct"]


def test_without_rewards_there_is_no_utility(data):
    result = measured(NoveltyTask(embedder=lambda: None), Stub(lambda p, rng: "red"), data)
    assert {r.metric for r in result.rows} == {"distinct", "effective_classes", "largest_3"}


def test_a_jury_gives_a_utility_for_each_cluster(data):
    table = planted_judgements("rating", num_raters=20, num_items=8).judgements
    jury = fit_jury(table, prepare_base_model("tiny", data / "models"), clusters=(2,), progress=False)
    jury.save_pretrained(data / "jury")
    result = measured(
        NoveltyTask(embedder=lambda: None), Stub(lambda p, rng: str(rng.integers(9))), data, jury=str(data / "jury")
    )
    assert [r.group for r in result.rows if r.metric == "utility"] == ["jury", *jury.cluster_names]


def test_several_objectives_are_shares_of_peoples_answers_that_are_beaten(data):
    both = {"words": f"{HERE}:words", "brief": f"{HERE}:brief"}
    long = measured(MultiObjectiveTask(), Stub(lambda p, rng: " ".join(["many"] * 30)), data, **both)
    assert row(long, "objective", "words").value == 1
    assert row(long, "objective", "brief").value == 0
    assert row(long, "objective", "variety").value == pytest.approx(1 / 8)
    assert row(long, "hypervolume").value == 0
    assert row(long, "worst_objective").value == 0
    assert row(long, "mean_objective").headline
    assert row(long, "objective", "words").baselines["people"] == 0.5
    assert row(long, "objective", "words").baselines["off_topic"] == pytest.approx(0.5)  # as many words, off the topic


def test_the_report_says_which_model_is_better_in_every_objective(data, monkeypatch):
    models = [
        {"name": "long", "callable": f"{HERE}:long_writer"},
        {"name": "short", "callable": f"{HERE}:short_writer"},
    ]
    settings = {"tasks": ["multi-objective"], "rewards": {"words": f"{HERE}:words"}, "draws": 50, "data": str(data)}
    paths = {"output_dir": str(data / "out"), "answers_dir": str(data / "answers")}
    evaluate_suite(SuiteConfig(models=models, **settings, **paths))
    results = SuiteResults.read(data / "out" / "results.json")
    by_model = {member.model: member for member in results.fronts}
    assert list(by_model) == ["long", "short", "people"]
    assert by_model["long"].improves_on["short"] == 1
    assert by_model["short"].on_front == 0
    assert by_model["people"].objectives["words"] == 0.5
    assert "Which model is better in every objective?" in (data / "out" / "report.html").read_text(encoding="utf-8")


def test_numbers_under_another_reward_are_not_compared(data):
    rewards = [open_rewards({"r": f"{HERE}:{name}"}) for name in ("words", "brief", "words")]
    contents = [
        arrays_hash(NoveltyTask(embedder=lambda: None).load(TaskData(data, rewards=of_suite))) for of_suite in rewards
    ]
    assert contents[0] == contents[2] != contents[1]


@pytest.mark.parametrize(
    ("place", "fault"),
    [
        (f"{HERE}:nothing", "has no function 'nothing'"),
        (f"{HERE}:broken", "finite numbers|nan"),
        (f"{HERE}:raises", "failed on two texts .RuntimeError: no server"),
        ("no/such/folder", "no reward model"),
    ],
)
def test_rewards_that_cannot_be_used_are_named_before_any_work(place, fault):
    with pytest.raises(ValueError, match=f"(?s)rewards.mine: .*({fault})"):
        open_rewards({"mine": place})


def test_people_are_compared_with_other_people(data, monkeypatch):
    """The floor of a ratio: two halves of the same people, nobody in both, nobody in neither."""
    compared = []

    def listening(texts, people, **more):
        compared.append((texts, people))
        return monoculture.monoculture(texts, people, **more)

    monkeypatch.setattr(monoculture_task, "monoculture", listening)
    measured(MonocultureTask(n=4, embedder=lambda: None), Stub(lambda p, rng: "parks"), data)
    (_, people), (half, other) = compared
    for name, texts in people.items():
        assert len(set(texts)) == len(texts) > 4
        assert not set(half[name]) & set(other[name])
        assert sorted(half[name] + other[name]) == sorted(texts)
        assert abs(len(half[name]) - len(other[name])) <= 1


def test_monoculture_of_people_themselves_and_of_one_answer(data):
    task = MonocultureTask(n=4, embedder=lambda: None)
    wide = measured(task, Stub(lambda p, rng: f"more {rng.choice(WORDS)} {rng.integers(999)}"), data)
    one = measured(task, Stub(lambda p, rng: "parks"), data)
    assert row(one, "ratio[effective_classes]").value == pytest.approx(1 / 4)  # of people no two say the same
    assert row(one, "ratio[effective_classes]").baselines["people"] == pytest.approx(1)
    assert row(wide, "ratio[effective_classes]").value > 0.5
    assert row(one, "narrower[effective_classes]").value == 1
    assert "p 0.0" in row(one, "narrower[effective_classes]").kind
    assert row(one, "gap[effective_classes]").value > row(one, "gap[effective_classes]").baselines["floor"]
    assert [r.metric for r in one.rows if r.headline] == ["ratio[effective_classes]"]
    assert next(iter(one.records[0]["scores"])) == "gap[effective_classes]"  # what models are compared by
