"""Ranks candidate responses under a jury: which one wins, for whom, and what it would take for another to win.

Candidates come from a file or from Python, with the clusters' scores or without; then any `ClusterScorer` gives them.
A prompt may carry its own weights and its own rule. Knows nothing of policies, of files only how it writes its own,
and of models only that something scores `N` responses for `K` clusters.

Shapes: `N` responses to one prompt, `K` clusters.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from plural_rlhf.core.rules import Rule, RuleSpec
from plural_rlhf.evaluation.decisions.flips import Flip, flipping_weights, pivotal_clusters
from plural_rlhf.evaluation.decisions.verdicts import verdict
from plural_rlhf.ranking.candidates import REWARD, Candidates, CandidatesError, label
from plural_rlhf.rewards.calibrated import require_calibrated
from reward_models.errors import JuryError
from reward_models.jury.protocol import ClusterScorer
from reward_models.weights import WeightSpec, parse_weights
from reward_models.whole_file import whole_file


__all__ = ["Explanation", "RankedPrompt", "explain", "rank", "write_ranked"]

CHUNK = 512  # texts between two steps of the progress bar
TIE = 1e-9


@dataclass(frozen=True)
class RankedPrompt:
    """The responses to one prompt in the order in which a jury wants them.

    Attributes:
        candidates: As given.
        cluster_names: `K` names.
        rewards: `(N, K)` scores by cluster.
        weights: `(K,)` who decides, summing to one.
        rule: How.
        scores: `(N,)` what each response is worth under the rule; more is better.
        lottery: `(N,)` the verdict: the probability with which each response is chosen, even between equals.
        ranks: `(N,)` from 1; equals share the better rank.
    """

    candidates: Candidates
    cluster_names: list[str]
    rewards: np.ndarray
    weights: np.ndarray
    rule: Rule
    scores: np.ndarray
    lottery: np.ndarray
    ranks: np.ndarray

    @property
    def order(self) -> list[int]:
        """Responses from best to worst: by rank, equals by probability, and then as they were given."""
        return np.lexsort((-self.lottery.round(9), self.ranks)).tolist()

    @property
    def best(self) -> int:
        """The first of `order`."""
        return self.order[0]

    def rows(self) -> list[dict[str, Any]]:
        """A row a response, best first, in the form that `read_candidates` reads."""
        given = self.candidates
        own = {"prompt_id": given.prompt_id, "prompt": given.prompt, "weights": given.weights, "rule": given.rule}
        kept = {name: value for name, value in own.items() if value is not None}
        return [
            {
                **(given.columns[n] if given.columns else {}),
                **kept,
                "response": given.responses[n],
                **{REWARD + name: float(r) for name, r in zip(self.cluster_names, self.rewards[n], strict=True)},
                "score": float(self.scores[n]),
                "probability": float(self.lottery[n]),
                "rank": int(self.ranks[n]),
            }
            for n in self.order
        ]


def rank(
    candidates: Sequence[Candidates],
    scorer: ClusterScorer | None = None,
    weights: WeightSpec | None = None,
    rule: RuleSpec = "mean",
    *,
    calibrated: bool | None = None,
    progress: bool = False,
) -> list[RankedPrompt]:
    """Rank the responses to each prompt.

    Args:
        candidates: One entry a prompt.
        scorer: A jury, or anything else that scores for clusters; None where the candidates have their scores.
        weights: Who decides; a prompt's own weights win. None: the scorer's prevalence, or all clusters alike.
        rule: How (`plural_rlhf.core.rules.Rule`); a prompt's own rule wins.
        calibrated: `False`: let rules that compare clusters take scores that are not known to be on one scale.
        progress: Show a bar while scoring.

    Raises:
        CandidatesError: Scores missing, or given twice; a prompt's own weights or rule that cannot be used; one
            response under a rule that judges responses among each other.
        JuryError: Weights that cannot be used, or a scorer that is not calibrated under a rule that needs it.
        ValueError, TypeError: A rule or an option that there is not.

    Warns:
        UserWarning: Scores from a file under a rule that compares clusters: nobody has said that they can be compared.

    Example:
        >>> colours = Candidates("Which?", ["red", "blue"], rewards={"warm": [1, 0], "cold": [0, 0.5]})
        >>> [ranked] = rank([colours], weights={"warm": 1, "cold": 3})
        >>> ranked.ranks.tolist(), ranked.scores.tolist()
        ([2, 1], [0.25, 0.375])
    """
    default = Rule.parse(rule)
    checked: set[tuple[Rule, int]] = set()
    plans = []
    for given in candidates:
        names = _cluster_names(given, scorer)
        try:
            own = default if given.rule is None else Rule.parse(given.rule)
            shares = _shares(weights if given.weights is None else given.weights, names, scorer)
            if (own, len(names)) not in checked:
                own.check(len(names))
                checked.add((own, len(names)))
        except (TypeError, ValueError) as error:
            if given.rule is None and given.weights is None:
                raise
            raise CandidatesError(f"{given.where(0)}: {error}") from error
        if own.within_group and len(given.responses) == 1:
            raise CandidatesError(
                f"{given.where(0)}: the prompt {given.name!r} has one response, and the rule {str(own)!r} judges a "
                "response among others. Give more, or choose a rule that judges each by itself, such as mean."
            )
        if scorer is not None:
            require_calibrated(own, scorer, calibrated)
        plans.append((given, names, shares, own))
    comparing = {str(own) for own, _ in checked if own.compares_heads}
    if scorer is None and calibrated is None and comparing:
        warnings.warn(
            f"{', '.join(sorted(comparing))} compares the scores of one cluster with another's; the given ones are "
            "taken to be on one scale (calibrated=False or --uncalibrated says that this is known).",
            UserWarning,
            stacklevel=2,
        )
    scored = (
        [_given_rewards(given) for given in candidates] if scorer is None else _score(candidates, scorer, progress)
    )
    together: dict[tuple[Rule, tuple[int, ...]], list[int]] = {}
    for i, ((*_, own), rewards) in enumerate(zip(plans, scored, strict=True)):
        together.setdefault((own, rewards.shape), []).append(i)
    ranked: dict[int, RankedPrompt] = {}
    for (own, _), rows in together.items():
        r = torch.from_numpy(np.stack([scored[i] for i in rows]))
        w = torch.from_numpy(np.stack([plans[i][2] for i in rows]))
        scores, lotteries = (found.numpy() for found in own.verdict(r, w))
        for i, of_prompt, lottery in zip(rows, scores, lotteries, strict=True):
            given, names, shares, _ = plans[i]
            ranked[i] = RankedPrompt(given, names, scored[i], shares, own, of_prompt, lottery, _ranks(of_prompt))
    return [ranked[i] for i in range(len(plans))]


@dataclass(frozen=True)
class Explanation:
    """Why a verdict is what it is.

    Attributes:
        winners: The likeliest responses of the verdict.
        favourites: By cluster, the responses that it scores highest.
        without: By pivotal cluster, who would win without it; empty if it sits alone.
        flips: For each cluster the nearest shares that turn the verdict (`evaluation.flips.flipping_weights`).
        sentences: All of it in words, responses named A, B, C in the order in which they were given.
    """

    winners: list[int]
    favourites: dict[str, list[int]]
    without: dict[str, list[int]]
    flips: list[Flip]
    sentences: list[str]


def explain(ranked: RankedPrompt) -> Explanation:
    """Say whom each cluster would choose, whose presence decides, and what weights would turn the verdict.

    Clusters compare under the rule of the ranking, on the scores that it was made from.

    Example:
        >>> given = Candidates("Which?", ["a", "b"], rewards={"urban": [2, 0.5], "rural": [-1, 0.4]})
        >>> for sentence in explain(rank([given])[0]).sentences:
        ...     print(sentence)
        A wins under mean, with urban 50 %, rural 50 %.
        urban would choose A; rural would choose B.
        urban is pivotal: without it B would win.
        rural at 51.8 % (now 50 %) would turn the verdict to B.
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
    said = [_verdict_sentence(ranked, winners)]
    said.append(
        "; ".join(f"{name} would choose {' or '.join(map(label, best))}" for name, best in favourites.items()) + "."
    )
    for name, instead in without.items():
        said.append(f"{name} is pivotal: " + (f"without it {_winning(instead)}." if instead else "it sits alone."))
    # With two clusters, more of the one is less of the other.
    turning = [f for f in flips if f.share_needed is not None and (len(names) > 2 or f.direction == "more")]
    said += [_flip_sentence(flip) for flip in sorted(turning, key=_distance)]
    if len(r) > 1 and not turning:
        said.append("No change of one cluster's share alone would turn the verdict.")
    return Explanation(winners, favourites, without, flips, said)


