"""A steerable policy in use: every way to name a jury reaches the prompt, and answers are the policy's own."""

from __future__ import annotations

import logging
import math
from collections import Counter

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from plural_rlhf.policies.answers import answer_probabilities
from plural_rlhf.policies.steerer import Steerer
from plural_rlhf.weights.sampler import WeightSampler
from plural_rlhf.weights.wording import POPULATION
from reward_models.errors import JuryError
from reward_models.jury.modeling_jury import JuryConfig
from reward_models.raters.adaptation import Adaptation
from reward_models.raters.placement import Placement
from reward_models.raters.rater_model import KindTerms, RaterModel
from tests.tiny import save_tiny, tiny_causal_lm, tiny_tokenizer


NAMES = ["urban", "rural", "coast"]
PREVALENCE = [0.5, 0.2, 0.3]
CHAT = [{"role": "user", "content": "Which?"}]
PUBLIC = "Answer as a member of this public:"


@pytest.fixture(scope="module")
def steerer():
    tokenizer = tiny_tokenizer()
    return Steerer(tiny_causal_lm(tokenizer), tokenizer, NAMES, PREVALENCE)


def placed(*posteriors, raters=("ann",), membership="mixture"):
    """Where raters stand: over the three clusters, without rater terms."""
    model = RaterModel(
        membership, np.eye(3), np.log(PREVALENCE), {"rating": KindTerms({"thresholds": np.zeros(1)}, {})}
    )
    return Placement(model, list(raters), np.array(posteriors))


@pytest.mark.parametrize(
    ("jury", "words"),
    [
        ("prevalence", POPULATION),
        ("rural", f"{PUBLIC} rural."),
        ({"urban": 7, "rural": 5}, f"{PUBLIC} 58% urban, 42% rural."),
        ([0.25, 0.0, 0.75], f"{PUBLIC} 75% coast, 25% urban."),
        ("uniform", f"{PUBLIC} 34% urban, 33% rural, 33% coast."),
        (placed([0.1, 0.9, 0.0]), f"{PUBLIC} 90% rural, 10% urban."),
        (Adaptation.of(placed([0.0, 0.0, 1.0]), NAMES), f"{PUBLIC} coast."),
    ],
)
def test_every_way_to_name_a_jury_reaches_the_prompt(steerer, jury, words):
    assert steerer.render("Which?", jury) == f"{words}\nWhich?"
    assert steerer.render(CHAT, jury) == [{"role": "system", "content": words}, *CHAT]


def test_plain_text_for_a_chat_model_is_remarked_on_once(steerer, caplog):
    logging.Logger.warning_once.cache_clear()
    steerer.render(CHAT, "rural")
    assert not caplog.records
    for prompt in ("Which?", "What?"):
        steerer.generate(prompt, "rural", max_new_tokens=1)
        steerer.contexts(prompt)
    (said,) = [record.getMessage() for record in caplog.records if record.name == "plural_rlhf.policies.steerer"]
    assert 'pass [{"role": "user", "content": prompt}]' in said
    caplog.clear()
    logging.Logger.warning_once.cache_clear()
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    Steerer(steerer.model, tokenizer, NAMES, PREVALENCE).generate("Which?", max_new_tokens=1)
    assert not caplog.records


def test_contexts_are_the_clusters_alone(steerer):
    assert steerer.contexts("Which?") == [f"{PUBLIC} {name}.\nWhich?" for name in NAMES]


def test_a_rater_nobody_knows_is_the_population(steerer):
    unknown = Placement(placed([1, 0, 0]).model, ["eve"], np.array([PREVALENCE]))
    assert steerer.render("Which?", unknown) == f"{POPULATION}\nWhich?"


@pytest.mark.parametrize(
    ("jury", "message"),
    [
        ("rurall", r"'rurall'.*Did you mean 'rural'\?.*'urban', 'rural', 'coast'"),
        ({"urban": 1, "hills": 2}, r"'hills', and there is no such cluster.*'urban', 'rural', 'coast'"),
        ([0.5, 0.5], r"2 weights for 3 clusters"),
        (placed([1, 0, 0], [0, 1, 0], raters=("ann", "bob")), r"posterior is of 2 raters.*weights\(rater_id\)"),
        (
            Adaptation.of(placed([1, 0, 0]), ["a", "b", "c"]),
            r"to the clusters \['a', 'b', 'c'\].*\['urban', 'rural'",
        ),
        (placed([1, 0, 0], membership="factor"), r"membership='factor'.*negative"),
        (["urban", "rural", "coast"], r"3 weights for 2 prompts"),
        ([[1, 0, 0]], r"1 weights for 2 prompts"),
    ],
)
def test_a_jury_that_cannot_be_carried_out_is_refused(steerer, jury, message):
    with pytest.raises(JuryError, match=message):
        steerer.generate(["Which?", "What?"], jury)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"jury": "rural"}, r"`jury=` is now `weights=`; write Steerer\.(generate|sample_tokens)\(weights="),
        ({"cluster": "rural"}, r"cluster= is no argument.*give weights='rural'"),
        ({"weigths": "rural"}, r"weigths='rural'.*Did you mean 'weights'\?"),
        ({"max_tokens": 3}, r"max_tokens=3.*Did you mean 'max_new_tokens'\?"),
        ({"seed": 3}, r"seed=3 is neither weights= nor a field of transformers' GenerationConfig"),
    ],
)
def test_an_argument_that_would_be_ignored_is_refused(steerer, asked, message):
    for method in (steerer.generate, steerer.sample_tokens):
        with pytest.raises(TypeError, match=message):
            method("Which?", **asked)


