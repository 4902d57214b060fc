"""Three ways to get a distribution over offered answers out of a model.

By the log-probability of every whole answer, by sampling and matching, and by asking the model to state percentages.
Knows no model and no data set.

Shapes: `A` options.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from plural_rlhf.suites.models.protocol import END_OF_ANSWER, NotSupported
from plural_rlhf.suites.tasks.questions import Labels, OptionAnswer, OptionQuestion, option_request
from reward_models.seeds import seeded_rng
from reward_models.stats.answers import normalise, total_variation


if TYPE_CHECKING:
    from plural_rlhf.suites.engine.context import Context
    from plural_rlhf.suites.models.protocol import OptionRequest

__all__ = ["SCORING", "ask_options", "matched_option", "percentages_prompt", "sensitivity", "stated_shares"]

STATE = (
    "Of 100 people who are asked this, how many give each answer? Write one line per answer, in the form "
    "`answer: number`, and nothing else."
)
_NUMBER = re.compile(r"[:=\-–—]\s*(?:about\s+|~\s*)?(\d+(?:\.\d+)?)\s*(?:%|percent|people)?\s*\.?\s*$")


def ask_options(
    context: Context,
    questions: Sequence[OptionQuestion],
    orders: Sequence[Sequence[int]] | None,
    labels: Labels,
) -> list[OptionAnswer]:
    """Ask a model for the distribution over the options of each question; see `Context.option_answers`.

    Raises:
        ValueError: A question has fewer than two options, or two that are the same.
    """
    for question in questions:
        if len(question.options) < 2 or len(set(question.options)) < len(question.options):
            raise ValueError(
                f"the options of {question.text[:60]!r} are {list(question.options)}: there must be at least two, all "
                "different. Fix: repair the item, or leave it out"
            )
    orders = [range(len(q.options)) for q in questions] if orders is None else orders
    requests = [option_request(q, order, labels, context.layout) for q, order in zip(questions, orders, strict=True)]
    answers = SCORING[context.scoring](context, requests)
    if questions and not any(answer.valid for answer in answers):
        raise NotSupported(
            f"none of the answers to {len(questions)} questions is an offered option (scoring: {context.scoring}), so "
            "there is no distribution to compare"
        )
    return [
        OptionAnswer(answer.shares[np.argsort(order)], answer.coverage, answer.valid)
        for answer, order in zip(answers, orders, strict=True)
    ]


def sensitivity(
    context: Context, questions: Sequence[OptionQuestion], answers: Sequence[OptionAnswer]
) -> dict[str, np.ndarray]:
    """Measure how far answers move when options are listed in another order, or under letters.

    The order is drawn at random, and differs from the option's own. Questions whose options are not listed have NaN.

    Args:
        context: The model and the settings.
        questions: The questions.
        answers: The answers under the own order and without labels.

    Returns:
        `order_sensitivity` and `label_sensitivity`, each the total variation per question; empty if no question lists
        its options or the context has no permutations.

    Example:
        >>> from plural_rlhf.suites.engine.context import Context
        >>> from plural_rlhf.suites.models.functions import CallableModel
        >>> first = CallableModel("first", option_shares=lambda prompt, options: np.eye(len(options))[0])
        >>> questions, context = [OptionQuestion("More parks?", ("yes", "no"))], Context(first, permutations=True)
        >>> moved = sensitivity(context, questions, context.option_answers(questions))
        >>> moved["order_sensitivity"].tolist(), moved["label_sensitivity"].tolist()
        ([1.0], [0.0])
    """
    listed = [number for number, question in enumerate(questions) if question.listed]
    if not context.permutations or not listed:
        return {}
    rng = seeded_rng(context.seed, "order of options")
    asked = [questions[number] for number in listed]
    orders = [_another_order(len(question.options), rng) for question in asked]
    moved = {
        "order_sensitivity": context.option_answers(asked, orders=orders),
        "label_sensitivity": context.option_answers(asked, labels="letters"),
    }
    out = {}
    for name, others in moved.items():
        out[name] = np.full(len(questions), np.nan)
        for number, other in zip(listed, others, strict=True):
            out[name][number] = total_variation(answers[number].shares, other.shares)
    return out


def _another_order(n: int, rng: np.random.Generator) -> list[int]:
    order = list(range(n))
    while n > 1 and order == list(range(n)):
        order = rng.permutation(n).tolist()
    return order


def _by_log_probability(context: Context, requests: Sequence[OptionRequest]) -> list[OptionAnswer]:
    answers = []
    for log_probs in context.option_log_probs(requests):
        mass = np.exp(log_probs)
        valid = bool(np.isfinite(log_probs).any())
        relative = np.exp(log_probs - log_probs.max()) if valid else np.zeros(len(log_probs))
        answers.append(OptionAnswer(normalise(relative), float(mass.sum()), valid))
    return answers


def _by_sampling(context: Context, requests: Sequence[OptionRequest]) -> list[OptionAnswer]:
    longest = 8 + max((len(option) for request in requests for option in request.options), default=0) // 2
    texts = context.sample(
        [request.prompt for request in requests], context.option_samples, max_new_tokens=longest, stop=END_OF_ANSWER
    )
    answers = []
    for request, drawn in zip(requests, texts, strict=True):
        matches = [matched_option(text, request.options) for text in drawn]
        counts = np.bincount([m for m in matches if m is not None], minlength=len(request.options)).astype(float)
        answers.append(OptionAnswer(normalise(counts), float(counts.sum() / max(1, len(drawn))), bool(counts.sum())))
    return answers


def _verbalised(context: Context, requests: Sequence[OptionRequest]) -> list[OptionAnswer]:
    longest = 16 + sum(
        len(option) // 2 + 8 for option in max((r.options for r in requests), key=lambda o: sum(map(len, o)))
    )
    prompts = [percentages_prompt(request.prompt) for request in requests]
    texts = context.sample(prompts, 1, max_new_tokens=longest, purpose="verbalised")
    answers = []
    for request, [text] in zip(requests, texts, strict=True):
        shares = stated_shares(text, request.options)
        answers.append(
            OptionAnswer(normalise(np.zeros(len(request.options))), 0.0, False)
            if shares is None
            else OptionAnswer(shares, 1.0)
        )
    return answers


SCORING: dict[str, Callable[[Context, Sequence[OptionRequest]], list[OptionAnswer]]] = {
    "log_probability": _by_log_probability,
    "sampling": _by_sampling,
    "verbalised": _verbalised,
}
"""Ways to score options, by name."""


def percentages_prompt(prompt: str) -> str:
    r"""Return the prompt of a question that asks for percentages in place of an answer.

    Example:
        >>> percentages_prompt("Parks?\n- yes\n- no\nAnswer:").splitlines()[:4]
        ['Parks?', '- yes', '- no', 'Of 100 people who are asked this, how many give each answer? ...']
    """
    return f"{prompt.removesuffix('Answer:').rstrip()}\n{STATE}\n"


def matched_option(text: str, options: Sequence[str]) -> int | None:
    """Return which option a sampled text is, regardless of case, spaces and a final full stop; None if none.

    A text that goes on after an option (`"yes, because"`) counts as the longest option it begins with.

    Example:
        >>> options = ("yes", "yes, partly", "no")
        >>> [matched_option(text, options) for text in (" Yes.", "Yes, partly because ...", "nobody knows")]
        [0, 1, None]
    """
    said = _plain(text)
    starts = [
        (len(plain), position)
        for position, option in enumerate(options)
        if (plain := _plain(option)) and re.match(re.escape(plain) + r"(?!\w)", said)
    ]
    return max(starts)[1] if starts else None


def stated_shares(text: str, options: Sequence[str]) -> np.ndarray | None:
    r"""Read a distribution that a model stated, one line per option; None unless every option has one number.

    Returns:
        `(A,)` the numbers divided by their sum; None if a line is missing or twice, or all numbers are 0.

    Example:
        >>> stated_shares("Yes: 60%\n- No: 40%", ["yes", "no"]).tolist()
        [0.6, 0.4]
        >>> stated_shares("Most say yes.", ["yes", "no"]) is None
        True
    """
    numbers: dict[int, float] = {}
    for line in text.splitlines():
        number = _NUMBER.search(line)
        option = matched_option(re.sub(r"^\s*(?:[-*•]|\(?\w{1,2}[.)](?=\s))\s*", "", line), options)
        if number is None or option is None:
            continue
        if option in numbers:
            return None
        numbers[option] = float(number.group(1))
    if len(numbers) < len(options) or not sum(numbers.values()):
        return None
    return normalise(np.array([numbers[option] for option in range(len(options))]))


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).strip("\"'`*").rstrip(".")
