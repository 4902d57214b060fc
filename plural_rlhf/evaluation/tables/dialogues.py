"""Sequences of people who judged what others wrote on polarized issues: votes, and which of two speaks for them.

Reads the tables `<topic>-answers`, `-votes` and `-pairs` (parquet): one row per text, vote and pair. Knows no model.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import pandas as pd

from plural_rlhf.evaluation.in_context.sequences import PersonSequence, judgement_sequences
from reward_models.errors import JudgementWarning
from reward_models.judgements.records import Judgements


__all__ = ["pair_sequences", "vote_sequences"]

_VOTES = ("disagree", "agree")


def vote_sequences(
    answers: str | Path, votes: str | Path, *, most_people: int = 1000, length: int | None = None, seed: int = 0
) -> list[PersonSequence]:
    """Read whether each person agreed with texts of others.

    Args:
        answers: Parquet file with `answer_id`, `question` and `text`.
        votes: Parquet file with `rater_id`, `answer_id` and `vote` (agree or disagree).
        most_people: As in `judgement_sequences`.
        length: As in `judgement_sequences`.
        seed: Random seed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     answers, votes = Path(folder) / "answers.parquet", Path(folder) / "votes.parquet"
        ...     texts = pd.DataFrame({"answer_id": ["t1", "t2"], "question": "Why?", "text": ["Peace.", "Noise."]})
        ...     texts.to_parquet(answers)
        ...     both = pd.DataFrame({"rater_id": list("aabb"), "answer_id": ["t1", "t2"] * 2, "vote": ["agree"] * 4})
        ...     both.to_parquet(votes)
        ...     sequence = vote_sequences(answers, votes)[0]
        >>> print(sequence.examples[0].input)
        Why?
        "Peace."
        Answer:
    """
    texts = pd.read_parquet(answers).set_index("answer_id")
    table = pd.read_parquet(votes)
    table = table[table["vote"].isin(_VOTES)]
    question, text = (table["answer_id"].map(texts[column]) for column in ("question", "text"))
    frame = pd.DataFrame(
        {
            "rater_id": table["rater_id"],
            "item_id": table["answer_id"],
            "prompt": question + '\n"' + text + '"',
            "options": [list(_VOTES)] * len(table),
            "choice": (table["vote"] == "agree").astype(int),
        }
    )
    return _sequences(frame, "One person says of texts whether they agree.", most_people, length, seed)


def pair_sequences(
    answers: str | Path, pairs: str | Path, *, most_people: int = 1000, length: int | None = None, seed: int = 0
) -> list[PersonSequence]:
    """Read which of two texts each person preferred; pairs without a preference are left out.

    Args:
        answers: Parquet file with `answer_id`, `question` and `text`.
        pairs: Parquet file with `rater_id`, `answer_a`, `answer_b` and `vote` (a, b, or words).
        most_people: As in `judgement_sequences`.
        length: As in `judgement_sequences`.
        seed: Random seed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     answers, pairs = Path(folder) / "answers.parquet", Path(folder) / "pairs.parquet"
        ...     texts = pd.DataFrame({"answer_id": list("xyz"), "text": ["Peace.", "Noise.", "Fun."]})
        ...     texts.assign(question="Why?").to_parquet(answers)
        ...     voted = {"answer_a": list("xyxy"), "answer_b": list("yzyz"), "vote": list("abba")}
        ...     pd.DataFrame(voted | {"rater_id": list("mmnn")}).to_parquet(pairs)
        ...     sequence = pair_sequences(answers, pairs)[0]
        >>> sorted(example.output for example in sequence.examples)
        ['A', 'B']
    """
    texts = pd.read_parquet(answers).set_index("answer_id")
    table = pd.read_parquet(pairs)
    table = table[table["vote"].isin(["a", "b"])]
    frame = pd.DataFrame(
        {
            "rater_id": table["rater_id"],
            "prompt": table["answer_a"].map(texts["question"]),
            "response_a": table["answer_a"].map(texts["text"]),
            "response_b": table["answer_b"].map(texts["text"]),
            "choice": table["vote"],
        }
    )
    frame = frame[frame["response_a"] != frame["response_b"]]
    return _sequences(frame, "Which of two texts speaks for this person?", most_people, length, seed)


def _sequences(
    frame: pd.DataFrame, description: str, most_people: int, length: int | None, seed: int
) -> list[PersonSequence]:
    frame = frame.dropna().reset_index(drop=True)  # a vote on a text that is not there
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", JudgementWarning)  # texts that one person judged are no fault here
        judgements = Judgements.from_frame(frame, duplicates="first")
    return judgement_sequences(judgements, description=description, most_people=most_people, length=length, seed=seed)
