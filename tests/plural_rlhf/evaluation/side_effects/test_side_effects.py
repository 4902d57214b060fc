"""Side effects of reward maximisation, each on planted data where the answer is known, and where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from plural_rlhf.evaluation.side_effects.monoculture import monoculture
from plural_rlhf.evaluation.side_effects.random_numbers import favourite_number, said_number
from plural_rlhf.evaluation.side_effects.sycophancy import feedback_positivity, jury_sycophancy, stance_shift
from plural_rlhf.evaluation.side_effects.typicality import typicality_bias
from reward_models.stats.answers import js_divergence


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("7", 7),
        (" 10.\n", 10),
        ("It is 3!", 3),
        ("0", None),
        ("11", None),
        ("7.5", None),
        ("-7", None),
        ("1,000", None),
    ],
)
def test_said_number(text, number):
    assert said_number(text) == number


def test_uniform_numbers_lie_at_the_floor_and_a_favourite_far_above():
    rng = np.random.default_rng(0)
    uniform = [
        favourite_number([rng.integers(1, 11, size=40).astype(str).tolist() for _ in range(5)], seed=i)
        for i in range(20)
    ]
    js = np.mean([check.js_to_uniform.value for check in uniform])
    assert js == pytest.approx(uniform[0].js_floor, rel=0.25)
    seven = favourite_number([["7"] * 38 + ["3", "no"] for _ in range(5)])
    assert (seven.favourite, seven.validity.value) == (7, 39 / 40)
    assert seven.mode_share.value == pytest.approx(38 / 39)
    assert seven.js_to_uniform.low > 10 * js


def test_a_number_for_each_wording_is_not_random_either():
    check = favourite_number([[str(number)] * 20 for number in range(1, 11)])
    assert check.js_to_uniform.value == pytest.approx(0, abs=1e-9)
    assert check.between_wordings > 0.5


def test_people_have_a_favourite_too():
    people = np.full(10, 0.08)
    people[6] = 0.28
    check = favourite_number([["7"] * 10], people)
    assert check.js_to_people.value == pytest.approx(float(js_divergence(np.eye(10)[6], people)))
    assert check.js_to_people.value < check.js_to_uniform.value
    with pytest.raises(ValueError, match="none of 2 answers"):
        favourite_number([["no", "seven"]])
    with pytest.raises(ValueError, match=r"shape \(3,\) for 10 numbers"):
        favourite_number([["7"]], people[:3])


def test_typicality_is_told_from_length():
    rng = np.random.default_rng(0)
    words = rng.normal(0, 10, 1500)
    nats = -2.0 * words + rng.normal(0, 4, 1500)  # sums of log-probabilities fall with length
    prompt = np.arange(1500) // 3
    longer = rng.random(1500) < 1 / (1 + np.exp(-0.1 * words))
    alone, controlled = typicality_bias(nats, longer, prompt), typicality_bias(nats, longer, prompt, {"words": words})
    assert alone.ci_high < 0  # people like long answers, and long answers are improbable
    assert controlled.ci_low < 0 < controlled.ci_high
    assert controlled.controls["words"] == pytest.approx(0.1, abs=0.06)
    typical = rng.random(1500) < 1 / (1 + np.exp(-(0.3 * nats + 0.6 * words)))
    assert typicality_bias(nats, typical, prompt, {"words": words}).alpha == pytest.approx(0.3, abs=0.06)


def test_the_order_within_pairs_does_not_matter_and_ties_do_not_count():
    rng = np.random.default_rng(1)
    nats, chosen = rng.normal(size=200), rng.integers(0, 2, 200).astype(float)
    flip = rng.random(200) < 0.5
    one = typicality_bias(nats, chosen, range(200))
    other = typicality_bias(np.where(flip, -nats, nats), np.where(flip, 1 - chosen, chosen), range(200))
    assert other.alpha == pytest.approx(one.alpha)
    tied = typicality_bias([*nats, 5.0, 9.0], [*chosen, np.nan, np.nan], range(202))
    assert (tied.n, tied.alpha) == (200, pytest.approx(one.alpha))


def test_the_interval_of_typicality_covers_pairs_of_one_prompt_that_depend_on_each_other():
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(120):
        prompt = np.repeat(np.arange(60), 6)
        nats = np.repeat(rng.normal(size=60), 6) + rng.normal(0, 0.3, 360)
        own = np.repeat(rng.normal(0, 1.0, size=60), 6)
        chosen = rng.random(360) < 1 / (1 + np.exp(-own))
        bias = typicality_bias(nats, chosen, prompt)
        hits.append(bias.ci_low <= 0 <= bias.ci_high)
    assert np.mean(hits) > 0.88


def test_typicality_refuses_what_cannot_be_fitted():
    with pytest.raises(ValueError, match="no finite solution"):
        typicality_bias(np.linspace(-1, 1, 40), np.linspace(-1, 1, 40) > 0, range(40))
    with pytest.raises(ValueError, match="3 pairs have a choice"):
        typicality_bias([1, 2, 3], [1, 0, 1], range(3))
    with pytest.raises(ValueError, match="lengths"):
        typicality_bias([1, 2, 3], [1, 0], range(3))


class Jury:
    """Likes agreeing answers, and askers who are for it; the first cluster flatters as well."""

    cluster_names, prevalence = ["flattering", "fair"], np.array([0.5, 0.5])

    def __init__(self, flattery):
        self.flattery = flattery

    def cluster_rewards(self, prompts, completions):
        rows = []
        for prompt, completion in zip(prompts, completions, strict=True):
            asker, agrees = "in favour" in prompt, completion == "Yes."
            fair = 3.0 * agrees + 2.0 * asker + 0.01 * len(prompt)
            rows.append([fair + self.flattery * (asker == agrees), fair])
        return torch.tensor(rows)


def test_a_jury_that_likes_answers_and_askers_is_not_sycophantic_unless_it_likes_them_together():
    questions = [f"Should we do {'x' * i}?" for i in range(1, 13)]
    flattering, fair = jury_sycophancy(Jury(0.5), questions, ["Yes."] * 12, ["No."] * 12)
    assert flattering.shift.value == pytest.approx(0.5, abs=1e-5)
    assert flattering.towards.value == 1.0
    assert flattering.p_holm < 0.001
    assert fair.shift.value == pytest.approx(0, abs=1e-5)
    with pytest.raises(ValueError, match="12 questions have 1 agreeing"):
        jury_sycophancy(Jury(0), questions, ["Yes."], ["No."] * 12)


def test_the_sign_test_is_level():
    rng = np.random.default_rng(0)
    false = [stance_shift({"x": (rng.normal(size=30), rng.normal(size=30))})[0].p_value < 0.05 for _ in range(200)]
    assert np.mean(false) <= 0.08
    wide = stance_shift({str(i): (rng.normal(size=30), rng.normal(size=30)) for i in range(20)})
    assert min(s.p_holm for s in wide) > min(s.p_value for s in wide)
    with pytest.raises(ValueError, match="'x' has numbers of shapes"):
        stance_shift({"x": ([1.0], [1.0, 2.0])})


def test_feedback_moves_up_for_who_likes_it_and_down_for_who_does_not():
    feedback = {"neutral": ["aa"] * 8, "likes": ["aaa"] * 6 + ["a"] * 2, "dislikes": ["a"] * 8}
    likes, dislikes = feedback_positivity(feedback, lambda texts: [float(len(text)) for text in texts])
    assert (likes.towards.value, dislikes.towards.value, dislikes.shift.value) == (0.75, 1.0, 1.0)
    with pytest.raises(ValueError, match="no feedback under 'neutral'"):
        feedback_positivity({"likes": ["a"]}, len)


def test_a_policy_that_samples_its_sources_is_no_monoculture_and_a_collapsed_one_is():
    rng = np.random.default_rng(0)
    words = ["parks", "roads", "taxes", "schools", "buses", "trees", "houses", "shops"]
    sources = {f"q{i}": [words[j] for j in rng.integers(8, size=24)] for i in range(12)}
    faithful = {prompt: [words[j] for j in rng.integers(8, size=12)] for prompt in sources}
    collapsed = {prompt: [words[j] for j in rng.integers(2, size=12)] for prompt in sources}
    for ratio in monoculture(faithful, sources):
        assert ratio.k == 12
        assert ratio.ratio.low < 1 < ratio.ratio.high
    for ratio in monoculture(collapsed, sources):
        assert ratio.ratio.high < 0.6
        assert ratio.narrower == 1.0
        assert ratio.p_holm < 0.01
    with pytest.raises(ValueError, match="0 prompts are on both sides"):
        monoculture({"a": ["x", "y"]}, {"b": ["x", "y"]})
