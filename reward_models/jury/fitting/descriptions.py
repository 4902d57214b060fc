"""One sentence on each cluster, written by a language model from the judgements that set the cluster apart.

The judgements stay beside the sentence, because a language model may say what they do not: `SENTENCE [a language
model's words for: judgements]`. Knows nothing of how clusters were found.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from reward_models.analysis.text_contrasts import plain_line
from reward_models.borders import path_fault
from reward_models.errors import JuryError
from reward_models.inference import evaluating
from reward_models.progress import track


__all__ = ["describe_with_model", "judgements_behind"]

QUESTION = (
    "People judged texts or answered questions. These answers are more frequent in one group of them than among all:\n"
    "{answers}\nSay in one short sentence what this group wants."
)
MARK = " [a language model's words for: "
MAX_NEW_TOKENS = 48
MOST_LETTERS = 200


def judgements_behind(description: str) -> str:
    """Return the judgements behind a description, without a sentence that a model wrote before.

    Example:
        >>> judgements_behind("They want parks. [a language model's words for: parks: yes (90% of them, 60% of all)]")
        'parks: yes (90% of them, 60% of all)'
        >>> judgements_behind("parks: yes")
        'parks: yes'
    """
    _, mark, behind = description.partition(MARK)
    return behind.removesuffix("]") if mark else description


def describe_with_model(
    descriptions: Mapping[str, str],
    model: str | Path | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> dict[str, str]:
    """Put a sentence of a language model before the judgements that set each cluster apart.

    The model is asked once per cluster, in its chat template if it has one, and answers with its most probable words.

    Args:
        descriptions: Judgements by name of the cluster, as `JuryState.descriptions` has them.
        model: Path, hub id or a causal language model.
        tokenizer: Tokenizer of a model that is given as one.

    Returns:
        The same names with a sentence and the judgements; the judgements alone where the model wrote nothing.

    Raises:
        JuryError: No judgements to describe, or no language model there.

    Warns:
        UserWarning: The model wrote nothing readable of a cluster.

    Example:
        >>> from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
        >>> answers = {"parks: yes": "parks: yes (90% of them, 60% of all)"}
        >>> described = describe_with_model(answers, tiny_causal_lm(), tiny_tokenizer())["parks: yes"]
        >>> judgements_behind(described)  # before it stand the words of the model
        'parks: yes (90% of them, 60% of all)'
    """
    behind = {name: judgements_behind(text) for name, text in descriptions.items() if text}
    if not behind:
        raise JuryError(
            "no cluster of the jury has judgements that set it apart, so there is nothing to describe. Fix: fit a "
            "jury of several clusters with fit_jury, which stores them."
        )
    if not isinstance(model, PreTrainedModel):
        try:
            tokenizer = tokenizer or AutoTokenizer.from_pretrained(str(model), trust_remote_code=False)
            model = AutoModelForCausalLM.from_pretrained(str(model), dtype="float32", trust_remote_code=False)
        except (OSError, ValueError) as error:
            if fault := path_fault(model):
                raise JuryError(f"the language model cannot be loaded: {fault}.") from error
            raise JuryError(
                f"no causal language model at {str(model)!r} that can describe clusters. Fix: give the path or Hub id "
                "of one that writes text, such as a chat model; a sentence embedder does not."
            ) from error
    if tokenizer is None:
        raise JuryError(f"the model is a {type(model).__name__} without its tokenizer. Fix: pass tokenizer=.")
    described = {}
    for name, answers in track(behind.items(), "describing the clusters", len(behind)):
        sentence = _sentence(answers, model, tokenizer)
        if not sentence:
            warnings.warn(
                f"the language model wrote nothing readable of the cluster {name!r}, which keeps its judgements as "
                "description. A larger model, or one for chat, may do better.",
                UserWarning,
                stacklevel=2,
            )
        described[name] = f"{sentence}{MARK}{answers}]" if sentence else answers
    return described


def _sentence(answers: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """Ask the model about one cluster; the first sentence of its answer, in one line."""
    question = QUESTION.format(answers="\n".join(f"- {answer}" for answer in answers.split("; ")))
    if tokenizer.chat_template is None:
        text = f"{question}\nAnswer: This group wants"
    else:
        messages = [{"role": "user", "content": question}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt", return_token_type_ids=False)
    inputs = inputs.to(model.device)
    end = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    with evaluating(model), torch.no_grad():
        written = model.generate(**inputs, do_sample=False, max_new_tokens=MAX_NEW_TOKENS, pad_token_id=end)
    answer = tokenizer.decode(written[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    if tokenizer.chat_template is None and answer:
        answer = f"This group wants {answer}"
    first = re.split(r"(?<=[.!?])\s|\n", answer, maxsplit=1)[0].replace(MARK.strip(), "")
    return plain_line(first, MOST_LETTERS).strip()
