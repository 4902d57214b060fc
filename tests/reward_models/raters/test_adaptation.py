"""Placing new raters and choosing their next question: `reward_models.raters.adaptation` and `JuryScorer`."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import entr, expit, logit

from reward_models.errors import JuryError
from reward_models.judgements.records import Judgements
from reward_models.jury.modeling_jury import JuryRewardModel
from reward_models.jury.scorer import JuryScorer
from reward_models.jury.state import JuryState, StoredRaters
from reward_models.raters.adaptation import adapt, rank_questions
from reward_models.raters.rater_model import KindTerms, RaterModel
from reward_models.raters.state_grid import simplex_lattice
from tests.tiny import tiny_causal_lm, tiny_tokenizer


NAMES = ["city", "country"]
PRIOR = np.array([0.7, 0.3])
pytestmark = pytest.mark.filterwarnings("ignore::reward_models.errors.JudgementWarning")


def mixture(terms):
    return RaterModel("mixture", np.eye(2), np.log(PRIOR), terms)


def pair_table(answers, rater="ann"):
    """Judgements of pairs: {(a, b): choice}."""
    rows = [(rater, "q", a, b, choice) for (a, b), choice in answers.items()]
    return Judgements.from_frame(
        pd.DataFrame(rows, columns=["rater_id", "prompt", "response_a", "response_b", "choice"])
    )


def rating_table(answers, rater="ann"):
    rows = [(rater, "q", text, level) for text, level in answers.items()]
    frame = pd.DataFrame(rows, columns=["rater_id", "prompt", "response", "rating"])
    return Judgements.from_frame(frame, levels=(-1, 0, 1))


def lookup(table):
    """A function from texts to basis rewards, read from a table of responses."""
    return lambda texts: np.array([table[text.response] for text in texts], dtype=np.float64)


# City prefers x to y four times in five, country three times in ten; z is like y for both.
REWARDS = {"x": [logit(0.8), logit(0.3)], "y": [0.0, 0.0], "z": [0.0, 0.0]}
PAIRS = mixture({"preference": KindTerms()})


def adaptation_of(model, judgements, table):
    enc = judgements.encode()
    return adapt(model, [enc], [lookup(table)(enc.texts)], NAMES)


def test_one_answer_by_hand():
    adaptation = adaptation_of(PAIRS, pair_table({("x", "y"): "a", ("y", "z"): "b"}), REWARDS)
    city = 0.7 * 0.8 / (0.7 * 0.8 + 0.3 * 0.3)  # the second pair is even for both, and says nothing
    np.testing.assert_allclose(adaptation.memberships, [[city, 1 - city]])
    assert adaptation.rater_ids == ["ann"]
    np.testing.assert_allclose(adaptation.weights("ann"), [city, 1 - city])
    np.testing.assert_allclose(adaptation.weights("nobody"), PRIOR)
    assert adaptation.summary() == "ann: city 0.86, country 0.14 (judgements: 2)"
    assert (adaptation.low.tolist(), adaptation.high.tolist()) == ([[0, 0]], [[1, 1]])


def test_leniency_is_not_taken_for_taste():
    # Country is what a lenient rater of the city looks like, if leniency is not in the model.
    thresholds = {"thresholds": np.array([-1.0, 1.0])}
    table = {f"t{i}": [0.0, 1.0] for i in range(12)} | {"apart": [1.5, -1.5]}
    lenient = rating_table({f"t{i}": 1 for i in range(12)})
    without = adaptation_of(mixture({"rating": KindTerms(thresholds)}), lenient, table)
    within = adaptation_of(mixture({"rating": KindTerms(thresholds, {"intercept": 1.5})}), lenient, table)
    assert without.memberships[0, 1] > 0.99
    assert within.memberships[0, 1] < 0.7
    assert within.terms["intercept"][0] > 1.0
    assert without.terms == {}


def test_many_raters_in_one_line():
    every = pd.concat(
        [
            pair_table({("x", "y"): "a", ("x", "z"): "a", ("y", "z"): "a"}, rater).frame.assign(item_id=list("uvw"))
            for rater in ("ann", "bob")
        ]
    )
    sharp = {"x": [9.0, -9.0], "y": [0.0, 0.0], "z": [0.0, 0.0]}
    adaptation = adaptation_of(PAIRS, Judgements.from_frame(every), sharp)
    assert adaptation.summary() == "2 raters: city 2, country 0, not settled 0"
    assert adaptation.num_judgements.tolist() == [3, 3]
    assert (adaptation.low[0].tolist(), adaptation.high[0].tolist()) == ([1, 0], [1, 0])


def test_a_factor_jury_gives_no_weights():
    codes = np.array([[1.0, -1.0], [1.0, 0.0], [1.0, 1.0]])
    model = RaterModel("factor", codes, np.log([0.25, 0.5, 0.25]), {"preference": KindTerms()})
    adaptation = adaptation_of(model, pair_table({("x", "y"): "a"}), {"x": [0.0, 1.0], "y": [0.0, 0.0]})
    p = expit(codes[:, 1]) * [0.25, 0.5, 0.25]
    np.testing.assert_allclose(adaptation.memberships[0], [1.0, p @ codes[:, 1] / p.sum()])
    with pytest.raises(JuryError, match=r"tastes of a rater may be negative.*cluster_rewards @ memberships"):
        adaptation.weights("ann")


def test_a_blend_has_an_interval_that_narrows():
    codes = simplex_lattice(2, 10)
    model = RaterModel("simplex", codes, np.full(11, -np.log(11)), {"preference": KindTerms()})
    answers = {(f"x{i}", f"y{i}"): "a" if i % 2 else "b" for i in range(60)}
    table = {f"x{i}": [2.0, -2.0] for i in range(60)} | {f"y{i}": [0.0, 0.0] for i in range(60)}
    few = adaptation_of(model, pair_table(dict(list(answers.items())[:4])), table)
    many = adaptation_of(model, pair_table(answers), table)
    for adaptation in (few, many):
        assert (adaptation.low <= adaptation.memberships).all()
        assert (adaptation.memberships <= adaptation.high).all()
    assert (many.high - many.low).max() < 0.6 * (few.high - few.low).min()
    np.testing.assert_allclose(many.weights("ann"), [0.5, 0.5], atol=0.02)
    assert "city 0.50" in many.summary()


def test_information_of_a_pair_by_hand():
    prior = np.exp(PAIRS.log_prior)
    pool = [("q", ("y", "z")), ("q", ("x", "y"))]
    first, second = rank_questions(PAIRS, prior, pool, "preference", lookup(REWARDS))
    p = 0.7 * 0.8 + 0.3 * 0.3
    h = lambda p: entr(p) + entr(1 - p)  # noqa: E731
    assert first.information == pytest.approx(h(p) - 0.7 * h(0.8) - 0.3 * h(0.3))
    assert (first.prompt, first.responses, first.index) == ("q", ("x", "y"), 1)
    assert second.information == pytest.approx(0, abs=1e-12)


THREE = {"thresholds": np.array([-0.8, 0.6])}
RATINGS = mixture({"rating": KindTerms(THREE, {"intercept": 1.2, "log_scale": 0.3})})
TEXTS = {"s": [2.0, -1.0], "t": [0.5, 0.4], "u": [-1.0, 1.0], "v": [3.0, 3.0]}


def test_information_is_the_expected_fall_of_the_entropy_of_the_code():
    labels = {"s": 1, "v": 0}
    placement = adaptation_of(RATINGS, rating_table(labels), TEXTS).placement
    ranked = rank_questions(RATINGS, placement.posterior[0], [("q", "t"), ("q", "u")], "rating", lookup(TEXTS))
    entropy = entr(placement.code_posterior()[0]).sum()
    for question in ranked:
        [text] = question.responses
        ask = rating_table({text: 0}).encode()
        p = np.exp(placement.log_probs(ask, lookup(TEXTS)(ask.texts)))[0]
        after = [
            entr(adaptation_of(RATINGS, rating_table({**labels, text: level}), TEXTS).placement.code_posterior()).sum()
            for level in (-1, 0, 1)
        ]
        assert question.information == pytest.approx(entropy - p @ after, rel=1e-9)
    assert [q.responses for q in ranked] == [("u",), ("t",)]


def test_a_question_that_only_tells_how_lenient_somebody_is_tells_nothing():
    ranked = rank_questions(RATINGS, np.exp(RATINGS.log_prior), [("q", "v"), ("q", "s")], "rating", lookup(TEXTS))
    assert [q.responses for q in ranked] == [("s",), ("v",)]
    assert ranked[1].information == pytest.approx(0, abs=1e-12)
    assert ranked[0].information > 0.05


def test_options_of_unequal_number_and_ties():
    choices = mixture({"choice": KindTerms()})
    pool = [("q", ["x", "y", "z"]), ("q", ["x", "y"])]
    three, two = sorted(
        rank_questions(choices, np.exp(choices.log_prior), pool, "choice", lookup(REWARDS)), key=lambda q: q.index
    )
    p = np.array([[4, 1, 1], [3 / 7, 1, 1]])
    p /= p.sum(1, keepdims=True)
    assert three.information == pytest.approx(entr(PRIOR @ p).sum() - PRIOR @ entr(p).sum(1))
    p = np.array([[0.8, 0.2], [0.3, 0.7]])
    assert two.information == pytest.approx(entr(PRIOR @ p).sum() - PRIOR @ entr(p).sum(1))
    ties = mixture({"preference": KindTerms({"log_tie_mean": np.zeros(1)})})
    [pair] = rank_questions(ties, np.exp(ties.log_prior), [("q", ("x", "y"))], "preference", lookup(REWARDS))
    p = np.array([[4, 1, 2], [3 / 7, 1, np.sqrt(3 / 7)]])
    p /= p.sum(1, keepdims=True)
    assert pair.information == pytest.approx(entr(PRIOR @ p).sum() - PRIOR @ entr(p).sum(1))


@pytest.mark.parametrize(
    ("pool", "kind", "message"),
    [
        ([], "preference", "pool is empty"),
        ([("q", ("x", "y")), ("q", "x")], "preference", "entry 1 of the pool has 1 responses: .* has two responses"),
        ([("q", ("x", "y"))], "rating", "kind='rating', but the jury was fitted to 'preference' judgements"),
    ],
)
def test_questions_that_cannot_be_asked_are_refused(pool, kind, message):
    with pytest.raises(JuryError, match=message):
        rank_questions(PAIRS, np.exp(PAIRS.log_prior), pool, kind, lookup(REWARDS))


@pytest.fixture(scope="module")
def scorer():
    tokenizer = tiny_tokenizer()
    model = JuryRewardModel.from_fit(
        tiny_causal_lm(tokenizer), 3 * np.random.default_rng(0).normal(size=(2, 32)), np.zeros(2), PRIOR, NAMES
    )
    terms = {"preference": KindTerms({"log_tie_mean": np.zeros(1)}, {"log_scale": 0.3, "log_tie": 1.0})}
    return JuryScorer(model, tokenizer, state=JuryState(rater_model=mixture(terms)))


def twenty(scorer, k, seed=0):
    """Twenty pairs answered by a rater of cluster k."""
    rng = np.random.default_rng(seed)
    texts = [f" {word}" * n for word in ("yes", "no", "good", "city") for n in range(1, 11)]
    pairs = list(zip(texts[::2], texts[1::2], strict=True))
    answers = {}
    for a, b in pairs:
        r = scorer.cluster_rewards(["q", "q"], [a, b])[:, k]
        answers[a, b] = "a" if rng.random() < expit(float(r[0] - r[1])) else "b"
    return pair_table(answers)


def test_a_scorer_places_raters_and_asks_the_best_question(scorer):
    for k in (0, 1):
        adaptation = scorer.adapt(twenty(scorer, k))
        assert adaptation.memberships[0, k] > 0.95
        assert adaptation.cluster_names == NAMES
        assert set(adaptation.terms) == {"log_scale", "log_tie"}
    pool = [("q", (" bad", " the best")), ("q", (" yes", " yes yes")), ("q", (" too much", " about right"))]
    ranked = scorer.next_question(pool)
    assert sorted(q.index for q in ranked) == [0, 1, 2]
    assert np.all(np.diff([q.information for q in ranked]) <= 0)
    given = twenty(scorer, 1)
    later = scorer.next_question(pool, given)
    assert sorted(q.index for q in later) == [0, 2]  # the pair with index 1 was answered
    assert max(q.information for q in later) < max(q.information for q in ranked)
    # The order of the pool does not matter.
    turned = scorer.next_question(pool[::-1])
    assert [q.responses for q in turned] == [q.responses for q in ranked]


def test_adapting_scores_each_text_once_and_computes_no_gradient(scorer):
    """Two raters of the same twenty pairs cost as much of the language model as one."""
    one = twenty(scorer, 0)
    both = Judgements.from_frame(pd.concat([one.frame, one.frame.assign(rater_id="bob")], ignore_index=True))
    scored = []

    def count(module, arguments, keywords):
        scored.append((len(keywords["input_ids"]), torch.is_grad_enabled()))

    fresh = JuryScorer(scorer.model, scorer.tokenizer, state=scorer.state)  # without rewards from before
    hook = scorer.model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        fresh.adapt(both)
        fresh.adapt(one)  # its texts are known
    finally:
        hook.remove()
    assert sum(rows for rows, _ in scored) == 40
    assert not any(gradient for _, gradient in scored)


def test_temperature_tempers_what_labels_say(scorer):
    labels = twenty(scorer, 1)
    cool = JuryScorer(
        scorer.model,
        scorer.tokenizer,
        state=JuryState(rater_model=scorer.state.rater_model, temperature=np.array([1e6, 1e6])),
    )
    np.testing.assert_allclose(cool.adapt(labels).memberships[0], PRIOR, atol=1e-5)
    assert np.abs(scorer.adapt(labels).memberships[0] - PRIOR).max() > 0.01


def test_raters_are_remembered_only_if_that_was_asked_for(scorer, tmp_path):
    adaptation = scorer.adapt(twenty(scorer, 1))
    state = JuryState(rater_model=scorer.state.rater_model, raters=StoredRaters.of(adaptation.placement))
    full = JuryScorer(scorer.model, scorer.tokenizer, state=state)
    full.save_pretrained(tmp_path, save_raters=True)
    assert b"ann" not in (tmp_path / "raters.safetensors").read_bytes()
    assert '"ann"' not in (tmp_path / "jury.json").read_text()
    known = JuryScorer.from_pretrained(tmp_path).remembered(["ann", "new"])
    np.testing.assert_allclose(known.memberships, [adaptation.memberships[0], PRIOR], atol=1e-6)
    assert known.summary() == "2 raters: city 0, country 1, not settled 1"
    # Saved without asking, nothing of them remains, not even in the folder that had them.
    JuryScorer.from_pretrained(tmp_path).save_pretrained(tmp_path)
    assert not (tmp_path / "raters.safetensors").exists()
    with pytest.raises(JuryError, match=r"was saved without its raters. Save it with save_raters=True"):
        JuryScorer.from_pretrained(tmp_path).remembered(["ann"])


def test_what_cannot_be_done_is_refused_with_the_reason(scorer):
    bare = JuryScorer(scorer.model, scorer.tokenizer)
    with pytest.raises(JuryError, match=r"has no rater model: .*JuryState\(rater_model=fit.model\)"):
        bare.adapt(pair_table({(" yes", " no"): "a"}))
    both = pd.concat([pair_table({("x", "y"): "a", ("x", "z"): "a"}, rater).frame for rater in ("ann", "bob")])
    with pytest.raises(JuryError, match=r"the judgements are of 2 raters.*Select the judgements of one"):
        scorer.next_question([("q", ("x", "y"))], Judgements.from_frame(both))
