"""Distilling: from a policy that can be steered to one that needs no steering.

A steerable policy answers for whichever group its prompt names. Users of a product do not name
groups. `distil_rows` lets the policy answer as each group in proportion to its share, and `distil`
imitates the answers under the plain prompt: what remains is one policy that speaks for everybody,
with nothing in its prompt.

    python examples/11_distil.py      about fifteen seconds on one core
"""

import copy
import tempfile
from contextlib import redirect_stdout

import matplotlib.pyplot as plt
import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
from trl import SFTConfig

from plural_rlhf import (
    PluralGRPOConfig,
    PluralGRPOTrainer,
    Steerer,
    WeightSampler,
    answer_probabilities,
    distil,
    distil_rows,
    prepare_base_model,
)


# %% 1. A steerable policy
#
# Three groups with a favourite each, by 5 logits. Exact training with a prompt that names one group
# at a time, here by a reserved token (see [steering](07_steer_one_policy.py) for more).

PROMPT = [{"role": "user", "content": "Where shall we eat?"}]
ANSWERS = ["Thai.", "Pizza.", "Curry."]


class Lunch:
    """Each group likes one of the answers."""

    cluster_names = ["students", "workers", "pensioners"]  # noqa: RUF012
    prevalence = np.array([0.6, 0.3, 0.1])

    def cluster_rewards(self, prompts, completions):
        """Return `(N, K)` rewards of completions that are among the answers."""
        texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
        return 5.0 * torch.eye(3)[[ANSWERS.index(text) for text in texts]]


scorer = Lunch()
folder = tempfile.TemporaryDirectory()
base = prepare_base_model("tiny", folder.name)
model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
sampler = WeightSampler(
    scorer.cluster_names, scorer.prevalence, vertex_share=1.0, prevalence_share=0.0,
    rendering="tokens", levels=2,
)  # fmt: skip
sampler.prepare(model, tokenizer)
common = {"save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
common |= {"use_cpu": True, "bf16": False, "gradient_checkpointing": False}
args = PluralGRPOConfig(
    folder.name, exact=True, reference_power=0.0, max_steps=150, learning_rate=5e-3,
    per_device_train_batch_size=12, lr_scheduler_type="linear", **common,
)  # fmt: skip
torch.manual_seed(0)
dataset = Dataset.from_list([{"prompt": PROMPT, "support": ANSWERS}] * 12)
trainer = PluralGRPOTrainer(
    model, scorer, args, dataset, processing_class=tokenizer, weight_sampler=sampler
)
trainer.remove_callback(PrinterCallback)
trainer.train()
steerer = Steerer(
    trainer.model, tokenizer, scorer.cluster_names, scorer.prevalence, "tokens", levels=2
)


def show(name, probabilities):
    """Print a row of the table."""
    cells = "".join(f"{p:10.1%}" for p in (*probabilities, 1 - probabilities.sum()))
    print(f"{name:28}{cells}")


print(f"{'':28}" + "".join(f"{answer:>10}" for answer in (*ANSWERS, "other")))
by_group = steerer.answer_probabilities(PROMPT, ANSWERS, scorer.cluster_names)
for name, share, probabilities in zip(
    scorer.cluster_names, scorer.prevalence, by_group, strict=True
):
    show(f"asked for {name}, {share:.0%}", probabilities)

# %% 2. Answers of everybody
#
# Each of 300 answers is given as one group, in proportion to the weights: prevalence here, any
# others will do. The rows keep the tokens that were sampled. Answers that have no end are left out.

torch.manual_seed(0)
rows = distil_rows(steerer, [PROMPT], "prevalence", n=300, max_new_tokens=12)
answers = rows.to_pandas().assign(answer=[row["completion"][0]["content"] for row in rows])
print(answers[["cluster", "answer"]].head(3).to_string(index=False))
print(answers["cluster"].value_counts().to_string(header=False))

# %% 3. Imitation
#
# The student starts as a copy of the steerable policy, and `distil` changes it in place. It is
# plain supervised fine-tuning of the very tokens under the plain prompt.

args = SFTConfig(
    folder.name, max_steps=40, learning_rate=5e-3, lr_scheduler_type="linear",
    per_device_train_batch_size=50, **common,
)  # fmt: skip
student = copy.deepcopy(steerer.model)
with redirect_stdout(None):  # it would print how long it took
    distil(student, tokenizer, rows, args)

table = {"wanted": scorer.prevalence @ np.stack(by_group)}
for name, policy in {"before": steerer.model, "after": student}.items():
    [table[name]] = answer_probabilities(policy, tokenizer, [PROMPT], [ANSWERS], progress=False)
print(f"{'under the plain prompt':28}" + "".join(f"{answer:>10}" for answer in (*ANSWERS, "other")))
for name, probabilities in table.items():
    show(name, probabilities)

# %% The same as a picture

figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
for i, (name, color) in enumerate({"before": "lightgrey", "wanted": "C1", "after": "C0"}.items()):
    axes.bar(np.arange(3) + 0.27 * (i - 1), table[name], width=0.27, label=name, color=color)
axes.set_xticks(range(3), ANSWERS)
axes.set_ylabel("probability under the plain prompt")
axes.legend(frameon=False)
figure.suptitle("Asked for nobody in particular, the student answers for all in proportion")
plt.show()

# %% What to take away
#
# Steering is for whoever knows whom to ask for; distilling is for the rest. The student is as good
# as the steerable policy is at each group alone, and costs one generation per answer. Without any
# training, `MixedDecoder` mixes the groups while decoding: [tools](../docs/tools.md).
