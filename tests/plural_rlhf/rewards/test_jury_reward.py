"""`JuryReward`, the two-line drop-in: what it pays, and that stock TRL trainers can use it as it is."""

from __future__ import annotations

import asyncio
import math
import pickle
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
from trl.trainer.utils import is_async_callable

from plural_rlhf.core.targets import PoolTarget, pool_reward
from plural_rlhf.rewards.completions import completion_text, prompt_key
from plural_rlhf.rewards.jury_reward import JuryReward
from plural_rlhf.rewards.validity_gate import ValidityGate
from reward_models.errors import JuryError
from tests.juries import CPU, TableJury
from tests.tiny import save_tiny, tiny_tokenizer


TABLE = {"red": [2.0, 0.0], "blue": [0.0, 3.0], "grey": [1.0, 1.0]}


def jury() -> TableJury:
    return TableJury(TABLE, ["warm", "cold"], [0.75, 0.25])


def pay(reward: JuryReward, completions: list[str], **columns) -> list[float]:
    return reward(prompts=["Pick."] * len(completions), completions=completions, **columns)


def test_the_mean_under_each_rows_own_weights():
    reward = JuryReward(jury(), rule="mean")
    assert pay(reward, ["red", "blue"]) == pytest.approx([1.5, 0.75])
    weights = [{"warm": 1, "cold": 3}, "cold", [0.5, 0.5], "uniform", None]
    paid = pay(reward, ["red", "red", "blue", "grey", "blue"], weights=weights)
    assert paid == pytest.approx([0.5, 0.0, 1.5, 1.0, 0.75])


def test_weights_survive_a_data_set():
    # Arrow gives every mapping every key, absent ones as None.
    column = list(Dataset.from_list([{"weights": {"warm": 1.0}}, {"weights": {"cold": 2.0, "warm": 2.0}}])["weights"])
    assert column[0] == {"warm": 1.0, "cold": None}
    assert pay(JuryReward(jury(), rule="mean"), ["red", "red"], weights=column) == pytest.approx([2.0, 1.0])


def test_a_rule_gets_its_options():
    power = JuryReward(jury(), rule="power_mean", p=-math.inf, calibrated=False)
    assert pay(power, ["red", "blue", "grey"])[2] == max(pay(power, ["red", "blue", "grey"]))


def test_a_group_rule_judges_a_completion_among_those_of_its_prompt_and_weights():
    reward = JuryReward(jury(), rule="borda")
    # Warm: red > grey > blue, cold: blue > grey > red. Shares of duels won, by hand.
    three = {"red": (0.75, 0.25), "blue": (0.25, 0.75), "grey": (0.5, 0.5)}
    assert pay(reward, list(three)) == pytest.approx([three[c][0] for c in three])
    prompts, weights = ["A"] * 3 + ["B"] * 2 + ["A"] * 3, ["prevalence"] * 5 + ["cold"] * 3
    paid = reward(prompts=prompts, completions=[*three, "red", "grey", *three], weights=weights)
    assert paid == pytest.approx([0.75, 0.25, 0.5, 0.75, 0.25, 0.0, 1.0, 0.5])
    with pytest.raises(JuryError, match="compares at least two"):
        reward(prompts=["A", "B"], completions=["red", "blue"])


def test_a_column_says_the_rule_of_each_row():
    reward = JuryReward(jury(), calibrated=False)
    rules = ["mean", "min", {"rule": "power_mean", "p": -math.inf, "q": None}, "max", None, "pool"]
    paid = pay(reward, ["red"] * 6, rule=rules)
    assert paid[:4] == pytest.approx([1.5, 0.0, 0.0, 2.0])
    assert paid[4] == paid[5] == pytest.approx(pay(JuryReward(jury()), ["red"] * 2)[0])  # the default is the pool
    with pytest.raises(ValueError, match=r"got 'mni'.*Did you mean 'min'"):
        pay(reward, ["red"], rule=["mni"])
    strict = JuryReward(jury())
    for _ in range(2):  # refused again, not only when it is first read
        with pytest.raises(JuryError, match="'min' compares one cluster's score"):
            pay(strict, ["red"], rule=["min"])


def test_rules_that_compare_heads_ask_for_one_scale():
    for rule in ("pool", "mean", "borda", "maximal_lottery", "random_dictator"):
        JuryReward(jury(), rule=rule)
    for rule in ("nash", "min", "median", "cvar", "leximin", "approval"):
        with pytest.raises(JuryError, match=f"'{rule}' compares .* calibrated=False"):
            JuryReward(jury(), rule=rule)
        JuryReward(jury(), rule=rule, calibrated=False)
    comparable = jury()
    comparable.calibrated = True
    JuryReward(comparable, rule="min")
    with pytest.raises(JuryError, match="calibrated=True requires it"):
        JuryReward(jury(), calibrated=True)


