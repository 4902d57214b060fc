"""Releases: each adapter reads a synthetic copy in the release's own schema to the judgement worked out by hand.

The texts are invented; only the names of files and fields are those of the releases.
"""

import json

import pandas as pd
import pytest

from reward_models.errors import JudgementError, JudgementWarning
from reward_models.sources import RELEASES, load_release
from reward_models.sources.releases.reading import read_file
from tests import synthetic_releases as synthetic
from tests.synthetic_releases import SYNTHETIC, assistant, user, write_csv, write_lines


pytestmark = pytest.mark.filterwarnings("ignore::reward_models.errors.JudgementWarning")


@pytest.fixture
def release(tmp_path):
    def load(name, **options):
        folder = tmp_path / name
        if not folder.exists():
            folder.mkdir()
            SYNTHETIC[name](folder)
        return load_release(name, folder, **options)

    return load


def table(judgements, *columns):
    return list(judgements.frame[list(columns)].itertuples(index=False, name=None))


# What holds for all of them.


@pytest.mark.parametrize("name", RELEASES)
def test_every_release_reads_a_copy_in_its_own_schema(name, tmp_path):
    entry = RELEASES[name]
    assert entry.name == name
    assert entry.licence
    assert entry.url.startswith("https://")
    source = SYNTHETIC[name](tmp_path)
    judgements = load_release(name, source)
    assert judgements.kind == entry.kind
    assert judgements.encode().kind == entry.kind
    first = load_release(name, source, limit=2)
    assert 1 <= len(first) <= len(judgements)
    assert table(first, "item_id")[0] == table(judgements, "item_id")[0]
    assert globals()[f"test_{name}"]


@pytest.mark.parametrize("name", [name for name, entry in RELEASES.items() if "kind" in entry.options])
def test_an_unknown_kind_is_refused_with_those_there_are(name, tmp_path):
    with pytest.raises(JudgementError, match=r"kind='soft' is not known\. Fix: one of (choice|rating|preference), "):
        load_release(name, SYNTHETIC[name](tmp_path), kind="soft")


# One by one, against judgements worked out by hand.


def test_prism(release, tmp_path):
    with pytest.warns(
        JudgementWarning, match="prism: 1 of 4 judgements left out: 1 in turns without a question, a cho"
    ):
        j = release("prism")
    # Three responses, the second (in the order shown) was chosen; then two, the second was chosen.
    assert table(j, "response_a", "response_b", "choice") == [
        ("Tea.", "Coffee.", "b"),
        ("Coffee.", "Water.", "a"),
        ("It wakes you up.", "Taste.", "b"),
    ]
    assert j.frame["item_id"].tolist() == ["c1/0/0-1", "c1/0/1-2", "c1/1/0-1"]
    assert j.frame["prompt"][2] == [user("Tea or coffee?"), assistant("Coffee."), user("Why?")]
    assert j.raters == ["u1"]
    about = {"age": "18-24 years old", "gender": "Female", "religion": "No Affiliation", "country": "Chile"}
    assert {trait: j.frame[f"rater:{trait}"][0] for trait in about} == about
    # Scores 40, 81, 1 in five steps of twenty: 21 to 40 is the second, 81 the fifth.
    j = release("prism", kind="rating")
    assert j.levels == (1, 2, 3, 4, 5)
    assert table(j, "item_id", "rating")[:5] == [
        ("c1/0/0", 2),
        ("c1/0/1", 5),
        ("c1/0/2", 1),
        ("c1/1/0", 3),
        ("c1/1/1", 4),
    ]


def test_prism_from_utterances_is_the_same_without_a_survey(release, tmp_path):
    whole = release("prism")
    parts = []
    for conversation in read_file(tmp_path / "prism" / "conversations.jsonl"):
        asked = {m["turn"]: m["content"] for m in conversation["conversation_history"] if m["role"] == "user"}
        for m in conversation["conversation_history"]:
            if m["role"] == "model":
                spoken = {"user_prompt": asked[m["turn"]], "model_response": m["content"]}
                keep = ("turn", "within_turn_id", "score", "if_chosen")
                parts.append(
                    {k: conversation[k] for k in ("conversation_id", "user_id")} | spoken | {k: m[k] for k in keep}
                )
    path = write_lines(tmp_path / "elsewhere" / "utterances.jsonl", *parts)
    j = load_release("prism", path)
    assert not j.traits
    pd.testing.assert_frame_equal(j.frame, whole.frame[j.frame.columns])


