"""From your own pairs to a policy: headroom, a jury, and GRPO for everybody.

Sixty raters compare what could be built in a town: two thirds like green things, one third roads.
The table goes all the way: is there anything to gain (`headroom`), who likes what (`fit_jury`), and
a policy that speaks for both groups in proportion
([`PluralGRPOTrainer`][plural_rlhf.PluralGRPOTrainer], sampled mode). The language model is a random
one with 40,000 parameters; put the path of yours in its place.

    python examples/05_pairs_to_policy.py      about twenty seconds on one core
"""

import tempfile
import textwrap
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback

from plural_rlhf import (
    PluralGRPOConfig,
    PluralGRPOTrainer,
    PoolTarget,
    ValidityGate,
    answer_probabilities,
    prepare_base_model,
)
from reward_models import Judgements, fit_jury, headroom


# %% 1. Pairs
#
# One row per judgement: who (`rater_id`), about what (`prompt`, `response_a`, `response_b`), and
# the `choice`: `a`, `b` or `tie`. TRL's `chosen` and `rejected` with a `rater_id` are read as well.
# These judgements are simulated from logits that only the simulation knows.

ANSWERS = ["A park.", "A pool.", "A road.", "A garage."]
PLACES = ["river", "station", "school", "market", "harbour", "mill"]
LIKES_GREEN, LIKES_ROADS = [1.2, 0.8, -1.2, -0.8], [-1.2, -0.8, 1.2, 0.8]

rng = np.random.default_rng(0)
rows = []
for rater in range(60):
    taste = LIKES_ROADS if rater % 3 == 0 else LIKES_GREEN
    for place in PLACES:
        for a, b in rng.permutation(list(combinations(range(4), 2)))[:4]:
            prompt = f"What should we build by the {place}?"
            choice = "a" if rng.random() < 1 / (1 + np.exp(taste[b] - taste[a])) else "b"
            rows.append([f"rater {rater}", prompt, ANSWERS[a], ANSWERS[b], choice])
table = pd.DataFrame(rows, columns=["rater_id", "prompt", "response_a", "response_b", "choice"])
print(table.head(4).to_string(index=False))
judgements = Judgements.from_frame(table)

# %% 2. Is there anything to gain?
#
# A ladder of models, each scored on judgements that it has not seen: one reward for everybody, then
# models that tell raters apart. `info` is what a model gains over the first, in nats per judgement,
# with its interval. Labels only; no text is read.

ladder = headroom(judgements)
for rung in ladder.rungs:
    interval = f"[{rung['low']:+.2f}, {rung['high']:+.2f}]"
    print(f"{rung['name']:28}{rung['nll']:6.2f} nats   info {rung['info']:+.2f} {interval}")
print("\n" + textwrap.fill(ladder.verdict, 100))

# %% 3. A jury
#
# `fit_jury` chooses the number of clusters on held-out raters, estimates who is in which, and reads
# the clusters' rewards off the language model's features. `scorer.save_pretrained(folder)` would
# save it.

folder = tempfile.TemporaryDirectory()
base = prepare_base_model("tiny", folder.name)
scorer = fit_jury(judgements, base, progress=False)
prompts = [[{"role": "user", "content": f"What should we build by the {p}?"}] for p in PLACES]
by_cluster = torch.stack([scorer.cluster_rewards([p] * 4, ANSWERS) for p in prompts])
print(f"{'logits, mean over places':28}" + "".join(f"{answer:>10}" for answer in ANSWERS))
for k, share in enumerate(scorer.prevalence):
    means = "".join(f"{reward:10.1f}" for reward in by_cluster[..., k].mean(0).tolist())
    print(f"{f'cluster {k + 1}, {share:.0%} of the raters':28}{means}")

# %% 4. A policy that answers
#
# Sampled training needs a start that says something worth judging. A random model does not, so it
# first learns to give the four answers equally often: exact mode, at a temperature at which no
# preference counts. A model of yours will not need this.

quiet = {"logging_strategy": "no", "save_strategy": "no", "disable_tqdm": True}
common = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, **quiet}
start = f"{folder.name}/start"
args = PluralGRPOConfig(
    start, exact=True, beta=1e6, reference_power=0.0, max_steps=150, learning_rate=5e-3,
    per_device_train_batch_size=6, lr_scheduler_type="linear", **common,
)  # fmt: skip
dataset = Dataset.from_list([{"prompt": p, "support": ANSWERS} for p in prompts])
trainer = PluralGRPOTrainer(base, scorer, args, dataset)
trainer.remove_callback(PrinterCallback)
trainer.train()
trainer.save_model()

# %% 5. GRPO
#
# Sixteen completions for each prompt. The jury has never judged gibberish and may like it, so a
# gate says what is an answer at all: facts, formats and safety are no matter of taste.


def is_answer(completions, **columns):
    """Return 1.0 for one of the four answers."""
    return [float(completion[0]["content"] in ANSWERS) for completion in completions]


args = PluralGRPOConfig(
    f"{folder.name}/grpo", max_steps=90, learning_rate=2e-3, lr_scheduler_type="linear",
    per_device_train_batch_size=48, num_generations=16, max_completion_length=12, **common,
)  # fmt: skip
torch.manual_seed(0)
dataset = dataset.remove_columns("support")
trainer = PluralGRPOTrainer(start, [scorer, ValidityGate(is_answer)], args, dataset)
trainer.remove_callback(PrinterCallback)
trainer.train()

# %% 6. Who is left
#
# The target is known: with $\beta = 1$ it is the mixture of the clusters' own optima by prevalence.
# Probabilities are read off, not sampled.

tokenizer = AutoTokenizer.from_pretrained(start)
policies = {"before": AutoModelForCausalLM.from_pretrained(start), "after": trainer.model}
probabilities = {
    name: np.stack(answer_probabilities(p, tokenizer, prompts, [ANSWERS] * 6, progress=False))
    for name, p in policies.items()
}
log_pi_ref = torch.tensor(probabilities["before"]).log()
target = PoolTarget().log_probs(by_cluster.double(), torch.tensor(scorer.prevalence), log_pi_ref)
rows = {"wanted": target.exp().numpy(), **probabilities}
print(f"{'':8}" + "".join(f"{text:>10}" for text in (*ANSWERS, "other", "green", "roads")))
for name, p in rows.items():
    shares = [*p.mean(0), 1 - p.sum(1).mean(), p[:, :2].sum(1).mean(), p[:, 2:].sum(1).mean()]
    print(f"{name:8}" + "".join(f"{share:10.1%}" for share in shares))

# %% The same as a picture

figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
for i, (name, color) in enumerate({"before": "lightgrey", "wanted": "C1", "after": "C0"}.items()):
    axes.bar(np.arange(4) + 0.27 * (i - 1), rows[name].mean(0), width=0.27, label=name, color=color)
axes.set_xticks(range(4), ANSWERS)
axes.set_ylabel("probability, mean over places")
axes.legend(frameon=False)
figure.suptitle("The policy leaves its even start for what both groups want, in proportion")
plt.show()

# %% What to take away
#
# Look at `headroom` before you fit, at who likes what before you train, and at the shares after.
# The target is a distribution, not a best answer, so a third of the raters keep about a third of
# the answers. A random model says nothing about a seventh place: for new questions the jury needs a
# language model that understands what it reads. Other tables, and the same from the command line:
# [your own data](../docs/how_to_own_data.md).
