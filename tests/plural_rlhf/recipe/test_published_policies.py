"""What a run publishes of its policies and of welfare rules, computed again by a second method.

The second method is plain numpy and pandas (`tests.second_method`). What is read from the run is only what somebody
could read from its folder: the answers, who was held out, the saved models. Each person has a sampling weight.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from plural_rlhf.policies.own_texts import draw_own_texts
from plural_rlhf.recipe.checkpoints import TrainingFolder
from plural_rlhf.recipe.config import load_config
from plural_rlhf.recipe.data import read_data
from plural_rlhf.recipe.multiple_choice.policies import train_grpo, train_plural, train_warmup
from plural_rlhf.report.names import Method
from reward_models.jury.scorer import JuryScorer
from reward_models.seeds import derived_seed
from tests.paths import ROOT
from tests.real_run import COUNCIL, OPTIONS, TOPICS
from tests.second_method import POLICIES, human_shares, js, topics_of


def probability(model, tokenizer, system: str, question: str, answer: str) -> float:
    """One forward pass over prompt, answer and end token: nothing shared, nothing padded."""
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    ids = [*prompt_ids, *tokenizer(answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    with torch.no_grad():
        log_probs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return float(sum(log_probs[i - 1, ids[i]] for i in range(len(prompt_ids), len(ids))).exp())


@pytest.mark.parametrize("method", POLICIES)
def test_answers_of_a_policy_are_the_probabilities_of_its_saved_model(real_run, method):
    base = ROOT / "tests" / "stored" / "base"
    tokenizer = AutoTokenizer.from_pretrained(base)
    if method == Method.UNTOUCHED:
        model = AutoModelForCausalLM.from_pretrained(base, dtype="float32")
    else:
        model = AutoPeftModelForCausalLM.from_pretrained(real_run.folder / method, dtype="float32")
    first, second = real_run.names
    whose = {
        "all": "Answer as a member of the public.",
        first: f"Answer as a member of this public: {first}.",
        second: f"Answer as a member of this public: {second}.",
        "council": f"Answer as a member of this public: 75% {second}, 25% {first}.",
    }
    for question in (real_run.results.questions[0], real_run.results.questions[-1]):
        assert set(question.policy[method]) == set(whose)
        for who, system in whose.items():
            text = f"{question.prompt} yes; no; no idea?"
            expected = [probability(model.eval(), tokenizer, system, text, option) for option in OPTIONS]
            recorded = question.policy[method][who]
            assert recorded.probs == pytest.approx(expected, abs=1e-5), who
            assert recorded.coverage == pytest.approx(sum(expected), abs=1e-5)


PUT = {
    "line": "{} yes; no; no idea?",
    "line, from the last": "{} no idea; no; yes?",
    "list": "{}\n- yes\n- no\n- no idea\nAnswer:",
    "list, from the last": "{}\n- no idea\n- no\n- yes\nAnswer:",
    "sentence": "{} Choose one answer: yes, no, or no idea.",
    "bare": "{}",
}


@pytest.mark.parametrize("method", [Method.UNTOUCHED, Method.PLURAL])
def test_every_form_of_a_question_is_answered_by_the_saved_model(real_run, people, weights, method):
    base = ROOT / "tests" / "stored" / "base"
    tokenizer = AutoTokenizer.from_pretrained(base)
    saved = AutoModelForCausalLM if method == Method.UNTOUCHED else AutoPeftModelForCausalLM
    model = saved.from_pretrained(base if method == Method.UNTOUCHED else real_run.folder / method, dtype="float32")
    found = {(row.form, row.split): row for row in real_run.results.forms if row.method == method}
    assert {form for form, _ in found} == set(PUT)
    for told in real_run.results.rows:
        if (told.method, told.cluster, told.metric) == (method, "all", "total_variation"):
            row = found["line", told.split]
            assert (row.points, row.ci_low, row.ci_high) == pytest.approx(
                (told.value, told.ci_low, told.ci_high), nan_ok=True
            )
    for (form, split), row in found.items():
        far, off, mass = [], [], []
        for question in (q for q in real_run.results.questions if q.split == split):
            text = PUT[form].format(question.prompt)
            system = "Answer as a member of the public."
            probs = np.array([probability(model.eval(), tokenizer, system, text, option) for option in OPTIONS])
            human = human_shares(people, question.id, weights["all"][question.id])
            far.append(js(human, probs / probs.sum()))
            off.append(np.abs(human - probs / probs.sum()).sum() / 2)
            mass.append(probs.sum())
        assert row.jsd_nats == pytest.approx(np.mean(far), abs=1e-5), (form, split)
        assert row.points == pytest.approx(np.mean(off), abs=1e-5), (form, split)
        assert row.coverage == pytest.approx(np.mean(mass), abs=1e-5), (form, split)
        assert (row.n, row.trained) == (len(far), form.startswith("li"))


def test_what_changed_elsewhere_is_measured_on_conversations_of_the_base_model(real_run):
    """Recomputed from the saved models: every place of every answer, one text at a time, in double precision."""
    base = ROOT / "tests" / "stored" / "base"
    tokenizer = AutoTokenizer.from_pretrained(base)
    before = AutoModelForCausalLM.from_pretrained(base, dtype="float32").eval()
    longest = real_run.results.config["rehearsal"]["max_tokens"]
    seed = derived_seed(real_run.results.config["seed"], "conversations that are measured")
    texts = draw_own_texts(before, tokenizer, 16, max_new_tokens=longest, seed=seed)
    for row in real_run.results.elsewhere:
        policy = AutoPeftModelForCausalLM.from_pretrained(real_run.folder / row.method, dtype="float32").eval()
        of_text = []
        for text in texts:
            prompt = tokenizer.apply_chat_template(text.row["prompt"], add_generation_prompt=True)["input_ids"]
            ids = prompt + tokenizer(text.completion, add_special_tokens=False)["input_ids"][:longest]
            with torch.no_grad():
                p, q = (m(torch.tensor([ids])).logits[0, len(prompt) - 1 :].double() for m in (before, policy))
            p, q = p.softmax(-1).numpy(), q.softmax(-1).numpy()
            of_text.append(np.mean([coarse_divergence(a, b) for a, b in zip(p, q, strict=True)]))
        assert row.n == len(of_text) == 16
        assert row.kl_per_token == pytest.approx(np.mean(of_text), rel=0.01, abs=1e-7), row.method
        assert row.ci_low <= row.kl_per_token <= row.ci_high
    assert {row.method for row in real_run.results.elsewhere} == {"warm", "plural", "grpo"}


def coarse_divergence(p: np.ndarray, q: np.ndarray) -> float:
    """KL(p ‖ q) with all but the 128 most probable tokens of p as one event."""
    top = np.argsort(-p)[:128]
    p, q = (np.append(of[top], 1 - of[top].sum()) for of in (p, q))
    return float((p * np.log(p / q)).sum())


def test_the_conversations_that_a_training_keeps_are_beside_pi_0(real_run):
    own = json.loads((real_run.folder / "warm" / "own_texts.json").read_text(encoding="utf-8"))
    assert len(own) == 6
    assert all(row["prompt"][0]["role"] == "user" and isinstance(row["completion"], str) for row in own)
    for stage in ("warm", "plural"):
        kept = [step.to_dict()["rehearsal_kl"] for step in real_run.results.training[stage]]
        assert kept[0] == pytest.approx(0, abs=1e-5), stage
        assert kept[1] != kept[0], stage
    assert not any("rehearsal_kl" in step.to_dict() for step in real_run.results.training["grpo"])


def test_policies_differ_from_the_one_they_started_from(real_run):
    """Otherwise one adapter could stand for another, and every row above would still agree."""
    probs = {m: [q.policy[m]["all"].probs for q in real_run.results.questions] for m in POLICIES}
    for one, other in itertools.combinations(POLICIES, 2):
        assert np.abs(np.array(probs[one]) - np.array(probs[other])).max() > 1e-4, (one, other)


def test_what_was_spent_is_what_the_settings_say(real_run):
    budgets = real_run.results.budgets
    assert (budgets["warm"].steps, budgets["warm"].scored_sequences) == (2, 2 * 2 * 3)
    assert (budgets["plural"].steps, budgets["plural"].scored_sequences) == (2, 2 * 5 * 3)
    assert (budgets["grpo"].steps, budgets["grpo"].generated_sequences) == (2, 2 * 1 * 4)
    assert {stage: len(steps) for stage, steps in real_run.results.training.items()} == {
        "warm": 2,
        "plural": 2,
        "grpo": 2,
    }


def test_steering_is_predicted_by_the_jury_and_achieved_by_the_policy(real_run, jury_answers):
    prevalence = np.array([c.prevalence for c in real_run.results.clusters])
    whose = {
        "population": prevalence,
        **{name: np.eye(2)[k] for k, name in enumerate(real_run.names)},
        "council": np.array(COUNCIL) / sum(COUNCIL),
    }
    questions = {q.id: q for q in real_run.results.questions}
    entries = {(e.weighting, e.question): e for e in real_run.results.steering}
    assert len(real_run.results.steering) == len(entries)
    assert set(entries) == set(itertools.product(whose, questions))
    for (who, topic), entry in entries.items():
        probs = np.array(questions[topic].policy["plural"]["all" if who == "population" else who].probs)
        assert entry.split == questions[topic].split
        assert list(entry.weights) == real_run.names
        assert list(entry.weights.values()) == pytest.approx(whose[who])
        assert entry.predicted == pytest.approx(whose[who] @ jury_answers[topic], abs=1e-6)
        assert entry.achieved == pytest.approx(probs / probs.sum())
        assert entry.jsd_nats == pytest.approx(js(np.array(entry.predicted), np.array(entry.achieved)), abs=1e-5)


def test_rules_pick_and_pay_what_the_calibrated_heads_say(real_run):
    """A unit is the spread of a head's rewards of the offered answers, pooled over the trained questions."""
    jury = JuryScorer.from_pretrained(real_run.folder / "jury")
    prevalence = np.array([c.prevalence for c in real_run.results.clusters])
    rewards = {
        q.id: jury.cluster_rewards([q.prompt] * 3, OPTIONS).double().numpy() for q in real_run.results.questions
    }
    trained = np.stack([rewards[t] for t in topics_of(real_run, "train")])
    scale = np.sqrt(trained.var(axis=1, ddof=1).mean(axis=0))
    heads = {t: (r - trained.mean(axis=(0, 1))) / scale for t, r in rewards.items()}
    duels = {t: (h[:, None] > h[None, :]) @ prevalence for t, h in heads.items()}  # share that prefers one to another
    picked = {
        "mean": {t: int((h @ prevalence).argmax()) for t, h in heads.items()},
        "min": {t: int(h.min(axis=1).argmax()) for t, h in heads.items()},
        "borda": {t: int(d.sum(axis=1).round(9).argmax()) for t, d in duels.items()},
    }
    results = {effect.rule: effect for effect in real_run.results.rules}
    assert list(results) == ["mean", "nash", "min", "median", "borda", "maximal_lottery"]
    for rule, picks in picked.items():
        effect = results[rule]
        assert effect.baseline == "mean"
        assert effect.picks == {t: OPTIONS[pick] for t, pick in picks.items()}, rule
        if rule == "borda":
            continue  # equals share the verdict, and the change is that of the lottery
        assert effect.agreement == pytest.approx(np.mean([picks[t] == picked["mean"][t] for t in picks]))
        for k, name in enumerate(real_run.names):
            gain = np.mean([heads[t][pick, k] - heads[t][picked["mean"][t], k] for t, pick in picks.items()])
            assert effect.clusters[name].value == pytest.approx(gain, abs=1e-4), rule
            assert effect.clusters[name].n == len(TOPICS)