def test_dices_350(release):
    with pytest.warns(
        JudgementWarning, match="dices_350: 1 of 4 judgements left out: 1 that are not Yes, No or Unsure"
    ):
        j = release("dices_350")
    assert j.levels == (-1, 0, 1)
    assert table(j, "rater_id", "item_id", "rating") == [("296", "7", 1), ("297", "7", 0), ("298", "7", -1)]
    assert table(j, "rater:gender", "rater:age") == [("Woman", "gen z"), ("Man", "gen x+"), ("Man", None)]
    assert release("dices_350", question="Q3_bias_overall").frame["rating"].tolist() == [1, 1, -1, -1]


def test_dices_990(tmp_path):
    # The repository holds both folders: each release reads its own file.
    synthetic.dices(tmp_path, 350)
    big = synthetic.dices(tmp_path, 990)
    big.write_text(big.read_text().replace("rater_age", "rater_locale").replace("gen z", "India"))
    assert load_release("dices_990", tmp_path).frame["rater:locale"].tolist() == ["India", "gen x+", None]
    assert "rater:age" in load_release("dices_350", tmp_path).traits


def test_helpsteer2(release):
    with pytest.warns(JudgementWarning, match="1 of 5 judgements left out: 1 that find neither response valid"):
        j = release("helpsteer2")
    # The second record holds its annotations as the text of a list.
    assert table(j, "rater_id", "item_id", "choice") == [
        ("0/0", "0", "a"),
        ("0/1", "0", "tie"),
        ("0/2", "0", "b"),
        ("1/0", "1", "a"),
    ]
    j = release("helpsteer2", kind="rating", attribute="correctness")
    assert (j.frame["rating"].tolist(), j.levels) == ([4, 4, 0], (0, 1, 2, 3, 4))
    with pytest.raises(JudgementError, match=r"attribute='help' is not known.*Fix: one of helpfulness, correctness"):
        release("helpsteer2", kind="rating", attribute="help")


def test_helpsteer3(release):
    j = release("helpsteer3")
    assert table(j, "rater_id", "choice") == [("0/0", "a"), ("0/1", "b"), ("0/2", "tie")]
    assert j.frame["prompt"][0] == [user("Hi?"), assistant("Yes?"), user("Say hi.")]


def test_multipref(release):
    j = release("multipref")
    assert table(j, "rater_id", "choice", "rater:pool") == [
        ("e1", "a", "normal"),
        ("e2", "tie", "normal"),
        ("e9", "b", "expert"),
    ]
    assert set(j.items) == {"k1"}
    with pytest.warns(JudgementWarning, match="1 of 3 judgements left out: 1 without a preference"):
        assert release("multipref", aspect="helpful").frame["choice"].tolist() == ["tie", "b"]


def test_chatbot_arena(release):
    with pytest.warns(JudgementWarning, match="1 of 5 judgements left out: 1 on more than one turn"):
        j = release("chatbot_arena")
    assert table(j, "rater_id", "item_id", "choice") == [
        ("j1", "q1", "a"),
        ("j1", "q2", "tie"),
        ("j2", "q3", "b"),
        ("j2", "q5", "tie"),
    ]
    assert j.frame["prompt"][0] == [user("Name a fruit.")]
    assert table(j, "response_a", "response_b")[0] == ("Apple.", "Pear.")


def test_community_alignment(release):
    with pytest.warns(
        JudgementWarning, match="3 of 5 judgements left out: 1 among responses of which two are the same"
    ):
        j = release("community_alignment")
    # Alphabetical: Art, Nap, Run, Sea. 11 chose Sea; 12 saw them the other way round and chose Art: one item.
    assert j.frame["options"][0] == ("Art.", "Nap.", "Run.", "Sea.")
    assert table(j, "rater_id", "choice") == [("11", 3), ("12", 0)]
    assert j.n_items == 1
    assert j.frame["rater:country"].tolist() == ["brazil", "brazil"]
    # As pairs: 11 compares Sea with three others; so does 12 with Art, and 12's second visit repeats the pair Art-Nap.
    j = release("community_alignment", kind="preference")
    assert table(j, "response_a", "response_b", "choice")[:3] == [
        ("Sea.", "Art.", "a"),
        ("Sea.", "Run.", "a"),
        ("Sea.", "Nap.", "a"),
    ]
    assert j.frame["rater_id"].value_counts().to_dict() == {"11": 3, "12": 5}


def test_summarize_from_feedback(release):
    with pytest.warns(
        JudgementWarning, match="1 of 3 judgements left out: 1 by a rater who had judged the item before"
    ):
        j = release("summarize_from_feedback")
    assert table(j, "rater_id", "response_a", "choice") == [("w1", "Cat sleeps.", "a"), ("w2", "Cat.", "a")]
    assert j.n_items == 1  # the same pair, in two orders
    assert j.frame["prompt"][0] == "My cat\n\nMy cat sleeps all day."
    assert release("summarize_from_feedback", split="valid1").raters == ["w2"]


