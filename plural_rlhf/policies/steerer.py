"""Answers of a steerable policy under weights that are given per call: by name, by seats or by a rater's posterior.

`Steerer` renders the weights into the prompt with the same words or tokens as in training (`weights.sampler`), then
samples or scores with plain transformers. It knows nothing of training, rewards or targets. Of a jury reward model it
reads the cluster names and their prevalence alone.

Shapes: `B` prompts, `A` answers, `K` clusters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers.utils import logging

from plural_rlhf.policies.answers import answer_probabilities, encode_prompt
from plural_rlhf.weights.sampler import POPULATION_TOKEN, Rendering, WeightSampler
from reward_models.errors import JuryError, did_you_mean, renamed_arguments
from reward_models.jury.inference import default_device, evaluating
from reward_models.raters.adaptation import Adaptation
from reward_models.raters.placement import Placement
from reward_models.weights import WeightSpec, parse_weights


if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Prompt", "Steerer", "WeightsLike", "end_tokens", "is_one_each"]

logger = logging.get_logger(__name__)

Prompt = str | list[dict[str, Any]]
"""Text, or a conversation as TRL has it."""

WeightsLike = WeightSpec | Adaptation | Placement
"""Weights as in `WeightSpec`, or one rater's posterior (`JuryScorer.adapt`, `JuryScorer.remembered`)."""

_OWN_DISTRIBUTION = {
    "do_sample": True,
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
}
"""Sampling from the policy as it is, whatever its folder's generation_config says: that is what was trained."""


class Steerer:
    """A policy that answers for the public it is asked to answer for.

    Args:
        model: A policy that was trained with weights in its prompts; stays where it is.
        tokenizer: Its tokenizer.
        cluster_names: The jury's clusters, in the order of training.
        prevalence: `(K,)` their shares of the population.
        rendering: How training wrote the weights, see `WeightSampler`.
        levels: The levels of a rendering in tokens.
        batch_size: Sequences at once.
        chat_template_kwargs: What the chat template was given in training, beside the conversation.

    Raises:
        JuryError: Rendering in tokens that the tokenizer does not have.
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
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.chat_template_kwargs = chat_template_kwargs
        self._words = WeightSampler(cluster_names, prevalence, rendering=rendering, levels=levels)
        _check_tokens(self._words, tokenizer)

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
    ) -> Steerer:
        """Load a policy, and the names and prevalence of the clusters that it was trained with.

        Args:
            policy: Folder or hub id of a model or of a PEFT adapter, with its tokenizer. Whether weights are said in
                words or in tokens is read off the tokenizer.
            scorer: Folder or hub id of the saved jury reward model; only its configuration is read.
            device: Where to put the policy; this process's accelerator if there is one, else the CPU.
            batch_size: Sequences at once.
            chat_template_kwargs: What the chat template was given in training, beside the conversation.

        Raises:
            JuryError: There is no jury reward model at `scorer`, or it has other clusters than the policy's tokens;
                or the folder `policy` holds no model, such as that of a training which was never saved.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils.peft_utils import find_adapter_config_file

        from reward_models.jury.folder import load_config

        config = load_config(scorer)
        _check_policy(Path(policy))
        names, prevalence = config.cluster_names, config.prevalence
        tokenizer = AutoTokenizer.from_pretrained(str(policy), padding_side="left")
        vocabulary = tokenizer.get_vocab()
        rendering: Rendering = "tokens" if POPULATION_TOKEN in vocabulary else "text"
        levels = sum(token.startswith(f"<|{names[0]}:") for token in vocabulary) or 21
        words = WeightSampler(names, prevalence, rendering=rendering, levels=levels)
        _check_tokens(words, tokenizer)
        adapter = find_adapter_config_file(str(policy))
        if adapter is None:
            model = AutoModelForCausalLM.from_pretrained(str(policy))
        else:
            from peft import PeftModel

            base = json.loads(Path(adapter).read_text(encoding="utf-8"))["base_model_name_or_path"]
            model = AutoModelForCausalLM.from_pretrained(base)
            words.prepare(model, tokenizer)
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
        )

    @property
    def cluster_names(self) -> list[str]:
        """The jury's clusters, in the order of every K."""
        return self._words.cluster_names

    @property
    def prevalence(self) -> np.ndarray:
        """`(K,)` shares of the population."""
        return self._words.prevalence

    @property
    def ends(self) -> list[int]:
        """The tokens that end an answer."""
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
    def render(self, prompt: Prompt, weights: WeightsLike = "prevalence") -> Prompt:
        """The prompt as the policy reads it; plain text stays plain text, without the tokenizer's chat template."""
        if isinstance(prompt, str) and self.tokenizer.chat_template is not None:
            logger.warning_once(
                "A prompt is plain text, so the tokenizer's chat template is not applied. Right if the policy was "
                'trained on plain text; if it was on conversations, ask [{"role": "user", "content": prompt}].'
            )
        return self._words.render(prompt, self.weights(weights))

    def contexts(self, prompt: Prompt) -> list[Prompt]:
        """The prompt under each cluster alone, `K` of them: what the experts of `decoding.MixedDecoder` read."""
        return [self.render(prompt, name) for name in self.cluster_names]

    @renamed_arguments(jury="weights")
    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
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
            **generation: Of `GenerationConfig`. By default samples come from the policy as it is (temperature 1, no
                truncation) and have at most 128 tokens.

        Returns:
            Texts, `num_return_sequences` for the first prompt, then for the next.

        Raises:
            JuryError: Weights that cannot be used, or another number of them than of prompts.
            TypeError: An argument that `GenerationConfig` does not have.
        """
        sampled = self.sample_tokens(prompts, weights, num_return_sequences=num_return_sequences, **generation)
        return self.tokenizer.batch_decode(sampled, skip_special_tokens=True)

    @renamed_arguments(jury="weights")
    @torch.no_grad()
    def sample_tokens(
        self,
        prompts: Prompt | Sequence[Prompt],
        weights: WeightsLike | Sequence[WeightsLike] = "prevalence",
        *,
        num_return_sequences: int = 1,
        **generation: Any,
    ) -> list[list[int]]:
        """As `generate`, but tokens: up to the end token, which is missing where an answer was cut off."""
        from transformers import GenerationConfig

        _check_generation(generation, GenerationConfig())
        rendered, ends = self._rendered(prompts, weights), self.ends
        own = _OWN_DISTRIBUTION if generation.get("do_sample", True) else {}
        config = GenerationConfig(
            **{
                **own,
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
                found = self.model.generate(**padded.to(self.model.device), generation_config=config)
                out += [_until_end(row, ends) for row in found[:, padded["input_ids"].shape[1] :].tolist()]
        return out

    @renamed_arguments(jury="weights")
    def answer_probabilities(
        self,
        prompts: Prompt | Sequence[Prompt],
        support: Sequence[str] | Sequence[Sequence[str]],
        weights: WeightsLike | Sequence[WeightsLike] = "prevalence",
    ) -> list[np.ndarray]:
        """Probabilities of given answers, end token included: exact, nothing is sampled.

        Args:
            prompts: One prompt or several.
            support: The answers, for all prompts or a list of them a prompt.
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
        self, prompts: Prompt | Sequence[Prompt], weights: WeightsLike | Sequence[WeightsLike]
    ) -> list[Prompt]:
        one = isinstance(prompts, str) or (len(prompts) > 0 and isinstance(prompts[0], dict))
        questions: list[Any] = [prompts] if one else list(prompts)
        several = is_one_each(weights)
        specs: list[Any] = list(weights) if several else [weights] * len(questions)  # type: ignore[arg-type]
        if one and several:
            questions *= len(specs)
        if len(specs) != len(questions):
            raise JuryError(
                f"{len(specs)} weights for {len(questions)} prompts: give one for all, or one per prompt. (The "
                "weights of one prompt are a mapping from cluster name to number, or K numbers.)"
            )
        return [self.render(prompt, spec) for prompt, spec in zip(questions, specs, strict=True)]


