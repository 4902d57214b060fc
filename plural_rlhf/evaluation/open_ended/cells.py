"""All measures of all writers on all prompts, before intervals. Knows nothing of rows.

Shapes: `R` prompts, `K` clusters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from plural_rlhf.evaluation.diversity.equivalence import EquivalenceRule
from plural_rlhf.evaluation.open_ended.choosing import Choosing, choice_divergences
from plural_rlhf.evaluation.open_ended.distances import covering_by_scores
from plural_rlhf.evaluation.open_ended.divergences import kl_to_target, sequence_kl
from plural_rlhf.evaluation.open_ended.drift import degeneracy
from plural_rlhf.evaluation.open_ended.numbers import (
    DIVERSITY,
    Key,
    Numbers,
    PeoplePanel,
    distance_numbers,
    diversity_numbers,
    drift_numbers,
    floor_numbers,
    judged_numbers,
    mean_numbers,
    rival_numbers,
)
from plural_rlhf.evaluation.open_ended.results import ScoredText
from plural_rlhf.evaluation.open_ended.scored import PEOPLE, Judged, Writer
from plural_rlhf.evaluation.open_ended.shares import REPLICATES, ShareReading, read_shares
from reward_models.seeds import seeded_rng


__all__ = [
    "AgainstPeople",
    "Setup",
    "Shares",
    "against_people",
    "cells",
    "kept_by_people",
    "scored_texts",
    "shares_of_writers",
]

_Key = TypeVar("_Key")
Shares = Mapping[tuple[str, str], Mapping[str, ShareReading]]
"""For whom was written, by writer and jury, and then by prompt."""
SUBSETS = 4
"""How many subsets of people's texts are averaged, where a measure needs as many texts as a policy has."""
LEAST_PROMPTS = 0.5
"""Share of the prompts that need an estimate of `kl_to_target`: easy prompts alone would flatter."""


@dataclass(frozen=True)
class Setup:
    """What is measured, and how.

    Attributes:
        writers: Policies, and people if there are any.
        prompts: `R` names of prompts.
        juries: The training jury, and the heldout jury if there is one.
        panels: What people wrote, by prompt.
        targets: (K,) weights of the target, by writer.
        reference: Name of the reference policy.
        rule: When two texts say the same.
        beta: Temperature of the target, in logits.
        rho: Parameter of the pool.
        tie_margin: Largest difference of rewards that is a tie, in logits.
        k: Texts per prompt for measures of diversity.
        counts: Numbers of texts of the curve of classes covered; the last is that of the measure.
        seed: Random seed.
        choosing: Of the policies that choose among texts of the reference policy, how.
        no_target: Why there is no `kl_to_target`; None if there is one.
    """

    writers: Mapping[str, Writer]
    prompts: Sequence[str]
    juries: list[Judged]
    panels: Mapping[str, PeoplePanel]
    targets: Mapping[str, np.ndarray]
    reference: str
    rule: EquivalenceRule
    beta: float
    rho: float
    tie_margin: float
    k: int
    counts: list[int]
    seed: int
    choosing: Mapping[str, Choosing] = field(default_factory=dict)
    no_target: str | None = None


@dataclass(frozen=True)
class AgainstPeople:
    """Distances from people.

    Attributes:
        numbers: (R,) by policy and key.
        floors: (R,) by key, of one half of people from the other.
        shuffled: (R,) by policy and key, of a policy's texts from people's texts to the next prompt.
        curves: (R,) by writer and number of texts; `people` is the floor.
    """

    numbers: dict[str, dict[Key, np.ndarray]]
    floors: dict[Key, np.ndarray]
    shuffled: dict[str, dict[Key, np.ndarray]]
    curves: dict[str, dict[int, np.ndarray]]


def shares_of_writers(setup: Setup) -> Shares:
    """Read for whom every writer wrote, by every jury."""
    readings: dict[tuple[str, str], dict[str, ShareReading]] = {}
    for name, writer in setup.writers.items():
        for judged in setup.juries:
            weights = setup.targets[name] if judged.jury == "training" else judged.weights
            divided = bool((setup.targets[name] > 0).all())  # else there is no error of shares to set in proportion
            readings[name, judged.jury] = {
                prompt: read_shares(
                    judged.rewards[name][prompt],
                    judged.rewards[setup.reference][prompt],
                    weights if divided else judged.weights,
                    setup.beta,
                    seeded_rng(setup.seed, f"texts in fair shares, {judged.jury}, {name}, {prompt}"),
                    replicates=REPLICATES if divided else 0,
                )
                for prompt in setup.prompts
                if prompt in writer.texts
            }
    return readings


