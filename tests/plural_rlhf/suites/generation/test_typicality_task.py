"""Planted typicality: people who choose the more probable answer, and people who do not look at it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from plural_rlhf.suites.engine.context import Context
from plural_rlhf.suites.models.protocol import EvaluatedModel, NotSupported, SegmentLosses
from plural_rlhf.suites.tasks.generation.typicality import TypicalityTask
from plural_rlhf.suites.tasks.protocol import TaskData
from tests.plural_rlhf.suites.generation.test_generation_tasks import row
from tests.plural_rlhf.suites.golden_rows import check_rows


class Reader(EvaluatedModel):
    """Finds an answer the less probable the larger the number in it is."""

    name, identity, kind = "reader", "reader", "callable"

    def sequence_losses(self, sequences):
        return [SegmentLosses(np.array([float(one.output.split()[1])]), np.array([False])) for [one] in sequences]


def data_of(folder, slope):
    rng = np.random.default_rng(0)
    rows = []
    for pair in range(150):
        nats = rng.integers(0, 9, 2)
        probability = 1 / (1 + np.exp(-slope * (nats[1] - nats[0])))
        texts = {
            f"response_{side}": f"answer {n} {'x ' * rng.integers(1, 5)}" for side, n in zip("ab", nats, strict=True)
        }
        for rater in range(3):
            choice = "tie" if rng.random() < 0.1 else "a" if rng.random() < probability else "b"
            rows.append({"rater_id": f"r{rater}", "instruction": f"{pair}?", "input": None, **texts, "choice": choice})
    (folder / "pandalm").mkdir()
    pd.DataFrame(rows).to_parquet(folder / "pandalm" / "preferences.parquet")
    return TaskData(folder)


@pytest.mark.parametrize("slope", [0.5, 0.0])
def test_the_slope_of_choices_is_found(tmp_path, slope):
    pytest.importorskip("statsmodels")
    task = TypicalityTask()
    result = task.measure(task.load(data_of(tmp_path, slope)), Context(Reader()))
    check_rows(f"typicality_{slope}", result)
    alpha = row(result, "typicality_alpha")
    assert alpha.ci_low < slope < alpha.ci_high
    assert (alpha.ci_low > 0) == (slope > 0)
    assert alpha.headline


def test_few_pairs_are_skipped_with_the_reason(tmp_path):
    task, data = TypicalityTask(), data_of(tmp_path, 0.5)
    few = task.load(TaskData(data.root, max_items=4))
    assert len(few) == 4
    with pytest.raises(NotSupported, match="at least 20 pairs"):
        task.measure(few, Context(Reader()))
