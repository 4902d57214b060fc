"""Tasks `jury-...` on judgements: how well does a jury predict what people judge, each adapted by half of theirs?

The models beside it know of leniency and scale what the jury knows: the jury without knowledge of its raters, one
reward for everybody, the frequencies of the answers, a uniform guess. Judgements that the jury was fitted to are left
out where `heldout.json` beside its folder names them; else it is not known.

Shapes: `U` texts, `K` clusters.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from plural_rlhf.suites.models.protocol import NotSupported
from plural_rlhf.suites.tasks.juries.rows import jury_rows
from plural_rlhf.suites.tasks.polarized import LICENCE, SOURCE, TOPICS, polarized_votes
from plural_rlhf.suites.tasks.protocol import Shape, Task, TaskData, TaskResult
from plural_rlhf.suites.tasks.tables import pandalm_frame
from reward_models.errors import JudgementWarning
from reward_models.evaluation.cells import Cells, evaluation_cells
from reward_models.evaluation.clusters import Clusters
from reward_models.evaluation.command.models import ONE_REWARD, measured_models
from reward_models.evaluation.evaluate_jury import evaluate_jury
from reward_models.evaluation.heldout import divide
from reward_models.evaluation.judgement_bootstrap import Bootstrap
from reward_models.evaluation.saved_jury import SavedJury
from reward_models.judgements.records import Judgements
from reward_models.seeds import seeded_rng


if TYPE_CHECKING:
    import pandas as pd

    from plural_rlhf.suites.engine.context import Context

__all__ = ["JUDGEMENT_TASKS", "JudgementTask", "RaterRows"]

RIVALS = ("jury, raters unknown", ONE_REWARD, "marginal", "uniform")


@dataclass(frozen=True)
class RaterRows:
    """The judgements of one rater.

    Attributes:
        rater_id: The rater.
        rows: Their judgements, as columns of `Judgements`.

    Example:
        >>> RaterRows("ann", ({"rater_id": "ann", "prompt": "Pet?", "response": "Cat.", "rating": 1},)).rater_id
        'ann'
    """

    rater_id: str
    rows: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class JudgementTask(Task):
    """A task of this family; its items are raters, so that `max_items` selects raters with all their judgements.

    Attributes:
        name: See `Task`.
        source: See `Task`.
        licence: See `Task`.
        title: See `Task`.
        judgements: Reads a table with `rater_id`, `prompt` and the columns of its kind of judgement.
        levels: Levels of ratings; None for other kinds.

    Example:
        >>> JUDGEMENT_TASKS["jury-pandalm"].shape
        'ratings'
    """

    name: str
    source: str
    licence: str
    title: str
    judgements: Callable[[TaskData], pd.DataFrame]
    levels: tuple[float, ...] | None = None
    shape: Shape = "ratings"

    def load(self, data: TaskData) -> Sequence[RaterRows]:
        """Read the table and select raters at random if there are too many."""
        frame = self.judgements(data)
        raters = sorted(set(frame["rater_id"]))
        if data.max_items is not None and len(raters) > data.max_items:
            rng = seeded_rng(data.seed, f"raters of {self.name}")
            raters = sorted(rng.permutation(np.array(raters, dtype=object))[: data.max_items])
        rows: dict[str, list[Mapping[str, Any]]] = {rater: [] for rater in raters}
        for row in frame.to_dict("records"):
            if row["rater_id"] in rows:
                rows[row["rater_id"]].append({str(name): value for name, value in row.items()})
        items = [RaterRows(rater, tuple(of_rater)) for rater, of_rater in rows.items()]
        self._table(items)  # a table that cannot be read is an error now, not after other tasks were asked
        return items

    def measure(self, items: Sequence[RaterRows], context: Context) -> TaskResult:
        """Score the texts, adapt to each rater by half of their judgements, and measure the others."""
        scorer, record = context.model.scorer, context.model.fitted_on
        table = self._table(items)
        if record is not None:
            _, table = divide(table, [record])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", JudgementWarning)
            cells = evaluation_cells(table, seed=context.seed)
        if cells.adapt is None:
            raise NotSupported("no rater has two judgements that the jury was not fitted to, to adapt by and to score")
        texts = list(dict.fromkeys(table.encode().texts))
        rewards = context.cluster_rewards(texts)
        jury, models = measured_models(scorer, None, texts, rewards, None, cells, None, seed=context.seed)
        clusters = None
        if jury.model.membership != "factor":
            clusters = Clusters(jury.memberships, scorer.cluster_names, scorer.prevalence)
        result = evaluate_jury(
            models,
            table,
            base=ONE_REWARD,
            model="jury",
            clusters=clusters,
            seed=context.seed,
            bootstrap=Bootstrap(draws=context.draws, seed=context.seed),
        )
        return TaskResult(jury_rows(result.rows, "jury", "nll_nats", RIVALS), _records(jury, cells))

    def _table(self, items: Sequence[RaterRows]) -> Judgements:
        import pandas as pd

        frame = pd.DataFrame([row for item in items for row in item.rows])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", JudgementWarning)  # texts that one person judged are no fault here
            return Judgements.from_frame(frame, levels=self.levels, duplicates="first")


def _records(jury: SavedJury, cells: Cells) -> list[dict[str, Any]]:
    """Return one record per rater: the mean nats and accuracy of their scored judgements."""
    assert cells.adapt is not None
    adapted = jury.adapt(cells.adapt.encode())
    records = []
    for table in cells.scored.values():
        enc = table.encode()
        log_probs = adapted.log_probs(enc)
        nats = -log_probs[np.arange(len(enc)), enc.label]
        right = log_probs.argmax(axis=1) == enc.label
        for number, rater in enumerate(enc.rater_ids):
            of_rater = enc.rater == number
            if of_rater.any():
                scores = {"nats": float(nats[of_rater].mean()), "right": float(right[of_rater].mean())}
                records.append({"item": str(rater), "scores": scores, "n": int(of_rater.sum())})
    return records


JUDGEMENT_TASKS: dict[str, JudgementTask] = {
    "jury-pandalm": JudgementTask(
        "jury-pandalm",
        "https://github.com/WeOpenML/PandaLM",
        "Apache-2.0",
        "Which of two answers of language models three people prefer, ties included.",
        pandalm_frame,
    ),
    **{
        f"jury-votes-{topic}": JudgementTask(
            f"jury-votes-{topic}",
            SOURCE,
            LICENCE,
            f"Whether people agree with what others wrote ({topic.replace('-', ' ')}).",
            lambda data, topic=topic: polarized_votes(data, topic),  # type: ignore[misc]
            levels=(-1.0, 1.0),
        )
        for topic in TOPICS
    },
}
"""Every task of this family by name."""