def cells(setup: Setup, shares: Shares) -> tuple[dict[str, dict[Key, np.ndarray]], dict[str, str]]:
    """Measure every writer on every prompt.

    Args:
        setup: What is measured.
        shares: For whom it was written.

    Returns:
        (R,) numbers by writer and key, and by policy the reason why `kl_to_target` is missing.
    """
    by_writer = {}
    reasons = {}
    for name, writer in setup.writers.items():
        per_prompt = []
        refused = []
        for prompt in setup.prompts:
            numbers: Numbers = {}
            if prompt in writer.texts:
                numbers = _approval(setup, shares, name, prompt) | _diversity(setup, writer, prompt)
                numbers |= drift_numbers(writer, prompt)
                divergence, reason = _divergence(setup, writer, prompt)
                numbers |= divergence
                refused += [] if reason is None else [reason]
            per_prompt.append(numbers)
        if setup.no_target is not None and name != PEOPLE:
            reasons[name] = setup.no_target
        elif len(setup.prompts) - len(refused) < LEAST_PROMPTS * len(setup.prompts):
            reasons[name] = f"{len(refused)} of {len(setup.prompts)} prompts have no estimate: {refused[0]}"
            per_prompt = [{key: v for key, v in one.items() if key.measure != "kl_to_target"} for one in per_prompt]
        by_writer[name] = _columns(per_prompt)
    return by_writer, reasons


def against_people(setup: Setup) -> AgainstPeople:
    """Measure the distance of every policy from people, the floor, and the baseline of the next prompt's people."""
    here = [prompt for prompt in setup.prompts if prompt in setup.panels]
    following = dict(zip(here, here[1:] + here[:1], strict=True)) if len(here) > 1 else {}
    floors = [
        floor_numbers(setup.panels[prompt], setup.counts) if prompt in here else ({}, {}) for prompt in setup.prompts
    ]
    found = AgainstPeople({}, _columns([numbers for numbers, _ in floors]), {}, {})
    if here:
        found.curves[PEOPLE] = _columns([curve for _, curve in floors])
    for name, writer in setup.writers.items():
        if name == PEOPLE or not here:
            continue
        right, wrong = [], []
        for prompt in setup.prompts:
            texts, vectors = writer.texts[prompt], None if writer.vectors is None else writer.vectors[prompt]
            panel, other = setup.panels.get(prompt), setup.panels.get(following.get(prompt, ""))
            right.append(({}, {}) if panel is None else distance_numbers(panel, texts, vectors, setup.counts))
            wrong.append({} if other is None else distance_numbers(other, texts, vectors, setup.counts[-1:])[0])
        found.numbers[name] = _columns([numbers for numbers, _ in right])
        found.shuffled[name] = _columns(wrong)
        found.curves[name] = _columns([curve for _, curve in right])
    return found


def kept_by_people(setup: Setup) -> float | None:
    """Compute what the heldout jury keeps of differences in approval between people's texts to one prompt.

    It is the slope of its approval on the training jury's, each averaged over clusters by prevalence: below 1 for two
    honest juries that are not sure, and what `heldout_share_of_gain` would be without over-optimisation.
    """
    if len(setup.juries) < 2 or not setup.panels:
        return None
    means = [
        np.concatenate([_centred(judged.approvals[PEOPLE][prompt] @ judged.weights) for prompt in setup.panels])
        for judged in setup.juries
    ]
    spread = float(means[0] @ means[0])
    return float(means[0] @ means[1]) / spread if spread > 0 else None


def scored_texts(setup: Setup) -> list[ScoredText]:
    """Return every text with its approvals, its place in the plane, and what it covers."""
    found = []
    for prompt in setup.prompts:
        panel = setup.panels.get(prompt)
        for name, writer in setup.writers.items():
            if prompt not in writer.texts:
                continue
            texts = writer.texts[prompt]
            vectors = None if writer.vectors is None else writer.vectors[prompt]
            places = _plane(panel, vectors, len(texts))
            covered = _covered_classes(setup, panel, texts, vectors)
            ended = None if writer.samples is None or writer.samples.ended is None else writer.samples.ended[prompt]
            approvals = [
                [dict(zip(judged.names, row.tolist(), strict=True)) for row in judged.approvals[name][prompt]]
                for judged in setup.juries
            ]
            found += [
                ScoredText(
                    name,
                    prompt,
                    text,
                    approvals[0][i],
                    approvals[1][i] if len(approvals) > 1 else {},
                    places[i],
                    covered[i],
                    degeneracy(text, None if ended is None else bool(ended[i])),
                )
                for i, text in enumerate(texts)
            ]
    return found


