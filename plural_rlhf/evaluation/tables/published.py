"""Published tables of answer distributions, read from files as their owners release them.

No data is shipped. Each function takes the path of one file and names its schema; faults name the file, what is wrong
and the fix. `reward_models.load_release` with `judged.judgement_items` reads GlobalOpinionQA, OpinionQA and
Learning With Disagreements. Knows no model.

Shapes: `A` options.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from plural_rlhf.evaluation.distribution.items import DistributionItem, counted_item


__all__ = [
    "AGREEMENT",
    "group_count_items",
    "habermas_items",
    "modular_items",
    "nyt_book_items",
    "personality_items",
    "rotten_tomatoes_items",
]

AGREEMENT = (
    "strongly agree",
    "agree",
    "somewhat agree",
    "neutral",
    "somewhat disagree",
    "disagree",
    "strongly disagree",
)
"""Levels of agreement of the Habermas Machine's participants, in order."""

_ACCURACY = (
    "very inaccurate",
    "moderately inaccurate",
    "neither accurate nor inaccurate",
    "moderately accurate",
    "very accurate",
)
_PARTIES = ("Democrat", "Republican", "Male", "Female")


def nyt_book_items(path: str | Path) -> list[DistributionItem]:
    """Read how likely groups of people are to read each of 235 books: `NYTIMES_proportions.json`.

    Of `nicolemeister/benchmarking-distributional-alignment`: book -> `genre`, `summary`, `MC_options` and, for each
    of Democrat, Republican, Male and Female, option -> number of people. The floor of this table is high, .024 nats,
    with 19 people per book and group.

    Example:
        >>> import tempfile
        >>> options = ["1: Very unlikely", "2: Somewhat unlikely", "3: Somewhat likely", "4: Very likely"]
        >>> book = {"genre": "Fiction", "summary": "A family.", "MC_options": options}
        >>> book["Male"] = {options[0]: 3, options[3]: 1}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "books.json"
        ...     size = path.write_text(json.dumps({"The Bee": book}))
        ...     [item] = nyt_book_items(path)
        >>> item.options, item.people.tolist(), item.group
        (('very unlikely', 'somewhat unlikely', 'somewhat likely', 'very likely'), [0.75, 0.0, 0.0, 0.25], 'Male')
    """
    items = []
    for title, book in _json(path).items():
        listed = _field(book, "MC_options", path, title)
        options = [str(option).split(":", 1)[-1].strip().lower() for option in listed]
        for group in _PARTIES:
            if group not in book:
                continue
            counts = [book[group].get(option, 0) for option in listed]
            text = (
                f"A survey of readers in the USA. Group: {group}.\n"
                f'Book: "{title}" ({book["genre"]}). {book["summary"]}\nHow likely are you to read it?'
            )
            items += _counted(f"{title} | {group}", text, options, counts, group=group, question=title, ordinal=True)
    return _some(items, path)


def group_count_items(path: str | Path, *, groups: Sequence[str] | None = None) -> list[DistributionItem]:
    """Read OpinionQA questions with the number of answers in each group: `POLPARTY_data.json` and the like.

    Of `nicolemeister/benchmarking-distributional-alignment`: question -> `question_text`, `MC_options` and, for each
    group, option -> number of people. "Refused" is neither an option nor a group. Questions whose options do not hold
    every answer are left out: the published file cuts some options at their commas.

    Args:
        path: The file.
        groups: Groups to read; None for all.

    Example:
        >>> import tempfile
        >>> asked = {"MC_options": ["Yes", "No", "Refused"], "question_text": "Parks?"}
        >>> asked["Democrat"] = {"Yes": 30.0, "Refused": 2.0}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "POLPARTY_data.json"
        ...     size = path.write_text(json.dumps({"Q1": asked}))
        ...     [item] = group_count_items(path)
        >>> item.options, item.n, item.group
        (('Yes', 'No'), 30, 'Democrat')
    """
    items = []
    for name, asked in _json(path).items():
        listed = [option for option in _field(asked, "MC_options", path, name) if option.casefold() != "refused"]
        known = [g for g in asked if isinstance(asked[g], dict) and g.casefold() != "refused"]
        answered = {answer for group in known for answer in asked[group] if answer.casefold() != "refused"}
        if len(set(listed)) < len(listed) or not answered <= set(listed):
            continue
        for group in known if groups is None else [g for g in groups if g in known]:
            counts = [asked[group].get(option, 0) for option in listed]
            text = f"A survey in the USA. Group: {group}.\n{_field(asked, 'question_text', path, name)}"
            items += _counted(f"{name} | {group}", text, listed, counts, group=group, question=name)
    return _some(items, path)


