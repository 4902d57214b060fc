"""What a judgement table accepts, and how it refuses what it does not."""

import cProfile
import pstats
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest

import reward_models
from reward_models.errors import JudgementError, JudgementWarning, did_you_mean
from reward_models.judgements.records import Judgements


pytestmark = pytest.mark.filterwarnings("ignore:.* have one judgement:reward_models.errors.JudgementWarning")


def survey(**changes):
    """Two raters, two questions; `changes` replace columns."""
    columns = {
        "rater_id": ["ann", "ann", "bob", "bob"],
        "prompt": ["Tea or coffee?", "Cats or dogs?"] * 2,
        "options": [["tea", "coffee"], ["cats", "dogs"]] * 2,
        "choice": [0, 1, 1, 1],
    }
    return pd.DataFrame(columns | changes)


def pairs(**changes):
    columns = {
        "rater_id": ["ann", "ann", "bob", "bob"],
        "prompt": ["Say hello.", "Say bye."] * 2,
        "response_a": ["Hello!", "Bye!"] * 2,
        "response_b": ["Hi.", "See you."] * 2,
        "choice": ["a", "b", "tie", "a"],
    }
    return pd.DataFrame(columns | changes)


def ratings(**changes):
    columns = {
        "rater_id": ["ann", "ann", "bob", "bob"],
        "prompt": ["The city needs"] * 4,
        "response": ["trams", "trees"] * 2,
        "rating": [1, 5, 3, 4],
    }
    return pd.DataFrame(columns | changes)


def soft(**changes):
    columns = {
        "prompt": ["Tea or coffee?", "Cats or dogs?"],
        "options": [["tea", "coffee"], ["cats", "dogs"]],
        "probs": [[0.25, 0.75], [0.5, 0.5]],
        "n": [40, 10],
    }
    return pd.DataFrame(columns | changes)


def refuse(frame, *fragments, **kwargs):
    """The table is refused with a message that holds every fragment, and is left as it was."""
    before = frame.copy(deep=True)
    with pytest.raises(JudgementError, match="Fix:") as caught:
        Judgements.from_frame(frame, **kwargs)
    for fragment in fragments:
        assert fragment in str(caught.value)
    pd.testing.assert_frame_equal(frame, before)
    return str(caught.value)


@pytest.mark.parametrize(
    ("make", "kind"), [(survey, "choice"), (pairs, "preference"), (ratings, "rating"), (soft, "soft")]
)
def test_kind_is_told_from_the_columns_and_survives_a_round_trip(make, kind):
    j = Judgements.from_frame(make())
    assert j.kind == kind
    assert "item_id" in j.frame
    again = Judgements.from_dataset(j.to_dataset())
    assert again.kind == kind
    assert again.levels == j.levels
    pd.testing.assert_frame_equal(again.frame, j.frame, check_dtype=False)


def test_counts_of_a_survey():
    j = Judgements.from_frame(survey())
    assert (len(j), j.n_raters, j.n_items, j.raters) == (4, 2, 2, ["ann", "bob"])
    assert Judgements.from_frame(soft()).raters == []
    assert Judgements.from_frame(ratings()).levels == (1.0, 3.0, 4.0, 5.0)
    assert Judgements.from_frame(ratings(), levels=[1, 2, 3, 4, 5]).levels == (1.0, 2.0, 3.0, 4.0, 5.0)


def test_select_keeps_order_levels_and_makes_a_new_index():
    j = Judgements.from_frame(ratings(), levels=[1, 2, 3, 4, 5])
    part = j.select(j.frame["rater_id"] == "bob")
    assert part.frame["rating"].tolist() == [3, 4]
    assert part.frame.index.tolist() == [0, 1]
    assert part.levels == j.levels
    assert j.select([3, 0]).frame["rating"].tolist() == [4, 1]


def test_item_ids_depend_on_the_texts_only():
    one = Judgements.from_frame(pairs())
    other = Judgements.from_frame(pairs().iloc[::-1])
    assert set(one.items) == set(other.items)
    turned = pairs().rename(columns={"response_a": "response_b", "response_b": "response_a"})
    assert set(Judgements.from_frame(turned).items) == set(one.items)
    assert one.n_items == 2


def test_every_fault_is_named_at_once():
    message = refuse(
        pairs(
            rater_id=["ann", None, "bob", "bob"],
            response_a=["Hello!", "Bye!", " ", "Bye!"],
            choice=["a", "b", "tie", "B"],
        ),
        "3 faults in a table of 4 judgements",
        "row 1, column 'rater_id': nan is empty. Fix: drop the row or fill it in.",
        "row 2, column 'response_a': ' ' is empty text.",
        "row 3, column 'choice': 'B' is not one of 'a', 'b', 'tie'. Did you mean 'b'? Fix: recode it to a, b or tie.",
    )
    assert message.count("\n") == 3


