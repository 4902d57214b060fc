"""The command `python -m reward_models.evaluate`, from end to end on a saved jury."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from reward_models.errors import JuryError
from reward_models.evaluate import main
from reward_models.evaluation.command.options import parse_options


pytestmark = pytest.mark.filterwarnings("ignore::reward_models.errors.JudgementWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved tiny jury of two clusters with opposite tastes, and pairs judged by its own clusters, 60 % and 40 %."""
    from reward_models.jury.modeling_jury import JuryRewardModel
    from reward_models.jury.scorer import JuryScorer
    from tests.tiny import tiny_causal_lm, tiny_tokenizer

    path = tmp_path_factory.mktemp("jury")
    rng = np.random.default_rng(0)
    tokenizer = tiny_tokenizer()
    common, apart = rng.normal(size=(2, 32))
    heads = np.stack([0.3 * common + apart, 0.3 * common - apart])
    model = JuryRewardModel.from_fit(
        tiny_causal_lm(tokenizer, seed=1), heads, np.zeros(2), [0.6, 0.4], ["cities, yes", "farms"]
    )
    scorer = JuryScorer(model, tokenizer)
    scorer.save_pretrained(path / "jury")
    JuryRewardModel.from_fit(model.model, heads[:1], np.zeros(1), [1.0]).save_pretrained(path / "one")
    tokenizer.save_pretrained(path / "one")
    words = ["tax", "school", "river", "bread", "music", "road", "winter", "market"]
    texts = [(f"Should we pay for {w} {n}?", f" yes, {w}", f" no {n}") for w in words for n in range(3)]
    prompts = [text[0] for text in texts]
    gap = (
        scorer.cluster_rewards(prompts, [t[1] for t in texts]) - scorer.cluster_rewards(prompts, [t[2] for t in texts])
    ).numpy()
    gap = 4 * gap / gap.std()
    cluster = (np.arange(30) % 5 >= 3).astype(int)
    rows = []
    for u in range(30):
        wants = rng.random(len(texts)) < 1 / (1 + np.exp(-gap[:, cluster[u]]))
        rows += [(f"r{u}", *texts[i], "left" if wants[i] else "right") for i in rng.permutation(len(texts))[:16]]
    pd.DataFrame(rows, columns=["who", "ask", "left", "right", "verdict"]).to_csv(path / "pairs.csv", index=False)
    (path / "map.yaml").write_text(
        "kind: preference\n"
        "columns: {rater_id: who, prompt: ask, response_a: left, response_b: right, choice: verdict}\n"
        "values: {choice: {left: a, right: b}}\n"
    )
    return path


def command(folder, *more):
    options = ["--jury", folder / "jury", "--data", folder / "pairs.csv", "--columns", folder / "map.yaml"]
    return main([str(option) for option in (*options, "--draws", 20, *more)])


def test_the_command_measures_a_saved_jury(folder, tmp_path, capsys):
    assert command(folder, "--output", tmp_path, "--weights", "cities, yes=3,farms=1") == 0
    printed = capsys.readouterr().out
    assert "Verdict: jury is better than one reward, rater terms (" in printed
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["meta"]["judgements"] == 480
    assert results["meta"]["texts"] == 48
    assert results["meta"]["clusters"] == {"cities, yes": 0.6, "farms": 0.4}
    found = {(row["method"], row["metric"]): row for row in results["rows"] if row["case"] == "adapted rater"}
    accuracy = {method: found[method, "accuracy"]["value"] for method, metric in found if metric == "accuracy"}
    assert accuracy["jury"] > max(value for name, value in accuracy.items() if name != "jury") + 0.1
    assert accuracy["uniform"] == 0.5
    assert found["jury", "accuracy"]["n"] == 240
    assert found["jury", "nll_nats"]["ci_low"] < found["jury", "nll_nats"]["value"] < np.log(2)
    assert {"pairwise_calibration", "pairwise_calibration_hard", "pairwise_calibration_smooth", "regret_nash"} <= {
        metric for method, metric in found if method == "jury"
    }
    assert found["jury", "accuracy[farms]"]["n"] == 12
    page, against = (
        (tmp_path / "evaluation.md").read_text(),
        found["jury", "delta_nll_nats_vs_one reward, rater terms"],
    )
    assert f"{against['value']:+.4f}" in printed  # the same numbers in all three
    assert f"{against['value']:+.4f}" in page
    half = (against["ci_high"] - against["ci_low"]) / 2
    assert against["minimum_detectable"] == pytest.approx(1.4294 * half, rel=1e-3)
    bench = json.loads((tmp_path / "rewardbench.json").read_text())
    assert list(bench) == ["model", "model_type", "chat_template", "all", "raters: cities, yes", "raters: farms"]
    assert bench["model_type"] == "Seq. Classifier"
    assert bench["raters: cities, yes"] > 0.6 > 0.4 > bench["raters: farms"]  # one reward speaks for the larger


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ([], set()),
        (["--best-of-n"], {"best of n", "landscape"}),
        (["--against", "jury"], {"best of n", "landscape"}),
        (["--explain"], {"explained"}),
    ],
)
def test_a_part_is_measured_if_and_only_if_it_is_asked_for(folder, tmp_path, options, parts):
    options = [folder / option if option == "jury" else option for option in options]
    assert command(folder, *options, "--output", tmp_path) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    found = {row["case"] for row in results["rows"]} & {"best of n", "landscape"}
    assert found | ({"explained"} & results["meta"].keys()) == parts
    assert (tmp_path / "best_of_n.png").exists() == ("best of n" in parts)


