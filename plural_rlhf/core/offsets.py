"""Per-prompt offsets `lambda_k ~ log Z_k + c`: the partition functions that a sampled mixture target needs.

They are kept between visits of a prompt and not estimated inside a group of G samples, which would drive every cluster
with `w_k G < 1` to extinction. They start from reference samples and move by responsibility balancing,
`lambda_k += eta (mean gamma_k - w_k)`: stochastic gradient descent on

    F(lambda) = log E_{pi_ref}[sum_k w_k exp(r_k / beta - lambda_k)] + sum_k w_k lambda_k,

which is convex with its minima at `lambda = log Z + c`, as long as the policy follows the target of the current
offsets. The balance is that of the mixture, so the responsibilities must be those of `rho = 1`, on samples of a policy
whose target is `rho = 1`. The log pool (`rho = 0`) needs no offsets. The offsets of a prompt do not depend on the
weights: prompts may be visited under other weights each time. The other modes (`OFFSET_MODES`) estimate `Z_k` itself,
which holds for every `rho`.

Two more numbers that a single group of samples does not determine are kept per prompt: the normaliser of the
aggregated target, for the estimators that need `log Z`, and the best reward so far, for tie margins.

Knows nothing of prompts (only of their keys), policies or processes: gather rewards and responsibilities of all
processes, then pass the same to the tracker of each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor

from reward_models.errors import JuryError, did_you_mean

from .aggregation import Weights, normalise_weights
from .checks import check_beta, checked_numbers, checked_rows
from .estimators import group_log_mean_exp, log_average


__all__ = ["OFFSET_MODES", "OffsetMode", "OffsetTracker", "balance", "kept_apart"]

OffsetMode = Literal["responsibility", "reference", "ema", "exact", "global"]

OFFSET_MODES: tuple[str, ...] = ("responsibility", "reference", "ema", "exact", "global")

# The one key of mode "global"; no prompt key has this form.
_EVERY_PROMPT = "*"


def balance(
    log_z: Tensor, gamma_mean: Tensor, weights: Weights, learning_rate: float, precondition_clip: float = 10.0
) -> Tensor:
    """Compute one step of responsibility balancing, `lambda_k += eta c_k (mean gamma_k - w_k)`.

    `c_k = min(1 / w_k, precondition_clip)`, because the curvature of F is about `w_k` in the direction of a rare
    cluster. The weighted mean of the offsets is kept: only their differences matter.

    Args:
        log_z: Offsets in nats, shape `(..., K)`.
        gamma_mean: Mean responsibility over samples of the policy, shape `(..., K)`, one in sum.
        weights: Shape `(K,)` or `(..., K)`; normalised here. Offsets of clusters of weight 0 do not move.
        learning_rate: eta.
        precondition_clip: Upper bound of the preconditioner; 1 turns it off.

    Returns:
        Nats, shape `(..., K)`.

    Raises:
        JuryError: If the weights are unusable.

    Example:
        >>> log_z, gamma_mean = torch.zeros(2), torch.tensor([0.9, 0.1])  # the second cluster is short by a half
        >>> balance(log_z, gamma_mean, [0.8, 0.2], learning_rate=0.1)  # .1 · .1 / .8 and −.1 · .1 / .2
        tensor([ 0.0125, -0.0500])
    """
    w = normalise_weights(weights, log_z.shape[-1]).to(log_z)
    step = learning_rate * (gamma_mean.to(log_z) - w) / w.clamp(min=1.0 / precondition_clip)
    step = torch.where(w > 0, step - (w * step).sum(-1, keepdim=True), 0.0)
    return log_z + step


class OffsetTracker:
    """Keep the offsets of every prompt met so far.

    Args:
        num_clusters: K.
        mode: How the offsets of a prompt are estimated.

            - `"responsibility"`: initialised by `initialise`, then one step of `balance` per observation.
            - `"reference"`: initialised by `initialise`, then frozen. For a single pass over the prompts; good when
              `n_ref` is at least about `4 (1 + chi2(p_k || pi_ref))`, useless for a cluster that prefers what the
              reference rarely says.
            - `"ema"`: the average of `Z_k`, in the linear domain, over importance-weighted samples of the policy: over
              all visits of the prompt at first, later an exponential moving one. Near the target no weight `p_k / p`
              exceeds `1 / w_k`. The estimate is unbiased under every policy, so that it may move slowly; its logarithm
              is too low by half its relative variance, about `ema (1 / w_k - 1) / (4 n)` for n samples per visit, and
              a rare cluster gets too much by that amount.
            - `"exact"`: given by `set_exact`, then frozen. For finite supports.
            - `"global"`: `"responsibility"` with the same offsets for all prompts, for prompts that are met once. A
              constant that a cluster adds to all its rewards of one prompt is not cancelled: use heads whose zero
              means the same everywhere.
        learning_rate: eta of the first step of a prompt; below 1, and slow compared with the policy (otherwise offsets
            and policy oscillate, rare clusters first).
        decay: The n-th step of a prompt uses `learning_rate / (1 + decay n)`.
        n_ref: Number of reference samples that the caller draws for `initialise`; 0 where `initialise` gets samples of
            the policy and their importance weights.
        precondition_clip: See `balance`.
        ema: Least share of the new observation in the average of `"ema"`, in (0, 1]; raise it where `beta` changes
            during training.
        normaliser_ema: Share of the new observation in the average of `observe_normaliser`, in (0, 1]. The aggregated
            target moves with the offsets, so its log Z is tracked faster than theirs.
        max_prompts: How many prompts are remembered (about 3 KB each). Beyond it those that were not visited for
            longest are forgotten (`visit`), and start afresh at their next visit. Mode `"exact"` forgets none.

    Raises:
        ValueError: If a setting is out of its range.

    Example:
        >>> tracker = OffsetTracker(num_clusters=2)
        >>> tracker.initialise("colour", torch.tensor([[1.0, 0.0], [1.0, 0.0]]), beta=1.0)
        >>> tracker.get(["colour", "unseen"]).tolist()
        [[1.0, 0.0], [0.0, 0.0]]
    """

    def __init__(
        self,
        num_clusters: int,
        mode: OffsetMode = "responsibility",
        learning_rate: float = 0.1,
        decay: float = 0.002,
        n_ref: int = 0,
        precondition_clip: float = 10.0,
        ema: float = 0.02,
        normaliser_ema: float = 0.1,
        max_prompts: int = 100_000,
    ) -> None:
        if num_clusters < 1:
            raise ValueError(f"num_clusters: got {num_clusters}; a jury has at least one cluster")
        if mode not in OFFSET_MODES:
            raise ValueError(
                f"mode: got {mode!r}; choose one of {', '.join(OFFSET_MODES)}.{did_you_mean(mode, OFFSET_MODES)}"
            )
        if not 0 <= learning_rate < math.inf:
            raise ValueError(f"learning_rate: got {learning_rate:g}; give 0 (offsets stay) or more, 0.1 by default")
        if not decay >= 0:
            raise ValueError(f"decay: got {decay:g}; give 0 (constant learning rate) or more")
        if n_ref < 0:
            raise ValueError(f"n_ref: got {n_ref}; it is a number of reference samples, 0 (none are drawn) or more")
        if not precondition_clip >= 1:
            raise ValueError(f"precondition_clip: got {precondition_clip:g}; give 1 (off) or more")
        if max_prompts < 1:
            raise ValueError(f"max_prompts: got {max_prompts}; it is a number of prompts, at least 1")
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
        self.max_prompts = max_prompts
        self._log_z: dict[str, Tensor] = {}
        self._updates: dict[str, int] = {}
        self._log_normaliser: dict[str, Tensor] = {}
        self._best: dict[str, Tensor] = {}
        self._apart: dict[str, dict[str, Any]] = {}
        self._visited: dict[str, None] = {}  # keys, the latest visit last

    def __contains__(self, key: str) -> bool:
        return self._slot(key) in self._log_z

    def __len__(self) -> int:
        return len(self._log_z)

    def get(self, keys: Sequence[str]) -> Tensor:
        """Return the offsets of a batch of prompts, zero for a prompt not met before.

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
        """Set a prompt's offsets from samples, `lambda_k = log mean exp(r_k / beta + log_weights)`.

        Earlier offsets of the prompt are replaced.

        Args:
            key: Prompt key.
            rewards: Logits of the samples, shape `(n, K)`.
            beta: Temperature, in logits.
            log_weights: `log pi_ref - log pi` of each sample in nats, shape `(n,)`; None for samples of `pi_ref`.

        Raises:
            ValueError: If there is no sample, or `beta` is not positive.
            JuryError: If the rewards are not of K clusters, something is NaN or infinite, or the mode is `"exact"`.
        """
        if self.mode == "exact":
            raise JuryError(
                f"offsets: mode 'exact' does not estimate log Z from samples, and the prompt with key {key} has none: "
                "call set_exact, or choose mode 'responsibility'"
            )
        self._log_z[self._slot(key)] = self._log_mean_exp(key, rewards, beta, log_weights)
        self._updates[self._slot(key)] = 0

    def set_exact(self, key: str, log_z: Tensor) -> None:
        """Set a prompt's offsets to given ones, e.g. `targets.log_partition` of its support.

        Earlier offsets of the prompt are replaced. Modes other than `"exact"` and `"reference"` move them afterwards.

        Args:
            key: Prompt key.
            log_z: Nats, shape `(K,)`.

        Raises:
            JuryError: If it is not of K clusters, or NaN or infinite for one.
        """
        self._log_z[self._slot(key)] = checked_rows("log_z", key, log_z.unsqueeze(0), self.num_clusters)[0]
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
        """Update a prompt's offsets from samples of the policy, according to the mode; frozen modes ignore them.

        Args:
            key: Prompt key; a new one starts from zero (`"ema"`: from this observation).
            rewards: Logits of the samples, shape `(n, K)`.
            gamma: Their responsibilities at `rho = 1`, shape `(n, K)`; only for `"responsibility"` and `"global"`.
            weights: Shape `(K,)`; only for the same modes.
            beta: Temperature, in logits.
            log_weights: `log pi_ref - log pi` of each sample in nats, shape `(n,)`; only for `"ema"`.

        Raises:
            ValueError: If there is no sample, or `beta` is not positive.
            JuryError: If shapes do not fit K clusters, something is NaN or infinite, or the weights are unusable.
        """
        slot = self._slot(key)
        done = self._updates.get(slot, 0)
        if self.mode in ("responsibility", "global"):
            gamma_mean = checked_rows("gamma", key, gamma, self.num_clusters).mean(0)
            eta = self.learning_rate / (1 + self.decay * done)
            self._log_z[slot] = balance(self.get([key])[0], gamma_mean, weights, eta, self.precondition_clip)
        elif self.mode == "ema":
            observed = self._log_mean_exp(key, rewards, beta, log_weights)
            if key not in self:
                self._log_z[slot], self._updates[slot] = observed, 0
                return
            self._log_z[slot] = log_average(self._log_z[slot], observed, max(self.ema, 1 / (done + 2)))
        else:
            return
        self._updates[slot] = done + 1

    def log_normaliser(self, keys: Sequence[str]) -> Tensor:
        """Return the average `log Z` of each prompt's aggregated target so far.

        Args:
            keys: B prompt keys.

        Returns:
            Nats, shape `(B,)`, float64 on the CPU; NaN for a prompt without an observation.
        """
        return torch.tensor([float(self._log_normaliser.get(key, math.nan)) for key in keys], dtype=torch.float64)

    def observe_normaliser(self, key: str, d: Tensor) -> None:
        """Average `mean exp(d)` into the prompt's `Z = E_pi[exp(d)]`, in the linear domain, where it is unbiased.

        Args:
            key: Prompt key; its first observation becomes the average.
            d: Residuals of samples of the policy (`estimators.residual`), nats, shape `(n,)`.

        Raises:
            ValueError: If there is no sample.
            JuryError: If a residual is NaN or infinite.
        """
        observed = group_log_mean_exp(checked_numbers("d", key, d))
        before = self._log_normaliser.get(key)
        self._log_normaliser[key] = observed if before is None else log_average(before, observed, self.normaliser_ema)

    def best(self, keys: Sequence[str]) -> Tensor:
        """Return the highest reward that each cluster has given to any sample of each prompt.

        Args:
            keys: B prompt keys.

        Returns:
            Logits, shape `(B, K)`, float64 on the CPU; `-inf` for a prompt without an observation.
        """
        unseen = torch.full((self.num_clusters,), -math.inf, dtype=torch.float64)
        return _stack([self._best.get(key, unseen) for key in keys], self.num_clusters)

    def observe_best(self, key: str, rewards: Tensor) -> None:
        """Raise a prompt's best rewards to those of new samples where these are higher.

        Args:
            key: Prompt key.
            rewards: Logits, shape `(n, K)`.

        Raises:
            ValueError: If there is no sample.
            JuryError: If the rewards are not of K clusters, or NaN or infinite.
        """
        observed = checked_rows("rewards", key, rewards, self.num_clusters).amax(0)
        self._best[key] = torch.maximum(self._best.get(key, observed), observed)

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Keep what is observed inside the block apart, for evaluations: it is seen in later such blocks only.

        Prompts of the training have their offsets inside too, and keep them as they were. `state_dict` knows nothing
        of what is apart.
        """
        with kept_apart(self, ("_log_z", "_updates", "_log_normaliser", "_best"), self._apart):
            yield

    def visit(self, keys: Sequence[str]) -> list[str]:
        """Record a visit of prompts and forget those not visited for longest, beyond `max_prompts`.

        Args:
            keys: Prompt keys of a batch; they are kept, however many they are.

        Returns:
            The keys that were forgotten.
        """
        if self.mode == "exact":
            return []
        latest = dict.fromkeys(keys)
        self._visited = dict.fromkeys(key for key in self._visited if key not in latest) | latest
        excess = len(self._visited) - max(self.max_prompts, len(latest))
        forgotten = list(islice(self._visited, max(excess, 0)))
        for key in forgotten:
            for kept in (self._visited, self._log_z, self._updates, self._log_normaliser, self._best):
                kept.pop(key, None)
        return forgotten

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed run needs, as plain lists and numbers that JSON can write.

        Returns:
            `num_clusters`, `mode`, and by key `log_z` and `best` (K numbers), `updates` (a count) and
            `log_normaliser` (a number); `visited`, the keys in the order of their latest visit.
        """
        return {
            "num_clusters": self.num_clusters,
            "mode": self.mode,
            "log_z": {key: value.tolist() for key, value in self._log_z.items()},
            "updates": dict(self._updates),
            "log_normaliser": {key: float(value) for key, value in self._log_normaliser.items()},
            "best": {key: value.tolist() for key, value in self._best.items()},
            "visited": list(self._visited),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the offsets by saved ones; the settings (mode, learning rate, ...) stay as constructed.

        Args:
            state: From `state_dict`, of this version or of one that kept offsets only.

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
        known = [key for key in (*self._log_z, *self._log_normaliser, *self._best) if key != _EVERY_PROMPT]
        self._visited = dict.fromkeys(state.get("visited", known))

    def _slot(self, key: str) -> str:
        return _EVERY_PROMPT if self.mode == "global" else key

    def _log_mean_exp(self, key: str, rewards: Tensor, beta: float, log_weights: Tensor | None) -> Tensor:
        check_beta(beta)
        scores = checked_rows("rewards", key, rewards, self.num_clusters) / beta
        if log_weights is not None:
            w = checked_numbers("log_weights", key, log_weights)
            if len(w) != len(scores):
                raise JuryError(f"log_weights: got {len(w)} for {len(scores)} samples: give one per row of rewards")
            scores = scores + w.unsqueeze(-1)
        return group_log_mean_exp(scores.T)


@contextmanager
def kept_apart(owner: object, names: Sequence[str], apart: dict[str, dict[str, Any]]) -> Iterator[None]:
    """Let dictionaries of an object gain and change keys inside the block only; new keys are kept for the next block.

    Args:
        owner: The object.
        names: Attributes of it that are dictionaries. Their values are replaced, never changed in place.
        apart: By attribute, the keys of earlier blocks; filled when the block ends.

    Example:
        >>> from types import SimpleNamespace
        >>> owner, apart = SimpleNamespace(seen={"a": 1}), {}
        >>> with kept_apart(owner, ["seen"], apart):
        ...     owner.seen |= {"a": 2, "b": 3}
        >>> owner.seen, apart
        ({'a': 1}, {'seen': {'b': 3}})
    """
    before = {name: getattr(owner, name) for name in names}
    for name, values in before.items():
        setattr(owner, name, {**apart.get(name, {}), **values})
    try:
        yield
    finally:
        for name, values in before.items():
            apart[name] = {key: value for key, value in getattr(owner, name).items() if key not in values}
            setattr(owner, name, values)


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {key: torch.tensor(value, dtype=torch.float64) for key, value in state.items()}


def _stack(rows: list[Tensor], num_clusters: int) -> Tensor:
    return torch.stack(rows) if rows else torch.zeros(0, num_clusters, dtype=torch.float64)