def test_a_kind_of_fault_is_one_line_with_its_rows_and_values():
    many = pd.concat([pairs()] * 500, ignore_index=True)
    many["choice"] = ["c", *"d" * 1_000, *"cefghij", *"k" * 992]
    many["response_b"] = ""
    message = refuse(
        many,
        "4,000 faults in a table of 2,000 judgements",
        "rows 0, 1, 2 and 1,997 more, column 'response_b': '' is empty text. Fix: drop",
        "rows 0, 1, 2 and 1,997 more, column 'choice': 'c' is not one of 'a', 'b', 'tie'. Values: 'd' (1,000 times), "
        "'k' (992 times), 'c' (2 times), 'e', 'f', 'g' and 3 others. Fix: recode it to a, b or tie.",
    )
    assert message.count("\n") == 2


@pytest.mark.parametrize(
    ("frame", "fragment"),
    [
        (
            survey(prompt=["Tea or coffee?", "", "Tea or coffee?", "Cats or dogs?"]),
            "row 1, column 'prompt': '' is empty text",
        ),
        (
            survey(prompt=["Tea or coffee?", 3, "Tea or coffee?", "x"]),
            "row 1, column 'prompt': 3 is neither text nor a conv",
        ),
        (survey(choice=[0, 1, 2, 1]), "row 2, column 'choice': 2 is not an index into the 2 options (0 to 1)"),
        (survey(choice=[0, 1, -1, 1]), "row 2, column 'choice': -1 is not an index"),
        (survey(choice=[0, 1, 0.5, 1]), "row 2, column 'choice': 0.5 is not an index"),
        (survey(choice=[0, 1, np.nan, 1]), "row 2, column 'choice': nan is not an answer"),
        (
            survey(choice=["tea", "dog", "tea", "cats"]),
            "row 1, column 'choice': 'dog' is not one of the options 'cats', 'dogs'. Did you mean 'dogs'?",
        ),
        (survey(options=[["tea"], ["cats", "dogs"]] * 2), "rows 0, 2, column 'options': ['tea'] has 1 option."),
        (
            survey(options=["tea|coffee", ["cats", "dogs"]] * 2),
            "rows 0, 2, column 'options': 'tea|coffee' is not a list",
        ),
        (survey(options=[["tea", "tea"], ["cats", "dogs"]] * 2), "the same option twice"),
        (survey(options=[["tea", ""], ["cats", "dogs"]] * 2), "an empty option"),
        (survey(options=[[1, 2], ["cats", "dogs"]] * 2), "an option that is not text"),
        (survey(rater_weight=[1, 1, -2, -2]), "rows 2, 3, column 'rater_weight': -2 is not a number of at least 0"),
        (survey(rater_weight=[1, 1, np.nan, 1]), "row 2, column 'rater_weight': nan is not a number"),
        (survey(count=[1, 2, 1.5, 0]), "rows 2, 3, column 'count': 1.5 is not a whole number of at least 1"),
        (survey(rater_id=["ann"] * 4, prompt=list("wxyz")), "all judgements are by one rater, 'ann'"),
        (survey(rater_id=["ann", "ann", "ann", "bob"]), "row 2, column 'rater_id': 'ann' judged item"),
        (
            survey(item_id=["q1", "q1", "q2", "q3"]),
            "row 1, column 'item_id': 'q1' stands for another prompt, options or response than in row 0",
        ),
        (pairs(response_b=["Hi.", np.nan, "Hi.", "See you."]), "row 1, column 'response_b': nan is empty text"),
        (pairs(response_b=["Hi.", 7, "Hi.", "See you."]), "row 1, column 'response_b': 7 is not text"),
        (pairs(shown_first=["a", "left", None, "b"]), "row 1, column 'shown_first': 'left' is not 'a' or 'b'"),
        (ratings(rating=[1, 5, np.nan, 4]), "row 2, column 'rating': nan is not a rating"),
        (ratings(rating=[1, 5, np.inf, 4]), "row 2, column 'rating': inf is not a rating"),
        (ratings(rating=[1, 5, "agree", 4]), "row 2, column 'rating': 'agree' is text in a column of numbers"),
        (ratings(rating=[1, 2, 3, 100]), "seems to mix scales: its values are 1, 2, 3, 100"),
        (ratings(rating=[3, 3, 3, 3]), "every rating is 3: there is nothing to learn"),
        (soft(probs=[[0.25, 0.5], [0.5, 0.5]]), "row 0, column 'probs': [0.25, 0.5] sums to 0.75, not 1"),
        (soft(probs=[[1.25, -0.25], [0.5, 0.5]]), "holds a negative or missing share"),
        (soft(probs=[[0.5, 0.25, 0.25], [0.5, 0.5]]), "has 3 shares for 2 options"),
        (soft(probs=[None, [0.5, 0.5]]), "row 0, column 'probs': nan is not a list of numbers"),
        (soft(n=[0, 10]), "row 0, column 'n': 0 is not a positive number"),
    ],
)
def test_faults_name_row_column_and_value(frame, fragment):
    refuse(frame, fragment)


