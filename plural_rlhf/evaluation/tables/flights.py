"""People with known tastes choose among flights: sequences of which the best possible prediction is known.

Each person weighs departure, duration, price and stops by one of 255 sets of weights in {-1, -.5, 0, .5}, not all 0,
and takes the best flight. The design is that of Qiu et al. (2025), https://arxiv.org/abs/2503.17523. A Bayesian who
knows it keeps the weights that explain every choice so far: no model predicts better.

Shapes: `W` sets of weights, `F` flights offered, 4 attributes.
"""

from __future__ import annotations

import itertools

import numpy as np

from plural_rlhf.evaluation.in_context.sequences import Example, PersonSequence
from reward_models.seeds import seeded_rng


__all__ = ["flight_sequences"]

_WEIGHTS = np.array([w for w in itertools.product((-1.0, -0.5, 0.0, 0.5), repeat=4) if any(w)])  # (255, 4)
_DESCRIPTION = "One person chooses a flight, again and again. Answers: the number of the flight."


def flight_sequences(people: int = 200, length: int = 20, *, flights: int = 3, seed: int = 0) -> list[PersonSequence]:
    """Generate people and their choices.

    Args:
        people: Number of people.
        length: Choices per person.
        flights: Flights per choice.
        seed: Random seed.

    Example:
        >>> [person] = flight_sequences(1, 20)
        >>> print(person.examples[0].input)
        Flight 1: departs 22:04, takes 9 h 13 min, 2 stops, $680
        Flight 2: departs 12:14, takes 2 h 13 min, 1 stop, $1470
        Flight 3: departs 22:07, takes 14 h 24 min, 0 stops, $1190
        Answer:
        >>> [round(person.examples[k].best_nats, 2) for k in (0, 4, 19)]  # what a Bayesian still loses
        [0.83, 0.41, 0.0]
    """
    rng = seeded_rng(seed, "flights")
    options = tuple(str(number + 1) for number in range(flights))
    sequences = []
    for person in range(people):
        weights = _WEIGHTS[rng.integers(len(_WEIGHTS))]
        belief = np.ones(len(_WEIGHTS))
        examples = []
        for trip in range(length):
            offered = np.column_stack([rng.random((flights, 3)), rng.integers(3, size=flights) / 2])  # (F, 4)
            chosen = int((offered @ weights).argmax())
            choices = (offered @ _WEIGHTS.T).argmax(axis=0)  # (W,) what each set of weights would choose
            chances = np.bincount(choices, belief, minlength=flights) / belief.sum()
            best = np.isclose(chances, chances.max())
            text = "\n".join(f"Flight {option}: {_words(f)}" for option, f in zip(options, offered, strict=True))
            examples.append(
                Example(
                    f"{text}\nAnswer:",
                    options[chosen],
                    options,
                    f"{person}-{trip}",
                    best_nats=max(0.0, float(-np.log(chances[chosen]))),
                    best_correct=float(best[chosen] / best.sum()),
                )
            )
            belief = belief * (choices == chosen)
        sequences.append(PersonSequence(f"traveller-{person}", tuple(examples), _DESCRIPTION))
    return sequences


def _words(flight: np.ndarray) -> str:
    """Say departure (05:00 to 24:00), duration (45 minutes to 16 hours), stops (0 to 2) and price ($50 to $1,500)."""
    departs, duration = round(300 + 1140 * flight[0]), round(45 + 915 * flight[1])
    stops = int(2 * flight[3])
    return (
        f"departs {departs // 60:02d}:{departs % 60:02d}, takes {duration // 60} h {duration % 60} min, "
        f"{stops} {'stop' if stops == 1 else 'stops'}, ${round(5 + 145 * flight[2]) * 10}"
    )
