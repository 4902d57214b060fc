"""Modular Pluralism: one base model, an adapter per community, and one that is added later.

Three communities answer a made-up survey of six questions: towns and villages want opposite
things, and the coast wants all of it. Each gets an adapter on one tiny base model, trained on what
its people answered. Nothing is downloaded.

    python examples/14_modular.py      about twenty seconds on one core
"""

import tempfile
from pathlib import Path

import numpy as np
import torch

from plural_rlhf.methods.modular import (
    EVERYBODY,
    CommunityPeople,
    ModularPolicy,
    asked_questions,
    communities_by_trait,
)
from plural_rlhf.policies.answers import AnswerBatch, answer_log_probs
from plural_rlhf.policies.base_models import tiny_causal_lm, tiny_tokenizer
from plural_rlhf.recipe import make_config
from plural_rlhf.recipe.communities import train_communities
from reward_models import Judgements


# %% 1. People
#
# A table with a column `rater:<trait>` is all that is needed; `communities_by_cluster` divides by
# clusters where no trait does. Communities of fewer than twenty people are refused.

rng = np.random.default_rng(0)
says_yes = {"towns": 0.85, "villages": 0.15, "coast": 0.98}
where = ["towns"] * 60 + ["villages"] * 30 + ["coast"] * 30
rows = [
    {
        "rater_id": f"r{number:03}",
        "rater:where": place,
        "prompt": f"Should we build more {what}?",
        "options": ["yes", "no"],
        "choice": int(rng.random() > says_yes[place]),
    }
    for number, place in enumerate(where)
    for what in ("trams", "parks", "roads", "shops", "flats", "pools")
]
survey = Judgements.from_dataset(rows)
communities = communities_by_trait(survey, "where")
for community in communities:
    print(f"{community.name:9} {community.share:4.0%} of the people")

# %% 2. A base model
#
# In earnest a language model, such as smollm2-135m. Here 40,000 random parameters that first learn
# that people say yes or no, either as often.

questions = asked_questions(survey)
prompts, options = [q.messages for q in questions], [q.options for q in questions]
tokenizer = tiny_tokenizer()
base = tiny_causal_lm(tokenizer)
batch = AnswerBatch.encode(prompts, options, tokenizer)
optimizer = torch.optim.Adam(base.parameters(), lr=1e-2)
for _ in range(80):
    loss = -answer_log_probs(base, batch).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

# %% 3. An adapter for each community, but one is forgotten
#
# The command for a file is `plural-rlhf communities survey.csv --by where --model MODEL`.

layers = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
place = tempfile.TemporaryDirectory()
folder = Path(place.name)
base.save_pretrained(folder / "base")
tokenizer.save_pretrained(folder / "base")
config = make_config(
    {
        "policy": {"model": str(folder / "base"), "lora": {"alpha": 64, "target_modules": layers}},
        "sft": {"steps": 40, "learning_rate": 0.02, "texts_per_step": 16},
    },
    origin="example",
)
known = ["towns", "villages"]
train_communities(config, survey, communities, folder / "pool", only=known, show=print)
policy = ModularPolicy.from_pretrained(folder / "pool", device="cpu")

# %% 4. Three modes
#
# Distributional: the average of the communities' distributions by their shares; `"flat"` is the
# published one. Steerable: one community answers. Overton: the base model sums up what all say
# (of a model this small, nothing that could be read).

by_shares = policy.answer_probabilities(prompts, options)
flat = policy.answer_probabilities(prompts, options, "flat")
speaker = policy.speaker("villages", prompts[0])
alone = policy.answer_probabilities(prompts, options, speaker)
print(f"P(yes) to the first question: by shares {by_shares[0][0]:.2f}, flat {flat[0][0]:.2f}")
print(f"the {speaker} alone {alone[0][0]:.2f}")
print("ten answers:", *policy.generate(prompts[:1], number=10, max_new_tokens=4)[0])

# %% 5. Patching
#
# The coast was forgotten. Its adapter is trained and added; the others are not touched.

before = policy.community_probabilities(prompts, options)
train_communities(config, survey, communities, folder / "pool", show=print)
patched = ModularPolicy.from_pretrained(folder / "pool", device="cpu")
after = patched.community_probabilities(prompts, options)
assert all(np.array_equal(before[name], after[name]) for name in known)

people = CommunityPeople.of(survey, communities, draws=200)
gain = people.gain("coast", after["coast"], by_shares)
print(
    f"JS divergence of what the coast is answered from its people: {gain.value:+.3f} "
    f"[{gain.low:+.3f}, {gain.high:+.3f}] nats by its own adapter"
)
together = patched.answer_probabilities(prompts, options)
print(f"of all answers from all people: {people.divergence(EVERYBODY, together).value:.3f} nats")
place.cleanup()

# %% What to take away
#
# - Each community has an adapter on one base model; the average by shares speaks for all.
# - A community can be added at any time, and the others answer as before, to the last bit.
# - It pays where communities differ and have people enough. Where they hardly differ, one model
#   trained on everybody is as good: see `docs/methods/modular_pluralism.md`.
