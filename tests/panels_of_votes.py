"""Small panels of raters who vote, and answers in logarithms, for the tests of metrics."""

from __future__ import annotations

import numpy as np
import pandas as pd

from reward_models.judgements.records import Judgements


def votes(levels):
    """Ratings in {0, 1} from (R, I) levels; every rater rates every statement."""
    levels = np.asarray(levels)
    rater, item = np.divmod(np.arange(levels.size), levels.shape[1])
    frame = pd.DataFrame(
        {
            "rater_id": [f"r{u}" for u in rater],
            "prompt": "topic",
            "response": [f"statement {i}" for i in item],
            "rating": levels.ravel(),
        }
    )
    return Judgements.from_frame(frame, kind="rating", levels=[0, 1]).encode()


def log(*rows):
    with np.errstate(divide="ignore"):
        return np.log(np.array(rows, dtype=float))
