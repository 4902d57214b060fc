"""Rank candidate responses under weights and a welfare rule.

Candidates come from a file or from Python, with the clusters' scores or without; a `ClusterScorer` then scores them. A
prompt may have its own weights and its own rule. `explain` has the counterfactuals of a ranking. Knows nothing
of policies, and of models only that a scorer gives `N` responses scores for `K` clusters.

Shapes: `N` responses to one prompt, `K` clusters.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from plural_rlhf.core.rules import Rule, RuleSpec
from plural_rlhf.ranking.candidates import REWARD, Candidates, CandidatesError
from plural_rlhf.rewards.calibrated import require_calibrated
from reward_models.errors import JuryError
from reward_models.jury.protocol import ClusterScorer
from reward_models.weights import WeightSpec, parse_weights
from reward_models.whole_file import whole_file


__all__ = ["TIE", "RankedPrompt", "rank", "write_ranked"]

CHUNK = 512  # texts between two steps of the progress bar
TIE = 1e-9
"""Scores and probabilities closer than this are equal."""


@dataclass(frozen=True)
class RankedPrompt:
    """The ranking of the responses to one prompt, as `rank` returns it.

    Attributes:
        candidates: The responses.
        cluster_names: `K` names.
        rewards: `(N, K)` scores by cluster.
        weights: `(K,)` weights of the clusters, summing to one.
        rule: The welfare rule.
        scores: `(N,)` score of each response under the rule; higher is better.
        lottery: `(N,)` the verdict: the probability with which each response is chosen, even between equals.
        ranks: `(N,)` from 1; equals share the better rank.

    Example:
        >>> colours = Candidates("Which?", ["red", "blue"], rewards={"warm": [1, 0], "cold": [0, 0.5]})
        >>> [ranked] = rank([colours], weights={"warm": 1, "cold": 3})
        >>> ranked.order, ranked.best, ranked.rows()[0]["response"]
        ([1, 0], 1, 'blue')
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
        """Responses from best to worst: by rank, then by probability, then in the order of the candidates."""
        return np.lexsort((-self.lottery.round(9), self.ranks)).tolist()

    @property
    def best(self) -> int:
        """The first of `order`."""
        return self.order[0]

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per response, best first, in the form that `read_candidates` reads."""
        candidates = self.candidates
        of_prompt = {
            "prompt_id": candidates.prompt_id,
            "prompt": candidates.prompt,
            "weights": candidates.weights,
            "rule": candidates.rule,
        }
        kept = {name: value for name, value in of_prompt.items() if value is not None}
        return [
            {
                **(candidates.columns[n] if candidates.columns else {}),
                **kept,
                "response": candidates.responses[n],
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
        candidates: One entry per prompt.
        scorer: A `JuryScorer` or another `ClusterScorer`; None if the candidates have scores.
        weights: Weights of the clusters; a prompt's own weights take precedence. None: the scorer's prevalence, or
            equal weights without a scorer.
        rule: Welfare rule (`plural_rlhf.core.rules.Rule`); a prompt's own rule takes precedence.
        calibrated: `False`: accept scores that are not known to be on one scale under rules that compare clusters.
        progress: Whether to show a bar while scoring.

    Returns:
        One ranking per prompt, in order.

    Raises:
        CandidatesError: If scores are missing or given twice, a prompt's own weights or rule cannot be used, or a
            group rule gets a single response.
        JuryError: If the weights cannot be used, or the scorer is not calibrated under a rule that needs it.
        ValueError, TypeError: If the rule or an option is unknown.

    Warns:
        UserWarning: If scores without a scorer are ranked under a rule that compares clusters, because it is not known
            whether they are on one scale.

    Example:
        >>> colours = Candidates("Which?", ["red", "blue"], rewards={"warm": [1, 0], "cold": [0, 0.5]})
        >>> [ranked] = rank([colours], weights={"warm": 1, "cold": 3})
        >>> ranked.ranks.tolist(), ranked.scores.tolist()
        ([2, 1], [0.25, 0.375])
    """
    default = Rule.parse(rule)
    checked: set[tuple[Rule, int]] = set()
    decisions = []
    for prompt in candidates:
        decision = _decision(prompt, scorer, weights, default, checked)
        if scorer is not None:
            require_calibrated(decision.rule, scorer, calibrated)
        decisions.append(decision)
    comparing = {str(used) for used, _ in checked if used.compares_heads}
    if scorer is None and calibrated is None and comparing:
        warnings.warn(
            f"{', '.join(sorted(comparing))} compares the scores of one cluster with another's, and it is not known "
            "whether the given scores are on one scale. If they are, pass calibrated=False or --uncalibrated to turn "
            "this warning off.",
            UserWarning,
            stacklevel=2,
        )
    rewards = (
        [_given_rewards(prompt) for prompt in candidates] if scorer is None else _score(candidates, scorer, progress)
    )
    groups: dict[tuple[Rule, tuple[int, ...]], list[int]] = {}
    for i, decision in enumerate(decisions):
        groups.setdefault((decision.rule, rewards[i].shape), []).append(i)
    ranked: dict[int, RankedPrompt] = {}
    for (used, _), members in groups.items():
        r = torch.from_numpy(np.stack([rewards[i] for i in members]))
        w = torch.from_numpy(np.stack([decisions[i].weights for i in members]))
        scores, lotteries = (values.numpy() for values in used.verdict(r, w))
        for i, of_prompt, lottery in zip(members, scores, lotteries, strict=True):
            d = decisions[i]
            ranked[i] = RankedPrompt(
                d.candidates, d.cluster_names, rewards[i], d.weights, used, of_prompt, lottery, _ranks(of_prompt)
            )
    return [ranked[i] for i in range(len(decisions))]


