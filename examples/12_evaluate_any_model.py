"""Evaluating any model: whose answers it gives, and how sure we can be.

Any causal language model can be held against people's answers to a survey; it need not have been
trained with this package. The probability of each option is read off, compared with the people's
answers, and put beside what a model would score that knows nothing (uniform), only which options
are popular (marginal), or always says the most common answer. Two stand-ins for somebody else's
model: a random one, and the same after plain fine-tuning on the answers of other people.

    python examples/12_evaluate_any_model.py      about fifteen seconds on one core
"""

import tempfile

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
from trl import SFTConfig, SFTTrainer

from plural_rlhf import answer_probabilities, prepare_base_model
from reward_models import (
    Judgements,
    as_messages,
    js_divergence,
    noise_floor_js,
    split_raters,
    two_way_bootstrap,
)


# %% 1. People
#
# Three hundred people answer twelve questions on public spending. They are simulated: half of them
# like spending, half do not, and they differ most on the first questions. A published survey is
# read with `load_survey("gss_spending")`, a table of your own with `Judgements.from_frame`. Half of
# the people are the yardstick; the answers of the others are what anybody might have trained on.

OPTIONS = ["too little", "about right", "too much"]
TOPICS = ["welfare", "cities", "science", "defence", "parks", "roads"]
TOPICS += ["schools", "health", "crime", "drugs", "space", "aid"]

rng = np.random.default_rng(0)
popular = rng.normal(0.3, 1.2, size=12)  # logits of "too little" against "too much"
divisive = np.linspace(2.0, 0.0, 12)
rows = []
for person in range(300):
    for i, topic in enumerate(TOPICS):
        lean = popular[i] + divisive[i] * (1 if person % 2 else -1)
        choice = int((np.array([lean, 0.3, -lean]) + rng.gumbel(size=3)).argmax())
        question = f"What do we spend on {topic}?"
        rows.append([f"person {person}", topic, question, OPTIONS, choice])
table = pd.DataFrame(rows, columns=["rater_id", "item_id", "prompt", "options", "choice"])
others, people = split_raters(Judgements.from_frame(table), 0.5)
encoded = people.encode()
answers = encoded.answer_matrix()  # (people, questions): the number of the option
print(f"{answers.shape[0]} people, {answers.shape[1]} questions")

# %% 2. Models
#
# All that is needed is a model and its tokenizer, in the form of transformers. Chat models are
# asked in messages.

folder = tempfile.TemporaryDirectory()
base = prepare_base_model("tiny", folder.name)
tokenizer = AutoTokenizer.from_pretrained(base)
dataset = Dataset.from_list(
    [
        {
            "prompt": as_messages(row.prompt),
            "completion": [{"role": "assistant", "content": OPTIONS[row.choice]}],
        }
        for row in others.frame.itertuples()
    ]
)
common = {"save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
common |= {"use_cpu": True, "bf16": False, "gradient_checkpointing": False}
args = SFTConfig(
    folder.name, max_steps=150, learning_rate=1e-2, lr_scheduler_type="cosine",
    per_device_train_batch_size=64, **common,
)  # fmt: skip
torch.manual_seed(0)
trainer = SFTTrainer(base, args, train_dataset=dataset, processing_class=tokenizer)
trainer.remove_callback(PrinterCallback)
trainer.train()
models = {
    "random model": AutoModelForCausalLM.from_pretrained(base),
    "fine-tuned model": trainer.model,
}

# %% 3. Its answers
#
# The probability of each option, with the end of the answer. What is left of 1 went to something
# else: look at this coverage first, since of a model that rarely gives any of the options the rest
# says little.

questions = dict(zip(table["item_id"], table["prompt"], strict=True))
prompts = [as_messages(questions[topic]) for topic in encoded.item_ids]
policies = {}
for name, model in models.items():
    p = np.stack(answer_probabilities(model, tokenizer, prompts, [OPTIONS] * 12, progress=False))
    policies[name] = p / p.sum(1, keepdims=True)
    print(f"{name:20}{p.sum(1).mean():8.2%} of its answers are options")

# %% 4. Against people
#
# JS divergence in nats, mean over questions, lower is better. The interval resamples people and
# questions. The noise floor is what a perfect model would score, because only so many people were
# asked.

counts = (
    pd.crosstab(others.frame["item_id"], others.frame["choice"]).loc[encoded.item_ids].to_numpy()
)
policies["uniform"] = np.full((12, 3), 1 / 3)
policies["marginal"] = np.tile(counts.sum(0) / counts.sum(), (12, 1))
policies["most common answer"] = np.eye(3)[counts.argmax(1)]

human = np.stack([(answers == option).mean(0) for option in range(3)], axis=1)
floor = noise_floor_js(human, np.full(12, len(answers))).mean()


def against_people(q, rival=None):
    """Return the interval of the distance of `q`, or of how much larger it is than a rival's."""

    def per_question(p):
        return js_divergence(p, q) - (0 if rival is None else js_divergence(p, rival))

    return two_way_bootstrap(per_question, answers, 3, clip=rival is None)


def cell(interval, sign=""):
    """Format an interval."""
    low, high = f"{interval.low:{sign}.3f}", f"{interval.high:{sign}.3f}"
    return f"{interval.value:{sign}.3f} [{low}, {high}]"


distances = {name: against_people(q) for name, q in policies.items()}
print(f"{'':22}{'distance to people':26}more than the marginal")
for name, q in policies.items():
    difference = cell(against_people(q, policies["marginal"]), "+") if name != "marginal" else ""
    print(f"{name:22}{cell(distances[name]):26}{difference}".rstrip())
print(f"{'noise floor':22}{floor:.3f}")

# %% The same as a picture

figure, axes = plt.subplots(figsize=(7, 2.8), layout="constrained")
for row, (name, interval) in enumerate(distances.items()):
    color = "C0" if "model" in name else "grey"
    axes.plot([interval.low, interval.high], [row, row], color=color, linewidth=3)
    axes.plot(interval.value, row, "o", color=color)
axes.axvline(floor, color="black", linestyle="--", linewidth=0.8, label="noise floor")
axes.set_yticks(range(len(distances)), distances)
axes.invert_yaxis()
axes.set_xlabel("JS divergence to people, nats, with 95 % intervals")
axes.legend(frameon=False)
figure.suptitle("Fine-tuning on other people's answers beats every baseline")
plt.show()

# %% What to take away
#
# A distance means little alone. Beside the baselines it says whether the model knows more than
# which options are popular, beside the floor whether there is anything left to gain, and the
# interval of a difference whether we may say so. The most common answer is the worst: being right
# most often and answering as people do are two things.
