"""The check for leaks by format, against a second implementation: features by hand, weights by automatic gradients."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize

from reward_models.errors import JuryError
from reward_models.evaluation.controls import marginal_log_probs
from reward_models.evaluation.format_leak import (
    FORMAT_FEATURES,
    _fit,
    _ratio,
    _verdict,
    fixed_options,
    format_features,
    format_leak,
)
from reward_models.evaluation.judgement_bootstrap import Bootstrap
from reward_models.judgements.records import Judgements
from reward_models.sources.planted import planted_judgements


pytestmark = pytest.mark.filterwarnings("ignore::reward_models.errors.JudgementWarning")
FEW = Bootstrap(draws=20)
COUNTED = {
    "characters": ("ab c", 4),
    "words": ("ab  c\nd", 3),
    "lines": ("a\nb\n\nc", 3),
    "list items": ("Take:\n- one\n* two\n• three\n 4. four\n5) five\n-none", 5),
    "code and markup": ("`a` # *b* _c_ |d| <e>", 11),
    "brackets": ("[a] {b} (c", 5),
    "quotes": ("\"a\" 'b' “c” «d»", 8),
    "digits": ("In 1999: 3.5", 6),
    "capitals": ("The USA", 4),
}
BEGIN_AND_END = {
    "begins with a bracket": ((" [a", "{a", "(a"), ("a [", "]a", "")),
    "begins with a quote": ((' "a', "'a", "“a", "«a"), ("a “", "”a", "")),
    "begins with a capital": ((" Ab", "A"), ("aB", "1A", "")),
    "ends in a bracket": (("a] ", "a}", "a)"), ("]a", "a[", "")),
    "ends in a full stop": (("a. ", "a!", "a?", "a。"), (".a", "a,", "")),
}


def test_all_features_are_counted_here():
    assert list(FORMAT_FEATURES) == [*COUNTED, *BEGIN_AND_END]


@pytest.mark.parametrize("name", COUNTED)
def test_a_feature_is_the_count_by_hand(name):
    text, count = COUNTED[name]
    column = format_features([text, ""])[:, list(FORMAT_FEATURES).index(name)]
    assert column.tolist() == pytest.approx([math.log1p(count), 0.0])


@pytest.mark.parametrize("name", BEGIN_AND_END)
def test_a_feature_of_an_end_is_there_or_not(name):
    at = list(FORMAT_FEATURES).index(name)
    for texts, found in zip(BEGIN_AND_END[name], (1.0, 0.0), strict=True):
        assert format_features(texts)[:, at].tolist() == [found] * len(texts)


def debate(kind, seed, raters=24):
    """Judgements of texts of many forms; a third of the raters like the shorter ones, and some were asked again."""
    rng = np.random.default_rng(seed)

    def text(i):
        words = " ".join(rng.choice(["river", "stone", "Lamp", "winter", "19", "paper"], size=rng.integers(1, 12)))
        return [words, f"[{words}, {i}]", f'"{words}" {i}.', f"- {words}\n- more {i}"][rng.integers(4)]

    offered = [[text(i) for _ in range(2 if kind == "preference" else 2 + i % 2)] for i in range(14)]
    rows = []
    for rater in range(raters):
        for item in rng.permutation(14)[:8]:
            lengths = np.log([len(option) for option in offered[item]]) - 3.5
            likes = (1 if rater % 3 else -1) * lengths + rng.gumbel(size=len(lengths)) / 4
            who, count = f"r{rater}", float(rng.integers(1, 4))
            if kind == "choice":
                rows.append((who, f"q{item}", offered[item], int(likes.argmax()), count))
            elif kind == "preference":
                choice = "tie" if rng.random() < 0.2 else "ab"[likes.argmax()]
                rows.append((who, f"q{item}", *offered[item], choice, count))
            else:
                rows.append((who, f"q{item}", offered[item][0], int(np.clip(round(likes[0]), -1, 1)), count))
    names = {
        "choice": ["options", "choice"],
        "preference": ["response_a", "response_b", "choice"],
        "rating": ["response", "rating"],
    }[kind]
    frame = pd.DataFrame(rows, columns=["rater_id", "prompt", *names, "count"])
    levels = (-1, 0, 1) if kind == "rating" else None
    enc = Judgements.from_frame(frame, kind=kind, levels=levels).encode()
    likes_long = np.array([int(rater[1:]) % 3 > 0 for rater in enc.rater_ids])
    return enc, np.where(likes_long[:, None], [0.9, 0.1], [0.0, 1.0])  # of some it is known, of others nearly


def designs(kind, train, test):
    """(N, A, F) what the features of each answer add up to, standardised by the texts of `train`; loops."""
    of_train = format_features([text.response for text in train.texts])
    centre, spread = of_train.mean(0), of_train.std(0)
    spread[spread == 0] = 1.0
    found = []
    for enc in (train, test):
        features = (format_features([text.response for text in enc.texts]) - centre) / spread
        rows = []
        for texts in enc.alternatives:
            if kind == "rating":
                rows.append([place * features[texts[0]] for place in (-0.5, 0.0, 0.5)])
            elif kind == "preference":
                rows.append([features[texts[0]], features[texts[1]], (features[texts[0]] + features[texts[1]]) / 2])
            else:
                rows.append([features[i] if i >= 0 else np.zeros(len(centre)) for i in texts])
        found.append(np.array(rows))
    return found


def fitted(start, design, label, mass, membership):
    """(K, F) the weights of largest posterior density, by automatic gradients."""
    start, design, mass, membership = map(torch.tensor, (start, design, mass, membership))
    shape, index = (membership.shape[1], design.shape[2]), torch.arange(len(label))

    def loss(values):
        weight = torch.tensor(values.reshape(shape), requires_grad=True)
        total = (weight**2).sum() / 2
        likelihood = sum(
            membership[:, k] * torch.softmax(start + design @ weight[k], dim=1)[index, label] for k in range(shape[0])
        )
        total = total - (mass * likelihood.log()).sum()
        total.backward()
        return total.item(), weight.grad.numpy().ravel()

    found = minimize(loss, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options={"gtol": 1e-8, "ftol": 1e-14})
    return found.x.reshape(shape)


def predicted(start, design, weight, membership):
    """(N, A) probabilities, averaged over the clusters of the rater."""
    out = np.zeros(start.shape)
    for n, known in enumerate(start):
        for k, w in enumerate(weight):
            odds = np.exp(known + design[n] @ w)
            out[n] += membership[n, k] * odds / odds.sum()
    return out


@pytest.mark.parametrize("kind", ["choice", "preference", "rating"])
def test_numbers_of_a_leak_are_those_of_a_second_implementation(kind):
    (train, of_train), (test, of_test) = debate(kind, 0), debate(kind, 1)
    rng = np.random.default_rng(2)

    def guesses(enc):
        p = rng.dirichlet(np.full(3, 4.0), size=len(enc))
        if kind == "choice":
            p = np.where(enc.alternatives >= 0, p, 0.0)
        with np.errstate(divide="ignore"):
            return np.log(p / p.sum(1, keepdims=True))

    base = guesses(train), guesses(test)
    model = np.logaddexp(base[1], np.log(0.5) + np.log(np.eye(3)[test.label] + 1e-12))
    model -= np.log(np.exp(model).sum(1, keepdims=True))
    leak = format_leak(train, test, base=base, model=model, memberships=(of_train, of_test), bootstrap=FEW)
    marginal = marginal_log_probs(train, train), marginal_log_probs(train, test)
    design, row = designs(kind, train, test), np.arange(len(test))
    scored, weights = {}, {}
    for name, start in (("format", marginal), ("base + format", base)):
        weights[name] = fitted(start[0], design[0], train.label, train.count, of_train[train.rater])
        scored[name] = predicted(start[1], design[1], weights[name], of_test[test.rater])
    scored |= {name: np.exp(p) for name, p in (("marginal", marginal[1]), ("base", base[1]), ("model", model))}
    nll = {name: np.average(-np.log(p[row, test.label]), weights=test.count) for name, p in scored.items()}
    assert list(leak.nll) == ["marginal", "format", "base", "base + format", "model"]
    assert leak.nll == pytest.approx(nll, abs=2e-4)
    gains = nll["marginal"] - nll["format"], nll["base"] - nll["base + format"]
    assert min(gains) > 0.02  # else a share of 0 is compared with one of 0
    assert leak.explained[0] == pytest.approx(gains[0] / (nll["marginal"] - nll["model"]), abs=2e-3)
    assert leak.explained_gain[0] == pytest.approx(gains[1] / (nll["base"] - nll["model"]), abs=2e-3)
    assert leak.explained[1] < leak.explained[0] < leak.explained[2]
    told = test.label < 2 if kind == "preference" else np.ones(len(test), dtype=bool)
    best = scored["format"][:, :2].argmax(1) if kind == "preference" else scored["format"].argmax(1)
    assert leak.accuracy == pytest.approx(np.average((best == test.label)[told], weights=test.count[told]))
    largest = np.abs(weights["format"]).argmax(0)
    signed = weights["format"][largest, np.arange(len(FORMAT_FEATURES))]
    of_name = dict(zip(FORMAT_FEATURES, signed.tolist(), strict=True))
    assert leak.strongest == [(name, pytest.approx(of_name[name], abs=5e-3)) for name, _ in leak.strongest]
    sizes = [abs(value) for _, value in leak.strongest]
    assert sizes == sorted(sizes, reverse=True) == pytest.approx(sorted(np.abs(signed), reverse=True)[:5], abs=5e-3)


def test_answers_that_the_start_rules_out_teach_nothing():
    enc, membership = debate("choice", 0)
    design = designs("choice", enc, enc)[0]
    with np.errstate(divide="ignore"):
        start = np.log((enc.alternatives >= 0) / (enc.alternatives >= 0).sum(1, keepdims=True))
    impossible = np.arange(0, len(enc), 7)
    start[impossible, enc.label[impossible]] = -np.inf
    kept = np.setdiff1d(np.arange(len(enc)), impossible)
    member = membership[enc.rater]
    expected = fitted(start[kept], design[kept], enc.label[kept], enc.count[kept], member[kept])
    np.testing.assert_allclose(_fit(start, design, enc, member), expected, atol=5e-3)


def test_without_memberships_there_is_one_set_of_weights():
    (train, _), (test, _) = debate("choice", 0), debate("choice", 1)
    base = marginal_log_probs(train, train), marginal_log_probs(train, test)
    plain = format_leak(train, test, base=base, model=base[1], bootstrap=FEW)
    ones = np.ones((train.n_raters, 1)), np.ones((test.n_raters, 1))
    assert plain.nll == format_leak(train, test, base=base, model=base[1], memberships=ones, bootstrap=FEW).nll
    # The model is the base and the marginal: there is nothing that format could explain.
    assert np.isnan([*plain.explained, *plain.explained_gain]).all()


def test_tables_of_two_kinds_are_refused():
    (train, _), (test, _) = debate("choice", 0), debate("rating", 1)
    with pytest.raises(JuryError, match=r"train holds 'choice' judgements, test 'rating'\. Fix: use tables of one"):
        format_leak(train, test, base=(np.zeros((1, 1)), np.zeros((1, 1))), model=np.zeros((1, 1)))


def test_a_share_is_of_something_and_not_below_zero():
    assert _ratio(0.1, 0.4) == 0.25
    assert _ratio(-0.1, 0.4) == 0.0
    assert np.isnan(_ratio(0.1, 0.0))
    assert np.isnan(_ratio(0.1, -0.4))


def asked(own, shared):
    """Questions by their number of options of their own and of options that all questions share."""
    rows = []
    for i, (mine, ours) in enumerate(zip(own, shared, strict=True)):
        options = [f"own {i}.{j}" for j in range(mine)] + [f"shared {j}" for j in range(ours)]
        rows.append((f"r{i}", f"q{i}", options, 0))
    frame = pd.DataFrame(rows, columns=["rater_id", "prompt", "options", "choice"])
    return Judgements.from_frame(frame, kind="choice").encode()


def test_options_are_fixed_where_most_questions_have_fewer_than_two_of_their_own():
    half = asked([30, 30, 1, 1], [2, 2, 2, 2])
    assert fixed_options(half, half) is None
    most = asked([30, 30, 1, 1, 1], [2, 2, 2, 2, 2])
    assert fixed_options(most, most).startswith("the options are fixed: 3 of 5 questions have options that")
    two = asked([2, 2, 2], [2, 2, 2])  # two are enough to compare, but 3 contrasts are too few
    assert fixed_options(two, two).startswith(
        "the options are too few: 3 questions have 3 alternatives to their first"
    )
    needed = 2 * len(FORMAT_FEATURES)
    enough = asked([needed, 2], [0, 2])  # needed - 1 and 1 contrasts
    assert fixed_options(enough, enough) is None
    none_of_its_own = asked([needed, 0, 0], [0, 2, 2])  # a question without an option of its own takes nothing away
    assert "2 of 3" in fixed_options(none_of_its_own, none_of_its_own)
    pairs = planted_judgements("preference", num_raters=3, num_items=2).judgements.encode()
    assert fixed_options(pairs, pairs) is None


def test_options_of_both_tables_are_counted():
    """A question in both tables is one; what only the other table's questions offer alike is fixed, too."""
    own, shared = asked([30, 30], [0, 0]), asked([0, 0, 0, 0, 0], [2, 2, 2, 2, 2])
    assert fixed_options(own, own) is None
    for train, test in ((own, shared), (shared, own)):
        assert fixed_options(train, test).startswith("the options are fixed: 3 of 5 questions")


