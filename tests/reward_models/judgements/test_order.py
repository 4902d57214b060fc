"""No number depends on the order of rows, of columns or of options."""

import numpy as np
import pandas as pd
import pytest
import torch

from reward_models import fit_jury, fit_mixture, headroom, planted_judgements, predictive_information
from reward_models.errors import JudgementWarning
from reward_models.fitting.em import FitConfig
from reward_models.fitting.joint.choice import choose_joint
from reward_models.fitting.selection import choose_membership, select_num_clusters
from reward_models.judgements.records import Judgements
from reward_models.judgements.splits import adaptation_split, split_four_ways, split_items, split_raters
from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer


def with_traits(kind):
    """Raters with a region, an age that is not always known, and sampling weights."""
    judgements = planted_judgements(kind, num_raters=24, num_items=8, seed=5).judgements
    number = judgements.frame["rater_id"].str[1:].astype(int)
    traits = {
        "rater:region": number.map(lambda n: ("north", "south", "coast")[n % 3]),
        "rater:age": (20.0 + number).where(number % 5 > 0),
        "rater_weight": 0.1 + 0.3 * (number % 4),
    }
    return Judgements.from_frame(judgements.frame.assign(**traits), kind, judgements.levels)


TABLES = {kind: with_traits(kind) for kind in ("preference", "rating", "choice")}


def shuffled(judgements, seed=1):
    """The same table with its rows and columns in another order."""
    rng = np.random.default_rng(seed)
    frame = judgements.frame
    frame = frame.iloc[rng.permutation(len(frame))][list(rng.permutation(frame.columns))]
    return Judgements.from_frame(frame, judgements.kind, judgements.levels)


def rows(judgements):
    return set(zip(judgements.frame["rater_id"], judgements.frame["item_id"], strict=True))


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize(
    "split",
    [
        lambda j: split_raters(j, 0.3, seed=2),
        lambda j: split_items(j, 3, seed=2),
        lambda j: split_items(j, 0.3, seed=2, by="prompt"),
        lambda j: split_four_ways(j, 0.3, 2, seed=2).values(),
        lambda j: adaptation_split(j, 0.4, seed=2),
    ],
)
def test_splits_hold_out_the_same_judgements(kind, split):
    table = TABLES[kind]
    assert list(map(rows, split(table))) == list(map(rows, split(shuffled(table))))
    assert list(map(rows, split(table))) != list(map(rows, reversed(list(split(table)))))


def arrays(enc):
    """What an encoded table holds, as lists."""
    fields = dict(vars(enc))
    fields["design"] = None if enc.design is None else enc.design.weight
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in fields.items()}


@pytest.mark.parametrize("kind", TABLES)
def test_the_integer_view_is_the_same(kind):
    table, other = TABLES[kind], shuffled(TABLES[kind])
    assert arrays(table.encode()) == arrays(other.encode())
    columns = ["rater_id", "item_id"]
    one, two = (j.frame[columns].iloc[j.encoded_rows].to_numpy().tolist() for j in (table, other))
    assert one == two
    assert table.frame["rater_id"].tolist() != other.frame["rater_id"].tolist()


def test_anonymous_judgements_of_one_item_are_ordered_by_what_they_say():
    """Ten pairs by raters who are not known, five of one item; two are shown the other way round."""
    frame = planted_judgements("preference", num_raters=5, num_items=2, seed=3).judgements.frame.copy()
    frame["rater_id"] = "anonymous"
    turned = frame.index < 2
    frame.loc[turned, ["response_a", "response_b"]] = frame.loc[turned, ["response_b", "response_a"]].to_numpy()
    table = Judgements.from_frame(frame)
    for seed in range(5):
        assert arrays(shuffled(table, seed).encode()) == arrays(table.encode())


