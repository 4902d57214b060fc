"""The environments: optimum and distances by a second method, Gymnasium's contract, and what they refuse."""

from __future__ import annotations

import sys
import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.utils.env_checker import check_env
from scipy.spatial.distance import jensenshannon

import plural_rlhf.envs
from plural_rlhf.core.rules import aggregate
from plural_rlhf.envs import JuryBandit, JuryText, JuryVectorEnv, ScalarisedReward
from reward_models.errors import JuryError, MissingExtraError
from reward_models.jury.modeling_jury import JuryRewardModel
from reward_models.jury.scorer import JuryScorer
from tests.juries import ELEVEN, eleven_answers
from tests.tiny import tiny_causal_lm, tiny_tokenizer


IDS = [f"{namespace}{name}-v0" for name in ("JuryBandit", "JuryText") for namespace in ("plural_rlhf/", "")]
REWARDS = [
    np.array([[3.0, 0.0], [1.0, 1.0], [0.0, 4.0]]),
    np.array([[0.5, -2.0], [-1.0, 0.5]]),
]
REFERENCE = [np.log([0.5, 0.3, 0.2]), np.log([0.9, 0.1])]


def ragged(**settings) -> JuryBandit:
    """Two prompts with three and two answers, two clusters of 75 and 25 %."""
    return JuryBandit(REWARDS, [0.75, 0.25], log_pi_ref=REFERENCE, **settings)


# ── the known optimum ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_default_bandit_wants_each_cluster_in_proportion():
    env = JuryBandit()
    optimum = env.optimum()[0]
    e8 = np.exp(8.0)  # low likes 4 of the 11 answers by 8 logits, high likes 3: the rest leaks
    z_four, z_three = 4 * e8 + 7, 3 * e8 + 8
    assert optimum[0] == pytest.approx(0.6 * e8 / z_four + 0.3 / z_four + 0.1 / z_three)
    assert optimum[9] == pytest.approx(0.6 / z_four + 0.3 / z_four + 0.1 * e8 / z_three)
    assert env.shares([optimum])[0] == pytest.approx([0.6, 0.3, 0.1])
    log_pool = np.exp([4.8] * 4 + [2.4] * 4 + [0.8] * 3)  # rho = 0 is the softmax of the weighted mean
    assert env.optimum(rho=0.0)[0] == pytest.approx(log_pool / log_pool.sum())
    alone = env.optimum(weights="high")[0]
    assert alone[[8, 9, 10]] == pytest.approx([e8 / z_three] * 3)
    assert env.optimum(weights={"high": 2}, beta=1e6)[0] == pytest.approx([1 / 11] * 11, abs=1e-5)


@pytest.mark.parametrize("rho", [1.0, 0.0, -2.0])
def test_nothing_beats_the_optimum_and_regret_is_what_is_missed(rho):
    env = ragged(rho=rho, beta=0.7)
    pooled, optimum, mask = env.pool_rewards(), env.optimum(), env.action_mask

    def objective(policy: np.ndarray) -> np.ndarray:
        kl = np.where(policy > 0, policy * (np.log(np.maximum(policy, 1e-300)) - np.where(mask, env.log_pi_ref, 0)), 0)
        return (policy * pooled - 0.7 * kl).sum(-1)

    rng = np.random.default_rng(0)
    for _ in range(20):
        policy = rng.dirichlet(np.ones(3), size=2) * mask
        policy /= policy.sum(-1, keepdims=True)
        missed = objective(optimum) - objective(policy)
        assert (missed > 0).all()
        assert env.regret(policy) == pytest.approx(missed)
    assert env.regret(optimum) == pytest.approx([0, 0], abs=1e-9)
    assert env.regret([[1, 0, 0], [0, 0, 1]])[1] == np.inf  # on no answer of the second prompt


def test_distance_to_the_optimum_counts_what_is_no_answer():
    env = ragged()
    optimum = env.optimum()
    even = np.array([[1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0.0]])
    assert env.jsd(even) == pytest.approx(jensenshannon(optimum, even, axis=1) ** 2)
    assert env.jsd(optimum) == pytest.approx([0, 0], abs=1e-9)
    astray = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert env.jsd(astray)[1] == pytest.approx(np.log(2))
    assert (env.jsd(optimum, weights=[0, 1]) > 0.01).all()


