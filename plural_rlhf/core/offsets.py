"""Per-prompt offsets `lambda_k ~ log Z_k + c`: the partition functions that a sampled mixture target needs.

Kept between visits, they are not estimated inside a group of G samples: that drives every cluster with `w_k G < 1` to
extinction. They start from reference samples and move by responsibility balancing,
`lambda_k += eta (mean gamma_k - w_k)`: stochastic gradient descent on

    F(lambda) = log E_{pi_ref}[sum_k w_k exp(r_k / beta - lambda_k)] + sum_k w_k lambda_k,

which is convex with its minima at `lambda = log Z + c`, as long as the policy follows the target of the current
offsets. The balance is that of the mixture, so the responsibilities must be those of `rho = 1`, on samples of a policy
whose target is `rho = 1`. The log pool (`rho = 0`) needs no offsets. The offsets of a prompt do not depend on the
weights: prompts may be visited under other weights each time.

Knows nothing of policies, tokenizers or processes: gather the responsibilities of all processes, then update on each.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from reward_models.errors import JuryError

from .aggregation import Weights, normalise_weights


__all__ = ["OffsetTracker", "balance", "prompt_key"]


def prompt_key(prompt: Any) -> str:
    """Key of a prompt that is the same in every process and after every restart: a hash of its canonical JSON.

    Args:
        prompt: A string, or a conversation (a list of messages), or anything else that JSON can write.

    Returns:
        32 hexadecimal digits.

    Example:
        >>> prompt_key([{"role": "user", "content": "hi"}]) == prompt_key([{"content": "hi", "role": "user"}])
        True
    """
    canonical = json.dumps(prompt, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def balance(
    log_z: Tensor, gamma_mean: Tensor, weights: Weights, learning_rate: float, precondition_clip: float = 10.0
) -> Tensor:
    """One step of responsibility balancing, `lambda_k += eta c_k (mean gamma_k - w_k)`.

    `c_k = min(1 / w_k, precondition_clip)`, because the curvature of F is about `w_k` in the direction of a rare
    cluster. The weighted mean of the offsets is kept: only their differences matter.

    Args:
        log_z: Offsets in nats, shape `(..., K)`.
        gamma_mean: Mean responsibility over samples of the policy, shape `(..., K)`, one in sum.
        weights: Shape `(K,)` or `(..., K)`; normalised here. Clusters of weight 0 stay.
        learning_rate: eta.
        precondition_clip: Upper bound of the preconditioner; 1 turns it off.

    Returns:
        Nats, shape `(..., K)`.

    Raises:
        JuryError: If the weights are unusable.
    """
    w = normalise_weights(weights, log_z.shape[-1]).to(log_z)
    step = learning_rate * (gamma_mean.to(log_z) - w) / w.clamp(min=1.0 / precondition_clip)
    step = torch.where(w > 0, step - (w * step).sum(-1, keepdim=True), 0.0)
    return log_z + step


class OffsetTracker:
    """Offsets of every prompt met so far.

    Args:
        num_clusters: K.
        learning_rate: eta of the first update of a prompt; below 1, and small against the speed of the policy.
        decay: The n-th update of a prompt uses `learning_rate / (1 + decay n)`.
        n_ref: Reference samples that `initialise` is meant to get (for the caller that draws them).
        precondition_clip: See `balance`.

    Raises:
        ValueError: If a setting is out of its range.

    Example:
        >>> tracker = OffsetTracker(num_clusters=2)
        >>> key = prompt_key("Pick a colour.")
        >>> tracker.initialise(key, torch.tensor([[1.0, 0.0], [1.0, 0.0]]), beta=1.0)
        >>> tracker.get([key, "unseen"]).tolist()
        [[1.0, 0.0], [0.0, 0.0]]
    """

    def __init__(
        self,
        num_clusters: int,
        learning_rate: float = 0.1,
        decay: float = 0.002,
        n_ref: int = 16,
        precondition_clip: float = 10.0,
    ) -> None:
        if num_clusters < 1:
            raise ValueError(f"num_clusters: got {num_clusters}; a jury has at least one cluster")
        if not 0 <= learning_rate < math.inf:
            raise ValueError(f"learning_rate: got {learning_rate:g}; give 0 (offsets stay) or more, 0.1 by default")
        if not decay >= 0:
            raise ValueError(f"decay: got {decay:g}; give 0 (constant learning rate) or more")
        if n_ref < 0:
            raise ValueError(f"n_ref: got {n_ref}; it is a number of reference samples, 0 (start at zero) or more")
        if not precondition_clip >= 1:
            raise ValueError(f"precondition_clip: got {precondition_clip:g}; give 1 (off) or more")
        self.num_clusters = num_clusters
        self.learning_rate = learning_rate
        self.decay = decay
        self.n_ref = n_ref
        self.precondition_clip = precondition_clip
        self._log_z: dict[str, Tensor] = {}
        self._updates: dict[str, int] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._log_z

    def __len__(self) -> int:
        return len(self._log_z)

    def get(self, keys: Sequence[str]) -> Tensor:
        """Offsets of a batch of prompts, zero for a prompt not met before.

        Args:
            keys: B prompt keys.

        Returns:
            Nats, shape `(B, K)`, float64 on the CPU.
        """
        if not keys:
            return torch.zeros(0, self.num_clusters, dtype=torch.float64)
        return torch.stack([self._log_z[key] if key in self else self._zeros() for key in keys])

    def initialise(self, key: str, reference_rewards: Tensor, beta: float) -> None:
        """Start a prompt from reference samples, `lambda_k = log mean exp(r_k / beta)`, replacing what was known.

        Args:
            key: Prompt key.
            reference_rewards: Logits of completions drawn from `pi_ref`, shape `(n_ref, K)`.
            beta: Temperature, in logits.

        Raises:
            ValueError: If there is no sample, or `beta` is not positive.
            JuryError: If the rewards are not of K clusters.
        """
        if not 0 < beta < math.inf:
            raise ValueError(f"beta: got {beta:g}; the temperature must be positive and finite, 1.0 by default")
        if reference_rewards.ndim != 2 or reference_rewards.shape[1] != self.num_clusters:
            raise JuryError(
                f"reference_rewards: got shape {tuple(reference_rewards.shape)}, but the tracker has "
                f"{self.num_clusters} clusters: give one row per reference sample and one column per cluster"
            )
        if len(reference_rewards) == 0:
            raise ValueError("reference_rewards: got no sample; draw n_ref >= 1 completions from the reference policy")
        scores = reference_rewards.detach().to("cpu", torch.float64) / beta
        self._log_z[key] = torch.logsumexp(scores, 0) - math.log(len(scores))
        self._updates[key] = 0

    def update(self, key: str, gamma_mean: Tensor, weights: Weights) -> None:
        """Move the offsets of a prompt by one step of `balance`.

        Args:
            key: Prompt key; a new one starts from zero.
            gamma_mean: Mean responsibility over the prompt's samples, shape `(K,)`.
            weights: Shape `(K,)`.

        Raises:
            JuryError: If the weights are unusable.
        """
        done = self._updates[key] if key in self else 0
        eta = self.learning_rate / (1 + self.decay * done)
        log_z = self._log_z[key] if key in self else self._zeros()
        gamma = gamma_mean.detach().to("cpu", torch.float64)
        self._log_z[key] = balance(log_z, gamma, weights, eta, self.precondition_clip)
        self._updates[key] = done + 1

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs, as plain lists and numbers that JSON can write.

        Returns:
            `num_clusters`, `log_z` (key to K numbers) and `updates` (key to count).
        """
        return {
            "num_clusters": self.num_clusters,
            "log_z": {key: value.tolist() for key, value in self._log_z.items()},
            "updates": dict(self._updates),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the offsets by saved ones; the settings (learning rate, decay, ...) stay as constructed.

        Args:
            state: What `state_dict` returned.

        Raises:
            JuryError: If it was saved for another number of clusters.
        """
        if state["num_clusters"] != self.num_clusters:
            raise JuryError(
                f"offsets: the saved state is of {state['num_clusters']} clusters and the jury has "
                f"{self.num_clusters}: resume with the jury of that run, or start over"
            )
        self._log_z = {key: torch.tensor(value, dtype=torch.float64) for key, value in state["log_z"].items()}
        self._updates = {key: int(count) for key, count in state["updates"].items()}

    def _zeros(self) -> Tensor:
        return torch.zeros(self.num_clusters, dtype=torch.float64)
