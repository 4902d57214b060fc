"""Log-probabilities of completions with every prompt computed once, in the forward and in the backward pass.

Three ways give the same values and gradients as scoring every row by itself. Packed: the rows of a prompt form one
token trie, so that completions share their beginnings too. Cached: the key/value cache of each prompt is repeated for
its completions. Plain: prompt and completion of every row, if sharing gains nothing or the model does not allow it.
Equal rows are computed once in all three. Knows nothing of rewards, targets or trainers.

Differences from the stock trainer's forward: positions are counted from the first real token, so that left padding
changes nothing even in models with absolute positions; dropout, if any, is drawn once for shared tokens.

Shapes: `N` rows (`n` different ones), `B` different prompts, `P` prompt tokens, `T` completion tokens.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import extract_model_from_parallel
from peft import PeftModel
from torch.distributed.tensor import DTensor
from torch.nn.functional import cross_entropy, pad
from torch.nn.parallel import DistributedDataParallel
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer
from transformers.utils import logging

from plural_rlhf.policies.packing import IGNORED, attention_mask, pack, stack


if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "completion_log_probs",
    "next_token_log_probs",
    "pad_left",
    "repeatable_cache",
    "span_losses",
    "takes_positions",
]

logger = logging.get_logger(__name__)

_SMALL_LOGITS = 2**26
"""Logits (256 MB in float32) up to which a CPU computes them all; the fused head would project all positions."""

_PAIRS_PER_TOKEN = 3
"""Pairs of places, in units of the model's width, whose attention costs as much as one token in all other layers."""

_CACHED_TOKEN = 0.03
"""Cost of copying one token of a repeated cache, in tokens through all layers."""


def completion_log_probs(
    model: PreTrainedModel | torch.nn.Module, rows: Mapping[str, torch.Tensor], *, share: bool = True
) -> torch.Tensor:
    """Compute the log-probability of every completion token at temperature 1; gradients flow to the model.

    Args:
        model: A decoder of transformers, with or without TRL's fused head; may be wrapped by PEFT and by
            `DistributedDataParallel`.
        rows: TRL's layout: `prompt_ids` `(N, P)` padded on the left, `completion_ids` `(N, T)` padded on the right,
            and `prompt_mask` and `completion_mask`, 1 at real tokens. Equal prompts need not be neighbours.
        share: Whether completions may share the computation of their prompt; else every row is its own sequence.

    Returns:
        `(N, T)` nats, float32, 0 where `completion_mask` is 0.

    Raises:
        ValueError: If rows contain images, which cannot be shared.

    Example:
        >>> from plural_rlhf.policies.base_models import tiny_causal_lm
        >>> model = tiny_causal_lm()
        >>> _ = model.lm_head.weight.data.zero_()  # all 398 tokens are equally probable
        >>> rows = {"prompt_ids": torch.tensor([[5, 6]] * 2), "prompt_mask": torch.ones(2, 2)}
        >>> rows["completion_ids"] = torch.tensor([[7, 2], [2, 0]])
        >>> rows["completion_mask"] = torch.tensor([[1, 1], [1, 0]])
        >>> completion_log_probs(model, rows).detach()  # −log 398 per token
        tensor([[-5.9865, -5.9865],
                [-5.9865,  0.0000]])
    """
    if rows.get("pixel_values") is not None:
        raise ValueError(
            "rows have pixel_values, but only text is scored here, so the images would be ignored: use text prompts, "
            "or trl.GRPOTrainer for images."
        )
    batch = _Batch.of(rows)
    scorer = _Scorer.of(model)
    way = _cheapest_way(scorer, batch) if share else "plain"
    values = _packed(scorer, batch) if way == "packed" else _cached(scorer, batch) if way == "cached" else None
    if values is None:
        values = _plain(scorer, batch)
    return pad(values, (0, rows["completion_ids"].shape[1] - values.shape[1]))[batch.origin]


def next_token_log_probs(
    model: PreTrainedModel | torch.nn.Module, sequences: Sequence[Sequence[int]], starts: Sequence[int]
) -> torch.Tensor:
    """Compute the whole distribution of the token after each place of some sequences; gradients flow to the model.

    Args:
        model: As for `completion_log_probs`.
        sequences: Tokens, at least one each.
        starts: For each sequence the first place, from 0, after which the next token is wanted.

    Returns:
        `(M, V)` nats, float32, for the `M` places from `starts` on, sequence after sequence.

    Example:
        >>> from plural_rlhf.policies.base_models import tiny_causal_lm
        >>> next_token_log_probs(tiny_causal_lm(), [[5, 6, 7], [8]], [1, 0]).shape
        torch.Size([3, 398])
    """
    scorer, width = _Scorer.of(model), max(map(len, sequences))
    # Padded on the right, which a decoder never attends to.
    ids = [[*sequence] + [0] * (width - len(sequence)) for sequence in sequences]
    wanted = [
        [start <= place < len(sequence) for place in range(width)]
        for sequence, start in zip(sequences, starts, strict=True)
    ]
    device = scorer.inner.device
    logits = scorer.logits(
        torch.tensor(wanted, device=device), input_ids=torch.tensor(ids, device=device), use_cache=False
    )
    return logits.float().log_softmax(-1)


