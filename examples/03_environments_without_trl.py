"""Environments without TRL: two Gymnasium environments, a softmax, and twenty lines of torch.

`JuryBandit` and `JuryText` hand out a reward per rater cluster and know, or let you compute, the
best policy exactly. That makes them the place to try an algorithm of your own: here REINFORCE on
the mean of the clusters, which is the usual practice, against VarGrad on the mixture, which is what
the trainers of this package do. They need Gymnasium: `pip install "plural-rlhf[envs]"`.

    python examples/03_environments_without_trl.py      about ten seconds on one core
"""

import itertools

import gymnasium
import matplotlib.pyplot as plt
import numpy as np
import torch

from plural_rlhf import aggregate
from plural_rlhf.core.estimators import leave_one_out, residual, score_function_loss, vargrad_loss
from plural_rlhf.core.offsets import OffsetTracker
from plural_rlhf.core.targets import pool_reward, responsibilities
from plural_rlhf.envs import JuryBandit


GROUP = 32  # answers to the prompt per update
STEPS = 200

# %% 1. Two losses
#
# Both see the same three tensors: the rewards of G answers by K clusters, and the log-probability
# of each answer under the policy and under the reference. REINFORCE averages the clusters first,
# and then there is one best answer.


class Reinforce:
    """Policy gradient on the weighted mean, each answer against the mean of the others."""

    def __init__(self, weights):
        self.weights = weights

    def __call__(self, rewards, log_pi, log_pi_ref):
        """Return the loss of a group; rewards are `(G, K)`, the others `(G,)`."""
        return score_function_loss(leave_one_out(aggregate(rewards, self.weights)), log_pi)


# The mixture asks of each answer which cluster it belongs to, and pays it less the more of the
# policy that cluster already has. What a cluster has is in its offset $\log Z$, started from
# answers of the reference and then moved until each cluster's share is its weight. The residual is
# constant exactly when the policy is the target, so its variance is the loss, and the gradient
# noise dies out with it.


class Mixture:
    """VarGrad on the residual of the mixture, with offsets kept by responsibility balancing."""

    def __init__(self, weights, beta=1.0):
        self.weights, self.beta = weights, beta
        self.offsets = OffsetTracker(
            len(weights), learning_rate=0.03
        )  # slower than the policy, or both swing
        self.key = "the only prompt"

    def __call__(self, rewards, log_pi, log_pi_ref):
        """Return the loss of a group; rewards are `(G, K)`, the others `(G,)`."""
        if self.key not in self.offsets:
            self.offsets.initialise(
                self.key, rewards, self.beta
            )  # the first answers are the reference's
        log_z = self.offsets.get([self.key])[0]
        pooled = pool_reward(rewards, self.weights, log_z, self.beta, rho=1.0)
        gamma = responsibilities(rewards, self.weights, log_z, self.beta)
        self.offsets.observe(self.key, rewards, gamma, self.weights, self.beta)
        return vargrad_loss(residual(pooled, self.beta, log_pi_ref, log_pi))


LOSSES = {"REINFORCE on the mean": Reinforce, "VarGrad on the mixture": Mixture}


# How a policy is judged, below: its share of every cluster, and its distance to the optimum.
# Nothing is sampled.


def report(title, bandit, policies):
    """Print a row for each policy."""
    print(
        f"{title:28}"
        + "".join(f"{name:>9}" for name in bandit.cluster_names)
        + f"{'JS (nats)':>12}"
    )
    for name, policy in {"wanted": bandit.optimum()[0], **policies}.items():
        shares, distance = bandit.shares([policy])[0], float(bandit.jsd([policy])[0])
        print(f"{name:28}" + "".join(f"{share:9.1%}" for share in shares) + f"{distance:12.4f}")


# %% 2. A bandit
#
# "Pick a number from 0 to 10": 60 % of the people want a number below 4, 30 % one from 4 to 7 and
# 10 % one from 8 up. `make_vec` runs a whole group at once and keeps the reward vectors, which
# Gymnasium's own vector environments do not.


def train_on_bandit(envs, loss):
    """Return the probabilities `(N,)` of a trained softmax; like the reference it starts even."""
    logits = torch.zeros(envs.single_action_space.n, requires_grad=True)
    log_pi_ref = logits.detach().log_softmax(-1)
    optimiser = torch.optim.Adam([logits], lr=0.05)
    envs.reset(seed=0)
    for _ in range(STEPS):
        log_pi = logits.log_softmax(-1)
        answers = torch.multinomial(log_pi.detach().exp(), GROUP, replacement=True)
        _, rewards, _, _, _ = envs.step(answers.numpy())
        optimiser.zero_grad()
        loss(torch.from_numpy(rewards), log_pi[answers], log_pi_ref[answers]).backward()
        optimiser.step()
    return logits.detach().double().softmax(-1).numpy()