def is_one_each(weights: Any) -> bool:
    """Return whether there are weights for each of several prompts, not for all: a matrix, or a list of no numbers."""
    if isinstance(weights, np.ndarray):
        return weights.ndim == 2
    return (
        isinstance(weights, list | tuple) and len(weights) > 0 and not isinstance(weights[0], int | float | np.number)
    )


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end an answer: the tokenizer's, and those of the model's generation_config."""
    of_model = model.generation_config.eos_token_id
    return sorted({tokenizer.eos_token_id, *(of_model if isinstance(of_model, list) else [of_model])} - {None})


def _check_generation(given: Mapping[str, Any], defaults: GenerationConfig) -> None:
    """Refuses what is no setting of generation: `GenerationConfig` takes any name, and the answers would ignore it."""
    known = [name for name in vars(defaults) if not name.startswith("_")]
    for name in given:
        if name in ("cluster", "clusters"):
            raise TypeError(f"{name}= is no argument: clusters are named in weights=; give weights={given[name]!r}.")
        if name not in known:
            raise TypeError(
                f"{name}={given[name]!r} is no argument of the generation.{did_you_mean(name, ['weights', *known])} "
                "It is neither weights= (over the clusters) nor a field of transformers' GenerationConfig."
            )


def _check_policy(folder: Path) -> None:
    """Refuses a folder without a model; what is no folder may be a hub id."""
    if not folder.is_dir() or any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
        return
    checkpoints = sorted(folder.glob("checkpoint-*"), key=lambda path: (len(path.name), path.name))
    fix = "Give the folder of a saved model or adapter."
    if checkpoints:
        fix = (
            f"There are only checkpoints of a training ({', '.join(path.name for path in checkpoints)}): save the "
            f'trained policy with trainer.save_model("{folder}"), or give a checkpoint, "{checkpoints[-1]}".'
        )
    raise JuryError(f"no policy in {str(folder)!r}: it has neither config.json nor adapter_config.json. {fix}")


def _check_tokens(words: WeightSampler, tokenizer: PreTrainedTokenizerBase) -> None:
    missing = words.missing_tokens(tokenizer)
    if missing:
        raise JuryError(
            f"the tokenizer lacks {len(missing)} of the tokens that say the weights, the first: {missing[0]!r}. Use "
            "the tokenizer that was saved with the policy, the clusters and levels of its training, or "
            "rendering='text' if that is how it was trained."
        )


def _until_end(tokens: list[int], ends: Sequence[int]) -> list[int]:
    for position, token in enumerate(tokens):
        if token in ends:
            return tokens[: position + 1]
    return tokens
