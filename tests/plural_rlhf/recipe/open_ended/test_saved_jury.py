"""A saved jury in place of one that the run fits: used as it is, complete in the run's folder, refused where unfit."""

import json
import shutil

import numpy as np
import pytest
from rich.console import Console

from plural_rlhf.recipe import ConfigError, RunFolderError, run
from plural_rlhf.recipe.choose_job import job_of
from plural_rlhf.recipe.data import read_data
from plural_rlhf.report.results_jury import JuryResults
from reward_models.errors import JudgementWarning, JuryError
from reward_models.jury.folder import load_config
from reward_models.jury.scorer import JuryScorer


def quietly(config, **more):
    return run(config, console=Console(quiet=True), **more)


@pytest.fixture
def saved(config_of, tmp_path):
    """A jury of two clusters that an earlier run left."""
    quietly(config_of(output_dir=str(tmp_path / "earlier")), until="jury")
    return tmp_path / "earlier" / "jury"


@pytest.mark.slow
def test_a_saved_jury_is_used_as_it_is_and_lies_whole_in_the_folder(config_of, saved, tmp_path):
    config = config_of(jury={"path": str(saved)})
    results = quietly(config, until="jury")
    before = JuryScorer.from_pretrained(saved)
    assert [cluster.name for cluster in results.clusters] == before.cluster_names
    assert results.selection.chosen == 2
    assert "saved jury" in results.selection.reason
    assert "flatter" not in results.selection.reason  # the same seed holds out the same people
    stage = json.loads((tmp_path / "earlier/stages/jury.json").read_text(encoding="utf-8"))["result"]
    ladders = JuryResults.model_validate(stage).headroom_new_texts, results.headroom_new_texts
    rungs = [[rung.model_dump() for rung in ladder.rungs] for ladder in ladders]
    assert len(rungs[0]) > 3
    assert rungs[1][: len(rungs[0])] == rungs[0]  # on the same held-out texts, by the features of the same backbone
    shutil.move(saved, tmp_path / "elsewhere")  # the folder of the run is complete
    after = JuryScorer.from_pretrained(tmp_path / "run" / "jury")
    asked = (["What should the city do about its parks?"] * 2, ["More of them, please.", "Something new."])
    np.testing.assert_array_equal(before.cluster_rewards(*asked), after.cluster_rewards(*asked))


@pytest.mark.slow
def test_a_jury_that_was_fitted_to_the_heldout_people_is_said_to_flatter(config_of, saved):
    results = quietly(config_of(seed=7, jury={"path": str(saved)}), until="jury")
    assert "held-out raters" in results.selection.reason
    assert "flatter" in results.selection.reason


@pytest.mark.slow
def test_a_run_does_not_go_on_with_another_saved_jury(config_of, saved):
    config = config_of(jury={"path": str(saved)})
    quietly(config, until="jury")
    (saved / "config.json").write_text((saved / "config.json").read_text() + " ")
    with pytest.raises(RunFolderError, match="saved jury: other content"):
        quietly(config, until="jury")


@pytest.mark.slow
def test_few_raters_may_use_a_jury_of_many_clusters(config_of, saved):
    with pytest.raises(JuryError, match="asks for 3 clusters of 3 training raters"):
        quietly(config_of(data__max_raters=4, jury={}), until="jury")
    assert len(quietly(config_of(data__max_raters=4, jury={"path": str(saved)}), until="jury").clusters) == 2


@pytest.mark.parametrize(
    ("setting", "value"),
    [("clusters", 2), ("backbone", "some/model"), ("pooling", "mean"), ("restarts", 1), ("by", ["region"])],
)
def test_settings_of_a_fit_beside_a_saved_jury_are_refused(config_of, setting, value):
    with pytest.raises(ConfigError, match=rf"jury\.{setting} = .*is set, but with jury\.path no jury is fitted"):
        config_of(jury={"path": "some/jury", setting: value})


@pytest.mark.slow
def test_a_jury_that_does_not_suit_is_refused_before_anything_is_written(config_of, saved, tmp_path):
    with pytest.raises(ConfigError, match=r"jury\.path = .*nowhere"):
        quietly(config_of(jury={"path": str(tmp_path / "nowhere")}))
    pairs = [
        {"rater_id": f"r{n}", "prompt": f"Q{q}?", "response_a": "yes", "response_b": "no", "choice": "ab"[(n + q) % 2]}
        for n in range(12)
        for q in range(5)
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in pairs))
    with pytest.raises(
        ConfigError, match="fitted to judgements of kind rating, and those of this run are of kind pref"
    ):
        quietly(config_of(data__path=str(path), data__heldout_prompts=1, jury={"path": str(saved)}))
    name = load_config(saved).cluster_names[0]
    with pytest.raises(ConfigError, match=r"juries\.council: .*nobody"):
        quietly(config_of(jury={"path": str(saved)}, juries={"council": {name: 1, "nobody": 2}}))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_prompts_and_texts_of_another_kind_than_the_jury_knows_are_said_before_the_run(config_of, saved, tmp_path):
    russian = [f"Что городу делать с парком номер {number}?" for number in range(4)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in russian))
    settings = {"jury": {"path": str(saved)}, "prompts": {"path": str(tmp_path / "prompts.jsonl")}}
    config = config_of(**settings, data__written=None, sft__texts="none", sft__steps=0, plural={})
    with pytest.warns(JudgementWarning, match="prompts are mostly in cyrillic letters.*Fix: give a jury"):
        job_of(config, read_data(config), tmp_path / "run")


@pytest.mark.slow
def test_judgements_about_texts_of_another_kind_are_named_in_the_results(config_of, saved, votes):
    config = config_of(jury={"path": str(saved)})
    assert "another kind" not in quietly(config, until="jury").selection.reason
    table = [json.loads(line) for line in votes.read_text().splitlines()]
    russian = {
        prompt: f"Что делать городу? {number}" for number, prompt in enumerate({row["prompt"] for row in table})
    }
    votes.write_text("".join(json.dumps(row | {"prompt": russian[row["prompt"]]}) + "\n" for row in table))
    config = config_of(jury={"path": str(saved)}, output_dir=str(votes.with_name("other")))
    with pytest.warns(JudgementWarning, match="cyrillic"):
        results = quietly(config, until="jury")
    assert "another kind: the prompts are mostly in cyrillic letters" in results.selection.reason