def write_ranked(path: str | Path, ranked: Iterable[RankedPrompt], *, best: bool = False) -> None:
    """Write ranked candidates as JSON lines, as a whole or not at all; `read_candidates` reads them.

    Args:
        path: Replaced if it is there.
        ranked: What `rank` returned.
        best: Only the best response to each prompt.
    """
    with whole_file(path) as file:
        for prompt in ranked:
            for row in prompt.rows()[: 1 if best else None]:
                file.write(json.dumps(row, ensure_ascii=False, default=_as_json) + "\n")


# ── ranking ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _cluster_names(given: Candidates, scorer: ClusterScorer | None) -> list[str]:
    if scorer is None:
        if not given.rewards:
            raise CandidatesError(
                f"{given.where(0)}: there are no scores ({REWARD}<cluster>) and nobody to ask for them. Give a jury "
                "(on the command line --jury)."
            )
        return list(given.rewards)
    if given.rewards:
        raise CandidatesError(
            f"{given.where(0)}: there are scores already ({REWARD}{next(iter(given.rewards))}), and a jury was given, "
            "too. Leave out one of them."
        )
    return scorer.cluster_names


def _shares(spec: WeightSpec | None, names: list[str], scorer: ClusterScorer | None) -> np.ndarray:
    """(K,) weights; scores alone know no prevalence."""
    if scorer is not None:
        return parse_weights("prevalence" if spec is None else spec, names, scorer.prevalence)
    if isinstance(spec, str) and spec == "prevalence":
        raise JuryError(
            "weights: 'prevalence' asks how common each cluster is, and scores without a jury do not say. Give "
            f"shares such as {names[0]}=0.6, or 'uniform'."
        )
    return parse_weights("uniform" if spec is None else spec, names, np.full(len(names), 1 / len(names)))