def _approval(setup: Setup, shares: Shares, name: str, prompt: str) -> Numbers:
    numbers: Numbers = {}
    for judged in setup.juries:
        numbers |= judged_numbers(judged, name, prompt, shares[name, judged.jury][prompt].shares)
        for rival, writer in setup.writers.items():
            if rival != name and prompt in writer.texts:
                numbers |= rival_numbers(judged, name, rival, prompt, setup.tie_margin)
    return numbers


def _diversity(setup: Setup, writer: Writer, prompt: str) -> Numbers:
    """Measure the first k texts of a policy, and several subsets of k of people's."""
    texts = writer.texts[prompt]
    vectors = None if writer.vectors is None else writer.vectors[prompt]
    if len(texts) < setup.k:
        return {Key(measure): float("nan") for measure in DIVERSITY}
    subsets = [np.arange(setup.k)]
    if writer.name == PEOPLE and len(texts) > setup.k:
        rng = seeded_rng(setup.seed, f"subsets of people, {prompt}")
        order = np.array(sorted(range(len(texts)), key=lambda i: texts[i]))
        subsets = [order[rng.choice(len(texts), size=setup.k, replace=False)] for _ in range(SUBSETS)]
    return mean_numbers(
        [
            diversity_numbers([texts[i] for i in subset], None if vectors is None else vectors[subset], setup.rule)
            for subset in subsets
        ]
    )


def _divergence(setup: Setup, writer: Writer, prompt: str) -> tuple[Numbers, str | None]:
    samples, judged = writer.samples, setup.juries[0]
    if writer.name in setup.choosing:
        return _divergence_of_choice(setup, writer.name, prompt)
    if samples is None or samples.log_probs is None or samples.reference_log_probs is None:
        return {}, None
    log_probs, reference = samples.log_probs[prompt], samples.reference_log_probs[prompt]
    if setup.no_target is not None:
        return {Key("kl_to_reference"): sequence_kl(log_probs, reference)[0]}, None
    estimate = kl_to_target(
        log_probs,
        reference,
        judged.rewards[writer.name][prompt],
        judged.rewards[setup.reference][prompt],
        weights=setup.targets[writer.name],
        beta=setup.beta,
        rho=setup.rho,
    )
    numbers = {
        Key("kl_to_reference"): sequence_kl(log_probs, reference)[0],
        Key("effective_samples"): estimate.effective_samples,
    }
    if estimate.value is not None:
        numbers[Key("kl_to_target")] = estimate.value
    return numbers, estimate.reason


def _divergence_of_choice(setup: Setup, name: str, prompt: str) -> tuple[Numbers, str | None]:
    choosing = setup.choosing[name]
    kl, estimate = choice_divergences(
        choosing.rewards[prompt],
        choosing.candidates,
        choosing.chances,
        seeded_rng(setup.seed, f"hands of candidates, {name}, {prompt}"),
        weights=setup.targets[name],
        beta=setup.beta,
        rho=setup.rho,
    )
    numbers = {} if kl is None else {Key("kl_to_reference"): kl}
    if setup.no_target is not None:
        return numbers, None
    numbers[Key("effective_samples")] = estimate.effective_samples
    if estimate.value is not None:
        numbers[Key("kl_to_target")] = estimate.value
    return numbers, estimate.reason


def _columns(per_prompt: Sequence[Mapping[_Key, float]]) -> dict[_Key, np.ndarray]:
    keys = dict.fromkeys(key for numbers in per_prompt for key in numbers)
    return {key: np.array([numbers.get(key, np.nan) for numbers in per_prompt]) for key in keys}


def _centred(values: np.ndarray) -> np.ndarray:
    return values - values.mean()


def _plane(panel: PeoplePanel | None, vectors: np.ndarray | None, n: int) -> list[tuple[float, float] | None]:
    """Project vectors on the two directions in which people's vary the most; the signs are fixed."""
    if vectors is None or panel is None or panel.vectors is None or len(panel.vectors) < 3:
        return [None] * n
    centre = panel.vectors.mean(axis=0)
    axes = np.linalg.svd(panel.vectors - centre, full_matrices=False)[2][:2]
    axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]
    return [(float(x), float(y)) for x, y in (vectors - centre) @ axes.T]


def _covered_classes(
    setup: Setup, panel: PeoplePanel | None, texts: Sequence[str], vectors: np.ndarray | None
) -> list[int | None]:
    """Say for each text which class of the first half of people it covers, the largest if several."""
    if panel is None:
        return [None] * len(texts)
    first = panel.halves[0][0]
    scores = setup.rule.scores(texts, panel.texts, vectors, panel.vectors)[:, first]
    covers, shares = covering_by_scores(scores, panel.classes[0], setup.rule.threshold)
    largest = np.where(covers, shares, 0.0).argmax(axis=1)
    return [int(number) if row.any() else None for number, row in zip(largest, covers, strict=True)]
