"""Elections for the tests of group rules: written as ballots, made up from a seed, or drawn by hypothesis."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import numpy as np
import torch
from hypothesis import assume
from hypothesis import strategies as st
from torch import Tensor


def ballots(counts: dict[str, int], candidates: str = "") -> tuple[Tensor, list[int]]:
    """Rewards `(N, K)` and weights of ballots such as `{"ABC": 3, "BCA": 2}`, best first, candidates in order."""
    candidates = candidates or "".join(sorted(next(iter(counts))))
    rewards = [[float(len(ballot) - ballot.index(c)) for ballot in counts] for c in candidates]
    return torch.tensor(rewards), list(counts.values())


def random_ballots(seed: int, candidates: str = "ABCDE", kinds: int = 6) -> dict[str, int]:
    """The same ballots on every machine: only `random.random` is promised to stay as it is."""
    rng = random.Random(seed)
    made: dict[str, int] = {}
    for _ in range(kinds):
        keys = {c: rng.random() for c in candidates}
        ballot = "".join(sorted(candidates, key=keys.__getitem__))
        made[ballot] = made.get(ballot, 0) + 1 + int(9 * rng.random())
    return made


@st.composite
def elections(draw: st.DrawFn, min_responses: int = 2, max_responses: int = 6) -> tuple[Tensor, list[int]]:
    """Rewards `(N, K)` from a few levels, so that ties occur, and whole weights of which some may be 0."""
    n, k = draw(st.integers(min_responses, max_responses)), draw(st.integers(1, 4))
    levels = st.lists(st.integers(-3, 3), min_size=k, max_size=k)
    rewards = draw(st.lists(levels, min_size=n, max_size=n))
    weights = draw(st.lists(st.integers(0, 4), min_size=k, max_size=k).filter(any))
    return torch.tensor(rewards, dtype=torch.float64), weights


def check_symmetries(
    rule: Callable[..., Tensor], rewards: Tensor, weights: list[int], data: st.DataObject, atol: float = 1e-8
) -> None:
    """Clusters matter by their weights only, responses by their rewards only, and a cluster may be split in two."""
    n, k = rewards.shape
    found = rule(rewards, weights)
    clusters, responses = data.draw(st.permutations(range(k))), data.draw(st.permutations(range(n)))
    assert torch.allclose(rule(rewards[:, clusters], [weights[c] for c in clusters]), found, atol=atol)
    assert torch.allclose(rule(rewards[responses], weights), found[responses], atol=atol)
    split = torch.cat([rewards, rewards[:, :1]], dim=1)
    assert torch.allclose(rule(split, [weights[0] / 2, *weights[1:], weights[0] / 2]), found, atol=atol)


def check_mask(
    rule: Callable[..., Tensor],
    rewards: Tensor,
    weights: list[int],
    data: st.DataObject,
    left_out: float,
    atol: float = 1e-8,
) -> None:
    """A mask is leaving out: the others are judged as if they were alone, and what is masked gets `left_out`."""
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(rewards), max_size=len(rewards))))
    assume(int(mask.sum()) >= 2)
    found = rule(rewards, weights, mask)
    assert torch.allclose(found[mask], rule(rewards[mask], weights), atol=atol)
    assert (found[~mask] == left_out).all()


def best_of(scores: Tensor) -> set[int]:
    """Which responses of one group have the best score."""
    return set((scores >= scores.max() - 1e-9).nonzero().flatten().tolist())


# Seed of `random_ballots`: points of Borda, wins less losses, winners by Schulze, maximal lottery. The answers of
# another library: pref_voting 1.18.2's Profile(...).borda_scores(), .copeland_scores(), beat_path, maximal_lottery;
# elections with no Condorcet winner and no tied duel.
GOLDEN: dict[int, tuple[list[int], list[int], str, list[float]]] = {
    7: ([53, 49, 48, 62, 38], [0, 2, -2, 2, -2], "C", [0.0368, 0.1584, 0.4752, 0.2064, 0.1232]),
    31: ([61, 62, 64, 45, 58], [0, 2, 0, -2, 0], "AC", [0.0, 0.3913, 0.3913, 0.0, 0.2174]),
    46: ([46, 83, 84, 115, 62], [-4, 0, 2, 2, 0], "D", [0.0, 0.1579, 0.5789, 0.2632, 0.0]),
    48: ([52, 65, 24, 61, 48], [2, 2, -4, 2, -2], "BD", [0.0526, 0.0526, 0.0, 0.8947, 0.0]),
    52: ([51, 67, 39, 65, 38], [0, 2, -2, 2, -2], "B", [0.4444, 0.2222, 0.0, 0.3333, 0.0]),
    54: ([87, 36, 73, 56, 58], [2, -4, 0, 2, 0], "AC", [0.12, 0.0, 0.76, 0.0, 0.12]),
    57: ([68, 62, 35, 54, 51], [2, 2, -4, 2, -2], "AB", [0.0526, 0.8947, 0.0, 0.0526, 0.0]),
    62: ([74, 83, 47, 62, 64], [2, 2, -2, 0, -2], "A", [0.5758, 0.1515, 0.0, 0.2727, 0.0]),
}


# Counted ballot by ballot from the definitions, for elections of a few candidates: all that can be tried is tried.


def duels_by_hand(made: dict[str, int]) -> dict[tuple[str, str], int]:
    """Votes for the first of two candidates less votes for the second."""
    pairs = itertools.permutations(sorted(next(iter(made))), 2)
    return {(a, b): sum(n if o.index(a) < o.index(b) else -n for o, n in made.items()) for a, b in pairs}


def borda_by_hand(made: dict[str, int]) -> list[int]:
    """One point for each candidate below, on each ballot."""
    return [sum(n * (len(o) - 1 - o.index(c)) for o, n in made.items()) for c in sorted(next(iter(made)))]


def copeland_by_hand(made: dict[str, int]) -> list[int]:
    """Duels won less duels lost."""
    duels = duels_by_hand(made)
    return [sum((n > 0) - (n < 0) for (a, _), n in duels.items() if a == c) for c in sorted(next(iter(made)))]


def schulze_by_hand(made: dict[str, int]) -> set[int]:
    """Candidates whose strongest path to each other one is as strong as the one back, over all paths that there are.

    Schulze (2011), https://doi.org/10.1007/s00355-010-0475-4, with margins: a path is as strong as its weakest duel,
    and each duel of it is won.
    """
    duels, candidates = duels_by_hand(made), sorted(next(iter(made)))

    def strongest(a: str, b: str) -> int:
        others = [c for c in candidates if c not in (a, b)]
        ways = (way for n in range(len(others) + 1) for way in itertools.permutations(others, n))
        return max(max(0, min(duels[step] for step in itertools.pairwise((a, *way, b)))) for way in ways)

    paths = {pair: strongest(*pair) for pair in duels}
    return {i for i, a in enumerate(candidates) if all(n >= paths[b, a] for (c, b), n in paths.items() if c == a)}


def random_dictator_by_hand(made: dict[str, int]) -> list[float]:
    """The share of the ballots on which a candidate is first."""
    return [sum(n for o, n in made.items() if o[0] == c) / sum(made.values()) for c in sorted(next(iter(made)))]


def maximal_lottery_by_hand(made: dict[str, int]) -> list[float]:
    """The lottery that no candidate beats, where no duel is tied and no margin is even: then there is one.

    Each set of an odd number of candidates is tried: inside it every duel of the lottery ends in a draw (Fisher and
    Ryan, 1992; Laffond, Laslier and Le Breton, 1997).
    """
    candidates = sorted(next(iter(made)))
    margin = np.array([[duels_by_hand(made).get((a, b), 0) for b in candidates] for a in candidates], dtype=float)
    for size in range(1, len(candidates) + 1, 2):
        for support in map(list, itertools.combinations(range(len(candidates)), size)):
            draw = np.vstack([margin[np.ix_(support, support)].T, np.ones(size)])
            p, *_ = np.linalg.lstsq(draw, np.eye(size + 1)[size], rcond=None)
            lottery = np.zeros(len(candidates))
            lottery[support] = p
            if np.allclose(draw @ p, np.eye(size + 1)[size]) and (p > 1e-9).all() and (lottery @ margin > -1e-9).all():
                return lottery.tolist()
    raise AssertionError("no lottery: a duel is tied")


def check_many_groups(rule, agrees):
    """Groups are judged as each alone, whatever the leading shape and the number of blocks; returns the batch."""
    generator = torch.Generator().manual_seed(0)
    rewards = torch.randint(0, 4, (2, 300, 16, 3), generator=generator).half()  # more than one block
    weights = torch.rand(2, 300, 3, generator=generator)
    together = rule(rewards, weights)
    assert together.shape == (2, 300, 16)
    for index in [(0, 0), (0, 255), (0, 256), (1, 299)]:
        assert agrees(together[index], rule(rewards[index], weights[index]))
    return rewards