def test_numbers_in_ids_are_ordered_as_numbers_and_made_ids_by_their_texts():
    enc = shuffled(planted_judgements("choice", num_raters=12, num_items=11).judgements).encode()
    assert enc.rater_ids == [f"r{n}" for n in range(12)]
    assert [enc.texts[row[0]].prompt for row in enc.item_alternatives] == [f"Question {n + 1}?" for n in range(11)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize(
    "measure",
    [
        lambda j: headroom(j, max_clusters=2),
        lambda j: select_num_clusters(j, (1, 2), FitConfig(restarts=1)),
        lambda j: choose_membership(j, [("factor", 1)], FitConfig(restarts=1)),
        lambda j: predictive_information(j, 2, seeds=1, config=FitConfig(restarts=1)),
    ],
    ids=["headroom", "select_num_clusters", "choose_membership", "predictive_information"],
)
def test_what_is_measured_is_the_same_to_the_last_digit(kind, measure):
    one, other = measure(TABLES[kind]), measure(shuffled(TABLES[kind]))
    assert one == other


@pytest.mark.slow
@pytest.mark.parametrize("kind", TABLES)
def test_a_saved_jury_is_the_same_to_the_last_digit(kind):
    """Clusters, prevalence, heads, rewards of each text, memberships of each rater."""
    tokenizer = tiny_tokenizer()
    backbone = tiny_causal_lm(tokenizer)

    def fitted(judgements):
        scorer = fit_jury(judgements, backbone, tokenizer, clusters=2, progress=False)
        fit, texts = scorer.fitted.label_fit, TABLES[kind].encode().texts
        rewards = scorer.cluster_rewards([text.prompt for text in texts], [text.response for text in texts])
        raters = dict(zip(fit.rater_ids, fit.responsibilities.tolist(), strict=True))
        return rewards, raters, scorer.prevalence.tolist(), scorer.cluster_names

    one, other = fitted(TABLES[kind]), fitted(shuffled(TABLES[kind]))
    assert torch.equal(one[0], other[0])
    assert one[1:] == other[1:]


@pytest.mark.slow
def test_a_joint_fit_is_the_same_to_the_last_digit():
    table = TABLES["rating"]
    one, other = (choose_joint(j.encode(), features(j.encode()), [("mixture", 2)]) for j in (table, shuffled(table)))
    assert one.reason == other.reason
    assert one.table == other.table


def features(enc):
    """Two made-up features of each text."""
    return np.array([[len(text.prompt), sum(map(ord, text.prompt + text.response)) % 7] for text in enc.texts], float)


def test_a_fit_is_the_same_in_any_order_of_options():
    table = planted_judgements("choice", num_raters=60, num_items=10, seed=3).judgements
    frame = table.frame.copy()
    frame["choice"] = frame["options"].map(len) - 1 - frame["choice"]
    frame["options"] = [options[::-1] for options in frame["options"]]

    def fitted(judgements):
        enc = judgements.encode()
        fit = fit_mixture(enc, 2)
        rewards = {text: fit.rewards[place] for place, text in enumerate(enc.texts)}
        return np.array([rewards[text] for text in sorted(rewards)]), fit.responsibilities

    for one, other in zip(fitted(table), fitted(Judgements.from_frame(frame, "choice")), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-4)


@pytest.mark.parametrize("named", [True, False])
def test_options_that_are_shuffled_per_respondent_are_one_question(named):
    """The most frequent order stands; the answers mean what they meant, and nothing else changes."""
    rng = np.random.default_rng(0)
    table = planted_judgements("choice", num_raters=60, num_items=10, seed=3).judgements
    frame = table.frame if named else table.frame.drop(columns="item_id")
    offers = [rng.permutation(3) if rng.random() < 0.5 else np.arange(3) for _ in range(len(frame))]
    turned = frame.assign(
        options=[[options[n] for n in offer] for options, offer in zip(frame["options"], offers, strict=True)],
        choice=[list(offer).index(choice) for choice, offer in zip(frame["choice"], offers, strict=True)],
    )
    with pytest.warns(JudgementWarning, match=r"10 questions offer their options in several orders.* renumbered"):
        read = Judgements.from_frame(turned)
    assert read.frame.equals(table.frame)


def test_shares_follow_options_that_are_shuffled():
    rows = [("Tea?", ["yes", "no"], [0.25, 0.75], 8), ("Tea?", ["no", "yes"], [0.5, 0.5], 8)]
    rows += [("Tea?", ["no", "yes"], [0.9, 0.1], 4)]
    with pytest.warns(JudgementWarning, match="1 question offers its options in several orders"):
        read = Judgements.from_frame(pd.DataFrame(rows, columns=["prompt", "options", "probs", "n"]))
    assert read.frame["options"].tolist() == [("no", "yes")] * 3
    assert [list(shares) for shares in read.frame["probs"]] == [[0.75, 0.25], [0.5, 0.5], [0.9, 0.1]]
    assert read.n_items == 1
