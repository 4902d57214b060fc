"""Explain a ranking: who would choose what, which clusters are pivotal, and which weights would flip the verdict.

Knows nothing of scoring or files: a `RankedPrompt` comes in, words and numbers go out.

Shapes: `N` responses to one prompt, `K` clusters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from plural_rlhf.evaluation.decisions.flips import Flip, flipping_weights, pivotal_clusters
from plural_rlhf.evaluation.decisions.verdicts import verdict
from plural_rlhf.ranking.candidates import label
from plural_rlhf.ranking.rank import TIE, RankedPrompt


__all__ = ["Explanation", "explain"]

AT_ONCE = 1e-6  # a share so near the present one is "any more" or "any less"


@dataclass(frozen=True)
class Explanation:
    """What a verdict depends on, as `explain` returns it.

    Attributes:
        winners: The most probable responses of the verdict.
        favourites: By cluster, the responses that it scores highest.
        without: By pivotal cluster, the winners without it; empty if it is the only cluster.
        flips: For each cluster the nearest shares that flip the verdict (`evaluation.decisions.flips`).
        sentences: All of it in words, responses named A, B, C in the order of the candidates.

    Example:
        >>> from plural_rlhf import Candidates, rank
        >>> candidates = Candidates("Which?", ["a", "b"], rewards={"urban": [2, 0.5], "rural": [-1, 0.4]})
        >>> explanation = explain(rank([candidates])[0])
        >>> explanation.winners, explanation.favourites, explanation.without
        ([0], {'urban': [0], 'rural': [1]}, {'urban': [1]})
    """

    winners: list[int]
    favourites: dict[str, list[int]]
    without: dict[str, list[int]]
    flips: list[Flip]
    sentences: list[str]


def explain(ranked: RankedPrompt) -> Explanation:
    """Explain a ranking: each cluster's favourites, the pivotal clusters, and the weights that would flip the verdict.

    Uses the rule and the scores of the ranking.

    Example:
        >>> from plural_rlhf import Candidates, rank
        >>> candidates = Candidates("Which?", ["a", "b"], rewards={"urban": [2, 0.5], "rural": [-1, 0.4]})
        >>> for sentence in explain(rank([candidates])[0]).sentences:
        ...     print(sentence)
        A wins under mean, with urban 50 %, rural 50 %.
        urban would choose A; rural would choose B.
        urban is pivotal: without it B would win.
        rural at 51.8 % (now 50 %) would turn the verdict to B.
        >>> tie = Candidates("Which?", ["a", "b"], rewards={"urban": [1, 0], "rural": [0, 1]})
        >>> for sentence in explain(rank([tie])[0]).sentences[-2:]:
        ...     print(sentence)
        Any more weight of urban would break the tie: A would win.
        Any more weight of rural would break the tie: B would win.
    """
    names, r, rule = ranked.cluster_names, ranked.rewards, ranked.rule
    shares = dict(zip(names, ranked.weights.tolist(), strict=True))
    favourites = {name: _top(r[:, k]) for k, name in enumerate(names)}
    winners, without, flips = _top(ranked.lottery), {}, []
    if len(r) > 1:
        for name in pivotal_clusters(r, shares, rule, cluster_names=names):
            others = sum(share for other, share in shares.items() if other != name)
            left = {other: share / others for other, share in shares.items() if other != name} if others else {}
            without[name] = _top(verdict(r, {**left, name: 0.0}, rule, cluster_names=names)) if left else []
        flips = flipping_weights(r, shares, rule, cluster_names=names)
    sentences = [_verdict_sentence(ranked, winners)]
    sentences.append(
        "; ".join(f"{name} would choose {' or '.join(map(label, best))}" for name, best in favourites.items()) + "."
    )
    for name, instead in without.items():
        outcome = f"without it {_winning(instead)}." if instead else "it is the only cluster."
        sentences.append(f"{name} is pivotal: {outcome}")
    # With two clusters, more of one is less of the other.
    turning = [f for f in flips if f.share_needed is not None and (len(names) > 2 or f.direction == "more")]
    for flip in sorted(turning, key=_distance):
        sentences.append(_tie_sentence(ranked, flip) if len(winners) > 1 else _flip_sentence(flip))
    if len(r) > 1 and not turning:
        change = "break the tie" if len(winners) > 1 else "turn the verdict"
        sentences.append(f"No change of one cluster's share alone would {change}.")
    return Explanation(winners, favourites, without, flips, sentences)


def _top(values: np.ndarray) -> list[int]:
    return np.flatnonzero(values >= values.max() - TIE).tolist()


def _winning(responses: list[int]) -> str:
    return f"{label(responses[0])} would win" if len(responses) == 1 else f"{_and(responses)} would tie"


def _and(responses: list[int]) -> str:
    return " and ".join(map(label, responses))


def _percent(share: float) -> str:
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


def _verdict_sentence(ranked: RankedPrompt, winners: list[int]) -> str:
    seats = ", ".join(
        f"{name} {_percent(w)}" for name, w in zip(ranked.cluster_names, ranked.weights, strict=True) if w > 0
    )
    drawn = [n for n in ranked.order if ranked.lottery[n] > TIE]
    if len(drawn) > len(winners):
        odds = ", ".join(f"{label(n)} {_percent(ranked.lottery[n])}" for n in drawn)
        return f"A draw decides under {ranked.rule}: {odds}, with {seats}."
    wins = "wins" if len(winners) == 1 else "tie"
    return f"{_and(winners)} {wins} under {ranked.rule}, with {seats}."


def _distance(flip: Flip) -> float:
    return abs((flip.share_needed or 0.0) - flip.share)


def _tie_sentence(ranked: RankedPrompt, flip: Flip) -> str:
    """Say who wins when one cluster's share breaks a tie: at once, as a rule, or from a share on."""
    k, needed = ranked.cluster_names.index(flip.cluster), flip.share_needed or 0.0
    shares = ranked.weights * (1 - needed) / (1 - flip.share)
    shares[k] = needed
    wins = _winning(_top(verdict(ranked.rewards, shares, ranked.rule)))
    if _distance(flip) < AT_ONCE:
        return f"Any {flip.direction} weight of {flip.cluster} would break the tie: {wins}."
    return f"{flip.cluster} at {_percent(_rounded(flip))} (now {_percent(flip.share)}) would break the tie: {wins}."


def _flip_sentence(flip: Flip) -> str:
    change = f"{flip.cluster} at {_percent(_rounded(flip))} (now {_percent(flip.share)})"
    return f"{change} would turn the verdict to {label(flip.winner or 0)}."


def _rounded(flip: Flip) -> float:
    """Round the share that is needed away from the present one, so that the stated share is enough."""
    towards = math.ceil if flip.direction == "more" else math.floor
    return towards(round(1000 * (flip.share_needed or 0.0), 6)) / 1000
