"""Tables of few raters and juries of one cluster: nothing crashes, nothing is claimed that the data cannot show."""

from __future__ import annotations

import pytest

from plural_rlhf.recipe import run
from plural_rlhf.recipe.config import load_config
from plural_rlhf.recipe.jury import measure_headroom
from plural_rlhf.report.sections import report_sections
from reward_models import Judgements, planted_judgements
from reward_models.errors import JudgementError, JuryError
from tests.plural_rlhf.recipe.test_recipe import SMOKE, quietly


pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.mark.parametrize(("n_raters", "clusters"), [(3, 1), (6, 2)])
def test_a_jury_of_few_raters_is_fitted_and_nothing_is_claimed_of_it(tmp_path, n_raters, clusters):
    # One candidate is taken as it is, and no group is compared with another.
    table = planted_judgements("choice", num_raters=n_raters, num_items=9, num_clusters=2).judgements.frame
    table["rater:region"] = ["north" if rater < "r2" else "south" for rater in table["rater_id"]]
    path = tmp_path / "answers.jsonl"
    table.to_json(path, orient="records", lines=True)
    settings = ["policy.model=tiny", f"policy.cache_dir={tmp_path / 'models'}", f"output_dir={tmp_path / 'run'}"]
    settings += ["data.source=table", f"data.path={path}", "data.columns.index=0", "data.heldout_questions=2"]
    config = load_config(SMOKE, [*settings, f"jury.clusters={clusters}"])
    console = quietly()
    results = run(config, command="test", console=console, until="jury")
    printed = " ".join(console.file.getvalue().split())
    assert results.selection.chosen == clusters == len(results.clusters)
    assert "is the only candidate" in results.selection.reason
    assert "no sign of clusters" not in printed
    assert results.headroom.verdict.startswith(f"undecided: {n_raters - round(0.3 * n_raters)} raters are too few")
    assert results.groupings is None
    assert f"Groups not compared: {n_raters} raters are too few to tell a difference from chance" in printed
    [information] = [section for section in report_sections(results) if section.key == "information"]
    assert f"{n_raters} raters are too few" in information.missing
    [distances] = [section for section in report_sections(results) if section.key == "distances"]
    assert "Heads-up: " in distances.reading


def test_a_jury_of_one_cluster_says_that_two_were_fitted_to_compare_groups(tmp_path):
    table = planted_judgements("choice", num_raters=40, num_items=8, num_clusters=1).judgements.frame
    path = tmp_path / "answers.jsonl"
    table.to_json(path, orient="records", lines=True)
    settings = ["policy.model=tiny", f"policy.cache_dir={tmp_path / 'models'}", f"output_dir={tmp_path / 'run'}"]
    settings += ["data.source=table", f"data.path={path}", "data.columns.index=0", "data.heldout_questions=2"]
    config = load_config(SMOKE, [*settings, "jury.clusters=1"])
    console = quietly()
    results = run(config, command="test", console=console, until="jury")
    assert len(results.clusters) == 1
    assert results.groupings.clusters.n_groups == 2
    printed = " ".join(console.file.getvalue().split())
    assert "two clusters, fitted for this comparison because the jury has one" in printed
    [information] = [section for section in report_sections(results) if section.key == "information"]
    assert "two were fitted for this comparison only" in information.reading
    assert "half of their answers" in information.reading


@pytest.mark.parametrize(
    ("n_items", "heldout", "fix"),
    [
        (8, None, "hold out at most 5, e.g. data.heldout_questions=5, or 0"),
        (5, "3", "at most 2"),
        (3, "2", "set it to 0"),
    ],
)
def test_questions_that_are_too_few_for_what_is_held_out_are_named_with_the_setting(tmp_path, n_items, heldout, fix):
    """The default of six, on a survey of eight, ended in advice to use another table."""
    path = tmp_path / "answers.jsonl"
    table = planted_judgements("choice", num_raters=30, num_items=n_items).judgements.frame
    table.to_json(path, orient="records", lines=True)
    settings = ["data.source=table", f"data.path={path}", "data.columns.index=0", f"output_dir={tmp_path / 'run'}"]
    settings += ["policy.model=tiny", f"policy.cache_dir={tmp_path / 'models'}", "jury.clusters=2"]
    settings += [f"data.heldout_questions={heldout or 6}"]
    with pytest.raises(JudgementError, match=rf"holds out {heldout or 6} questions of {n_items}, .*Fix: .*{fix}"):
        run(load_config(SMOKE, settings), console=quietly(), until="jury")
    assert not (tmp_path / "run").exists()


def test_a_table_in_which_everybody_judged_one_thing_says_what_the_run_measures_first():
    judgements = planted_judgements("rating", num_raters=12, num_items=4).judgements
    frame = judgements.frame.groupby("rater_id", as_index=False).head(1)
    with pytest.warns(UserWarning, match="12 of 12 raters have one judgement"):
        once = Judgements.from_frame(frame, levels=judgements.levels)
    with pytest.raises(JuryError, match=r"^a run measures first .*none of 12 judgements can be held out.*fit_jury"):
        measure_headroom(once, 0, lambda name, measure: measure())
