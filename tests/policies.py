"""A tiny policy with known answers, and trainers on it: what the trainer tests share."""

from __future__ import annotations

import math

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM

from plural_rlhf.core.targets import PoolTarget
from plural_rlhf.policies.answers import answer_probabilities, encode_answers
from plural_rlhf.trainers import PluralGRPOConfig, PluralGRPOTrainer, _trl
from plural_rlhf.trainers.grpo.generation_batch import Rollouts
from tests.juries import CPU, TableJury
from tests.tiny import tiny_tokenizer


TOKENIZER = tiny_tokenizer()
THREE = ["1", "2", "3"]


def three_answers(calibrated: bool = False) -> TableJury:
    """Two clusters of weight .7 and .3 whose favourites are 1 and 3, by 4 logits; anything else is worth -6."""
    table = {"1": [4.0, 0.0], "2": [0.0, 0.0], "3": [0.0, 4.0]}
    return TableJury(table, ["left", "right"], [0.7, 0.3], otherwise=-6.0, calibrated=calibrated)


def rows(prompts: str, support: list[str] | None) -> Dataset:
    return Dataset.from_list([{"prompt": f"Item {c}: ", **({"support": support} if support else {})} for c in prompts])


def distribution(model, prompts: str, support: list[str]) -> torch.Tensor:
    """`(B, A)` probabilities of the answers, end token included."""
    texts = [f"Item {c}: " for c in prompts]
    found = answer_probabilities(model, TOKENIZER, texts, [support] * len(texts), progress=False)
    return torch.as_tensor(np.stack(found))


def spoken(answers: list[str]) -> list[list[int]]:
    """The completions that say just these answers, as tokens with their end."""
    return encode_answers(answers, TOKENIZER, TOKENIZER.eos_token_id)


def speaks(model, answers: list[str], asked: list[str] | None = None):
    """Returns what stands in for a draw of completions: `answers`, with their log-probabilities under `model`.

    The prompts that it is asked are added to `asked`, as texts.
    """

    def complete(trainer, prompt_ids):
        if asked is not None:
            asked.extend(TOKENIZER.decode(ids, skip_special_tokens=True) for ids in prompt_ids)
        ids = spoken(answers)
        assert len(prompt_ids) == len(ids)
        with torch.no_grad():
            own = [float(sequence_log_prob(model, p, c)) for p, c in zip(prompt_ids, ids, strict=True)]
        return ids, [[value, 0.0] for value in own]

    return complete


def pool_target(jury: TableJury, log_ref: torch.Tensor) -> torch.Tensor:
    """`(B, 3)` what training under the default target should end at, from `log_ref` of the three answers."""
    r = torch.tensor([[jury.table[a] for a in THREE]] * len(log_ref), dtype=torch.float64)
    return PoolTarget().log_probs(r, torch.as_tensor(jury.prevalence), log_ref).exp()


def js_with_other(p: torch.Tensor, q: torch.Tensor) -> float:
    """Jensen-Shannon divergence in nats, averaged over prompts; what `q` misses to one counts as another answer."""
    p = torch.cat([p, torch.zeros_like(p[..., :1])], -1)
    q = torch.cat([q, 1 - q.sum(-1, keepdim=True)], -1).clamp(min=0)
    m = (p + q) / 2
    kl = [torch.special.xlogy(x, x / m).nan_to_num().sum(-1) for x in (p, q)]
    return float((kl[0] + kl[1]).mean() / 2)


def train_exact(model, jury, data: Dataset, folder, steps: int, learning_rate: float = 1e-2, **settings):
    resume, evaluated = settings.pop("resume", None), settings.pop("eval_dataset", None)
    common = {**CPU, "per_device_train_batch_size": len(data), "lr_scheduler_type": "linear", **settings}
    args = PluralGRPOConfig(str(folder), exact=True, max_steps=steps, learning_rate=learning_rate, **common)
    trainer = PluralGRPOTrainer(model, jury, args, data, evaluated, processing_class=TOKENIZER)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def mixture(jury: TableJury, answers: list[str], weights=None) -> torch.Tensor:
    """`sum_k w_k softmax(r_k)`, written out."""
    p = torch.tensor([jury.table[a] for a in answers], dtype=torch.float64).softmax(0)
    return p @ torch.as_tensor(jury.prevalence if weights is None else weights, dtype=torch.float64)


def load(path: str):
    return AutoModelForCausalLM.from_pretrained(path, dtype="float32")


def sampled_trainer(policy, reward, folder, steps: int, **settings) -> PluralGRPOTrainer:
    common = {
        **CPU,
        "per_device_train_batch_size": 32,
        "num_generations": 16,
        "max_completion_length": 4,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "linear",
        **settings,
    }
    data, evaluated = common.pop("data", None), common.pop("eval_dataset", None)
    args = PluralGRPOConfig(str(folder), max_steps=steps, **common)
    return PluralGRPOTrainer(
        policy,
        reward,
        args,
        rows("ab", None) if data is None else data,
        rows(evaluated, None) if evaluated else None,
        processing_class=TOKENIZER,
    )


def rollouts_of(trainer: PluralGRPOTrainer) -> Rollouts:
    """The residuals of the latest training generation."""
    return trainer.sampled_mode.generations["train"].rollouts


def sequence_log_prob(model, prompt: list[int], completion: list[int]) -> torch.Tensor:
    logits = model(input_ids=torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1)[torch.arange(len(completion)), torch.tensor(completion)].sum()


def unpadded(ids, mask) -> list[list[int]]:
    return [row[keep.bool()].tolist() for row, keep in zip(ids, mask, strict=True)]


def perturbed(trainer) -> torch.nn.Module:
    """The trainer's policy, moved away from pi_ref so that every term of the residual counts."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return trainer.model.train()


def gradient(trainer, inputs) -> torch.Tensor:
    trainer.model.zero_grad()
    trainer.compute_loss(trainer.model, inputs).backward()
    return torch.cat([p.grad.flatten() for p in trainer.model.parameters()])


COEFFICIENTS = {
    "vargrad": lambda d: torch.stack([d[i] - (d.sum() - d[i]) / (len(d) - 1) for i in range(len(d))]),
    "tb": lambda d: d - d.exp().mean().log(),
    "fkl": lambda d: d.exp() / d.exp().mean() - 1,
    "js": lambda d: ((1 + d.exp() / d.exp().mean()).log() - math.log(2)) / 2,
}


def scripted_completions(trainer: PluralGRPOTrainer) -> None:
    """Makes every completion a function of the step and of its place in the batch of all processes."""

    def complete(trainer, prompt_ids):
        first = trainer.accelerator.process_index * len(prompt_ids)
        rng = np.random.default_rng(trainer.state.global_step)
        drawn = rng.integers(3, size=len(prompt_ids) * trainer.accelerator.num_processes)
        answers = [THREE[a] for a in drawn[first : first + len(prompt_ids)]]
        ids = spoken(answers)
        return ids, [[float("nan")] * len(row) for row in ids]

    _trl.generate = complete