@pytest.mark.parametrize("stage", [Method.WARM, Method.PLURAL, Method.GRPO])
def test_a_policy_trained_again_is_the_saved_one_whatever_was_drawn_before(real_run, tmp_path, stage):
    """Adapters, rows and samples are drawn from the seed of the run, not from the random state it happens to meet."""
    config = load_config(real_run.run_file, [])
    questions, jury = read_data(config).of("train"), JuryScorer.from_pretrained(real_run.folder / "jury")
    torch.manual_seed(987)
    np.random.seed(987)
    warm = real_run.folder / "warm"
    if stage == Method.WARM:
        again = train_warmup(config, questions, jury, in_folder(tmp_path / "again"))
    else:
        train = train_plural if stage == Method.PLURAL else train_grpo
        again = train(config, questions, jury, warm, in_folder(tmp_path / "again"))
    saved = load_file(real_run.folder / stage / "adapter_model.safetensors")
    adapter = load_file(tmp_path / "again" / "adapter_model.safetensors")
    assert set(adapter) == set(saved)
    for name, tensor in saved.items():
        torch.testing.assert_close(adapter[name], tensor, rtol=0, atol=0)
    assert [step.loss for step in again.history] == [step.loss for step in real_run.results.training[stage]]


def in_folder(policy: Path) -> TrainingFolder:
    return TrainingFolder(policy, policy.with_name("checkpoints"))


def test_another_seed_draws_another_adapter(real_run, tmp_path):
    config = load_config(real_run.run_file, ["warmup.steps=0", "seed=1"])
    train_warmup(config, [], JuryScorer.from_pretrained(real_run.folder / "jury"), in_folder(tmp_path / "warm"))
    fresh = load_file(tmp_path / "warm" / "adapter_model.safetensors")
    saved = load_file(real_run.folder / "warm" / "adapter_model.safetensors")
    drawn = [name for name in saved if "lora_A" in name]
    assert drawn
    assert all((fresh[name] - saved[name]).abs().max() > 0.01 for name in drawn)
