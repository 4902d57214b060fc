"""Put the same questions in other forms, trained on or not: how far from people are a policy's answers then?

A policy that answers well in the form of its training may answer at random in another. Knows nothing of trainings.

Shapes: `I` questions, `A` offered answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from plural_rlhf.evaluation.distribution.answers import ClusterPanel
from plural_rlhf.policies.layouts import LAYOUTS, Layout
from plural_rlhf.recipe.data import Question
from plural_rlhf.report.names import Split
from plural_rlhf.report.results_policies import FormResult
from reward_models.stats.answers import coverage, js_divergence, normalise, total_variation
from reward_models.stats.two_way import two_way_interval


__all__ = ["Form", "form_results", "forms_of"]


@dataclass(frozen=True)
class Form:
    """How a question is put.

    Attributes:
        layout: How its offered answers are shown.
        backwards: Whether they are shown from the last to the first.
        trained: Whether the policies were trained on it.

    Example:
        >>> Form("list", backwards=True, trained=False).name
        'list, from the last'
    """

    layout: Layout
    backwards: bool = False
    trained: bool = True

    @property
    def name(self) -> str:
        """The form in words."""
        return f"{self.layout}{', from the last' if self.backwards else ''}"

    def order(self, question: Question) -> list[int] | None:
        """Return the positions of the answers in the order in which they are shown; None for that of the table."""
        return list(range(len(question.options)))[::-1] if self.backwards else None


def forms_of(layouts: Sequence[Layout], *, shuffled: bool = False) -> list[Form]:
    """Return every form that is measured: those of the training first, then the others.

    Args:
        layouts: Those of the training.
        shuffled: Whether the answers were shown in random order there.

    Example:
        >>> [(form.name, form.trained) for form in forms_of(["line"])]
        [('line', True), ('line, from the last', False), ('list', False), ('sentence', False), ('bare', False)]
    """
    forms = []
    for layout in (*layouts, *(other for other in LAYOUTS if other not in layouts)):
        trained = layout in layouts
        forms.append(Form(layout, trained=trained))
        if trained and layout != "bare":
            forms.append(Form(layout, backwards=True, trained=shuffled))
    return sorted(forms, key=lambda form: not form.trained)


def form_results(
    questions: Sequence[Question],
    panel: ClusterPanel,
    answers: Mapping[str, Mapping[Form, Sequence[np.ndarray]]],
    *,
    draws: int,
    level: float,
    seed: int,
) -> Iterator[FormResult]:
    """Yield how far from people each policy is in each form, asked for everybody.

    Args:
        questions: `I` questions.
        panel: The people's answers.
        answers: By policy and form, `I` arrays `(A,)` of probabilities.
        draws: Bootstrap draws.
        level: Level of the intervals.
        seed: Random seed.
    """
    for split in Split:
        items = [i for i, question in enumerate(questions) if question.split == split]
        if not items:
            continue
        people = panel.select(items).resample(None, draws=draws, seed=seed)
        for method, by_form in answers.items():
            for form, distributions in by_form.items():
                mass = np.stack([np.pad(p, (0, panel.n_options - len(p))) for p in (distributions[i] for i in items)])
                shares = normalise(mass)
                off = two_way_interval(people, partial(_points, shares), level=level, debias=False, bounds=(0.0, 1.0))
                yield FormResult(
                    form=form.name,
                    trained=form.trained,
                    method=method,
                    split=split,
                    points=off.value,
                    ci_low=off.low,
                    ci_high=off.high,
                    jsd_nats=float(js_divergence(people.human[0], shares).mean()),
                    coverage=float(coverage(mass).mean()),
                    n=len(items),
                )


def _points(policy: np.ndarray, human: np.ndarray) -> np.ndarray:
    return total_variation(human, policy)
