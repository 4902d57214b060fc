"""Every text with its rewards, approvals and vector, prompt by prompt. Knows nothing of measures.

Shapes: `R` prompts, `N` texts of a prompt, `K` clusters, `D` dimensions of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from plural_rlhf.evaluation.open_ended.approvals import Approval, approval_above, vote_approval
from plural_rlhf.evaluation.open_ended.samples import PolicySamples
from reward_models.jury.protocol import ClusterScorer, scorable_text


__all__ = ["PEOPLE", "Embed", "Judged", "Writer", "judge", "open_writers"]

PEOPLE = "people"
"""How people are called where they stand beside policies."""

Embed = Callable[[Sequence[str]], np.ndarray]
"""Turns texts into vectors, (N, D)."""


@dataclass(frozen=True)
class Writer:
    """The texts of a policy, or of people, with their vectors.

    Attributes:
        name: Name of the policy; `PEOPLE` for people.
        texts: Texts by prompt.
        samples: What else is known of them; None for people.
        vectors: (N, D) by prompt; None without an embedder.

    Example:
        >>> open_writers({"plural": PolicySamples({"What now?": ["Parks."]})}, None, None)[0].texts
        {'What now?': ['Parks.']}
    """

    name: str
    texts: Mapping[str, list[str]]
    samples: PolicySamples | None
    vectors: Mapping[str, np.ndarray] | None


@dataclass(frozen=True)
class Judged:
    """What a jury says about all texts.

    Attributes:
        jury: `training` or `heldout`.
        names: `K` names of the clusters.
        weights: (K,) their prevalence.
        rewards: (N, K) by writer and prompt, logits.
        approvals: (N, K) by writer and prompt.
        approval_of: What an approval is, in words.
    """

    jury: str
    names: list[str]
    weights: np.ndarray
    rewards: Mapping[str, Mapping[str, np.ndarray]]
    approvals: Mapping[str, Mapping[str, np.ndarray]]
    approval_of: str


def open_writers(
    samples: Mapping[str, PolicySamples], people: Mapping[str, Sequence[str]] | None, embed: Embed | None
) -> list[Writer]:
    """Put policies and people side by side, and embed each different text once."""
    texts = {name: {prompt: list(of) for prompt, of in policy.texts.items()} for name, policy in samples.items()}
    prompts = next(iter(texts.values()))
    wrote = {prompt: list((people or {}).get(prompt, ())) for prompt in prompts}
    if any(wrote.values()):
        texts[PEOPLE] = {prompt: some for prompt, some in wrote.items() if some}
    vectors: dict[str, np.ndarray] = {}
    if embed is not None:
        unique = list(dict.fromkeys(text for of in texts.values() for some in of.values() for text in some))
        rows = np.asarray(embed(unique), dtype=np.float64)
        if rows.ndim != 2 or len(rows) != len(unique) or not np.isfinite(rows).all():
            raise ValueError(
                f"embed returned an array of shape {rows.shape} for {len(unique)} texts, or numbers that are not "
                "finite. Fix: return one row of finite numbers per text."
            )
        vectors = dict(zip(unique, rows, strict=True))
    return [
        Writer(
            name,
            of,
            samples.get(name),
            {prompt: np.stack([vectors[text] for text in some]) for prompt, some in of.items()} if embed else None,
        )
        for name, of in texts.items()
    ]


def judge(
    jury: str,
    scorer: ClusterScorer,
    writers: Sequence[Writer],
    prompts: Mapping[str, Any],
    reference: str,
    approval: Approval | None,
) -> Judged:
    """Score every text by one jury.

    A text without a word is scored as a dot, since juries refuse empty texts.

    Args:
        jury: `training` or `heldout`.
        scorer: The jury.
        writers: Policies, and people if there are any.
        prompts: What each prompt is, as the scorer reads it.
        reference: Name of the reference policy.
        approval: What an approval is; None: `vote_approval`, else better than the median of people's texts, or of the
            reference policy's where people wrote none.
    """
    rows = [(w.name, prompt, text) for w in writers for prompt, some in w.texts.items() for text in some]
    scored = scorer.cluster_rewards(
        [prompts.get(prompt, prompt) for _, prompt, _ in rows],
        [_completion(prompts.get(prompt, prompt), scorable_text(text)) for _, prompt, text in rows],
    )
    table = np.asarray(scored, dtype=np.float64)
    split: dict[str, dict[str, np.ndarray]] = {w.name: {} for w in writers}
    start = 0
    for writer in writers:
        for prompt, some in writer.texts.items():
            split[writer.name][prompt] = table[start : start + len(some)]
            start += len(some)
    of_votes = approval or vote_approval(scorer)
    approval_of = "given" if approval else "votes" if of_votes else f"better than the median text of {PEOPLE}"
    if of_votes is None and PEOPLE not in split:
        approval_of = f"better than the median text of {reference}"
    approvals: dict[str, dict[str, np.ndarray]] = {name: {} for name in split}
    for name, of in split.items():
        for prompt, rewards in of.items():
            compared = split.get(PEOPLE, {}).get(prompt, split[reference][prompt])
            approvals[name][prompt] = (of_votes or approval_above(np.median(compared, axis=0)))(rewards)
    return Judged(jury, list(scorer.cluster_names), np.asarray(scorer.prevalence), split, approvals, approval_of)


def _completion(prompt: Any, text: str) -> Any:
    return text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
