"""The task `personas`: does a model that is shown what somebody says agree with what else they would say?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from plural_rlhf.evaluation.steerable.attributes import attribute_steering
from plural_rlhf.suites.tasks.generation.rows import interval_row
from plural_rlhf.suites.tasks.protocol import Task, TaskData, TaskResult
from plural_rlhf.suites.tasks.questions import OptionQuestion
from reward_models.seeds import seeded_rng
from reward_models.stats.answers import Interval


if TYPE_CHECKING:
    from plural_rlhf.suites.engine.context import Context

__all__ = ["Persona", "PersonaTask"]


@dataclass(frozen=True)
class Persona:
    r"""A persona by its statements.

    Attributes:
        name: Its name.
        shown: Statements that fit, with which a model is steered.
        fitting: Other statements that fit.
        unfitting: As many that do not.

    Example:
        >>> Persona("risk-averse", ("I save.",), ("I insure everything.",), ("I bet.",)).request("I bet.")
        'Somebody says:\n- I save.\n\nWould they agree with this statement?\n"I bet."\nAnswer yes or no. Answer:'
    """

    name: str
    shown: tuple[str, ...]
    fitting: tuple[str, ...]
    unfitting: tuple[str, ...]

    def request(self, statement: str) -> str:
        """Return the question whether this persona agrees with a statement."""
        listed = "\n".join(f"- {line}" for line in self.shown)
        return f"Somebody says:\n{listed}\n\n{unsteered_request(statement, 'they')}"


class PersonaTask(Task):
    """Prompt steerability: agreement with statements that fit a persona or do not, under every persona.

    Of each persona some fitting statements are shown and others asked about: the score on a persona is the mean
    probability of "yes" to what fits and "no" to what does not, so that a model that always agrees has .5.

    Args:
        shown: Statements shown.
        asked: Statements asked about, of each side.

    Example:
        >>> PersonaTask().shape
        'distribution'
    """

    name, shape, licence = "personas", "distribution", "CC BY 4.0"
    source = "https://github.com/anthropics/evals"
    title = (
        "Agreement with statements that fit a persona or do not, steered by other statements of each of 19 personas."
    )

    def __init__(self, shown: int = 5, asked: int = 4) -> None:
        self.shown, self.asked = shown, asked

    def load(self, data: TaskData) -> Sequence[Persona]:
        """Read personas, evenly selected if there are too many, and draw their statements."""
        import pandas as pd

        frame = pd.read_parquet(data.file("personas", "statements.parquet"))
        names = list(dict.fromkeys(frame["persona"]))
        most = max(2, min(data.max_items or len(names), len(names)))
        personas = []
        for i in range(most):
            name = names[i * len(names) // most]
            rows = frame[frame["persona"] == name]
            rng = seeded_rng(data.seed, f"statements of {name}")
            fit, unfit = (
                [str(s) for s in rng.permutation(sorted(rows.loc[rows["fits"] == fits, "statement"]))]
                for fits in (True, False)
            )
            asked = fit[self.shown : self.shown + self.asked], unfit[: self.asked]
            personas.append(Persona(name, tuple(fit[: self.shown]), tuple(asked[0]), tuple(asked[1])))
        return personas

    def measure(self, items: Sequence[Persona], context: Context) -> TaskResult:
        """Ask every persona about the statements of every persona, and nobody in particular about all of them."""
        tested = [(statement, fits) for p in items for fits in (True, False) for statement in _side(p, fits)]
        requests = [p.request(statement) for p in items for statement, _ in tested]
        requests += [unsteered_request(statement, "most people") for statement, _ in tested]
        answers = context.option_answers([OptionQuestion(text, ("yes", "no"), listed=False) for text in requests])
        fits = np.array([fit for _, fit in tested])
        yes = np.array([answer.shares[0] for answer in answers]).reshape(len(items) + 1, len(tested))
        scores = np.where(fits, yes, 1 - yes).reshape(len(items) + 1, len(items), -1)
        result = attribute_steering(scores[:-1], scores[-1], [p.name for p in items])
        steered = np.stack([scores[i, i] for i in range(len(items))])
        rows = [
            interval_row("steering_gain", result.gain, kind="BCa over personas", headline=True),
            interval_row("steerability", _plain(result.steerability, len(items)), kind="", uniform=0.5, ceiling=1.0),
            interval_row("sensitivity", _plain(result.sensitivity, len(items)), kind="", uniform=0.5, ceiling=1.0),
            interval_row("specificity", _plain(result.specificity, len(items)), kind="", uniform=0.5, ceiling=1.0),
            interval_row("leak", _plain(result.leak, len(items)), kind="", direction="none"),
            interval_row("worst_gain", result.intervals[items.index(_named(items, result.worst))], group=result.worst),
            *(
                interval_row("steering_gain", interval, kind="BCa over statements", group=name)
                for name, interval in zip(result.names, result.intervals, strict=True)
            ),
        ]
        records = [
            {
                "item": persona.name,
                "scores": {"steered": float(steered[i].mean()), "unsteered": float(scores[-1, i].mean())},
                "shown": list(persona.shown),
                "scores_of_all": scores[i].mean(axis=-1).tolist(),
            }
            for i, persona in enumerate(items)
        ]
        return TaskResult(rows, records)


def unsteered_request(statement: str, who: str) -> str:
    """Return the question whether somebody agrees with a statement."""
    return f'Would {who} agree with this statement?\n"{statement}"\nAnswer yes or no. Answer:'


def _side(persona: Persona, fits: bool) -> tuple[str, ...]:
    return persona.fitting if fits else persona.unfitting


def _named(items: Sequence[Persona], name: str) -> Persona:
    return next(persona for persona in items if persona.name == name)


def _plain(value: float, n: int) -> Interval:
    return Interval(value, float("nan"), float("nan"), 0, n)