def test_ratings_outside_declared_levels_and_bad_levels():
    refuse(ratings(), "row 1, column 'rating': 5 is outside the levels 1, 2, 3, 4", levels=[1, 2, 3, 4])
    refuse(ratings(), "not at least two increasing numbers", levels=[5, 1])
    refuse(survey(), "levels=(1, 2) is set for a 'choice' table", levels=[1, 2])
    many = pd.concat([ratings(rater_id=[f"r{i}"] * 4, response=[f"s{i}{k}" for k in range(4)]) for i in range(10)])
    refuse(many.assign(rating=np.arange(40)), "holds 40 different values from 0 to 39")


def test_the_kind_must_fit_the_columns():
    refuse(survey().assign(response="x", rating=1), "fit more than one kind of judgement (rating, choice)")
    refuse(pd.DataFrame({"question": ["a"]}), "fit no kind of judgement: 'question'")
    refuse(survey().iloc[:0], "has no rows")
    with pytest.raises(JudgementError, match=r"kind='choices' is not one of .* Did you mean 'choice'\?"):
        Judgements.from_frame(survey(), kind="choices")


def test_missing_and_misspelt_columns():
    message = refuse(
        survey().rename(columns={"rater_id": "raterid", "prompt": "question"}),
        "column 'rater_id' is missing. Is it 'raterid'?",
    )
    assert "column 'prompt' is missing." in message
    refuse(survey().assign(rater_wieght=1.0), "column 'rater_wieght' is unknown. Did you mean 'rater_weight'?")
    with pytest.warns(JudgementWarning, match="columns not used: 'country'.*rename it to 'rater:<name>'"):
        j = Judgements.from_frame(survey().assign(country="NZ"))
    assert "country" not in j.frame


def test_thin_raters_and_items_are_kept_with_a_warning():
    frame = pd.concat([survey(), pd.DataFrame([["cy", "Up or down?", ["up", "down"], 0]], columns=survey().columns)])
    with pytest.warns(JudgementWarning) as caught:
        j = Judgements.from_frame(frame)
    messages = [str(w.message) for w in caught]
    assert any(m.startswith("1 of 3 raters have one judgement ('cy')") for m in messages)
    assert any(m.startswith("1 of 3 items have one judgement") for m in messages)
    assert len(j) == 5


def test_traits_are_text_or_unknown_and_must_not_change():
    traits = {"rater:age": [30.0, 30.0, np.nan, np.nan], "rater:party": ["a", "b", None, None]}
    with pytest.warns(JudgementWarning, match="column 'rater:party': 1 raters have more than one value, e.g. 'ann'"):
        j = Judgements.from_frame(survey().assign(**traits))
    assert j.traits == ["rater:age", "rater:party"]
    assert j.frame["rater:age"].tolist() == ["30", "30", None, None]


def test_ids_that_became_floats_are_read_as_whole_numbers():
    assert Judgements.from_frame(survey(rater_id=[1.0, 1.0, 2.0, 2.0])).raters == ["1", "2"]


def test_shares_that_were_rounded_are_rescaled():
    j = Judgements.from_frame(soft(probs=[[0.33, 0.66], [0.5, 0.5]]))
    assert sum(j.frame["probs"][0]) == pytest.approx(1)
    by_pair = soft().drop(columns="options").assign(response_a=["tea", "cats"], response_b=["coffee", "dogs"])
    assert Judgements.from_frame(by_pair).frame["options"].map(list).tolist() == [["tea", "coffee"], ["cats", "dogs"]]


