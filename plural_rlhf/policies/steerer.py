"""Answers of a steerable policy under weights that are given per call: by name, by seats or by a rater's posterior.

`Steerer` renders the weights into the prompt with the same words or tokens as in training (`weights.sampler`), then
samples or scores with plain transformers. It knows nothing of training, rewards or targets. Of a jury reward model it
reads the cluster names and their prevalence alone.

Shapes: `B` prompts, `A` answers, `K` clusters.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers.utils import logging

from plural_rlhf.policies.answers import answer_probabilities, encode_prompt
from plural_rlhf.policies.base_models import adapter_base
from plural_rlhf.policies.generation import OWN_DISTRIBUTION
from plural_rlhf.weights.sampler import POPULATION_TOKEN, Rendering, WeightSampler
from plural_rlhf.weights.wording import TRLPrompt
from reward_models.borders import path_fault
from reward_models.errors import JuryError, did_you_mean, renamed_arguments
from reward_models.inference import default_device, evaluating
from reward_models.raters.adaptation import Adaptation
from reward_models.raters.placement import Placement
from reward_models.weights import WeightSpec, parse_weights


if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Steerer", "WeightsLike", "end_tokens", "is_one_per_prompt"]

logger = logging.get_logger(__name__)

WeightsLike = WeightSpec | Adaptation | Placement
"""Weights as in `WeightSpec`, or one rater's posterior (`JuryScorer.adapt`, `JuryScorer.remembered`)."""


