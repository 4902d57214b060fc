"""Published benchmarks in their own schemas, against numbers worked out by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest

from reward_models.errors import JudgementError
from reward_models.evaluation.benchmarks.items import read_benchmark
from reward_models.evaluation.benchmarks.scores import score_benchmark
from reward_models.evaluation.benchmarks.style_control import LEVELS, adornment, judged_style, style_accuracies
from reward_models.evaluation.benchmarks.ties import ties_score
from reward_models.judgements.records import Judgements


REWARDBENCH = [
    {
        "prompt": f"question {i}",
        "chosen": "good",
        "chosen_model": "m",
        "rejected": "bad",
        "rejected_model": "n",
        "subset": "alpacaeval-easy" if i < 3 else "hep-python",
        "id": i,
    }
    for i in range(5)
]
REWARDBENCH_2 = [
    {
        "id": "12",
        "prompt": "Who?",
        "chosen": ["Ann"],
        "rejected": ["Bob", "Eve", "Joe"],
        "num_correct": 1,
        "num_rejected": 3,
        "total_completions": 4,
        "models": ["m"],
        "subset": "Factuality",
        "additional_metadata": None,
    },
    {"id": "ref:1", "prompt": "Largest?", "chosen": ["nine"], "rejected": ["one"], "subset": "Ties"},
    {"id": "tied:1", "prompt": "A number?", "chosen": ["one", "two"], "rejected": ["red"], "subset": "Ties"},
]
RM_BENCH = [
    {"id": 1, "prompt": "p", "chosen": ["c1", "c2", "c3"], "rejected": ["r1", "r2", "r3"], "domain": "math"},
    {"id": 2, "prompt": "q", "chosen": ["c1", "c2", "c3"], "rejected": ["r1", "r2", "r3"], "domain": "chat"},
]


def rewards_of(benchmark, value):
    """Two clusters: the second wants the opposite of the first."""
    return {text: np.array([value(text), -value(text)]) for text in benchmark.texts}


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "json"])
@pytest.mark.parametrize(
    ("rows", "schema"),
    [
        (REWARDBENCH, "rewardbench"),
        (REWARDBENCH_2, "rewardbench-2"),
        ([{**row, "domain": "added by hand"} for row in REWARDBENCH_2], "rewardbench-2"),
        (RM_BENCH, "rm-bench"),
    ],
)
def test_every_schema_is_recognised_in_every_file(tmp_path, rows, schema, ending):
    path = tmp_path / f"data.{ending}"
    if ending == "parquet":
        pd.DataFrame(rows).to_parquet(path)
    elif ending == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        path.write_text(json.dumps(rows))
    benchmark = read_benchmark(path)
    assert benchmark.schema == schema
    assert [item.id for item in benchmark.items] == [str(row["id"]) for row in rows]
    assert benchmark.items[0].chosen == tuple(np.atleast_1d(rows[0]["chosen"]))


def written(tmp_path, rows):
    (tmp_path / "data.json").write_text(json.dumps(rows))
    return read_benchmark(tmp_path / "data.json")


def test_rewardbench_by_subset_and_cluster_with_the_scores_of_every_sample(tmp_path):
    benchmark = written(tmp_path, REWARDBENCH)

    def value(text):
        if text.prompt == "question 4":
            return 1.0  # equal scores are wrong, as RewardBench counts
        return {"good": 2.0, "bad": 1.0}[text.response] * (-1 if text.prompt == "question 0" else 1)

    found = score_benchmark(benchmark, rewards_of(benchmark, value), ["x", "y"], np.array([0.75, 0.25]))
    assert found.summary("mean") == pytest.approx({"alpacaeval-easy": 2 / 3, "hep-python": 0.5})
    assert found.summary("y") == pytest.approx({"alpacaeval-easy": 1 / 3, "hep-python": 0.0})
    result = found.result_file("m", None)
    assert list(result) == ["model", "model_type", "chat_template", "alpacaeval-easy", "hep-python", "clusters"]
    assert result["clusters"] == {name: found.summary(name) for name in ("x", "y")}
    samples = found.score_file("m", None)
    assert list(samples["clusters"]) == ["x", "y"]
    assert samples["results"] == [0.0, 1.0, 1.0, 1.0, 0.0]
    assert samples["scores_chosen"] == [-1.0, 1.0, 1.0, 1.0, 0.5]  # .75 - .25 of the first cluster's
    assert samples["clusters"]["y"]["scores_rejected"][1] == -1.0
    json.dumps(samples)
    row = next(r for r in found.rows() if r["method"] == "mean" and r["case"] == "hep-python")
    assert 0 < row["ci_low"] < 0.5 < row["ci_high"] < 1
    assert "0.667" in found.sheets()[0].markdown()


def test_rewardbench_2_shares_the_credit_of_a_tie_at_the_top(tmp_path):
    benchmark = written(tmp_path, REWARDBENCH_2)
    value = {"Ann": 2.0, "Bob": 2.0, "Eve": 0.0, "Joe": 1.0, "nine": 3.0, "one": 1.0, "two": 1.5, "red": 0.0}
    rewards = rewards_of(benchmark, lambda text: value[text.response])
    found = score_benchmark(benchmark, rewards, ["x", "y"], np.array([1.0, 0.0]))
    assert found.summary("mean")["Factuality"] == 0.5
    # ref margin 2, tied margin 1, spread .5: every share is 1, and tanh(1 / .5 - 1).
    assert found.summary("mean")["Ties"] == pytest.approx(1 + 0.01 * math.tanh(1))
    assert found.summary("y")["Ties"] == pytest.approx(0.01 * math.tanh(-2 / 0.5 - 1))
    assert found.score_file("m", None)["results"][1] is None


def test_ties_by_hand():
    prompts = {
        "ref:1": (np.array([1.0]), np.array([0.0, -1.0])),
        "tied:1": (np.array([5.0, 2.0]), np.array([1.0])),  # margin 1, spread 3
        "ref:2": (np.array([0.0]), np.array([1.0])),  # wrong
        "tied:2": (np.array([3.0, 3.0]), np.array([0.0])),  # margin 3, spread 0
    }
    found = ties_score(prompts)
    assert found.parts == pytest.approx((1.0, 0.5, 0.5, 0.0, (math.tanh(1 / 3 - 1) - 1) / 2))
    assert found.value == pytest.approx(0.3 + 0.15 + 0.1 + 0.01 * found.parts[4])
    assert math.isnan(found.low)  # two pairs are too few for an interval
    many = {f"{kind}:{i}": prompts[f"{kind}:{1 + i % 2}"] for i in range(20) for kind in ("ref", "tied")}
    found = ties_score(many)
    assert found.low < found.value < found.high
    with pytest.raises(JudgementError, match=r"each ref:N needs its tied:N"):
        ties_score({"ref:1": prompts["ref:1"]})
    with pytest.raises(JudgementError, match="not of the form ref:7"):
        ties_score({"7": prompts["ref:1"]})


def test_rm_bench_levels_by_hand(tmp_path):
    benchmark = written(tmp_path, RM_BENCH)
    score = {"c1": 2.0, "c2": 2.0, "c3": 2.0, "r1": 1.0, "r2": 2.0, "r3": 3.0}
    found = score_benchmark(
        benchmark, rewards_of(benchmark, lambda t: score[t.response]), ["x", "y"], np.array([1, 0])
    )
    # Chosen beats r1 only. Easy: (c2, r1), (c3, r1), (c3, r2); normal: (c1, r1), ...; hard: none.
    assert found.summary("mean") == pytest.approx(
        {"math": 1 / 3, "chat": 1 / 3, "accuracy_easy": 2 / 3, "accuracy_normal": 1 / 3, "accuracy_hard": 0.0}
    )
    longer = np.array([1.0, 2.0, 3.0])
    assert style_accuracies([longer], [longer]).tolist() == [[1.0, 0.0, 0.0]]


def test_pairs_that_people_judged_are_sorted_by_what_the_texts_look_like():
    plain, long, marked = "yes it does", "yes it does " * 3, "- **yes**\n- it\n- does"
    rows = [
        ("u", "1", plain, long, "a"),
        ("u", "2", plain, long, "b"),
        ("u", "3", marked, plain, "b"),
        ("u", "4", plain, "no it is not", "a"),
        ("u", "5", plain, long, "tie"),
    ]
    frame = pd.DataFrame(rows, columns=["rater_id", "prompt", "response_a", "response_b", "choice"])
    levels = judged_style(Judgements.from_frame(frame).encode())
    assert [LEVELS[level] if level >= 0 else None for level in levels] == ["hard", "easy", "hard", "normal", None]
    assert adornment("") == 0.0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data.csv", "a,b\n1,2", r"ends in '\.csv'"),
        ("data.json", "[]", "has no rows"),
        ("data.json", json.dumps(REWARDBENCH[0]), "is no list of rows with named columns"),
        ("data.json", '["a", "b"]', "is no list of rows with named columns"),
        ("data.jsonl", '{"prompt": "p", "chosen": "x", "rejected": "y"}\nnull', "is no list of rows"),
        (
            "data.jsonl",
            '{"prompt": "p", "chosen": "x", "rejected": "y"}\n{"chosen": "x", "rejected": "y"}',
            "row 2: 'prompt' is None, but rewardbench has a text there, or messages",
        ),
        ("data.json", '[{"prompt": 5, "chosen": "x", "rejected": "y"}]', "row 1: 'prompt' is 5, but"),
        ("data.json", '[{"prompt": [], "chosen": "x", "rejected": "y"}]', r"row 1: 'prompt' is \[\], but"),
        (
            "data.json",
            '[{"prompt": [{"role": "user"}], "chosen": "x", "rejected": "y"}]',
            "messages with role and content",
        ),
        (
            "data.json",
            json.dumps([*REWARDBENCH_2, REWARDBENCH_2[1]]),
            "1 ids of the subset Ties are there twice, e.g. 'ref:1'",
        ),
        ("data.json", '[{"prompt": "p", "better": "x"}]', "the first row has no chosen, rejected"),
        ("data.jsonl", '{"prompt": ', "cannot be read"),
        ("data.json", '[{"prompt": "p", "chosen": "x", "rejected": null}]', "row 1: 'rejected' is None"),
        ("data.json", '[{"prompt": "p", "chosen": ["x"], "rejected": ["y"], "domain": "d"}]', "three texts"),
    ],
)
def test_faults_name_the_row_and_the_fix(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(JudgementError, match=message):
        read_benchmark(tmp_path / name)


def test_the_first_prompt_without_its_counterpart_is_named():
    right = (np.array([1.0]), np.array([0.0]))
    with pytest.raises(JudgementError, match=r"2 of the Ties prompts have no counterpart, e\.g\. '4':"):
        ties_score({"ref:3": right, "tied:3": right, "tied:8": right, "ref:4": right})


@pytest.mark.filterwarnings("ignore::reward_models.errors.JudgementWarning")
@pytest.mark.parametrize("words", [3, 18, 36, 51])
def test_a_third_more_words_are_not_over_a_third_whatever_the_logarithms_are_rounded_to(words):
    texts = [" a" * words, " b" * (words * 4 // 3), " c" * (words * 4 // 3 + 1)]
    rows = [("u", "1", *texts[:2], "a"), ("u", "2", *texts[:2], "b"), ("v", "3", *texts[::2], "a")]
    frame = pd.DataFrame(rows, columns=["rater_id", "prompt", "response_a", "response_b", "choice"])
    levels = judged_style(Judgements.from_frame(frame).encode())
    assert [LEVELS[level] for level in levels] == ["normal", "normal", "hard"]


def test_the_same_id_in_two_other_subsets_and_messages_as_a_prompt_are_read(tmp_path):
    rows = [REWARDBENCH_2[0], {**REWARDBENCH_2[0], "subset": "Math"}, *REWARDBENCH_2[1:]]
    assert [item.id for item in written(tmp_path, rows).items] == ["12", "12", "ref:1", "tied:1"]
    talk = [{"role": "user", "content": "Who?", "name": "ann"}]
    assert written(tmp_path, [{**REWARDBENCH[0], "prompt": talk}]).items[0].prompt == (("user", "Who?"),)
    assert written(tmp_path, [{**REWARDBENCH[0], "prompt": ""}]).items[0].prompt == ""


def test_a_margin_of_nothing_is_none():
    """A correct response that scores as a wrong one, and one that is ahead by just the spread, do not win."""
    level = {"ref:1": (np.array([1.0]), np.array([1.0])), "tied:1": (np.array([3.0, 1.0]), np.array([1.0]))}
    assert ties_score(level).parts[:4] == (0.0, 0.0, 0.0, 0.0)
    just = {"ref:1": (np.array([2.0]), np.array([1.0])), "tied:1": (np.array([3.0, 2.0]), np.array([1.0]))}
    assert ties_score(just).parts[:4] == (1.0, 1.0, 0.0, 0.0)