USUAL = {
    "accuracies": (0.6, 0.7),
    "explained": np.array([0.1, 0.05, 0.2]),
    "explained_gain": np.array([0.2, 0.1, 0.3]),
    "gain": np.array([0.1, 0.05, 0.15]),
    "format_gain": np.array([0.1, 0.05, 0.15]),
    "ahead": np.array([-0.02, -0.06, -0.01]),
    "num_clusters": 2,
}


@pytest.mark.parametrize(
    ("change", "begins"),
    [
        ({}, "no leak"),
        ({"explained": (0.75, 0.6, 0.9)}, "leak: length and format alone predict 60%"),
        ({"explained": (0.74, 0.6, 0.9)}, "no leak"),
        ({"explained": (0.9, 0.6, 1.0), "format_gain": (0.1, 0.0, 0.15)}, "undecided"),
        ({"explained_gain": (0.5, 0.4, 0.6)}, "format: preferences for length and format explain 50%"),
        ({"explained_gain": (0.49, 0.4, 0.6)}, "no leak"),
        ({"explained_gain": (0.6, 0.4, 0.8), "gain": (0.1, 0.0, 0.15)}, "no leak"),
        ({"explained_gain": (0.6, 0.4, 0.8), "format_gain": (0.1, 0.0, 0.2)}, "no leak"),
        # One cluster: format is then what all like, and a leak if it is all that the model knows.
        ({"explained_gain": (0.6, 0.4, 0.8), "explained": (0.8, 0.6, 1.0), "num_clusters": 1}, "leak"),
        ({"explained_gain": (0.6, 0.4, 0.8), "explained": (0.8, 0.6, 1.0)}, "format"),
        ({"explained_gain": (0.6, 0.4, 0.8), "num_clusters": 1}, "format"),
        ({"ahead": (0.02, 0.001, 0.04)}, "leak"),
        ({"ahead": (0.02, 0.0, 0.04)}, "no leak"),  # it knows little: what the model lacks is no leak
        ({"ahead": (0.02, 0.001, 0.04), "format_gain": (0.1, 0.0, 0.2)}, "no leak"),
        ({"explained": (np.nan,) * 3}, "leak"),  # format beats the frequencies, and the model does not
        ({"explained": (np.nan,) * 3, "format_gain": (0.1, 0.0, 0.2)}, "no leak"),
        ({"explained": (0.49, 0.1, 0.9), "accuracies": (0.8, 0.7)}, "no leak"),
        ({"explained": (0.5, 0.1, 0.9), "accuracies": (0.8, 0.7)}, "undecided"),
        ({"explained": (0.5, 0.1, 0.9), "accuracies": (0.7, 0.7)}, "no leak"),
        ({"explained": (0.5, 0.1, 0.9), "ahead": (0.01, -0.1, 0.2)}, "undecided"),
        ({"explained": (0.5, 0.1, 0.9), "ahead": (0.0, -0.1, 0.2)}, "no leak"),
        ({"explained": (0.75, 0.1, 1.9), "format_gain": (0.1, -0.1, 0.2)}, "undecided"),
        ({"explained": (0.74, 0.1, 1.9), "format_gain": (0.1, -0.1, 0.2)}, "no leak"),
    ],
)
def test_where_each_verdict_begins(change, begins):
    leaks, said = _verdict(
        **{**USUAL, **{key: np.array(value) if key != "num_clusters" else value for key, value in change.items()}}
    )
    assert said.split(":")[0].split(" whether")[0] == begins.split(":")[0]
    assert said.startswith(begins) or begins == "undecided"
    assert leaks == begins.startswith(("leak", "format"))
