"""What a model says of a person's next judgement after some of the person's others: traits, demonstrations, question.

Sequences have the form of Spectrum Tuning, so that a model tuned so can be asked. Knows nothing of training.

Shapes: `A` options of a question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from plural_rlhf.evaluation.in_context.sequences import PersonSequence
from plural_rlhf.methods.spectrum.sequences import Example, SpectrumSequence
from plural_rlhf.methods.spectrum.template import SpectrumTemplate
from plural_rlhf.methods.spectrum.tokens import encode_sequence
from plural_rlhf.policies.answers import AnswerBatch, answer_log_probs
from reward_models.errors import JudgementError, did_you_mean
from reward_models.inference import evaluating
from reward_models.judgements.records import Judgements
from reward_models.progress import track


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["check_lengths", "individual_shares", "steering_sequence", "with_traits"]


def with_traits(
    people: Sequence[PersonSequence], judgements: Judgements, traits: Sequence[str]
) -> list[PersonSequence]:
    """Write traits of each person into the description; unknown ones are left out.

    Args:
        people: From `judgement_sequences(judgements)`.
        judgements: The table with the traits.
        traits: Names of traits, without `rater:`.

    Raises:
        JudgementError: The table has no such trait.

    Example:
        >>> from plural_rlhf.evaluation.in_context.sequences import judgement_sequences
        >>> from reward_models import planted_judgements
        >>> frame = planted_judgements("choice", num_raters=4, num_items=3).judgements.frame.copy()
        >>> frame["rater:town"] = frame["rater_id"].map({"r0": "York", "r1": "Bath", "r2": "York", "r3": None})
        >>> judgements = Judgements.from_frame(frame)
        >>> people = with_traits(judgement_sequences(judgements), judgements, ["town"])
        >>> [person.description[-10:] for person in people]
        ['town: York', 'town: Bath', 'town: York', ' answer C.']
    """
    known = [trait.removeprefix("rater:") for trait in judgements.traits]
    for trait in traits:
        if trait not in known:
            raise JudgementError(
                f"the table has no trait {trait!r}.{did_you_mean(trait, known)} Fix: use one of "
                f"{', '.join(known) or 'a table that has some'}"
            )
    columns = [f"rater:{trait}" for trait in traits]
    first = judgements.frame.drop_duplicates("rater_id").astype({"rater_id": str}).set_index("rater_id")[columns]
    described = []
    for person in people:
        row = first.loc[person.person]
        words = [f"{trait}: {row[c]}" for trait, c in zip(traits, columns, strict=True) if _is_known(row[c])]
        described.append(replace(person, description=" ".join([person.description, "; ".join(words)]).strip()))
    return described


def _is_known(value: object) -> bool:
    return value is not None and value == value and str(value).strip() != ""


def steering_sequence(person: PersonSequence, demonstrations: Sequence[int], target: int) -> SpectrumSequence:
    """Return the description, the demonstrations in the given order, and the target with the person's answer, last.

    Example:
        >>> from plural_rlhf.evaluation.in_context.sequences import Example as Answer
        >>> answers = tuple(Answer(f"Question {i}?", "yes", ("yes", "no"), f"q{i}") for i in range(4))
        >>> sequence = steering_sequence(PersonSequence("ann", answers, "A survey."), [2, 0], 3)
        >>> [example.input for example in sequence.examples]
        ['Question 2?', 'Question 0?', 'Question 3?']
    """
    shown = [person.examples[position] for position in (*demonstrations, target)]
    examples = tuple(Example(example.output, example.input) for example in shown)
    return SpectrumSequence(examples, person.description or None, exchangeable=False, name=person.person)


def individual_shares(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    people: Sequence[PersonSequence],
    demonstrations: Sequence[Sequence[int]],
    targets: Sequence[int],
    template: SpectrumTemplate,
    *,
    max_length: int | None = None,
    batch_size: int = 16,
    progress: bool = True,
) -> list[np.ndarray]:
    """Return the model's share of every option of each person's target, given the demonstrations.

    Where a sequence is longer than `max_length`, its first demonstrations are left out, whole, until it fits.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        people: The people.
        demonstrations: Positions that are shown of each, in order.
        targets: Position that is predicted of each.
        template: From `template_for`.
        max_length: Most tokens of a sequence.
        batch_size: People per forward pass.
        progress: Whether to show a bar.

    Returns:
        Per person (A,) probabilities, normalised over the options.

    Raises:
        ValueError: A question alone, without any demonstration, does not fit.

    Example:
        >>> from plural_rlhf.evaluation.in_context.sequences import judgement_sequences
        >>> from plural_rlhf.methods.spectrum import template_for
        >>> from plural_rlhf.policies.base_models import tiny_causal_lm, tiny_tokenizer
        >>> from reward_models import planted_judgements
        >>> people = judgement_sequences(planted_judgements("choice", num_raters=2, num_items=4).judgements)
        >>> tokenizer = tiny_tokenizer()
        >>> shares = individual_shares(
        ...     tiny_causal_lm(), tokenizer, people, [[0, 1], []], [3, 3], template_for(tokenizer), progress=False
        ... )
        >>> [len(of_person) for of_person in shares], round(float(shares[0].sum()), 6)
        ([3, 3], 1.0)
    """
    encoded = [
        _encoded(person, list(shown), target, template, tokenizer, max_length)
        for person, shown, target in zip(people, demonstrations, targets, strict=True)
    ]
    shares: list[np.ndarray] = []
    starts = range(0, len(encoded), batch_size)
    with evaluating(model), torch.no_grad():
        for start in track(starts, "reading people") if progress else starts:
            prompts, answers = zip(*encoded[start : start + batch_size], strict=True)
            batch = AnswerBatch.collate(prompts, answers, tokenizer.pad_token_id or 0)
            log_probs = answer_log_probs(model, batch.to(model.device)).double().cpu()
            shares += [row[: len(a)].softmax(0).numpy() for row, a in zip(log_probs, answers, strict=True)]
    return shares


def check_lengths(
    people: Sequence[PersonSequence],
    targets: Sequence[int],
    template: SpectrumTemplate,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
) -> None:
    """Raise if a target does not fit even without demonstrations, before anything long is begun.

    Args:
        people: The people.
        targets: Position that is to be predicted of each.
        template: From `template_for`.
        tokenizer: Of the model.
        max_length: Most tokens of a sequence.

    Raises:
        ValueError: The first that does not fit.

    Example:
        >>> from plural_rlhf.evaluation.in_context.sequences import judgement_sequences
        >>> from plural_rlhf.methods.spectrum import template_for
        >>> from plural_rlhf.policies.base_models import tiny_tokenizer
        >>> from reward_models import planted_judgements
        >>> people = judgement_sequences(planted_judgements("choice", num_raters=2, num_items=4).judgements)
        >>> tokenizer = tiny_tokenizer()
        >>> check_lengths(people, [3, 3], template_for(tokenizer), tokenizer, max_length=20)
        Traceback (most recent call last):
        ValueError: the question '...' of 'r0' has ... tokens with its description, more than max_length=20...
    """
    seen = set()
    for person, target in zip(people, targets, strict=True):
        example = person.examples[target]
        if (key := (person.description, example.input, example.options)) not in seen:
            seen.add(key)
            _encoded(person, [], target, template, tokenizer, max_length)


def _encoded(
    person: PersonSequence,
    shown: list[int],
    target: int,
    template: SpectrumTemplate,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None,
) -> tuple[list[int], list[list[int]]]:
    """Return the tokens before the target's answer, and those of every option with its end."""
    while True:
        sequence = steering_sequence(person, shown, target)
        answers = []
        for option in person.examples[target].options:
            last = Example(option, sequence.examples[-1].input)
            tokens = encode_sequence(replace(sequence, examples=(*sequence.examples[:-1], last)), template, tokenizer)
            start, stop = tokens.outputs[-1]
            prompt = tokens.input_ids[:start]
            answers.append(tokens.input_ids[start:stop])
        if max_length is None or len(prompt) + max(map(len, answers)) <= max_length:
            return prompt, answers
        if not shown:
            raise ValueError(
                f"the question {person.examples[target].question!r} of {person.person!r} has {len(prompt)} tokens "
                f"with its description, more than max_length={max_length}. Fix: raise max_length, or leave the "
                "question out."
            )
        shown = shown[1:]
