"""Experts that are steered by decoding, as a model of a suite."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from plural_rlhf.policies.base_models import tiny_causal_lm, tiny_tokenizer
from plural_rlhf.policies.mixed_decoder import MixedDecoder
from plural_rlhf.settings.faults import ConfigError
from plural_rlhf.suites.config import SuiteConfig, make_suite
from plural_rlhf.suites.evaluate import evaluate_suite
from plural_rlhf.suites.models.causal_lm import CausalLM
from plural_rlhf.suites.models.mixed import MixedLM
from plural_rlhf.suites.models.protocol import NotSupported, OptionRequest
from reward_models.errors import JuryError
from reward_models.seeds import derived_seed


REQUESTS = [OptionRequest("Parks or roads?", ("parks", "roads")), OptionRequest("More?", ("yes", "no", "perhaps"))]


@pytest.fixture(scope="module")
def experts():
    """Two models of one vocabulary; the second is changed, so that it answers otherwise."""
    models = {name: tiny_causal_lm() for name in ("urban", "rural")}
    with torch.no_grad():
        weight = models["rural"].lm_head.weight
        weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    return {name: CausalLM(name, model, tiny_tokenizer()) for name, model in models.items()}


def test_a_mixture_gives_answers_the_weighted_probability_of_its_experts(experts):
    mixed = MixedLM("mixed", experts, {"urban": 3, "rural": 1})
    urban, rural = (experts[name].option_log_probs(REQUESTS) for name in ("urban", "rural"))
    for answer, a, b in zip(mixed.option_log_probs(REQUESTS), urban, rural, strict=True):
        assert np.exp(answer) == pytest.approx(0.75 * np.exp(a) + 0.25 * np.exp(b))
        assert not np.allclose(a, b)
    alone = MixedLM("mixed", experts, "rural").option_log_probs(REQUESTS)
    assert [row.tolist() for row in alone] == [row.tolist() for row in rural]


@pytest.mark.parametrize("mode", ["mixture", "log_linear"])
def test_texts_are_those_of_the_decoder_under_the_weights(experts, mode):
    mixed = MixedLM("mixed", experts, {"urban": 1, "rural": 3}, mode)
    texts = mixed.sample(["Parks?", "Roads?"], 2, seed=3, max_new_tokens=5)
    decoder = MixedDecoder([model.model for model in experts.values()], tiny_tokenizer(), mode)
    seed = derived_seed(3, "texts of mixed models of a suite")
    asked = [[[{"role": "user", "content": prompt}]] * 2 for prompt in ("Parks?", "Roads?")]
    generator = torch.Generator().manual_seed(seed)
    drawn = decoder.generate(asked, [0.25, 0.75], num_return_sequences=2, max_new_tokens=5, generator=generator)
    assert [text for of in texts for text in of] == [answer.text.strip() for answer in drawn]
    other = MixedLM("mixed", experts, "urban", mode).sample(["Parks?", "Roads?"], 2, seed=3, max_new_tokens=5)
    assert other != texts


def test_what_mixed_models_cannot_do_is_said(experts):
    consensus = MixedLM("mixed", experts, "uniform", "log_linear")
    with pytest.raises(NotSupported, match=r"not of log_linear\. Use scoring: sampling"):
        consensus.option_log_probs(REQUESTS)
    with pytest.raises(NotSupported, match="at temperature 1, not 0"):
        consensus.sample(["Parks?"], 1, temperature=0)
    with pytest.raises(JuryError, match="urbn"):
        MixedLM("mixed", experts, {"urbn": 1})
    small = tiny_tokenizer()
    small.add_tokens(["parkland"])
    with pytest.raises(ValueError, match="different vocabularies"):
        MixedLM("mixed", {**experts, "other": CausalLM("other", tiny_causal_lm(), small)}, "uniform")


def test_answers_under_other_weights_or_another_mode_are_not_taken_for_each_other(experts):
    made = [
        MixedLM("mixed", experts, weights, mode)
        for weights, mode in (("uniform", "mixture"), ("urban", "mixture"), ("uniform", "log_linear"))
    ]
    assert len({model.identity for model in made}) == 3


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"mixed": {"a": "tiny"}, "weights": "uniform"}, "mixed names 1 expert; give two or more"),
        ({"mixed": {"a": "tiny", "b": "tiny"}}, "experts have no prevalence; give weights"),
        ({"mixed": {"a": "tiny", "b": "tiny"}, "weights": {"c": 1}}, "c"),
        ({"mixed": {"a": "tiny", "b": "tiny"}, "weights": {"a": 0}}, "weights"),
        ({"mixed": {"a": "tiny", "b": "tiny"}, "weights": {"a": -1, "b": 2}}, "weights"),
        ({"mixed": {"a": "tiny", "b": "tiny"}, "weights": "uniform", "mode": "mean"}, "mode"),
        ({"path": "tiny", "mode": "log_linear"}, "mode belongs to models with mixed"),
        ({"mixed": {"a": "tiny", "b": "tiny"}, "path": "tiny"}, "has path and mixed; give it exactly one"),
    ],
)
def test_bad_experts_and_weights_are_refused_before_any_work(model, message):
    with pytest.raises(ConfigError) as error:
        make_suite({"models": [model]}, origin="suite.yaml")
    assert message in str(error.value)


def test_an_expert_that_is_not_there_is_named_before_any_work(tmp_path):
    models = [{"mixed": {"a": "tiny", "b": "./nowhere"}, "weights": "uniform"}]
    with pytest.raises(FileNotFoundError, match=r"model 'a \+ b': there is no nowhere"):
        evaluate_suite(SuiteConfig(models=models, tasks=["coin"], output_dir=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_suite_asks_mixed_models(tmp_path):
    models = [{"mixed": {"a": "tiny", "b": "tiny"}, "weights": {"a": 7, "b": 5}}, {"path": "tiny"}]
    folders = {"output_dir": tmp_path / "out", "answers_dir": tmp_path / "answers"}
    suite = SuiteConfig(models=models, tasks=["coin"], max_items=2, draws=20, permutations=False, **folders)
    results = evaluate_suite(suite)
    mixed, alone = (results.headline(name, "coin").value for name in ("a + b", "tiny"))
    assert mixed == pytest.approx(alone)  # a mixture of a model with itself
    assert results.models[0].kind == "mixed"
