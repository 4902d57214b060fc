"""Ways from pi_0 to a policy without sampled training: reranking, imitation of reranked texts, DPO on pairs."""

import json

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from plural_rlhf.core.targets import PoolTarget
from plural_rlhf.recipe import ConfigError, RunFolderError, run
from plural_rlhf.recipe.open_ended.rerank import choose_candidate, deal_candidates
from plural_rlhf.recipe.settings.sections import PluralSection
from tests.plural_rlhf.recipe.open_ended.small_run import PROMPTS, WORDS


def quietly(config, **more):
    return run(config, console=Console(quiet=True), **more)


def adapter(folder):
    return load_file(folder / "adapter_model.safetensors")


def same(first, second):
    return all(np.array_equal(first[name], second[name]) for name in first)


class Asked:
    """A random generator that notes with which probabilities it is asked."""

    def choice(self, number, p):
        self.probabilities = p
        return int(p.argmax())


@pytest.mark.parametrize("rho", [1.0, 0.0, -1.0])
def test_candidates_are_chosen_as_the_exact_target_has_them(rho):
    """All answers once are what a uniform pi_0 would draw; the pool over them is computed by another module."""
    rewards = np.random.default_rng(0).normal(size=(6, 2)) * 2
    rng = Asked()
    chosen = choose_candidate(rewards, [0.3, 0.7], PluralSection(rho=rho, beta=0.8), rng)
    uniform = torch.full((1, 6), 1 / 6, dtype=torch.float64).log()
    weights = torch.tensor([[0.3, 0.7]], dtype=torch.float64)
    target = PoolTarget(rho=rho, beta=0.8).log_probs(torch.from_numpy(rewards)[None], weights, uniform).exp()[0]
    np.testing.assert_allclose(rng.probabilities, target, atol=1e-12)
    assert chosen == int(target.argmax())


def test_no_text_is_a_candidate_twice_before_all_were():
    rng = np.random.default_rng(0)
    hands = list(deal_candidates(10, 4, 20, rng))
    assert all(len(set(hand.tolist())) == 4 for hand in hands)
    dealt = np.concatenate(hands)
    for n in range(0, 80, 10):
        counts = np.bincount(dealt[: n + 10], minlength=10)
        assert counts.max() - counts.min() <= 1  # as a deck that is shuffled when it is empty
    large = np.concatenate(list(deal_candidates(256, 8, 32, rng)))
    assert len(set(large.tolist())) == 256  # independent choices


def test_a_rule_chooses_its_best_candidate():
    rewards, rng = np.array([[3.0, 0.0], [0.0, 3.5], [1.0, 1.0]]), np.random.default_rng(0)
    chosen = {rule: choose_candidate(rewards, [0.5, 0.5], PluralSection(rule=rule), rng) for rule in ("mean", "min")}
    assert chosen == {"mean": 1, "min": 2}


@pytest.mark.slow
def test_reranking_trains_nothing_and_its_texts_are_texts_of_pi_0(config_of, tmp_path):
    plural = {"mode": "rerank", "candidates": 3, "rule": "mean"}
    config = config_of(plural=plural, grpo={"steps": 0})
    results = quietly(config, until="evaluate")
    folder = tmp_path / "run"
    assert same(adapter(folder / "warm"), adapter(folder / "plural"))
    note = json.loads((folder / "plural" / "rerank.json").read_text())
    assert note == {"mode": "rerank", "candidates": 3, "candidate_pool": None, "rule": "mean", "rho": 1.0, "beta": 1.0}
    assert results.budgets["plural"].steps == 0
    rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    ours = [row for row in rows if row["policy"] == "plural"]
    names = ["all", *(cluster.name for cluster in results.clusters)]
    assert {name: sum(row["weighting"] == name for row in ours) for name in names} == dict.fromkeys(names, 9)
    assert all(
        (row["reference_log_prob"] < 0 and row["log_prob"] is None) or row["log_prob"] != row["log_prob"]
        for row in ours
    )
    asked = next(of for of in results.texts if (of.split, of.weighting) == ("train", "all"))
    assert [asked.row(policy, "completions_per_text").value for policy in ("warm", "plural")] == [1.0, 3.0]
    assert "rule mean promises" in asked.row("plural", "share_error", jury="training").reason
    assert "9 texts of the reference policy count as" in asked.row("plural", "kl_to_target").reason
    with pytest.raises(RunFolderError, match=r"plural\.candidates: 3 there, 4 here"):
        quietly(config_of(plural={**plural, "candidates": 4}, grpo={"steps": 0}), until="evaluate")


