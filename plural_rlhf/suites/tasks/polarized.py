"""The data on polarized issues that several tasks read: samples of the US public on two topics, a file per table."""

from __future__ import annotations

from pathlib import Path

from plural_rlhf.suites.tasks.protocol import TaskData


__all__ = ["LICENCE", "SOURCE", "TOPICS", "polarized_files"]

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