def test_shares_of_the_mixture_are_its_weights_on_any_table():
    rng = np.random.default_rng(1)
    tables = [rng.normal(scale=3, size=(n, 4)) for n in (2, 7, 5)]
    env = JuryBandit(tables, log_pi_ref=[np.log(rng.dirichlet(np.ones(len(t)))) for t in tables], beta=0.5)
    asked = [0.1, 0.2, 0.3, 0.4]
    assert env.shares(env.optimum(asked), asked) == pytest.approx(np.tile(asked, (3, 1)))
    assert env.weights.tolist() == [0.25] * 4  # no prevalence given


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ([[0.2, 0.8]], r"shape \(1, 2\).*\(2, 3\)"),
        ([[0.2, 0.8, 1.0], [1, 0, 0]], "sum to 1 to 2"),
        (np.log([[0.2, 0.3, 0.5], [0.5, 0.4, 0.1]]), "not logits"),
    ],
)
def test_policies_that_are_none_are_refused(policy, message):
    with pytest.raises(JuryError, match=message):
        ragged().jsd(policy)


# ── episodes of the bandit ───────────────────────────────────────────────────────────────────────────────────────────


def test_an_episode_of_the_bandit():
    env = ragged(prompts=["big", "small"], supports=[["x", "y", "z"], ["p", "q"]])
    observation, info = env.reset(seed=0, options={"prompt": "small"})
    assert observation == info["prompt"] == 1
    assert info["action_mask"].tolist() == [1, 1, 0]
    observation, reward, terminated, truncated, info = env.step(1)
    assert (observation, terminated, truncated) == (1, True, False)
    assert reward.dtype == np.float32
    assert reward.tolist() == [-1.0, 0.5]
    assert (info["answer"], info["valid"]) == ("q", True)
    z = [0.9 * np.exp(a) + 0.1 * np.exp(b) for a, b in zip([0.5, -2.0], [-1.0, 0.5], strict=True)]
    assert info["pool_reward"] == pytest.approx(np.log(0.75 * np.exp(-1.0) / z[0] + 0.25 * np.exp(0.5) / z[1]))
    with pytest.raises(ResetNeeded, match="call reset"):
        env.step(1)
    env.reset(options={"prompt": 1})
    with pytest.raises(InvalidAction, match="0 to 2"):
        env.step(3)
    _, reward, _, _, info = env.step(2)
    assert reward.tolist() == [-11.0, -12.0]  # each cluster's lowest reward, less ten
    assert (info["answer"], info["valid"]) == ("", False)
    assert reward in env.reward_space


def test_weights_of_reset_hold_for_one_episode():
    env = JuryBandit()
    pooled = []
    for options in ({}, {"weights": "high"}, {}):
        _, info = env.reset(seed=0, options=options)
        pooled.append((info["weights"].tolist(), env.step(9)[4]["pool_reward"]))
    assert pooled[0][0] == pooled[2][0] == env.weights.tolist()
    assert pooled[0][1] == pytest.approx(pooled[2][1])
    assert pooled[1][0] == [0, 0, 1]
    assert pooled[1][1] == pytest.approx(8 - np.log((3 * np.exp(8) + 8) / 11))
    env.weights = env.parse_weights("high")  # for all episodes from now on
    env.reset()
    assert env.step(9)[4]["pool_reward"] == pytest.approx(pooled[1][1])


def test_the_same_seed_gives_the_same_prompts():
    env = JuryBandit(np.random.default_rng(0).normal(size=(50, 3, 2)))

    def prompts(seed: int) -> list[int]:
        return [int(env.reset(seed=seed)[0]), *(int(env.reset()[0]) for _ in range(9))]

    assert prompts(3) == prompts(3) != prompts(4)


def test_features_are_observed_in_place_of_the_number():
    env = ragged(features=[[0.0, 1.0], [2.0, -1.0]])
    observation, _ = env.reset(options={"prompt": 1})
    assert observation.tolist() == [2.0, -1.0]
    assert env.observation_space.contains(observation)


def test_a_jury_fills_the_table():
    jury = eleven_answers()
    chat = [{"role": "user", "content": "Pick."}]
    env = JuryBandit.from_scorer(jury, ["Pick a number.", chat], [["2", "5", "9"], ["9", "0"]], rho=0.0)
    assert env.cluster_names == ["most", "some", "few"]
    assert env.optimum(rho=1.0)[0] == pytest.approx([0.6, 0.3, 0.1], abs=1e-3)
    env.reset(options={"prompt": chat})
    assert env.step(0)[1].tolist() == [0, 0, 8]
    assert jury.asked[3][0] == chat


