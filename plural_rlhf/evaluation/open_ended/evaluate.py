"""Evaluate policies for open prompts from recorded samples: every measure, its baselines, its floor, its interval.

Nothing is generated here. Knows nothing of models, trainers or files.

Shapes: `R` prompts, `K` clusters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from plural_rlhf.core.rules import POOL, Rule, RuleSpec, rule_or_pool
from plural_rlhf.evaluation.diversity.equivalence import EquivalenceRule, default_rule, equivalence_rule
from plural_rlhf.evaluation.open_ended.approvals import Approval
from plural_rlhf.evaluation.open_ended.cells import (
    AgainstPeople,
    Setup,
    against_people,
    cells,
    kept_by_people,
    scored_texts,
    shares_of_writers,
)
from plural_rlhf.evaluation.open_ended.choosing import Choosing
from plural_rlhf.evaluation.open_ended.numbers import DIVERSITY, Key, people_panel
from plural_rlhf.evaluation.open_ended.resampled import resample_prompts
from plural_rlhf.evaluation.open_ended.results import MeasureRow, OpenEndedResults
from plural_rlhf.evaluation.open_ended.rows import cell_rows, derived_rows
from plural_rlhf.evaluation.open_ended.samples import PolicySamples
from plural_rlhf.evaluation.open_ended.scored import PEOPLE, Embed, Writer, judge, open_writers
from reward_models.errors import did_you_mean
from reward_models.jury.protocol import ClusterScorer
from reward_models.weights import WeightSpec, parse_weights


__all__ = ["evaluate_open_ended"]

MOST_COVERING = 32
"""Number of texts of `human_classes_covered`, where so many were drawn and twice as many people wrote."""


def evaluate_open_ended(
    samples: Mapping[str, PolicySamples],
    scorer: ClusterScorer,
    *,
    heldout_scorer: ClusterScorer | None = None,
    people: Mapping[str, Sequence[str]] | None = None,
    embed: Embed | None = None,
    reference: str = "reference",
    prompts: Mapping[str, Any] | None = None,
    weights: Mapping[str, WeightSpec] | None = None,
    beta: float = 1.0,
    rho: float = 1.0,
    target_rule: RuleSpec = POOL,
    beta_moved: bool = False,
    choosing: Mapping[str, Choosing] | None = None,
    rule: str | EquivalenceRule | None = None,
    approval: Approval | None = None,
    heldout_approval: Approval | None = None,
    tie_margin: float = 0.0,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> OpenEndedResults:
    """Measure policies side by side on the same prompts.

    `MEASURES` says what each measure is. A measure that cannot be computed has a row without a value and with the
    reason. Diversity is measured on the first `k` texts of each prompt, where `k` is the smallest number that any
    policy has on any prompt. Intervals resample prompts, so they need at least two.

    Args:
        samples: Samples by policy, all on the same prompts; at best 32 or more per prompt, and for `kl_to_target` some
            hundreds of the reference policy.
        scorer: The jury that the policies were trained on.
        heldout_scorer: A jury of other raters and, at best, of other text vectors. It has clusters of its own.
        people: What people wrote, by prompt; prompts may be missing.
        embed: Turns texts into vectors for the distances to people, and for the classes of texts.
        reference: The policy before training, to which the others are compared.
        prompts: The prompts as scorers read them, by the names used in `samples`, where they are conversations.
        weights: Weights of a policy's target, by policy; prevalence if not named.
        beta: Temperature of the target, in logits.
        rho: Parameter of the pool.
        target_rule: What the policies were trained towards: the pool, or a welfare rule. The target of the mean is the
            pool at rho 0; those of other rules are unknown here, so that there is no `kl_to_target`. Only the pool at
            rho 1 promises shares, so that there is no `share_error` otherwise.
        beta_moved: Whether a KL budget moved the temperature of the target away from `beta`: neither measure then.
        choosing: Of policies that choose each text among candidates of the reference policy, how. Their divergences
            follow from the law of choosing, not from their texts.
        rule: When two texts say the same; None: see `default_rule`.
        approval: What an approval is for the training jury; None: agreement, if it was fitted to votes or ratings
            (`vote_approval`), else better than the median of people's texts.
        heldout_approval: The same for the heldout jury.
        tie_margin: Largest difference of rewards that is a tie, in logits.
        draws: Number of resamples.
        level: Level of the intervals.
        seed: Random seed.

    Returns:
        Rows, texts, curves and settings; `to_dict()` is plain JSON.

    Raises:
        ValueError: No reference policy among the samples, policies on different prompts, a policy called `people`,
            or weights for a policy without samples.
        JuryError: Weights that cannot be read, or a text that a scorer refuses.

    Example:
        >>> import torch
        >>> class Camps:
        ...     cluster_names, prevalence = ["parks", "roads"], np.array([0.5, 0.5])
        ...     def cluster_rewards(self, prompts, completions):
        ...         return torch.tensor([[2.0 * (c in text) - 1 for c in self.cluster_names] for text in completions])
        >>> texts = {"reference": ["parks", "roads", "nothing"], "grpo": ["parks"] * 3, "plural": ["roads, parks"] * 3}
        >>> samples = {policy: PolicySamples({"What now?": some}) for policy, some in texts.items()}
        >>> results = evaluate_open_ended(samples, Camps(), people={"What now?": ["parks", "roads"]})
        >>> [results.value(policy, "bridging", jury="training") for policy in texts]
        [0.0, 0.0, 1.0]
        >>> [round(results.value(policy, "effective_classes"), 3) for policy in texts]
        [3.0, 1.0, 1.0]
    """
    _check(samples, reference, weights or {})
    no_target, no_shares = _no_target(target_rule, rho, beta_moved)
    of_mean = no_target is None and rule_or_pool(target_rule) is not None
    names = list(samples[reference].texts)
    writers = {writer.name: writer for writer in open_writers(samples, people, embed)}
    chosen = _usual_rule(list(writers.values())) if rule is None else equivalence_rule(rule)
    juries = [judge("training", scorer, list(writers.values()), prompts or {}, reference, approval)]
    if heldout_scorer is not None:
        juries.append(
            judge("heldout", heldout_scorer, list(writers.values()), prompts or {}, reference, heldout_approval)
        )
    k = min(len(texts) for policy in samples.values() for texts in policy.texts.values())
    wrote = writers.get(PEOPLE)
    half = MOST_COVERING if wrote is None else int(np.median([len(some) for some in wrote.texts.values()])) // 2
    most = max(1, min(k, MOST_COVERING, half))  # as many as half of the people of most prompts, for the floor
    setup = Setup(
        writers=writers,
        prompts=names,
        juries=juries,
        panels={}
        if wrote is None
        else {
            prompt: people_panel(prompt, some, None if wrote.vectors is None else wrote.vectors[prompt], chosen, seed)
            for prompt, some in wrote.texts.items()
        },
        targets={
            name: parse_weights((weights or {}).get(name, "prevalence"), juries[0].names, juries[0].weights)
            for name in writers
        },
        reference=reference,
        rule=chosen,
        beta=beta,
        rho=0.0 if of_mean else rho,
        tie_margin=tie_margin,
        k=k,
        counts=sorted({*(2**i for i in range(most.bit_length()) if 2**i < most), most}),
        seed=seed,
        choosing=choosing or {},
        no_target=no_target,
    )
    shares = shares_of_writers(setup)
    measured, refused = cells(setup, shares)
    distances = against_people(setup)
    complete = {name: numbers | distances.numbers.get(name, {}) for name, numbers in measured.items()}
    bootstrap = resample_prompts(len(names), draws=draws, level=level, seed=seed)
    sizes = {"human_classes_covered": most} | dict.fromkeys(DIVERSITY, k)
    rows = cell_rows(complete, bootstrap, reference=reference, sizes=sizes)
    rows += derived_rows(
        complete,
        bootstrap,
        juries,
        reference=reference,
        targets=setup.targets,
        steered=set(weights or {}),
        shares={key: [of.get(prompt) for prompt in names] for key, of in shares.items()},
        kept_by_people=kept_by_people(setup),
        no_shares=no_shares,
    )
    drawn = dict.fromkeys(samples, 1) | {name: how.candidates for name, how in setup.choosing.items()}
    rows += [MeasureRow(name, "completions_per_text", value=float(n), n=len(names)) for name, n in drawn.items()]
    rows = [_beside(row, distances) for row in rows]
    rows = _explained(rows, setup, refused)
    curves = {name: {k: _mean(values) for k, values in curve.items()} for name, curve in distances.curves.items()}
    settings = _settings(setup, list(samples)) | {"draws": draws, "level": level}
    return OpenEndedResults(rows, scored_texts(setup), curves, settings)


def _no_target(target_rule: RuleSpec, rho: float, beta_moved: bool) -> tuple[str | None, str | None]:
    """Why there is no divergence from the target, and no error of shares; None where there is one."""
    rule = rule_or_pool(target_rule)
    if beta_moved:
        reason = "a KL budget moved the temperature of the target. Fix: train with a fixed beta (kl_budget: null)"
        return reason, reason
    if rule is not None and rule != Rule("mean"):
        reason = f"the policies were trained under the rule {rule}, whose target is not the pool"
        return reason, reason
    if rule is not None:
        return None, "the target of the rule mean promises no cluster a share"
    return None, None if rho == 1 else f"the pool at rho = {rho:g} promises no cluster a share"


def _usual_rule(writers: Sequence[Writer]) -> EquivalenceRule:
    parts = [(writer, prompt) for writer in writers for prompt in writer.texts]
    texts = [text for writer, prompt in parts for text in writer.texts[prompt]]
    vectors = [writer.vectors[prompt] for writer, prompt in parts if writer.vectors is not None]
    return default_rule(texts, np.concatenate(vectors) if vectors else None)


def _check(samples: Mapping[str, PolicySamples], reference: str, weights: Mapping[str, Any]) -> None:
    if reference not in samples:
        raise ValueError(
            f"the reference policy {reference!r} has no samples; there are {', '.join(map(repr, samples))}."
            f"{did_you_mean(reference, samples)} Fix: name the policy before training by `reference=`."
        )
    if PEOPLE in samples:
        raise ValueError(f"a policy is called {PEOPLE!r}, as people are in the tables. Fix: rename the policy.")
    for name in weights:
        if name not in samples:
            raise ValueError(f"weights are given for {name!r}, which has no samples.{did_you_mean(name, samples)}")
    expected = set(samples[reference].texts)
    for name, policy in samples.items():
        lacking, unknown = expected - set(policy.texts), set(policy.texts) - expected
        if lacking or unknown:
            some = ", ".join(map(repr, sorted(lacking or unknown)[:3]))
            raise ValueError(
                f"policy {name!r} has {'no texts' if lacking else 'texts'} for {len(lacking or unknown)} prompts that "
                f"{reference!r} has{'' if lacking else ' not'}: {some}. Fix: sample all policies on the same prompts."
            )


def _beside(row: MeasureRow, distances: AgainstPeople) -> MeasureRow:
    """Add the floor and the baseline of a distance from people."""
    key = Key(row.measure, row.jury, row.cluster, row.rival)
    if key not in distances.floors or row.policy == PEOPLE:
        return row
    shuffled = distances.shuffled[row.policy].get(key)
    return replace(row, floor=_mean(distances.floors[key]), baseline=None if shuffled is None else _mean(shuffled))


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _explained(rows: list[MeasureRow], setup: Setup, refused: Mapping[str, str]) -> list[MeasureRow]:
    """Give every row without a value its reason, and every measure that has no row at all a row that says why."""
    explained = [replace(r, reason=_few(r)) if r.value is None and r.reason is None else r for r in rows]
    for name, writer in setup.writers.items():
        if name == PEOPLE:
            continue
        lacking = (
            {}
            if setup.panels
            else dict.fromkeys(
                ("mmd_to_people", "auc_to_people", "human_classes_covered"), "no texts of people. Fix: pass people="
            )
        )
        if writer.vectors is None:
            reason = "no vectors of texts. Fix: pass embed="
            lacking = dict.fromkeys(("mmd_to_people", "auc_to_people", "vendi_score"), reason) | lacking
        if len(setup.juries) < 2 and name != setup.reference:
            lacking["heldout_share_of_gain"] = "no heldout jury. Fix: pass heldout_scorer="
        samples = writer.samples
        if name in setup.choosing:
            few = "too few texts of the reference policy to say what is chosen"
            lacking |= {"kl_to_reference": few, "kl_to_target": refused.get(name, few)}
        elif samples is None or samples.log_probs is None or samples.reference_log_probs is None:
            reason = "no log-probabilities under policy and reference policy in the samples"
            lacking |= dict.fromkeys(("kl_to_reference", "kl_to_target", "effective_samples"), reason)
        elif name in refused:
            lacking["kl_to_target"] = refused[name]
        if samples is None or samples.reference_log_probs is None or samples.num_tokens is None:
            lacking["perplexity"] = "no log-probabilities under the reference policy, or no numbers of tokens"
        there = {row.measure for row in explained if row.policy == name}
        explained += [MeasureRow(name, m, reason=reason) for m, reason in lacking.items() if m not in there]
    return explained


def _few(row: MeasureRow) -> str:
    if row.measure == "truncated":
        return "the samples do not say which texts ended by themselves"
    return "too few texts per prompt"


def _settings(setup: Setup, policies: Sequence[str]) -> dict[str, Any]:
    rule = setup.rule
    return {
        "policies": list(policies),
        "reference": setup.reference,
        "prompts": list(setup.prompts),
        "texts_per_prompt": setup.k,
        "people_per_prompt": {prompt: len(panel.texts) for prompt, panel in setup.panels.items()},
        "clusters": {one.jury: dict(zip(one.names, one.weights.tolist(), strict=True)) for one in setup.juries},
        "approval_of": {one.jury: one.approval_of for one in setup.juries},
        "weights": {name: setup.targets[name].tolist() for name in policies},
        "rule": {"name": rule.name, "coefficients": dict(rule.coefficients), "threshold": rule.threshold},
        "beta": setup.beta,
        "rho": setup.rho,
        "candidates": {name: how.candidates for name, how in setup.choosing.items()},
        "tie_margin": setup.tie_margin,
        "seed": setup.seed,
    }