class Steerer:
    """A steerable policy: it answers under weights over the clusters that are given per call.

    Args:
        model: A policy that was trained with weights in its prompts; stays on its device.
        tokenizer: Its tokenizer.
        cluster_names: The clusters, in the order of training.
        prevalence: `(K,)` their shares of the population.
        rendering: How training rendered the weights, see `WeightSampler`.
        levels: Number of levels of a rendering in tokens.
        batch_size: Sequences per pass.
        chat_template_kwargs: Arguments of the chat template in training, other than the conversation.
        prompt_names: Names of the clusters in the prompts of training, where they have been renamed since; None: the
            same names.

    Raises:
        JuryError: If the tokenizer lacks the tokens of the rendering.

    Example:
        >>> from plural_rlhf.policies.base_models import tiny_causal_lm, tiny_tokenizer
        >>> steerer = Steerer(tiny_causal_lm(), tiny_tokenizer(), ["urban", "rural"], prevalence=[0.8, 0.2])
        >>> question = [{"role": "user", "content": "Parks or roads?"}]
        >>> steerer.render(question, weights={"urban": 7, "rural": 5})[0]["content"]
        'Answer as a member of this public: 58% urban, 42% rural.'
        >>> answers = steerer.generate(question, ["urban", "rural", "prevalence"], max_new_tokens=4)
        >>> len(answers)  # one under each weighting
        3
        >>> urban, rural = steerer.answer_probabilities(question, ["Parks.", "Roads."], ["urban", "rural"])
        >>> urban.shape
        (2,)
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        cluster_names: Sequence[str],
        prevalence: Sequence[float] | np.ndarray,
        rendering: Rendering = "text",
        *,
        levels: int = 21,
        batch_size: int = 32,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        prompt_names: Sequence[str] | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.chat_template_kwargs = chat_template_kwargs
        self.cluster_names = list(cluster_names)
        """The clusters, in the order of every K."""
        self._sampler = WeightSampler(
            self.cluster_names if prompt_names is None else prompt_names,
            prevalence,
            rendering=rendering,
            levels=levels,
        )
        _check_tokens(self._sampler, tokenizer)

    @classmethod
    @renamed_arguments(jury="scorer")
    def from_pretrained(
        cls,
        policy: str | Path,
        scorer: str | Path,
        *,
        device: str | torch.device | None = None,
        batch_size: int = 32,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        prompt_names: Sequence[str] | None = None,
    ) -> Steerer:
        """Load a policy, and the names and prevalence of the clusters that it was trained with.

        Args:
            policy: Folder or hub id of a model or of a PEFT adapter, with its tokenizer. The tokenizer shows whether
                weights are rendered in words or in tokens.
            scorer: Folder or hub id of the saved jury reward model; only its configuration is read.
            device: Device of the policy; by default this process's accelerator if there is one, else the CPU.
            batch_size: Sequences per pass.
            chat_template_kwargs: Arguments of the chat template in training, other than the conversation.
            prompt_names: Names of the clusters in the prompts of training, where the jury's clusters have been renamed
                since. None: the names that the jury has, or those that the policy has tokens for.

        Warns:
            UserWarning: The jury's clusters were renamed, and nothing tells which names the policy was trained with.

        Raises:
            JuryError: If there is no jury reward model at `scorer`, or it has other clusters than the policy's tokens,
                or the folder `policy` contains no model, e.g. because a trained policy was not saved.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from reward_models.jury.folder import load_config

        config = load_config(scorer)
        if fault := path_fault(policy):
            raise JuryError(f"the policy cannot be loaded: {fault}.")
        _check_policy(Path(policy))
        names, prevalence = config.cluster_names, config.prevalence
        tokenizer = AutoTokenizer.from_pretrained(str(policy), padding_side="left", trust_remote_code=False)
        vocabulary = tokenizer.get_vocab()
        rendering: Rendering = "tokens" if POPULATION_TOKEN in vocabulary else "text"
        trained = list(prompt_names or _names_of_training(names, config.former_names, vocabulary, rendering))
        levels = sum(token.startswith(f"<|{trained[0]}:") for token in vocabulary) or 21
        sampler = WeightSampler(trained, prevalence, rendering=rendering, levels=levels)
        _check_tokens(sampler, tokenizer)
        base = adapter_base(policy)
        if base is None:
            model = AutoModelForCausalLM.from_pretrained(str(policy), trust_remote_code=False)
        else:
            from peft import PeftModel

            model = AutoModelForCausalLM.from_pretrained(base, trust_remote_code=False)
            sampler.prepare(model, tokenizer)
            model = PeftModel.from_pretrained(model, str(policy))
        return cls(
            model.to(default_device() if device is None else device).eval(),
            tokenizer,
            names,
            prevalence,
            rendering,
            levels=levels,
            batch_size=batch_size,
            chat_template_kwargs=chat_template_kwargs,
            prompt_names=trained,
        )

    @property
    def prevalence(self) -> np.ndarray:
        """`(K,)` shares of the population."""
        return self._sampler.prevalence

    @property
    def ends(self) -> list[int]:
        """Ids of the tokens that end an answer."""
        return end_tokens(self.model, self.tokenizer)

    @renamed_arguments(jury="weights")
    def weights(self, weights: WeightsLike) -> np.ndarray:
        """Return weights in any spelling as an array `(K,)` that sums to one.

        Raises:
            JuryError: See `parse_weights`; or a posterior of several raters, of other clusters, or of a `factor` jury.
        """
        if isinstance(weights, Placement):
            weights = Adaptation.of(weights, self.cluster_names)
        if not isinstance(weights, Adaptation):
            return parse_weights(weights, self.cluster_names, self.prevalence)
        if weights.cluster_names != self.cluster_names:
            raise JuryError(
                f"the rater was adapted to the clusters {weights.cluster_names}, but the policy was trained with "
                f"{self.cluster_names}: adapt the rater with the jury reward model of the policy."
            )
        if len(weights.rater_ids) != 1:
            raise JuryError(
                f"the posterior is of {len(weights.rater_ids)} raters, and a prompt takes the weights of one: give "
                "weights=adaptation.weights(rater_id), or one row of weights per prompt: "
                "[adaptation.weights(rater_id) for rater_id in adaptation.rater_ids]."
            )
        return parse_weights(weights.weights(weights.rater_ids[0]), self.cluster_names, self.prevalence)

    @renamed_arguments(jury="weights")
    def render(self, prompt: TRLPrompt, weights: WeightsLike = "prevalence") -> TRLPrompt:
        """Render weights into a prompt; plain text stays plain text, without the tokenizer's chat template."""
        if isinstance(prompt, str) and self.tokenizer.chat_template is not None:
            logger.warning_once(
                "A prompt is plain text, so the tokenizer's chat template is not applied. This is right for a policy "
                'trained on plain text; for one trained on conversations, pass [{"role": "user", "content": prompt}].'
            )
        return self._sampler.render(prompt, self.weights(weights))

    def contexts(self, prompt: TRLPrompt) -> list[TRLPrompt]:
        """Return the prompt under each of the `K` clusters alone: the contexts of a `MixedDecoder`."""
        return [self.render(prompt, name) for name in self.cluster_names]

    @renamed_arguments(jury="weights")
    def generate(
        self,
        prompts: TRLPrompt | Sequence[TRLPrompt],
        weights: WeightsLike | Sequence[WeightsLike] = "prevalence",
        *,
        num_return_sequences: int = 1,
        **generation: Any,
    ) -> list[str]:
        """Sample answers under weights over the clusters.

        Args:
            prompts: One prompt or several.
            weights: For all prompts, or a list with one per prompt (rows of weights, names, …). A single prompt is
                answered under all weights of a list.
            num_return_sequences: Answers per prompt.
            **generation: Fields of `GenerationConfig`. By default samples come from the policy's own distribution
                (temperature 1, no truncation) and have at most 128 tokens.

        Returns:
            Texts, `num_return_sequences` for the first prompt, then for the next.

        Raises:
            JuryError: If weights cannot be used, or their number differs from that of the prompts.
            TypeError: If `GenerationConfig` does not have an argument.
        """
        sampled = self.sample_tokens(prompts, weights, num_return_sequences=num_return_sequences, **generation)
        return self.tokenizer.batch_decode(sampled, skip_special_tokens=True)

    @renamed_arguments(jury="weights")
    @torch.no_grad()
    def sample_tokens(
        self,
        prompts: TRLPrompt | Sequence[TRLPrompt],
        weights: WeightsLike | Sequence[WeightsLike] = "prevalence",
        *,
        num_return_sequences: int = 1,
        **generation: Any,
    ) -> list[list[int]]:
        """Sample as `generate` and return tokens, up to the end token; an answer that was cut off has none."""
        from transformers import GenerationConfig

        _check_generation(generation, GenerationConfig())
        rendered, ends = self._rendered(prompts, weights), self.ends
        sampling = OWN_DISTRIBUTION if generation.get("do_sample", True) else {}
        config = GenerationConfig(
            **{
                **sampling,
                "max_new_tokens": 128,
                "num_return_sequences": num_return_sequences,
                "pad_token_id": self.tokenizer.pad_token_id,
                "eos_token_id": ends,
                **generation,
            }
        )
        out: list[list[int]] = []
        per_pass = max(1, self.batch_size // num_return_sequences)
        with evaluating(self.model):
            for start in range(0, len(rendered), per_pass):
                prompt_ids = [
                    encode_prompt(prompt, self.tokenizer, self.chat_template_kwargs)
                    for prompt in rendered[start : start + per_pass]
                ]
                padded = self.tokenizer.pad({"input_ids": prompt_ids}, padding_side="left", return_tensors="pt")
                sequences = self.model.generate(**padded.to(self.model.device), generation_config=config)
                out += [_until_end(row, ends) for row in sequences[:, padded["input_ids"].shape[1] :].tolist()]
        return out

    @renamed_arguments(jury="weights")
    def answer_probabilities(
        self,
        prompts: TRLPrompt | Sequence[TRLPrompt],
        support: Sequence[str] | Sequence[Sequence[str]],
        weights: WeightsLike | Sequence[WeightsLike] = "prevalence",
    ) -> list[np.ndarray]:
        """Compute the exact probabilities of given answers, end token included; nothing is sampled.

        Args:
            prompts: One prompt or several.
            support: The answers, for all prompts or one list per prompt.
            weights: As in `generate`.

        Returns:
            Per prompt, or per weights of a single prompt, `(A,)` float64; they sum to the coverage, at most 1.

        Raises:
            JuryError: As `generate`.
        """
        rendered = self._rendered(prompts, weights)
        supports: list[Any] = [support] * len(rendered) if isinstance(support[0], str) else list(support)
        return answer_probabilities(
            self.model,
            self.tokenizer,
            rendered,
            supports,
            batch_size=self.batch_size,
            progress=False,
            chat_template_kwargs=self.chat_template_kwargs,
        )

    def _rendered(
        self, prompts: TRLPrompt | Sequence[TRLPrompt], weights: WeightsLike | Sequence[WeightsLike]
    ) -> list[TRLPrompt]:
        one = isinstance(prompts, str) or (len(prompts) > 0 and isinstance(prompts[0], dict))
        questions: list[Any] = [prompts] if one else list(prompts)
        several = is_one_per_prompt(weights)
        specs: list[Any] = list(weights) if several else [weights] * len(questions)  # type: ignore[arg-type]
        if one and several:
            questions *= len(specs)
        if len(specs) != len(questions):
            raise JuryError(
                f"{len(specs)} weights for {len(questions)} prompts: give one for all, or one per prompt. (The "
                "weights of one prompt are a mapping from cluster name to number, or K numbers.)"
            )
        return [self.render(prompt, spec) for prompt, spec in zip(questions, specs, strict=True)]


def is_one_per_prompt(weights: Any) -> bool:
    """Return whether there is one weighting per prompt: a matrix, or a list whose entries are not numbers.

    Example:
        >>> is_one_per_prompt(["urban", "rural"]), is_one_per_prompt([0.8, 0.2])
        (True, False)
    """
    if isinstance(weights, np.ndarray):
        return weights.ndim == 2
    return (
        isinstance(weights, list | tuple) and len(weights) > 0 and not isinstance(weights[0], int | float | np.number)
    )


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids of the tokens that end an answer: the tokenizer's, and those of the model's generation_config.

    Example:
        >>> from plural_rlhf.policies.base_models import tiny_causal_lm, tiny_tokenizer
        >>> tokenizer = tiny_tokenizer()
        >>> tokenizer.convert_ids_to_tokens(end_tokens(tiny_causal_lm(), tokenizer))
        ['<|im_end|>']
    """
    of_model = model.generation_config.eos_token_id
    return sorted({tokenizer.eos_token_id, *(of_model if isinstance(of_model, list) else [of_model])} - {None})


def _check_generation(arguments: Mapping[str, Any], defaults: GenerationConfig) -> None:
    """Raise if an argument is no field of `GenerationConfig`, which accepts any name and would ignore it."""
    known = [name for name in vars(defaults) if not name.startswith("_")]
    for name in arguments:
        if name in ("cluster", "clusters"):
            raise TypeError(
                f"{name}= is no argument: clusters are named in weights=; give weights={arguments[name]!r}."
            )
        if name not in known:
            raise TypeError(
                f"{name}={arguments[name]!r} is neither weights= nor a field of transformers' GenerationConfig."
                f"{did_you_mean(name, ['weights', *known])}"
            )


def _names_of_training(
    names: Sequence[str], former: Sequence[str] | None, vocabulary: Mapping[str, int], rendering: Rendering
) -> Sequence[str]:
    """Return the names that a policy's tokens have; in words the present ones, and warn if there were others."""
    if former is None:
        return names
    if rendering == "tokens":
        return former if any(token.startswith(f"<|{former[0]}:") for token in vocabulary) else names
    warnings.warn(
        f"the clusters of the jury were renamed, from {list(former)} to {list(names)}. A policy follows only the "
        f"words that it was trained on: if it was trained before, pass prompt_names={list(former)}; if after, pass "
        f"prompt_names={list(names)}, which is what is used now.",
        UserWarning,
        stacklevel=4,
    )
    return names


def _check_policy(folder: Path) -> None:
    """Raise if a folder contains no model; a name that is no folder may be a hub id."""
    if not folder.is_dir() or any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
        return
    checkpoints = sorted(folder.glob("checkpoint-*"), key=lambda path: (len(path.name), path.name))
    fix = "Give the folder of a saved model or adapter."
    if checkpoints:
        fix = (
            f"It contains only training checkpoints ({', '.join(path.name for path in checkpoints)}): save the "
            f'trained policy with trainer.save_model("{folder}"), or give a checkpoint, "{checkpoints[-1]}".'
        )
    raise JuryError(f"no policy in {str(folder)!r}: it has neither config.json nor adapter_config.json. {fix}")


def _check_tokens(sampler: WeightSampler, tokenizer: PreTrainedTokenizerBase) -> None:
    missing = sampler.missing_tokens(tokenizer)
    if missing:
        raise JuryError(
            f"the tokenizer lacks {len(missing)} of the tokens that render weights, the first: {missing[0]!r}. Use "
            "the tokenizer that was saved with the policy, and the clusters and levels of its training, or "
            "rendering='text' if the policy was trained with that."
        )


def _until_end(tokens: list[int], ends: Sequence[int]) -> list[int]:
    for position, token in enumerate(tokens):
        if token in ends:
            return tokens[: position + 1]
    return tokens
