"""What an evaluation publishes, word for word: tables, rows, files of benchmarks, and what each plot draws.

Properties are tested elsewhere; this is the net below them. After a change that is meant, write the files again and
read the difference: `UPDATE_GOLDEN=1 python -m pytest tests/reward_models/evaluation/test_golden.py`, then `git diff`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from reward_models.evaluation.benchmarks.items import read_benchmark
from reward_models.evaluation.benchmarks.scores import score_benchmark
from reward_models.evaluation.candidates import plots
from reward_models.evaluation.candidates.best_of_n import best_of_n
from reward_models.evaluation.candidates.landscape import landscape
from reward_models.evaluation.candidates.pools import Pool
from reward_models.evaluation.evaluate_jury import JuryEvaluation
from reward_models.evaluation.report import report_sheets
from reward_models.evaluation.sheets import Sheet, markdown
from reward_models.evaluation.style.drivers import reward_drivers
from tests.figures_as_text import figure_lines
from tests.reward_models.evaluation.test_benchmarks import REWARDBENCH, REWARDBENCH_2, RM_BENCH
from tests.reward_models.evaluation.test_drivers import feature, texts


GOLDEN = Path(__file__).parent / "golden"
NAMES = ["[city]", "country"]
WEIGHTS = np.array([0.7, 0.3])
LONG = "Should the council keep the old library open on Sundays, and who would pay for the staff that day?"


def pools() -> list[Pool]:
    """Seven prompts, one of them long and one a conversation; the last has fewer candidates than the others."""
    rng = np.random.default_rng(4)
    prompts: list[Any] = ["Pets?", LONG, (("user", "Hello"), ("assistant", "Yes?"), ("user", "Is tea\nbetter?"))]
    prompts += [f"question {i}" for i in range(4)]
    found = []
    for number, prompt in enumerate(prompts):
        candidates = 3 if number == 6 else 9
        common, apart = rng.normal(size=(2, candidates))
        responses = [f"answer {number}.{i} " + "because it costs less " * (i % 4) for i in range(candidates)]
        rewards = np.stack([common + 0.3 * number * apart, common - 0.3 * number * apart], 1)
        found.append(Pool(prompt, responses, rewards))
    return found


def check(name: str, sheets: Sequence[Sheet | str], rows: Sequence[dict[str, Any]], drawn: str = "") -> None:
    """Compare a page as Markdown, the rows and what a plot draws with what is stored."""
    text = "\n".join([markdown(name, sheets), "", *(json.dumps(rounded(row)) for row in rows), drawn]).rstrip() + "\n"
    stored = GOLDEN / f"{name.replace(' ', '_')}.md"
    if os.environ.get("UPDATE_GOLDEN"):
        stored.write_text(text, encoding="utf-8")
    assert text == stored.read_text(encoding="utf-8")


def rounded(value: Any) -> Any:
    """Numbers to four digits, so that the last bits of another processor do not matter."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner) for inner in value]
    return float(f"{round(value, 12):.4g}") + 0.0 if isinstance(value, float) else value


@pytest.fixture
def drawn(monkeypatch):
    """Figures as text instead of files."""
    figures: list[Figure] = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: figures.append(figure))

    def as_text(draw, what) -> str:
        draw(what, "unused.png")
        return "\n".join(figure_lines(figures[-1]))

    return as_text


def test_the_page_of_a_selection_is_the_stored_one(drawn):
    rng, worth = np.random.default_rng(5), pools()
    selections = {
        "one reward": [pool.rewards @ WEIGHTS for pool in worth],
        "noise": [rng.normal(size=len(pool.responses)) for pool in worth],
        "each": [pool.rewards + 0.1 * rng.normal(size=pool.rewards.shape) for pool in worth],
    }
    judge = "other raters"
    found = best_of_n(selections, worth, NAMES, WEIGHTS, base="one reward", judge=judge, counts=(1, 2, 4, 8, 16))
    check("best of n", found.sheets(), found.rows(), drawn(plots.plot_best_of_n, found))


@pytest.mark.parametrize("case", ["exact rewards", "uncertain rewards", "one cluster"])
def test_the_page_of_a_landscape_is_the_stored_one(drawn, case):
    prompts, weights, names = pools(), WEIGHTS, NAMES
    if case == "one cluster":
        prompts = [Pool(pool.prompt, pool.responses, pool.rewards[:, :1]) for pool in prompts]
        weights, names = np.ones(1), NAMES[:1]
    variance = [np.full(pool.rewards.shape, 0.2) for pool in prompts] if case == "uncertain rewards" else None
    found = landscape(prompts, weights, names=names, variance=variance)
    check(case, found.sheets(), found.rows(), drawn(plots.plot_landscape, found))


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_the_ending_of_a_plot_is_its_format(tmp_path, ending):
    plots.plot_landscape(landscape(pools(), WEIGHTS), tmp_path / f"plot.{ending}")
    begins = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    assert (tmp_path / f"plot.{ending}").read_bytes().startswith(begins[ending])


@pytest.mark.parametrize(
    "rows", [REWARDBENCH, REWARDBENCH_2, RM_BENCH], ids=["rewardbench", "rewardbench-2", "rm-bench"]
)
def test_what_is_published_of_a_benchmark_is_the_stored_one(tmp_path, rows):
    (tmp_path / "data.json").write_text(json.dumps(rows))
    benchmark, rng = read_benchmark(tmp_path / "data.json"), np.random.default_rng(6)
    rewards = {text: rng.normal(size=2) for text in benchmark.texts}
    found = score_benchmark(benchmark, rewards, NAMES, WEIGHTS)
    files = [found.result_file("mine", None), found.score_file("mine", "{{ template }}")]
    check(benchmark.schema, found.sheets(), [*found.rows(), *files])


def test_the_page_of_what_is_rewarded_is_the_stored_one():
    given, rng = texts(), np.random.default_rng(1)
    rewards = np.stack([feature(given, "list items"), -feature(given, "question marks")], 1)
    found = reward_drivers(given, rewards + rng.normal(size=(300, 2)), NAMES)
    check("what is rewarded", found.sheets(), found.rows())


def test_the_page_of_an_evaluation_is_the_stored_one():
    """Two cases of which one lacks a metric, comparisons, and rows that could not be measured."""
    nothing: dict[str, Any] = {"ci_low": float("nan"), "ci_high": float("nan")}
    rows: list[dict[str, Any]] = []
    for case, method, metric, value in (
        ("new rater", "jury", "nll_nats", 0.61234),
        ("new rater", "one reward", "nll_nats", 0.6789),
        ("new rater", "jury", "accuracy", 0.7),
        ("new item", "jury", "nll_nats", 0.65),
        ("new item", "jury", "jsd_nats", float("nan")),
    ):
        rows.append({"case": case, "method": method, "metric": metric, "value": value, "n": 1234, **nothing})
    compared = {"case": "new rater", "method": "jury", "value": -0.06656, "outcome": "better", "p_holm": 0.00321}
    ends = {"ci_low": -0.1, "ci_high": -0.02}
    rows.append({**compared, "metric": "delta_nll_nats", **ends, "minimum_detectable": 0.0444})
    rows.append({**compared, "metric": "delta_ece", **nothing, "p_holm": None, "minimum_detectable": None})
    skipped = {"case": "new item", "method": "one reward", "skipped": "every pair is a tie"}
    rows += [{**skipped, "metric": metric} for metric in ("accuracy", "ece")]
    check("evaluation", report_sheets(JuryEvaluation(rows, [], None, "jury is better than one reward.")), [])