def _given_rewards(given: Candidates) -> np.ndarray:
    return np.stack([np.asarray(scores, dtype=np.float64) for scores in (given.rewards or {}).values()], axis=1)


def _score(candidates: Sequence[Candidates], scorer: ClusterScorer, progress: bool) -> list[np.ndarray]:
    """(N, K) rewards of each prompt's responses; all texts go to the scorer in large parts."""
    texts = [(given, n) for given in candidates for n in range(len(given.responses))]
    parts = []
    with tqdm(total=len(texts), desc="scoring", unit="text", disable=not progress or len(texts) <= CHUNK) as bar:
        for start in range(0, len(texts), CHUNK):
            part = texts[start : start + CHUNK]
            rewards = scorer.cluster_rewards([g.prompt for g, _ in part], [g.responses[n] for g, n in part])
            expected = (len(part), len(scorer.cluster_names))
            if tuple(rewards.shape) != expected:
                raise JuryError(f"the scorer returned rewards of shape {tuple(rewards.shape)}, and not {expected}.")
            if not bool(torch.isfinite(rewards).all()):
                i, k = (~torch.isfinite(rewards)).nonzero()[0].tolist()
                given, n = part[i]
                raise CandidatesError(
                    f"{given.where(n)}: the cluster {scorer.cluster_names[k]!r} gives {float(rewards[i, k])}, and "
                    "nothing can be weighed against that. Look at the scorer, or leave the response out."
                )
            parts.append(rewards.double().numpy())
            bar.update(len(part))
    ends = np.cumsum([len(given.responses) for given in candidates])[:-1]
    return np.split(np.concatenate(parts), ends) if parts else []


def _ranks(scores: np.ndarray) -> np.ndarray:
    """(N,) ranks from 1; equals share the better one."""
    order = np.argsort(-scores, kind="stable")
    leads = np.append(True, scores[order][:-1] - scores[order][1:] > TIE)
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.maximum.accumulate(np.where(leads, np.arange(1, len(order) + 1), 0))
    return ranks


# ── words ────────────────────────────────────────────────────────────────────────────────────────────────────────────


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


def _flip_sentence(flip: Flip) -> str:
    # Rounded away from where the cluster stands, so that the share that is said is enough.
    towards = math.ceil if flip.direction == "more" else math.floor
    needed = towards(round(1000 * (flip.share_needed or 0.0), 6)) / 1000
    winner = label(flip.winner or 0)
    return f"{flip.cluster} at {_percent(needed)} (now {_percent(flip.share)}) would turn the verdict to {winner}."


def _as_json(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return dict(value) if isinstance(value, Mapping) else str(value)
