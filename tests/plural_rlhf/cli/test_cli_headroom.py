"""The command `headroom`: what it reads, what it prints, and how it refuses."""

from __future__ import annotations

import json
import sys
import types

import numpy as np
import pytest
from typer.testing import CliRunner

from plural_rlhf.cli import app
from tests.paths import ROOT
from tests.printed import words
from tests.synthetic_releases import SYNTHETIC


ANSWERS_MAP = str(ROOT / "configs/columns/answers.yaml")
runner = CliRunner()
pytestmark = pytest.mark.usefixtures("wide_terminal")


@pytest.fixture
def ladder(monkeypatch):
    """A headroom that remembers the judgements it was asked about."""
    from dataclasses import dataclass, field

    @dataclass
    class Found:
        verdict: str = "plain Bradley-Terry is enough"
        best: str = "item mean"
        n_judgements: int = 9
        rungs: list = field(
            default_factory=lambda: [{"name": "item mean", "nll": 0.6, "info": 0.0, "low": 0.0, "high": 0.0}]
        )

    fake = types.ModuleType("reward_models.analysis.headroom")
    fake.calls = []

    def headroom(judgements, max_clusters, seed):
        fake.calls.append((judgements, max_clusters, seed))
        return Found()

    fake.headroom = headroom
    monkeypatch.setitem(sys.modules, "reward_models.analysis.headroom", fake)
    return fake.calls


def test_headroom_of_a_table_prints_the_verdict_and_writes_json(votes, tmp_path):
    target = tmp_path / "out" / "headroom.json"
    arguments = ["headroom", str(votes), "--columns", ANSWERS_MAP, "--max-clusters", "2", "--json", str(target)]
    done = runner.invoke(app, arguments)
    assert done.exit_code == 0, done.output
    written = json.loads(target.read_text(encoding="utf-8"))
    assert written["verdict"] in words(done.output)
    assert "'no answer' -> left out 1" in words(done.output)
    gains = {rung["name"]: rung["info"] for rung in written["rungs"]}
    assert max(gains.values()) > 0.3  # the camps make each answer almost certain: log 2 = 0.69 nats to gain


@pytest.mark.slow
def test_headroom_on_texts_that_nobody_has_judged(tmp_path):
    """Two camps want short and long texts, which a model's features tell; a new text is no news to them."""
    rng, table = np.random.default_rng(0), tmp_path / "votes.csv"
    texts = [" ".join(["word", "tree", "lake"][i % 3] for i in range(n)) for n in rng.permutation(np.arange(1, 25))]
    rows = ["rater_id,prompt,response,rating"]
    for rater in range(40):
        long = (np.array([text.count(" ") for text in texts]) > 11) == bool(rater % 2)
        rows += [f"r{rater},Say it.,{text},{2 * int(like) - 1}" for text, like in zip(texts, long, strict=True)]
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")
    target = tmp_path / "headroom.json"
    arguments = ["headroom", str(table), "--features", "tiny", "--max-clusters", "2", "--json", str(target)]
    done = runner.invoke(app, [*arguments, "--set", f"policy.cache_dir={tmp_path}"])
    assert done.exit_code == 0, done.output
    written = json.loads(target.read_text(encoding="utf-8"))
    assert "Verdict: taste signal" in words(done.output)
    for name in ("known_texts", "new_texts"):
        where = name.replace("_", " ")
        assert f"Verdict on {where}, with features: {written[name]['verdict']}" in words(done.output)
    assert written["known_texts"]["n_judgements"] == written["n_judgements"]  # the same judgements are held out
    assert written["meta"]["features"] == "tiny"
    on_new = {rung["name"]: rung["info"] for rung in written["new_texts"]["rungs"]}
    assert max(on_new.values()) > 0.1
    once = tmp_path / "once.csv"  # nobody judges what another judged: labels alone tell nothing
    lines = [f"r{i % 20},Say it.,{texts[i % 24]} {i},{1 if i % 3 else -1}" for i in range(199)]
    once.write_text("\n".join([rows[0], *lines]) + "\n", encoding="utf-8")
    done = runner.invoke(app, ["headroom", str(once), *arguments[2:], "--set", f"policy.cache_dir={tmp_path}"])
    assert done.exit_code == 0, done.output
    assert "Verdict: not measured: none of 199 judgements can be held out" in words(done.output)
    assert sorted(json.loads(target.read_text(encoding="utf-8"))) == ["meta", "new_texts"]
    missing = runner.invoke(app, [*arguments[:2], "--features", str(tmp_path / "nothing")])
    assert missing.exit_code == 2
    assert "no language model at" in words(missing.output)
    assert "Verdict" not in missing.output  # said before anything is measured


def test_headroom_reads_run_files_tables_and_releases(ladder, votes, ratings, tmp_path):
    run_file = tmp_path / "run.yaml"
    data = {"source": "table", "path": str(votes), "columns": ANSWERS_MAP}
    run_file.write_text(json.dumps({"seed": 3, "data": data}), encoding="utf-8")
    prism = SYNTHETIC["prism"](tmp_path / "prism")
    for arguments in (
        [str(run_file)],
        [str(run_file), "--set", "data.max_raters=7", "--seed", "5"],
        [str(votes), "--columns", ANSWERS_MAP, "--set", "data.max_raters=7"],
        [str(ratings)],
        ["--release", "prism", "--source", str(prism), "--set", "data.options.kind=rating", "--max-clusters", "2"],
    ):
        done = runner.invoke(app, ["headroom", *arguments])
        assert done.exit_code == 0, done.output
        assert "Verdict: plain Bradley-Terry is enough" in done.output
    seen = [(found.kind, len(found), found.n_raters, clusters, seed) for found, clusters, seed in ladder]
    assert seen[0] == ("choice", 159, 40, 4, 3)
    assert [row[2:] for row in seen[1:3]] == [(7, 4, 5), (7, 4, 0)]
    assert seen[3] == ("rating", 12, 6, 4, 0)
    assert (seen[4][0], seen[4][3]) == ("rating", 2)
    target = tmp_path / "headroom.json"
    further = [str(run_file), "--set", f"data.tables=[{{path: '{ratings}'}}]", "--json", str(target)]
    done = runner.invoke(app, ["headroom", *further])
    assert done.exit_code == 0, done.output
    assert f"data.tables: '{ratings}' is left out, because one table is used here" in words(done.output)
    assert json.loads(target.read_text(encoding="utf-8"))["meta"]["tables_not_read"] == [str(ratings)]


def test_headroom_wants_exactly_one_source(votes, tmp_path):
    run_file = tmp_path / "run.yaml"
    run_file.write_text("name: trial\n", encoding="utf-8")
    for arguments, reason in (
        ([], "neither was given"),
        ([str(votes), "--release", "prism"], "both were given"),
        ([str(run_file), "--columns", "map.yaml"], "--columns belongs to a table"),
        ([str(votes), "--source", "here"], "--source is the copy of a release. Give --release NAME too"),
        ([str(votes), "--set", "data.max_ratres=7"], "Did you mean 'max_raters'?"),
        (["--release", "prsm"], "'prsm' is not a release known here. Did you mean 'prism'?"),
        ([str(votes.with_suffix(".txt"))], "answers.txt does not exist. Did you mean 'answers.csv'?"),
        ([str(votes)], "answers.csv, read without a column map: the columns fit no kind of judgement"),
    ):
        done = runner.invoke(app, ["headroom", *arguments])
        assert done.exit_code == 2
        assert reason in words(done.output)
        assert "Traceback" not in done.output