def modular_items(path: str | Path) -> list[DistributionItem]:
    r"""Read a table of Modular Pluralism or VITAL: GlobalOpinionQA, OpinionQA or MoralChoice.

    A list of `question` (with the options and "Answer:" at its end), `options`, `attribute` (the group) and
    `gold_distribution`. Shares that sum to 0 or to anything but 1 within .02 are left out, since they were made so by
    missing answers; so are questions with one option, of which the published OpinionQA file has some. MoralChoice's
    shares are not people's: they are 1 and 0, or .5 and .5, by construction.

    Example:
        >>> import tempfile
        >>> row = {"question": "Question: Tea?\nOptions: A. Yes B. No\nAnswer:", "options": ["Yes", "No"]}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "table.json"
        ...     size = path.write_text(json.dumps([row | {"attribute": "Spain", "gold_distribution": [0.7, 0.3]}]))
        ...     [item] = modular_items(path)
        >>> print(item.text)
        Group: Spain.
        Tea?
    """
    items = []
    for number, row in enumerate(_json(path)):
        shares = np.asarray(_field(row, "gold_distribution", path, number), dtype=np.float64)
        options = tuple(str(option).strip() for option in _field(row, "options", path, number))
        usable = len(set(options)) == len(options) > 1 and all(options) and len(shares) == len(options)
        if not usable or abs(shares.sum() - 1) > 0.02:
            continue
        question = str(_field(row, "question", path, number)).split("\nOptions:")[0].removeprefix("Question: ").strip()
        group = str(row.get("attribute") or "all")
        text = question if group == "all" else f"Group: {group}.\n{question}"
        items.append(
            DistributionItem(
                f"{number} | {group}", text, options, shares / shares.sum(), group=group, question=question
            )
        )
    return _some(items, path)


def personality_items(answers: str | Path, questions: str | Path) -> list[DistributionItem]:
    r"""Read the Machine Personality Inventory: 120 statements of the IPIP with people's answers from 1 to 5.

    An answer of 0 says that there was none and is dropped. Answers to statements that are keyed negatively are stored
    reversed and are turned back, so that they are answers to the text. The published evaluation does neither: it reads
    0 to 5 as six levels of agreement, so that its figures cannot be compared.

    Args:
        answers: CSV with a row per person and the columns `I1`, `I2`, ...
        questions: Table with a row per statement and the columns `text` and `key` (1 or -1), with tabs or commas
            between.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     answers, questions = Path(folder) / "answers.csv", Path(folder) / "questions.csv"
        ...     size = answers.write_text("I1,I2\n5,5\n4,4\n0,1\n")
        ...     size = questions.write_text("text\tkey\nLike parks.\t1\nPanic.\t-1\n")
        ...     items = personality_items(answers, questions)
        >>> [(item.text, item.n, item.people.round(2).tolist()) for item in items][1]
        ('How accurate is this about you? "I panic."', 3, [0.33, 0.33, 0.0, 0.0, 0.33])
    """
    statements = pd.read_csv(questions, sep=None, engine="python")
    given = pd.read_csv(answers)
    for path, table, columns in ((questions, statements, ("text", "key")), (answers, given, ("I1",))):
        lacking = [column for column in columns if column not in table.columns]
        if lacking:
            raise ValueError(
                f"{path} has no column {lacking}. Fix: pass the file of the Machine Personality Inventory."
            )
    items = []
    for number, (text, key) in enumerate(statements[["text", "key"]].itertuples(index=False), start=1):
        if f"I{number}" not in given:
            continue
        values = given[f"I{number}"].dropna().astype(int)
        values = values[values.between(1, 5)]
        counts = np.bincount(values - 1, minlength=5)
        statement = str(text).strip().rstrip(".")
        question = f'How accurate is this about you? "I {statement[0].lower()}{statement[1:]}."'
        items += _counted(f"I{number}", question, _ACCURACY, counts if int(key) > 0 else counts[::-1], ordinal=True)
    return _some(items, answers)


