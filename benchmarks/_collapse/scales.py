"""The exact target of every prompt, and a policy's distance from it and from the start.

A policy is read off exactly, by scoring all answers; what it says besides is one more answer, `other`, with a target
of its own. Knows nothing of how a policy was trained.

| metric | what it is |
|---|---|
| `jsd_nats` | JS divergence to the exact target, `other` included; mean over prompts, as everywhere |
| `jsd_valid_to_reference` | JS divergence between policy and start, both over the valid answers only |
| `valid_mass` | probability of the valid answers |
| `effective_answers` | e to the entropy over the valid answers |
| `shares` | of each cluster, by the responsibilities of the mixture |
| `minority_retention` | the least share as a part of the own weight |
| `share_error` | the largest distance of a share from its weight, as a part of the weight |
| `favourite` | share of the valid mass that the favourite answer has |
| `favourite_change` | how much larger it is than at the start, as a part of the start |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from _collapse.cases import Case, Problem, TableJury


if TYPE_CHECKING:
    import numpy as np

__all__ = ["UNITS", "Scales"]

UNITS = {
    "jsd_nats": "nats",
    "jsd_valid_to_reference": "nats",
    "valid_mass": "probability",
    "effective_answers": "answers",
    "minority_retention": "share of own weight",
    "share_error": "share of own weight",
    "favourite": "probability",
    "favourite_change": "share of start",
}


class Scales:
    """What the policies of a case are measured against.

    Args:
        case: The jury and the temperature.
        problems: The prompts, of the seeds that count or of the tuning.
        start: `(A,)` probabilities of the answers under the start, for each problem.

    Attributes:
        rewards: `(A + 1, K)` logits, for each problem; the last row is of anything that is no answer.
    """

    def __init__(self, case: Case, problems: Sequence[Problem], start: Sequence[np.ndarray]) -> None:
        import torch

        from plural_rlhf.core.targets import PoolTarget, log_partition, responsibilities

        self.case, self.problems, self.start = case, problems, list(start)
        jury = TableJury(problems, case.weights, case.invalid)
        self.weights = torch.tensor(list(case.weights.values()), dtype=torch.float64)
        pool = PoolTarget(beta=case.beta, tie_margin=case.tie_margin)
        self.rewards: list[np.ndarray] = []
        self.targets: list[np.ndarray] = []
        self.gamma: list[np.ndarray] = []
        for problem, pi_ref in zip(problems, start, strict=True):
            texts = [*problem.answers, ""]  # the last one stands for anything that is no answer
            r = jury.cluster_rewards([problem.prompt] * len(texts), texts).double()[None]
            log_pi_ref = torch.tensor(with_other(pi_ref)).log()[None]
            self.rewards.append(r[0].numpy())
            self.targets.append(pool.log_probs(r, self.weights, log_pi_ref)[0].exp().numpy())
            log_z = log_partition(r, log_pi_ref, case.beta)[:, None]
            self.gamma.append(responsibilities(r, self.weights, log_z, case.beta)[0, :-1].numpy())

    @classmethod
    def of(cls, case: Case, problems: Sequence[Problem], model: Any, tokenizer: Any) -> Scales:
        """The scales whose start is `model`."""
        return cls(case, problems, probabilities(model, tokenizer, problems))

    def measure(self, policy: Sequence[np.ndarray]) -> dict[str, Any]:
        """All metrics of a policy.

        Args:
            policy: `(A,)` probabilities of the answers, for each problem.

        Returns:
            The metrics by name; `shares` `(K,)`; `probabilities` `(A,)` where all prompts have the same answers.
        """
        import numpy as np

        from reward_models.stats.answers import js_divergence

        case, n = self.case, len(self.problems)
        # A diverged run has no distribution; it counts as all mass outside the answers.
        policy = [np.nan_to_num(np.asarray(pi, dtype=np.float64)) for pi in policy]
        valid = [_valid_part(pi) for pi in policy]
        at_start = [_valid_part(pi) for pi in self.start]
        shares = sum(pi @ gamma for pi, gamma in zip(policy, self.gamma, strict=True)) / n
        kept = shares / self.weights.numpy()
        found: dict[str, Any] = {
            "jsd_nats": _mean(js_divergence(p, with_other(q)) for p, q in zip(self.targets, policy, strict=True)),
            "jsd_valid_to_reference": _mean(js_divergence(p, q) for p, q in zip(at_start, valid, strict=True)),
            "valid_mass": _mean(pi.sum() for pi in policy),
            "effective_answers": _mean(np.exp(-(q * np.log(np.where(q > 0, q, 1))).sum()) for q in valid),
            "minority_retention": float(kept.min()),
            "share_error": float(np.abs(kept - 1).max()),
            "shares": shares.tolist(),
        }
        if case.favourite is not None:
            best = [problem.answers.index(case.favourite) for problem in self.problems]
            before = _mean(q[i] for q, i in zip(at_start, best, strict=True))
            found["favourite"] = _mean(q[i] for q, i in zip(valid, best, strict=True))
            found["favourite_change"] = found["favourite"] / before - 1
        if case.answers:
            found["probabilities"] = (sum(policy) / n).tolist()
        return found


def probabilities(model: Any, tokenizer: Any, problems: Sequence[Problem]) -> list[np.ndarray]:
    """`(A,)` probabilities of each problem's answers, end token included."""
    from plural_rlhf.policies.answers import answer_probabilities

    prompts, supports = [p.messages for p in problems], [p.answers for p in problems]
    return answer_probabilities(model, tokenizer, prompts, supports, progress=False)


def with_other(pi: np.ndarray) -> np.ndarray:
    """`(A + 1,)`: the probabilities of the answers, and of all else."""
    import numpy as np

    return np.append(pi, max(0.0, 1.0 - float(pi.sum())))


def _valid_part(pi: np.ndarray) -> np.ndarray:
    import numpy as np

    total = float(pi.sum())
    return pi / total if total > 0 else np.full(len(pi), 1 / len(pi))


def _mean(values: Any) -> float:
    import numpy as np

    return float(np.mean(list(values)))