def test_weights_that_are_nearly_shares_are_normalised_with_a_message():
    with pytest.warns(UserWarning, match=r"sum to 0.8; the shares used are 'warm' 0.625, 'cold' 0.375"):
        reward = JuryReward(jury(), rule="mean", weights={"warm": 0.5, "cold": 0.3})
    assert pay(reward, ["red"]) == pytest.approx([1.25])
    assert pay(JuryReward(jury(), rule="mean", weights={"warm": 5, "cold": 3}), ["red"]) == pytest.approx([1.25])


def test_the_pool_is_that_of_the_core():
    reward = JuryReward(jury(), rho=1.0, beta=0.5)
    completions, key = ["red", "blue", "grey", "red"], prompt_key("Pick.")
    r = torch.tensor([TABLE[c] for c in completions], dtype=torch.float64)
    started_at = torch.logsumexp(r / 0.5, 0) - math.log(4)
    paid = pay(reward, completions)
    assert paid == pytest.approx(pool_reward(r, torch.tensor([0.75, 0.25]), started_at, 0.5, 1.0).tolist())
    # The next call pays under the offsets that this one left behind.
    offsets = reward.offsets.get([key])[0]
    assert not torch.allclose(offsets, started_at)
    assert pay(reward, completions) == pytest.approx(
        pool_reward(r, torch.tensor([0.75, 0.25]), offsets, 0.5, 1.0).tolist()
    )


def test_following_the_pool_ends_at_the_population():
    """With the exact offsets, the KL-regularised optimum pi_ref exp(R / beta) is PoolTarget, for every rho."""
    answers = list(TABLE)
    r = torch.tensor([[TABLE[a] for a in answers]], dtype=torch.float64)
    log_ref = torch.tensor([[0.5, 0.2, 0.3]], dtype=torch.float64).log()
    log_z = torch.logsumexp(r[0] + log_ref[0, :, None], 0)
    for rho in (1.0, 0.0, -2.0, math.inf):
        reward = JuryReward(jury(), rho=rho, offsets="exact")
        reward.offsets.load_state_dict(
            {"num_clusters": 2, "log_z": {prompt_key("Pick."): log_z.tolist()}, "updates": {prompt_key("Pick."): 0}}
        )
        optimum = (torch.tensor(pay(reward, answers), dtype=torch.float64) + log_ref[0]).softmax(-1)
        exact = PoolTarget(rho=rho).log_probs(r, torch.tensor([0.75, 0.25]).double(), log_ref)[0].exp()
        torch.testing.assert_close(optimum, exact, atol=1e-9, rtol=0)


def test_offsets_move_to_log_z():
    """A policy that follows the target of the current offsets: balancing carries wrong offsets to log Z."""
    reward = JuryReward(jury(), offset_learning_rate=0.2)
    answers, key = np.array(list(TABLE)), prompt_key("Pick.")
    r = torch.tensor([TABLE[a] for a in answers], dtype=torch.float64)
    exact = torch.logsumexp(r, 0) - math.log(3)
    reward.offsets.initialise(key, torch.tensor([[3.0, 0.0]]), 1.0)
    gaps = []
    rng = np.random.default_rng(0)
    for _ in range(250):
        log_z = reward.offsets.get([key])[0]
        gaps.append(float((log_z[0] - log_z[1]) - (exact[0] - exact[1])))
        p = (pool_reward(r, torch.tensor([0.75, 0.25]), log_z, 1.0, 1.0)).softmax(-1).numpy()
        pay(reward, list(rng.choice(answers, size=32, p=p)))
    assert abs(gaps[0]) > 3
    assert abs(np.mean(gaps[-100:])) < 0.15


@pytest.mark.parametrize("rho", [0.0, -4.0])
def test_only_the_mixture_is_balanced(rho):
    # The balance mean gamma = w holds at log Z for rho = 1 alone; elsewhere it would carry right offsets away.
    reward = JuryReward(jury(), rho=rho)
    # The log pool reads no offsets; the others would stay at what the first three completions said.
    with warnings.catch_warnings() if rho == 0 else pytest.warns(UserWarning, match="rho is -4.*offsets='ema'"):
        warnings.simplefilter("error" if rho == 0 else "always")
        pay(reward, ["red", "blue", "grey"])
        before = reward.offsets.get([prompt_key("Pick.")])
        pay(reward, ["red", "red", "red"])
    assert torch.equal(before, reward.offsets.get([prompt_key("Pick.")]))


