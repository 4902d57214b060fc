"""Releases that score responses, which can be read as `rating` judgements or as pairs of them.

PRISM (people and the models they talked to), HelpSteer2 (annotators without ids) and UltraFeedback (four objectives,
no people). What is assumed of a release's columns is said in its docstring. Knows nothing of how files are opened.
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
    """PRISM: people from 75 countries talk to anonymous models, score every response and choose one a turn.

    Reads `conversations.jsonl`, or `utterances.jsonl` in its order, and, where it lies beside it, `survey.jsonl` for
    the traits (age, gender, education, ..., religion, ethnicity, country and region of residence). Prompts are lists
    of messages: the conversation so far with the chosen responses, then the user's turn.

    Args:
        source: Where to read; the limit counts conversations, or utterances.
        kind: `"preference"`: within a turn, the chosen response against each that was not chosen, in the order of
            `within_turn_id`. `"rating"`: every response by its score.
        levels: Into how many equal steps the scores 1 to 100 are cut for `"rating"`; 5 makes 1 to 20 the level 1.
    """
    check_choice("kind", kind, ("preference", "rating"))
    if not 2 <= levels <= 25:
        raise JudgementError(f"levels={levels} is not between 2 and 25. Fix: e.g. levels=5.")
    people = {as_id(person.get("user_id")): _prism_traits(person) for person in _prism_survey(source)}
    rows = Rows(kind, range(1, levels + 1) if kind == "rating" else None)
    patterns = ("conversations.jsonl*", "conversations*.parquet", "utterances.jsonl*", "utterances*.parquet")
    found = records(source, patterns, ("conversation_id", "user_id"), name="conversations")
    for record in _prism_conversations(found):
        rater = as_id(record["user_id"])
        about = people.get(rater, {})
        for turn, prompt, responses in _prism_turns(record, rows):
            item = f"{record['conversation_id']}/{turn}"
            if kind == "rating":
                for response in responses:
                    score = as_number(response.get("score"))
                    if score is None or not 0 <= score <= 100:
                        rows.drop("without a score")
                        continue
                    rows.add(
                        rater_id=rater,
                        item_id=f"{item}/{response['within_turn_id']}",
                        prompt=prompt,
                        response=as_text(response["content"]),
                        rating=max(1, math.ceil(score * levels / 100)),
                        **about,
                    )
                continue
            for a, b in itertools.combinations(responses, 2):
                if a["if_chosen"] != b["if_chosen"]:
                    rows.add(
                        rater_id=rater,
                        item_id=f"{item}/{a['within_turn_id']}-{b['within_turn_id']}",
                        prompt=prompt,
                        response_a=as_text(a["content"]),
                        response_b=as_text(b["content"]),
                        choice="a" if a["if_chosen"] else "b",
                        **about,
                    )
    return rows


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


def _prism_conversations(found: Iterator[Record]) -> Iterator[Record]:
    """Conversations as they are, or put together from their utterances."""
    for _, group in itertools.groupby(found, key=lambda record: record["conversation_id"]):
        together = list(group)
        if "conversation_history" in together[0]:
            yield from together
            continue
        check_columns(together[0], "utterances", ("turn", "within_turn_id", "user_prompt", "model_response"))
        asked = {u["turn"]: u["user_prompt"] for u in together}
        history = [{"turn": turn, "role": "user", "content": prompt} for turn, prompt in asked.items()]
        history += [u | {"role": "model", "content": u["model_response"]} for u in together]
        yield {**together[0], "conversation_history": history}


def _prism_turns(record: Record, rows: Rows) -> Iterator[tuple[int, list[dict[str, str]], list[dict[str, Any]]]]:
    """(turn, prompt, responses in order) of a conversation, up to the first turn that cannot be read."""
    history = as_records(record["conversation_history"])
    prompt: list[dict[str, str]] = []
    for turn, messages in itertools.groupby(sorted(history, key=lambda m: m["turn"]), key=lambda m: m["turn"]):
        said = list(messages)
        asked = [m for m in said if m["role"] == "user"]
        responses = sorted((m for m in said if m["role"] != "user"), key=lambda m: m["within_turn_id"])
        chosen = [m for m in responses if m["if_chosen"]]
        if len(asked) != 1 or not chosen or len(responses) < 2:
            rows.drop("in turns without a question, a chosen response and another one")
            return
        prompt = [*prompt, {"role": "user", "content": asked[0]["content"]}]
        yield turn, prompt, responses
        prompt = [*prompt, {"role": "assistant", "content": chosen[0]["content"]}]


def helpsteer2(source: Source, *, kind: str = "preference", attribute: str = "helpfulness") -> Rows:
    """HelpSteer2 before its annotators were averaged.

    The release does not say which annotators are the same person, so each judgement is by a rater of its own,
    `<record>/<place>`: nobody is followed from text to text.

    Args:
        source: Where to read; the limit counts records.
        kind: `"preference"`: `preference/preference.jsonl.gz`, all of `all_preferences_unprocessed`, -3 to 3 reduced
            to their side; -100, neither response is valid, is left out. `"rating"`: `disagreements/*.jsonl.gz`, where
            every attribute holds one rating of 0 to 4 an annotator.
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
            if strength is None or strength == _HELPSTEER2_INVALID:
                rows.drop("that find neither response valid")
                continue
            rows.add(
                rater_id=f"{number}/{place}",
                item_id=str(number),
                prompt=as_text(record["prompt"]),
                response_a=as_text(record["response_1"]),
                response_b=as_text(record["response_2"]),
                choice=sided(strength),
            )
    return rows


def _helpsteer2_ratings(source: Source, attribute: str) -> Rows:
    rows = Rows("rating", range(5))
    columns = ("prompt", "response", attribute)
    patterns = ("disagreements*.jsonl*", "disagreements*.parquet")
    for number, record in enumerate(records(source, patterns, columns, data_dir="disagreements")):
        for place, rating in enumerate(as_list(record[attribute])):
            rows.add(
                rater_id=f"{number}/{place}",
                item_id=str(number),
                prompt=as_text(record["prompt"]),
                response=as_text(record["response"]),
                rating=as_number(rating),
            )
    return rows


def ultrafeedback(source: Source, *, kind: str = "rating") -> Rows:
    """UltraFeedback: four objectives as four "raters", scored 1 to 5 by a language model.

    These are objectives and not people: instruction_following, truthfulness, honesty and helpfulness. It suits
    trade-offs between objectives, and says nothing of how people disagree. "N/A" is left out.

    Args:
        source: Where to read; the limit counts instructions.
        kind: `"rating"`, or `"preference"` for every two completions of an instruction by their ratings, equal ones a
            tie.
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
                    item = f"{number}/{place}"
                    rows.add(rater_id=objective, item_id=item, prompt=prompt, response=texts[place], rating=score)
                continue
            for (a, score_a), (b, score_b) in itertools.combinations(scored, 2):
                rows.add(
                    rater_id=objective,
                    item_id=f"{number}/{a}-{b}",
                    prompt=prompt,
                    response_a=texts[a],
                    response_b=texts[b],
                    choice=sided(score_b - score_a),
                )
    return rows