def test_a_saved_jury_is_read_from_its_folder(tmp_path):
    tokenizer, rng = tiny_tokenizer(), np.random.default_rng(0)
    heads = rng.normal(size=(2, 32)), rng.normal(size=2)
    model = JuryRewardModel.from_fit(tiny_causal_lm(tokenizer), *heads, [0.7, 0.3], ["a", "b"])
    JuryScorer(model, tokenizer).save_pretrained(tmp_path)
    alone = JuryScorer(model, tokenizer).cluster_rewards(["Good?"] * 2, ["yes", "no"])
    bandit = JuryBandit.from_scorer(str(tmp_path), ["Good?"], [["yes", "no"]])
    text = JuryText(tmp_path, ["Good?"], tokenizer)
    bandit.reset()
    text.reset()
    assert bandit.step(1)[1] == pytest.approx(alone[1].numpy(), abs=1e-5)
    for token in [*tokenizer.encode("no"), tokenizer.eos_token_id]:
        reward = text.step(token)[1]
    assert reward == pytest.approx(alone[1].numpy(), abs=1e-5)
    assert text.weights == pytest.approx([0.7, 0.3])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rewards": []}, "no table"),
        ({"rewards": [[[1.0, 2.0]], [[1.0]]]}, "prompt 1 has shape"),
        ({"rewards": [[[1.0], [np.nan]]]}, "cluster 0 gives nan to answer 1 of prompt 0"),
        ({"rewards": [[[1.0], [0.0]]], "supports": [["a"]]}, r"supports: got \[1\]"),
        ({"rewards": [[[1.0], [0.0]]], "prompts": ["a", "b"]}, "prompts: got"),
        ({"rewards": [[[1.0], [0.0]]], "log_pi_ref": [[0.5, 0.5]]}, "not the probabilities"),
        ({"rewards": [[[1.0], [0.0]]], "cluster_names": ["a", "b"]}, "of 1 clusters"),
        ({"rewards": [[[1.0, 0.0]]], "cluster_names": ["a", "a"]}, "none may repeat"),
        ({"rewards": [[[1.0]]], "features": [[1.0], [2.0]]}, r"features: got shape \(2, 1\)"),
        ({"invalid_reward": 1.0}, "above an answer"),
        ({"weights": "lows"}, "Did you mean 'low'"),
    ],
)
def test_tables_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(JuryError, match=message):
        JuryBandit(**settings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"wieghts": [1, 0, 0]}, "Did you mean 'weights'"),
        ({"prompt": 1}, "from 0 to 0"),
        ({"prompt": "Pick."}, "word for word"),
        ({"weights": [1, 0]}, "3 clusters"),
    ],
)
@pytest.mark.parametrize("make", [JuryBandit, JuryText])
def test_options_that_cannot_be_carried_out_are_refused(make, options, message):
    with pytest.raises(JuryError, match=message):
        make().reset(options=options)


# ── token by token ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_answer_token_by_token():
    jury = eleven_answers()
    env = JuryText(jury, ["Pick 42."], plural_rlhf.envs.text.DigitTokenizer(), max_tokens=3)
    observation, _ = env.reset(seed=0)
    assert observation["prompt"].tolist() == [4, 2]
    assert observation["answer"].tolist() == [11, 11, 11]  # one past the last token
    observation, reward, terminated, truncated, _ = env.step(5)
    assert observation["answer"].tolist() == [5, 11, 11]
    assert (reward.tolist(), terminated, truncated) == ([0, 0, 0], False, False)
    assert not jury.asked
    observation, reward, terminated, truncated, info = env.step(10)
    assert observation["answer"].tolist() == [5, 10, 11]
    assert (reward.tolist(), terminated, truncated, info["text"]) == ([0, 8, 0], True, False, "5")
    assert jury.asked == [("Pick 42.", "5")]
    with pytest.raises(ResetNeeded):
        env.step(5)


def test_an_answer_without_end_is_cut_off_and_judged():
    env = JuryText(max_tokens=2)
    env.reset(seed=0)
    env.step(1)
    _, reward, terminated, truncated, info = env.step(0)
    assert (reward.tolist(), terminated, truncated, info["text"]) == ([0, 0, 8], False, True, "10")
    env.reset()
    assert env.step(10)[1:3] == (pytest.approx([0, 0, 0]), True)  # nothing said, nobody pleased