torch.manual_seed(0)
bandit = gymnasium.make("plural_rlhf/JuryBandit-v0").unwrapped
envs = gymnasium.make_vec("plural_rlhf/JuryBandit-v0", num_envs=GROUP)
policies = {name: train_on_bandit(envs, loss(bandit.prevalence)) for name, loss in LOSSES.items()}
report("one choice", bandit, policies)

# %% The same as a picture

figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
for offset, (name, policy) in enumerate({"wanted": bandit.optimum()[0], **policies}.items()):
    color = ["lightgrey", "C1", "C0"][offset]
    axes.bar(
        np.arange(len(policy)) + 0.28 * (offset - 1), policy, width=0.28, label=name, color=color
    )
axes.set_xticks(range(len(policy)))
axes.set_xlabel("number")
axes.set_ylabel("probability")
axes.legend(frameon=False)
figure.suptitle("On the mean the largest cluster takes all; on the mixture each keeps its share")
plt.show()

# %% 3. The same, token by token
#
# `JuryText` takes one token per step and lets the jury judge what was written when it ends: here
# digits, an end token (number 10), and three tokens at most. Any tokenizer and any jury fit in. The
# policy is a table: how many tokens there are and which was the last one decide about the next.
# Nothing else changes, because the losses speak of whole answers; the log-probability of an answer
# is the sum over its tokens, the end token included.

TOKENS, END, LONGEST = 11, 10, 3


def write_answer(env, probabilities, rng):
    """Play one episode; return its tokens, and the rewards `(K,)` that come with its end."""
    env.reset()
    tokens, over = [], False
    while not over:
        last = tokens[-1] if tokens else END
        tokens.append(int(rng.choice(TOKENS, p=probabilities[len(tokens), last])))
        _, reward, terminated, truncated, _ = env.step(tokens[-1])
        over = terminated or truncated
    return tokens, reward


def answer_log_probs(table, answers):
    """Return `(N,)` log-probabilities; `table` is `(LONGEST, TOKENS, TOKENS)`."""
    total = []
    for tokens in answers:
        steps = zip(range(len(tokens)), [END, *tokens[:-1]], tokens, strict=True)
        total.append(
            [(position * TOKENS + last) * TOKENS + token for position, last, token in steps]
        )
    index = torch.tensor([row + [0] * (LONGEST - len(row)) for row in total])
    there = torch.tensor([[1.0] * len(row) + [0.0] * (LONGEST - len(row)) for row in total])
    return (table.reshape(-1)[index] * there).sum(-1)


def train_on_text(env, loss):
    """Return a trained table of log-probabilities of the next token; it starts even."""
    rng = np.random.default_rng(0)
    logits = torch.zeros(LONGEST, TOKENS, TOKENS, requires_grad=True)
    reference = logits.detach().log_softmax(-1)
    optimiser = torch.optim.Adam([logits], lr=0.1)
    for _ in range(STEPS):
        table = logits.log_softmax(-1)
        probabilities = table.detach().double().softmax(-1).numpy()
        episodes = [write_answer(env, probabilities, rng) for _ in range(GROUP)]
        answers = [tokens for tokens, _ in episodes]
        rewards = torch.from_numpy(np.stack([reward for _, reward in episodes]))
        optimiser.zero_grad()
        loss(
            rewards, answer_log_probs(table, answers), answer_log_probs(reference, answers)
        ).backward()
        optimiser.step()
    return logits.detach().double().log_softmax(-1)


# Three tokens allow 1,111 answers, few enough to write down. With a list of answers a text is a
# bandit too, and `JuryBandit` computes the best policy and the distance to it.

env = gymnasium.make("plural_rlhf/JuryText-v0", max_tokens=LONGEST)
scorer, prompt = env.unwrapped.scorer, env.unwrapped.prompts[0]
answers = [
    [*text, END] if length < LONGEST else [*text]
    for length in range(LONGEST + 1)
    for text in itertools.product(range(END), repeat=length)
]
texts = [env.unwrapped.tokenizer.decode(tokens) for tokens in answers]
rewards = scorer.cluster_rewards([prompt] * len(texts), texts)
even = torch.zeros(LONGEST, TOKENS, TOKENS).log_softmax(-1)
written_out = JuryBandit(
    [rewards],
    scorer.prevalence,
    cluster_names=scorer.cluster_names,
    log_pi_ref=[answer_log_probs(even, answers).numpy()],
)
policies = {}
for name, loss in LOSSES.items():
    table = train_on_text(env, loss(written_out.prevalence))
    policies[name] = answer_log_probs(table, answers).exp().numpy()
report("token by token", written_out, policies)

# %% What to take away
#
# The environments reward each cluster by itself, so whoever averages does so knowingly. On the mean
# the majority's taste is the whole policy; on the mixture every cluster keeps its weight, and the
# distance to the optimum is a number that you can test against. For a library that wants one number
# per step, wrap the environment: `ScalarisedReward(env, rule="mean")`, or `rule="pool"` on a
# bandit.
#
# The mathematics of offsets and residuals is in [mathematics](../docs/mathematics.md).