@pytest.mark.parametrize("prompt", ["Which?", CHAT])
def test_answer_probabilities_are_those_under_the_rendered_prompt(steerer, prompt):
    support = ["yes", "no"]
    by_hand = answer_probabilities(
        steerer.model, steerer.tokenizer, [steerer.render(prompt, "rural")], [support], progress=False
    )
    (found,) = steerer.answer_probabilities(prompt, support, "rural")
    np.testing.assert_array_equal(found, by_hand[0])
    assert found.shape == (2,)
    # One prompt under several juries, and several prompts with a jury and a support each.
    grid = steerer.answer_probabilities(prompt, support, np.eye(3))
    np.testing.assert_allclose(grid[1], found, rtol=1e-4)
    assert not np.allclose(grid[0], grid[1], rtol=1e-3, atol=0)
    mixed = steerer.answer_probabilities([prompt, prompt], [["yes"], support], ["urban", "rural"])
    np.testing.assert_allclose(mixed[0], grid[0][:1], rtol=1e-4)
    np.testing.assert_allclose(mixed[1], found, rtol=1e-4)


def test_samples_come_from_the_policy_as_it_is():
    tokenizer = tiny_tokenizer()
    model = tiny_causal_lm(tokenizer)
    with torch.no_grad():  # most answers are one token of the first five
        model.lm_head.weight.mul_(3)
    model.generation_config.update(do_sample=True, top_k=1, temperature=0.2, repetition_penalty=1.5)  # as a hub model
    steerer = Steerer(model, tokenizer, NAMES, PREVALENCE, batch_size=600)
    prompt = steerer.tokenizer(steerer.render("Which?", "urban"), return_tensors="pt")
    with torch.no_grad():
        p = model(**prompt).logits[0, -1].softmax(-1)
    torch.manual_seed(0)
    first = [row[0] for row in steerer.sample_tokens("Which?", "urban", num_return_sequences=3000, max_new_tokens=1)]
    for token in p.topk(8).indices.tolist():
        share = Counter(first)[token] / 3000
        assert share == pytest.approx(p[token].item(), abs=4 * math.sqrt(p[token].item() / 3000))
    greedy = steerer.sample_tokens("Which?", "urban", do_sample=False, max_new_tokens=1)
    assert greedy == [[int(p.argmax())]]


def test_answers_are_in_order_and_end_at_the_end_token(steerer):
    torch.manual_seed(1)
    texts = steerer.generate([CHAT, "Which one, then?"], ["urban", "rural"], num_return_sequences=3, max_new_tokens=4)
    assert len(texts) == 6
    ends = steerer.ends
    assert ends == [steerer.tokenizer.eos_token_id]
    rows = steerer.sample_tokens(CHAT, num_return_sequences=64, max_new_tokens=40)
    assert any(row[-1] in ends for row in rows)
    for row in rows:
        assert not set(row[:-1]) & set(ends)
        assert row[-1] in ends or len(row) == 40
    greedy = {"do_sample": False, "max_new_tokens": 5}
    one_by_one = [steerer.generate("Which?", name, **greedy)[0] for name in NAMES]
    assert steerer.generate(["Which?"] * 3, NAMES, **greedy) == one_by_one


@pytest.fixture
def saved(tmp_path):
    jury = JuryConfig(num_clusters=3, cluster_names=NAMES, prevalence=PREVALENCE)
    jury.save_pretrained(tmp_path / "jury")
    return save_tiny(tmp_path / "base"), tmp_path


