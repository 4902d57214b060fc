"""Texts of another language, script or length than a jury's are noticed; texts on another topic are not."""

import dataclasses

import pandas as pd
import pytest

from reward_models import JuryError, Text
from reward_models.judgements.text_kind import TextKind
from tests.paths import SHARED_DATA


POLITE = ("I think that", "We all believe that", "It is clear to me that", "They say that")
ENDS = ("because it is the right thing for all of the people", "and there is no good reason not to do it at all")
TOPICS = ("parks", "roads", "schools", "trams", "trees", "libraries")
GERMAN = [
    "Ich finde, dass die Stadt mehr Parks bauen sollte, weil Kinder einen Platz zum Spielen brauchen.",
    "Die Demonstrationen auf dem Campus sollten erlaubt sein, solange niemand verletzt wird.",
    "Die Regierung muss die Freiheit der Meinung schützen, auch wenn sie unbequem ist.",
]
ENGLISH = [
    "I would not go to the concert, and I told them that it is too loud for me.",
    "The soup was cold, so we asked the waiter for the bill and left because it was late.",
    "There is a cat on the roof, and they say that it has been there all night.",
]


@pytest.fixture(scope="module")
def kind():
    texts = [f"{start} the city should have more {of} {end}." for start in POLITE for of in TOPICS for end in ENDS]
    return TextKind.of([Text("What should the city do about the parks?", text) for text in texts])


@pytest.mark.parametrize(
    ("texts", "word"),
    [
        (GERMAN, "language"),
        (["Я думаю, что городу нужно больше парков."], "cyrillic"),
        (["公園をもっと増やすべきだと思います。"], "hiragana"),
        ([" ".join(ENGLISH * 5)], "characters"),
        (["yes"] * 5, "characters"),
        (["x = [f(3, 7), g(2)] / (4.5 ** 2); y += 17; assert x[0] == {1: 'the city'}[y]"], "letters are"),
    ],
)
def test_responses_of_another_kind_are_noticed(kind, texts, word):
    [sentence] = kind.differences(responses=texts)
    assert word in sentence


def test_another_topic_in_the_same_language_is_not(kind):
    assert kind.differences(ENGLISH, ENGLISH) == []


def test_the_length_of_prompts_does_not_count(kind):
    assert kind.differences(prompts=["Why?", " ".join(ENGLISH * 5)]) == []
    assert "prompts look like another language" in kind.differences(prompts=GERMAN)[0]


def test_a_jury_that_reads_two_languages_accepts_both(kind):
    texts = [
        f"Ich finde, dass die Stadt mehr {of} haben soll {n}, weil es gut ist." for of in TOPICS for n in range(5)
    ]
    both = TextKind.of([Text("What should all of the people of the city do?", text) for text in [*texts, *ENGLISH]])
    assert both.differences(["What is the city to do for the people?"], GERMAN) == []


def test_no_word_of_fewer_than_ten_texts_is_kept(kind):
    texts = [*(Text("Why?", f"the city is what I think of, number {n}, all of it") for n in range(30))]
    rare = [Text("Why?", f"my secret neighbour is called Bartholomew and lives at {n} here") for n in range(9)]
    assert {"secret", "bartholomew", "neighbour"}.isdisjoint(TextKind.of([*texts, *rare]).words)


def test_little_is_said_where_little_is_known():
    labels = TextKind.of([Text("Parks?", "too little"), Text("Parks?", "about right"), Text("Roads?", "too much")])
    assert labels.differences(["Trams?"], ["strongly agree, because of all that was said before"] * 3) == []
    assert TextKind.of([]).differences(GERMAN, GERMAN) == []


def test_values_of_a_damaged_file_are_refused(kind):
    kind.check_values()
    dataclasses.replace(kind, word_share=1.0, scripts={"latin": 1.0}, characters=[0.0, 0.0, 9.0]).check_values()
    for damage, message in (
        ({"word_share": 1.5}, "a share that is none: .*1.5"),
        ({"scripts": {"latin": -0.5}}, "a share that is none: .*-0.5"),
        ({"letters": [0.1, 0.2, 1.5]}, "a share that is none: .*1.5"),
        ({"word_share": "half"}, "a share that is none: .*half"),
        ({"characters": [3.0, 1.0, 2.0]}, r"\[3.0, 1.0, 2.0\] are no quantiles"),
        ({"characters": [3.0, 4.0]}, r"\[3.0, 4.0\] are no quantiles"),
        ({"letters": []}, "quantiles of lengths or of letters, but not both"),
        ({"words": [3]}, "a common word of the fitted texts is no text"),
    ):
        with pytest.raises(JuryError, match=message):
            dataclasses.replace(kind, **damage).check_values()


@pytest.mark.skipif(not SHARED_DATA.exists(), reason="the folder ../shared/data is not there")
@pytest.mark.parametrize("topic", ["campus-protests", "right-to-assemble"])
def test_two_topics_of_one_study_are_one_kind_and_other_releases_are_not(topic):

    def answers(name):
        frame = pd.read_parquet(SHARED_DATA / "polarized" / f"{name}-answers.parquet")
        return [Text(q, t) for q, t in zip(frame.question, frame.text, strict=True) if t.strip()]

    [other] = {"campus-protests", "right-to-assemble"} - {topic}
    fitted, texts = TextKind.of(answers(topic)), answers(other)
    assert fitted.differences([text.prompt for text in texts], [text.response for text in texts]) == []
    statements = pd.read_parquet(SHARED_DATA / "polis" / "statements.parquet")
    taiwan = statements[statements.conversation == "vtaiwan-uberx"].text.dropna().tolist()
    assert "cjk" in fitted.differences(responses=taiwan)[0]
    stories = pd.read_parquet(SHARED_DATA / "noveltybench" / "equivalence.parquet").generation_0.tolist()
    assert "characters" in fitted.differences(responses=stories)[0]
