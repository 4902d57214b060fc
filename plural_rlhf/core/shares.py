"""Measure a policy: the share of it that belongs to each cluster, and the effective number of its answers.

Compare shares with the target weights, and numbers of answers with those of an earlier or another policy. Knows
nothing of how policy, responsibilities or completions came about.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from reward_models.errors import JuryError

from .aggregation import Weights, normalise_weights


__all__ = [
    "cluster_shares",
    "effective_answers",
    "effective_number",
    "effective_texts",
    "retention",
    "share_error",
    "words",
]


def cluster_shares(pi: Tensor, gamma: Tensor) -> Tensor:
    """Compute the share of each cluster in a policy, `s_k = sum_n pi(n) gamma_k(n)`.

    Args:
        pi: Probabilities of the answers (not logarithms), shape `(..., N)`; for a sample, `1 / N` each.
        gamma: Responsibilities, shape `(..., N, K)` (`targets.responsibilities`).

    Returns:
        Shape `(..., K)`, summing to the mass of `pi` on the answers. For the mixture target itself the shares are the
        weights.

    Example:
        >>> cluster_shares(torch.tensor([0.7, 0.3]), torch.tensor([[1.0, 0.0], [0.5, 0.5]]))  # .7 + .15, and .15
        tensor([0.8500, 0.1500])
    """
    return (pi.unsqueeze(-1) * gamma).sum(-2)


def retention(shares: Tensor, weights: Weights) -> Tensor:
    """Compute the least part of its weight that a cluster kept, `min_k s_k / w_k`, over positive weights.

    Args:
        shares: Shape `(..., K)`.
        weights: Shape `(K,)` or `(..., K)`.

    Returns:
        Shape `(...)`: 1 where every cluster has its share, 0 where one is extinct.

    Raises:
        JuryError: If the weights are unusable.

    Example:
        >>> retention(torch.tensor([0.95, 0.05]), [0.9, 0.1])
        tensor(0.5000)
    """
    w = normalise_weights(weights, shares.shape[-1]).to(shares)
    kept = torch.where(w > 0, shares / torch.where(w > 0, w, 1.0), math.inf)
    return kept.amin(-1)


def share_error(shares: Tensor, weights: Weights) -> Tensor:
    """Compute the largest relative error of a share, `max_k |s_k - w_k| / w_k`, over positive weights.

    Unlike `retention` it also detects a cluster with too large a share.

    Args:
        shares: Shape `(..., K)`.
        weights: Shape `(K,)` or `(..., K)`.

    Returns:
        Shape `(...)`: 0 where every cluster has its share; at least 1 where one is extinct.

    Raises:
        JuryError: If the weights are unusable.

    Example:
        >>> share_error(torch.tensor([0.7, 0.3]), [0.9, 0.1])  # the second has three times its weight
        tensor(2.0000)
    """
    w = normalise_weights(weights, shares.shape[-1]).to(shares)
    error = torch.where(w > 0, (shares - w).abs() / torch.where(w > 0, w, 1.0), 0.0)
    return error.amax(-1)


def effective_number(values: Tensor, order: float = 1.0) -> Tensor:
    """Compute the number of equally frequent answers with the same diversity: the Hill number of order q.

    It is `(sum_n p_n^q)^(1/(1-q))`. Order 1, the limit, is the exponential of the entropy; order 2 is one over the
    probability that two draws agree, and counts rare answers less; order 0 counts answers; infinity is one over the
    largest probability. Source: Hill, "Diversity and evenness", Ecology 54 (1973).

    A sample of G has at most G different answers and misses rare ones, so its number lies below that of the
    distribution: compare samples of one size.

    Args:
        values: Probabilities or counts, shape `(..., N)`, of any scale; divided by their sum here.
        order: The order q, 0 or more.

    Returns:
        Shape `(...)`, between 1 and N.

    Raises:
        JuryError: If a value is negative, infinite or NaN, or all are 0.
        ValueError: If the order is negative or NaN.

    Example:
        >>> effective_number(torch.tensor([[5, 5, 5], [0, 5, 5]]))
        tensor([3., 2.])
        >>> effective_number(torch.tensor([6, 3, 1]), order=2)  # 1 / (.36 + .09 + .01)
        tensor(2.1739)
    """
    if not order >= 0:
        raise ValueError(f"order is {order}: Hill numbers have an order of 0 or more; 1 is exp(entropy).")
    x = values if values.is_floating_point() else values.to(torch.get_default_dtype())
    bad = ~torch.isfinite(x) | (x < 0)
    if bad.any():
        raise JuryError(
            f"values: got {x[bad][0].item():g}, and probabilities and counts are finite and at least 0: pass "
            "probabilities, not their logarithms"
        )
    total = x.sum(-1, keepdim=True)
    if (total == 0).any():
        raise JuryError("values: all of a row are 0, so it has no distribution: leave empty groups out")
    p = x / total
    if order == 1:
        return torch.special.entr(p).sum(-1).exp()
    if order == 0:
        return (p > 0).to(p).sum(-1)
    if math.isinf(order):
        return 1 / p.amax(-1)
    return p.pow(order).sum(-1).pow(1 / (1 - order))


def effective_answers(groups: Iterable[Sequence[Hashable]]) -> float:
    """Compute the effective number of different completions per prompt: `exp` of each group's entropy, averaged.

    1 means that all completions of a prompt are the same. The maximum is the group size G, which long texts always
    reach, since no two are equal: there follow `effective_texts`, or the entropy of the policy.

    Args:
        groups: The completions of each prompt, as texts, token tuples or any other hashable objects.

    Raises:
        JuryError: If there is no group, or an empty one.

    Example:
        >>> effective_answers([["7", "7", "7", "7"], ["3", "7", "3", "7"]])
        1.5
    """
    counts = [Counter(group) for group in groups]
    if not all(counts) or not counts:
        raise JuryError(f"groups: got {[sum(c.values()) for c in counts]} completions: give every group at least one")
    numbers = [effective_number(torch.tensor(list(c.values()), dtype=torch.float64)) for c in counts]
    return float(torch.stack(numbers).mean())


def effective_texts(groups: Iterable[Sequence[str]]) -> float:
    """Compute the effective number of different wordings per prompt, for texts of which no two are equal.

    Two texts count as one to the extent to which they share words and pairs of neighbouring words: the similarity is
    the cosine of their counts, after Unicode compatibility normalisation (NFKC), without letter case and punctuation.
    The number is `exp` of the entropy of the eigenvalues of the similarities divided by n (the Vendi score, Friedman
    and Dieng, 2210.02410). For texts that share no word it equals `effective_answers`. It measures wording and not
    meaning: a paraphrase counts as another text, and two long texts of one language always share some words. Follow
    how it moves; its level is no number of opinions.

    Args:
        groups: The completions of each prompt.

    Raises:
        JuryError: If there is no group, or an empty one.

    Example:
        >>> round(effective_texts([["Red.", "red", "Blue!", "blue"]]), 6)  # two words, each twice
        2.0
        >>> texts = ["more parks for the old town", "more parks for the new town", "lower taxes"]
        >>> round(effective_answers([texts]), 2), round(effective_texts([texts]), 2)
        (3.0, 2.46)
    """
    groups = [list(group) for group in groups]
    if not all(groups) or not groups:
        raise JuryError(f"groups: got {[len(group) for group in groups]} completions: give every group at least one")
    return sum(_effective_wordings(group) for group in groups) / len(groups)


def _effective_wordings(texts: Sequence[str]) -> float:
    counts = [_wording(text) for text in texts]
    known = {part: i for i, part in enumerate(sorted(set().union(*counts)))}
    vectors = torch.zeros(len(texts), len(known), dtype=torch.float64)
    for row, parts in zip(vectors, counts, strict=True):
        for part, count in parts.items():
            row[known[part]] = count
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    shares = torch.linalg.eigvalsh(unit @ unit.T / len(texts)).clamp(min=0)
    return float(torch.special.entr(shares).sum().exp())


def words(text: str) -> list[str]:
    """Return the words of a text after NFKC, without letter case and punctuation; a text without words is one word.

    Example:
        >>> words("Don't panic!"), words("?!")
        (['don', 't', 'panic'], ['?!'])
    """
    normal = unicodedata.normalize("NFKC", text).casefold()
    return re.findall(r"\w+", normal) or [normal.strip()]


def _wording(text: str) -> Counter[str]:
    """Return the counts of a text's words and of its pairs of neighbouring words."""
    found = words(text)
    return Counter(found) + Counter(f"{first} {second}" for first, second in pairwise(found))
