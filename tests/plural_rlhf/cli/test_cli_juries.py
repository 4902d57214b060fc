"""The commands about juries and judgements: what they read, what they print, and how they refuse."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification
from typer.testing import CliRunner

from plural_rlhf.cli import app
from plural_rlhf.recipe.inputs import read_judgements
from plural_rlhf.recipe.settings.data import DataSection
from reward_models.analysis.headroom import headroom
from reward_models.jury.features import pooled_features
from reward_models.jury.fitting.descriptions import judgements_behind
from reward_models.jury.modeling_jury import JuryRewardModel
from reward_models.jury.scorer import JuryScorer
from reward_models.jury.state import JuryState
from reward_models.raters.rater_model import KindTerms, RaterModel
from reward_models.sources import RELEASES, load_table, planted_judgements
from tests.paths import ROOT
from tests.printed import words
from tests.tiny import tiny_causal_lm, tiny_tokenizer


ANSWERS_MAP = str(ROOT / "configs/columns/answers.yaml")
runner = CliRunner()
pytestmark = pytest.mark.usefixtures("wide_terminal")


# ── tables ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_shipped_column_map_reads_the_table_it_describes(votes):
    data = DataSection(source="table", path=votes, columns=ANSWERS_MAP)
    judgements = read_judgements(data, seed=0)
    assert len(judgements) == 40 * 4 - 1
    assert judgements.n_raters == 40
    assert judgements.traits == ["rater:region"]
    few = read_judgements(data.model_copy(update={"max_raters": 7}), seed=0)
    assert few.n_raters == 7
    assert set(few.raters) < set(judgements.raters)
    assert few.raters == read_judgements(data.model_copy(update={"max_raters": 7}), seed=0).raters


def test_canonical_columns_need_no_map(ratings):
    names = {column: column for column in ("rater_id", "prompt", "response", "rating")}
    mapped = load_table(ratings, {"columns": names})
    assert load_table(ratings).frame.equals(mapped.frame)


# ── releases ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_releases_are_listed_with_licence_and_place():
    printed = words(runner.invoke(app, ["releases"]).output)
    for release in RELEASES.values():
        assert f"{release.name} {release.kind} {release.licence}" in printed
        assert release.hub_id is None or release.hub_id in printed


def test_one_release_tells_its_options_and_how_to_read_it():
    done = runner.invoke(app, ["releases", "prism"])
    assert "options     kind, levels" in done.output
    assert "plural-rlhf headroom --release prism --set data.limit=1000" in done.output
    assert "headroom --release polis --source PATH" in runner.invoke(app, ["releases", "polis"]).output
    refused = runner.invoke(app, ["releases", "poliss"])
    assert refused.exit_code == 2
    assert "Did you mean 'polis'?" in words(refused.output)


# ── juries ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def save(tokenizer, folder, **state):
    """A jury of two clusters in `folder`, its names as awkward as real ones."""
    rng = np.random.default_rng(0)
    names = ["cars, roads: yes", "trams"]
    model = JuryRewardModel.from_fit(
        tiny_causal_lm(tokenizer), rng.normal(size=(2, 32)), np.zeros(2), [0.75, 0.25], names
    )
    JuryScorer(model, tokenizer, state=JuryState(**state)).save_pretrained(folder)
    return str(folder)


CLUSTERS = RaterModel("mixture", np.eye(2), np.log([0.75, 0.25]), {"choice": KindTerms()})


def answers(folder, prompts):
    """One rater, `0001`, who says yes to everything, and `v`, who says no, as JSON lines."""
    path = folder / f"answers-{type(prompts[0]).__name__}.jsonl"
    rows = [
        {"rater_id": rater, "prompt": prompt, "options": ["yes", "no"], "choice": choice}
        for rater, choice in (("0001", "yes"), ("v", "no"))
        for prompt in prompts
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def test_adapt_is_bayes_rule_on_the_rewards_of_the_jury(tokenizer, tmp_path):
    prompts = ["Parks?", "Roads?"]
    jury = save(tokenizer, tmp_path / "jury", rater_model=CLUSTERS)
    arguments = ["--data", str(answers(tmp_path, prompts)), "--json", str(tmp_path / "raters.json"), "--rows", "1"]
    done = runner.invoke(app, ["adapt", jury, *arguments])
    assert done.exit_code == 0, done.output

    scorer = JuryScorer.from_pretrained(jury)
    joint = np.array([0.75, 0.25])
    for prompt in prompts:
        rewards = scorer.cluster_rewards([prompt] * 2, ["yes", "no"]).double().numpy()
        joint = joint * (np.exp(rewards) / np.exp(rewards).sum(0))[0]
    expected = joint / joint.sum()
    written = json.loads((tmp_path / "raters.json").read_text(encoding="utf-8"))
    rater = written["raters"][0]
    assert (rater["rater_id"], rater["judgements"], written["clusters"]) == ("0001", 2, scorer.cluster_names)
    assert list(rater["memberships"].values()) == pytest.approx(expected.tolist(), abs=1e-6)
    assert len(written["raters"]) == 2
    assert f"0001 2 {expected[0]:.2f} [" in words(done.output)
    assert "and 1 more; --rows shows them" in words(done.output)
    assert "2 raters:" in done.output


def test_a_jury_of_conversations_reads_plain_prompts_as_such(tokenizer, tmp_path):
    plain = answers(tmp_path, ["Parks?", "Roads?"])
    chat = answers(tmp_path, [[{"role": "user", "content": "Parks?"}], [{"role": "user", "content": "Roads?"}]])

    def memberships(jury, data):
        target = tmp_path / "raters.json"
        done = runner.invoke(app, ["adapt", jury, "--data", str(data), "--json", str(target)])
        assert done.exit_code == 0, done.output
        return [r["memberships"]["trams"] for r in json.loads(target.read_text(encoding="utf-8"))["raters"]]

    of_chats = save(tokenizer, tmp_path / "chats", rater_model=CLUSTERS, fitted_on={"conversations": 4})
    of_texts = save(tokenizer, tmp_path / "texts", rater_model=CLUSTERS, fitted_on={"texts": 4})
    assert memberships(of_chats, plain) == memberships(of_chats, chat) == memberships(of_texts, chat)
    assert memberships(of_texts, plain) != memberships(of_texts, chat)


def test_adapt_refuses_a_jury_without_a_rater_model(tokenizer, tmp_path):
    data = str(answers(tmp_path, ["Parks?"]))
    done = runner.invoke(app, ["adapt", save(tokenizer, tmp_path / "jury"), "--data", data])
    assert done.exit_code == 2
    assert "The jury cannot be used" in done.output
    assert "does not know how raters vary" in words(done.output)
    assert runner.invoke(app, ["adapt", str(tmp_path / "none"), "--data", data]).exit_code == 2


def test_rename_takes_names_that_hold_signs_and_numbers_and_tells_of_trained_policies(tokenizer, tmp_path):
    jury = save(tokenizer, tmp_path / "jury")
    done = runner.invoke(app, ["rename", jury, "cars, roads: yes=cars", "2=rails"])
    assert done.exit_code == 0, done.output
    assert "cars (was cars, roads: yes) rails (was trams)" in words(done.output)
    assert "prompt_names=['cars, roads: yes', 'trams']" in words(done.output)
    assert JuryScorer.from_pretrained(jury).cluster_names == ["cars", "rails"]
    for change, reason in (
        ("bus=coach", "no cluster 'bus'"),
        ("cars=", "empty"),
        ("cars", "not of the form"),
        ("3=x", "no cluster '3'"),
    ):
        done = runner.invoke(app, ["rename", jury, change])
        assert done.exit_code == 2, done.output
        assert reason in words(done.output)


def test_export_scalar_writes_a_model_for_the_weights_that_were_asked_for(tokenizer, tmp_path):
    jury, out = save(tokenizer, tmp_path / "jury"), tmp_path / "scalar"
    done = runner.invoke(app, ["export-scalar", jury, str(out), "--weights", "cars, roads: yes=1, trams = 3"])
    assert done.exit_code == 0, done.output
    assert "25.0% cars, roads: yes 75.0% trams" in words(done.output)
    head = AutoModelForSequenceClassification.from_pretrained(out).score.weight[0].tolist()
    heads = JuryRewardModel.from_pretrained(jury).score.weight
    assert head == pytest.approx((0.25 * heads[0] + 0.75 * heads[1]).tolist(), abs=1e-6)
    for weights, shares in (
        ("uniform", "50.0% cars, roads: yes 50.0% trams"),
        ("trams", "0.0% cars, roads: yes 100.0%"),
    ):
        done = runner.invoke(app, ["export-scalar", jury, str(out), "--force", "--weights", weights])
        assert shares in words(done.output)


@pytest.mark.parametrize(("bias", "said"), [(1.5, "+ 1.5000"), (-0.25, "- 0.2500")])
def test_export_scalar_says_what_the_exported_logit_lacks(tokenizer, tmp_path, bias, said):
    scorer = JuryScorer.from_pretrained(save(tokenizer, tmp_path / "plain"))
    with torch.no_grad():
        scorer.model.score.bias.fill_(bias)
    scorer.save_pretrained(tmp_path / "jury")
    jury = str(tmp_path / "jury")
    done = runner.invoke(app, ["export-scalar", jury, str(tmp_path / "scalar")])
    assert done.exit_code == 0, done.output
    assert f"The jury's weighted mean = the exported logit {said}" in done.output


def test_export_scalar_leaves_a_folder_with_files_alone(tokenizer, tmp_path):
    jury, out = save(tokenizer, tmp_path / "jury"), tmp_path / "mine"
    out.mkdir()
    (out / "config.json").write_text("years of work")
    done = runner.invoke(app, ["export-scalar", jury, str(out)])
    assert done.exit_code == 2
    assert "holds files. Give another folder, or --force to write over them." in words(done.output)
    assert [p.read_text() for p in out.iterdir()] == ["years of work"]
    file = runner.invoke(app, ["export-scalar", jury, str(out / "config.json"), "--force"])
    assert file.exit_code == 2
    assert "is a file. Give the name of a folder." in words(file.output)
    assert runner.invoke(app, ["export-scalar", jury, str(out), "--force"]).exit_code == 0
    assert AutoModelForSequenceClassification.from_pretrained(out).config.num_labels == 1


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ("trms", "Did you mean 'trams'?"),
        ("trams=1, cars", "'cars' is not of the form name=share"),
        ("trams=many", "'many', which is not a number"),
        ("trms=1", "Did you mean 'trams'?"),
        ("trams=-1", "a number of at least 0"),
    ],
)
def test_export_scalar_refuses_weights_it_cannot_read(tokenizer, tmp_path, weights, reason):
    jury, out = save(tokenizer, tmp_path / "jury"), tmp_path / "scalar"
    done = runner.invoke(app, ["export-scalar", jury, str(out), "--weights", weights])
    assert done.exit_code == 2
    assert reason in words(done.output)
    assert not out.exists()


def test_evaluate_jury_is_the_command_of_reward_models(monkeypatch):
    seen = []
    arguments = ["--jury", "j", "--data", "d.csv", "--columns", "m.yaml", "--draws", "20"]
    with monkeypatch.context() as patch:
        patch.setattr("reward_models.evaluate.run", lambda argv, prog: seen.append((argv, prog)))
        assert runner.invoke(app, ["evaluate-jury", *arguments]).exit_code == 0
    assert seen == [(arguments, "plural-rlhf evaluate-jury")]
    told = runner.invoke(app, ["evaluate-jury", "--help"])
    assert told.exit_code == 0
    assert told.output.startswith("usage: plural-rlhf evaluate-jury ")
    assert "plural-rlhf evaluate-jury runs/jury --data votes.csv" in told.output
    assert "--adapt-share" in told.output
    assert "reward_models" not in told.output


@pytest.mark.parametrize(
    ("arguments", "title", "reason"),
    [
        ("--data votes.csv", "The command cannot be read", "the folder of the jury is missing"),
        ("a --jury b --data votes.csv", "The command cannot be read", "the folder of the jury is there twice"),
        (
            "a",
            "The command cannot be read",
            "required: --data, or --benchmark. plural-rlhf evaluate-jury --help lists",
        ),
        ("a --data votes.csv --drws 9", "The command cannot be read", "unrecognized arguments: --drws 9"),
        ("a --data nothing.csv", "A file is missing", "nothing.csv does not exist"),
    ],
)
def test_evaluate_jury_refuses_as_the_other_commands_do(arguments, title, reason):
    done = runner.invoke(app, ["evaluate-jury", *arguments.split()])
    assert done.exit_code == 2
    assert f"─ {title} ─" in done.output
    assert reason in words(done.output)
    raised = runner.invoke(app, ["evaluate-jury", *arguments.split(), "--traceback"]).exception
    assert isinstance(raised, ValueError | FileNotFoundError)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_jury_from_a_table_adapts_to_the_raters_of_that_table(votes, tmp_path):
    run_file = tmp_path / "run.yaml"
    data = {"source": "table", "path": str(votes), "columns": ANSWERS_MAP, "heldout_questions": 1}
    jury = {"clusters": 2, "restarts": 1, "l2": 1.0}
    policy = {"model": "tiny", "cache_dir": str(tmp_path / "models")}
    run_file.write_text(json.dumps({"data": data, "jury": jury, "policy": policy}), encoding="utf-8")
    fitted = runner.invoke(app, ["fit-jury", str(run_file), "--output", str(tmp_path / "run")])
    assert fitted.exit_code == 0, fitted.output

    saved = JuryScorer.from_pretrained(tmp_path / "run" / "jury").state
    assert len(saved.descriptions) == 2
    assert (saved.fitted_on["raters"], saved.fitted_on["items"]) == (28, 3)  # 70 % of the raters, 3 of 4 questions
    target = tmp_path / "raters.json"
    arguments = ["--data", str(votes), "--columns", ANSWERS_MAP, "--json", str(target)]
    adapted = runner.invoke(app, ["adapt", str(tmp_path / "run" / "jury"), *arguments])
    assert adapted.exit_code == 0, adapted.output
    raters = json.loads(target.read_text(encoding="utf-8"))["raters"]
    first = [next(iter(rater["memberships"].values())) for rater in raters]
    camp = np.array([int(rater["rater_id"][1:]) % 2 for rater in raters])
    sure = np.array(first) > 0.9, np.array(first) < 0.1
    assert (sure[0] | sure[1]).mean() > 0.9
    assert abs(np.corrcoef(sure[0], camp)[0, 1]) > 0.9

    record = json.loads((tmp_path / "run" / "heldout.json").read_text(encoding="utf-8"))
    units = ("raters", "items")
    assert {unit: {side: len(ids) for side, ids in record[unit].items()} for unit in units} == {
        "raters": {"train": 28, "heldout": 12},
        "items": {"train": 3, "heldout": 1},
    }
    arguments = ["--data", str(votes), "--columns", ANSWERS_MAP, "--draws", "20", "--json", str(target)]
    measured = runner.invoke(app, ["evaluate-jury", str(tmp_path / "run" / "jury"), *arguments])
    assert measured.exit_code == 0, measured.output
    results = json.loads(target.read_text(encoding="utf-8"))
    # One of them did not answer the last question, and whether that counts depends on the split.
    unanswered = "p39" in record["raters"]["train"] and "trams" in record["items"]["train"]
    expected = f"heldout.json names {28 * 3 - unanswered} of 159 judgements of --data, not scored"
    assert results["meta"]["fitted_to"].startswith(expected)
    losses = {(row["case"], row["method"]): row["value"] for row in results["rows"] if row["metric"] == "nll_nats"}
    known_question = {method: loss for (case, method), loss in losses.items() if case == "unseen rater, seen prompt"}
    assert known_question["jury"] < known_question["marginal"] - 0.1
    assert known_question["uniform"] == pytest.approx(np.log(2))
    assert "jury against marginal in 3 cases" in results["meta"]["verdict"]
    assert "format" not in results["meta"]["verdict"]


def test_the_map_of_a_wide_file_can_be_pasted_from_the_terminal(tmp_path):
    rows = [f"p{i},{1 + i % 2},{2 - i % 2},{1 + i % 3 // 2}" for i in range(30)]
    table = tmp_path / "wide.csv"
    table.write_text("\n".join(["id,parks,roads,trams", *rows]))
    refused = runner.invoke(app, ["headroom", str(table)])
    assert refused.exit_code == 2
    assert "The file looks wide" in " ".join(refused.output.replace("│", " ").split())
    pasted = tmp_path / "map.yaml"
    pasted.write_text(refused.output[refused.output.rindex("\nkind: choice\n") :])
    measured = runner.invoke(app, ["headroom", str(table), "--columns", str(pasted)])
    assert measured.exit_code == 0, measured.output
    assert "wide.csv: 90 judgements (choice)" in measured.output


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the jury's heads are not on one scale")
def test_fit_jury_takes_a_table_of_votes_with_pairs_of_the_same_raters(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for kind in ("rating", "preference"):
        frame = planted_judgements(kind, num_raters=24, num_items=10, seed=1).judgements.frame
        frame.drop(columns="item_id").to_csv(f"{kind}.csv", index=False)
    settings = ["data.columns={levels: [-1, 0, 1]}", "data.tables=[{path: preference.csv}]", "jury.clusters=2"]
    settings += ["jury.describe=tiny"]
    sets = [part for setting in (*settings, "data.heldout_questions=2") for part in ("--set", setting)]
    command = ["fit-jury", "rating.csv", "--backbone", "tiny", "--strangers", "judgements"]
    result = runner.invoke(app, [*command, *sets, "--traceback"])
    assert result.exit_code == 0, result.output
    jury = JuryScorer.from_pretrained("runs/rating/jury")
    assert jury.state.strangers is not None
    written = list(jury.state.descriptions.values())
    assert len(written) == 2
    assert all(text != judgements_behind(text) for text in written)  # words of the model, and the judgements
    again = runner.invoke(app, ["rename", "runs/rating/jury", "1=first", "--describe", "tiny"])
    assert again.exit_code == 0, again.output
    renamed = JuryScorer.from_pretrained("runs/rating/jury")
    assert renamed.cluster_names[0] == "first"
    assert list(renamed.state.descriptions.values()) == written
    nothing = runner.invoke(app, ["rename", "runs/rating/jury"])
    assert nothing.exit_code == 2
    assert "nothing to change. Give OLD=NEW, or --describe MODEL" in words(nothing.output)
    # What a jury gains on new texts is measured from the features that the jury reads.
    stage = json.loads((tmp_path / "runs/rating/stages/jury.json").read_text(encoding="utf-8"))["result"]
    train = json.loads((tmp_path / "runs/rating/heldout.json").read_text(encoding="utf-8"))
    table = load_table("rating.csv", {"levels": [-1, 0, 1]})
    known = [
        table.frame["rater_id"].isin(train["raters"]["train"]),
        table.frame["item_id"].isin(train["items"]["train"]),
    ]
    fitted = table.select((known[0] & known[1]).to_numpy())
    rows = pooled_features(jury.model.model, jury.tokenizer, fitted.encode().texts, reading=jury.reading)
    expected = headroom(fitted, max_clusters=2, features=rows)
    assert stage["headroom_new_texts"]["verdict"] == expected.verdict
    assert expected.verdict.split("[")[0] in words(result.output)
    assert stage["headroom"]["verdict"] != expected.verdict
    # Groups are compared by what the jury reads too.
    assert stage["groupings"]["rows"][-1]["grouping"] == "clusters of answers drawn without taste"
    assert set(jury.state.rater_model.terms) == {"rating", "preference"}
    assert len(jury.cluster_names) == 2