@dataclass(frozen=True)
class _Batch:
    """The different prompts and rows of a batch, rows of one prompt side by side.

    Attributes:
        prompts: `B` token lists.
        completions: `n` token lists.
        owner: `(n,)` index of the prompt of each different row.
        origin: `(N,)` index of the different row that each given row equals.
    """

    prompts: list[list[int]]
    completions: list[list[int]]
    owner: torch.Tensor
    origin: torch.Tensor

    @classmethod
    def of(cls, rows: Mapping[str, torch.Tensor]) -> _Batch:
        """Read TRL's layout."""
        pairs = list(zip(_tokens(rows, "prompt"), _tokens(rows, "completion"), strict=True))
        groups: dict[tuple[int, ...], dict[tuple[int, ...], None]] = {}
        for prompt, completion in pairs:
            groups.setdefault(prompt, {})[completion] = None
        different = [(prompt, completion) for prompt, group in groups.items() for completion in group]
        index = {pair: i for i, pair in enumerate(different)}
        device = rows["completion_ids"].device
        return cls(
            [list(prompt) for prompt in groups],
            [list(completion) for _, completion in different],
            torch.tensor([b for b, group in enumerate(groups.values()) for _ in group], device=device),
            torch.tensor([index[pair] for pair in pairs], device=device),
        )

    @property
    def device(self) -> torch.device:
        """Device of the rows."""
        return self.owner.device

    @property
    def n_prompt(self) -> int:
        """Tokens of the longest prompt."""
        return max(map(len, self.prompts))

    @property
    def n_completion(self) -> int:
        """Tokens of the longest completion, at least 1."""
        return max(1, *map(len, self.completions))

    def padded_completions(self, value: int) -> torch.Tensor:
        """Return the completions, `(n, T)`, padded on the right with `value`."""
        width = self.n_completion
        return torch.tensor([c + [value] * (width - len(c)) for c in self.completions], device=self.device)


def _tokens(rows: Mapping[str, torch.Tensor], part: str) -> list[tuple[int, ...]]:
    ids, mask = rows[f"{part}_ids"].tolist(), rows[f"{part}_mask"].tolist()
    return [tuple(t for t, real in zip(i, m, strict=True) if real) for i, m in zip(ids, mask, strict=True)]


def pad_left(sequences: Sequence[Sequence[int]], value: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token lists as `(B, P)` ids and mask, padded on the left with `value`.

    Example:
        >>> pad_left([[5], [6, 7]])
        (tensor([[0, 5],
                 [6, 7]]), tensor([[0, 1],
                 [1, 1]]))
    """
    width = max(map(len, sequences))
    ids = torch.tensor([[value] * (width - len(s)) + list(s) for s in sequences])
    mask = torch.tensor([[0] * (width - len(s)) + [1] * len(s) for s in sequences])
    return ids, mask


def span_losses(
    logits: torch.Tensor, ids: torch.Tensor, spans: Sequence[tuple[int, int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the loss of each span of a sequence, `(S,)` nats, and whether all its tokens are the most probable ones.

    Args:
        logits: `(T, V)` of the model at each token, which predict the next one.
        ids: `(T,)` tokens.
        spans: `S` starts and stops; none starts at the first token, which nothing predicts.

    Example:
        >>> logits = torch.tensor([[0.0, 0.0], [0.0, 9.0], [0.0, 0.0]])
        >>> nats, correct = span_losses(logits, torch.tensor([0, 0, 1]), [(1, 2), (2, 3)])
        >>> nats.round(2).tolist(), correct.tolist()
        ([0.69, 0.0], [True, True])
    """
    nats, correct = [], []
    for start, stop in spans:
        before, tokens = logits[start - 1 : stop - 1].float(), ids[start:stop]
        nats.append(cross_entropy(before, tokens, reduction="sum").item())
        correct.append(bool((before.argmax(dim=-1) == tokens).all()))
    return np.array(nats), np.array(correct)


def repeatable_cache(model: PreTrainedModel) -> DynamicCache | None:
    """Return an empty cache that can be repeated for the completions of a prompt; None if the model cannot use one.

    A model cannot use one with gradient checkpointing, with states other than keys and values, with an encoder, or
    with a soft prompt that PEFT puts before every input.

    Example:
        >>> from plural_rlhf.policies.base_models import tiny_causal_lm
        >>> repeatable_cache(tiny_causal_lm()).get_seq_length()
        0
    """
    if model.config.is_encoder_decoder or _puts_a_prompt_before(model) or _drops_its_cache(model):
        return None
    cache = DynamicCache(config=model.config)
    return cache if all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers) else None


