"""Communities: who belongs to which, what their adapters imitate, which divisions are refused."""

import numpy as np
import pytest

from plural_rlhf.methods.modular import (
    EVERYBODY,
    Community,
    CommunityPeople,
    answered_texts,
    asked_questions,
    communities_by_cluster,
    communities_by_trait,
)
from reward_models import JudgementError, Judgements, planted_judgements


def with_trait(judgements, values):
    """The table with a trait `party`, dealt to the raters in turn."""
    frame = judgements.frame.copy()
    of_rater = {rater: values[n % len(values)] for n, rater in enumerate(judgements.raters)}
    frame["rater:party"] = frame["rater_id"].map(of_rater)
    return Judgements.from_frame(frame, kind=judgements.kind)


@pytest.fixture(scope="module")
def planted():
    return planted_judgements("choice", num_raters=80, num_items=8, strength=4.0)


def test_shares_are_those_of_raters_and_who_has_no_value_belongs_to_nobody(planted):
    table = with_trait(planted.judgements, ["left", "left", "right", ""])
    left, right = communities_by_trait(table, "party")
    assert (left.name, left.share, len(left.raters)) == ("left", pytest.approx(2 / 3), 40)
    assert (right.name, right.share, len(right.raters)) == ("right", pytest.approx(1 / 3), 20)


def test_sampling_weights_count_in_the_shares(planted):
    table = with_trait(planted.judgements, ["left", "right"])
    frame = table.frame.assign(rater_weight=np.where(table.frame["rater:party"] == "left", 3.0, 1.0))
    shares = [of.share for of in communities_by_trait(Judgements.from_frame(frame, kind="choice"), "party")]
    assert shares == pytest.approx([0.75, 0.25])


def test_clusters_are_those_that_were_planted(planted):
    communities = communities_by_cluster(planted.judgements, 2)
    cluster = dict(zip(planted.judgements.raters, planted.cluster.tolist(), strict=True))
    assert [len({cluster[rater] for rater in community.raters}) for community in communities] == [1, 1]


@pytest.mark.parametrize(
    ("values", "trait", "message"),
    [
        (["left"] * 77 + ["right"] * 3, "party", r"fewer than 20 raters: 'right' \(3\).*Fix: join small groups"),
        (["left", "right"], "partly", "no trait 'partly'.*Did you mean 'party'"),
        (["left"], "party", "one community.*Fix: divide by another trait"),
        (["a+b", "a-b"], "party", "same name in letters and digits.*Fix: rename"),
    ],
)
def test_divisions_that_are_none_are_refused(planted, values, trait, message):
    with pytest.raises(JudgementError, match=message):
        communities_by_trait(with_trait(planted.judgements, values), trait)


def test_what_is_imitated_is_what_was_preferred():
    rows = [
        {"rater_id": "ann", "prompt": "Build?", "response_a": "Parks.", "response_b": "Roads.", "choice": "b"},
        {"rater_id": "ann", "prompt": "Build?", "response_a": "Trams.", "response_b": "Roads.", "choice": "tie"},
        {"rater_id": "bob", "prompt": "Build?", "response_a": "Parks.", "response_b": "Roads.", "choice": "a"},
    ]
    [row] = answered_texts(Judgements.from_dataset(rows), ["ann"])
    assert row["completion"] == [{"role": "assistant", "content": "Roads."}]
    assert row["prompt"] == [{"role": "user", "content": "Build?"}]


def test_choices_are_imitated_in_every_layout_and_order_unless_told_otherwise(planted):
    table = planted.judgements
    rows = answered_texts(table, table.raters)
    completions = [row["completion"] for row in rows]
    asked = [row["prompt"][0]["content"] for row in rows]
    of_layout = {"list": "Answer:", "sentence": "Choose one answer"}
    for mark in of_layout.values():
        assert sum(mark in text for text in asked) == pytest.approx(len(rows) / 3, rel=0.2)
    shown = [text.split("Answer:")[0].split("\n- ")[1] for text in asked if "\n- " in text]
    assert len(set(shown)) == len(table.frame["options"][0])  # each answer comes first somewhere
    plain = answered_texts(table, table.raters, layouts=["line"], shuffled=False)
    assert [row["completion"] for row in plain] == completions
    assert len({row["prompt"][0]["content"] for row in plain}) == table.n_items
    assert asked != [row["prompt"][0]["content"] for row in answered_texts(table, table.raters, seed=1)]


def test_ratings_are_imitated_above_the_mean_of_their_rater():
    table = [("ann", "Parks.", 5), ("ann", "Roads.", 4), ("bob", "Parks.", 2), ("bob", "Roads.", 1)]
    rows = [{"rater_id": r, "prompt": "Build?", "response": text, "rating": level} for r, text, level in table]
    judgements = Judgements.from_dataset(rows)
    imitated = answered_texts(judgements, ["ann", "bob"])
    assert [row["completion"][0]["content"] for row in imitated] == ["Parks.", "Parks."]
    with pytest.raises(JudgementError, match="none preferred a response"):
        answered_texts(judgements.select(judgements.frame["response"] == "Roads."), ["bob"])


def test_distances_are_those_of_the_people_of_a_community(planted):
    table = planted.judgements
    camps = [
        Community(f"camp {k}", 0.5, [r for r, of in zip(table.raters, planted.cluster, strict=True) if of == k])
        for k in (0, 1)
    ]
    people = CommunityPeople.of(table, camps, draws=100)
    enc = table.encode()
    answers = {
        camp.name: [
            np.bincount(enc.label[(enc.item == i) & np.isin(enc.rater, [enc.rater_ids.index(r) for r in camp.raters])],
                        minlength=3) / len(camp.raters)
            for i in range(enc.n_items)
        ]
        for camp in camps
    }  # fmt: skip
    assert [question.item for question in asked_questions(table)] == people.items
    one, other = (answers[camp.name] for camp in camps)
    assert people.divergence("camp 0", one).value <= 0.005  # the people themselves, less the bias of their number
    assert people.gain("camp 0", one, other).high < 0 < people.gain("camp 1", one, other).low
    mixed = [(p + q) / 2 for p, q in zip(one, other, strict=True)]
    assert people.divergence(EVERYBODY, mixed).value <= 0.005
    with pytest.raises(JudgementError, match="nobody of 'ghosts'"):
        CommunityPeople.of(table, [*camps, Community("ghosts", 0.1, ["casper"])])
