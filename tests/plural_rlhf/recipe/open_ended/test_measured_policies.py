"""Which policies a run measures, for whom they are asked, how texts are chosen, and what is said along a training."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from plural_rlhf.recipe.open_ended.along import best_checkpoints, measure_along
from plural_rlhf.recipe.open_ended.measured_policies import Choice, MeasuredPolicy, checkpoints_of, measured_policies
from plural_rlhf.recipe.open_ended.prompts import OpenPrompt
from plural_rlhf.recipe.open_ended.requests import add_shifts, named_weightings
from plural_rlhf.recipe.open_ended.rerank import RERANK_FILE
from plural_rlhf.recipe.open_ended.samples import Sample, _choose
from plural_rlhf.recipe.run_folder.stage_record import StageRecord
from plural_rlhf.report.results_policies import TextResults, WrittenText


ALL_STEPS = {"steps": 1, "num_generations": 2}
RUN = Path("run")


def as_values(policies: list[MeasuredPolicy]) -> dict[str, tuple]:
    return {str(p.name): (p.adapter, p.follows_weights, p.instruction, p.mixes) for p in policies}


def test_every_policy_is_measured_from_its_folder_for_whom_it_was_trained(config_of):
    config = config_of(
        rloo=ALL_STEPS,
        best_of_n={"n": 4},
        prompting={"instruction": "Agree."},
        evaluate={"mixed_decoding": "mixture", "rivals": {"first": "other/plural", "second": "other/grpo"}},
    )
    policies = measured_policies(config, RUN)
    assert as_values(policies) == {
        "untouched": (None, False, "", False),
        "warm": (RUN / "warm", True, "", False),
        "grpo": (RUN / "grpo", False, "", False),
        "rloo": (RUN / "rloo", False, "", False),
        "plural": (RUN / "plural", True, "", False),
        "mixed": (RUN / "plural", True, "", True),
        "best_of_n": (RUN / "warm", False, "", False),
        "prompting": (RUN / "warm", False, "Agree.", False),
        "first": (Path("other/plural"), True, "", False),
        "second": (Path("other/grpo"), False, "", False),
    }
    assert {str(p.name): p.choice for p in policies if p.choice} == {"best_of_n": Choice(4)}


def test_what_has_no_steps_is_not_measured(config_of):
    policies = measured_policies(config_of(grpo={"steps": 0}), RUN)
    assert [str(p.name) for p in policies] == ["untouched", "warm", "plural"]


def test_a_policy_that_reranks_chooses_as_the_run_file_says_and_never_mixes(config_of):
    plural = {"mode": "rerank", "candidates": 6, "candidate_pool": 50, "rule": "mean"}
    config = config_of(plural=plural, grpo={"steps": 0}, evaluate={"mixed_decoding": "mixture"})
    *_, ours = measured_policies(config, RUN)
    assert (ours.name, ours.follows_weights, ours.mixes) == ("plural", True, False)
    assert (ours.choice.candidates, ours.choice.pool, ours.choice.section) == (6, 50, config.plural)


def test_a_rival_that_reranks_chooses_as_its_own_run_did(config_of, tmp_path):
    own = {"mode": "rerank", "candidates": 3, "candidate_pool": 9, "rule": "nash", "rho": 0.5, "beta": 2.0}
    (tmp_path / "plural").mkdir()
    (tmp_path / "plural" / RERANK_FILE).write_text(json.dumps(own))
    config = config_of(evaluate={"rivals": {"theirs": str(tmp_path / "plural")}})
    theirs = measured_policies(config, RUN)[-1]
    assert theirs.follows_weights
    assert (theirs.choice.candidates, theirs.choice.pool) == (3, 9)
    section = theirs.choice.section
    assert (section.rule, section.rho, section.beta) == ("nash", 0.5, 2.0)


def test_a_policy_at_its_checkpoints_is_its_adapter_there_and_at_the_end(tmp_path):
    policy = MeasuredPolicy("plural", tmp_path / "plural", follows_weights=True)
    assert checkpoints_of(policy) == {}  # it left none
    for step in (2, 10):
        folder = tmp_path / "plural" / "along" / f"step-{step}"
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text("{}")
    assert list(checkpoints_of(policy)) == [2, 10]  # no record yet of how many steps the end is
    (tmp_path / "stages").mkdir()
    record = StageRecord({"budget": {"steps": 12}}, 1.0)
    record.write(tmp_path / "stages" / "plural.json")
    at = checkpoints_of(policy)
    assert {step: one.adapter for step, one in at.items()} == {
        2: tmp_path / "plural" / "along" / "step-2",
        10: tmp_path / "plural" / "along" / "step-10",
        12: tmp_path / "plural",
    }
    assert [one.name for one in at.values()] == [f"plural at step {step}" for step in (2, 10, 12)]
    assert not any(one.follows_weights for one in at.values())
    for other in ({"mixes": True}, {"instruction": "Agree."}, {"choice": Choice(2)}, {"adapter": None}):
        assert checkpoints_of(replace(policy, **other)) == {}  # its texts are not those of the adapter alone


class Scores:
    """Two clusters, one of which likes a text for its number and the other for the opposite."""

    cluster_names = ("more", "fewer")
    prevalence = np.array([0.75, 0.25])

    def cluster_rewards(self, prompts, completions):
        numbers = torch.tensor([float(completion[0]["content"]) for completion in completions])
        return torch.stack([numbers, -numbers], dim=1)


def drawn(policy: str, prompt: str, numbers, weighting: str = "all", split: str = "train", log_ratio=0.0):
    return [
        Sample(policy, weighting, prompt, split, str(number), -1.0 + log_ratio, -1.0, 3, True) for number in numbers
    ]


def test_each_text_is_the_best_of_as_many_candidates_of_its_own_prompt(config_of):
    config = config_of(evaluate={"samples": 4})
    prompts = [OpenPrompt("Why?", "train"), OpenPrompt("How?", "heldout")]
    pool = drawn("pi_0", "Why?", range(20)) + drawn("pi_0", "How?", range(100, 120), split="heldout")
    best = MeasuredPolicy("best_of_n", None, choice=Choice(5, pool=20))
    chosen = _choose(config, best, pool, prompts, Scores(), "all", np.array([1.0, 0.0]))
    assert [sample.prompt for sample in chosen] == ["Why?"] * 4 + ["How?"] * 4
    assert [sample.split for sample in chosen] == ["train"] * 4 + ["heldout"] * 4
    numbers = [int(sample.text) for sample in chosen]
    assert {19} < set(numbers[:4])
    assert {119} < set(numbers[4:])
    assert min(numbers[:4]) >= 4  # the largest of five
    assert len(set(numbers)) == 8  # 20 texts are enough for four hands of five
    assert all((s.policy, s.weighting, s.reference_log_prob) == ("best_of_n", "all", -1.0) for s in chosen)
    assert all(math.isnan(sample.log_prob) for sample in chosen)
    worst = _choose(config, best, pool, prompts, Scores(), "fewer", np.array([0.0, 1.0]))
    assert max(int(sample.text) for sample in worst if sample.split == "train") <= 15
    assert {sample.weighting for sample in worst} == {"fewer"}


def test_the_pool_is_cut_to_what_the_choice_asks_for(config_of):
    config = config_of(evaluate={"samples": 2})
    policy = MeasuredPolicy("best_of_n", None, choice=Choice(3, pool=3))
    chosen = _choose(
        config, policy, drawn("pi_0", "Why?", range(20)), [OpenPrompt("Why?", "train")], Scores(), "all",
        np.array([1.0, 0.0]),
    )  # fmt: skip
    assert [sample.text for sample in chosen] == ["2", "2"]


def test_a_target_chooses_by_its_law_and_a_rule_its_best(config_of):
    config = config_of(evaluate={"samples": 400}, plural={"mode": "rerank", "beta": 1.0})
    pool, prompts = drawn("pi_0", "Why?", (0, 1)), [OpenPrompt("Why?", "train")]
    by_law = MeasuredPolicy("plural", None, choice=Choice(2, config.plural, pool=2))
    chosen = _choose(config, by_law, pool, prompts, Scores(), "more", np.array([1.0, 0.0]))
    share = np.mean([sample.text == "1" for sample in chosen])
    assert share == pytest.approx(math.e / (1 + math.e), abs=0.07)  # three standard errors
    rule = config_of(evaluate={"samples": 3}, plural={"mode": "rerank", "rule": "mean"})
    by_rule = MeasuredPolicy("plural", None, choice=Choice(2, rule.plural, pool=2))
    assert [s.text for s in _choose(rule, by_rule, pool, prompts, Scores(), "all", np.array([0.4, 0.6]))] == ["0"] * 3


def test_for_whom_policies_are_asked(config_of):
    config = config_of(juries={"council": {"more": 1, "fewer": 3}})
    asked = named_weightings(config, SimpleNamespace(), Scores())
    assert {name: list(weights) for name, weights in asked.items()} == {
        "all": [0.75, 0.25], "more": [1.0, 0.0], "fewer": [0.0, 1.0], "council": [0.25, 0.75],
    }  # fmt: skip


def answered(weighting: str, *texts: tuple[str, str, float, float]) -> TextResults:
    """Texts of policies to prompts, with the approval of a cluster of either jury."""
    written = [
        WrittenText(policy=policy, prompt=prompt, text="So.", approvals={"c": a}, heldout_approvals={"d": b})
        for policy, prompt, a, b in texts
    ]
    return TextResults(split="train", weighting=weighting, texts=written)


def test_what_a_request_changes_is_a_mean_over_prompts_of_means_over_texts():
    before = answered(
        "all", ("ours", "A?", 0.2, 0.5), ("ours", "A?", 0.4, 0.5), ("ours", "B?", 0.5, 0.1), ("grpo", "A?", 0.9, 0.9),
        ("people", "A?", 0.9, 0.9),
    )  # fmt: skip
    after = answered(
        "c", ("ours", "A?", 0.9, 0.4), ("ours", "B?", 0.5, 0.2), ("ours", "B?", 0.7, 0.2), ("people", "A?", 0.1, 0.1)
    )
    results = add_shifts([before, after], draws=50, level=0.9, seed=1)
    assert results[0].rows == []
    rows = {(row.policy, row.jury, row.cluster): row for row in results[1].rows}
    assert set(rows) == {("ours", "training", "c"), ("ours", "heldout", "d")}  # of grpo and people nobody asked
    ours = rows["ours", "training", "c"]
    assert ours.value == pytest.approx(((0.9 - 0.3) + (0.6 - 0.5)) / 2)
    assert (ours.measure, ours.n, ours.unit) == ("approval_shift", 2, "probability")
    assert (ours.ci_low, ours.ci_high) == (pytest.approx(0.1), pytest.approx(0.6))  # two prompts, drawn again
    assert rows["ours", "heldout", "d"].value == pytest.approx(((0.4 - 0.5) + (0.2 - 0.1)) / 2)


def test_one_prompt_has_a_shift_and_no_interval():
    results = add_shifts(
        [answered("all", ("ours", "A?", 0.2, 0.5)), answered("c", ("ours", "A?", 0.5, 0.5))], 20, 0.95, 0
    )
    [first, _] = results[1].rows
    assert (first.value, first.ci_low, first.ci_high, first.n) == (pytest.approx(0.3), None, None, 1)


@pytest.fixture
def on_the_way(tmp_path):
    """A policy with checkpoints after 2 and 4 steps, trained for 6, and texts of each; prompts count alike."""
    for step in (2, 4):
        folder = tmp_path / "plural" / "along" / f"step-{step}"
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text("{}")
    (tmp_path / "stages").mkdir()
    record = StageRecord({"budget": {"steps": 6}}, 1.0)
    record.write(tmp_path / "stages" / "plural.json")
    policies = [MeasuredPolicy("warm", tmp_path / "warm"), MeasuredPolicy("plural", tmp_path / "plural")]
    samples = drawn("warm", "A?", (0, 0)) + drawn("warm", "B?", (0,))
    for step, numbers, ratio in ((2, (1, 3), 0.1), (4, (4, 4), 0.2), (6, (2, 2), 0.4)):
        samples += drawn(f"plural at step {step}", "A?", numbers, log_ratio=ratio)
        samples += drawn(f"plural at step {step}", "B?", (0,), log_ratio=3 * ratio)
    return policies, samples, [OpenPrompt("A?", "train"), OpenPrompt("B?", "train"), OpenPrompt("C?", "heldout")]


class Pleased(Scores):
    """Approval of one cluster is the number over ten above a half; the other never changes its mind."""

    def cluster_rewards(self, prompts, completions):
        numbers = torch.tensor([float(completion[0]["content"]) for completion in completions])
        return torch.stack([torch.logit(0.5 + numbers / 10), torch.zeros(len(numbers))], dim=1)


class Heldout(Pleased):
    """The same with other weights."""

    prevalence = np.array([0.5, 0.5])


def test_along_a_training_every_checkpoint_has_its_divergence_and_both_gains(on_the_way):
    policies, samples, prompts = on_the_way
    results = measure_along(policies, samples, prompts, Pleased(), Heldout())
    assert [(r.policy, r.step, r.split, r.n, r.kept) for r in results] == [
        ("plural", step, "train", 3, False) for step in (2, 4, 6)
    ]  # nothing was drawn for the held-out prompt
    assert [r.kl_to_reference for r in results] == pytest.approx([0.2, 0.4, 0.8])  # (r + 3 r) / 2
    gains = np.array([0.2, 0.4, 0.2]) / 2  # of the first cluster: mean over two prompts
    assert [r.gain for r in results] == pytest.approx(list(0.75 * gains), abs=1e-6)
    assert [r.heldout_gain for r in results] == pytest.approx(list(0.5 * gains), abs=1e-6)
    alone = measure_along(policies, samples, prompts, Pleased(), None)
    assert [r.heldout_gain for r in alone] == [None] * 3


def test_the_checkpoint_that_is_kept_is_the_one_the_heldout_jury_approves_the_most(on_the_way):
    policies, samples, prompts = on_the_way
    results, adapters = best_checkpoints(policies, measure_along(policies, samples, prompts, Pleased(), Heldout()))
    assert [r.step for r in results if r.kept] == [4]
    assert adapters == {"plural": policies[1].adapter / "along" / "step-4"}
    # Of equals the later one: of 2 and 6 it is the end, whose adapter is the policy's own.
    equals = [r.model_copy(update={"heldout_gain": 0.05}) for r in results if r.step != 4]
    results, adapters = best_checkpoints(policies, equals)
    assert ([r.step for r in results if r.kept], adapters) == ([6], {})
    heldout = [r.model_copy(update={"split": "heldout"}) for r in equals]
    assert not any(r.kept for r in best_checkpoints(policies, heldout)[0])  # held-out prompts choose nothing
    without = [r.model_copy(update={"heldout_gain": None}) for r in equals]
    assert not any(r.kept for r in best_checkpoints(policies, without)[0])