def write_ranked(path: str | Path, ranked: Iterable[RankedPrompt], *, best: bool = False) -> None:
    """Write ranked candidates as JSON lines, atomically, in the form that `read_candidates` reads.

    Args:
        path: File to write; an existing file is replaced.
        ranked: From `rank`.
        best: Whether to write only the best response to each prompt.

    Example:
        >>> import tempfile
        >>> from plural_rlhf.ranking.candidates import read_candidates
        >>> ranked = rank([Candidates("Which?", ["red", "blue"], rewards={"warm": [1, 0], "cold": [0, 3]})])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_ranked(f"{folder}/ranked.jsonl", ranked, best=True)
        ...     [again] = read_candidates(f"{folder}/ranked.jsonl")
        >>> again.responses, again.rewards
        (['blue'], {'warm': [0.0], 'cold': [3.0]})
    """
    with whole_file(path) as file:
        for prompt in ranked:
            for row in prompt.rows()[: 1 if best else None]:
                file.write(json.dumps(row, ensure_ascii=False, default=_as_json) + "\n")


@dataclass(frozen=True)
class _Decision:
    """How the responses to one prompt are to be ranked."""

    candidates: Candidates
    cluster_names: list[str]
    weights: np.ndarray
    rule: Rule


def _decision(
    prompt: Candidates,
    scorer: ClusterScorer | None,
    weights: WeightSpec | None,
    default: Rule,
    checked: set[tuple[Rule, int]],
) -> _Decision:
    """Resolve and validate a prompt's weights and rule; `checked` are the rules that were tried, and is extended."""
    names = _cluster_names(prompt, scorer)
    try:
        rule = default if prompt.rule is None else Rule.parse(prompt.rule)
        shares = _shares(weights if prompt.weights is None else prompt.weights, names, scorer)
        if (rule, len(names)) not in checked:
            rule.check(len(names))
            checked.add((rule, len(names)))
    except (TypeError, ValueError) as error:
        if prompt.rule is None and prompt.weights is None:
            raise
        raise CandidatesError(f"{prompt.where(0)}: {error}") from error
    if rule.within_group and len(prompt.responses) == 1:
        raise CandidatesError(
            f"{prompt.where(0)}: the prompt {prompt.name!r} has one response, and the rule {str(rule)!r} scores a "
            "response among others. Give more responses, or choose a rule that scores each by itself, such as mean."
        )
    return _Decision(prompt, names, shares, rule)


def _cluster_names(prompt: Candidates, scorer: ClusterScorer | None) -> list[str]:
    if scorer is None:
        if not prompt.rewards:
            raise CandidatesError(
                f"{prompt.where(0)}: there are no scores ({REWARD}<cluster>) and no scorer. Give a scorer (on the "
                "command line --jury FOLDER)."
            )
        return list(prompt.rewards)
    if prompt.rewards:
        raise CandidatesError(
            f"{prompt.where(0)}: there are scores already ({REWARD}{next(iter(prompt.rewards))}), and a scorer was "
            "given, too. Leave out one of them."
        )
    return scorer.cluster_names


def _shares(spec: WeightSpec | None, names: list[str], scorer: ClusterScorer | None) -> np.ndarray:
    """Return weights (K,); scores without a scorer have no prevalence."""
    if scorer is not None:
        return parse_weights("prevalence" if spec is None else spec, names, scorer.prevalence)
    if isinstance(spec, str) and spec == "prevalence":
        raise JuryError(
            "weights: 'prevalence' needs a scorer, because scores alone do not state how common each cluster is. Give "
            f"shares such as {names[0]}=0.6, or 'uniform'."
        )
    return parse_weights("uniform" if spec is None else spec, names, np.full(len(names), 1 / len(names)))


def _given_rewards(prompt: Candidates) -> np.ndarray:
    return np.stack([np.asarray(scores, dtype=np.float64) for scores in (prompt.rewards or {}).values()], axis=1)


def _score(candidates: Sequence[Candidates], scorer: ClusterScorer, progress: bool) -> list[np.ndarray]:
    """Return the rewards (N, K) of each prompt's responses; the scorer gets all texts in large parts."""
    texts = [(prompt, n) for prompt in candidates for n in range(len(prompt.responses))]
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
                prompt, n = part[i]
                raise CandidatesError(
                    f"{prompt.where(n)}: the cluster {scorer.cluster_names[k]!r} gives {float(rewards[i, k])}, and a "
                    "score must be a finite number. Check the scorer, or leave the response out."
                )
            parts.append(rewards.double().numpy())
            bar.update(len(part))
    ends = np.cumsum([len(prompt.responses) for prompt in candidates])[:-1]
    return np.split(np.concatenate(parts), ends) if parts else []


def _ranks(scores: np.ndarray) -> np.ndarray:
    """Return ranks (N,) from 1; equals share the better one."""
    order = np.argsort(-scores, kind="stable")
    leads = np.append(True, scores[order][:-1] - scores[order][1:] > TIE)
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.maximum.accumulate(np.where(leads, np.arange(1, len(order) + 1), 0))
    return ranks


def _as_json(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return dict(value) if isinstance(value, Mapping) else str(value)
