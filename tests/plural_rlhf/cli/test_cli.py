"""The commands that walk a run file: what they hand to the recipe, what they print, and how they refuse.

Those about juries and judgements are in `test_cli_juries`.
"""

from __future__ import annotations

import subprocess
import sys
import types
import warnings
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from plural_rlhf.cli import app
from plural_rlhf.recipe import RunFolderError
from reward_models.errors import JudgementWarning
from tests.paths import ROOT
from tests.report_fixtures import stored_results


runner = CliRunner()


@pytest.fixture
def recipe(monkeypatch):
    """A recipe that records how it was called and does what the test says."""
    fake = types.SimpleNamespace(calls=[], reused=[], answer=stored_results)

    def run(config, until, overwrite, command, reuse):
        fake.calls.append((config, until, overwrite, command))
        fake.reused.append(reuse)
        return fake.answer()

    monkeypatch.setattr("plural_rlhf.recipe.run", run)
    monkeypatch.setenv("COLUMNS", "160")
    return fake


@pytest.fixture
def run_file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("name: trial\nplural: {steps: 5}\n", encoding="utf-8")
    return path


def words(text: str) -> str:
    """Printed text without frames and line breaks."""
    return " ".join(text.replace("│", " ").split())


@pytest.mark.parametrize(
    ("command", "until"), [("run", "report"), ("fit-jury", "jury"), ("train", "train"), ("evaluate", "evaluate")]
)
def test_each_command_walks_as_far_as_it_says(recipe, run_file, tmp_path, command, until):
    arguments = [
        command,
        str(run_file),
        "--set",
        "plural.steps=7",
        "--set",
        "seed=3",
        "--output",
        str(tmp_path / "out"),
    ]
    reuse = None if command == "fit-jury" else tmp_path / "other"
    done = runner.invoke(app, [*arguments, "--overwrite", *([] if reuse is None else ["--reuse", str(reuse)])])
    assert done.exit_code == 0, done.output
    ((config, stage, overwrite, typed),) = recipe.calls
    assert (stage, overwrite) == (until, True)
    assert recipe.reused == [reuse]
    assert (config.name, config.plural.steps, config.seed, config.output_dir) == ("trial", 7, 3, tmp_path / "out")
    assert typed.startswith(f"plural-rlhf {command}")
    assert str(tmp_path / "out") in done.output.replace("\n", "")


def test_run_ends_with_the_table_and_the_path_of_the_report(recipe, run_file):
    done = runner.invoke(app, ["run", str(run_file)])
    assert "plural (ours)" in done.output
    assert "stock GRPO" in done.output
    assert done.output.strip().splitlines()[-1] == f"Report: {Path('runs/trial/report.html').resolve()}"
    assert recipe.calls[0][2] is False


def test_fit_jury_prints_the_clusters(recipe, run_file):
    output = words(runner.invoke(app, ["fit-jury", str(run_file)]).output)
    assert "no more children, any reason, poverty: no" in output
    assert "40.9" in output


def test_a_bad_run_file_is_refused_before_the_recipe_starts(recipe, run_file):
    done = runner.invoke(app, ["run", str(run_file), "--set", "plural.beta=0"])
    assert done.exit_code == 2
    assert recipe.calls == []
    assert "The run file cannot be used" in done.output
    assert "plural.beta = 0: must be greater than 0" in words(done.output)
    assert "Traceback" not in done.output


def test_refusals_of_the_recipe_become_one_panel(recipe, run_file):
    def refuse():
        raise RunFolderError("runs/trial holds [another] run. Fix: --overwrite")

    recipe.answer = refuse
    done = runner.invoke(app, ["run", str(run_file)])
    assert done.exit_code == 2
    assert "The output folder cannot be used" in done.output
    assert "runs/trial holds [another] run. Fix: --overwrite" in words(done.output)
    assert "Traceback" not in done.output
    shown = runner.invoke(app, ["run", str(run_file), "--traceback"])
    assert isinstance(shown.exception, RunFolderError)


def test_jury_errors_are_expected_too(recipe, run_file):
    from reward_models.errors import JuryError, MissingExtraError

    for error, title in ((JuryError("K = 9"), "The jury cannot"), (MissingExtraError("pip"), "An optional package")):

        def refuse(error=error):
            raise error

        recipe.answer = refuse
        done = runner.invoke(app, ["run", str(run_file)])
        assert done.exit_code == 2
        assert title in done.output


@pytest.mark.parametrize(
    "bug", [KeyError("loss"), ValueError("operands could not be broadcast"), ModuleNotFoundError("trl")]
)
def test_a_bug_keeps_its_traceback(recipe, run_file, bug):
    def crash():
        raise bug

    recipe.answer = crash
    done = runner.invoke(app, ["run", str(run_file)])
    assert done.exit_code == 1
    assert done.exception is bug


def test_value_errors_raised_inside_our_packages_are_explained(recipe, run_file):
    def refuse():
        names = {"__name__": "plural_rlhf.weights.jury"}
        exec("def parse():\n    raise ValueError(\"unknown cluster 'urbn'\")", names)
        names["parse"]()

    recipe.answer = refuse
    done = runner.invoke(app, ["run", str(run_file)])
    assert done.exit_code == 2
    assert "unknown cluster 'urbn'" in words(done.output)


def test_our_warnings_are_notes_and_others_say_where_they_come_from(recipe, run_file):
    def warn():
        warnings.warn("3 of 9 raters have one judgement", JudgementWarning, stacklevel=2)
        warnings.warn_explicit("x is deprecated", FutureWarning, "/lib/other.py", 7)
        return stored_results()

    recipe.answer = warn
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        done = runner.invoke(app, ["run", str(run_file)])
    assert done.stderr.splitlines() == [
        "note: 3 of 9 raters have one judgement",
        "/lib/other.py:7: FutureWarning: x is deprecated",
    ]


def test_version_and_help_teach():
    assert runner.invoke(app, ["--version"]).output.startswith("plural-rlhf 0.")
    commands = ("run", "fit-jury", "train", "evaluate", "headroom", "releases", "adapt", "export-scalar")
    commands += ("fit-values", "values", "individuals")
    for command in commands:
        assert f"Example: plural-rlhf {command}" in words(runner.invoke(app, [command, "--help"]).output)


@pytest.mark.slow
def test_every_command_names_where_it_writes_alike():
    """`--output`, for short `--out`: nobody remembers which command wants which."""
    commands, writes = [get_command(app)], []
    while commands:
        command = commands.pop()
        commands += getattr(command, "commands", {}).values()
        writes += [set(option.opts) for option in command.params if {"--out", "--output"} & set(option.opts)]
    assert len(writes) >= 9
    assert all(names == {"--output", "--out"} for names in writes)


def test_help_is_quick_and_imports_no_heavy_library():
    code = (
        "import sys\nfrom plural_rlhf.cli import main\nsys.argv = ['plural-rlhf', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('torch', 'transformers', 'trl', 'pandas', 'pydantic', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip().splitlines()[-1] == "[]"
