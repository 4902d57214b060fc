"""How far answers are from those of every community and of all people together, and which of two is nearer.

Knows answers and people; knows nothing of models.

Shapes: `I` questions, `A` options, `R` raters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from plural_rlhf.methods.modular.communities import Community
from reward_models.errors import JudgementError
from reward_models.judgements.records import Judgements
from reward_models.stats.answers import Interval, Resamples, js_divergence, resample_people
from reward_models.stats.two_way import two_way_interval


__all__ = ["EVERYBODY", "CommunityPeople"]

EVERYBODY = "everybody"
"""All people of all communities together."""


@dataclass(frozen=True)
class CommunityPeople:
    """People's answers to some questions, resampled, by community and for all together.

    Attributes:
        people: By name of the community, and `EVERYBODY`.
        items: Ids of the questions, in the order of every distribution.
        level: Level of the intervals.

    Example:
        >>> from reward_models import planted_judgements
        >>> judgements = planted_judgements("choice", num_raters=40, num_items=6).judgements
        >>> halves = [Community(name, 0.5, judgements.raters[n::2]) for n, name in enumerate(["left", "right"])]
        >>> people = CommunityPeople.of(judgements, halves, draws=50)
        >>> uniform, first = [np.full(3, 1 / 3)] * 6, [np.eye(3)[0]] * 6
        >>> round(people.divergence("left", uniform).value, 2), round(people.divergence("left", first).value, 2)
        (0.15, 0.27)
        >>> round(people.gain("left", uniform, first).value, 2)  # uniform answers are nearer
        -0.12
    """

    people: dict[str, Resamples]
    items: list[str]
    level: float = 0.95

    @classmethod
    def of(
        cls,
        judgements: Judgements,
        communities: Sequence[Community],
        *,
        draws: int = 1000,
        level: float = 0.95,
        seed: int = 0,
    ) -> CommunityPeople:
        """Take the answers of a `choice` table; people and questions are resampled.

        Args:
            judgements: Answers of people that no adapter was trained on.
            communities: Which of them belong where; people of no community are left out.
            draws: Resamples.
            level: Level of the intervals.
            seed: Random seed.

        Raises:
            JudgementError: Nobody of a community answered.
        """
        enc = judgements.encode()
        answers, size = enc.answer_matrix(), enc.item_alternatives.shape[1]
        place = {rater: n for n, rater in enumerate(enc.rater_ids)}
        members = {of.name: [place[rater] for rater in of.raters if rater in place] for of in communities}
        nobody = [name for name, rows in members.items() if not rows]
        if nobody:
            raise JudgementError(
                f"nobody of {', '.join(map(repr, nobody))} is among the {enc.n_raters} people to compare with. Fix: "
                "hold out more raters (data.heldout_raters), or leave the community out."
            )
        members[EVERYBODY] = sorted({row for rows in members.values() for row in rows})
        people = {}
        for name, rows in members.items():
            weight = np.zeros(enc.n_raters)
            weight[rows] = 1.0
            people[name] = resample_people(
                answers, size, rater_weights=weight, draws=draws, seed=seed, design=enc.design
            )
        return cls(people, enc.item_ids, level)

    def divergence(self, of: str, answers: Sequence[np.ndarray]) -> Interval:
        """Compute the mean JS divergence in nats between answers `(A,)` per question and those of some people."""
        policy = self._padded(of, answers)
        return two_way_interval(self.people[of], lambda human: js_divergence(human, policy), level=self.level)

    def gain(self, of: str, answers: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> Interval:
        """Compute the divergence of some answers less that of others, on the same people: below 0 they are nearer."""
        policy, other = self._padded(of, answers), self._padded(of, others)
        return two_way_interval(
            self.people[of],
            lambda human: js_divergence(human, policy) - js_divergence(human, other),
            level=self.level,
            debias=False,
        )

    def table(self, answers: Mapping[str, Sequence[np.ndarray]]) -> dict[str, dict[str, Interval]]:
        """Compute the divergence of every policy, by its name, from all people of every kind."""
        return {name: {of: self.divergence(of, rows) for of in self.people} for name, rows in answers.items()}

    def _padded(self, of: str, answers: Sequence[np.ndarray]) -> np.ndarray:
        padded = np.zeros((len(self.items), self.people[of].human.shape[-1]))
        for row, p in zip(padded, answers, strict=True):
            row[: len(p)] = p
        return padded