def test_an_answer_outside_the_support_is_below_every_answer_inside():
    support = [["red", "blue"]] * 5
    completions = ["red", "blue", "grey", "mauve", " blue "]
    for reward in (JuryReward(jury(), rule="mean"), JuryReward(jury())):
        paid = pay(reward, completions, support=support)
        assert max(paid[2:4]) < min(paid[0], paid[1], paid[4])
        assert paid[4] == pytest.approx(paid[1])  # the space that a chat model puts first is not another answer
    # Without the column everything is an answer, and the jury likes grey as much as anything.
    assert pay(JuryReward(jury(), rule="mean"), ["grey", "blue"]) == pytest.approx([1.0, 0.75])
    per_cluster = JuryReward(jury()).cluster_rewards(["Pick."], ["mauve"], [["red", "blue"]])
    assert per_cluster.tolist() == [[-10.0, -10.0]]


def test_space_around_an_answer_of_the_support_is_not_read():
    spaced = [[" red", "blue\n", "red "]] * 3  # "red" twice is one answer
    paid = pay(JuryReward(jury(), rule="mean"), [" red", "blue", "grey"], support=spaced)
    assert paid == pytest.approx([1.5, 0.75, -10.0])


CALL = {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "look", "arguments": {}}}]}
TOOL = {"role": "tool", "name": "look", "content": "grey"}


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([{**CALL, "content": "Let me look."}, TOOL, {"role": "assistant", "content": "red"}], "red"),
        ([CALL, TOOL, {"role": "assistant", "content": "red"}], "red"),
        ([{**CALL, "content": "Let me look."}, TOOL, {**CALL, "content": None}], "Let me look."),
        ([CALL, TOOL], ""),
        ([{"role": "assistant", "content": ""}], ""),
        ([], ""),
    ],
)
def test_the_answer_of_a_conversation_with_tools_is_the_assistants_last_word(messages, text):
    class Reader(TableJury):
        def cluster_rewards(self, prompts, completions):
            return torch.tensor([TABLE["red"] if c == messages else [0.0, 3.0] for c in completions])

    assert completion_text(messages) == text
    reward = JuryReward(Reader(TABLE, ["warm", "cold"], [0.75, 0.25]))
    seen = [[{"role": "user", "content": "Pick."}]]
    assert (reward.cluster_rewards(seen, [messages], [["red", "blue"]])[0].tolist() == TABLE["red"]) == (text == "red")


async def digits_later(prompts, completions, **columns):
    return [None if c == "?" else float(c.isdigit()) for c in completions]


class DigitsLater:
    async def __call__(self, **columns):
        return await digits_later(**columns)


@pytest.mark.parametrize("function", [digits_later, partial(digits_later, extra=1), DigitsLater()])
def test_the_gate_of_an_async_function_is_awaited(function):
    gate = ValidityGate(function, threshold=0.25)
    for each in (gate, pickle.loads(pickle.dumps(gate))):
        assert isinstance(each, ValidityGate)
        assert is_async_callable(each)
        assert asyncio.run(each(prompts=["Pick."] * 3, completions=["7", "seven", "?"])) == [1.0, 0.0, 1.0]
        assert each.threshold == 0.25
    assert not is_async_callable(pickle.loads(pickle.dumps(ValidityGate(len))))


def test_the_jury_reads_its_own_prompt_and_chat_completions():
    reader = jury()
    chat = [[{"role": "assistant", "content": "red"}], [{"role": "assistant", "content": "no"}]]
    seen = [[{"role": "user", "content": "Pick."}]] * 2
    steered = [[{"role": "system", "content": "As cold."}, *messages] for messages in seen]
    JuryReward(reader)(prompts=steered, completions=chat, jury_prompt=seen, support=[["red", "blue"]] * 2)
    assert {answer for _, answer in reader.asked} == {"red", "no", "blue"}
    assert all(prompt == seen[0] for prompt, _ in reader.asked)
    assert completion_text(chat[0]) == completion_text("red") == "red"


def test_clusters_are_logged():
    metrics, extra = {}, {}
    pay(JuryReward(jury()), ["red", "blue"], log_metric=metrics.__setitem__, log_extra=extra.__setitem__)
    assert (metrics.pop("jury/warm/mean"), metrics.pop("jury/cold/mean")) == (1.0, 1.5)
    assert (metrics.pop("plural/weight/warm"), metrics.pop("plural/weight/cold")) == (0.75, 0.25)
    assert metrics.pop("plural/share/warm") + metrics.pop("plural/share/cold") == pytest.approx(1.0)
    assert metrics == {}
    assert extra == {"jury/warm": [2.0, 0.0], "jury/cold": [0.0, 3.0]}


