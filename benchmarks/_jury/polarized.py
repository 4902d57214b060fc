"""Votes and pairs of the same people on the answers to open questions: the polarized-issues data.

A. Konya and others, Remesh collective dialogues of 2024, akonya/polarized-issues-data, CC BY 4.0. About 310 people per
topic wrote answers, voted on about 20 answers of others and compared about 20 pairs; an answer has about five votes.
Knows nothing of models or splits.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    import pandas as pd

    from reward_models.judgements.records import Judgements

__all__ = ["POLARIZED", "load_polarized"]

POLARIZED = ("campus-protests", "right-to-assemble")
UNDECIDED = "I'm not sure"


def load_polarized(folder: Path, topic: str) -> tuple[Judgements, Judgements]:
    """Read a topic.

    Args:
        folder: Where `<topic>-answers.parquet`, `-votes`, `-pairs` and `-raters` are.
        topic: One of `POLARIZED`.

    Returns:
        Votes (-1, 1), and pairs; agreeing or disagreeing with both and similar answers are ties, "not sure" is left
        out. Judgements of empty answers are left out. The raters' traits go with both.
    """
    import numpy as np
    import pandas as pd

    from reward_models.judgements.records import Judgements

    answers, votes, pairs, raters = (
        pd.read_parquet(folder / f"{topic}-{part}.parquet") for part in ("answers", "votes", "pairs", "raters")
    )
    text = answers[answers["text"].str.strip() != ""].set_index("answer_id")["text"]
    question = answers.drop_duplicates("question_id").set_index("question_id")["question"]
    traits = raters.drop(columns="topic").set_index("rater_id").add_prefix("rater:")

    def table(judgements: pd.DataFrame, **columns: pd.Series) -> pd.DataFrame:
        """Rows in canonical columns, without empty answers."""
        asked = {"rater_id": judgements["rater_id"], "prompt": judgements["question_id"].map(question)}
        return pd.DataFrame(asked | columns).dropna().join(traits, on="rater_id")

    voted = table(votes, response=votes["answer_id"].map(text), rating=votes["vote"].map({"agree": 1, "disagree": -1}))
    voted = voted.drop_duplicates(["rater_id", "prompt", "response"])
    pairs = pairs[pairs["vote"] != UNDECIDED]
    compared = table(
        pairs,
        response_a=pairs["answer_a"].map(text),
        response_b=pairs["answer_b"].map(text),
        choice=pairs["vote"].where(pairs["vote"].isin(["a", "b"]), "tie"),
    )
    ordered = np.sort(compared[["response_a", "response_b"]].to_numpy(dtype=str), axis=1)
    again = compared[["rater_id", "prompt"]].assign(one=ordered[:, 0], other=ordered[:, 1]).duplicated()
    compared = compared[~again & (ordered[:, 0] != ordered[:, 1])]
    return Judgements.from_frame(voted, levels=(-1, 1)), Judgements.from_frame(compared)