@pytest.mark.slow
def test_distillation_imitates_what_is_chosen_and_draws_and_scores_it_once(config_of, tmp_path, monkeypatch):
    """Stopped before the imitation: hours of drawing are behind it, and none of them is lost."""
    from plural_rlhf.recipe.open_ended import samples, without_rl

    drawn, scored, rows = [], [], []
    imitate, rewards = without_rl.imitate, without_rl.candidate_rewards

    def draw(writer, prompt, weights, number, method, place):
        """In place of pi_0, which is random: people's words."""
        drawn.append((method, place))
        numbers = {"log_prob": -1.0, "reference_log_prob": -1.0, "num_tokens": 5, "ended": True}
        return [{"text": WORDS[n % 4], **numbers} for n in range(number)]

    def score(scorer, prompt, texts):
        scored.append(prompt.wording)
        return rewards(scorer, prompt, texts)

    def stop(*_):
        raise KeyError("stopped")

    monkeypatch.setattr(samples._Writer, "_draw", draw)
    monkeypatch.setattr(without_rl, "candidate_rewards", score)
    monkeypatch.setattr(without_rl, "imitate", stop)
    sampled = {"steps": 6, "prompts_per_step": 2, "num_generations": 8}
    plural = {"mode": "distil", "candidates": 16, "rule": "mean", "steering": False, "sampled": sampled}
    config = config_of(plural=plural, grpo={"steps": 0})
    with pytest.raises(KeyError, match="stopped"):
        quietly(config, until="train")
    monkeypatch.setattr(without_rl, "imitate", lambda data, *rest: rows.extend(data) or imitate(data, *rest))
    results = quietly(config, until="train")
    assert [place for method, place in drawn if method == "candidates to imitate"] == [0, 1, 2, 3]
    assert len(scored) == len(set(scored)) == 4
    assert len(rows) == 6 * 16
    assert {row["prompt"][-1]["content"] for row in rows} <= set(PROMPTS)
    assert {len({r["completion"][0]["content"] for r in rows if r["prompt"] == row["prompt"]}) for row in rows} == {1}
    assert not same(adapter(tmp_path / "run" / "warm"), adapter(tmp_path / "run" / "plural"))
    assert results.budgets["plural"].generated_sequences == 4 * 8 * 16  # prompts, pool, candidates


@pytest.mark.slow
def test_dpo_learns_from_the_pairs_and_needs_some(config_of, tmp_path):
    with pytest.raises(ConfigError, match=r"plural\.mode is dpo, and the run has no pairs"):
        quietly(config_of(plural={"mode": "dpo"}))
    pairs = [
        {
            "rater_id": f"r{rater:02}",
            "prompt": prompt,
            "response_a": WORDS[0],
            "response_b": WORDS[1],
            "choice": ("a", "b", "tie")[rater % 3],  # DPO without a tie propensity refuses ties
        }
        for rater in range(30)
        for prompt in PROMPTS
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in pairs))
    plural = {"mode": "dpo", "sampled": {"steps": 2, "num_generations": 4}}
    config = config_of(plural=plural, data__tables=[{"path": str(path)}], grpo={"steps": 0})
    results = quietly(config, until="train")
    assert len(results.training["plural"]) == 2
    assert not same(adapter(tmp_path / "run" / "warm"), adapter(tmp_path / "run" / "plural"))


@pytest.mark.parametrize(
    ("plural", "key"),
    [
        ({"candidates": 4}, r"plural\.candidates is set, but plural\.mode is rl"),
        ({"mode": "rerank", "sampled": {"steps": 3}}, r"plural\.sampled\.steps is set, but plural\.mode is rerank"),
        (
            {"mode": "distil", "sampled": {"kl_budget": 3}},
            r"plural\.sampled\.kl_budget is set, but",
        ),
        ({"mode": "dpo", "rule": "min"}, r"plural\.rule is set, but plural\.mode is dpo"),
    ],
)
def test_settings_that_a_mode_does_not_read_are_refused(config_of, plural, key):
    with pytest.raises(ConfigError, match=key):
        quietly(config_of(plural=plural))