def takes_positions(model: torch.nn.Module) -> bool:
    """Return whether a model accepts `position_ids`; others derive positions from the mask, or have none.

    Example:
        >>> from plural_rlhf.policies.base_models import tiny_causal_lm
        >>> takes_positions(tiny_causal_lm())
        True
    """
    inner = extract_model_from_parallel(model)
    if _puts_a_prompt_before(inner):
        return False  # PEFT drops position_ids with a warning
    base = inner.get_base_model() if isinstance(inner, PeftModel) else inner
    return "position_ids" in inspect.signature(base.forward).parameters


def _puts_a_prompt_before(model: PreTrainedModel) -> bool:
    return isinstance(model, PeftModel) and model.active_peft_config.is_prompt_learning


def _drops_its_cache(model: PreTrainedModel) -> bool:
    return model.training and model.is_activation_checkpointing


def _accepts_a_custom_mask(model: PreTrainedModel, longest: int) -> bool:
    if not model.is_backend_compatible() or _puts_a_prompt_before(model) or model.config.is_encoder_decoder:
        return False
    layers = DynamicCache(config=model.config).layers
    return model.config.get_text_config()._attn_implementation in ("sdpa", "eager") and all(
        type(layer) is DynamicLayer
        # One mask serves all layers, so none of them may drop early tokens.
        or (type(layer) is DynamicSlidingWindowLayer and longest <= layer.sliding_window)
        for layer in layers
    )


@dataclass(frozen=True)
class _Scorer:
    """A model and its properties that scoring depends on.

    Attributes:
        model: The model, perhaps wrapped.
        inner: The model without the wrapper of `DistributedDataParallel`. Exactly one pass of a batch goes through
            that wrapper: its forward is a collective operation, and other processes may score in another way.
        fused: Whether it has TRL's fused head.
        sharded: Whether every forward is collective, because its weights are spread over processes.
    """

    model: torch.nn.Module
    inner: PreTrainedModel
    fused: bool
    sharded: bool

    @classmethod
    def of(cls, model: torch.nn.Module) -> _Scorer:
        def takes_it(forward: Any) -> bool:
            return "fused_lm_head" in inspect.signature(forward, follow_wrapped=False).parameters

        inner = extract_model_from_parallel(model)
        base = inner.get_base_model() if isinstance(inner, PeftModel) else inner
        fused = takes_it(inspect.unwrap(base.forward, stop=takes_it))
        wrapped = model is not inner and not isinstance(model, DistributedDataParallel)
        # DeepSpeed marks parameters that ZeRO-3 has spread by the attribute `ds_id`.
        spread = any(isinstance(p, DTensor) or hasattr(p, "ds_id") for p in inner.parameters())
        return cls(model, inner, fused, wrapped or spread)

    def log_probs(self, labels: torch.Tensor, **inputs: Any) -> torch.Tensor:
        """Return the log-probability of each label after its place, `(R, M)`; 0 where the label is -100."""
        labelled = labels != IGNORED
        large = labels.device.type != "cpu" or self._n_logits(labelled) > _SMALL_LOGITS
        if self.fused and large and not _puts_a_prompt_before(self.inner):
            return self.model(**inputs, shift_labels=labels, fused_lm_head=True).log_probs
        values = -cross_entropy(self.logits(labelled, **inputs).float(), labels[labelled], reduction="none")
        return values.new_zeros(labels.shape).masked_scatter(labelled, values)

    def logits(self, places: torch.Tensor, **inputs: Any) -> torch.Tensor:
        """Return the logits at the `M` places where `places` `(R, T)` is true, `(M, V)`."""
        if _puts_a_prompt_before(self.inner):
            # Counted from the end, because the soft prompt shifts the places.
            return self.model(**inputs, logits_to_keep=places.shape[1]).logits[places]
        return self.model(**inputs, logits_to_keep=places).logits

    def _n_logits(self, labelled: torch.Tensor) -> int:
        return int(labelled.sum()) * self.inner.config.get_text_config().vocab_size


