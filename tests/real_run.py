"""One real run for all tests of what a run publishes: commands in, answers of made-up people, a folder out.

The base model is the one of `tests/stored/base`, which has learnt to say yes, no and no idea. Nothing is mocked: the
run is made with the commands `fit-jury` and `run`, so that their output and their files are the real ones.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from typer.testing import CliRunner

from plural_rlhf.cli import app
from plural_rlhf.report.results import RunResults
from tests.paths import ROOT


OPTIONS = ["yes", "no", "no idea"]
TOPICS = ["parks", "roads", "schools", "trains", "police", "museums", "clinics", "bridges", "swimming pools"]
COUNCIL = (1.0, 3.0)
"""Seats of the two clusters in the jury `council` of the run file."""


@dataclass(frozen=True)
class RealRun:
    """A finished run.

    Attributes:
        folder: Its output folder.
        run_file: The run file.
        answers: What the people answered, as the table on disk has it (columns person, topic, question, answer,
            region, weight).
        results: What `results.json` holds.
        printed: What each command printed.
    """

    folder: Path
    run_file: Path
    answers: pd.DataFrame
    results: RunResults
    printed: dict[str, str]

    @property
    def names(self) -> list[str]:
        return [cluster.name for cluster in self.results.clusters]


def make_run(folder: Path) -> RealRun:
    """Write a table and a run file into `folder`, and run the commands on them."""
    answers = made_up_answers()
    answers.to_csv(folder / "answers.csv", index=False)
    run_file = folder / "run.yaml"
    write_run_file(run_file, {})
    printed = {"fit-jury": command("fit-jury", run_file, "--output", str(folder / "jury_alone"))}
    names = jury_names(folder / "jury_alone")
    write_run_file(run_file, {"council": dict(zip(names, COUNCIL, strict=True))})
    printed["run"] = command("run", run_file)
    results = RunResults.read(folder / "run" / "results.json")
    return RealRun(folder / "run", run_file, answers, results, printed)


def made_up_answers() -> pd.DataFrame:
    """Two publics, one twice as large as the other, that mostly want opposite things; a fifth was never asked.

    A person's sampling weight has nothing to do with what the person wants.
    """
    weight = np.random.default_rng(1).lognormal(sigma=0.7, size=90).round(2)
    rng = np.random.default_rng(0)
    rows = []
    for person in range(90):
        saves = person % 3 == 0
        region = ("north", "south", "coast")[rng.choice(3, p=[0.7, 0.2, 0.1] if saves else [0.2, 0.4, 0.4])]
        for number, topic in enumerate(TOPICS):
            if rng.random() < 0.2:
                continue
            p = [0.13, 0.7, 0.17] if saves == (number % 3 > 0) else [0.7, 0.1, 0.2]
            answer, question = rng.choice(OPTIONS, p=p), f"Should the city build more {topic}?"
            rows.append((f"p{person}", topic, question, answer, region, weight[person]))
    return pd.DataFrame(rows, columns=["person", "topic", "question", "answer", "region", "weight"])


def write_run_file(path: Path, juries: dict[str, dict[str, float]]) -> None:
    columns = {"rater_id": "person", "item_id": "topic", "prompt": "question", "choice": "answer"}
    columns |= {"rater_weight": "weight"}
    settings = {
        "name": "published",
        "output_dir": str(path.parent / "run"),
        "data": {
            "source": "table",
            "path": str(path.parent / "answers.csv"),
            "columns": {"kind": "choice", "columns": columns, "options": OPTIONS, "traits": {"region": "region"}},
            "heldout_questions": 3,
            "heldout_raters": 0.4,
        },
        "policy": {"model": str(ROOT / "tests" / "stored" / "base"), "layouts": ["line", "list"]},
        "jury": {"clusters": 2, "restarts": 2, "l2": 1.0},
        "juries": juries,
        "warmup": {"steps": 2, "prompts_per_step": 2},
        "rehearsal": {"texts": 6, "per_step": 2, "max_tokens": 12},
        "plural": {"steps": 2, "prompts_per_step": 5},
        "grpo": {"steps": 2, "prompts_per_step": 1, "num_generations": 4},
        "evaluate": {"draws": 400},
    }
    path.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")


def command(name: str, *arguments: str | Path) -> str:
    """Run a command of `plural-rlhf` in this process and return what it printed."""
    done = CliRunner().invoke(app, [name, *map(str, arguments)], env={**os.environ, "COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    return done.output


def jury_names(folder: Path) -> list[str]:
    from reward_models.jury.scorer import JuryScorer

    return list(JuryScorer.from_pretrained(folder / "jury").cluster_names)
