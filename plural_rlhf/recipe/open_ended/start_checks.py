"""What spoils a run on texts and shows early: prompts that the model cannot read, a pi_0 that does not answer.

Knows the base model and its tokenizer; knows nothing of juries' rewards and of trainings.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from datasets import Dataset
from transformers import AutoConfig, AutoTokenizer

from plural_rlhf.evaluation.open_ended.drift import degeneracy
from plural_rlhf.policies.answers import encode_prompt
from plural_rlhf.policies.base_models import prepare_base_model
from plural_rlhf.recipe.config import ConfigError, RunConfig
from plural_rlhf.recipe.data import RunData
from plural_rlhf.recipe.jury import text_model
from plural_rlhf.recipe.open_ended.policies import sampled_arguments
from plural_rlhf.recipe.open_ended.prompts import OpenPrompt, training_prompts
from plural_rlhf.recipe.open_ended.samples import draw_from_pi_0
from plural_rlhf.report.names import EVERYBODY
from plural_rlhf.report.texts.findings import CURES, MOSTLY_BROKEN
from plural_rlhf.trainers.checks.given_completions import GIVEN_COLUMN, check_given
from plural_rlhf.weights.wording import POPULATION, steer_prompt
from reward_models.errors import JudgementWarning
from reward_models.judgements.text_kind import TextKind
from reward_models.judgements.texts import Prompt
from reward_models.jury.folder import load_config, load_state
from reward_models.jury.protocol import ClusterScorer
from reward_models.jury.scorer import JuryScorer
from reward_models.jury.state import JuryState


__all__ = [
    "check_imitated",
    "check_readers",
    "check_rendering",
    "check_sampled",
    "warn_of_broken_pi_0",
    "warn_of_other_texts",
]

PROMPTS, TEXTS = 4, 4
"""Pi_0 is tried on so many training prompts, with so many texts each."""
STEERING_TOKENS = 64
"""Room for the words that say whose answer is wanted, which name the clusters."""


def check_rendering(config: RunConfig, prompts: Sequence[OpenPrompt]) -> None:
    """Raise unless the chat template renders every prompt, and prompt and answer fit into the model.

    Args:
        config: The run.
        prompts: Its prompts.

    Raises:
        ConfigError: The template refuses a prompt, or a prompt is too long; the message names the first of each.
    """
    path = prepare_base_model(config.policy.model, config.policy.cache_dir, seed=config.seed)
    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    longest = getattr(AutoConfig.from_pretrained(path, trust_remote_code=False), "max_position_embeddings", None)
    faults = dict[str, str]()
    for prompt in prompts:
        try:
            length = len(encode_prompt(steer_prompt(prompt.messages, POPULATION), tokenizer, {}))
        except Exception as error:  # whatever a template of jinja raises
            faults.setdefault(
                "rendering",
                f"the chat template of {config.policy.model!r} cannot render the prompt {prompt.wording[:60]!r} after "
                f"a system message ({type(error).__name__}: {error}). Fix: correct the roles of its messages, or "
                "choose a model whose tokenizer has a chat template with system messages",
            )
            continue
        room = None if longest is None else longest - config.policy.max_new_tokens - STEERING_TOKENS
        if room is not None and length > room:
            faults.setdefault(
                "length",
                f"the prompt {prompt.wording[:60]!r} has {length:,} tokens, and {config.policy.model!r} reads "
                f"{longest:,}, of which {config.policy.max_new_tokens:,} are for the answer (policy.max_new_tokens) "
                f"and {STEERING_TOKENS} for the words that steer. Fix: shorten it, lower policy.max_new_tokens, or "
                "choose a model with a longer context",
            )
    if faults:
        raise ConfigError(config.name, list(faults.values()))


def check_sampled(config: RunConfig, prompts: Sequence[OpenPrompt], folder: Path) -> None:
    """Raise if settings of the sampled training exclude each other, or ask for texts that people did not write.

    Args:
        config: The run.
        prompts: Its prompts with what people wrote.
        folder: Folder of the run; nothing is written.

    Raises:
        ConfigError: The settings, why not, and the cure.
    """
    sampled = config.plural.sampled
    if config.plural.mode != "rl" or sampled.steps == 0:
        return
    trained = training_prompts(prompts)
    silent = [prompt.wording for prompt in trained if not prompt.given]
    if sampled.given_share > 0 and silent:
        raise ConfigError(
            config.name,
            [
                f"plural.sampled.given_share is {sampled.given_share:g}, and for {len(silent)} of {len(trained)} "
                f"training prompts there is no text of people that may be learnt from, e.g. {silent[0][:60]!r}. Fix: "
                "set data.written to texts for every prompt, or plural.sampled.given_share=0"
            ],
        )
    try:
        args = sampled_arguments(config, folder)
        if sampled.given_share > 0:
            check_given(Dataset.from_list([{GIVEN_COLUMN: list(prompt.given)} for prompt in trained]), args)
    except ValueError as error:
        raise ConfigError(config.name, [f"plural.sampled: {error}"]) from error


def check_imitated(config: RunConfig, texts: Mapping[Prompt, Iterable[str]]) -> None:
    """Raise unless pi_0 can imitate some text: one that is shorter than what policies write at most.

    Args:
        config: The run.
        texts: The texts, by prompt.

    Raises:
        ConfigError: None is short enough.
    """
    longest = config.policy.max_new_tokens
    if config.sft.steps == 0 or config.sft.texts == "none":
        return
    path = prepare_base_model(config.policy.model, config.policy.cache_dir, seed=config.seed)
    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    if not any(len(tokenizer(text)["input_ids"]) < longest for of in texts.values() for text in of):
        raise ConfigError(
            config.name,
            [
                f"none of the texts that pi_0 is to imitate has fewer than {longest} tokens. Fix: raise "
                "policy.max_new_tokens, or set sft.texts=none"
            ],
        )


def check_readers(config: RunConfig) -> None:
    """Raise if a model that only the evaluation reads texts with cannot be loaded: it is needed hours later.

    Args:
        config: The run.

    Raises:
        ConfigError: The setting, its value, and why.
    """
    faults = []
    for key in ("heldout_backbone", "embedder"):
        if (name := getattr(config.evaluate, key)) is None:
            continue
        try:
            AutoConfig.from_pretrained(text_model(config, name), trust_remote_code=False)
        except (OSError, ValueError) as error:
            faults.append(
                f"evaluate.{key} = {name!r}: the model cannot be loaded ({str(error).splitlines()[0]}). Fix: give the "
                "folder of a saved model or a Hub id that can be reached"
            )
    if faults:
        raise ConfigError(config.name, faults)


def warn_of_other_texts(config: RunConfig, data: RunData, prompts: Sequence[OpenPrompt]) -> None:
    """Warn if prompts or texts of files are of another kind than the judged texts that the jury knows.

    Args:
        config: The run.
        data: Its judgements; a jury is fitted to them unless the run names a saved one.
        prompts: Its prompts with what people wrote.

    Warns:
        JudgementWarning: In what they differ: language, script or length.
    """
    messages = [prompt.messages for prompt in prompts] if config.prompts.path is not None else []
    of_files = prompts if isinstance(config.data.written, Path) else ()
    written = [text for prompt in of_files for text in (*prompt.given, *prompt.compared)]
    if config.jury.objectives is not None or not (messages or written):
        return
    if config.jury.path is not None:
        name, state = str(config.jury.path), load_state(config.jury.path, load_config(config.jury.path))
    else:
        name, state = "of this run", JuryState(text_kind=TextKind.of(data.everything.encode().texts))
    state.warn_if_unlike_fitted(name, messages, written)


def warn_of_broken_pi_0(config: RunConfig, prompts: Sequence[OpenPrompt], scorer: ClusterScorer, start: Path) -> None:
    """Warn if most of a few texts of pi_0 are no answers, or unlike what the jury was fitted to: all start from it.

    Args:
        config: The run.
        prompts: Its prompts; a few training prompts are tried.
        scorer: The clusters and their prevalence.
        start: Folder of pi_0.

    Warns:
        JudgementWarning: The share that is empty, repetitive or truncated, and the cure; or in what they differ from
            the texts that the jury was fitted to.
    """
    some = training_prompts(prompts)[:PROMPTS]
    texts = draw_from_pi_0(config, start, scorer, some, {EVERYBODY: scorer.prevalence}, TEXTS, "trial of pi_0")
    faults = Counter(fault for text in texts if (fault := degeneracy(text.text, text.ended)) is not None)
    if faults.total() > MOSTLY_BROKEN * len(texts):
        [(most, _)] = faults.most_common(1)
        warnings.warn(
            f"of {len(texts)} texts that pi_0 wrote on trial {faults.total()} are no answers, most of them {most}, "
            f"and every policy starts from it. Fix: stop the run and {CURES[most]}.",
            JudgementWarning,
            stacklevel=2,
        )
    elif isinstance(scorer, JuryScorer):
        scorer.state.warn_if_unlike_fitted("of this run", (), [text.text for text in texts])