def test_a_conversation_with_a_tokenizer_of_transformers():
    tokenizer, jury = tiny_tokenizer(), eleven_answers()
    chat = [{"role": "user", "content": "Pick a number."}]
    env = JuryText(jury, [chat], tokenizer, max_tokens=4)
    observation, _ = env.reset(seed=0)
    rendered = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert tokenizer.decode(observation["prompt"].tolist()) == rendered
    for token in tokenizer.encode("9"):
        env.step(token)
    _, reward, terminated, _, info = env.step(tokenizer.eos_token_id)
    assert (reward.tolist(), terminated, info["text"]) == ([0, 0, 8], True, "9")
    assert jury.asked == [(chat, "9")]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"scorer": eleven_answers()}, JuryError, "prompts: got None"),
        ({"scorer": eleven_answers(), "prompts": ["a"]}, JuryError, "tokenizer: got None"),
        ({"prompts": "Pick a number."}, JuryError, "give a list"),
        ({"prompts": ["Pick a number.", ""]}, JuryError, "none of them empty"),
        ({"eos_token_id": 11}, JuryError, "no answer could end"),
        ({"max_tokens": 0}, ValueError, "at least one token"),
        ({"render_mode": "human"}, ValueError, "'ansi'"),
    ],
)
def test_text_environments_that_cannot_be_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        JuryText(**settings)


# ── Gymnasium's contract ─────────────────────────────────────────────────────────────────────────────────────────────


def complaints(env: gymnasium.Env) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(env)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize("env_id", IDS)
def test_the_checker_only_minds_that_the_reward_is_a_vector(env_id):
    (complaint,) = complaints(gymnasium.make(env_id).unwrapped)
    assert "must be a float" in complaint
    (complaint,) = complaints(ScalarisedReward(gymnasium.make(env_id)))  # the reward is now a number
    assert "different from the unwrapped version" in complaint


@pytest.mark.parametrize("env_id", IDS)
def test_rewards_are_vectors_of_the_reward_space(env_id):
    env = gymnasium.make(env_id)
    env.reset(seed=0)
    env.action_space.seed(0)
    over = False
    while not over:
        _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        assert reward in env.unwrapped.reward_space
        over = terminated or truncated


def test_rendering_as_text():
    env = gymnasium.make("plural_rlhf/JuryText-v0", render_mode="ansi")
    env.reset(seed=0)
    env.step(9)
    assert env.render() == "Pick a number from 0 to 10.\n> 9\nlow 60%, middle 30%, high 10%"
    env.step(10)
    assert env.render().splitlines()[1:] == ["> 9", "low 60% +0.00, middle 30% +0.00, high 10% +8.00"]
    bandit = JuryBandit(render_mode="ansi")
    bandit.reset(seed=0)
    bandit.step(0)
    assert bandit.render().splitlines()[1:] == ["> 0", "low 60% +8.00, middle 30% +0.00, high 10% +0.00"]
    assert JuryBandit().render() is None


# ── one number for other libraries ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("rule", "options"),
    [("mean", {}), ("power_mean", {"p": 0.5}), ("soft_minimum", {"temperature": 2.0})],
)
def test_the_scalar_is_the_rule_applied_to_the_vector(rule, options):
    env = ScalarisedReward(ragged(), weights=[1, 3], rule=rule, **options)
    env.reset(options={"prompt": 0})
    _, reward, _, _, info = env.step(2)
    assert info["vector_reward"].tolist() == [0, 4]
    assert info["weights"].tolist() == [0.25, 0.75]
    assert reward == pytest.approx(float(aggregate(torch.tensor([0.0, 4.0]), [1, 3], rule, **options)))
    env.reset(options={"prompt": 0, "weights": [1, 0]})  # the caller's options win
    assert env.step(2)[1] == pytest.approx(0.0)


def test_the_pool_is_the_reward_whose_regularised_optimum_is_known():
    env = ScalarisedReward(ragged(beta=2.0), weights=[1, 3], rule="pool")
    scalars = np.zeros(3)
    for answer in range(3):
        env.reset(options={"prompt": 0})
        scalars[answer] = env.step(answer)[1]
    best = np.exp(REFERENCE[0] + scalars / 2.0)
    assert best / best.sum() == pytest.approx(env.unwrapped.optimum([1, 3])[0])


