"""Clusters from labels alone: any kind of table, no language model, the memberships of everybody; and final fits."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from plural_rlhf.cli import app
from plural_rlhf.recipe import run
from plural_rlhf.recipe.config import load_config
from plural_rlhf.recipe.survey.description import MOST_VALUES, describe_survey
from plural_rlhf.report.names import SkippedPart
from plural_rlhf.report.results import RunResults
from reward_models import adjusted_rand_index, fit_mixture, planted_judgements
from tests.benchmark_modules import benchmark_module
from tests.plural_rlhf.recipe.test_recipe import SMOKE, quietly
from tests.printed import words


pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
INDEXED = {"choice": "index: 0\n", "rating": "", "preference": ""}


def table(tmp_path, kind="choice", raters=40, items=8):
    planted = planted_judgements(kind, num_raters=raters, num_items=items)
    frame = planted.judgements.frame
    number = frame["rater_id"].str[1:].astype(int)
    frame["rater:wave"] = np.where(number % 4 == 0, "2018", "2022")
    path = tmp_path / "answers.jsonl"
    frame.to_json(path, orient="records", lines=True)
    (tmp_path / "map.yaml").write_text(INDEXED[kind])
    return planted, path


def command(tmp_path, *arguments):
    return CliRunner().invoke(app, ["fit-jury", *map(str, arguments), "--output", str(tmp_path / "out")])


@pytest.mark.slow
@pytest.mark.parametrize("kind", INDEXED)
def test_any_table_gives_memberships_of_everybody_and_a_report(tmp_path, kind):
    planted, path = table(tmp_path, kind)
    columns = ("--columns", tmp_path / "map.yaml") if INDEXED[kind] else ()
    done = command(tmp_path, "--labels-only", path, *columns, "--set", "jury.clusters=2", "--set", "jury.by=[wave]")
    assert done.exit_code == 0, done.output
    out = tmp_path / "out"
    memberships = pd.read_csv(out / "memberships.csv")
    results = RunResults.read(out / "results.json")
    names = [cluster.name for cluster in results.clusters]
    assert sorted(memberships["rater_id"]) == sorted(planted.judgements.raters)
    assert memberships[names].sum(axis=1).to_numpy() == pytest.approx(1, abs=2e-4)
    assert memberships["most_probable"].tolist() == [names[k] for k in memberships[names].to_numpy().argmax(axis=1)]
    cluster = [planted.cluster[int(rater[1:])] for rater in memberships["rater_id"]]
    assert adjusted_rand_index(memberships["most_probable"], cluster) > 0.8
    assert (results.scope, results.data.train_raters, results.data.heldout_raters) == ("labels", 40, 0)
    assert results.data.source == str(path)
    assert [row.value for row in results.survey.by] == ["2018", "2022"]
    assert len(results.questions) == (0 if kind == "preference" else 8)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "No language model was used" in page
    assert "wave: 2018" in page
    for word in ("plural (ours)", "was not evaluated", "stock GRPO"):
        assert word not in page


@pytest.mark.slow
def test_no_language_model_is_imported(tmp_path):
    _, path = table(tmp_path)
    code = (
        "import sys; from plural_rlhf.recipe import fit_labels, make_config\n"
        f"data = {{'source': 'table', 'path': {str(path)!r}, 'columns': {{'index': 0}}}}\n"
        f"fit_labels(make_config({{'output_dir': {str(tmp_path / 'out')!r}, 'data': data}}, origin='test'))\n"
        "print([m for m in ('transformers', 'trl', 'peft') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_nothing_is_written_over_and_what_cannot_be_used_is_refused_first(tmp_path):
    _, path = table(tmp_path)
    call = ("--labels-only", path, "--columns", tmp_path / "map.yaml", "--set", "jury.clusters=1")
    unknown = command(tmp_path, *call, "--set", "jury.by=[country]")
    assert unknown.exit_code == 2
    assert "no trait 'country'" in unknown.output
    assert not (tmp_path / "out").exists()
    assert command(tmp_path, *call).exit_code == 0
    again = command(tmp_path, *call)
    assert again.exit_code == 2
    assert "--overwrite" in again.output
    further = command(tmp_path, *call, "--overwrite", "--set", f"data.tables=[{{path: '{path}'}}]")
    assert further.exit_code == 0
    assert "is left out, because one table is used here" in words(further.output)
    (tmp_path / "out" / "results.json").unlink()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    assert "something else" in command(tmp_path, *call, "--overwrite").output
    # A table may also be fitted with a model; that does not write over this folder either.
    assert "another folder" in command(tmp_path, path).output


@pytest.mark.slow
def test_a_final_fit_holds_out_no_question_and_says_what_is_then_not_known(tmp_path):
    _, path = table(tmp_path, raters=30, items=6)
    settings = ["policy.model=tiny", f"policy.cache_dir={tmp_path / 'models'}", f"output_dir={tmp_path / 'run'}"]
    settings += ["data.source=table", f"data.path={path}", "data.columns.index=0", "data.heldout_questions=0"]
    config = load_config(SMOKE, [*settings, "jury.clusters=2", "evaluate.draws=20", "grpo.steps=0"])
    results = run(config, command="test", console=quietly(), until="report")
    assert len(results.data.train_questions) == 6
    assert results.data.heldout_questions == []
    assert {row.split for row in results.rows} == {"train"}
    assert json.loads((tmp_path / "run" / "heldout.json").read_text())["items"]["heldout"] == []
    assert "data.heldout_questions is 0" in results.reason(SkippedPart.HELDOUT)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "nothing is known of new questions" in page
    assert "never trained on, the model" not in page


@pytest.mark.slow
def test_a_kill_while_the_files_are_written_leaves_a_folder_that_can_be_used(tmp_path):
    injection = benchmark_module("_faults.injection")
    _, path = table(tmp_path, "rating", raters=20, items=6)
    arguments = ("--labels-only", path, "--set", "jury.clusters=2")
    for moment, more in (("memberships.csv", ()), ("report.md", ()), ("memberships.csv", ("--overwrite",))):

        def killed(moment=moment, more=more):
            injection.after(tmp_path / "out", moment, injection.die)
            return command(tmp_path, *arguments, *more).output

        assert injection.in_child(killed).status < 0
        assert not (tmp_path / "out" / "results.json").exists()
        if moment == "report.md":
            done = command(tmp_path, *arguments)
            assert done.exit_code == 0, done.output
    assert command(tmp_path, *arguments).exit_code == 0


@pytest.mark.slow
def test_who_did_not_answer_what_is_said_by_cluster(tmp_path):
    """Savers refuse to say what they earn; a tenth of everybody was never asked about parks."""
    planted = planted_judgements("choice", num_raters=60, num_items=8, strength=4.0)
    table = planted.judgements.frame.pivot(index="rater_id", columns="prompt", values="choice")
    wide = table.map(lambda choice: "ABC"[choice])
    wide.columns = [f"q{n}" for n in range(1, 9)]
    cluster = np.array([planted.cluster[int(rater[1:])] for rater in wide.index])
    wide["income"] = np.where(cluster == 1, "refused", "A")
    wide["parks"] = np.where(np.arange(60) % 10 == 0, "", "B")
    wide.to_csv(tmp_path / "wide.csv")
    (tmp_path / "map.yaml").write_text(
        "kind: choice\nlayout: wide\ncolumns: {rater_id: rater_id}\nquestions: ['q*', income, parks]\n"
        "options: [A, B, C]\nmissing: [refused]\n"
    )
    columns = ("--columns", tmp_path / "map.yaml", "--set", "jury.clusters=2")
    done = command(tmp_path, "--labels-only", tmp_path / "wide.csv", *columns)
    assert done.exit_code == 0, done.output
    survey = RunResults.read(tmp_path / "out" / "results.json").survey
    income, parks = survey.missing
    assert (income.question, income.kind, income.n, parks.kind, parks.n) == ("income", "refused", 30, "empty", 6)
    assert (income.overall, parks.overall) == (pytest.approx(0.5), pytest.approx(0.1))
    assert sorted(income.shares) == pytest.approx([0, 1], abs=0.03)
    assert parks.shares == pytest.approx([0.1, 0.1], abs=0.04)
    assert survey.n_missing == 36
    assert "50%  income: refused" in done.output
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "| income | refused | 30 | 50" in report


def test_traits_of_too_many_values_are_counted_and_not_tabulated():
    planted = planted_judgements("choice", num_raters=80, num_items=6)
    number = planted.judgements.frame["rater_id"].str[1:].astype(int)
    planted.judgements.frame["rater:wave"] = np.where(number % 4 == 0, "2018", "2022")
    planted.judgements.frame["rater:town"] = "town " + (number % (MOST_VALUES + 1)).astype(str)
    planted.judgements.frame["rater:county"] = "county " + (number % MOST_VALUES).astype(str)
    fit = fit_mixture(planted.judgements.encode(), 2)
    survey = describe_survey(fit, planted.judgements, labels={}, candidates=())
    assert survey.omitted_traits == {"town": MOST_VALUES + 1}
    assert {row.trait for row in survey.traits} == {"wave", "county"}
