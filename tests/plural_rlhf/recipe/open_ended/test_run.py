"""A whole run whose policies write, on a tiny language model: its stages, its samples, and going on after a stop."""

import itertools
import json

import pytest
from rich.console import Console
from safetensors.torch import load_file

from plural_rlhf.recipe import ConfigError, RunFolderError, run
from plural_rlhf.recipe.open_ended import samples as sampling
from plural_rlhf.recipe.open_ended.kept_change import SHARES
from plural_rlhf.recipe.run_folder.folder import HELDOUT_JURY, SAMPLES_FILE
from reward_models.jury.scorer import JuryScorer


def quietly(config, **more):
    return run(config, console=Console(quiet=True), **more)


@pytest.mark.slow
def test_a_run_writes_texts_by_every_policy_and_goes_on_with_the_same_texts(config_of, tmp_path, monkeypatch):
    config = config_of(best_of_n={"n": 2}, rloo={"steps": 1, "num_generations": 2})
    results = quietly(config)
    assert set(results.training) == {"warm", "plural", "grpo", "rloo"}
    assert results.budgets["plural"].generated_sequences == 4 + 4  # half of 8, beside people; 4 tell what is kept
    assert results.budgets["plural"].kept_share in SHARES
    assert "of the change kept (KL to the target, by a few texts: " in (tmp_path / "run" / "report.md").read_text()
    text = (tmp_path / "run" / SAMPLES_FILE).read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    names = [cluster.name for cluster in results.clusters]
    counts = {}
    for row in rows:
        counts[row["policy"], row["weighting"]] = counts.get((row["policy"], row["weighting"]), 0) + 1
    per_weighting = 3 * 3  # samples, times two training prompts and one that is held out
    steered = {(policy, name) for policy in ("warm", "plural") for name in ("all", *names)}
    stock = {(policy, "all") for policy in ("untouched", "grpo", "rloo", "best_of_n")}
    assert counts == dict.fromkeys(steered | stock, per_weighting)
    assert all(row["log_prob"] == row["reference_log_prob"] < 0 for row in rows if row["policy"] == "warm")
    assert any(row["log_prob"] != row["reference_log_prob"] for row in rows if row["policy"] == "plural")

    # What was measured of them: both splits, everybody and each cluster, by both juries, beside what people wrote.
    assert [(of.split, of.weighting) for of in results.texts] == [
        (split, name) for split in ("train", "heldout") for name in ("all", *names)
    ]
    for of in results.texts:
        policies = {"warm", "plural"} if of.weighting != "all" else {policy for policy, _ in counts}
        assert {text.policy for text in of.texts} == {*policies, "people"}
        assert {row.jury for row in of.rows} == {"", "training", "heldout"}
        assert of.row("plural", "approval", jury="heldout", cluster=names[0]).value is not None
    ladder = results.headroom_new_texts
    assert [rung.name for rung in ladder.rungs][:3] == ["item mean", "rater terms", "rater terms + rank 1"]
    second = JuryScorer.from_pretrained(tmp_path / "run" / HELDOUT_JURY)
    assert set(names) & set(second.cluster_names)  # named after those of the first jury that want the same
    assert {(one.policy, one.step, one.n) for one in results.along} == {
        ("plural", step, 8 * prompts) for step in (1, 2) for prompts in (1, 2)
    }
    assert all(one.heldout_gain is not None for one in results.along)
    weights = [
        load_file(folder / "adapter_model.safetensors")
        for folder in (tmp_path / "run" / name for name in ("warm", "plural/along/step-1", "plural"))
    ]
    assert all(any((a[key] != b[key]).any() for key in a) for a, b in itertools.pairwise(weights))
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Along the trainings" in page
    assert "asked for the population, by a jury of raters that took no part" in page
    assert "Whom do the texts please?" in page
    assert "Headroom verdict on texts that nobody judged: " in page
    assert "All this is measured on one prompt" in page
    assert "of the texts of pi_0" in page.lower()  # a tiny model never answers, and the page says so

    # Stopped in the middle of drawing texts: what is drawn afterwards is what would have been drawn.
    drawn = []
    draw = sampling._Writer._draw

    def stop_at_the_seventh(self, *args):
        drawn.append(args)
        if len(drawn) == 7:
            raise KeyboardInterrupt
        return draw(self, *args)

    (tmp_path / "run" / "stages" / "evaluate.json").unlink()
    (tmp_path / "run" / SAMPLES_FILE).unlink()
    monkeypatch.setattr(sampling._Writer, "_draw", stop_at_the_seventh)
    with pytest.raises(KeyboardInterrupt):
        quietly(config, until="evaluate")
    quietly(config, until="evaluate")
    assert (tmp_path / "run" / SAMPLES_FILE).read_text() == text
    whole = (len(counts) + 1) * 3  # with ours along its training, after one step of two and at its end
    whole += 3
    assert len(drawn) == whole + 1  # only the piece that was stopped was begun twice


