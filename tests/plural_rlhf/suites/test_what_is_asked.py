"""What tasks ask of a model, word for word: a published number rests on how long and how often it was asked."""

from __future__ import annotations

import ast
from pathlib import Path

from plural_rlhf.suites.models.protocol import END_OF_ANSWER
from plural_rlhf.suites.models.runs import is_run_folder
from tests.paths import ROOT


TASKS = ROOT / "plural_rlhf" / "suites"
ASKED = {
    "engine/option_answers.py": [
        "context.option_samples, max_new_tokens=longest, stop=END_OF_ANSWER",
        "1, max_new_tokens=longest, purpose='verbalised'",
    ],
    "tasks/free_text.py": ["self.n, max_new_tokens=self.max_new_tokens, stop=END_OF_ANSWER, purpose='free text'"],
    "tasks/generation/coverage.py": ["self.n, max_new_tokens=tokens, stop=END_OF_ANSWER, purpose='coverage'"],
    "tasks/generation/monoculture.py": ["self.n, max_new_tokens=64, stop=END_OF_ANSWER, purpose='monoculture'"],
    "tasks/generation/multi_objective.py": [
        "self.k, max_new_tokens=64, stop=END_OF_ANSWER, purpose='multi-objective'"
    ],
    "tasks/generation/novelty.py": ["self.n, max_new_tokens=self.max_new_tokens, purpose='novelty'"],
    "tasks/generation/overton.py": ["self.k, max_new_tokens=64, stop=END_OF_ANSWER, purpose='overton'"],
    "tasks/generation/random_numbers.py": ["self.n, max_new_tokens=8, stop=END_OF_ANSWER, purpose='random number'"],
    "tasks/generation/trade_offs.py": ["self.n, max_new_tokens=64, stop=END_OF_ANSWER, purpose=purpose"],
}


def asked(file: Path) -> list[str]:
    """The settings of every call of `sample` in a file, without what is asked."""
    calls = [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    found = []
    for call in calls:
        if isinstance(call.func, ast.Attribute) and call.func.attr == "sample":
            named = [f"{keyword.arg}={ast.unparse(keyword.value)}" for keyword in call.keywords]
            found.append(", ".join([*map(ast.unparse, call.args[1:]), *named]))
    return found


def test_what_tasks_ask_for_is_what_their_figures_were_made_with():
    found = {str(file.relative_to(TASKS)): asked(file) for file in sorted(TASKS.rglob("*.py"))}
    found = {
        name: calls for name, calls in found.items() if calls and not name.startswith(("models/", "engine/context"))
    }
    assert found == ASKED
    assert END_OF_ANSWER == ("\n",)


def test_one_answer_ends_with_its_line_whichever_task_asks_for_it():
    """Percentages are listed in lines, and a curated prompt may ask for a poem."""
    several_lines = {
        "engine/option_answers.py": "purpose='verbalised'",
        "tasks/generation/novelty.py": "purpose='novelty'",
    }
    for name, calls in ASKED.items():
        for call in calls:
            listed = name in several_lines and several_lines[name] in call
            assert ("stop=END_OF_ANSWER" in call) is not listed, (name, call)


def test_a_run_folder_has_a_run_file_and_stages(tmp_path):
    """A model has a config.json, too; and a folder of stages alone is no run."""
    for name, parts in {"run": "both", "model": "config", "parts": "stages"}.items():
        (tmp_path / name).mkdir()
        if parts != "stages":
            (tmp_path / name / "config.json").write_text("{}")
        if parts != "config":
            (tmp_path / name / "stages").mkdir()
    assert [name for name in ("run", "model", "parts") if is_run_folder(tmp_path / name)] == ["run"]
