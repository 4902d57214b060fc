"""The data on polarized issues that several tasks read: samples of the US public on two topics, a file per table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from plural_rlhf.suites.tasks.protocol import TaskData


if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LICENCE", "SOURCE", "TOPICS", "polarized_files", "polarized_votes"]

TOPICS = ("campus-protests", "right-to-assemble")
SOURCE = "https://github.com/akonya/polarized-issues-data"
LICENCE = "CC BY 4.0"


def polarized_files(data: TaskData, topic: str, *tables: str) -> list[Path]:
    """Return the parquet files of some tables (`answers`, `votes`, `pairs`) of a topic.

    Raises:
        TaskUnavailable: A file is not there.

    Example:
        >>> polarized_files(TaskData("nowhere"), "campus-protests", "votes")
        Traceback (most recent call last):
        plural_rlhf.suites.tasks.protocol.TaskUnavailable: there is no file nowhere/polarized/campus-protests-votes...
    """
    return [data.file("polarized", f"{topic}-{table}.parquet", source=SOURCE) for table in tables]


def polarized_votes(data: TaskData, topic: str) -> pd.DataFrame:
    """Read votes as rows of rater_id, prompt, response and rating (-1, 1); those on empty answers are left out.

    Example:
        >>> polarized_votes(TaskData("nowhere"), "campus-protests")
        Traceback (most recent call last):
        plural_rlhf.suites.tasks.protocol.TaskUnavailable: there is no file nowhere/polarized/...
    """
    import pandas as pd

    answers, votes = map(pd.read_parquet, polarized_files(data, topic, "answers", "votes"))
    answers = answers[answers["text"].str.strip() != ""]
    rows = votes.merge(answers[["answer_id", "question", "text"]], on="answer_id")
    frame = pd.DataFrame(
        {
            "rater_id": rows["rater_id"],
            "prompt": rows["question"],
            "response": rows["text"],
            "rating": rows["vote"].map({"agree": 1, "disagree": -1}),
        }
    )
    return frame.dropna().drop_duplicates(["rater_id", "prompt", "response"])
