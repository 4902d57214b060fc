"""Releases that score responses, which can be read as `rating` judgements or as pairs of them.

PRISM (people and the models they talked to), HelpSteer2 (annotators without ids) and UltraFeedback (four objectives,
no people). The docstring of each function states which columns it assumes. Knows nothing of how files are opened.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

from reward_models.errors import JudgementError
from reward_models.sources.releases.pairs import sided, strengths
from reward_models.sources.releases.reading import TABLES, Record, Source, beside, check_columns, read_file, records
from reward_models.sources.releases.rows import (
    Rows,
    as_id,
    as_list,
    as_number,
    as_records,
    as_text,
    check_choice,
    traits,
)


__all__ = ["helpsteer2", "prism", "ultrafeedback"]

_PRISM_TRAITS = (
    "age",
    "gender",
    "education",
    "employment_status",
    "marital_status",
    "english_proficiency",
    "study_locale",
)
_PRISM_NESTED = {
    "religion": ("religion", "simplified"),
    "ethnicity": ("ethnicity", "simplified"),
    "country": ("location", "reside_country"),
    "region": ("location", "reside_region"),
}
_HELPSTEER2 = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
_HELPSTEER2_INVALID = -100
_ULTRAFEEDBACK = ("instruction_following", "truthfulness", "honesty", "helpfulness")


def prism(source: Source, *, kind: str = "preference", levels: int = 5) -> Rows:
    """Read PRISM: people from 75 countries talk to anonymous models, score every response and choose one per turn.

    Reads `conversations.jsonl`, or `utterances.jsonl` in its order, and, if it is beside it, `survey.jsonl` for the
    traits (age, gender, education, ..., religion, ethnicity, country and region of residence). Prompts are lists of
    messages: the conversation so far with the chosen responses, then the user's turn.

    Args:
        source: Where to read; the limit counts conversations, or utterances.
        kind: `"preference"`: within a turn, the chosen response against each that was not chosen, in the order of
            `within_turn_id`. `"rating"`: every response by its score.
        levels: Number of equal steps into which the scores 1 to 100 are cut for `"rating"`; with 5, the scores 1 to
            20 are level 1.
    """
    check_choice("kind", kind, ("preference", "rating"))
    if not 2 <= levels <= 25:
        raise JudgementError(f"levels={levels} is not between 2 and 25. Fix: e.g. levels=5.")
    people = {as_id(person.get("user_id")): _prism_traits(person) for person in _prism_survey(source)}
    rows = Rows(kind, range(1, levels + 1) if kind == "rating" else None)
    patterns = ("conversations.jsonl*", "conversations*.parquet", "utterances.jsonl*", "utterances*.parquet")
    table = records(source, patterns, ("conversation_id", "user_id"), name="conversations")
    for record in _prism_conversations(table):
        rater = as_id(record["user_id"])
        person = people.get(rater, {})
        for turn, prompt, responses in _prism_turns(record, rows):
            item = f"{record['conversation_id']}/{turn}"
            if kind == "rating":
                for response in responses:
                    rows.add_rating(
                        rater,
                        prompt,
                        response["content"],
                        _prism_level(response.get("score"), levels),
                        item_id=f"{item}/{response['within_turn_id']}",
                        traits=person,
                        missing="without a score",
                    )
                continue
            for a, b in itertools.combinations(responses, 2):
                if a["if_chosen"] != b["if_chosen"]:
                    pair = f"{item}/{a['within_turn_id']}-{b['within_turn_id']}"
                    contents, choice = (a["content"], b["content"]), "a" if a["if_chosen"] else "b"
                    rows.add_pair(rater, prompt, contents, choice, item_id=pair, traits=person)
    return rows


def _prism_level(score: Any, levels: int) -> int | None:
    """Return the level 1 .. `levels` of a score of 0 to 100, or None if it is none."""
    number = as_number(score)
    return None if number is None or not 0 <= number <= 100 else max(1, math.ceil(number * levels / 100))


def _prism_survey(source: Source) -> Iterator[Record]:
    if source.path is None:
        return records(source, (), ("user_id",), limited=False, name="survey")
    path = beside(source, "survey*.jsonl*") or beside(source, "survey*.parquet")
    return read_file(path, ("user_id",)) if path else iter(())


def _prism_traits(person: Record) -> dict[str, str | None]:
    nested = {
        trait: person[field].get(part)
        for trait, (field, part) in _PRISM_NESTED.items()
        if isinstance(person.get(field), dict)
    }
    return traits(person, _PRISM_TRAITS) | traits(nested, nested)


def _prism_conversations(table: Iterator[Record]) -> Iterator[Record]:
    """Yield conversations as they are, or joined from their utterances."""
    for _, group in itertools.groupby(table, key=lambda record: record["conversation_id"]):
        utterances = list(group)
        if "conversation_history" in utterances[0]:
            yield from utterances
            continue
        check_columns(utterances[0], "utterances", ("turn", "within_turn_id", "user_prompt", "model_response"))
        prompts = {u["turn"]: u["user_prompt"] for u in utterances}
        history = [{"turn": turn, "role": "user", "content": prompt} for turn, prompt in prompts.items()]
        history += [u | {"role": "model", "content": u["model_response"]} for u in utterances]
        yield {**utterances[0], "conversation_history": history}


def _prism_turns(record: Record, rows: Rows) -> Iterator[tuple[int, list[dict[str, str]], list[dict[str, Any]]]]:
    """Yield (turn, prompt, responses in order) of a conversation, up to the first turn that cannot be read."""
    history = as_records(record["conversation_history"])
    prompt: list[dict[str, str]] = []
    for turn, messages in itertools.groupby(sorted(history, key=lambda m: m["turn"]), key=lambda m: m["turn"]):
        of_turn = list(messages)
        questions = [m for m in of_turn if m["role"] == "user"]
        responses = sorted((m for m in of_turn if m["role"] != "user"), key=lambda m: m["within_turn_id"])
        chosen = [m for m in responses if m["if_chosen"]]
        if len(questions) != 1 or not chosen or len(responses) < 2:
            rows.drop("in turns without a question, a chosen response and another one")
            return
        prompt = [*prompt, {"role": "user", "content": questions[0]["content"]}]
        yield turn, prompt, responses
        prompt = [*prompt, {"role": "assistant", "content": chosen[0]["content"]}]


def helpsteer2(source: Source, *, kind: str = "preference", attribute: str = "helpfulness") -> Rows:
    """Read HelpSteer2 before its annotators were averaged.

    The release does not say which annotators are the same person, so each judgement gets a rater of its own,
    `<record>/<place>`.

    Args:
        source: Where to read; the limit counts records.
        kind: `"preference"`: `preference/preference.jsonl.gz`, all of `all_preferences_unprocessed`, -3 to 3 reduced
            to their sign; -100 (neither response is valid) is dropped. `"rating"`: `disagreements/*.jsonl.gz`, where
            every attribute holds one rating of 0 to 4 per annotator.
        attribute: Which rating: helpfulness, correctness, coherence, complexity or verbosity.
    """
    check_choice("kind", kind, ("preference", "rating"))
    check_choice("attribute", attribute, _HELPSTEER2)
    return _helpsteer2_pairs(source) if kind == "preference" else _helpsteer2_ratings(source, attribute)


def _helpsteer2_pairs(source: Source) -> Rows:
    rows = Rows("preference")
    columns = ("prompt", "response_1", "response_2", "all_preferences_unprocessed")
    patterns = ("preference*.jsonl*", "preference*.parquet")
    for number, record in enumerate(records(source, patterns, columns, data_dir="preference")):
        for place, strength in enumerate(strengths(record["all_preferences_unprocessed"], "strength")):
            rows.add_pair(
                f"{number}/{place}",
                as_text(record["prompt"]),
                (record["response_1"], record["response_2"]),
                None if strength is None or strength == _HELPSTEER2_INVALID else sided(strength),
                item_id=str(number),
                missing="that find neither response valid",
            )
    return rows


def _helpsteer2_ratings(source: Source, attribute: str) -> Rows:
    rows = Rows("rating", range(5))
    columns = ("prompt", "response", attribute)
    patterns = ("disagreements*.jsonl*", "disagreements*.parquet")
    for number, record in enumerate(records(source, patterns, columns, data_dir="disagreements")):
        for place, rating in enumerate(as_list(record[attribute])):
            rows.add_rating(
                f"{number}/{place}",
                as_text(record["prompt"]),
                record["response"],
                as_number(rating),
                item_id=str(number),
                missing="outside the scale",
            )
    return rows


def ultrafeedback(source: Source, *, kind: str = "rating") -> Rows:
    """Read UltraFeedback: four objectives as four "raters", scored 1 to 5 by a language model.

    The objectives are instruction_following, truthfulness, honesty and helpfulness. Use it to study trade-offs between
    objectives; it holds nothing about how people disagree. "N/A" is dropped.

    Args:
        source: Where to read; the limit counts instructions.
        kind: `"rating"`, or `"preference"` for every two completions of an instruction by their ratings; equal ratings
            are a tie.
    """
    check_choice("kind", kind, ("rating", "preference"))
    rows = Rows(kind, range(1, 6) if kind == "rating" else None)
    for number, record in enumerate(records(source, TABLES, ("instruction", "completions"))):
        prompt, completions = as_text(record["instruction"]), as_records(record["completions"])
        texts = [as_text(completion["response"]) for completion in completions]
        for objective in _ULTRAFEEDBACK:
            scores = [as_number((c["annotations"].get(objective) or {}).get("Rating")) for c in completions]
            rows.drop("not scored", scores.count(None))
            scored = [(place, score) for place, score in enumerate(scores) if score is not None]
            if kind == "rating":
                for place, score in scored:
                    rows.add_rating(objective, prompt, texts[place], score, item_id=f"{number}/{place}")
                continue
            for (a, score_a), (b, score_b) in itertools.combinations(scored, 2):
                pair, choice = f"{number}/{a}-{b}", sided(score_b - score_a)
                rows.add_pair(objective, prompt, (texts[a], texts[b]), choice, item_id=pair)
    return rows
