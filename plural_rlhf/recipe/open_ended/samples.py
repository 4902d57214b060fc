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

from plural_rlhf.policies.mixed_decoder import MixedDecoder
from plural_rlhf.policies.steerer import end_tokens
from plural_rlhf.recipe.config import RunConfig
from plural_rlhf.recipe.job import KeepPieces, keep_nothing
from plural_rlhf.recipe.open_ended.measured_policies import MeasuredPolicy, checkpoints_of, measured_policies
from plural_rlhf.recipe.open_ended.plain_texts import candidate_rewards, draw_texts, text_log_probs
from plural_rlhf.recipe.open_ended.policies import steered_prompt
from plural_rlhf.recipe.open_ended.prompts import OpenPrompt
from plural_rlhf.recipe.open_ended.rerank import choose_candidate, deal_candidates
from plural_rlhf.recipe.scorers.choose import read_target_scorer
from plural_rlhf.recipe.trainings import load_base
from plural_rlhf.report.names import EVERYBODY, Method, Split
from plural_rlhf.weights.wording import steer_prompt
from reward_models.inference import evaluating
from reward_models.jury.protocol import ClusterScorer
from reward_models.seeds import derived_seed, seeded_rng


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Sample", "draw_along", "draw_from_pi_0", "draw_samples", "measured_prompts"]

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
    kept: Mapping[str, Path],
) -> tuple[list[Sample], list[Sample]]:
    """Draw `evaluate.samples` texts per prompt from every policy, `evaluate.reference_samples` from pi_0.

    Policies that follow weights are asked for every weighting, the others for the population.

    Args:
        config: The run.
        prompts: The prompts that are measured.
        scorer: The training jury, which chooses for best of n.
        weightings: Weights `(K,)` by name, `all` for the population.
        folder: Folder of the run, which holds the policies.
        keep: Given a name and pieces of work, returns their results: what a stopped run has done, or is done now.
        kept: Adapters in place of the last ones, by policy (`evaluate.keep`).

    Returns:
        The texts of the policies; and those of pi_0 for the population among which some of them choose.
    """
    writer = _writer(config, scorer, folder / Method.WARM)
    population = {EVERYBODY: weightings[EVERYBODY]}
    policies = [
        replace(policy, adapter=kept.get(policy.name, policy.adapter)) for policy in measured_policies(config, folder)
    ]
    pool, number = list[Sample](), config.evaluate.samples
    sizes = [policy.choice.pool_size(number) for policy in policies if policy.choice is not None]
    if sizes:  # one pool for all: pi_0 writes alike under all weights
        pool = writer.pieces("candidates", population, prompts, {EVERYBODY: max(sizes)}, keep)
    samples = list[Sample]()
    for policy in policies:
        asked = weightings if policy.follows_weights else population
        if policy.mixes:  # for one cluster it is ours under that cluster's prompt
            asked = {name: weights for name, weights in weightings.items() if weights.max() < 1}
        if policy.choice is not None:
            target = scorer if policy.choice.section is None else read_target_scorer(config, folder)
            for name, weights in asked.items():
                samples += _choose(config, policy, pool, prompts, target, name, weights)
        elif policy.name == Method.WARM:
            samples += _of_pi_0(writer, config, weightings, prompts, keep)
        else:
            with writer.writes_as(policy):
                samples += writer.pieces(policy.name, asked, prompts, dict.fromkeys(asked, number), keep)
    return samples, pool


def draw_along(
    config: RunConfig,
    prompts: Sequence[OpenPrompt],
    scorer: ClusterScorer,
    weightings: Weightings,
    folder: Path,
    keep: KeepPieces,
) -> list[Sample]:
    """Draw `evaluate.along_samples` texts per prompt from policies on their way, and those of pi_0 for comparison.

    Arguments as for `draw_samples`; the texts of pi_0 are the same ones. Empty where no training left checkpoints.
    """
    policies = [at for policy in measured_policies(config, folder) for at in checkpoints_of(policy).values()]
    if not policies or not config.evaluate.along:
        return []
    writer = _writer(config, scorer, folder / Method.WARM)
    population = {EVERYBODY: weightings[EVERYBODY]}
    samples = [s for s in _of_pi_0(writer, config, weightings, prompts, keep) if s.weighting == EVERYBODY]
    for policy in policies:
        with writer.writes_as(policy):
            numbers = {EVERYBODY: config.evaluate.along_samples}
            samples += writer.pieces(policy.name, population, prompts, numbers, keep)
    return samples


def _of_pi_0(
    writer: _Writer, config: RunConfig, weightings: Weightings, prompts: Sequence[OpenPrompt], keep: KeepPieces
) -> list[Sample]:
    numbers = dict.fromkeys(weightings, config.evaluate.samples)
    numbers[EVERYBODY] = config.evaluate.reference_samples or config.evaluate.samples
    return writer.pieces(Method.WARM, weightings, prompts, numbers, keep)


