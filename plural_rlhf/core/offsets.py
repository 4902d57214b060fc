"""Per-prompt offsets `lambda_k ~ log Z_k + c`: the partition functions that a sampled mixture target needs.

Kept between visits, they are not estimated inside a group of G samples: that drives every cluster with `w_k G < 1` to
extinction. They start from reference samples and move by responsibility balancing,
`lambda_k += eta (mean gamma_k - w_k)`: stochastic gradient descent on

    F(lambda) = log E_{pi_ref}[sum_k w_k exp(r_k / beta - lambda_k)] + sum_k w_k lambda_k,

which is convex with its minima at `lambda = log Z + c`, as long as the policy follows the target of the current
offsets. The balance is that of the mixture, so the responsibilities must be those of `rho = 1`, on samples of a policy
whose target is `rho = 1`. The log pool (`rho = 0`) needs no offsets. The offsets of a prompt do not depend on the
weights: prompts may be visited under other weights each time. The other modes (`MODES`) estimate `Z_k` itself, which
holds for every `rho`.

Two more numbers that a group of samples cannot give are kept per prompt: the normaliser of the aggregated target, for
the estimators that need `log Z`, and the best reward seen, for tie margins.

Knows nothing of policies, tokenizers or processes: gather rewards and responsibilities of all processes, then observe
the same on each.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from reward_models.errors import JuryError, did_you_mean

from .aggregation import Weights, normalise_weights
from .estimators import group_log_mean_exp


__all__ = ["MODES", "Mode", "OffsetTracker", "balance", "prompt_key"]

Mode = Literal["responsibility", "reference", "ema", "exact", "global"]

MODES: tuple[str, ...] = ("responsibility", "reference", "ema", "exact", "global")

# The one key of mode "global"; no prompt_key is spelt like it.
_EVERY_PROMPT = "*"


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
        mode: How the offsets of a prompt come about.

            - `"responsibility"`: from where `initialise` put them, one step of `balance` per observation.
            - `"reference"`: where `initialise` put them, frozen. For single passes; good when `n_ref` is at least
              about `4 (1 + chi2(p_k || pi_ref))`, useless for a cluster that likes what the reference rarely says.
            - `"ema"`: the average of `Z_k`, in the linear domain, of importance-weighted samples of the policy: of all
              visits of the prompt at first, later an exponential moving one. Near the target no weight `p_k / p`
              exceeds `1 / w_k`. The estimate is unbiased under every policy, so that it may be slow; its logarithm is
              too low by half its relative variance, about `ema (1 / w_k - 1) / (4 n)` for n samples a visit, which is
              what a rare cluster then has too much of.
            - `"exact"`: given by `set_exact`, frozen. For finite supports.
            - `"global"`: `"responsibility"` with the same offsets for all prompts, for prompts that are met once. A
              constant that a cluster adds to all its rewards of one prompt is not cancelled: use heads whose zeros
              mean the same everywhere.
        learning_rate: eta of the first step of a prompt; below 1, and small against the speed of the policy (offsets
            and policy that chase each other oscillate, rare clusters first).
        decay: The n-th step of a prompt uses `learning_rate / (1 + decay n)`.
        n_ref: Reference samples that `initialise` is meant to get (for the caller that draws them); 0 where it gets
            samples of the policy and their importance weights.
        precondition_clip: See `balance`.
        ema: Least share of the new observation in the average of `"ema"`, in (0, 1]; raise it where `beta` changes
            while training.
        normaliser_ema: Share of the new observation in the average of `observe_normaliser`, in (0, 1]. The aggregated
            target moves with the offsets, so its log Z is tracked faster than theirs.

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
        mode: Mode = "responsibility",
        learning_rate: float = 0.1,
        decay: float = 0.002,
        n_ref: int = 0,
        precondition_clip: float = 10.0,
        ema: float = 0.02,
        normaliser_ema: float = 0.1,
    ) -> None:
        if num_clusters < 1:
            raise ValueError(f"num_clusters: got {num_clusters}; a jury has at least one cluster")
        if mode not in MODES:
            raise ValueError(f"mode: got {mode!r}; choose one of {', '.join(MODES)}.{did_you_mean(mode, MODES)}")
        if not 0 <= learning_rate < math.inf:
            raise ValueError(f"learning_rate: got {learning_rate:g}; give 0 (offsets stay) or more, 0.1 by default")
        if not decay >= 0:
            raise ValueError(f"decay: got {decay:g}; give 0 (constant learning rate) or more")
        if n_ref < 0:
            raise ValueError(f"n_ref: got {n_ref}; it is a number of reference samples, 0 (none are drawn) or more")
        if not precondition_clip >= 1:
            raise ValueError(f"precondition_clip: got {precondition_clip:g}; give 1 (off) or more")
        for name, share in (("ema", ema), ("normaliser_ema", normaliser_ema)):
            if not 0 < share <= 1:
                raise ValueError(f"{name}: got {share:g}; it is the share of the new observation, in (0, 1]")
        self.num_clusters = num_clusters
        self.mode = mode
        self.learning_rate = learning_rate
        self.decay = decay
        self.n_ref = n_ref
        self.precondition_clip = precondition_clip
        self.ema = ema
        self.normaliser_ema = normaliser_ema
        self._log_z: dict[str, Tensor] = {}
        self._updates: dict[str, int] = {}
        self._log_normaliser: dict[str, Tensor] = {}
        self._best: dict[str, Tensor] = {}

    def __contains__(self, key: str) -> bool:
        return self._slot(key) in self._log_z

    def __len__(self) -> int:
        return len(self._log_z)

    def get(self, keys: Sequence[str]) -> Tensor:
        """Offsets of a batch of prompts, zero for a prompt not met before.

        Args:
            keys: B prompt keys.

        Returns:
            Nats, shape `(B, K)`, float64 on the CPU.

        Raises:
            JuryError: In mode `"exact"`, if a prompt was not given its offsets.
        """
        if self.mode == "exact":
            missing = [key for key in keys if key not in self]
            if missing:
                raise JuryError(
                    f"offsets: mode 'exact' has no log Z for the prompt with key {missing[0]} ({len(missing)} of "
                    f"{len(keys)} prompts): call set_exact for every prompt first, or choose a mode that estimates it"
                )
        unseen = torch.zeros(self.num_clusters, dtype=torch.float64)
        return _stack([self._log_z.get(self._slot(key), unseen) for key in keys], self.num_clusters)

    def initialise(self, key: str, rewards: Tensor, beta: float, log_weights: Tensor | None = None) -> None:
        """Start a prompt from samples, `lambda_k = log mean exp(r_k / beta + log_weights)`, replacing what was known.

        Args:
            key: Prompt key.
            rewards: Logits of the samples, shape `(n, K)`.
            beta: Temperature, in logits.
            log_weights: `log pi_ref - log pi` of each sample in nats, shape `(n,)`; leave out for samples of `pi_ref`.

        Raises:
            ValueError: If there is no sample, or `beta` is not positive.
            JuryError: If the rewards are not of K clusters, something is NaN or infinite, or the mode is `"exact"`.
        """
        if self.mode == "exact":
            raise JuryError(
                f"offsets: mode 'exact' does not estimate log Z from samples, and the prompt with key {key} was not "
                "given it: call set_exact, or choose mode 'responsibility'"
            )
        self._log_z[self._slot(key)] = self._log_mean_exp(key, rewards, beta, log_weights)
        self._updates[self._slot(key)] = 0

    def set_exact(self, key: str, log_z: Tensor) -> None:
        """Give a prompt its offsets, `targets.log_partition` of its support, replacing what was known.

        Modes other than `"exact"` and `"reference"` move them from there.

        Args:
            key: Prompt key.
            log_z: Nats, shape `(K,)`.

        Raises:
            JuryError: If it is not of K clusters, or NaN or infinite for one.
        """
        self._log_z[self._slot(key)] = self._checked("log_z", key, log_z.unsqueeze(0))[0]
        self._updates[self._slot(key)] = 0

    def observe(
        self,
        key: str,
        rewards: Tensor,
        gamma: Tensor,
        weights: Weights,
        beta: float,
        log_weights: Tensor | None = None,
    ) -> None:
        """Take in samples of the policy for one prompt, as the mode wants; the frozen modes ignore them.

        Args:
            key: Prompt key; a new one starts from zero (`"ema"`: from this observation).
            rewards: Logits of the samples, shape `(n, K)`.
            gamma: Their responsibilities at `rho = 1`, shape `(n, K)`; read by `"responsibility"` and `"global"`.
            weights: Shape `(K,)`; read by the same.
            beta: Temperature, in logits.
            log_weights: `log pi_ref - log pi` of each sample in nats, shape `(n,)`; read by `"ema"`.

        Raises:
            ValueError: If there is no sample, or `beta` is not positive.
            JuryError: If shapes do not fit K clusters, something is NaN or infinite, or the weights are unusable.
        """
        slot = self._slot(key)
        done = self._updates.get(slot, 0)
        if self.mode in ("responsibility", "global"):
            gamma_mean = self._checked("gamma", key, gamma).mean(0)
            eta = self.learning_rate / (1 + self.decay * done)
            self._log_z[slot] = balance(self.get([key])[0], gamma_mean, weights, eta, self.precondition_clip)
        elif self.mode == "ema":
            seen = self._log_mean_exp(key, rewards, beta, log_weights)
            if key not in self:
                self._log_z[slot], self._updates[slot] = seen, 0
                return
            self._log_z[slot] = _average(self._log_z[slot], seen, max(self.ema, 1 / (done + 2)))
        else:
            return
        self._updates[slot] = done + 1

    def log_normaliser(self, keys: Sequence[str]) -> Tensor:
        """`log Z` of each prompt's aggregated target, as observed so far.

        Args:
            keys: B prompt keys.

        Returns:
            Nats, shape `(B,)`, float64 on the CPU; NaN for a prompt not observed.
        """
        return torch.tensor([float(self._log_normaliser.get(key, math.nan)) for key in keys], dtype=torch.float64)

    def observe_normaliser(self, key: str, d: Tensor) -> None:
        """Average `mean exp(d)` into the prompt's `Z = E_pi[exp(d)]`, in the linear domain, where it is unbiased.

        Args:
            key: Prompt key; the first observation is taken as it is.
            d: Residuals of samples of the policy (`estimators.residual`), nats, shape `(n,)`.

        Raises:
            ValueError: If there is no sample.
            JuryError: If a residual is NaN or infinite.
        """
        seen = group_log_mean_exp(_checked_nats("d", key, d))
        before = self._log_normaliser.get(key)
        self._log_normaliser[key] = seen if before is None else _average(before, seen, self.normaliser_ema)

    def best(self, keys: Sequence[str]) -> Tensor:
        """Highest reward that each cluster has given to any sample of each prompt.

        Args:
            keys: B prompt keys.

        Returns:
            Logits, shape `(B, K)`, float64 on the CPU; `-inf` for a prompt not observed.
        """
        unseen = torch.full((self.num_clusters,), -math.inf, dtype=torch.float64)
        return _stack([self._best.get(key, unseen) for key in keys], self.num_clusters)

    def observe_best(self, key: str, rewards: Tensor) -> None:
        """Raise a prompt's best rewards to those of new samples, where these are higher.

        Args:
            key: Prompt key.
            rewards: Logits, shape `(n, K)`.

        Raises:
            ValueError: If there is no sample.
            JuryError: If the rewards are not of K clusters, or NaN or infinite.
        """
        seen = self._checked("rewards", key, rewards).amax(0)
        self._best[key] = torch.maximum(self._best.get(key, seen), seen)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs, as plain lists and numbers that JSON can write.

        Returns:
            `num_clusters`, `mode`, and by key `log_z` and `best` (K numbers), `updates` (a count) and
            `log_normaliser` (a number).
        """
        return {
            "num_clusters": self.num_clusters,
            "mode": self.mode,
            "log_z": {key: value.tolist() for key, value in self._log_z.items()},
            "updates": dict(self._updates),
            "log_normaliser": {key: float(value) for key, value in self._log_normaliser.items()},
            "best": {key: value.tolist() for key, value in self._best.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the offsets by saved ones; the settings (mode, learning rate, ...) stay as constructed.

        Args:
            state: What `state_dict` returned, of this version or of one that kept offsets only.

        Raises:
            JuryError: If it was saved for another number of clusters, or one of the two is of mode `"global"`.
        """
        if state["num_clusters"] != self.num_clusters:
            raise JuryError(
                f"offsets: the saved state is of {state['num_clusters']} clusters and the jury has "
                f"{self.num_clusters}: resume with the jury of that run, or start over"
            )
        saved_mode = state.get("mode", "responsibility")
        if (saved_mode == "global") != (self.mode == "global"):
            raise JuryError(
                f"offsets: the saved state is of mode {saved_mode!r} and the tracker of mode {self.mode!r}, but "
                "'global' has one set for all prompts and the others one for each: resume with the mode of that run"
            )
        self._log_z = _tensors(state["log_z"])
        self._updates = {key: int(count) for key, count in state["updates"].items()}
        self._log_normaliser = _tensors(state.get("log_normaliser", {}))
        self._best = _tensors(state.get("best", {}))

    def _slot(self, key: str) -> str:
        return _EVERY_PROMPT if self.mode == "global" else key

    def _log_mean_exp(self, key: str, rewards: Tensor, beta: float, log_weights: Tensor | None) -> Tensor:
        if not 0 < beta < math.inf:
            raise ValueError(f"beta: got {beta:g}; the temperature must be positive and finite, 1.0 by default")
        scores = self._checked("rewards", key, rewards) / beta
        if log_weights is not None:
            w = _checked_nats("log_weights", key, log_weights)
            if len(w) != len(scores):
                raise JuryError(f"log_weights: got {len(w)} for {len(scores)} samples: give one per row of rewards")
            scores = scores + w.unsqueeze(-1)
        return group_log_mean_exp(scores.T)

    def _checked(self, name: str, key: str, values: Tensor) -> Tensor:
        """Float64 copy on the CPU of samples `(n, K)`; refuses other shapes, no sample, NaN and infinity."""
        if values.ndim != 2 or values.shape[1] != self.num_clusters:
            raise JuryError(
                f"{name}: got shape {tuple(values.shape)}, but the tracker has {self.num_clusters} clusters: give one "
                "row per sample and one column per cluster"
            )
        _refuse_empty(name, len(values))
        values = values.detach().to("cpu", torch.float64)
        if not torch.isfinite(values).all():
            n, k = (~torch.isfinite(values)).nonzero()[0].tolist()
            raise JuryError(
                f"{name}: sample {n} has {values[n, k]:g} for cluster {k} (prompt with key {key}), and the offsets "
                "would keep it for ever: check the jury's scores of that prompt"
            )
        return values


def _average(before: Tensor, seen: Tensor, share: float) -> Tensor:
    """`log((1 - share) e^before + share e^seen)`."""
    return torch.logaddexp(before + math.log1p(-share), seen + math.log(share)) if share < 1 else seen


def _checked_nats(name: str, key: str, values: Tensor) -> Tensor:
    """Float64 copy on the CPU of one number per sample; refuses no sample, NaN and infinity."""
    _refuse_empty(name, len(values))
    values = values.detach().to("cpu", torch.float64)
    if not torch.isfinite(values).all():
        n = int((~torch.isfinite(values)).nonzero()[0])
        raise JuryError(
            f"{name}: sample {n} has {values[n]:g} (prompt with key {key}): check its log-probabilities under policy "
            "and reference"
        )
    return values


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {key: torch.tensor(value, dtype=torch.float64) for key, value in state.items()}


def _stack(rows: list[Tensor], num_clusters: int) -> Tensor:
    return torch.stack(rows) if rows else torch.zeros(0, num_clusters, dtype=torch.float64)


def _refuse_empty(name: str, n: int) -> None:
    if n == 0:
        raise ValueError(f"{name}: got no sample; give at least one, or do not call for this prompt")
