"""Draw texts from every policy of a run, for the population and under its steering, with their log-probabilities.

Each piece of work is one prompt under one weighting, with random numbers of its own, so that a run that was stopped
goes on with the same texts. Knows nothing of measures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from peft import PeftModel
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig

from plural_rlhf.policies.answers import encode_prompt
from plural_rlhf.policies.generation import generate_with_shared_prefix
from plural_rlhf.policies.log_probs import completion_log_probs, pad_left
from plural_rlhf.policies.steerer import end_tokens
from plural_rlhf.recipe.config import RunConfig
from plural_rlhf.recipe.job import KeepPieces
from plural_rlhf.recipe.open_ended.policies import steered_prompt
from plural_rlhf.recipe.open_ended.prompts import OpenPrompt
from plural_rlhf.recipe.open_ended.rerank import choose_candidate
from plural_rlhf.recipe.scorers.choose import read_target_scorer
from plural_rlhf.recipe.trainings import load_base
from plural_rlhf.report.names import EVERYBODY, Method, Split
from reward_models.inference import evaluating
from reward_models.jury.protocol import ClusterScorer
from reward_models.seeds import derived_seed, seeded_rng


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["POOL", "Sample", "candidate_rewards", "draw_from_pi_0", "draw_samples", "measured_prompts"]

BATCH = 16
"""Texts drawn at once; fixed, so that the same texts are drawn whatever else is."""
POOL = 4
"""One of n texts is chosen from pools of so many times n texts, drawn without replacement, to spare generation."""
Weightings = Mapping[str, np.ndarray]
PI_0, POLICY = "pi_0", "policy"


@dataclass(frozen=True)
class Sample:
    """A text that a policy wrote.

    Attributes:
        policy: A `Method`.
        weighting: Who was asked for: `all`, a cluster, or a jury of the run file.
        prompt: Wording of the prompt.
        split: `train` or `heldout`.
        text: The text.
        log_prob: Its log-probability under the policy, end included, nats; NaN if it is not known.
        reference_log_prob: The same under pi_0 and the same prompt.
        num_tokens: Its tokens, the end included.
        ended: False if it was cut at the longest length.
    """

    policy: str
    weighting: str
    prompt: str
    split: str
    text: str
    log_prob: float
    reference_log_prob: float
    num_tokens: int
    ended: bool


def measured_prompts(config: RunConfig, prompts: Sequence[OpenPrompt]) -> list[OpenPrompt]:
    """Return the prompts that are measured: at most `evaluate.prompts` of each split, drawn at random.

    Example:
        >>> from plural_rlhf.recipe.config import RunConfig
        >>> prompts = [OpenPrompt(f"Question {n}?", "train" if n < 30 else "heldout") for n in range(40)]
        >>> [prompt.split for prompt in measured_prompts(RunConfig(evaluate={"prompts": 2}), prompts)]
        ['train', 'train', 'heldout', 'heldout']
    """
    measured = []
    for split in Split:
        of_split = [prompt for prompt in prompts if prompt.split == split]
        order = seeded_rng(config.seed, "prompts that are measured").permutation(len(of_split))
        measured += [of_split[i] for i in sorted(order[: config.evaluate.prompts].tolist())]
    return measured


def draw_samples(
    config: RunConfig,
    prompts: Sequence[OpenPrompt],
    scorer: ClusterScorer,
    weightings: Weightings,
    folder: Path,
    keep: KeepPieces,
) -> list[Sample]:
    """Draw `evaluate.samples` texts per prompt from every policy.

    Ours and pi_0 are asked for every weighting; the others, which do not follow weights, for the population.

    Args:
        config: The run.
        prompts: The prompts that are measured.
        scorer: The training jury, which chooses for best of n.
        weightings: Weights `(K,)` by name, `all` for the population.
        folder: Folder of the run, which holds the policies.
        keep: Given a name and pieces of work, returns their results: what a stopped run has done, or is done now.
    """
    base, tokenizer = load_base(config)
    model = PeftModel.from_pretrained(base, folder / Method.WARM, adapter_name=PI_0)
    writer = _Writer(config, model, tokenizer, scorer)
    samples: list[Sample] = []
    population = {EVERYBODY: weightings[EVERYBODY]}
    stock = [m for m, section in ((Method.GRPO, config.grpo), (Method.RLOO, config.rloo)) if section.steps]
    reranks = config.plural.mode == "rerank"
    for method in (Method.UNTOUCHED, Method.WARM, *stock, *(() if reranks else (Method.PLURAL,))):
        if method in (Method.UNTOUCHED, Method.WARM):
            writer.adapter = None if method == Method.UNTOUCHED else PI_0
        else:
            model.load_adapter(str(folder / method), POLICY)
            writer.adapter = POLICY
        asked = weightings if method in (Method.WARM, Method.PLURAL) else population
        samples += writer.pieces(method, asked, prompts, config.evaluate.samples, keep)
        if writer.adapter == POLICY:
            model.set_adapter(PI_0)
            model.delete_adapter(POLICY)
    writer.adapter = PI_0
    if reranks:
        n, target = config.plural.candidates, read_target_scorer(config, folder)
        pool = writer.pieces("candidates", weightings, prompts, POOL * n, keep)
        for name, weights in weightings.items():

            def rerank(rewards: np.ndarray, rng: np.random.Generator, weights: np.ndarray = weights) -> int:
                return choose_candidate(rewards, weights, config.plural, rng)

            of_name = [replace(sample, policy=Method.PLURAL) for sample in pool if sample.weighting == name]
            samples += _choose(config, of_name, prompts, target, n, rerank, f"reranked for {name}")
    if config.best_of_n.n:
        n, shares = config.best_of_n.n, np.asarray(scorer.prevalence)
        pool = writer.pieces(Method.BEST_OF_N, population, prompts, POOL * n, keep)

        def best(rewards: np.ndarray, _: np.random.Generator) -> int:
            return int(np.argmax(rewards @ shares))

        samples += _choose(config, pool, prompts, scorer, n, best, "best of n")
    return samples


def draw_from_pi_0(
    config: RunConfig,
    start: Path,
    scorer: ClusterScorer,
    prompts: Sequence[OpenPrompt],
    weightings: Weightings,
    number: int,
    purpose: str,
) -> list[Sample]:
    """Draw texts of pi_0 for another use than measuring it.

    Args:
        config: The run.
        start: Folder of pi_0.
        scorer: The clusters and their prevalence.
        prompts: The prompts.
        weightings: Weights `(K,)` by name.
        number: Texts per prompt and weights.
        purpose: Name of the use; each has random numbers of its own.
    """
    base, tokenizer = load_base(config)
    model = PeftModel.from_pretrained(base, start, adapter_name=PI_0)
    writer = _Writer(config, model, tokenizer, scorer, PI_0)
    return writer.pieces(purpose, weightings, prompts, number, lambda name, works: [work() for work in works])


@dataclass
class _Writer:
    """Draws texts from the adapter that is set."""

    config: RunConfig
    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    scorer: ClusterScorer
    adapter: str | None = None

    def pieces(
        self, method: str, asked: Weightings, prompts: Sequence[OpenPrompt], number: int, keep: KeepPieces
    ) -> list[Sample]:
        labels = [(name, prompt) for name in asked for prompt in prompts]
        works = [
            partial(self._draw, steered_prompt(prompt, asked[name], self.scorer), number, method, place)
            for place, (name, prompt) in enumerate(labels)
        ]
        return [
            Sample(method, name, prompt.wording, prompt.split, **row)
            for (name, prompt), rows in zip(labels, keep(f"texts by {method}", works), strict=True)
            for row in rows
        ]

    @torch.no_grad()
    def _draw(self, prompt: list[dict[str, str]], number: int, method: str, place: int) -> list[dict[str, Any]]:
        ends = end_tokens(self.model, self.tokenizer)
        pad = self.tokenizer.pad_token_id
        config = GenerationConfig(
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=self.config.policy.max_new_tokens,
            pad_token_id=pad,
            eos_token_id=ends,
        )
        ids = encode_prompt(prompt, self.tokenizer, {})
        rows: list[dict[str, Any]] = []
        with torch.random.fork_rng(), evaluating(self.model):
            torch.manual_seed(derived_seed(self.config.seed, f"texts by {method}", place))
            for start in range(0, number, BATCH):
                group = [ids] * min(BATCH, number - start)
                with self._speaking(self.adapter):
                    tokens, log_probs = generate_with_shared_prefix(self.model, group, config, pad, ends)
                own = [sum(of) for of in log_probs]
                with self._speaking(PI_0):
                    reference = own if self.adapter == PI_0 else self._log_probs(group, tokens)
                texts = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
                rows += [
                    {
                        "text": text.strip(),
                        "log_prob": own[i],
                        "reference_log_prob": reference[i],
                        "num_tokens": len(tokens[i]),
                        "ended": tokens[i][-1] in ends,
                    }
                    for i, text in enumerate(texts)
                ]
        return rows

    def _log_probs(self, prompts: list[list[int]], completions: list[list[int]]) -> list[float]:
        pad = self.tokenizer.pad_token_id
        prompt_ids, prompt_mask = pad_left(prompts, pad)
        tokens = [torch.tensor(row) for row in completions]
        completion_ids = pad_sequence(tokens, batch_first=True, padding_value=pad)
        mask = pad_sequence([torch.ones_like(row) for row in tokens], batch_first=True)
        rows = {
            "prompt_ids": prompt_ids,
            "prompt_mask": prompt_mask,
            "completion_ids": completion_ids,
            "completion_mask": mask,
        }
        device = self.model.device
        rows = {name: tensor.to(device) for name, tensor in rows.items()}
        return completion_log_probs(self.model, rows).sum(dim=1).double().tolist()

    def _speaking(self, adapter: str | None) -> Any:
        """Return a context in which the model is the base with an adapter, or without."""
        if adapter is None:
            return self.model.disable_adapter()
        self.model.set_adapter(adapter)
        return torch.no_grad()


def _choose(
    config: RunConfig,
    pool: Sequence[Sample],
    prompts: Sequence[OpenPrompt],
    scorer: ClusterScorer,
    n: int,
    choose: Callable[[np.ndarray, np.random.Generator], int],
    purpose: str,
) -> list[Sample]:
    """Choose one of `n` texts of a pool by their rewards (n, K), `evaluate.samples` times per prompt.

    The log-probability of a text that was chosen so is not known.
    """
    chosen: list[Sample] = []
    for place, prompt in enumerate(prompts):
        texts = [sample for sample in pool if sample.prompt == prompt.wording]
        rewards = candidate_rewards(scorer, prompt, [sample.text for sample in texts])
        rng = seeded_rng(config.seed, f"chosen texts: {purpose}", place)
        for _ in range(config.evaluate.samples):
            some = rng.choice(len(texts), size=n, replace=False)
            chosen.append(replace(texts[some[choose(rewards[some], rng)]], log_prob=math.nan))
    return chosen


def candidate_rewards(scorer: ClusterScorer, prompt: OpenPrompt, texts: Sequence[str]) -> np.ndarray:
    """Score `N` texts in answer to a prompt, (N, K)."""
    # An empty text is no text for a jury; as a dot it is judged like one without words.
    completions = [[{"role": "assistant", "content": text or "."}] for text in texts]
    return scorer.cluster_rewards([prompt.messages] * len(texts), completions).double().numpy()
