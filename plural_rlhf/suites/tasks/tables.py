"""Tables of judgements that several tasks read. Knows no model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plural_rlhf.suites.tasks.protocol import TaskData


if TYPE_CHECKING:
    import pandas as pd

__all__ = ["pandalm_frame"]


def pandalm_frame(data: TaskData) -> pd.DataFrame:
    """Read PandaLM's pairs as rows of rater_id, prompt, response_a, response_b and choice.

    Pairs of equal answers are left out, and those with an empty one, of which the published table has some.

    Example:
        >>> pandalm_frame(TaskData("nowhere"))
        Traceback (most recent call last):
        plural_rlhf.suites.tasks.protocol.TaskUnavailable: there is no file nowhere/pandalm/preferences.parquet...
    """
    import pandas as pd

    frame = pd.read_parquet(data.file("pandalm", "preferences.parquet", source="https://github.com/WeOpenML/PandaLM"))
    frame["prompt"] = frame["instruction"].str.cat(frame["input"].fillna(""), sep="\n").str.strip()
    frame = frame.fillna({"response_a": "", "response_b": ""})
    written = (frame["response_a"].str.strip() != "") & (frame["response_b"].str.strip() != "")
    frame = frame[written & (frame["response_a"] != frame["response_b"])]
    return frame[["rater_id", "prompt", "response_a", "response_b", "choice"]].astype(str)