def test_a_saved_policy_knows_its_clusters(saved):
    base, folder = saved
    loaded = Steerer.from_pretrained(base, folder / "jury", device="cpu")
    assert loaded.cluster_names == NAMES
    np.testing.assert_allclose(loaded.prevalence, PREVALENCE)
    assert loaded.render("Which?") == f"{POPULATION}\nWhich?"
    assert loaded.answer_probabilities("Which?", ["yes", "no"], "coast")[0].sum() > 0
    with pytest.raises(JuryError, match=r"holds a model of type 'llama', .* has no rater clusters"):
        Steerer.from_pretrained(base, base)
    with pytest.raises(JuryError, match=r"no jury reward model at .*nowhere', which is no folder"):
        Steerer.from_pretrained(base, folder / "nowhere")
    with pytest.raises(TypeError, match=r"`jury=` is now `scorer=`; write Steerer\.from_pretrained\(scorer="):
        Steerer.from_pretrained(base, jury=folder / "jury")


def test_a_training_that_was_never_saved_is_told_from_a_policy(saved):
    _, folder = saved
    out = folder / "out"
    for step in (5, 10):
        (out / f"checkpoint-{step}").mkdir(parents=True)
        save_tiny(out / f"checkpoint-{step}")
    (out / "README.md").write_text("a model card")
    message = r"\(checkpoint-5, checkpoint-10\): .*trainer\.save_model\(\".*out\"\)"
    with pytest.raises(JuryError, match=message) as told:
        Steerer.from_pretrained(out, folder / "jury")
    advised = str(told.value).split('"')[3]
    assert advised == str(out / "checkpoint-10")
    assert Steerer.from_pretrained(advised, folder / "jury", device="cpu").cluster_names == NAMES
    with pytest.raises(JuryError, match=r"no policy in .*neither config\.json nor adapter_config\.json\. Give the"):
        Steerer.from_pretrained(folder, folder / "jury")


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`")
@pytest.mark.parametrize("rendering", ["text", "tokens"])
def test_a_saved_adapter_answers_as_it_did(saved, rendering):
    base, folder = saved
    tokenizer, model = tiny_tokenizer(), tiny_causal_lm()
    model.name_or_path = base
    ids = WeightSampler(NAMES, PREVALENCE, rendering=rendering, levels=5, seed=3).prepare(model, tokenizer)
    lora = LoraConfig(target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    if ids:
        lora.trainable_token_indices = ids
    policy = get_peft_model(model, lora)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "trainable_tokens_delta" in name:
                parameter.add_(torch.randn(parameter.shape))  # as training would
    policy.save_pretrained(folder / "policy")
    tokenizer.save_pretrained(folder / "policy")
    steerer = Steerer(policy, tokenizer, NAMES, PREVALENCE, rendering, levels=5)
    loaded = Steerer.from_pretrained(folder / "policy", folder / "jury", device="cpu")
    assert loaded.render("Which?", "uniform") == steerer.render("Which?", "uniform")
    for jury in ("uniform", "rural"):
        expected = steerer.answer_probabilities(CHAT, ["yes", "no"], jury)[0]
        np.testing.assert_allclose(loaded.answer_probabilities(CHAT, ["yes", "no"], jury)[0], expected, rtol=1e-5)
    renamed = JuryConfig(num_clusters=3, cluster_names=["a", "b", "c"], prevalence=PREVALENCE, former_names=NAMES)
    renamed.save_pretrained(folder / "renamed")
    new_name_of = dict(zip(NAMES, renamed.cluster_names, strict=True))
    if rendering == "tokens":  # the tokens tell which names the policy was trained with
        steered = Steerer.from_pretrained(folder / "policy", folder / "renamed", device="cpu")
    else:
        with pytest.warns(UserWarning, match=r"were renamed, from \['urban'.*pass prompt_names=\['urban'"):
            steered = Steerer.from_pretrained(folder / "policy", folder / "renamed", device="cpu")
        assert "a" in steered.render("Which?", "a")
        steered = Steerer.from_pretrained(folder / "policy", folder / "renamed", device="cpu", prompt_names=NAMES)
    assert steered.cluster_names == ["a", "b", "c"]
    for name in NAMES:
        assert steered.render("Which?", new_name_of[name]) == steerer.render("Which?", name)
    if rendering == "tokens":
        JuryConfig(num_clusters=2, cluster_names=["left", "right"]).save_pretrained(folder / "other")
        with pytest.raises(JuryError, match=r"lacks 42 of the tokens.*'<\|left:0\|>'.*clusters"):
            Steerer.from_pretrained(folder / "policy", folder / "other")


def test_weights_in_tokens_need_the_tokens():
    tokenizer = tiny_tokenizer()
    with pytest.raises(JuryError, match=r"lacks 64 of the tokens.*'<\|urban:0\|>'.*rendering='text'"):
        Steerer(tiny_causal_lm(tokenizer), tokenizer, NAMES, PREVALENCE, "tokens")