def test_trl_pairs_with_explicit_prompt():
    rows = [
        {"prompt": "Say hello.", "chosen": "Hello!", "rejected": "Hi."},
        {"prompt": "Bye?", "chosen": "Yes", "rejected": "No"},
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        j = Judgements.from_dataset(rows)
    assert (j.kind, j.raters) == ("preference", ["anonymous"])
    assert j.frame[["prompt", "response_a", "response_b", "choice"]].to_numpy().tolist()[0] == [
        "Say hello.",
        "Hello!",
        "Hi.",
        "a",
    ]


def test_trl_pairs_by_raters_who_disagree_share_the_item():
    rows = [
        {"rater_id": r, "prompt": p, "chosen": c, "rejected": d}
        for r, p, c, d in [
            ("ann", "p", "x", "y"),
            ("ann", "q", "x", "y"),
            ("bob", "p", "y", "x"),
            ("bob", "q", "x", "y"),
        ]
    ]
    j = Judgements.from_dataset(rows)
    assert j.n_items == 2
    assert j.encode().answer_matrix().tolist() == [[0, 0], [1, 0]]


def test_trl_pairs_with_the_prompt_inside():
    text = {"chosen": "Human: Hi\n\nAssistant: Hello there", "rejected": "Human: Hi\n\nAssistant: Help"}
    frame = Judgements.from_dataset([text]).frame
    assert frame[["prompt", "response_a", "response_b"]].to_numpy().tolist() == [
        ["Human: Hi\n\nAssistant: ", "Hello there", "Help"]
    ]
    question = {"role": "user", "content": "Hi"}
    chat = {
        "chosen": [question, {"role": "assistant", "content": "Hello"}],
        "rejected": [question, {"role": "assistant", "content": "Go away"}],
    }
    frame = Judgements.from_dataset([chat]).frame
    assert frame["prompt"][0] == [question]
    assert frame[["response_a", "response_b"]].to_numpy().tolist() == [["Hello", "Go away"]]
    nothing_shared = Judgements.from_dataset([{"chosen": "Yes", "rejected": "No"}]).frame
    assert nothing_shared["prompt"].tolist() == [""]


def test_trl_conversations_must_differ_in_the_last_message_only():
    chat = {
        "chosen": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
        "rejected": [{"role": "user", "content": "Ho"}, {"role": "assistant", "content": "Hello"}],
    }
    with pytest.raises(
        JudgementError, match=r"row 0, column 'chosen': .* are not two answers to one prompt\. Fix: give both"
    ):
        Judgements.from_dataset([chat])


def test_conversational_prompts_need_roles_and_contents():
    good = [{"role": "user", "content": "Tea or coffee?"}]
    j = Judgements.from_frame(survey(prompt=[good, "Cats or dogs?"] * 2))
    assert j.n_items == 2
    refuse(survey(prompt=[[{"role": "user"}], "Cats or dogs?"] * 2), "rows 0, 2, column 'prompt'", "'content'")


def test_the_work_to_validate_and_encode_grows_with_the_table_and_no_faster():
    """Counted in calls of functions, which are the same on every machine: some thirty a judgement at any size."""
    calls = {}
    for n_raters in (300, 3_000):
        n = n_raters * 10
        frame = pd.DataFrame(
            {
                "rater_id": np.repeat(np.arange(n_raters), 10),
                "prompt": [f"Question {i}?" for i in range(10)] * n_raters,
                "options": [("too little", "about right", "too much")] * n,
                "choice": np.random.default_rng(0).integers(0, 3, n),
            }
        )
        with cProfile.Profile() as profile:
            encoded = Judgements.from_frame(frame).encode()
        calls[n_raters] = pstats.Stats(profile).total_calls / n
        assert (encoded.n_raters, encoded.n_items, encoded.n_texts) == (n_raters, 10, 30)
        np.testing.assert_array_equal(encoded.label, frame["choice"])
    assert calls[3_000] < 60
    assert calls[3_000] < 1.1 * calls[300]


def test_did_you_mean_keeps_silent_when_nothing_is_close():
    assert did_you_mean("natspace", ["natspac", "nateduc"]) == " Did you mean 'natspac'?"
    assert did_you_mean("xyz", ["natspac"]) == ""


@pytest.mark.slow
def test_the_package_is_lazy_and_every_public_name_exists():
    code = "import sys, reward_models; assert not {'torch', 'pandas', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert not [name for name in reward_models.__all__ if getattr(reward_models, name) is None]
    with pytest.raises(AttributeError, match=r"no attribute 'Judgement'\. Did you mean 'Judgements'"):
        _ = reward_models.Judgement


def test_ids_that_restart_in_every_sample_are_told_how_to_be_joined():
    rows = [(person, f"q{n}", "x", n, wave) for wave in ("2018", "2022") for person in ("1", "2") for n in (1, 2)]
    frame = pd.DataFrame(rows, columns=["rater_id", "prompt", "response", "rating", "rater:wave"])
    with pytest.raises(JudgementError, match=r"ids restart in every sample.* rater_id: \[sample, id\]"):
        Judgements.from_frame(frame)
