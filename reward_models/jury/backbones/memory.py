"""What a jury remembers of the texts that were judged, beside its linear heads.

`JudgedTexts` knows them by the tokens that the backbone reads: a text has the reward that was fitted to it wherever
it comes from and in whatever precision the backbone runs, and finding it costs a hash, however many there are.
`MemoryLayer` is that of juries of earlier versions, which knew texts by their features. Knows nothing of how rewards
were fitted.

Shapes: `U` judged texts, `B` texts of a batch, `T` tokens, `D` features, `K` clusters, `P` parts of a reward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import nn

from reward_models.errors import JuryError
from reward_models.judgements.texts import Text
from reward_models.jury.backbones.feature_cache import row_key


__all__ = ["JudgedRewards", "JudgedTexts", "MemoryLayer"]

KEY_BYTES = 32
SAME_REWARD = 1e-3  # logits


class _Float32Buffers(nn.Module):
    """Buffers that follow a model to another device, but not to another precision."""

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            after = self._buffers[name]
            if buffer is not None and after is not None and after.dtype != buffer.dtype:
                self._buffers[name] = buffer.to(after.device)
        return self


class MemoryLayer(_Float32Buffers):
    """Residual rewards of judged texts by their features, in juries of earlier versions.

    The residual of a text with features h is `sum_u alpha_uk exp(-|z - z_u|^2 / (2 l_u^2))` with `z = h * scale`.

    Rounded to bfloat16, the features of a text would be further from its own anchor than a kernel is wide.

    Example:
        >>> memory = MemoryLayer(num_anchors=1, hidden_size=2, num_clusters=1)
        >>> memory.values[0] = 3.0
        >>> memory(torch.tensor([[0.0, 0.0], [9.0, 9.0]])).round(decimals=3).tolist()
        [[3.0], [0.0]]
    """

    anchors: torch.Tensor
    values: torch.Tensor
    scale: torch.Tensor
    length_scale: torch.Tensor

    def __init__(self, num_anchors: int, hidden_size: int, num_clusters: int) -> None:
        super().__init__()
        self.register_buffer("anchors", torch.zeros(num_anchors, hidden_size, dtype=torch.float32))
        self.register_buffer("values", torch.zeros(num_anchors, num_clusters, dtype=torch.float32))
        self.register_buffer("scale", torch.ones(hidden_size, dtype=torch.float32))
        self.register_buffer("length_scale", torch.ones(num_anchors, dtype=torch.float32))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Map (B, D) features to (B, K) float32 residual rewards."""
        with torch.autocast(input.device.type, enabled=False):
            # The expansion |x|^2 - 2xy + |y|^2 would lose all digits where it matters, at an anchor.
            distance = torch.cdist(
                input.float() * self.scale, self.anchors, compute_mode="donot_use_mm_for_euclid_dist"
            )
            return (-0.5 * (distance / self.length_scale).square()).exp() @ self.values


@dataclass(frozen=True)
class JudgedRewards:
    """What the judgements tell about each judged text beyond the linear heads.

    Attributes:
        rows: `U` rows of token ids, as the backbone reads them.
        residual: (U, K) reward minus that of the heads, in logits.
        variance: (U, P) posterior variance of the parts of the reward, see `JointFit`.

    Example:
        >>> judged = JudgedRewards([[3, 1, 2]], np.array([[0.5]]), np.array([[0.1]]))
        >>> len(judged.rows)
        1
    """

    rows: Sequence[Sequence[int]]
    residual: np.ndarray
    variance: np.ndarray

    def of_different_rows(self, texts: Sequence[Text]) -> JudgedRewards:
        """Keep the first of all texts with the same tokens.

        Args:
            texts: The `U` texts, for the message.

        Raises:
            JuryError: Texts with the same tokens have different rewards, so that the tokens do not say which it is.
        """
        first: dict[bytes, int] = {}
        for i, row in enumerate(self.rows):
            same = first.setdefault(row_key(row), i)
            if not np.allclose(self.residual[i], self.residual[same], atol=SAME_REWARD):
                raise JuryError(
                    f"the backbone reads {texts[same]!r} and {texts[i]!r} as the same tokens, but they have different "
                    "rewards. Fix: fit_jury makes them one text; or read prompts too, or longer texts (max_length)"
                )
        kept = list(first.values())
        return JudgedRewards([self.rows[i] for i in kept], self.residual[kept], self.variance[kept])


class JudgedTexts(_Float32Buffers):
    """Residual rewards of judged texts and their variances, by the SHA-256 of the tokens that the backbone reads.

    The folder of a jury so holds no text; but who has a text can see whether it was judged.

    Example:
        >>> judged = JudgedTexts.of(JudgedRewards([[3, 1, 2]], np.array([[0.5]]), np.array([[0.1]])))
        >>> judged(torch.tensor([[3, 1, 2], [0, 3, 1]]), torch.tensor([[1, 1, 1], [0, 1, 1]])).tolist()
        [[0.5], [0.0]]
    """

    keys: torch.Tensor
    residual: torch.Tensor
    variance: torch.Tensor

    def __init__(self, num_texts: int, num_clusters: int, num_parts: int) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(num_texts, KEY_BYTES, dtype=torch.uint8))
        self.register_buffer("residual", torch.zeros(num_texts, num_clusters, dtype=torch.float32))
        self.register_buffer("variance", torch.zeros(num_texts, num_parts, dtype=torch.float32))
        self._number: dict[bytes, int] | None = None

    @classmethod
    def of(cls, judged: JudgedRewards) -> JudgedTexts:
        """Make the layer of fitted rewards."""
        layer = cls(len(judged.rows), judged.residual.shape[1], judged.variance.shape[1])
        keys = np.frombuffer(b"".join(map(row_key, judged.rows)), dtype=np.uint8).reshape(-1, KEY_BYTES)
        layer.keys.copy_(torch.from_numpy(keys.copy()))
        layer.residual.copy_(torch.from_numpy(judged.residual))
        layer.variance.copy_(torch.from_numpy(judged.variance))
        return layer

    def find(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return the (B,) number of the judged text that each row of token ids is; -1 for all other rows."""
        if self._number is None:
            self._number = {key.tobytes(): i for i, key in enumerate(self.keys.cpu().numpy())}
        return torch.tensor([self._number.get(row_key(row), -1) for row in rows], dtype=torch.int64)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Map (B, T) token ids to (B, K) float32 residual rewards; 0 for a text that was not judged."""
        ids = input_ids.detach().cpu().numpy()
        mask = np.ones(ids.shape, bool) if attention_mask is None else attention_mask.detach().cpu().numpy() != 0
        number = self.find([row[real].tolist() for row, real in zip(ids, mask, strict=True)]).to(self.residual.device)
        known = (number >= 0)[:, None]
        return torch.where(known, self.residual[number.clamp(min=0)], torch.zeros_like(self.residual[:1]))