@pytest.mark.slow
def test_best_of_n_against_a_jury_of_others(folder, tmp_path, capsys):
    options = ["--best-of-n", "--against", folder / "jury", "--base", folder / "one", "--output", tmp_path]
    assert command(folder, *options, "--explain") == 0
    printed, page = capsys.readouterr().out, (tmp_path / "evaluation.md").read_text()
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    found = {(r["method"], r["metric"]): r for r in rows if r["case"] in ("best of n", "landscape")}
    steered = found["jury, each audience", "best_of_2_gain[farms]_vs_one reward"]
    assert steered["outcome"] == "better"  # the base is the other cluster's own reward
    assert steered["scored_by"] == "a held-out jury"
    assert steered["minimum_detectable"] > 0
    assert found["one reward", "best_of_2_regret[cities, yes]"]["value"] == pytest.approx(0, abs=1e-6)
    assert 0 <= found["jury", "one_answer_share"]["value"] < 1
    assert f"{steered['value']:+.3f} " in page
    assert f"{steered['value']:+.3f} [" in printed
    assert "of the variance of rewards within prompts is explained" in page
    for plot in ("best_of_n.png", "landscape.png"):
        assert (tmp_path / plot).read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_baselines_of_a_language_model_are_rows_like_others(folder, tmp_path, capsys):
    from tests.tiny import tiny_causal_lm, tiny_tokenizer

    tiny_causal_lm(tiny_tokenizer()).save_pretrained(tmp_path / "lm")
    tiny_tokenizer().save_pretrained(tmp_path / "lm")
    options = ["--baselines", "in-context", "log-probability"]
    assert command(folder, *options) == 2
    assert "Fix: give --language-model" in capsys.readouterr().err
    options += ["--language-model", tmp_path / "lm", "--cache", tmp_path / "cache", "--json", tmp_path / "r.json"]
    assert command(folder, *options) == 0
    rows = json.loads((tmp_path / "r.json").read_text())["rows"]
    loss = {row["method"]: row["value"] for row in rows if row["metric"] == "nll_nats"}
    assert {"in-context", "log-probability", "log-probability per token"} < loss.keys()
    assert loss["jury"] < min(loss["in-context"], loss["log-probability"])
    assert any((tmp_path / "cache").rglob("*.safetensors"))


def test_published_benchmarks_need_no_judgements(folder, tmp_path, capsys):
    rows = [
        {"id": i, "prompt": f"Should we pay for {w}?", "chosen": f" yes, {w}", "rejected": f" no {i}", "subset": w}
        for i, w in enumerate(["tax", "school", "river"])
    ]
    (tmp_path / "bench.json").write_text(json.dumps(rows))
    arguments = [folder / "jury", "--benchmark", tmp_path / "bench.json", "--output", tmp_path / "out"]
    assert main([str(argument) for argument in arguments]) == 0
    result = json.loads((tmp_path / "out" / "bench.json").read_text())
    samples = json.loads((tmp_path / "out" / "bench-scores.json").read_text())
    assert {"tax", "school", "river"} < result.keys()
    ahead = np.array(samples["scores_chosen"]) > np.array(samples["scores_rejected"])
    assert samples["results"] == ahead.astype(float).tolist() == [result[w] for w in ("tax", "school", "river")]
    assert set(result["clusters"]) == {"cities, yes", "farms"}
    assert "rewardbench" in capsys.readouterr().out
    assert main([str(folder / "jury"), "--benchmark", str(tmp_path / "none.json")]) == 2
    assert main([str(folder / "jury")]) == 2
    assert "required: --data, or --benchmark" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_tells_seen_from_unseen(folder, tmp_path):
    table = pd.read_csv(folder / "pairs.csv")
    old = table["who"].str[1:].astype(int) < 20
    seen = table["ask"].str.contains("tax|school|river|bread|music")
    table[old & seen].to_csv(tmp_path / "train.csv", index=False)
    table[~(old & seen)].to_csv(tmp_path / "test.csv", index=False)
    tables = ["--data", tmp_path / "test.csv", "--train", tmp_path / "train.csv"]
    assert command(folder, *tables, "--base", folder / "one", "--json", tmp_path / "r.json") == 0
    results = json.loads((tmp_path / "r.json").read_text())
    rows = results["rows"]
    assert results["meta"]["verdict"].startswith("jury against base jury in 3 cases: better in")
    assert results["meta"]["rater_model"] == "fitted to labels that were not scored"
    assert {row["case"] for row in rows if row["metric"] == "nll_nats"} == {
        "seen rater, unseen prompt",
        "unseen rater, seen prompt",
        "unseen rater, unseen prompt",
    }
    assert next(row for row in rows if row["metric"] == "all")["case"] == "seen rater, seen prompt"


