"""The command `rank`: what it prints, writes and refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from plural_rlhf.cli import app
from reward_models.judgements.text_kind import TextKind
from reward_models.judgements.texts import Text
from reward_models.jury.calibration import Calibration
from reward_models.jury.modeling_jury import JuryRewardModel
from reward_models.jury.scorer import JuryScorer
from reward_models.jury.state import JuryState
from tests.printed import words
from tests.tiny import tiny_causal_lm, tiny_tokenizer


CSV = """prompt,response,reward:urban,reward:rural,reward:coast
Parks?,"Yes, two.",2.0,-1.0,0.3
Parks?,No.,-0.5,1.5,0.2
Parks?,One.,0.6,0.5,0.4
Roads?,Yes.,1,0,0
Roads?,No.,0,1,0.5
"""
runner = CliRunner()


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


def run(*arguments):
    return runner.invoke(app, ["rank", *map(str, arguments)])


@pytest.fixture
def scored(tmp_path):
    path = tmp_path / "scored.csv"
    path.write_text(CSV, encoding="utf-8")
    return path


# ── scores in the file ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_verdict_is_printed_best_first_with_the_scores_of_every_cluster(scored):
    done = run(scored, "--weights", "urban=2,rural=2,coast=1")
    assert done.exit_code == 0, done.output
    said = words(done.output)
    # (1.2 + 1 + 0.4) / 5 = .52, (4 - 2 + .3) / 5 = .46, (-1 + 3 + .2) / 5 = .44
    first, second, third = (
        "1 C One. +0.60 +0.50 +0.40 +0.52 100%",
        "2 A Yes, two. +2.00 -1.00 +0.30 +0.46 0%",
        "3 B No. -0.50 +1.50 +0.20 +0.44 0%",
    )
    assert said.index(first) < said.index(second) < said.index(third)
    assert "1 B No. +0.00 +1.00 +0.50 +0.50 100%" in said  # Roads: 2/5 against 2.5/5


def test_explain_says_who_is_pivotal_and_what_would_turn_the_verdict(scored):
    done = run(scored, "--weights", "urban=5,rural=5,coast=2", "--explain", "--limit", "1")
    said = words(done.output)
    assert "C wins under mean, with urban 41.7 %, rural 41.7 %, coast 16.7 %." in said
    assert "urban is pivotal: without it B would win." in said
    assert "urban at 44 % (now 41.7 %) would turn the verdict to A." in said
    assert "Roads?" not in said


@pytest.mark.parametrize(
    ("arguments", "winners"),
    [
        (["--weights", "urban"], ["Yes, two.", "Yes."]),
        (["--weights", "rural=1"], ["No.", "No."]),
        (["--rule", "soft_minimum(temperature=0)", "--uncalibrated"], ["One.", "Yes."]),  # .4; 0 and 0, the first
        (["--rule", "borda"], ["One.", "No."]),  # points of Parks: 2 + 0 + 1, 0 + 2 + 0, 1 + 1 + 2; of Roads: 1, 2
    ],
)
def test_best_writes_one_response_a_prompt_under_the_rule_and_weights_asked_for(scored, tmp_path, arguments, winners):
    out = tmp_path / "new" / "best.jsonl"
    done = run(scored, "--best", "--out", out, *arguments)
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row["response"] for row in rows] == winners
    assert all(winner in done.output for winner in winners)


def test_json_holds_everything_and_rows_only_limit_what_is_printed(scored, tmp_path):
    target = tmp_path / "ranked.json"
    done = run(scored, "--json", target, "--explain", "--rows", "1")
    assert done.exit_code == 0, done.output
    assert "and 1 more prompts" in done.output
    parks, roads = json.loads(target.read_text(encoding="utf-8"))["prompts"]
    assert (parks["rule"], list(parks["weights"].values())) == ("mean", pytest.approx([1 / 3] * 3))
    assert [answer["response"] for answer in parks["responses"]] == ["One.", "Yes, two.", "No."]
    assert [answer["rank"] for answer in parks["responses"]] == [1, 2, 3]
    assert roads["explanation"]["winners"] == [1]
    assert {flip["cluster"] for flip in roads["explanation"]["flips"]} == {"urban", "rural", "coast"}


def test_what_was_written_is_ranked_again_for_another_jury(scored, tmp_path):
    out = tmp_path / "out.jsonl"
    assert run(scored, "--out", out).exit_code == 0
    done = run(out, "--weights", "rural", "--best")
    assert done.exit_code == 0, done.output
    assert "Parks? No. +1.50 100%" in words(done.output)


def test_a_file_that_exists_is_kept_unless_forced(scored, tmp_path):
    for option in ("--output", "--json"):
        target = tmp_path / "there"
        target.write_text("mine", encoding="utf-8")
        refused = run(scored, option, target)
        assert refused.exit_code == 2
        assert "there exists. Give another name, or --force" in words(refused.output)
        assert target.read_text(encoding="utf-8") == "mine"
        assert run(scored, option, target, "--force").exit_code == 0
        assert "One." in target.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "arguments", "reason"),
    [
        (CSV, ["--rule", "bordda"], "Did you mean 'borda'?"),
        (CSV, ["--rule", "soft_minimum(temp=1)"], "its options are: temperature"),
        (CSV, ["--rule", "soft_minimum(temperature=-1)"], "temperature: got -1"),
        (CSV, ["--weights", "urbn=1"], "Did you mean 'urban'?"),
        (CSV, ["--weights", "urban=1,rural"], "not of the form name=share"),
        (CSV, ["--weights", "prevalence"], "scores alone do not state"),
        ("prompt,answer\nP,a\n", [], "has the columns 'prompt', 'answer'"),
        ("prompt,response\nP,a\nP,b\n", [], "row 1: there are no scores"),
        ("prompt,response,reward:u\nP,a,1\nP,,2\n", [], "row 2: the response is None"),
        ("prompt,response,reward:u\nP,a,1\nP,b,nan\n", [], "row 2: reward:u is nan"),
        ("prompt,response,reward:u\nP,a,1\n", ["--rule", "copeland"], "has one response"),
    ],
)
def test_what_cannot_be_ranked_is_refused_in_words(tmp_path, text, arguments, reason):
    path = tmp_path / "c.csv"
    path.write_text(text, encoding="utf-8")
    done = run(path, "--out", tmp_path / "out.jsonl", *arguments)
    assert done.exit_code == 2
    assert reason in words(done.output)
    assert "Traceback" not in done.output
    assert not (tmp_path / "out.jsonl").exists()


def test_scores_of_a_file_under_a_rule_that_compares_them_come_with_a_note(scored):
    assert "note: soft_minimum compares" in words(run(scored, "--rule", "soft_minimum").output)
    assert "note:" not in run(scored, "--rule", "soft_minimum", "--uncalibrated").output


def test_help_teaches_with_an_example():
    said = words(run("--help").output)
    assert "plural-rlhf rank answers.jsonl --jury" in said
    assert "prompt,response,reward:urban,reward:rural" in said


# ── a saved jury ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def jury(tmp_path_factory):
    """Two clusters of opposed taste, the second on a scale a hundred times as wide; and the same, calibrated."""
    tokenizer = tiny_tokenizer()
    head = np.random.default_rng(0).normal(size=32)
    model = JuryRewardModel.from_fit(
        tiny_causal_lm(tokenizer), np.stack([head, -100 * head]), np.zeros(2), [0.75, 0.25], ["cars, roads", "trams"]
    )
    folder = tmp_path_factory.mktemp("juries")
    JuryScorer(model, tokenizer).save_pretrained(folder / "raw")
    scale = Calibration(np.array([1.0, 100.0]), np.zeros(2), "spread", 8, 64)
    JuryScorer(model, tokenizer, state=JuryState(calibration=scale)).save_pretrained(folder / "calibrated")
    return folder


@pytest.fixture
def answers(tmp_path):
    path = tmp_path / "answers.jsonl"
    row = {"prompt": "Parks?", "responses": ["yes", "no", "not at all"]}
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    return path


def order_by(folder, weights, calibrated):
    """The order of the answers by the weighted mean, from the jury itself."""
    scorer = JuryScorer.from_pretrained(folder, calibrated=calibrated)
    texts = ["yes", "no", "not at all"]
    scores = scorer.cluster_rewards(["Parks?"] * 3, texts).double().numpy() @ np.array(weights)
    return [texts[n] for n in np.argsort(-scores)]


def written(out):
    return [json.loads(line)["response"] for line in out.read_text(encoding="utf-8").splitlines()]


def test_a_jury_scores_the_candidates_on_the_scale_of_its_calibration(jury, answers, tmp_path):
    expected = {}
    for name, options in (("calibrated", []), ("raw", []), ("calibrated", ["--uncalibrated"])):
        out = tmp_path / "out.jsonl"
        done = run(answers, "--jury", jury / name, "--out", out, "--force", *options)
        assert done.exit_code == 0, done.output
        on_scale = name == "calibrated" and not options
        expected[on_scale] = order_by(jury / name, [0.75, 0.25], on_scale)
        assert written(out) == expected[on_scale]
    # .75 r - .25 r on one scale, .75 r - 25 r on two: the wide head has its way where nobody put it in its place.
    assert expected[True] == expected[False][::-1]


def test_candidates_of_another_kind_than_the_jury_was_fitted_to_are_noted(jury, answers, tmp_path):
    scorer = JuryScorer.from_pretrained(jury / "raw")
    scorer.state = JuryState(text_kind=TextKind.of([Text("Parks?", "yes"), Text("Roads?", "not at all")]))
    scorer.save_pretrained(tmp_path / "knows")
    assert "another kind" not in words(run(answers, "--jury", tmp_path / "knows").output)
    answers.write_text(json.dumps({"prompt": "Парки?", "responses": ["да", "нет"]}) + "\n", encoding="utf-8")
    noted = words(run(answers, "--jury", tmp_path / "knows").output)
    assert "note: the jury" in noted
    assert "the prompts are mostly in cyrillic letters, and the fitted texts mostly in latin letters" in noted
    assert "another kind" not in words(run(answers, "--jury", jury / "raw").output)  # saved without its kind


def test_a_cluster_alone_decides_by_its_name_or_its_share(jury, answers, tmp_path):
    orders = []
    for number, weights in enumerate(("cars, roads", "cars, roads=1", "trams")):
        out = tmp_path / f"{number}.jsonl"
        assert run(answers, "--jury", jury / "raw", "--weights", weights, "--out", out).exit_code == 0
        orders.append(written(out))
    assert orders[0] == orders[1] == orders[2][::-1] == order_by(jury / "raw", [1.0, 0.0], False)


def test_a_rule_that_compares_clusters_wants_a_calibrated_jury(jury, answers):
    arguments = [answers, "--rule", "soft_minimum", "--jury"]
    refused = run(*arguments, jury / "raw")
    assert refused.exit_code == 2
    assert "have not been put on one scale" in words(refused.output)
    assert run(*arguments, jury / "calibrated").exit_code == 0
    assert run(*arguments, jury / "raw", "--uncalibrated").exit_code == 0


def test_scores_and_a_jury_are_one_too_many(jury, scored):
    done = run(scored, "--jury", jury / "raw")
    assert done.exit_code == 2
    assert "there are scores already (reward:urban)" in words(done.output)