@pytest.mark.slow
def test_a_second_run_takes_jury_and_pi_0_and_is_measured_beside_the_first(config_of, tmp_path):
    first, second = tmp_path / "run", tmp_path / "second"
    quietly(config_of(grpo={"steps": 0}), until="train")
    more = {
        "output_dir": str(second),
        "plural": {"sampled": {"steps": 1, "num_generations": 4}},
        "grpo": {"steps": 1, "prompts_per_step": 1, "num_generations": 2, "rule": "pool", "beta": 1.0},
        "prompting": {"instruction": "Agree with everybody."},
        "evaluate": {
            "samples": 3,
            "reference_samples": 5,
            "prompts": 2,
            "draws": 20,
            "rivals": {"ours": str(first / "plural")},
            "raters": ["r00"],
            "keep": "best",
            "mixed_decoding": "mixture",
        },
    }
    config = config_of(**more)
    results = quietly(config, reuse=first)
    for name in ("jury/model.safetensors", "warm/adapter_model.safetensors", "heldout.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    for stage in ("jury", "warm"):
        assert (first / "stages" / f"{stage}.json").read_bytes() == (second / "stages" / f"{stage}.json").read_bytes()
    assert results.budgets["plural"].steps == 1  # other settings: trained anew
    rows = [json.loads(line) for line in (second / SAMPLES_FILE).read_text().splitlines()]
    names = [cluster.name for cluster in results.clusters]
    asked = {name: {row["weighting"] for row in rows if row["policy"] == name} for name in ("ours", "plural", "mixed")}
    requests = {"all", *names, "rater r00"}
    one_cluster = max(next(of for of in results.texts if of.weighting == "rater r00").weights.values()) == 1
    assert asked == {
        "ours": requests,
        "plural": requests,
        "mixed": {"all"} if one_cluster else {"all", "rater r00"},  # for one cluster it would be ours
    }
    assert all(row["log_prob"] < 0 for row in rows if row["policy"] == "mixed")
    assert {one.policy for one in results.along if one.kept} == {"ours"}  # one step alone has no way
    assert sum((row["policy"], row["weighting"]) == ("warm", "all") for row in rows) == 3 * 5
    assert sum((row["policy"], row["weighting"]) == ("warm", names[0]) for row in rows) == 3 * 3
    instructed = [row for row in rows if row["policy"] == "prompting"]
    assert len(instructed) == 3 * 3
    assert all(row["log_prob"] != row["reference_log_prob"] for row in instructed)
    steered = next(of for of in results.texts if of.weighting == names[0])
    shifts = {
        (row.policy, row.cluster) for row in steered.rows if (row.measure, row.jury) == ("approval_shift", "training")
    }
    assert shifts == {(policy, name) for policy in ("warm", "plural", "ours") for name in names}
    written = results.texts[0]
    assert written.row("plural", "win_rate", jury="training", cluster=names[0], rival="ours") is not None
    assert "ours" in (second / "report.html").read_text()

    with pytest.raises(RunFolderError, match=r"--reuse: .* is the output folder of this run"):
        quietly(config, reuse=second)
    more["output_dir"] = str(tmp_path / "third")
    more["evaluate"]["rivals"] = {"warm": str(first / "plural"), "other": str(first)}
    with pytest.raises(ConfigError, match=r"(?s)2 faults.*'warm' is the name of.*holds no policy.*Did you mean"):
        quietly(config_of(**more))
    more["evaluate"] |= {"rivals": {}, "raters": ["r000"]}
    with pytest.raises(ConfigError, match=r"'r000', who judged nothing here\. Did you mean 'r00"):
        quietly(config_of(**more))
