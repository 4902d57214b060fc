"""The 22 generation tasks whose answers a rule can check, as in Spectrum Tuning's output-space coverage.

A task has a description, three examples and a validator; where all valid values are known, their number. Prompts show
the description, the examples, or both. Descriptions, examples and validators are our own, so that numbers compare
models with each other, not with published figures. Source of the protocol: Sorensen et al. (2025),
https://arxiv.org/abs/2510.06084. Knows nothing of models or measures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from plural_rlhf.evaluation.coverage import validators as check
from plural_rlhf.evaluation.coverage.word_lists import CAR_MODELS, ELEMENTS, STATES, WEEKDAYS, colours, gerunds
from reward_models.errors import did_you_mean


__all__ = ["GENERATION_TASKS", "SETTINGS", "GenerationTask", "Setting", "generation_task"]

Setting = Literal["description", "examples", "both"]
SETTINGS: tuple[Setting, ...] = ("description", "examples", "both")
"""What a prompt shows."""


@dataclass(frozen=True)
class GenerationTask:
    r"""A task whose answers can be checked.

    Attributes:
        name: Name in tables; that of the published task, but for `gerunds`.
        description: What is asked for.
        examples: Three valid answers.
        validator: Returns the value that a text names, or None.
        num_values: Number of valid values; None if there are more than anybody will draw.
        values: All valid values, where the set is closed, so that a uniform policy is defined; else empty.
        max_new_tokens: Longest answer in tokens.

    Example:
        >>> task = generation_task("rng_1_10")
        >>> task.value("7"), task.value(" 7\n8"), task.value("seven"), task.num_values
        ('7', '7', None, 10)
        >>> print(task.prompt("both"))
        A random whole number from 1 to 10. Give one, and nothing else.
        <BLANKLINE>
        Answer: 4
        Answer: 9
        Answer: 1
        Answer:
    """

    name: str
    description: str
    examples: tuple[str, str, str]
    validator: check.Validator
    num_values: int | None = None
    values: tuple[str, ...] = ()
    max_new_tokens: int = 12

    def value(self, text: str) -> str | None:
        """Return the value that the first line of a generation names; None if it is not valid."""
        lines = text.strip().removeprefix(_ANSWER).strip().splitlines()
        return self.validator(lines[0].strip()) if lines else None

    def prompt(self, setting: Setting = "both") -> str:
        """Return the prompt of a setting; it ends where the answer begins, and an answer is one line.

        Raises:
            ValueError: The setting is unknown.
        """
        if setting not in SETTINGS:
            raise ValueError(f"setting={setting!r} is unknown. Fix: one of {', '.join(SETTINGS)}.")
        request = "Give one more of the same kind" if setting == "examples" else f"{self.description} Give one"
        shown = [] if setting == "description" else [f"{_ANSWER} {example}" for example in self.examples]
        return "\n".join([f"{request}, and nothing else.\n", *shown, _ANSWER])


_ANSWER = "Answer:"


def generation_task(name: str) -> GenerationTask:
    """Return a task by its name.

    Raises:
        ValueError: No task has the name.

    Example:
        >>> generation_task("weekdays_full").values[:2]
        ('Monday', 'Tuesday')
    """
    if name not in GENERATION_TASKS:
        raise ValueError(
            f"there is no generation task {name!r}.{did_you_mean(name, GENERATION_TASKS)} Fix: one of "
            f"{', '.join(GENERATION_TASKS)}."
        )
    return GENERATION_TASKS[name]


def _closed(
    name: str, description: str, examples: tuple[str, str, str], values: tuple[str, ...], tokens: int = 8
) -> GenerationTask:
    return GenerationTask(name, description, examples, check.one_of(values), len(values), values, tokens)


def _numbers(name: str, most: int, examples: tuple[str, str, str]) -> GenerationTask:
    values = tuple(str(number) for number in range(1, most + 1))
    return _closed(name, f"A random whole number from 1 to {most}.", examples, values, tokens=5)


def _tasks() -> list[GenerationTask]:
    brands, models = tuple(CAR_MODELS), tuple(f"{make} {model}" for make, of in CAR_MODELS.items() for model in of)
    symbols, elements = tuple(ELEMENTS), tuple(ELEMENTS.values())
    short, states = tuple(STATES), tuple(STATES.values())
    small_primes = tuple(str(number) for number in range(2, 100) if check.prime(str(number)))
    return [
        GenerationTask(
            "car_make_model",
            "Make and model of a car that was sold in the United States.",
            ("Honda Civic", "Ford Mustang", "Subaru Outback"),
            check.car_model,
            len(models),
            models,
        ),
        GenerationTask(
            "car_brand", "A brand of cars.", ("Toyota", "Jeep", "Volvo"), check.car_brand, len(brands), brands, 8
        ),
        GenerationTask(
            "gerunds",
            "A single English word ending in -ing that says what somebody is doing.",
            ("Pondering", "Baking", "Wandering"),
            check.gerund_word,
            len(gerunds()),
            max_new_tokens=8,
        ),
        GenerationTask(
            "color_normal_ex", "The name of a color.", ("red", "blue", "green"), check.colour, len(colours())
        ),
        GenerationTask(
            "color_interesting_ex",
            "The name of a color.",
            ("periwinkle", "burnt sienna", "seafoam green"),
            check.colour,
            len(colours()),
        ),
        GenerationTask(
            "basic_emails",
            "An e-mail address.",
            ("sunny.days88@gmail.com", "mtran@example.org", "k_oneil@yahoo.com"),
            check.email,
            max_new_tokens=24,
        ),
        GenerationTask(
            "professional_emails",
            "An e-mail address that somebody uses at work.",
            ("maria.lopez@northwindfoods.com", "d.chen@harborlaw.com", "info@riverdaleschools.org"),
            check.professional_email,
            max_new_tokens=24,
        ),
        _closed("element_symbols", "The symbol of a chemical element.", ("Fe", "O", "Ag"), symbols, 5),
        GenerationTask(
            "element_names",
            "The name of a chemical element.",
            ("Carbon", "Neon", "Titanium"),
            check.element_name,
            len(elements),
            elements,
            8,
        ),
        GenerationTask(
            "us_phone_numbers",
            "A telephone number in the United States, with area code.",
            ("(415) 555-0134", "212-736-5000", "(303) 442-7810"),
            check.us_phone,
            max_new_tokens=20,
        ),
        GenerationTask(
            "international_phone_numbers",
            "A telephone number in international form, with country code.",
            ("+44 20 7946 0958", "+81 3 3580 3311", "+55 11 3091 3116"),
            check.international_phone,
            max_new_tokens=24,
        ),
        GenerationTask("prime_numbers", "A prime number.", ("29", "7919", "523"), check.prime, max_new_tokens=10),
        _closed("small_prime_numbers", "A prime number below 100.", ("13", "61", "2"), small_primes, 5),
        GenerationTask(
            "random_seed",
            "A random seed for a program: a whole number from 0 to 4294967295.",
            ("48213", "2718281828", "905"),
            check.integer(0, 2**32 - 1),
            2**32,
        ),
        _numbers("rng_1_10", 10, ("4", "9", "1")),
        _numbers("rng_1_100", 100, ("38", "91", "7")),
        _closed("us_states_full_names", "A state of the United States.", ("Oregon", "Ohio", "West Virginia"), states),
        _closed(
            "us_states_abbreviations",
            "The postal abbreviation of a state of the United States.",
            ("OR", "OH", "WV"),
            short,
            5,
        ),
        _closed(
            "us_states_any_format",
            "A state of the United States, as a name or as a postal abbreviation.",
            ("Oregon", "OH", "West Virginia"),
            (*states, *short),
        ),
        _closed("weekdays_full", "A day of the week.", ("Friday", "Monday", "Sunday"), tuple(WEEKDAYS.values()), 5),
        _closed(
            "weekdays_abbreviated",
            "A day of the week, abbreviated to three letters.",
            ("Fri", "Mon", "Sun"),
            tuple(WEEKDAYS),
            5,
        ),
        _closed(
            "weekdays_any_format",
            "A day of the week, as a full name or abbreviated to three letters.",
            ("Friday", "Mon", "Sunday"),
            (*WEEKDAYS.values(), *WEEKDAYS),
            5,
        ),
    ]


GENERATION_TASKS: Mapping[str, GenerationTask] = {task.name: task for task in _tasks()}
"""The 22 tasks by name."""