def test_it_can_be_pickled_with_what_it_learnt():
    reward = JuryReward(jury(), weights={"cold": 1, "warm": 1}, beta=2.0)
    pay(reward, ["red", "blue", "grey"])
    copy = pickle.loads(pickle.dumps(reward))
    assert pay(copy, ["red", "grey"]) == pay(reward, ["red", "grey"])
    assert copy.offsets.state_dict() == reward.offsets.state_dict()


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"rule": "men"}, ValueError, r"rule: got 'men'.*mean, .*may also be 'pool'"),
        ({"beta": 0.0}, ValueError, r"beta: got 0; the temperature must be positive"),
        ({"rho": math.nan}, ValueError, r"rho: got nan"),
        ({"weights": "wram"}, JuryError, r"'wram'.*Did you mean 'warm'\?.*'warm', 'cold'"),
        ({"weights": [0, 0]}, JuryError, r"all zero"),
        ({"weights": {"warm": -1}}, JuryError, r"at least 0"),
    ],
)
def test_refusals(settings, error, message):
    with pytest.raises(error, match=message):
        JuryReward(jury(), **settings)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rloo", "grpo"])
def test_stock_trainers_take_it_as_it_is(kind, tmp_path):
    common = {
        **CPU,
        "logging_steps": 1,
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "num_generations": 2,
        "max_completion_length": 4,
    }
    reader = jury()
    reward = JuryReward(reader, rule="pool" if kind == "rloo" else "mean", beta=1.0)
    if kind == "rloo":
        trainer_class, args = (
            RLOOTrainer,
            RLOOConfig(str(tmp_path / "out"), beta=1.0, normalize_advantages=False, **common),
        )
    else:
        trainer_class, args = GRPOTrainer, GRPOConfig(str(tmp_path / "out"), **common)
    rows = Dataset.from_list(
        [
            {"prompt": f"{w}: pick {n}.", "jury_prompt": f"pick {n}.", "weights": {w: 1.0}, "support": ["red", "blue"]}
            for n in range(2)
            for w in ("warm", "cold")
        ]
    )
    trainer = trainer_class(
        save_tiny(tmp_path / "policy"), reward, args=args, train_dataset=rows, processing_class=tiny_tokenizer()
    )
    trainer.train()
    logged = [row for row in trainer.state.log_history if "jury/warm/mean" in row]
    assert len(logged) == 2
    # The tiny model never says red or blue, and what is outside the support gets the lowest of it less ten.
    assert [row["jury/cold/mean"] for row in logged] == pytest.approx([-10.0, -10.0])
    assert {prompt for prompt, _ in reader.asked} == {"pick 0.", "pick 1."}
    assert len(reward.offsets) == (0 if kind == "grpo" else len(rows))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weigths": "uniform"}, r"weigths: a JuryReward has no such option.*Did you mean 'weights'"),
        ({"tie_margn": 0.2}, r"Did you mean 'tie_margin'"),
        ({"rule": "mean", "power": 2}, r"power"),
    ],
)
def test_an_option_that_is_misspelt_is_named_with_the_one_that_was_meant(options, message):
    with pytest.raises(TypeError, match=message):
        JuryReward(jury(), **options)


def test_a_jury_of_ones_own_may_use_numpy_and_must_have_a_share_for_every_cluster():
    class Own:
        cluster_names, prevalence = ["a", "b"], [0.75, 0.25]

        def cluster_rewards(self, prompts, completions):
            return np.array([[1.0, 0.0]] * len(completions))

    assert JuryReward(Own(), rule="mean")(prompts=["p"], completions=["c"]) == [0.75]
    Own.cluster_rewards = lambda self, prompts, completions: [[0.0, 1.0]] * len(completions)
    assert JuryReward(Own(), rule="mean")(prompts=["p"], completions=["c"]) == [0.25]
    Own.prevalence = [1.0]
    with pytest.raises(JuryError, match=r"prevalence has shape \(1,\), and its clusters are a, b"):
        JuryReward(Own())


def test_a_row_without_a_prompt_for_the_jury_shows_it_the_policys():
    asked = []

    class Own:
        cluster_names, prevalence = ["a"], [1.0]

        def cluster_rewards(self, prompts, completions):
            asked.extend(prompts)
            return torch.zeros(len(prompts), 1)

    JuryReward(Own())(prompts=["p", "q"], completions=["c", "d"], jury_prompt=["P", None])
    assert asked == ["P", "q"]


def test_the_scorer_under_its_old_keyword_is_refused():
    with pytest.raises(TypeError, match=r"JuryReward: `jury=` is now `scorer=`; write JuryReward\(scorer="):
        JuryReward(jury="my-jury")
