"""Files of Modular Pluralism that two tasks on steering by words read. Knows no task."""

from __future__ import annotations

from pathlib import Path

from plural_rlhf.suites.tasks.protocol import TaskData


__all__ = ["MODULAR_PLURALISM", "modular_pluralism_file"]

MODULAR_PLURALISM = "https://github.com/BunsenFeng/modular_pluralism"


def modular_pluralism_file(data: TaskData, name: str) -> Path:
    """Return the path of a file of its folder `input`, or raise that there is none and where it is to be had.

    Example:
        >>> modular_pluralism_file(TaskData("nowhere"), "values.json")
        Traceback (most recent call last):
        plural_rlhf.suites.tasks.protocol.TaskUnavailable: there is no file nowhere/modular_pluralism/values.json: ...
    """
    return data.file("modular_pluralism", name, source=f"{MODULAR_PLURALISM} (input/{name})")
