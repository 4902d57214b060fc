"""Every combination of settings that `docs/training.md` recommends trains with TRL's defaults and LoRA.

TRL turns gradient checkpointing on; other tests switch it off because it is slower. What the reference does in another
way without an adapter is also trained without one.
"""

from __future__ import annotations

import math

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig

from plural_rlhf.trainers import PluralGRPOConfig, PluralGRPOTrainer
from plural_rlhf.trainers.plural_dpo_config import PluralDPOConfig
from plural_rlhf.trainers.plural_dpo_trainer import PluralDPOTrainer
from tests.juries import CPU
from tests.opposed_pairs import opposed, policy
from tests.policies import THREE, TOKENIZER, load, rows, three_answers


DEFAULTS = {name: value for name, value in CPU.items() if name != "activation_checkpointing"}
SAMPLED = {
    "plain": {},
    "n_ref": {"n_ref": 4},
    "reference_share": {"reference_share": 0.25},
    "n_ref and reference_share": {"n_ref": 4, "reference_share": 0.25, "num_iterations": 2},
    "several uses": {"num_iterations": 4, "warmup_steps": 0.25, "adam_beta1": 0.5},
    "js": {"estimator": "js", "n_ref": 4},
    "fkl": {"estimator": "fkl"},
    "tb": {"estimator": "tb"},
    "reward_to_go": {"variance_reduction": "reward_to_go"},
    "rao_blackwell": {"variance_reduction": "rao_blackwell"},
    "prefix_rewards": {"variance_reduction": "prefix_rewards", "prefix_every": 1},
    "responsibility": {"offsets": "responsibility"},
    "global": {"offsets": "global"},
    "reference": {"offsets": "reference", "n_ref": 4},
    "consensus": {"rho": 0.0},
    "worst-off": {"rho": -math.inf},
    "max_min": {"rho": 0.0, "max_min": True},
    "tie_margin": {"beta": 0.1, "tie_margin": 0.2, "uniform_floor": 1.0},
    "kl_budget": {"kl_budget": 5.0, "n_ref": 4},
    "steerable": {"steerable": True, "reference_share": 0.25},
    "whole prompts": {"shared_prefix": False, "n_ref": 4},
}
EXACT = {
    "plain": {},
    "forward KL": {"divergence": "fkl", "other_mass": 0.01},
    "steerable": {"steerable": True},
    "max_min": {"rho": 0.0, "max_min": True},
    "kl_budget": {"kl_budget": 5.0},
    "sampled offsets": {"exact": False, "offsets": "exact", "num_generations": 4, "max_completion_length": 4},
}
PAIRS = {
    "average": {"objective": "average"},
    "steerable": {"objective": "steerable", "sft_coef": 0.5},
    "mixture": {"objective": "mixture"},
    "robust": {"objective": "average", "robust": True},
    "ipo": {"objective": "average", "loss_type": ["ipo"]},
    "precomputed": {"objective": "average", "precompute_ref_log_probs": True},
}


OF_MODE: dict[str, tuple[dict, list[str] | None, int]] = {
    "sampled": ({"per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 4}, None, 2),
    "exact": ({"per_device_train_batch_size": 4, "exact": True}, THREE, 1),
}
"""Settings, listed answers and steps."""
WITHOUT_ADAPTER = ("n_ref and reference_share", "rao_blackwell", "whole prompts", "sampled offsets", "precomputed")


def each(**tables: dict[str, dict]) -> pytest.MarkDecorator:
    """A case per mode and settings, with LoRA and, for some, without."""
    cases = [
        pytest.param(mode, settings, adapter, id=f"{mode}-{name}-{'LoRA' if adapter else 'all weights'}")
        for mode, table in tables.items()
        for name, settings in table.items()
        for adapter in ((True, False) if name in WITHOUT_ADAPTER else (True,))
    ]
    return pytest.mark.parametrize(("mode", "settings", "adapter"), cases)


def lora(adapter: bool) -> LoraConfig | None:
    return LoraConfig(r=2, target_modules=["q_proj", "v_proj"]) if adapter else None


def check_trained(trainer, steps: int) -> None:
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    trainer.train()
    assert trainer.state.global_step == steps
    assert trainer.model.is_activation_checkpointing
    assert any(not torch.equal(p, before[n]) for n, p in trainer.model.named_parameters() if n in before)


@each(sampled=SAMPLED, exact=EXACT)
def test_training_on_rewards(lopsided, tmp_path, mode, settings, adapter):
    sizes, answers, steps = OF_MODE[mode]
    args = PluralGRPOConfig(str(tmp_path), max_steps=steps, learning_rate=1e-3, **{**sizes, **DEFAULTS, **settings})
    trainer = PluralGRPOTrainer(
        lopsided,
        three_answers(calibrated=True),
        args,
        rows("ab", answers),
        processing_class=TOKENIZER,
        peft_config=lora(adapter),
    )
    check_trained(trainer, steps)


@pytest.mark.parametrize("adapter", [True, False], ids=["LoRA", "all weights"])
def test_texts_of_others_and_memory(lopsided, tmp_path, adapter):
    data = Dataset.from_list([{"prompt": f"Item {c}: ", "given_completions": THREE} for c in "ab"])
    sizes = {"per_device_train_batch_size": 8, "num_generations": 8, "max_completion_length": 4}
    settings = {"n_ref": 4, "reference_share": 0.25, "given_share": 0.25, "num_iterations": 2}
    args = PluralGRPOConfig(str(tmp_path), max_steps=2, learning_rate=1e-3, **sizes, **settings, **DEFAULTS)
    trainer = PluralGRPOTrainer(
        lopsided, three_answers(), args, data, processing_class=TOKENIZER, peft_config=lora(adapter)
    )
    check_trained(trainer, 2)


def test_rows_with_and_without_a_list_together(lopsided, tmp_path):
    data = Dataset.from_list([{"prompt": f"Item {c}: ", "support": THREE if c == "a" else None} for c in "ab"])
    sizes = {"per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 4, "n_ref": 4}
    args = PluralGRPOConfig(str(tmp_path), max_steps=1, learning_rate=1e-3, **sizes, **DEFAULTS)
    trainer = PluralGRPOTrainer(
        lopsided, three_answers(), args, data, processing_class=TOKENIZER, peft_config=lora(True)
    )
    check_trained(trainer, 1)


@each(pairs=PAIRS)
def test_pairs(tmp_path, mode, settings, adapter):
    args = PluralDPOConfig(
        str(tmp_path), max_steps=1, learning_rate=1e-2, per_device_train_batch_size=4, **{**DEFAULTS, **settings}
    )
    trainer = PluralDPOTrainer(
        policy(), None if adapter else policy(), args, opposed(), processing_class=TOKENIZER, peft_config=lora(adapter)
    )
    check_trained(trainer, 1)


def test_an_adapter_that_was_trained_before(lopsided, tmp_path):
    """TRL keeps a frozen copy of it as the reference."""
    from peft import get_peft_model

    sizes = {"per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 4}
    args = PluralGRPOConfig(
        str(tmp_path), max_steps=1, learning_rate=1e-3, n_ref=4, reference_share=0.25, **sizes, **DEFAULTS
    )
    model = get_peft_model(load(lopsided), lora(True))
    trainer = PluralGRPOTrainer(model, three_answers(), args, rows("ab", None), processing_class=TOKENIZER)
    check_trained(trainer, 1)
