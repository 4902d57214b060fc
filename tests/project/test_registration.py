"""A saved jury loads by its path in transformers and in stock TRL after any import of ours, whichever comes first."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from reward_models.jury.modeling_jury import JuryRewardModel
from tests.processes import run_script
from tests.tiny import tiny_causal_lm, tiny_tokenizer


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("jury")
    heads = np.random.default_rng(0).normal(size=(2, 32))
    JuryRewardModel.from_fit(tiny_causal_lm(), heads, [0.0, 0.0], [0.75, 0.25]).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


LOADS = """
from transformers import AutoModelForSequenceClassification
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1], num_labels=1)
print(type(model).__name__)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "first",
    [
        "import plural_rlhf",
        "from transformers import Trainer\nimport reward_models",
        pytest.param("import reward_models.jury.backbones.memory", marks=pytest.mark.slow),
    ],
)
def test_transformers_knows_saved_juries_in_a_new_process(saved, first):
    code = f"import sys\n{first}\n{LOADS}"
    done = subprocess.run([sys.executable, "-c", code, saved], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["JuryRewardModel"]), done.stderr


@pytest.mark.slow
def test_stock_trl_trains_on_a_jury_by_its_path(saved, tmp_path):
    code = """
import sys
import plural_rlhf
from datasets import Dataset
from trl import RLOOConfig, RLOOTrainer
from transformers import AutoModelForCausalLM, AutoTokenizer
settings = dict(use_cpu=True, bf16=False, report_to="none", max_steps=1, num_generations=2)
args = RLOOConfig(sys.argv[2], per_device_train_batch_size=2, max_completion_length=4, beta=0.0, **settings)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
from reward_models.jury.tiny import tiny_causal_lm
data = Dataset.from_list([{"prompt": "A colour? "}] * 2)
trainer = RLOOTrainer(tiny_causal_lm(), sys.argv[1], args, data, processing_class=tokenizer)
trainer.train()
print("reward", [row["reward"] for row in trainer.state.log_history if "reward" in row])
"""
    assert "reward" in run_script(code, saved, str(tmp_path)).stdout


@pytest.mark.slow
def test_a_module_of_ours_that_is_being_loaded_delays_the_registration():
    """Then the next import of anything does it."""
    code = """
import importlib.machinery, sys, types, reward_models
half_loaded = types.ModuleType("reward_models.jury.backbones.memory")
half_loaded.__spec__ = importlib.machinery.ModuleSpec("reward_models.jury.backbones.memory", None)
half_loaded.__spec__._initializing = True
sys.modules["reward_models.jury.backbones.memory"] = half_loaded
import transformers.models.auto.modeling_auto
print("reward_models.jury.modeling_jury" in sys.modules)
del sys.modules["reward_models.jury.backbones.memory"]
import tabnanny
print("reward_models.jury.modeling_jury" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["False", "True"], done.stderr
