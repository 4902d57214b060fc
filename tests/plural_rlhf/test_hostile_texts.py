"""Texts that a border could obey: brackets, dollars, HTML, escape characters in the names of everything.

They go through the report, its figures and the commands; each shows them as they are.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from plural_rlhf.cli import app
from plural_rlhf.report.html import write_report
from plural_rlhf.report.results import RunResults
from plural_rlhf.report.tables import clusters_table, summary_table
from reward_models.borders import cell, markdown_text, visible
from reward_models.jury.modeling_jury import JuryRewardModel
from reward_models.jury.scorer import JuryScorer
from reward_models.jury.state import JuryState
from reward_models.raters.rater_model import KindTerms, RaterModel
from reward_models.trainer.model_card import JuryCard
from reward_models.yaml_text import parse_yaml
from tests.report_fixtures import stored_values
from tests.tiny import tiny_causal_lm, tiny_tokenizer


HOSTILE = {
    "markup that closes nothing": "[/]",
    "markup that vanishes": "[yes]",
    "prices": "$5 to $10",
    "mathematics that stops": r"$\undefined$",
    "an escape": "\x1b[2J\x1b]0;owned\x07",
    "html": "<script>alert(1)</script>",
    "markdown": "| [here](javascript:x) `code` *b* |",
    "reversed": "\u202etxt.exe",
    "braces": "{{ 7 * 7 }} {% raw %}",
    "emoji": ":heart: [link=file:///etc/passwd]x[/link]",
    "percent": "100%s %(x)s \\n",
}
runner = CliRunner()


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")


def renamed(value: Any, names: dict[str, str]) -> Any:
    """The same JSON with texts and keys renamed."""
    if isinstance(value, dict):
        return {names.get(key, key): renamed(part, names) for key, part in value.items()}
    if isinstance(value, list):
        return [renamed(part, names) for part in value]
    return names.get(value, value) if isinstance(value, str) else value


def hostile_results(text: str) -> RunResults:
    values = stored_values()
    names = [cluster["name"] for cluster in values["clusters"]]
    names += [option for question in values["questions"] for option in question["options"]]
    names += [question[part] for question in values["questions"] for part in ("prompt", "label") if question.get(part)]
    names += [row["grouping"] for row in values["groupings"]["rows"] if row["grouping"] != "clusters"]
    names += [entry["weighting"] for entry in values["steering"]]
    values = renamed(values, {name: f"{text} {name}" for name in names})
    values["config"]["name"] = text
    return RunResults.model_validate(values)


@pytest.mark.slow
@pytest.mark.parametrize("text", ["[/]", " ".join(HOSTILE.values())], ids=["one", "all"])
def test_a_report_shows_every_text_as_it_is(tmp_path, text):
    results = hostile_results(text)
    page = write_report(results, tmp_path).read_text(encoding="utf-8")
    written = (tmp_path / "report.md").read_text(encoding="utf-8")
    for content in (page, written):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", content)
        assert "<script" not in content.replace("</script", "")
        assert "49" not in re.findall(r"<h1>(\d+)", content)
    assert written.startswith(f"# {markdown_text(text)}: what the run found\n")
    console = Console(file=io.StringIO(), width=3000)
    console.print(clusters_table(results))
    console.print(summary_table(results))
    printed = console.file.getvalue()
    assert visible(text) in printed
    assert "\x1b" not in printed


@pytest.mark.slow
def test_figures_draw_no_mathematics(tmp_path, monkeypatch):
    from matplotlib import mathtext

    def parse(*_, **__):
        raise AssertionError("mathematics")

    monkeypatch.setattr(mathtext.MathTextParser, "parse", parse)
    write_report(hostile_results(r"$5 to $10 $\undefined$"), tmp_path)
    assert len(list((tmp_path / "figures").glob("*.png"))) > 4


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_rank_shows_every_text_as_it_is(tmp_path, text):
    path = tmp_path / "scored.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [["prompt", "response", f"reward:{text}", "reward:rural"], [text, f"{text} A", 2, 1], [text, "B", 1, 3]]
        )
    for options in ([], ["--best"], ["--explain"]):
        done = runner.invoke(app, ["rank", str(path), *options])
        assert done.exit_code == 0, done.output
        assert visible(text) in done.output
        assert "\x1b" not in done.output
    refused = runner.invoke(app, ["rank", str(path), "--weights", f"{text} nobody=1"])
    assert refused.exit_code == 2
    assert "\x1b" not in refused.output
    for option in (["--rule", text], ["--weights", f"{text}=x"]):
        wrong = runner.invoke(app, ["rank", str(path), *option])
        assert wrong.exit_code == 2, wrong.output
        assert "\x1b" not in wrong.output


@pytest.fixture(scope="module")
def hostile_jury(tmp_path_factory):
    """A jury whose clusters have two of the names."""
    folder = tmp_path_factory.mktemp("jury")
    tokenizer = tiny_tokenizer()
    names = [HOSTILE["markup that closes nothing"], HOSTILE["an escape"]]
    heads = np.random.default_rng(0).normal(size=(2, 32))
    model = JuryRewardModel.from_fit(tiny_causal_lm(tokenizer), heads, np.zeros(2), [0.7, 0.3], names)
    rater_model = RaterModel("mixture", np.eye(2), np.log([0.7, 0.3]), {"choice": KindTerms()})
    JuryScorer(model, tokenizer, state=JuryState(rater_model=rater_model)).save_pretrained(folder / "jury")
    return folder


def test_the_commands_of_a_table_show_every_text_as_it_is(hostile_jury, tmp_path):
    table = tmp_path / "table.jsonl"
    texts = list(HOSTILE.values())
    rows = [
        {
            "rater_id": name,
            "item_id": text,
            "prompt": f"{text}?",
            "options": [f"{text} yes", f"{text} no"],
            "choice": f"{text} {['yes', 'no'][(rater + item) % 2]}",
        }
        for rater, name in enumerate([*texts, *(f"r {text}" for text in texts)])
        for item, text in enumerate(texts)
    ]
    table.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    jury = str(hostile_jury / "jury")
    for arguments in (
        ["headroom", str(table), "--max-clusters", "1"],
        ["adapt", jury, "--data", str(table)],
        ["evaluate-jury", jury, "--data", str(table), "--draws", "20"],
        ["export-scalar", jury, str(tmp_path / "scalar"), "--weights", "uniform"],
    ):
        done = runner.invoke(app, arguments)
        assert done.exit_code == 0, done.output
        assert "\x1b" not in done.output
        assert "\x07" not in done.output
    assert "[/]" in runner.invoke(app, ["adapt", jury, "--data", str(table)]).output


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_model_card_shows_every_text_as_it_is(text):
    card = JuryCard(text, [text, "b"], [0.7, 0.3], {text: text}, [text, ""], text, {text: text}, tags=[text]).render()
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", card)
    head, body = card.removeprefix("---\n").split("---\n", 1)
    assert text in parse_yaml(head)["tags"]
    assert f"# {markdown_text(text)}\n" in body
    (line,) = [line for line in body.splitlines() if line.startswith(f"| {markdown_text(text)} | 70.0 %")]
    assert len(re.findall(r"(?<!\\)\|", line)) == 4
    assert "<script" not in body
    assert not re.search(r"(?<!\\)\]\(javascript", body)


@pytest.mark.slow
def test_a_terminal_in_ascii_shows_codes(tmp_path):
    path = tmp_path / "scored.csv"
    path.write_text("prompt,response,reward:größe\nWörter?,naïve,1\nWörter?,b,2\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", "from plural_rlhf.cli import app; app()", "rank", str(path)],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"W\\xf6rter?" in done.stdout


def test_a_cell_is_data():
    assert cell("[bold]x[/bold] :heart:").plain == "[bold]x[/bold] :heart:"
    assert visible("a\tb\nc\r\nd\re\ud800") == "a\tb\nc\nd\\x0de\\ud800"