def test_no_rule_is_applied_before_the_end_of_an_answer():
    env = ScalarisedReward(JuryText(), rule="power_mean", p=1.0, utility="identity", weights="uniform")
    env.reset(seed=0)
    assert env.step(3)[1] == 0.0
    with pytest.raises(ValueError, match="positive"):  # the verdict 8, 0, 0 itself is no table of utilities
        env.step(10)


@pytest.mark.parametrize(
    ("make", "settings", "error", "message"),
    [
        (JuryBandit, {"rule": "pol"}, ValueError, "Did you mean 'pool'"),
        (JuryText, {"rule": "pool"}, ValueError, "partition functions"),
        (JuryBandit, {"rule": "pool", "rho": 0.5}, TypeError, "settings of the JuryBandit"),
        (JuryBandit, {"weights": {"lo": 1}}, JuryError, "Did you mean 'low'"),
        (lambda: gymnasium.make("CartPole-v1"), {}, ValueError, "JuryBandit or a JuryText"),
    ],
)
def test_scalarisations_that_cannot_be_are_refused(make, settings, error, message):
    with pytest.raises(error, match=message):
        ScalarisedReward(make(), **settings)


# ── many at once ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_vector_environments_keep_the_reward_vector():
    envs = gymnasium.make_vec("plural_rlhf/JuryBandit-v0", num_envs=3, weights="uniform")
    _, info = envs.reset(seed=0)
    assert info["weights"].shape == (3, 3)
    for _ in range(2):  # every step is an episode
        _, rewards, terminated, _, info = envs.step(np.array([1, 5, 9]))
        assert rewards.tolist() == [[8, 0, 0], [0, 8, 0], [0, 0, 8]]
        assert terminated.all()
        assert info["final_info"]["answer"].tolist() == ["1", "5", "9"]
    texts = gymnasium.make_vec("JuryText-v0", num_envs=2, max_tokens=2)
    texts.reset(seed=0)
    assert texts.step(np.array([9, 10]))[1].tolist() == [[0, 0, 0], [0, 0, 0]]
    observation, rewards, terminated, _, _ = texts.step(np.array([10, 4]))
    assert rewards.tolist() == [[0, 0, 8], [0, 0, 0]]
    assert terminated.tolist() == [True, False]
    assert observation["answer"].tolist() == [[11, 11], [4, 11]]  # the first is at its next answer


def test_gymnasiums_own_vector_environments_need_the_scalar():
    plain = gymnasium.make_vec("JuryBandit-v0", num_envs=2, vectorization_mode="sync")
    plain.reset(seed=0)
    with pytest.raises(ValueError, match="sequence"):
        plain.step(np.array([1, 9]))
    scalar = gymnasium.make_vec(
        "JuryBandit-v0", num_envs=2, vectorization_mode="sync", wrappers=[lambda env: ScalarisedReward(env, "uniform")]
    )
    scalar.reset(seed=0)
    _, rewards, _, _, info = scalar.step(np.array([1, 9]))
    assert rewards == pytest.approx([8 / 3, 8 / 3])
    assert info["vector_reward"].tolist() == [[8, 0, 0], [0, 0, 8]]


def test_vector_environments_of_ones_own_jury():
    table = JuryBandit.from_scorer(eleven_answers(), ["Pick."], [ELEVEN])
    envs = JuryVectorEnv([lambda: JuryBandit([table.pool_rewards()[0][:, None]])] * 2)  # one cluster
    envs.reset(seed=0)
    assert envs.step(np.array([2, 9]))[1].shape == (2, 1)


# ── what is around them ──────────────────────────────────────────────────────────────────────────────────────────────


def test_without_gymnasium_the_message_says_how_to_install_it(monkeypatch):
    for name in [n for n in sys.modules if n.startswith("plural_rlhf.envs")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(MissingExtraError, match=r'pip install "plural-rlhf\[envs\]"'):
        __import__("plural_rlhf.envs")


@pytest.mark.parametrize("make", [JuryText, JuryBandit.from_scorer])
def test_the_scorer_under_its_old_keyword_is_refused(make):
    with pytest.raises(TypeError, match=r"`jury=` is now `scorer=`"):
        make(jury=eleven_answers())
