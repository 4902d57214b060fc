"""A suite from its file to its folder, and two evaluations compared."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from plural_rlhf.cli import app
from plural_rlhf.report.suite.results import SuiteResults
from plural_rlhf.settings.faults import ConfigError
from plural_rlhf.suites.comparisons import ScoredItems, compare_runs, differences
from plural_rlhf.suites.config import SuiteConfig, is_suite_file, make_suite
from plural_rlhf.suites.evaluate import StrictError, evaluate_suite
from plural_rlhf.suites.models.functions import CallableModel
from plural_rlhf.suites.tasks.catalogue import TASKS, make_tasks
from tests.paths import ROOT
from tests.plural_rlhf.suites.golden_rows import check_results
from tests.printed import words


def always_first(prompt, options):
    return np.eye(len(options))[0]


def mostly_uniform(prompt, options):
    return np.full(len(options), 0.9 / len(options))


runner = CliRunner()
HERE = "tests.plural_rlhf.suites.test_evaluate"


def settings(folder, **more):
    models = [
        {"name": "flat", "callable": f"{HERE}:mostly_uniform", "gives": "option_shares"},
        {"name": "<b>first</b>", "callable": f"{HERE}:always_first", "gives": "option_shares"},
    ]
    return {
        "models": models, "tasks": ["urn"], "max_items": 30, "draws": 100,
        "answers_dir": str(folder / "answers"), "output_dir": str(folder / "out"), **more,
    }  # fmt: skip


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("suite")
    return folder / "out", evaluate_suite(SuiteConfig(**settings(folder)))


def test_the_scale_is_marked_and_models_lie_on_it(evaluated):
    _, results = evaluated
    skill = {m.name: h.value for m in results.models if (h := results.headline(m.name, "urn")) is not None}
    assert (round(skill["gold"], 9), round(skill["uniform"], 9), round(skill["flat"], 9)) == (1, 0, 0)
    assert skill["mode"] < 0
    assert skill["<b>first</b>"] < skill["mode"]
    coverage = next(row for row in results.results["flat"]["urn"] if row.metric == "coverage")
    assert coverage.value == pytest.approx(0.9)


def test_the_folder_holds_results_records_and_pages(evaluated):
    folder, results = evaluated
    stored = SuiteResults.read(folder / "results.json")
    assert stored.to_dict() == results.to_dict()
    [data] = stored.data
    assert (data.id, data.licence, data.n, len(data.content)) == ("urn", "Apache-2.0", 30, 64)
    records = [json.loads(line) for line in (folder / "samples" / "urn.jsonl").read_text().splitlines()]
    assert len(records) == 30 * len(stored.results)
    assert [model.name for model in stored.models] == ["flat", "<b>first</b>", "gold", "uniform", "marginal", "mode"]
    assert stored.skipped == []
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<b>first</b>" not in page
    assert "&lt;b&gt;first" in page
    assert not re.search(r"(src|href)=.?https?:", page)
    index = yaml.safe_load((folder / "hub" / "flat" / "model-index.yaml").read_text())["model-index"]
    assert [one["dataset"]["name"] for one in index[0]["results"]] == ["urn"]
    harness = json.loads((folder / "lm_eval" / "results_flat.json").read_text())
    assert harness["results"]["urn"]["jsd_nats,none"] == pytest.approx(
        next(row.value for row in results.results["flat"]["urn"] if row.metric == "jsd_nats")
    )


def test_what_a_suite_publishes_is_the_stored_one(evaluated):
    check_results("suite_of_urns", evaluated[1])


def test_the_worst_items_are_those_of_the_most_nats_of_every_model_that_is_no_yardstick(evaluated):
    folder, results = evaluated
    records = [json.loads(line) for line in (folder / "samples" / "urn.jsonl").read_text().splitlines()]
    for model in ("flat", "<b>first</b>"):
        nats = sorted((r["scores"]["jsd_nats"] for r in records if r["model"] == model), reverse=True)
        shown = [item for item in results.worst_items if item.model == model]
        assert [item.score for item in shown] == nats[: len(shown)]
        assert 0 < len(shown) < len(nats) == 30
    assert {item.model for item in results.worst_items} == {"flat", "<b>first</b>"}


def test_models_are_compared_pairwise_with_the_first(evaluated):
    _, results = evaluated
    [one] = results.comparisons
    assert (one.model, one.base, one.task, one.metric) == ("<b>first</b>", "flat", "urn", "jsd_nats")
    assert (one.outcome, one.n_items) == ("worse", 30)
    assert 0 < one.ci_low < one.value < one.ci_high
    assert one.p_holm < 0.01


def test_the_same_suite_again_gives_the_same_numbers_and_asks_nothing(evaluated, monkeypatch):
    folder, results = evaluated
    monkeypatch.setattr(CallableModel, "option_log_probs", lambda self, requests: 1 / 0)
    again = evaluate_suite(SuiteConfig(**settings(folder.parent, output_dir=str(folder.parent / "again"))))
    assert again.results == results.results


def test_two_evaluations_are_compared_where_their_items_are_the_same(evaluated, tmp_path):
    folder, _ = evaluated
    found, notes = compare_runs(folder, folder, model="mode", base_model="gold")
    assert (found[0].outcome, notes) == ("worse", [])
    evaluate_suite(SuiteConfig(**settings(tmp_path, seed=5)))
    with pytest.raises(ValueError, match="urn: the items differ"):
        compare_runs(folder, tmp_path / "out")
    with pytest.raises(ValueError, match="has no model 'flatt'"):
        compare_runs(folder, folder, model="flatt")


def test_two_functions_of_one_file_are_two_models():
    names = {CallableModel("m", option_shares=function).identity for function in (always_first, mostly_uniform)}
    unnamed = {CallableModel("m", option_shares=lambda prompt, options: [1.0]).identity for _ in range(2)}
    assert len(names) == len(unnamed) == 2
    assert CallableModel("other name", option_shares=always_first).identity in names


def test_prompts_that_are_written_down_and_filled_in_are_a_model(tmp_path):
    suite = ["--set", "scoring=sampling", "--set", "option_samples=4", "--set", "permutations=false"]
    path, file = tmp_path / "suite.yaml", tmp_path / "prompts.jsonl"
    path.write_text(yaml.safe_dump(settings(tmp_path, models=[], max_items=5)))
    printed = runner.invoke(app, ["evaluate", str(path), *suite, "--prompts", str(file)])
    assert "5 prompts written" in words(printed.output)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert all(line["n"] == 4 for line in lines)
    # Of each urn the first colour three times, and once something that is none.
    colours = [re.search(r"\d+ (\w+)", line["prompt"]).group(1) for line in lines]
    filled = [line | {"texts": [colour] * 3 + ["hm"]} for line, colour in zip(lines, colours, strict=True)]
    file.write_text("".join(json.dumps(line) + "\n" for line in filled))
    results = evaluate_suite(
        SuiteConfig(
            **settings(tmp_path, models=[{"recorded": str(file)}], max_items=5),
            scoring="sampling", option_samples=4, permutations=False,
        )
    )  # fmt: skip
    rows = {row.metric: row.value for row in results.results[str(file)]["urn"]}
    assert rows["coverage"] == 0.75
    assert results.skipped == []


def test_task_files_for_the_harness_are_written_by_the_command_and_ask_no_model(tmp_path):
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump(settings(tmp_path, models=[{"path": "nowhere"}], max_items=5)))
    printed = runner.invoke(app, ["evaluate", str(path), "--lm-eval", str(tmp_path / "files")])
    assert printed.exit_code == 0
    assert "1 tasks with 5 questions written" in words(printed.output)
    assert len((tmp_path / "files" / "plural_urn.jsonl").read_text().splitlines()) == 5
    run_file = tmp_path / "run.yaml"
    run_file.write_text("plural: {}")
    refused = runner.invoke(app, ["evaluate", str(run_file), "--lm-eval", str(tmp_path / "files")])
    assert refused.exit_code == 2
    assert "--lm-eval is for suite files" in words(refused.output)


def test_differences_are_corrected_together_and_few_items_decide_nothing():
    rng = np.random.default_rng(0)

    def items(task, n, shift):
        scores = {f"q{i}": {"accuracy": float(x)} for i, x in enumerate(rng.normal(shift, 0.1, n))}
        return ScoredItems("m", task, "c", scores, {"accuracy": "higher"})

    pairs = [(items(t, n, s), items(t, n, 0)) for t, n, s in (("a", 40, 0.3), ("b", 40, 0), ("c", 3, 5))]
    a, b, c = differences(pairs, draws=200)
    assert (a.outcome, b.outcome, c.outcome) == ("better", "undecided", "undecided")
    assert a.p_holm == pytest.approx(3 * a.p_value)
    assert c.p_value == 0.25  # 2 of the 8 ways to flip three items
    assert 0.02 < a.minimum_detectable < 0.12


def test_a_strict_suite_ends_with_an_error_and_writes_what_it_has(tmp_path):
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"prompt": "p", "text": "t"}\n')
    config = SuiteConfig(**settings(tmp_path, models=[{"recorded": str(texts)}], strict=True))
    with pytest.raises(StrictError, match=r"urn \(.*cannot give probabilities of options"):
        evaluate_suite(config)
    assert SuiteResults.read(tmp_path / "out" / "results.json").skipped[0].task == "urn"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"models": [{"pth": "tiny"}]}, "models.1.pth: unknown key 'pth' in section `models.1`. Did you mean 'path'?"),
        ({"models": [{"path": "a", "endpoint": "b"}]}, "has path and endpoint; give it exactly one"),
        ({"models": [{"endpoint": "http://x"}]}, "model is missing, the name of the model at the endpoint"),
        ({"models": [{"path": "a", "prices": [1, 2]}]}, "prices belongs to models with endpoint"),
        ({"models": [{"path": "a", "weights": "urban"}]}, "weights are set without jury"),
        ({"models": ["a", "a"]}, "models are called 'a' more than once"),
        ({"models": ["gold"]}, "models are called 'gold' more than once"),
        ({"models": [3]}, "entry 1 is a section"),
        ({"models": [], "pseudo_models": []}, "there is no model"),
        ({"tasks": ["unr"]}, "unknown tasks: 'unr'. Did you mean 'urn'?"),
        ({"tasks": []}, "tasks"),
        ({"pseudo_models": ["golden"]}, "Did you mean 'gold'?"),
        ({"max_items": 0, "scoring": "guess"}, "2 faults"),
        (
            {"tasks": ["coin", "dice"], "items_of": {"dice": 2, "urn": 3}},
            "items_of gives sizes of 'urn', which is not",
        ),
        ({"items_of": {"unr": 3}}, "unknown tasks: 'unr'. Did you mean 'urn'?"),
        ({"draws": 1}, "draws"),
        ({"draws": 19}, "greater than or equal to 20"),
    ],
)
def test_faults_of_a_suite_file_are_named_before_any_work(values, message):
    with pytest.raises(ConfigError) as error:
        make_suite(values, origin="suite.yaml")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"path": "./nowhere"}, "there is no nowhere"),
        ({"recorded": "nowhere.jsonl"}, "there is no nowhere.jsonl"),
        ({"callable": "nowhere:f"}, "'nowhere' cannot be imported"),
    ],
)
def test_models_that_are_not_there_are_named_before_any_work(tmp_path, model, message):
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        evaluate_suite(SuiteConfig(**settings(tmp_path, models=[model])))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (
            '{"base_model_name_or_path": "/gone/model"}',
            r"model 'moved': the adapter in .*'/gone/model', which is not th",
        ),
        ('{"base_model_name_or_path": null}', "does not say what model the adapter was trained on"),
        ("{", "does not say what model the adapter was trained on"),
    ],
)
def test_an_adapter_whose_base_model_is_not_there_is_named_before_any_work(tmp_path, written, message):
    """It would be found when the turn of this model comes, after hours of others."""
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "adapter_config.json").write_text(written)
    models = [{"path": "smollm2-135m"}, {"name": "moved", "path": str(tmp_path / "policy")}]
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        evaluate_suite(SuiteConfig(**settings(tmp_path, models=models)))
    assert not (tmp_path / "out").exists()


def test_the_shipped_suite_files_are_valid_and_told_from_run_files():
    for path in (ROOT / "configs" / "eval").glob("*.yaml"):
        values = yaml.safe_load(path.read_text())
        first = make_suite(dict(values), origin="suite.yaml").models[0]
        assert first.path == "smollm2-135m" or first.run == Path("runs/quickstart")
        assert is_suite_file(values)
    for path in (ROOT / "configs").glob("*.yaml"):
        assert not is_suite_file(yaml.safe_load(path.read_text())), path


def test_the_commands_evaluate_and_compare(tmp_path):
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump(settings(tmp_path, max_items=8)))
    printed = runner.invoke(app, ["evaluate", str(path), "--set", "draws=20", "--output", str(tmp_path / "run")])
    assert printed.exit_code == 0, printed.output
    assert "report.html" in printed.output
    line = ["compare", str(tmp_path / "run"), str(tmp_path / "run"), "--model", "<b>first</b>"]
    printed = runner.invoke(app, [*line, "--json", str(tmp_path / "differences.json")])
    assert printed.exit_code == 0, printed.output
    assert json.loads((tmp_path / "differences.json").read_text())["differences"][0]["base"] == "flat"
    refused = runner.invoke(app, ["evaluate"])
    assert refused.exit_code == 2
    assert "--model" in refused.output
    refused = runner.invoke(app, ["evaluate", "configs/quickstart.yaml", "--strict"])
    assert "--strict is for suite files" in words(refused.output)


def test_records_that_were_cut_off_are_named_where_runs_are_compared(tmp_path):
    evaluate_suite(SuiteConfig(**settings(tmp_path, max_items=8, draws=20)))
    path = tmp_path / "out" / "samples" / "urn.jsonl"
    path.write_text(path.read_text(encoding="utf-8")[:-40], encoding="utf-8")
    done = runner.invoke(app, ["compare", str(tmp_path / "out"), str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "evaluate again" in words(done.output)
    assert "Traceback" not in done.output


def test_models_may_be_named_by_settings_alone(tmp_path):
    models = f"models=[{{callable: '{HERE}:mostly_uniform', gives: option_shares}}]"
    small = ["--set", "tasks=[urn]", "--set", "max_items=5", "--set", "draws=20"]
    places = ["--set", f"answers_dir={tmp_path / 'answers'}", "--output", str(tmp_path / "out")]
    done = runner.invoke(app, ["evaluate", "--set", models, *small, *places])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "results.json").is_file()


def test_the_list_names_every_task_with_its_licence_and_asks_nothing(tmp_path):
    printed = words(runner.invoke(app, ["evaluate", "--list"]).output)
    for name in TASKS:
        assert f"{name} (" in printed
        assert make_tasks([name])[0].licence in printed
    few = words(runner.invoke(app, ["evaluate", "--list", "--set", "tasks=[urn,coin]"]).output)
    assert "2 tasks." in few
    assert "verbagg" not in few
    unknown = runner.invoke(app, ["evaluate", "--list", "--set", "tasks=[unr]"])
    assert unknown.exit_code == 2
    assert "Did you mean 'urn'?" in words(unknown.output)


@pytest.mark.parametrize("option", [["--overwrite"], ["--reuse", "runs/other"]])
def test_options_of_run_files_are_refused_for_suites(tmp_path, option):
    path = tmp_path / "suite.yaml"
    path.write_text("tasks: [urn]\n", encoding="utf-8")
    done = runner.invoke(app, ["evaluate", str(path), *option])
    assert done.exit_code == 2
    assert f"{option[0]} is for run files" in words(done.output)
