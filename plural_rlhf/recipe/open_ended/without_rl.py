"""Other ways from pi_0 to a policy than sampled training: candidates that are reranked or imitated, and DPO on pairs.

Knows nothing of measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from peft import PeftModel

from plural_rlhf.recipe.checkpoints import TrainingFolder
from plural_rlhf.recipe.config import RunConfig
from plural_rlhf.recipe.open_ended.measured_policies import POOL
from plural_rlhf.recipe.open_ended.plain_texts import candidate_rewards
from plural_rlhf.recipe.open_ended.policies import imitate, rows_to_imitate
from plural_rlhf.recipe.open_ended.prompts import OpenPrompt, training_prompts
from plural_rlhf.recipe.open_ended.rerank import RERANK_FILE, choose_candidate
from plural_rlhf.recipe.open_ended.samples import draw_from_pi_0
from plural_rlhf.recipe.trainings import (
    common_settings,
    deal_weights,
    load_base,
    load_policy,
    save_untrained,
    train_and_save,
)
from plural_rlhf.report.names import EVERYBODY
from plural_rlhf.report.results_policies import Budget, TrainingResults
from plural_rlhf.trainers.plural_dpo_config import PluralDPOConfig
from plural_rlhf.trainers.plural_dpo_trainer import PluralDPOTrainer
from reward_models.errors import JudgementError
from reward_models.judgements.records import Judgements
from reward_models.jury.protocol import ClusterScorer
from reward_models.jury.scorer import JuryScorer
from reward_models.seeds import seeded_rng
from reward_models.whole_file import write_json


__all__ = ["distil_candidates", "keep_pi_0", "train_dpo"]

TIE_PROPENSITY = 1.0
"""Of DPO on pairs with ties: a third of the comparisons of equal responses are ties."""
RERANKED = ("candidates", "candidate_pool", "rule", "rho", "beta")
"""Settings of `plural` by which texts are chosen."""


def keep_pi_0(config: RunConfig, start: Path, training: TrainingFolder) -> TrainingResults:
    """Copy pi_0, whose candidates are reranked, and write down how they are chosen."""
    base, tokenizer = load_base(config)
    results = save_untrained(PeftModel.from_pretrained(base, start), tokenizer, training)
    section = config.plural
    chosen = {name: section.model_dump(mode="json")[name] for name in RERANKED}
    write_json(training.policy / RERANK_FILE, {"mode": "rerank", **chosen})
    return results


def distil_candidates(
    config: RunConfig, prompts: Sequence[OpenPrompt], scorer: ClusterScorer, start: Path, training: TrainingFolder
) -> TrainingResults:
    """Train a policy from pi_0 on texts that are chosen among its candidates, under the weights they are chosen for.

    Every prompt has one pool of candidates, which pi_0 draws for the population; `plural.candidates` of it at random
    are those among which a text is chosen.

    Args:
        config: The run; steps, learning rate and texts per step (`prompts_per_step` times `num_generations`) are those
            of `plural.sampled`.
        prompts: Its prompts; only training prompts are used.
        scorer: The clusters, on one scale if the rule compares them.
        start: Folder of pi_0.
        training: Where the policy is saved.

    Raises:
        JudgementError: No candidate of a prompt came to its end.
    """
    section, sampled = config.plural, config.plural.sampled
    trained = training_prompts(prompts)
    asked = {EVERYBODY: scorer.prevalence}
    number = section.candidate_pool or POOL * section.candidates
    pool = draw_from_pi_0(config, start, scorer, trained, asked, number, "candidates to imitate", training.pieces)
    texts = [[s.text for s in pool if s.prompt == prompt.wording and s.ended and s.text] for prompt in trained]
    for prompt, of_prompt in zip(trained, texts, strict=True):
        if not of_prompt:
            raise JudgementError(
                f"no text of pi_0 in answer to {prompt.wording[:60]!r} came to its end within "
                f"{config.policy.max_new_tokens} tokens, so none can be imitated. Fix: raise policy.max_new_tokens."
            )

    def score(prompt: OpenPrompt, candidates: list[str]) -> list[list[float]]:
        return candidate_rewards(scorer, prompt, candidates).tolist()

    works = [partial(score, *of_prompt) for of_prompt in zip(trained, texts, strict=True)]
    rewards = [np.array(rows) for rows in training.pieces("rewards of candidates to imitate", works)]
    rng = seeded_rng(config.seed, "rows of candidates")
    per_step = sampled.prompts_per_step * sampled.num_generations
    dealt = deal_weights(
        len(trained), scorer, sampled.steps, per_step, rng, steering=section.steering, juries=config.juries
    )
    chosen = []
    for index, weights in dealt:
        some = rng.permutation(len(texts[index]))[: section.candidates]
        text = texts[index][some[choose_candidate(rewards[index][some], weights, section, rng)]]
        chosen.append(((trained[index], text), weights))
    model, tokenizer = load_policy(config, start)
    if not chosen:
        return save_untrained(model, tokenizer, training)
    rows = rows_to_imitate(chosen, scorer, rng)
    training.along = config.evaluate.along
    results = imitate(rows, sampled, per_step, config.seed, model, tokenizer, training, "plural")
    return results.model_copy(update={"budget": results.budget.model_copy(update={"generated_sequences": len(pool)})})


def train_dpo(
    config: RunConfig, pairs: Judgements, scorer: JuryScorer, start: Path, training: TrainingFolder
) -> TrainingResults:
    """Train a policy from pi_0 on the pairs of the judgements, each under a prompt that names its rater's cluster.

    Args:
        config: The run; steps and learning rate are those of `plural.sampled`, `num_generations` is pairs per step.
        pairs: Pairs of training raters on training prompts.
        scorer: The jury, which says how probably a rater is in each cluster.
        start: Folder of pi_0, which is the reference.
        training: Where the policy is saved.
    """
    sampled = config.plural.sampled
    model, tokenizer = load_policy(config, start)
    if sampled.steps == 0:
        return save_untrained(model, tokenizer, training)
    args = PluralDPOConfig(
        str(training.folder),
        beta=config.plural.beta,
        tie_propensity=TIE_PROPENSITY if (pairs.frame["choice"] == "tie").any() else 0.0,
        per_device_train_batch_size=sampled.num_generations,
        max_length=None,
        **common_settings(sampled, config.seed),
    )
    trainer = PluralDPOTrainer(model, None, args, pairs, processing_class=tokenizer, scorer=scorer)
    training.along = config.evaluate.along
    history, seconds = train_and_save(trainer, tokenizer, training, "plural", {"loss": "loss"})
    scored = 2 * sampled.steps * sampled.num_generations
    return TrainingResults(
        history=history, budget=Budget(steps=sampled.steps, scored_sequences=scored, seconds=seconds)
    )
