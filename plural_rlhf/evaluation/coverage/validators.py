"""Whether a text is a valid answer to a generation task: a validator returns the value that it names, or None.

Spellings of one thing ("Aluminium", "Aluminum") are one value; where a form is asked for ("Monday", "CA"), other forms
are invalid. Knows nothing of prompts or measures.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from math import isqrt

from plural_rlhf.evaluation.coverage.word_lists import CAR_MODELS, ELEMENTS, colours, gerunds


__all__ = [
    "Validator",
    "car_brand",
    "car_model",
    "colour",
    "element_name",
    "email",
    "gerund_word",
    "integer",
    "international_phone",
    "one_of",
    "prime",
    "professional_email",
    "us_phone",
]

Validator = Callable[[str], str | None]
"""Maps a text without outer white space to the value that it names; None if it is no valid answer."""

_SPELLINGS = {"Aluminium": "Aluminum", "Caesium": "Cesium", "Sulphur": "Sulfur"}
_NICKNAMES = {"chevy": "Chevrolet", "vw": "Volkswagen", "mercedes": "Mercedes-Benz", "mercedes benz": "Mercedes-Benz"}
_MAKES = {make.casefold(): make for make in CAR_MODELS} | _NICKNAMES
_FREE_MAIL = (
    "|gmail|googlemail|yahoo|hotmail|outlook|live|aol|icloud|me|mac|msn|gmx|web|mail|protonmail|proton|yandex|"
)
_EMAIL = re.compile(
    r"[A-Za-z0-9_%+-]+(?:\.[A-Za-z0-9_%+-]+)*@((?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)+)[A-Za-z]{2,}"
)
_US_PHONE = re.compile(r"(?:\+?1[-. ]?)?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[-. ]?)[2-9]\d{2}[-. ]?\d{4}")
_INTERNATIONAL = re.compile(r"(?:\+|00)[1-9]\d{0,2}(?:[-. ()/]*\d)+")
_PRIME_WITNESSES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41)  # enough below 3.3e24 (Sorenson, Webster 2015)
_MOST_DIGITS = 24


def one_of(values: Collection[str]) -> Validator:
    """Return a validator of a closed set: exactly one of the values.

    Example:
        >>> weekday = one_of({"Monday", "Tuesday"})
        >>> weekday("Monday"), weekday("monday")
        ('Monday', None)
    """
    allowed = frozenset(values)
    return lambda text: text if text in allowed else None


def integer(least: int, most: int) -> Validator:
    """Return a validator of whole numbers from `least` to `most`, in digits without leading zeros.

    Example:
        >>> die = integer(1, 6)
        >>> die("6"), die("7"), die("six"), die("06")
        ('6', None, None, None)
    """

    def validator(text: str) -> str | None:
        number = _number(text)
        return text if number is not None and least <= number <= most else None

    return validator


def prime(text: str) -> str | None:
    """Return a prime number of at most 24 digits.

    Example:
        >>> prime("97"), prime("91"), prime("1"), prime("2305843009213693951")
        ('97', None, None, '2305843009213693951')
    """
    number = _number(text)
    return text if number is not None and _is_prime(number) else None


def element_name(text: str) -> str | None:
    """Return the name of a chemical element in American spelling; British spelling and lower case are read.

    Example:
        >>> element_name("aluminium"), element_name("Al")
        ('Aluminum', None)
    """
    name = text.capitalize()
    name = _SPELLINGS.get(name, name)
    return name if name in _ELEMENT_NAMES else None


_ELEMENT_NAMES = frozenset(ELEMENTS.values())


def colour(text: str) -> str | None:
    """Return a known colour in lower case, with or without the spaces of its name.

    Example:
        >>> colour("Dusty Rose"), colour("Light Goldenrod Yellow"), colour("table")
        ('dusty rose', 'lightgoldenrodyellow', None)
    """
    name = " ".join(text.lower().replace("-", " ").split())
    return next((known for known in (name, name.replace(" ", "")) if known in colours()), None)


def gerund_word(text: str) -> str | None:
    """Return a single word on -ing of a known verb, in lower case; three dots after it are ignored.

    Example:
        >>> gerund_word("Pondering..."), gerund_word("Morning"), gerund_word("Thinking hard")
        ('pondering', None, None)
    """
    word = text.lower().removesuffix("...").removesuffix("…").strip()
    return word if word in gerunds() else None


def car_brand(text: str) -> str | None:
    """Return a make of cars.

    Example:
        >>> car_brand("VW"), car_brand("BMW"), car_brand("Civic")
        ('Volkswagen', 'BMW', None)
    """
    return _MAKES.get(text.casefold())


def car_model(text: str) -> str | None:
    """Return a make and model of cars; a year before them is ignored.

    Example:
        >>> car_model("2015 honda civic"), car_model("Honda Corolla"), car_model("Honda")
        ('Honda Civic', None, None)
    """
    name = re.sub(r"^(?:19|20)\d{2} ", "", text).casefold()
    for prefix, make in _MAKES.items():
        if name.startswith(f"{prefix} "):
            rest = name[len(prefix) + 1 :]
            model = next((model for model in CAR_MODELS[make] if model.casefold() == rest), None)
            if model is not None:
                return f"{make} {model}"
    return None


def email(text: str) -> str | None:
    """Return an e-mail address of ordinary form, in lower case.

    Example:
        >>> email("Jo.Lee@example.org"), email("jo@example"), email("jo..lee@example.org")
        ('jo.lee@example.org', None, None)
    """
    return text.lower() if _EMAIL.fullmatch(text) else None


def professional_email(text: str) -> str | None:
    """Return an e-mail address, in lower case, that does not belong to a provider of free mail.

    Example:
        >>> professional_email("jo.lee@acme.com"), professional_email("jo@gmail.com")
        ('jo.lee@acme.com', None)
    """
    address = _EMAIL.fullmatch(text)
    provider = "" if address is None else address.group(1).lower().split(".")[-2]
    return text.lower() if address is not None and f"|{provider}|" not in _FREE_MAIL else None


def us_phone(text: str) -> str | None:
    """Return the ten digits of a North American telephone number; area code and exchange begin with 2 to 9.

    Example:
        >>> us_phone("(415) 555-0134"), us_phone("+1 415-555-0134"), us_phone("123-456-7890")
        ('4155550134', '4155550134', None)
    """
    return re.sub(r"\D", "", text)[-10:] if _US_PHONE.fullmatch(text) else None


def international_phone(text: str) -> str | None:
    """Return the digits of an international number: + or 00, then 7 to 15 digits (ITU-T E.164).

    Example:
        >>> international_phone("+49 30 901820"), international_phone("030 901820")
        ('4930901820', None)
    """
    digits = re.sub(r"\D", "", text.removeprefix("00"))
    return digits if _INTERNATIONAL.fullmatch(text) and 7 <= len(digits) <= 15 else None


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"0|[1-9]\d*", text, re.ASCII) and len(text) <= _MOST_DIGITS else None


def _is_prime(number: int) -> bool:
    """Decide by trial division below a million, else by the Miller-Rabin test with witnesses that leave no doubt."""
    if number < 1_000_000:
        return number > 1 and all(number % divisor for divisor in range(2, isqrt(number) + 1))
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    return all(_passes(number, witness, odd, twos) for witness in _PRIME_WITNESSES)


def _passes(number: int, witness: int, odd: int, twos: int) -> bool:
    power = pow(witness, odd, number)
    for _ in range(twos):
        if power in (1, number - 1):
            return True
        power = power * power % number
        if power == 1:
            return False
    return False
