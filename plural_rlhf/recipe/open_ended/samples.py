"""Draw texts from every policy of a run, for the population and under its steering, with their log-probabilities.

Each piece of work is one prompt under one weighting, with random numbers of its own, so that a run that was stopped
goes on with the same texts. Knows nothing of measures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from plural_rlhf.recipe.open_ended.measured_policies import MeasuredPolicy, measured_policies
from plural_rlhf.recipe.open_ended.policies import steered_prompt
from plural_rlhf.recipe.open_ended.prompts import OpenPrompt
from plural_rlhf.recipe.open_ended.rerank import choose_candidate, deal_candidates
from plural_rlhf.recipe.scorers.choose import read_target_scorer
from plural_rlhf.recipe.trainings import load_base
from plural_rlhf.report.names import EVERYBODY, Method, Split
from plural_rlhf.weights.wording import steer_prompt
from reward_models.inference import evaluating
from reward_models.jury.protocol import ClusterScorer, scorable_text
from reward_models.seeds import derived_seed, seeded_rng


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Sample", "candidate_rewards", "draw_from_pi_0", "draw_samples", "measured_prompts"]

BATCH = 16
"""Texts drawn at once; fixed, so that the same texts are drawn whatever else is."""
Weightings = Mapping[str, np.ndarray]
PI_0, POLICY = "pi_0", "policy"


@dataclass(frozen=True)
class Sample:
    """A text that a policy wrote.

    Attributes:
        policy: A `Method`, or a name of `evaluate.rivals`.
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
    """Draw `evaluate.samples` texts per prompt from every policy, `evaluate.reference_samples` from pi_0.

    Policies that follow weights are asked for every weighting, the others for the population.

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
    population = {EVERYBODY: weightings[EVERYBODY]}
    policies = measured_policies(config, folder)
    pool, number = list[Sample](), config.evaluate.samples
    sizes = [policy.choice.pool_size(number) for policy in policies if policy.choice is not None]
    if sizes:  # one pool for all: pi_0 writes alike under all weights
        writer.adapter = PI_0
        pool = writer.pieces("candidates", population, prompts, {EVERYBODY: max(sizes)}, keep)
    samples = list[Sample]()
    for policy in policies:
        asked = weightings if policy.follows_weights else population
        if policy.choice is not None:
            target = scorer if policy.choice.section is None else read_target_scorer(config, folder)
            for name, weights in asked.items():
                samples += _choose(config, policy, pool, prompts, target, name, weights)
            continue
        numbers = dict.fromkeys(asked, number)
        if policy.name == Method.WARM:
            numbers[EVERYBODY] = config.evaluate.reference_samples or number
        with writer.writes_as(policy, folder / Method.WARM):
            samples += writer.pieces(policy.name, asked, prompts, numbers, keep, policy.instruction)
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
    numbers = dict.fromkeys(weightings, number)
    return writer.pieces(purpose, weightings, prompts, numbers, lambda name, works: [work() for work in works])


@dataclass
class _Writer:
    """Draws texts from the adapter that is set."""

    config: RunConfig
    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    scorer: ClusterScorer
    adapter: str | None = None

    @contextmanager
    def writes_as(self, policy: MeasuredPolicy, start: Path) -> Iterator[None]:
        """Write as a policy while the block runs; `start` is the folder of pi_0, which is loaded already."""
        loads = policy.adapter not in (None, start)
        if loads:
            self.model.load_adapter(str(policy.adapter), POLICY)
        self.adapter = POLICY if loads else PI_0 if policy.adapter == start else None
        yield
        self.adapter = PI_0
        self.model.set_adapter(PI_0)
        if loads:
            self.model.delete_adapter(POLICY)

    def pieces(
        self,
        method: str,
        asked: Weightings,
        prompts: Sequence[OpenPrompt],
        numbers: Mapping[str, int],
        keep: KeepPieces,
        instruction: str = "",
    ) -> list[Sample]:
        """Draw `numbers[name]` texts per prompt for each weighting of that name."""
        labels = [(name, prompt) for name in asked for prompt in prompts]
        works = [
            partial(
                self._draw,
                steered_prompt(prompt, asked[name], self.scorer),
                numbers[name],
                method,
                place,
                instruction,
            )
            for place, (name, prompt) in enumerate(labels)
        ]
        return [
            Sample(method, name, prompt.wording, prompt.split, **row)
            for (name, prompt), rows in zip(labels, keep(f"texts by {method}", works), strict=True)
            for row in rows
        ]

    @torch.no_grad()
    def _draw(
        self, prompt: list[dict[str, str]], number: int, method: str, place: int, instruction: str
    ) -> list[dict[str, Any]]:
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
        plain = encode_prompt(prompt, self.tokenizer, {})
        instructed = steer_prompt(prompt, instruction) if instruction else prompt
        ids = encode_prompt(instructed, self.tokenizer, {})
        rows: list[dict[str, Any]] = []
        with torch.random.fork_rng(), evaluating(self.model):
            torch.manual_seed(derived_seed(self.config.seed, f"texts by {method}", place))
            for start in range(0, number, BATCH):
                group = [ids] * min(BATCH, number - start)
                with self._speaking(self.adapter):
                    tokens, log_probs = generate_with_shared_prefix(self.model, group, config, pad, ends)
                own = [sum(of) for of in log_probs]
                with self._speaking(PI_0):
                    drawn_by_pi_0 = self.adapter == PI_0 and not instruction
                    reference = own if drawn_by_pi_0 else self._log_probs([plain] * len(group), tokens)
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
    policy: MeasuredPolicy,
    pool: Sequence[Sample],
    prompts: Sequence[OpenPrompt],
    scorer: ClusterScorer,
    weighting: str,
    weights: np.ndarray,
) -> list[Sample]:
    """Choose `evaluate.samples` texts per prompt, each among candidates of the pool.

    The log-probability of a text that was chosen so is not known.
    """
    choice, number = policy.choice, config.evaluate.samples
    assert choice is not None
    chosen: list[Sample] = []
    for place, prompt in enumerate(prompts):
        texts = [sample for sample in pool if sample.prompt == prompt.wording][: choice.pool_size(number)]
        rewards = candidate_rewards(scorer, prompt, [sample.text for sample in texts])
        rng = seeded_rng(config.seed, f"chosen texts: {policy.name} for {weighting}", place)
        for some in deal_candidates(len(texts), choice.candidates, number, rng):
            if choice.section is None:
                best = int(np.argmax(rewards[some] @ weights))
            else:
                best = choose_candidate(rewards[some], weights, choice.section, rng)
            text = replace(texts[some[best]], policy=policy.name, weighting=weighting, log_prob=math.nan)
            chosen.append(text)
    return chosen


def candidate_rewards(scorer: ClusterScorer, prompt: OpenPrompt, texts: Sequence[str]) -> np.ndarray:
    """Score `N` texts in answer to a prompt, (N, K)."""
    completions = [[{"role": "assistant", "content": scorable_text(text)}] for text in texts]
    return scorer.cluster_rewards([prompt.messages] * len(texts), completions).double().numpy()
