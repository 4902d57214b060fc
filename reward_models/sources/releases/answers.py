"""Releases in which people choose among options, and published shares of such answers: `choice` and `soft`.

Every function reads the source of one release with its options and returns its rows. Its docstring states which
columns it assumes. Knows nothing of how files are opened.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from typing import Any

from reward_models.sources.releases.reading import TABLES, Record, Source, files, read_file, records
from reward_models.sources.releases.rows import Rows, as_id, as_list, as_number, as_text, check_choice, traits


__all__ = ["community_alignment", "global_opinion_qa", "opinion_qa", "value_prism"]

_PANEL_TRAITS = (
    "CREGION",
    "AGE",
    "SEX",
    "EDUCATION",
    "CITIZEN",
    "MARITAL",
    "RELIG",
    "RELIGATTEND",
    "POLPARTY",
    "INCOME",
    "POLIDEOLOGY",
    "RACE",
)
_VALENCES = ("supports", "opposes", "either")
_TOLERANCE = 0.02


def community_alignment(source: Source, *, kind: str = "choice", split: str = "filtered") -> Rows:
    """Read Community Alignment: which of four first responses an annotator of one of five countries prefers.

    Options are sorted alphabetically, so that annotators who saw the same four in different places share an item.
    Later turns are not read, since each annotator's conversation differs. Traits are the columns `annotator_*`. The
    end token of some responses is removed.

    Args:
        source: Where to read.
        kind: `"choice"` among the four, or `"preference"` for the chosen one against each other one.
        split: Split on the Hub, `"filtered"` or `"unfiltered"`.
    """
    check_choice("kind", kind, ("choice", "preference"))
    rows = Rows(kind)
    responses = [f"first_turn_response_{letter}" for letter in "abcd"]
    columns = ("annotator_id", "first_turn_prompt", "first_turn_preferred_response", *responses)
    for record in records(source, TABLES, columns, split=split):
        texts = [as_text(str(record[column] or "").replace("<|end_of_text|>", "")) for column in responses]
        place = {"a": 0, "b": 1, "c": 2, "d": 3}.get((as_text(record["first_turn_preferred_response"]) or "")[-1:])
        candidates = [text for text in texts if text]
        if place is None or len(candidates) < 4:
            rows.drop("without a choice among four responses")
            continue
        if len(set(candidates)) < 4:
            rows.drop("among responses of which two are the same")
            continue
        chosen = candidates[place]
        names = (name for name in record if name.startswith("annotator_") and name != "annotator_id")
        common: dict[str, Any] = {"rater_id": as_id(record["annotator_id"])} | traits(record, names, "annotator_")
        common["prompt"] = as_text(record["first_turn_prompt"])
        if kind == "choice":
            options = tuple(sorted(candidates))
            rows.add(options=options, choice=options.index(chosen), **common)
            continue
        for a, b in itertools.combinations(candidates, 2):
            if chosen in (a, b):
                rows.add(response_a=a, response_b=b, choice="a" if a == chosen else "b", **common)
    return rows


def opinion_qa(source: Source, *, weights: bool = False) -> Rows:
    """Read OpinionQA: answers of single respondents of Pew's American Trends Panel.

    A wave is a folder `American_Trends_Panel_W*` with `responses.csv` (one row per person, one column per question)
    and `info.csv` (`key`, `question`, and the options in order in `references`); a folder may hold several waves. A
    rater is a `QKEY`, assumed to be the same person in every wave, or, without that column, a row of a wave. "Refused"
    is not an option and such answers are dropped; a question that was not asked adds no judgement.

    Args:
        source: Where to read; the limit counts respondents of each wave.
        weights: Use the respondent's `WEIGHT_<wave>`, as the sampling weight of the rater (`rater_weight`).
            Of somebody in several waves it is the mean over the judgements.
    """
    rows = Rows("choice")
    for path in files(source, ("responses.csv",)):
        wave = path.parent.name.rsplit("_", 1)[-1]
        questions = {
            question["key"]: (as_text(question["question"]), _options(question["references"]))
            for question in read_file(path.parent / "info.csv", ("key", "question", "references"))
        }
        weight_column = [f"WEIGHT_{wave}"] if weights else []
        for number, person in enumerate(read_file(path, weight_column)):
            if number == source.limit:
                break
            of_person: dict[str, Any] = traits(person, _PANEL_TRAITS)
            rater = as_id(person.get("QKEY")) or f"{wave}/{number}"
            if weights:
                of_person["rater_weight"] = as_number(person[weight_column[0]])
            for key, (prompt, options) in questions.items():
                answer = as_text(person.get(key))
                if answer is None:
                    continue
                if answer not in options:
                    refused = "refused" if answer.casefold() == "refused" else "that are not among the options"
                    rows.drop(refused)
                    continue
                choice = options.index(answer)
                rows.add(rater_id=rater, item_id=key, prompt=prompt, options=options, choice=choice, **of_person)
    return rows


def _options(listed: str) -> tuple[str, ...]:
    return tuple(str(option) for option in as_list(listed) if str(option).casefold() != "refused")


def global_opinion_qa(source: Source) -> Rows:
    """Read GlobalOpinionQA: shares of the answers of a country to a question, as `soft` judgements.

    There is one row per question and country; the country is kept as `rater:country`, and questions are numbered in
    order. The number of people who answered is not published, so every row counts as one answer. `selections` is the
    text of a defaultdict of country to shares and `options` the text of a list. Shares that do not fit the options or
    do not sum to 1 within 0.02 are dropped.

    Args:
        source: Where to read; the limit counts questions.
    """
    rows = Rows("soft")
    for number, record in enumerate(records(source, TABLES, ("question", "selections", "options"))):
        question = as_text(record["question"])
        shares = _shares(record["selections"])
        options = tuple(str(option).strip() for option in as_list(record["options"]))
        if len(set(options)) != len(options) or len(options) < 2 or not all(options):
            rows.drop("on questions without two different options", len(shares))
            continue
        for country, probs in shares.items():
            if len(probs) != len(options):
                rows.drop("whose shares do not fit the options")
            elif abs(sum(probs) - 1) > _TOLERANCE:
                rows.drop("whose shares do not sum to 1")
            else:
                rows.add(
                    item_id=f"q{number}", prompt=question, options=options, probs=probs, **{"rater:country": country}
                )
    return rows


def _shares(selections: Any) -> dict[str, list[float]]:
    """Return the shares by country, from a mapping or from the text of a defaultdict."""
    if isinstance(selections, str):
        inside = re.search(r"\{.*\}", selections, flags=re.DOTALL)
        selections = inside.group() if inside else None
    by_country = dict(as_list(selections))
    return {str(country): list(probs) for country, probs in by_country.items() if probs is not None}


def value_prism(source: Source) -> Rows:
    """Read ValuePrism: does a value, right or duty support or oppose what a situation describes, as `soft` judgements.

    The labels were written by a language model (and judged good by people in 91 % of a sample); there are no raters.
    Reads `full.csv`: `situation`, `vrd` (Value, Right or Duty), `text` and `valence` (Supports, Opposes or Either).
    Almost every value of a situation has one label, which then has all of the probability; if it occurs more than
    once, `probs` are the shares of its labels and `n` is their number.

    Args:
        source: Where to read; the limit counts labels.
    """
    rows = Rows("soft")
    counts: dict[str, Counter[str]] = {}
    columns = ("situation", "vrd", "text", "valence")
    for record in records(source, ("full.csv", "full/*.csv", *TABLES), columns, name="full"):
        valence = (as_text(record["valence"]) or "").casefold()
        prompt = _value_prompt(record)
        if valence not in _VALENCES or prompt is None:
            rows.drop("without a valence or a text")
            continue
        counts.setdefault(prompt, Counter())[valence] += 1
    for prompt, count in counts.items():
        total = count.total()
        rows.add(prompt=prompt, options=_VALENCES, probs=[count[v] / total for v in _VALENCES], n=total)
    return rows


def _value_prompt(record: Record) -> str | None:
    parts = [as_text(record[column]) for column in ("situation", "vrd", "text")]
    return f"{parts[0]}\n\n{parts[1]}: {parts[2]}" if None not in parts else None
