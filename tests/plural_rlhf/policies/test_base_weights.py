"""The note of an adapter's base weights: the same with and without adapters, and in coarser precision."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from plural_rlhf.policies.base_models import tiny_causal_lm
from plural_rlhf.policies.base_weights import BASE_WEIGHTS_FILE, BaseWeights
from reward_models.jury.backbones.loading import weights_hash
from reward_models.whole_file import write_json


LORA = LoraConfig(r=2, target_modules=["q_proj", "embed_tokens"], task_type="CAUSAL_LM")


def test_adapters_do_not_change_the_hash_of_what_is_below_them():
    plain = weights_hash(tiny_causal_lm())
    model = tiny_causal_lm()
    adapted = get_peft_model(model, LORA)
    adapted.add_adapter("second", LORA)
    assert BaseWeights(tiny_causal_lm()).sha256() == plain
    assert BaseWeights(adapted).sha256() == plain
    assert BaseWeights(model).sha256() == plain  # into which the adapters were put
    with torch.no_grad():
        adapted.get_base_model().model.norm.weight[0] += 0.5
    assert BaseWeights(adapted).sha256() != plain


def test_an_adapter_trained_in_half_precision_is_compared_in_it(tmp_path):
    write_json(tmp_path / BASE_WEIGHTS_FILE, BaseWeights(tiny_causal_lm().to(torch.bfloat16)).record())
    whole, other = BaseWeights(tiny_causal_lm()), BaseWeights(tiny_causal_lm(seed=1))
    assert (whole.known(tmp_path), whole.fault(tmp_path)) == (True, None)
    assert "other weights" in other.fault(tmp_path)
    write_json(tmp_path / BASE_WEIGHTS_FILE, whole.record())
    rounded = BaseWeights(tiny_causal_lm(seed=1).to(torch.bfloat16))
    assert (rounded.known(tmp_path), rounded.fault(tmp_path)) == (False, None)  # what was rounded off is gone


@pytest.mark.parametrize(
    "note", ["", "{}", "[]", '{"sha256": null, "dtype": "float32"}', '{"sha256": "1", "dtype": "x"}']
)
def test_a_note_that_says_nothing_is_none(tmp_path, note):
    (tmp_path / BASE_WEIGHTS_FILE).write_text(note)
    assert not BaseWeights(tiny_causal_lm()).known(tmp_path)


def test_an_adapter_that_replaces_whole_modules_has_no_note():
    whole = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["norm"], task_type="CAUSAL_LM")
    assert BaseWeights(get_peft_model(tiny_causal_lm(), whole)).record()["sha256"] is None