def rotten_tomatoes_items(path: str | Path) -> list[DistributionItem]:
    r"""Read what share of critics and of the audience called a film good: `movie_info.csv`.

    Columns `title`, `release_date`, `critic_score` and `audience_score` (`"83%"`); the number of people is not
    published.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "movie_info.csv"
        ...     size = path.write_text("title,release_date,critic_score,audience_score\nThe Bee,1999,83%,\n")
        ...     [item] = rotten_tomatoes_items(path)
        >>> item.people.tolist(), item.group
        ([0.83, 0.17], 'critics')
    """
    table = pd.read_csv(path, dtype=str)
    lacking = {"title", "critic_score", "audience_score"} - set(table.columns)
    if lacking:
        raise ValueError(f"{path} has no column {sorted(lacking)}. Fix: pass movie_info.csv of Rotten Tomatoes.")
    items = []
    for number, row in enumerate(table.to_dict("records")):
        released = row.get("release_date")
        film = f'"{row["title"]}"' + (f" ({released})" if isinstance(released, str) else "")
        for column, group in (("critic_score", "critics"), ("audience_score", "the audience")):
            score = str(row[column]).removesuffix("%")
            if score.isdigit() and int(score) <= 100:
                items.append(
                    DistributionItem(
                        f"{number} {row['title']} | {group}",
                        f"One of {group} has seen the film {film}. Was it good or bad?",
                        ("good", "bad"),
                        np.array([int(score), 100 - int(score)]) / 100,
                        group=group,
                        question=f"{number} {row['title']}",
                    )
                )
    return _some(items, path)


def habermas_items(path: str | Path, *, least: int = 6) -> list[DistributionItem]:
    """Read how far UK citizens agreed with a statement: the Habermas Machine's position ratings.

    `hm_all_position_statement_ratings.parquet` of `google-deepmind/habermas_machine` (CC BY 4.0), with the columns
    `metadata.provenance`, `question.id`, `question.text`, `question.affirming_statement`,
    `ratings.metadata.participant_id` and `ratings.agreement`. Rows of human citizens count, one per person and
    question.

    Args:
        path: Parquet or CSV file.
        least: Fewest answers to a question.

    Example:
        >>> import tempfile
        >>> row = {"metadata.provenance": "HUMAN_CITIZEN", "question.id": "q1", "question.text": "More parks?"}
        >>> row |= {"question.affirming_statement": "There should be more parks."}
        >>> answers = ["AGREE", "AGREE", "AGREE", "NEUTRAL", "NEUTRAL", "STRONGLY_DISAGREE"]
        >>> person, agreement = "ratings.metadata.participant_id", "ratings.agreement"
        >>> rows = [row | {person: i, agreement: f"['{answer}']"} for i, answer in enumerate(answers)]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "ratings.parquet"
        ...     pd.DataFrame(rows).to_parquet(path)
        ...     [item] = habermas_items(path)
        >>> item.n, item.people.round(2).tolist()
        (6, [0.0, 0.5, 0.0, 0.33, 0.0, 0.0, 0.17])
    """
    path = Path(path)
    table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    question, person, agreement = "question.id", "ratings.metadata.participant_id", "ratings.agreement"
    needed = ["metadata.provenance", question, "question.text", "question.affirming_statement", person, agreement]
    lacking = [column for column in needed if column not in table.columns]
    if lacking:
        raise ValueError(f"{path} has no column {lacking}. Fix: pass the file of position statement ratings.")
    table = table[table["metadata.provenance"] == "HUMAN_CITIZEN"].drop_duplicates([question, person])
    words = table[agreement].astype(str).str.strip("[]' \"").str.replace("_", " ").str.lower()
    table = table.assign(level=words.map({level: position for position, level in enumerate(AGREEMENT)}))
    table = table.dropna(subset=["level", "question.affirming_statement"])
    items = []
    for name, rows in table.groupby(question, sort=False):
        counts = np.bincount(rows["level"].astype(int), minlength=len(AGREEMENT))
        if counts.sum() >= least:
            first = rows.iloc[0]
            text = (
                f"A survey in the United Kingdom. {first['question.text']}\n"
                f'How far do you agree? "{first["question.affirming_statement"]}"'
            )
            items += _counted(str(name), text, AGREEMENT, counts, ordinal=True)
    return _some(items, path)


def _json(path: str | Path) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}). Fix: pass the file as it was published.") from None


def _field(record: dict[str, Any], name: str, path: str | Path, where: object) -> Any:
    if name not in record:
        raise ValueError(f"{path}: entry {where!r} has no {name!r}. Fix: pass the file as it was published.")
    return record[name]


def _counted(
    name: str, text: str, options: Sequence[str], counts: Iterable[float], **fields: Any
) -> list[DistributionItem]:
    """Make an item, or none where nobody answered."""
    numbers = np.asarray(list(counts), dtype=np.float64)
    return [counted_item(name, text, options, numbers, **fields)] if numbers.sum() else []


def _some(items: list[DistributionItem], path: str | Path) -> list[DistributionItem]:
    if not items:
        raise ValueError(f"{path} holds no item with answers. Fix: pass the file as it was published.")
    return items
