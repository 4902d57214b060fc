"""TRL's pairs as people have them: a prompt that the responses repeat, and text mixed with messages."""

from __future__ import annotations

import re

import numpy as np
import pytest
from datasets import Dataset

from reward_models import JudgementError, Judgements, JudgementWarning
from reward_models.judgements.trl_pairs import Pair, cut_repeated_prompts
from tests.jury_training import TOKENIZER, make_trainer


QUESTION = {"role": "user", "content": "Should the city build parks?"}
TEXT = QUESTION["content"]


def says(text):
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize("prompt", [TEXT, f"{TEXT} ", [QUESTION], None])
def test_messages_that_repeat_the_prompt_are_cut(prompt):
    row = {"prompt": prompt, "chosen": [QUESTION, says("Yes.")], "rejected": [QUESTION, says("No.")]}
    frame = Judgements.from_dataset([row]).frame
    assert list(frame["prompt"][0]) == [QUESTION]
    assert frame[["response_a", "response_b"]].to_numpy().tolist() == [["Yes.", "No."]]


def test_a_system_message_before_the_question_stays():
    before = [{"role": "system", "content": "Be brief."}, QUESTION]
    row = {"prompt": TEXT, "chosen": [*before, says("Yes.")], "rejected": [*before, says("No.")]}
    assert list(Judgements.from_dataset([row]).frame["prompt"][0]) == before


def test_a_text_response_to_a_conversation_is_the_assistants_message():
    assert cut_repeated_prompts([Pair([QUESTION], "Yes.", "No.")]) == [Pair([QUESTION], [says("Yes.")], [says("No.")])]
    frame = Judgements.from_dataset([{"prompt": [QUESTION], "chosen": "Yes.", "rejected": "No."}]).frame
    assert frame[["response_a", "response_b"]].to_numpy().tolist() == [["Yes.", "No."]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            (TEXT, [says("Yes.")], [says("No.")]),
            r"column 'prompt': 'Should .*' is text, but chosen and rejected are messages",
        ),
        (
            (TEXT, [says("Hm"), says("Yes.")], [says("Hm"), says("No.")]),
            r"is text, but chosen and rejected are messages",
        ),
        (([QUESTION], "Yes.", [says("No.")]), r"column 'chosen': .* mix text and messages. Fix: give both as text"),
        ((None, "Yes.", [says("No.")]), r"column 'chosen': .* mix text and messages. Fix: give both as text"),
        (([QUESTION], [QUESTION, says("Yes.")], [says("No.")]), r"begin with other messages than the prompt"),
        (
            ([{**QUESTION, "content": "Hi"}], [QUESTION, says("a")], [QUESTION, says("b")]),
            r"other messages than the prompt",
        ),
    ],
)
def test_a_mix_of_text_and_messages_is_named(row, message):
    with pytest.raises(JudgementError, match=message):
        Judgements.from_dataset([dict(zip(("prompt", "chosen", "rejected"), row, strict=True))])


def test_text_that_repeats_the_prompt_in_every_row_is_cut():
    rows = [{"prompt": f"{TEXT} {n}", "chosen": f"{TEXT} {n} Yes.", "rejected": f"{TEXT} {n} No."} for n in range(3)]
    with pytest.warns(JudgementWarning, match=r"repeat the prompt in all 3 rows; it is cut"):
        frame = Judgements.from_dataset(rows).frame
    assert frame["prompt"].tolist() == [f"{TEXT} {n}" for n in range(3)]
    assert frame[["response_a", "response_b"]].to_numpy().tolist() == [[" Yes.", " No."]] * 3


def test_short_prompts_are_cut_where_many_rows_repeat_them():
    pairs = [Pair(f"{n}+2=", f"{n}+2={n + 2}", f"{n}+2={n}") for n in range(12)]
    with pytest.warns(JudgementWarning, match="all 12 rows"):
        assert cut_repeated_prompts(pairs)[3] == Pair("3+2=", "5", "3")


@pytest.mark.filterwarnings("error:.*repeat the prompt")
def test_answers_that_begin_like_a_short_prompt_are_left_as_they_are():
    pairs = [Pair("Hi", "Hi there", "Hi you"), Pair("Bye", "See you", "Go")]
    assert cut_repeated_prompts(pairs) == pairs
    assert cut_repeated_prompts(pairs[:1]) == pairs[:1]


def test_text_that_repeats_the_prompt_in_some_rows_is_refused():
    pairs = [Pair(TEXT, f"{TEXT} Yes.", f"{TEXT} No."), Pair(TEXT, "Yes.", "No.")]
    with pytest.raises(JudgementError, match=r"row 0, column 'prompt': .* is repeated at the beginning.*cut it from"):
        cut_repeated_prompts(pairs)


def test_a_repeated_prompt_is_no_part_of_what_a_jury_is_trained_on(tmp_path):
    bare = [{"prompt": f"{TEXT} {n}: ", "chosen": f"good {n}", "rejected": "bad"} for n in range(4)]
    repeated = [row | {side: row["prompt"] + row[side] for side in ("chosen", "rejected")} for row in bare]
    with pytest.warns(JudgementWarning, match="repeat the prompt"):
        trainers = [make_trainer(Dataset.from_list(rows), tmp_path) for rows in (bare, repeated)]
    texts = [[TOKENIZER.decode(ids) for ids in trainer.train_dataset.tokens] for trainer in trainers]
    assert texts[0] == texts[1]
    assert len(re.findall(re.escape(TEXT), texts[1][0])) == 1
    assert np.array_equal(trainers[0].train_dataset.enc.item, trainers[1].train_dataset.enc.item)


def test_answers_of_several_turns_are_not_cut_to_their_last_message():
    """What was said between the prompt and the last message would be lost."""
    turns = [says("Where?"), {"role": "user", "content": "In the north."}]
    row = {"prompt": [QUESTION], "chosen": [*turns, says("Yes.")], "rejected": [*turns, says("No.")]}
    with pytest.raises(JudgementError, match="are not two answers to one prompt"):
        Judgements.from_dataset([row])
    whole = {"prompt": [QUESTION, *turns], "chosen": [says("Yes.")], "rejected": [says("No.")]}
    frame = Judgements.from_dataset([whole]).frame
    assert list(frame["prompt"][0]) == [QUESTION, *turns]