def _cheapest_way(scorer: _Scorer, batch: _Batch) -> str:
    model = scorer.inner
    n_prompts, n_rows, p, t = len(batch.prompts), len(batch.completions), batch.n_prompt, batch.n_completion
    if n_prompts == n_rows or not any(batch.completions):
        return "plain"
    pair = 1 / (_PAIRS_PER_TOKEN * model.config.get_text_config().hidden_size)
    costs = {"plain": n_rows * (p + t) * (1 + pair * (p + t) / 2)}
    if _accepts_a_custom_mask(model, p + t):
        places = [len(prompt) for prompt in batch.prompts]
        for b, completion in zip(batch.owner.tolist(), batch.completions, strict=True):
            places[b] += len(completion)
        costs["packed"] = sum(places) + pair * sum(m * m for m in places)
    # A cache needs two passes, and processes with sharded weights must make the same number of passes.
    if not scorer.sharded and repeatable_cache(model) is not None:
        copied = _CACHED_TOKEN * n_rows * (p + t)
        costs["cached"] = n_prompts * p * (1 + pair * p / 2) + n_rows * t * (1 + pair * (p + t)) + copied
    if len(costs) == 1:
        logger.warning_once(
            f"{type(model).__name__} can share its prompts among completions neither by a mask nor by a cache (with "
            "its present settings), so every row is scored with its own prompt: the same values, more slowly."
        )
    return min(costs, key=lambda way: costs[way])


def _plain(scorer: _Scorer, batch: _Batch) -> torch.Tensor:
    # Padded on the right, which a decoder never attends to: so neither a mask nor positions are needed.
    prompts = [batch.prompts[b] for b in batch.owner.tolist()]
    length = max(1, *(len(p) + len(c) - 1 for p, c in zip(prompts, batch.completions, strict=True)))
    tokens, labels = [], []
    for prompt, completion in zip(prompts, batch.completions, strict=True):
        inputs, targets = (prompt + completion)[:-1], [IGNORED] * (len(prompt) - 1) + completion
        tokens.append(inputs + [0] * (length - len(inputs)))
        labels.append(targets + [IGNORED] * (length - len(targets)))
    label_ids = torch.tensor(labels, device=batch.device)
    values = scorer.log_probs(label_ids, input_ids=torch.tensor(tokens, device=batch.device), use_cache=False)
    real = batch.padded_completions(IGNORED) != IGNORED
    return values.new_zeros(real.shape).masked_scatter(real, values[label_ids != IGNORED])


def _cached(scorer: _Scorer, batch: _Batch) -> torch.Tensor | None:
    """Score with a repeated cache; return None if the model turns out not to fill it."""
    cache = repeatable_cache(scorer.inner)
    assert cache is not None
    prompt_ids, prompt_mask = (tensor.to(batch.device) for tensor in pad_left(batch.prompts))
    before = prompt_ids.shape[1] - 1
    if before > 0:
        scorer.inner(
            input_ids=prompt_ids[:, :-1],
            attention_mask=prompt_mask[:, :-1],
            position_ids=(prompt_mask[:, :-1].cumsum(-1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        if cache.get_seq_length() != before:
            logger.warning_once(
                f"{type(scorer.inner).__name__} does not fill the cache it is given, so every row is scored with its "
                "own prompt: the same values, more slowly."
            )
            return None
        cache.batch_select_indices(batch.owner)
    # The prompt's last token is repeated with each completion, whose first token is predicted from it.
    labels = batch.padded_completions(IGNORED)
    real = labels[:, :-1] != IGNORED
    length = prompt_mask.sum(-1)[batch.owner]
    return scorer.log_probs(
        labels,
        input_ids=torch.cat([prompt_ids[batch.owner, -1:], labels[:, :-1].where(real, 0)], dim=1),
        attention_mask=torch.cat([prompt_mask[batch.owner], real], dim=1),
        position_ids=length[:, None] - 1 + torch.arange(labels.shape[1], device=batch.device),
        past_key_values=cache,
        use_cache=True,
    )


def _packed(scorer: _Scorer, batch: _Batch) -> torch.Tensor:
    config = scorer.inner.config.get_text_config()
    owner = batch.owner.tolist()
    sequences = [batch.prompts[b] + completion for b, completion in zip(owner, batch.completions, strict=True)]
    packed = pack(sequences, [len(batch.prompts[b]) for b in owner], _PAIRS_PER_TOKEN * config.hidden_size)
    values = torch.zeros(len(sequences), batch.n_completion, device=batch.device)
    # A CPU gains nothing from rows side by side, and computes their padding.
    one_by_one = batch.device.type == "cpu" and scorer.model is scorer.inner and not scorer.sharded
    for rows in [[row] for row in packed] if one_by_one else [packed]:
        tokens, positions, visible, labels = (tensor.to(batch.device) for tensor in stack(rows))
        row_values = scorer.log_probs(
            labels,
            input_ids=tokens,
            attention_mask=attention_mask(visible, scorer.inner.dtype),
            position_ids=positions,
            use_cache=False,
        )
        places = [
            (member, step, r, place)
            for r, row in enumerate(rows)
            for member, label_places in zip(row.members, row.label_places, strict=True)
            for step, place in enumerate(label_places)
        ]
        n, t, r, m = torch.tensor(places, device=batch.device).T
        values = values.index_put((n, t), row_values[r, m])
    return values