def test_summarize_from_feedback_as_lists_in_one_record(tmp_path):
    # The Hub's conversion stores a sequence of records as a record of sequences.
    path = synthetic.summarize_from_feedback(tmp_path) / "batch3.json"
    records = [json.loads(line) for line in path.read_text().splitlines()][:2]
    for record in records:
        record["summaries"] = {k: [s[k] for s in record["summaries"]] for k in ("text", "policy")}
    other = write_lines(tmp_path / "hub.jsonl", *records)
    pd.testing.assert_frame_equal(
        load_release("summarize_from_feedback", other).frame, load_release("summarize_from_feedback", path).frame
    )


def test_global_opinion_qa(release):
    with pytest.warns(JudgementWarning) as caught:
        j = release("global_opinion_qa")
    message = str(caught[0].message)
    assert message.startswith("global_opinion_qa: 3 of 6 judgements left out: ")
    assert "1 whose shares do not sum to 1" in message
    assert "1 with an empty text" in message
    assert "1 on questions without two different options" in message
    assert table(j, "item_id", "rater:country") == [("q0", "Chile"), ("q0", "Kenya"), ("q2", "Chile")]
    assert j.frame["probs"][0] == (0.25, 0.75)
    assert j.frame["probs"][1] == pytest.approx((50 / 99, 49 / 99))  # rounding is taken out
    assert j.frame["options"][2] == ("1", "2", "DK")


def test_opinion_qa(release):
    with pytest.warns(JudgementWarning, match="1 of 5 judgements left out: 1 refused"):
        j = release("opinion_qa")
    # A question that was not asked (the empty cell) is no judgement, and "None" is an answer.
    assert table(j, "rater_id", "item_id", "choice") == [
        ("100197", "TEA_W26", 2),
        ("100197", "MILK_W26", 0),
        ("100260", "TEA_W26", 0),
        ("100314", "MILK_W26", 1),
    ]
    assert j.frame["options"][0] == ("A lot", "A little", "None")
    assert table(j, "rater:polparty", "rater:sex")[0] == ("Independent", "Male")
    assert "rater_weight" not in j.frame
    assert release("opinion_qa", weights=True).frame["rater_weight"].tolist() == [0.5, 0.5, 2, 1]


def test_popquorn(release, tmp_path):
    with pytest.warns(JudgementWarning, match="1 of 3 judgements left out: 1 without a rating"):
        j = release("popquorn")
    assert table(j, "rater_id", "item_id", "rating") == [("0", "5", 1), ("1", "5", 3)]
    assert j.frame["prompt"][0] == "How offensive is this comment?"
    assert j.traits == [f"rater:{t}" for t in ("gender", "race", "age", "occupation", "education")]
    path = write_csv(tmp_path / "raw_data.csv", ["instance_id", "user_id", "text", "mood"], [1, 2, "Hello.", 3])
    with pytest.raises(
        JudgementError, match=r"no column of .* is one of offensiveness, politeness; it has 'instance_id'"
    ):
        load_release("popquorn", path)


def test_lewidi(release):
    j = release("lewidi")
    assert j.levels == (1, 2, 3)  # level 2 is in the soft labels only
    assert sorted(table(j, "rater_id", "item_id", "rating")) == [
        ("Ann7", "31", 1),
        ("Ann7", "32", 3),
        ("Ann8", "31", 3),
    ]
    assert table(j, "prompt", "response")[0] == ("Steve is late.", "Great timing.")
    people = j.frame.drop_duplicates("rater_id").set_index("rater_id")
    assert people.loc["Ann7", ["rater:gender", "rater:age"]].tolist() == ["Female", "24"]
    assert people.loc["Ann8", ["rater:gender", "rater:age"]].tolist() == [None, "31"]


def test_lewidi_of_2023_and_in_words(tmp_path):
    old = {"text": "Nice hat", "annotation task": "hate speech detection", "annotators": "Ann1,Ann2"}
    path = tmp_path / "HS_dev.json"
    path.write_text(json.dumps({"1": old | {"annotations": "0,1", "soft_label": {"0": 0.5, "1": 0.5}}}))
    j = load_release("lewidi", path)
    assert table(j, "prompt", "response", "rating") == [
        ("hate speech detection", "Nice hat", 0),
        ("hate speech detection", "Nice hat", 1),
    ]
    labels = {label: {"0": 0.5, "1": 0.5} for label in ("contradiction", "entailment", "neutral")}
    answers = {"Ann1": "neutral", "Ann2": "entailment", "Ann3": "entailment,neutral"}
    text = {"context": "It rains.", "statement": "It is wet."}
    words = {"text": text, "annotations": answers, "soft_label": labels}
    (tmp_path / "NLI_dev.json").write_text(json.dumps({"9": words}))
    with pytest.warns(JudgementWarning, match="1 of 3 judgements left out: 1 that are not one of the labels"):
        j = load_release("lewidi", tmp_path / "NLI_dev.json")
    assert (j.kind, j.frame["options"][0]) == ("choice", ("contradiction", "entailment", "neutral"))
    assert table(j, "rater_id", "choice", "prompt") == [
        ("Ann1", 2, "It rains.\nIt is wet."),
        ("Ann2", 1, "It rains.\nIt is wet."),
    ]


