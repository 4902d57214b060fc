"""Draw the weights that a steerable policy is trained under, and render them into its prompts.

A policy π(y | x, w) is conditioned through its prompt on weights w over clusters. `WeightSampler` draws the weights
(Dirichlet, single clusters, the population) and renders them, as words or as reserved tokens; the same object renders
the prompts after training (`plural_rlhf.policies.steerer`). Knows nothing of rewards, targets or trainers.

Drawing w from a Dirichlet and conditioning one model on it is CLP's scheme (Wang et al. 2024,
https://arxiv.org/abs/2407.15762). Single clusters and the population are drawn as well, because they are the most
frequent choice in use and a Dirichlet never gives them.

Shapes: `K` clusters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from plural_rlhf.weights.wording import describe_weights, is_prevalence, steer_prompt, whole_parts
from reward_models.errors import JuryError, did_you_mean
from reward_models.seeds import derived_seed


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["POPULATION_TOKEN", "RENDERINGS", "Rendering", "WeightSampler", "sample_weights"]

Rendering = Literal["text", "tokens"]
RENDERINGS = ("text", "tokens")

POPULATION_TOKEN = "<|population|>"
"""The token in a prompt whose weights are the clusters' prevalence."""


class WeightSampler:
    r"""Draw weights over clusters and render them into prompts.

    Args:
        cluster_names: The clusters, in order.
        prevalence: `(K,)` their shares of the population.
        concentration: Parameter of the symmetric Dirichlet: 1 is uniform on the simplex, below 1 favours its corners.
        vertex_share: Share of draws that are one cluster alone.
        prevalence_share: Share of draws that are the prevalence. The rest comes from the Dirichlet.
        seed: Random seed.
        rendering: `"text"` writes the percentages in words (see `describe_weights`) and needs nothing from the model.
            `"tokens"` is a discrete soft prompt, a reserved token per cluster and level such as `<|urban:35|>`:
            shorter than words but learnt from scratch, so call `prepare` before training.
        levels: Number of different weights of a cluster in tokens: 21 are the multiples of 5 %. Draws are then
            multiples of 1 / (levels - 1), too.

    Raises:
        JuryError: If shares are outside 0 to 1 or sum to more than 1, the concentration is not positive, the rendering
            is unknown, there are fewer than two levels, or the prevalence has another length.

    Example:
        >>> sampler = WeightSampler(["urban", "rural"], [0.8, 0.2], seed=3)
        >>> sampler.draw(4, step=0).tolist()
        [[1.0, 0.0], [0.0, 1.0], [0.84, 0.16], [0.34, 0.66]]
        >>> sampler.render("Which?", [0.34, 0.66])
        'Answer as a member of this public: 66% rural, 34% urban.\nWhich?'
        >>> WeightSampler(["urban", "rural"], [0.8, 0.2], rendering="tokens").render("Which?", [0.34, 0.66])
        '<|urban:35|><|rural:65|>\nWhich?'
    """

    def __init__(
        self,
        cluster_names: Sequence[str],
        prevalence: Sequence[float] | np.ndarray,
        concentration: float = 1.0,
        vertex_share: float = 0.25,
        prevalence_share: float = 0.25,
        seed: int = 0,
        *,
        rendering: Rendering = "text",
        levels: int = 21,
    ) -> None:
        self.cluster_names = list(cluster_names)
        self.prevalence = np.asarray(prevalence, dtype=np.float64)
        self.concentration = concentration
        self.vertex_share = vertex_share
        self.prevalence_share = prevalence_share
        self.seed = seed
        self.rendering = rendering
        self.levels = levels
        if self.prevalence.shape != (len(self.cluster_names),):
            raise JuryError(
                f"the prevalence has shape {self.prevalence.shape}, but there are {len(self.cluster_names)} clusters: "
                "give one share per cluster."
            )
        if not concentration > 0:
            raise JuryError(f"concentration is {concentration}: a Dirichlet needs a number above 0; 1 is uniform.")
        if not (vertex_share >= 0 and prevalence_share >= 0 and vertex_share + prevalence_share <= 1):
            raise JuryError(
                f"vertex_share is {vertex_share} and prevalence_share {prevalence_share}: they are shares of the "
                "draws, at least 0 each and at most 1 together."
            )
        if rendering not in RENDERINGS:
            raise JuryError(
                f"rendering is {rendering!r}.{did_you_mean(rendering, RENDERINGS)} It is 'text' or 'tokens'."
            )
        if levels < 2:
            raise JuryError(f"levels is {levels}: a cluster needs at least two, weight 0 and weight 1.")

    def draw(self, n: int, step: int) -> np.ndarray:
        """Draw the weights of `n` prompts at a training step.

        The result depends on the seed and the step alone: a resumed run draws the same weights as an unbroken one, and
        processes that each draw for the whole batch and keep their part agree. The first `m` rows do not depend on
        `n`.

        Returns:
            `(n, K)`, every row on the simplex: the prevalence itself, or whole percents (in tokens, whole levels), so
            that the weights in a prompt are exactly those of the target.
        """
        # Not salted streams: a training that is resumed from an older checkpoint draws as it would have drawn.
        kind, corner, mixed = (np.random.default_rng([self.seed, step, stream]) for stream in range(3))
        u = kind.random(n)
        weights = sample_weights(n, self.prevalence, mixed, self.concentration)
        if self.rendering == "tokens":
            weights = self._rounded(weights)
        alone = u < self.vertex_share
        weights[alone] = np.eye(len(self.prevalence))[corner.integers(len(self.prevalence), size=n)[alone]]
        weights[~alone & (u < self.vertex_share + self.prevalence_share)] = self.prevalence
        return weights

    def render(self, prompt: Any, weights: Sequence[float] | np.ndarray) -> Any:
        """Put weights `(K,)` before a prompt: into the system message, or as first line of a plain prompt."""
        return steer_prompt(prompt, self.describe(weights))

    def steered_rows(
        self, rows: Sequence[dict[str, Any]], group: int, process: int, processes: int, step: int
    ) -> list[dict[str, Any]]:
        """Draw weights for each group of a process's rows, and render them into the prompts.

        Args:
            rows: The process's rows of a batch that `processes` share evenly; a group is `group` consecutive rows of
                the whole batch.
            group: Completions per prompt.
            process: Number of the process, from 0.
            processes: Number of processes.
            step: The training step, as for `draw`.

        Returns:
            The rows with `weights`, the steered `prompt`, and the original one as `jury_prompt` and
            `reference_prompt` where they have none.
        """
        drawn = self.draw(-(-processes * len(rows) // group), step)
        return [self.steered_row(row, drawn[i // group]) for i, row in enumerate(rows, start=process * len(rows))]

    def steered_row(self, row: Mapping[str, Any], weights: np.ndarray) -> dict[str, Any]:
        """Render weights `(K,)` into the prompt of a row; scorer and reference policy keep the original prompt."""
        original = row["prompt"]
        unsteered = {name: row.get(name) or original for name in ("jury_prompt", "reference_prompt")}
        return {**row, **unsteered, "prompt": self.render(original, weights), "weights": weights.tolist()}

    def describe(self, weights: Sequence[float] | np.ndarray) -> str:
        """Return what `render` puts before a prompt: words, or one token per cluster, in order."""
        if self.rendering == "text":
            return describe_weights(weights, self.cluster_names, self.prevalence)
        if is_prevalence(weights, self.prevalence):
            return POPULATION_TOKEN
        rounded = self._rounded(weights)
        return "".join(self._token(name, w) for name, w in zip(self.cluster_names, rounded, strict=True))

    def tokens(self) -> list[str]:
        """Return the reserved tokens: the levels of each cluster from 0 to 100 %, and last the population."""
        steps = np.arange(self.levels) / (self.levels - 1)
        return [*(self._token(name, w) for name in self.cluster_names for w in steps), POPULATION_TOKEN]

    def missing_tokens(self, tokenizer: PreTrainedTokenizerBase) -> list[str]:
        """Return the reserved tokens that a tokenizer lacks; a rendering as text needs none."""
        vocabulary = tokenizer.get_vocab()
        return [token for token in self.tokens() if token not in vocabulary] if self.rendering == "tokens" else []

    def prepare(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """Add the reserved tokens to a tokenizer and their embeddings to a model; do nothing for `"text"`.

        Each cluster's levels lie on a line between two random vectors, so that similar levels have similar embeddings
        from the start. Existing tokens and embeddings stay as they are: a second call changes nothing.

        Args:
            model: Changed in place. With PEFT, prepare the base model before it is wrapped.
            tokenizer: Changed in place; save it with the policy.

        Returns:
            The ids of the reserved tokens. Their embeddings must be trained: with a LoRA by
            `LoraConfig(..., trainable_token_indices=ids)`; `modules_to_save=["embed_tokens"]` stores the embeddings of
            the whole vocabulary with the adapter.

        Raises:
            JuryError: If the model is wrapped by PEFT and lacks the tokens.
        """
        if self.rendering == "text":
            return []
        import torch
        from peft import PeftModel
        from tokenizers import AddedToken

        names = self.tokens()
        known = tokenizer.get_vocab()
        missing = [name for name in names if name not in known]
        n_rows = model.get_input_embeddings().weight.shape[0]
        n_tokens = len(tokenizer) + len(missing)
        if isinstance(model, PeftModel) and (missing or n_tokens > n_rows):
            raise JuryError(
                f"the model is wrapped by PEFT and lacks {len(missing) or n_tokens - n_rows} of the reserved tokens, "
                f"which would stay untrained. Fix: ids = sampler.prepare(base_model, tokenizer) first, then "
                "get_peft_model(base_model, LoraConfig(..., trainable_token_indices=ids))."
            )
        tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in missing])
        ids: list[int] = tokenizer.convert_tokens_to_ids(names)
        if n_tokens > n_rows:
            model.resize_token_embeddings(n_tokens, mean_resizing=False)
        new = [i for i, (name, row) in enumerate(zip(names, ids, strict=True)) if name not in known or row >= n_rows]
        if new:
            with torch.no_grad():
                embeddings = model.get_input_embeddings().weight
                rows = self._embeddings(embeddings[:n_rows])
                target = torch.tensor([ids[i] for i in new], device=embeddings.device)
                head = model.get_output_embeddings()
                if head is not None and head.weight is not embeddings:
                    # As improbable as an average token in every context.
                    head.weight[target] = head.weight[:n_rows].float().mean(dim=0).to(head.weight)
                embeddings[target] = rows[new].to(embeddings)
        return ids

    def _embeddings(self, existing: Any) -> Any:
        """Return rows for `tokens()`, with the mean and spread of the existing rows."""
        import torch

        mean, spread = existing.float().mean(dim=0).cpu(), float(existing.float().std(dim=0).mean())
        generator = torch.Generator().manual_seed(derived_seed(self.seed, "embeddings of weight tokens"))
        k, width = len(self.cluster_names), existing.shape[1]
        ends = mean + spread * torch.randn(k, 2, 1, width, generator=generator)
        along = torch.linspace(0, 1, self.levels)[:, None]
        lines = (1 - along) * ends[:, 0] + along * ends[:, 1]  # (K, levels, width)
        population = mean + spread * torch.randn(1, width, generator=generator)
        return torch.cat([lines.reshape(-1, width), population])

    def _rounded(self, weights: Sequence[float] | np.ndarray) -> np.ndarray:
        return whole_parts(weights, self.levels - 1) / (self.levels - 1)

    def _token(self, name: str, weight: float) -> str:
        return f"<|{name}:{100 * weight:.4g}|>"


def sample_weights(
    n: int, prevalence: Sequence[float] | np.ndarray, rng: np.random.Generator, concentration: float = 1.0
) -> np.ndarray:
    """Draw weights from Dirichlet(`concentration`·1), in whole percents: those that `describe_weights` writes.

    Args:
        n: Number of draws.
        prevalence: `(K,)`; only its length is used.
        rng: Random generator.
        concentration: Parameter of the symmetric Dirichlet.

    Returns:
        `(n, K)`, every row on the simplex.

    Example:
        >>> sample_weights(2, [0.8, 0.2], np.random.default_rng(0)).tolist()
        [[0.4, 0.6], [0.9, 0.1]]
    """
    return whole_parts(rng.dirichlet(np.full(len(prevalence), concentration), size=n)) / 100