def draw_from_pi_0(
    config: RunConfig,
    start: Path,
    scorer: ClusterScorer,
    prompts: Sequence[OpenPrompt],
    weightings: Weightings,
    number: int,
    purpose: str,
    keep: KeepPieces = keep_nothing,
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
        keep: As for `draw_samples`; by default nothing is kept.
    """
    writer = _writer(config, scorer, start)
    return writer.pieces(purpose, weightings, prompts, dict.fromkeys(weightings, number), keep)


def _writer(config: RunConfig, scorer: ClusterScorer, start: Path) -> _Writer:
    base, tokenizer = load_base(config)
    pi_0 = MeasuredPolicy(Method.WARM, start, follows_weights=True)
    return _Writer(config, PeftModel.from_pretrained(base, start, adapter_name=PI_0), tokenizer, scorer, pi_0, pi_0)


@dataclass
class _Writer:
    """Draws texts as a policy; as pi_0, unless `writes_as` says otherwise."""

    config: RunConfig
    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    scorer: ClusterScorer
    pi_0: MeasuredPolicy
    policy: MeasuredPolicy

    @property
    def adapter(self) -> str | None:
        """Name of the adapter of the policy; None for the base model without one."""
        if self.policy.adapter is None:
            return None
        return PI_0 if self.policy.adapter == self.pi_0.adapter else POLICY

    @contextmanager
    def writes_as(self, policy: MeasuredPolicy) -> Iterator[None]:
        """Write as a policy while the block runs."""
        self.policy = policy
        if self.adapter == POLICY:
            self.model.load_adapter(str(policy.adapter), POLICY)
        yield
        self.model.set_adapter(PI_0)
        if self.adapter == POLICY:
            self.model.delete_adapter(POLICY)
        self.policy = self.pi_0

    def pieces(
        self,
        method: str,
        asked: Weightings,
        prompts: Sequence[OpenPrompt],
        numbers: Mapping[str, int],
        keep: KeepPieces,
    ) -> list[Sample]:
        """Draw `numbers[name]` texts per prompt for each weighting of that name."""
        labels = [(name, prompt) for name in asked for prompt in prompts]
        works = [
            partial(self._draw, prompt, asked[name], numbers[name], method, place)
            for place, (name, prompt) in enumerate(labels)
        ]
        return [
            Sample(method, name, prompt.wording, prompt.split, **row)
            for (name, prompt), rows in zip(labels, keep(f"texts by {method}", works), strict=True)
            for row in rows
        ]

    @torch.no_grad()
    def _draw(
        self, prompt: OpenPrompt, weights: np.ndarray, number: int, method: str, place: int
    ) -> list[dict[str, Any]]:
        ends = end_tokens(self.model, self.tokenizer)
        asked = steered_prompt(prompt, weights, self.scorer)
        draw = partial(self._draw_mixed, prompt, weights) if self.policy.mixes else partial(self._draw_plain, asked)
        rows: list[dict[str, Any]] = []
        with torch.random.fork_rng(), evaluating(self.model):
            torch.manual_seed(derived_seed(self.config.seed, f"texts by {method}", place))
            for start in range(0, number, BATCH):
                size = min(BATCH, number - start)
                with self._speaking(self.adapter):
                    tokens, own = draw(size)
                drawn_by_pi_0 = self.policy is self.pi_0
                with self._speaking(PI_0):
                    reference = own if drawn_by_pi_0 else text_log_probs(self.model, self.tokenizer, asked, tokens)
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

    def _draw_plain(self, prompt: list[dict[str, str]], number: int) -> tuple[list[list[int]], list[float]]:
        """Draw tokens of `number` texts, and their log-probabilities under the policy."""
        if self.policy.instruction:
            prompt = steer_prompt(prompt, self.policy.instruction)
        return draw_texts(self.model, self.tokenizer, prompt, number, self.config.policy.max_new_tokens)

    def _draw_mixed(self, prompt: OpenPrompt, weights: np.ndarray, number: int) -> tuple[list[list[int]], list[float]]:
        """As `_draw_plain`, from a mix of the policy under each cluster's prompt."""
        mode = self.config.evaluate.mixed_decoding
        assert mode is not None  # else nothing mixes
        contexts = [steered_prompt(prompt, one, self.scorer) for one in np.eye(len(self.scorer.cluster_names))]
        decoder = MixedDecoder(self.model, self.tokenizer, mode, chat_template_kwargs={})
        answers = decoder.generate(
            [contexts],
            weights,
            num_return_sequences=number,
            max_new_tokens=self.config.policy.max_new_tokens,
        )
        return [answer.token_ids for answer in answers], [answer.log_prob for answer in answers]

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