def test_ukpconvarg1(release):
    with pytest.warns(JudgementWarning) as caught:
        j = release("ukpconvarg1")
    assert "2 of 4 judgements left out: " in str(caught[0].message)
    assert "1 without an answer" in str(caught[0].message)
    assert "1 by a rater who had judged the item before" in str(caught[0].message)
    assert table(j, "rater_id", "choice") == [("w0001", "b"), ("w0002", "tie")]
    assert table(j, "item_id", "prompt", "response_a")[0] == ("arg1 arg2", "Wear hats?: Yes", "They hold up.")
    assert release("ukpconvarg1", pseudonyms=False).raters == ["A3XX", "A1YY"]


def test_polarized_issues(release):
    with pytest.warns(JudgementWarning, match=r"2 of 5 .*: 1 with an empty text, 1 by a rater who had judged"):
        votes = release("polarized_issues")
    lives = ("rater:where_do_you_live?_-_town", "rater:where_do_you_live?_-_country")
    assert table(votes, "rater_id", "prompt", "response", "rating", "rater:what_is_your_age?", *lives) == [
        ("p1", "What would you change?", "Nothing, it is fine.", 1, "18-29", "no", "yes"),
        ("p1", "What would you change?", "More benches.", -1, "18-29", "no", "yes"),
        ("p9", "What would you change?", "More benches.", 1, None, None, None),
    ]
    assert [column for column in votes.frame if column.startswith("rater:")] == ["rater:what_is_your_age?", *lives]
    with pytest.warns(JudgementWarning, match=r"1 of 3 .*: 1 by people who were not sure"):
        pairs = release("polarized_issues", kind="preference", topic="The square")
    assert table(pairs, "rater_id", "response_a", "response_b", "choice", "rater:what_is_your_age?") == [
        ("p1", "More benches.", "Nothing, it is fine.", "a", "18-29"),
        ("p2", "Less noise.", "More benches.", "tie", None),
    ]
    with pytest.raises(JudgementError, match=r"topic='the square' is not known.*'The square'"):
        release("polarized_issues", topic="the square")


def test_polis(release):
    with pytest.warns(JudgementWarning, match="1 of 4 judgements left out: 1 on statements without a text"):
        j = release("polis")
    assert table(j, "rater_id", "item_id", "rating", "rater:polis_group") == [
        ("town.square/0", "town.square/0", 1, "1"),
        ("town.square/0", "town.square/1", -1, "1"),
        ("town.square/3", "town.square/0", 0, None),
    ]
    assert j.levels == (-1, 0, 1)
    assert table(j, "prompt", "response")[0] == ("The square, and its benches", "More benches.")
    assert release("polis", topic="Benches").frame["prompt"][0] == "Benches"


def test_pandalm(release):
    with pytest.warns(JudgementWarning, match="3 of 6 judgements left out: 3 with an empty text"):
        j = release("pandalm")
    assert table(j, "rater_id", "prompt", "choice") == [
        ("annotator1", "Rewrite.", "a"),
        ("annotator2", "Rewrite.", "tie"),
        ("annotator3", "Rewrite.", "b"),
    ]


def test_value_prism(release):
    with pytest.warns(JudgementWarning, match="1 of 3 judgements left out: 1 without a valence or a text"):
        j = release("value_prism")
    assert j.frame["prompt"].tolist() == [
        "Sharing a sandwich\n\nValue: Kindness",
        "Sharing a sandwich\n\nDuty: To eat",
    ]
    assert j.frame["probs"].tolist() == [pytest.approx((2 / 3, 1 / 3, 0)), (0, 0, 1)]
    assert j.frame["n"].tolist() == [3, 1]


def test_ultrafeedback(release):
    with pytest.warns(JudgementWarning, match="1 of 8 judgements left out: 1 not scored"):
        j = release("ultrafeedback")
    assert j.frame.groupby("rater_id")["rating"].apply(list).to_dict() == {
        "instruction_following": [5, 4],
        "truthfulness": [5, 5],
        "honesty": [4],
        "helpfulness": [3, 5],
    }
    j = release("ultrafeedback", kind="preference")
    assert dict(table(j, "rater_id", "choice")) == {
        "instruction_following": "a",
        "truthfulness": "tie",
        "helpfulness": "b",
    }