@pytest.mark.slow
def test_a_stored_rater_model_is_used_as_it_is(folder, tmp_path):
    from reward_models.jury.scorer import JuryScorer
    from reward_models.jury.state import JuryState
    from reward_models.raters.rater_model import KindTerms, RaterModel

    scorer = JuryScorer.from_pretrained(folder / "jury")
    steep = KindTerms({"log_scale_mean": np.array([np.log(50.0)])})  # as no fit would have it
    scorer.state = JuryState(rater_model=RaterModel("mixture", np.eye(2), np.log([0.6, 0.4]), {"preference": steep}))
    scorer.save_pretrained(tmp_path / "jury")
    assert command(folder, "--jury", tmp_path / "jury", "--json", tmp_path / "r.json") == 0
    results = json.loads((tmp_path / "r.json").read_text())
    assert results["meta"]["rater_model"] == "stored"
    loss = {row["method"]: row["value"] for row in results["rows"] if row["metric"] == "nll_nats"}
    assert loss["jury"] > np.log(2) > loss["one reward"]  # overconfident fifty times over


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--jury", "nowhere"], "no jury reward model at 'nowhere'"),
        (["--data", "nothing.csv"], "nothing.csv does not exist"),
        (["--adapt-share", "1.5"], "fraction=1.5 is not a share"),
        (["--weights", "farm=1"], "the weights name 'farm', and there is no such cluster. Did you mean 'farms'?"),
        (["--weights", "farms=many"], "the share of 'farms' is 'many', which is not a number"),
        (["--weights", "cities, yes=2,farms"], "'farms' is not of the form name=share"),
        (["--draws", "0"], "draws=0"),
        (["--language-model", "nowhere", "--baselines", "in-context"], "no causal language model at 'nowhere'"),
    ],
)
def test_the_command_refuses_before_scoring(folder, capsys, monkeypatch, options, message):
    # Where it is imported to: calling it would raise a TypeError.
    monkeypatch.setattr("reward_models.evaluation.command.measured.score_texts", None)
    assert command(folder, *options) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("text", "weights"), [("farms", "[0.0, 1.0]"), ("uniform", "[0.5, 0.5]")])
def test_weights_are_read_as_by_every_command(folder, capsys, monkeypatch, text, weights):
    def stop(*args, clusters, **options):
        raise JuryError(f"weights {clusters.weights.tolist()}")

    monkeypatch.setattr("reward_models.evaluation.command.measured.evaluate_jury", stop)
    assert command(folder, "--weights", text) == 2
    assert f"weights {weights}" in capsys.readouterr().err


def test_a_base_must_be_one_reward(folder, capsys):
    """The jury in the first place, as the other commands take it, and not as an option."""
    options = ["--base", folder / "jury", "--data", folder / "pairs.csv", "--columns", folder / "map.yaml"]
    assert main([str(option) for option in (folder / "jury", *options)]) == 2
    assert "has 2 clusters, and the base is one reward for everybody" in capsys.readouterr().err


@pytest.mark.slow
def test_help_teaches_and_needs_no_torch():
    code = (
        "import sys, contextlib\nfrom reward_models.evaluate import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        "print('loaded', 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "one reward, rater terms" in done.stdout
    assert "examples:" in done.stdout
    assert done.stdout.endswith("loaded False\n")


@pytest.mark.parametrize("name", ["draws", "seed", "batch_size"])
def test_help_names_the_default_that_counts(capsys, name):
    with pytest.raises(SystemExit):
        parse_options("evaluate", ["--help"])
    said = " ".join(capsys.readouterr().out.split())
    option = rf"--{name.replace('_', '-')} {name.upper()} (?:(?! --).)*?\(default: (\d+)\)"
    default = vars(parse_options("evaluate", ["--jury", "folder", "--data", "table.csv"]))[name]
    assert re.search(option, said)[1] == str(default)


def test_raters_with_one_judgement_each_leave_nothing_to_adapt_by(folder, tmp_path, capsys):
    table = pd.read_csv(folder / "pairs.csv").drop_duplicates("who")
    table.to_csv(tmp_path / "once.csv", index=False)
    assert command(folder, "--jury", tmp_path / "not read", "--data", tmp_path / "once.csv") == 2
    printed = capsys.readouterr().err
    assert "none of the 30 raters has two judgements, one to adapt by and one to score. Fix: use a table" in printed
