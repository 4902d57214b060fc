"""Answer by a pool of communities: their distributions averaged, one that speaks for somebody, or all summed up.

| mode | method | what answers |
|---|---|---|
| distributional | `answer_probabilities`, `generate` | `P(y) = Σ_k w_k P_k(y)`, `w` their shares or flat |
| steerable | `speaker`, `answer_probabilities(weights=speaker)` | the community that speaks for whoever is asked for |
| Overton | `comments`, `overton` | the base model, told what every community has to say |

Adapters lie side by side on one base model, which is loaded once; `set_adapter` chooses one, and in `generate` every
row of a batch has its own. Knows nothing of training.

Shapes: `K` communities, `A` options.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from plural_rlhf.methods.modular.pool import CommunityPool, TrainedCommunity
from plural_rlhf.policies.answers import answer_probabilities, encode_prompt
from plural_rlhf.policies.base_weights import BaseWeights
from plural_rlhf.policies.generation import OWN_DISTRIBUTION, generate_with_shared_prefix
from plural_rlhf.policies.mixed_decoder import MixedDecoder
from plural_rlhf.policies.steerer import end_tokens
from reward_models.borders import path_fault
from reward_models.errors import JuryError
from reward_models.inference import default_device, evaluating
from reward_models.judgements.texts import as_messages, freeze_prompt, prompt_wording
from reward_models.weights import WeightSpec


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["ModularPolicy"]

BASE = "__base__"
"""No adapter."""
WHO_SPEAKS = "Which of these groups speaks for {who} on this question? {question}"
SUM_UP = (
    "{question}\n\nGroups of people commented on this:\n{comments}\n\n"
    "Write one answer in which every group finds its view."
)


class ModularPolicy:
    """A base model with an adapter per community.

    Args:
        base: The base model, without adapters; stays on its device.
        tokenizer: Its tokenizer.
        pool: The communities; their adapters are read from its folder.
        batch_size: Prompts per forward pass.
        chat_template_kwargs: Arguments of the chat template in training, other than the conversation.

    Raises:
        JuryError: An adapter that is missing, or that was trained on another base model.

    Example:
        Two communities whose adapters are untrained, so that both answer as the base model does:

        >>> import tempfile
        >>> from peft import LoraConfig, get_peft_model
        >>> from plural_rlhf.policies.base_models import tiny_causal_lm, tiny_tokenizer
        >>> from reward_models.jury.backbones.loading import weights_hash
        >>> tokenizer, lora = tiny_tokenizer(), LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for key in ("left", "right"):
        ...         get_peft_model(tiny_causal_lm(), lora).save_pretrained(f"{folder}/{key}")
        ...     communities = [TrainedCommunity(key, key, 0.5, 30, 90, "1f") for key in ("left", "right")]
        ...     pool = CommunityPool(Path(folder), "tiny", weights_hash(tiny_causal_lm()), communities)
        ...     policy = ModularPolicy(tiny_causal_lm(), tokenizer, pool)
        >>> weights = {"left": 3, "right": 1}
        >>> [p] = policy.answer_probabilities(["Parks or roads?"], [["Parks.", "Roads."]], weights)
        >>> p.shape, round(float(p.sum()), 6)
        ((2,), 1.0)
        >>> policy.speaker("people in towns", "Parks or roads?") in ("left", "right")
        True
    """

    def __init__(
        self,
        base: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        pool: CommunityPool,
        *,
        batch_size: int = 12,
        chat_template_kwargs: dict[str, Any] | None = None,
    ) -> None:
        self.pool = pool
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.chat_template_kwargs = chat_template_kwargs
        if not pool.communities:
            raise JuryError(f"no community in {str(pool.folder)!r}. Fix: train one with plural-rlhf communities.")
        self._base = BaseWeights(base)
        there = str(self._base.sha256())
        if pool.base_hash not in (None, there):
            raise JuryError(
                f"the communities in {str(pool.folder)!r} were trained on another base model than the one that was "
                f"given (weights {str(pool.base_hash)[:8]}, given {there[:8]}): on it their adapters mean nothing. "
                f"Fix: give {pool.base!r} as it was, or train the communities again."
            )
        self.model = _with_adapters(base, pool, self._base)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        base: str | Path | None = None,
        device: str | torch.device | None = None,
        **kwargs: Any,
    ) -> ModularPolicy:
        """Load the base model and the communities of a folder.

        Args:
            folder: Folder of the pool, see `CommunityPool`.
            base: Where the base model lies now; None: where it was.
            device: Device of the model; see `default_device` if None.
            **kwargs: `batch_size` and `chat_template_kwargs` of the policy.

        Raises:
            JuryError: No pool, no base model, or see the class.
        """
        pool = CommunityPool.read(folder)
        source = str(base or pool.base)
        try:
            tokenizer = AutoTokenizer.from_pretrained(source, padding_side="left", trust_remote_code=False)
            model = AutoModelForCausalLM.from_pretrained(source, dtype="float32", trust_remote_code=False)
        except (OSError, ValueError) as error:
            if fault := path_fault(source):
                raise JuryError(f"the base model of the communities cannot be loaded: {fault}.") from error
            raise JuryError(
                f"the base model of the communities in {str(folder)!r} cannot be loaded from {source!r} "
                f"({type(error).__name__}). Fix: pass base=, the folder in which it lies now."
            ) from error
        return cls(model.to(default_device() if device is None else device), tokenizer, pool, **kwargs)

    def community_probabilities(
        self, prompts: Sequence[Any], options: Sequence[Sequence[str]], *, progress: bool = False
    ) -> dict[str, list[np.ndarray]]:
        """Compute how each community answers: by its name, per prompt `(A,)` over the options, summing to one.

        Args:
            prompts: Strings or conversations.
            options: The offered answers of each prompt.
            progress: Whether to show a progress bar.
        """
        answers = {}
        for community in self.pool.communities:
            with self._speaking(community.key):
                answers[community.name] = self._probabilities(prompts, options, community.name, progress)
        return answers

    def answer_probabilities(
        self,
        prompts: Sequence[Any],
        options: Sequence[Sequence[str]],
        weights: WeightSpec = "prevalence",
        *,
        progress: bool = False,
    ) -> list[np.ndarray]:
        """Compute the distributional mode: the average of the communities' distributions, per prompt `(A,)`.

        Args:
            prompts: Strings or conversations.
            options: The offered answers of each prompt.
            weights: `"prevalence"`: the shares of the communities; `"flat"`: all alike, as published; the name of a
                community, which then answers alone; or weights by name.
            progress: Whether to show a progress bar.
        """
        shares = self.pool.weights(weights)
        of_communities = self.community_probabilities(prompts, options, progress=progress)
        return [shares @ np.stack(of_prompt) for of_prompt in zip(*of_communities.values(), strict=True)]

    def generate(
        self, prompts: Sequence[Any], weights: WeightSpec = "prevalence", *, number: int = 1, max_new_tokens: int = 64
    ) -> list[list[str]]:
        """Draw `number` texts per prompt from the mixture of the communities; weights as in `answer_probabilities`."""
        keys = [community.key for community in self.pool.communities]
        decoder = MixedDecoder(
            self.model, self.tokenizer, adapters=keys, chat_template_kwargs=self.chat_template_kwargs
        )
        contexts = [[prompt] * len(keys) for prompt in prompts]
        shares = self.pool.weights(weights)
        drawn = decoder.generate(contexts, shares, num_return_sequences=number, max_new_tokens=max_new_tokens)
        texts = [answer.text.strip() for answer in drawn]
        return [texts[start : start + number] for start in range(0, len(texts), number)]

    def speaker(self, who: str, question: str | Sequence[dict[str, str]]) -> str:
        """Return the name of the community that speaks for somebody: the steerable mode.

        A name of a community is that community. For anybody else the base model is asked, and the name to which it
        gives the highest probability per token is taken. No reply is searched for a name or a number.

        Args:
            who: Whom to speak for, e.g. `"rural"` or `"people over 60"`.
            question: The question.
        """
        names = self.pool.names
        if who in names:
            return who
        asked = WHO_SPEAKS.format(who=who, question=prompt_wording(freeze_prompt(question)))
        prompt = [{"role": "user", "content": f"{asked} {'; '.join(names)}?"}]
        lengths = [len(self.tokenizer(name, add_special_tokens=False)["input_ids"]) + 1 for name in names]
        with self._speaking(BASE):
            [p] = answer_probabilities(
                self.model,
                self.tokenizer,
                [prompt],
                [names],
                progress=False,
                chat_template_kwargs=self.chat_template_kwargs,
            )
        return names[int(np.argmax(np.log(np.maximum(p, 1e-300)) / lengths))]

    def comments(self, prompt: Any, *, max_new_tokens: int = 64) -> dict[str, str]:
        """Draw what each community has to say, by its name."""
        said = {}
        for community in self.pool.communities:
            with self._speaking(community.key):
                said[community.name] = self._text(prompt, max_new_tokens, sample=True)
        return said

    def overton(self, prompt: Any, *, max_new_tokens: int = 200, comment_tokens: int = 64) -> str:
        """Return the base model's answer after it has read a comment of every community: the Overton mode.

        Args:
            prompt: A string or a conversation.
            max_new_tokens: Longest answer.
            comment_tokens: Longest comment.
        """
        comments = self.comments(prompt, max_new_tokens=comment_tokens)
        lines = "\n".join(f"{name}: {' '.join(comment.split())}" for name, comment in comments.items())
        *before, last = as_messages(freeze_prompt(prompt))
        content = SUM_UP.format(question=last["content"], comments=lines)
        with self._speaking(BASE):
            return self._text([*before, {"role": "user", "content": content}], max_new_tokens, sample=False)

    def add(self, community: TrainedCommunity) -> None:
        """Add a community whose adapter lies in the folder of the pool; the others are not touched.

        Args:
            community: The community; its share counts beside the others', see `CommunityPool.shares`.
        """
        self.pool = self.pool.with_community(community)
        if community.key in self.model.peft_config:
            self.model.delete_adapter(community.key)
        _load(self.model, self.pool, community, self._base)
        self.pool.write()

    @contextmanager
    def _speaking(self, key: str) -> Iterator[None]:
        """Answer with an adapter, or as the base model."""
        with torch.no_grad(), evaluating(self.model):
            if key == BASE:
                with self.model.disable_adapter():
                    yield
            else:
                self.model.set_adapter(key)
                yield

    def _probabilities(
        self, prompts: Sequence[Any], options: Sequence[Sequence[str]], label: str, progress: bool
    ) -> list[np.ndarray]:
        found = answer_probabilities(
            self.model,
            self.tokenizer,
            prompts,
            options,
            batch_size=self.batch_size,
            description=label,
            progress=progress,
            chat_template_kwargs=self.chat_template_kwargs,
        )
        return [p / max(float(p.sum()), 1e-300) for p in found]

    def _text(self, prompt: Any, max_new_tokens: int, *, sample: bool) -> str:
        ends, pad = end_tokens(self.model, self.tokenizer), self.tokenizer.pad_token_id
        law = OWN_DISTRIBUTION if sample else {"do_sample": False}
        config = GenerationConfig(max_new_tokens=max_new_tokens, pad_token_id=pad, eos_token_id=ends, **law)
        ids = encode_prompt(prompt, self.tokenizer, self.chat_template_kwargs)
        [tokens], _ = generate_with_shared_prefix(self.model, [ids], config, pad, ends)
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return text.strip()


def _with_adapters(base: PreTrainedModel, pool: CommunityPool, weights: BaseWeights) -> PeftModel:
    first, *others = pool.communities
    _check_adapter(pool, first, weights)
    model = PeftModel.from_pretrained(base, pool.folder / first.key, adapter_name=first.key)
    for community in others:
        _load(model, pool, community, weights)
    return model


def _load(model: PeftModel, pool: CommunityPool, community: TrainedCommunity, weights: BaseWeights) -> None:
    _check_adapter(pool, community, weights)
    try:
        model.load_adapter(str(pool.folder / community.key), adapter_name=community.key)
    except (RuntimeError, ValueError) as error:
        raise JuryError(
            f"the adapter of {community.name!r} in {str(pool.folder / community.key)!r} does not fit the base model "
            f"{pool.base!r} ({str(error).splitlines()[0]}): it was trained on another one. Fix: train this community "
            "again on the base model of the others."
        ) from error


def _check_adapter(pool: CommunityPool, community: TrainedCommunity, weights: BaseWeights) -> None:
    """Raise if an adapter is of another base model: by its weights where they are noted, else by its name."""
    path = pool.folder / community.key
    try:
        trained_on = json.loads((path / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError) as error:
        raise JuryError(
            f"the community {community.name!r} has no adapter in {str(path)!r} ({type(error).__name__}). Fix: copy "
            "the whole folder again, or train the community again."
        ) from error
    if fault := weights.fault(path):
        raise JuryError(
            f"the adapter of {community.name!r} in {str(path)!r} does not go with the base model {pool.base!r}: "
            f"{fault}. Fix: train this community again on the base model of the others."
        )
    named_otherwise = trained_on and pool.base and Path(trained_on).name != Path(pool.base).name
    if named_otherwise and not weights.known(path):
        raise JuryError(
            f"the adapter of {community.name!r} was trained on the base model {trained_on!r}, and those of "
            f"{str(pool.folder)!r} on {pool.base!r}. Fix: train this community again on the base model of the others."
        )
