"""Sequences of what people wrote: texts to a question, one person's answers and votes, statements, prompts.

Knows no model.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from plural_rlhf.methods.spectrum.sequences import Example, SpectrumSequence
from plural_rlhf.methods.spectrum_suite.data import SuiteData


__all__ = [
    "answers_and_votes",
    "labeler_judgements",
    "persona_statements",
    "prompts_by_category",
    "texts_to_questions",
]


def answers_and_votes(answers: Path, votes: Path, data: SuiteData) -> list[SpectrumSequence]:
    """Return a sequence per person: what they wrote to open questions, and whether they agree with others' texts.

    Args:
        answers: Parquet file with `author`, `answer_id`, `question` and `text`.
        votes: Parquet file with `rater_id`, `answer_id` and `vote`.
        data: How many people and examples.

    Example:
        >>> import tempfile
        >>> texts = {"author": ["ann", "bob"], "answer_id": ["a", "b"], "question": "Why?"}
        >>> texts["text"] = ["Peace.", "Noise."]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     answers, votes = Path(folder, "answers.parquet"), Path(folder, "votes.parquet")
        ...     pd.DataFrame(texts).to_parquet(answers)
        ...     pd.DataFrame({"rater_id": ["ann"], "answer_id": ["b"], "vote": ["disagree"]}).to_parquet(votes)
        ...     [ann] = answers_and_votes(answers, votes, SuiteData())
        >>> sorted(example.output for example in ann.examples)
        ['Peace.', 'disagree']
    """
    written = pd.read_parquet(answers)
    judged = pd.read_parquet(votes)
    judged = judged[judged["vote"].isin(["agree", "disagree"])].merge(written, on="answer_id")
    made = []
    people = sorted(set(written["author"]) & set(judged["rater_id"]))
    for number, person in enumerate(data.select(people, data.sequences, "people")):
        own = written[written["author"] == person]
        examples = [Example(row.text, row.question) for row in own.itertuples() if row.text.strip()]
        examples += [
            Example(row.vote, f'{row.question}\nSomebody writes: "{row.text}"\nDo you agree or disagree?')
            for row in judged[judged["rater_id"] == person].itertuples()
        ]
        shown = data.select(examples, data.examples, "answers and votes", number)
        made.append(
            SpectrumSequence(tuple(shown), "One person answers questions and says with whom they agree.", name=person)
        )
    return made


def texts_to_questions(answers: Path, data: SuiteData) -> list[SpectrumSequence]:
    """Return a sequence per question: what different people wrote to it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "answers.parquet")
        ...     pd.DataFrame({"question": ["Why?"] * 2, "text": ["Peace.", "Noise."]}).to_parquet(path)
        ...     [sequence] = texts_to_questions(path, SuiteData())
        >>> sequence.description
        'What different people wrote to the question: Why?'
    """
    made = []
    for number, (question, rows) in enumerate(pd.read_parquet(answers).groupby("question", sort=True)):
        texts = [text.strip() for text in rows["text"] if text.strip()]
        shown = data.select(texts, data.examples, "texts", number)
        text = f"What different people wrote to the question: {str(question).strip()}"
        made.append(SpectrumSequence(tuple(map(Example, shown)), text, name=str(question).strip()))
    return made[: data.sequences]


def persona_statements(path: Path, data: SuiteData, *, agreement: bool = False) -> list[SpectrumSequence]:
    """Return a sequence per persona: statements that fit it, or whether it agrees with statements.

    Args:
        path: Parquet file with `persona`, `statement` and `fits`.
        data: How many examples.
        agreement: Whether statements are inputs and yes or no the outputs; else statements that fit are outputs.

    Example:
        >>> import tempfile
        >>> rows = {"persona": ["risk-averse"] * 2, "statement": ["I save.", "I bet."], "fits": [True, False]}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "statements.parquet")
        ...     pd.DataFrame(rows).to_parquet(path)
        ...     [one] = persona_statements(path, SuiteData())
        ...     [other] = persona_statements(path, SuiteData(), agreement=True)
        >>> one.examples, [example.output for example in other.examples]
        ((Example(output='I save.', input=None),), ['yes', 'no'])
    """
    made = []
    for number, (persona, rows) in enumerate(pd.read_parquet(path).groupby("persona", sort=True)):
        options: tuple[str, ...]
        if agreement:
            pairs = zip(rows["fits"], rows["statement"], strict=True)
            examples = [Example("yes" if fits else "no", statement) for fits, statement in pairs]
            text, options = "Whether one person would say each of these statements: yes or no.", ("yes", "no")
        else:
            examples = [Example(statement) for statement in rows.loc[rows["fits"], "statement"]]
            text, options = f"Statements of a person who is described by: {str(persona).replace('-', ' ')}.", ()
        shown = data.select(examples, data.examples, "statements", number)
        made.append(SpectrumSequence(tuple(shown), text, name=str(persona), options=options))
    return made[: data.sequences]


def prompts_by_category(path: Path, data: SuiteData) -> list[SpectrumSequence]:
    """Return a sequence per category of NoveltyBench: prompts with many good answers.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "curated.parquet")
        ...     table = pd.DataFrame({"category": ["Creativity"] * 2, "prompt": ["Tell a joke.", "Name a bird."]})
        ...     table.to_parquet(path)
        ...     prompts_by_category(path, SuiteData())[0].description
        'Requests with many good answers: Creativity.'
    """
    made = []
    for number, (category, rows) in enumerate(pd.read_parquet(path).groupby("category", sort=True)):
        shown = data.select(list(map(str, rows["prompt"])), data.examples, "prompts", number)
        text = f"Requests with many good answers: {category}."
        made.append(SpectrumSequence(tuple(map(Example, shown)), text, name=str(category)))
    return made[: data.sequences]


def labeler_judgements(path: Path, data: SuiteData, *, most_characters: int = 300) -> list[SpectrumSequence]:
    """Return a sequence per labeler of NoveltyBench: whether two generations say the same, of pairs of short texts.

    Example:
        >>> import tempfile
        >>> row = {"labeler": "l0", "prompt": "A bird?", "generation_0": "Robin", "generation_1": "Wren", "similar": 0}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "equivalence.parquet")
        ...     pd.DataFrame([row, row]).to_parquet(path)
        ...     labeler_judgements(path, SuiteData())[0].examples[0].output
        'different'
    """
    table = pd.read_parquet(path)
    columns = ["generation_0", "generation_1"]
    table[columns] = table[columns].map(lambda text: " ".join(str(text).split()))
    short = table[columns].map(len).max(axis=1) <= most_characters
    made = []
    for number, (labeler, rows) in enumerate(table[short].groupby("labeler", sort=True)):
        examples = [
            Example(
                "same" if row["similar"] else "different",
                f"Request: {row['prompt']}\nFirst: {row['generation_0']}\nSecond: {row['generation_1']}",
            )
            for row in rows.to_dict("records")
        ]
        if len(examples) > 1:
            shown = data.select(examples, data.examples, "pairs", number)
            text = "One person says whether two answers to a request say the same or something different."
            made.append(SpectrumSequence(tuple(shown), text, name=str(labeler), options=("same", "different")))
    return made[: data.sequences]
