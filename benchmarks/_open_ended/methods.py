"""How each method of `open_ended` is trained, and how its texts are drawn.

Every method starts from the same policy, is shown the same questions, asks the same jury and draws the same number of
completions; each trains a LoRA of its own. Knows nothing of how policies are measured.

| method | what it is |
|---|---|
| `reference` | the start: what people wrote, imitated |
| `plural` | `PluralGRPOTrainer`, sampled mode, with people's answers as given completions |
| `plural-prefixes` | the same without them, with `variance_reduction="prefix_rewards"` |
| `trl-grpo` | `trl.GRPOTrainer` as it comes, on the mean reward of the jury |
| `trl-grpo-tuned` | the same, reward scaling and beta tuned |
| `trl-rloo-tuned` | `trl.RLOOTrainer` on the mean reward, beta tuned |
| `dpo` | `trl.DPOTrainer` on the pairs that the jury's people compared; it draws nothing |
| `best-of-n` | of 8 texts of the start the one that the jury likes best on average |
| `prompting` | the start, asked to write what everybody can agree with |
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _open_ended.start import Start, prompt_of, quiet


if TYPE_CHECKING:
    from datasets import Dataset

    from plural_rlhf.evaluation.open_ended.samples import PolicySamples

__all__ = ["BEST_OF", "METHODS", "TRAINED", "Setting", "Trained", "candidates", "draw", "rows_of", "train"]

TRAINED = ("plural", "plural-prefixes", "trl-grpo", "trl-grpo-tuned", "trl-rloo-tuned", "dpo")
METHODS = (*TRAINED, "best-of-n", "prompting")
BEST_OF = 8
ASKED = "Say only what people on every side can agree with. "
LORA = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
PREFIXES = (("variance_reduction", "prefix_rewards"), ("given_share", 0.0))
BATCH = 32  # texts that are drawn at once


@dataclass(frozen=True)
class Setting:
    """How a policy is trained.

    Attributes:
        method: One of `TRAINED`.
        learning_rate: Decays linearly to zero.
        beta: Of the trainer; in logits, but of DPO, whose own it is.
        scale: GRPO's `scale_rewards`.
        more: Further settings of the trainer's configuration.
    """

    method: str
    learning_rate: float
    beta: float = 0.5
    scale: str = "none"
    more: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Trained:
    """A policy that was trained.

    Attributes:
        adapter: Folder of its LoRA.
        seconds: How long it took.
        generated: Completions that were drawn.
        curve: What the trainer logged, step by step.
    """

    adapter: Path
    seconds: float
    generated: int
    curve: list[dict[str, float]]


def candidates(method: str, beta: float, rates: Sequence[float]) -> list[Setting]:
    """Return the settings among which a method is tuned; one for those that are not tuned beyond the learning rate."""
    settings = {
        "plural": [Setting(method, math.nan, beta)],
        "plural-prefixes": [Setting(method, math.nan, beta, more=PREFIXES)],
        "trl-grpo": [Setting(method, math.nan, 0.0, "group")],
        "trl-grpo-tuned": [Setting(method, math.nan, b, s) for b in (0.0, 0.04, beta) for s in ("group", "none")],
        "trl-rloo-tuned": [Setting(method, math.nan, b) for b in (0.05, beta, 2 * beta)],
        "dpo": [Setting(method, math.nan, 0.1)],
    }[method]
    return [dataclasses.replace(setting, learning_rate=rate) for setting in settings for rate in rates]


def rows_of(start: Start, questions: Sequence[str], steps: int) -> Dataset:
    """Return one row per step, the questions in turn, with what people wrote."""
    from datasets import Dataset

    in_turn = [questions[n % len(questions)] for n in range(steps)]
    return Dataset.from_list([{"prompt": prompt_of(q), "given_completions": start.people[q]} for q in in_turn])


def train(
    start: Start, setting: Setting, questions: Sequence[str], steps: int, group: int, seed: int, folder: Path
) -> Trained:
    """Train a policy.

    Args:
        start: Where it starts.
        setting: How it is trained.
        questions: The questions that it is trained on.
        steps: Batches of one question.
        group: Completions per batch.
        seed: Of the sampling and of the adapter.
        folder: Where its LoRA is saved.
    """
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
    from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    from plural_rlhf import JuryReward, PluralGRPOConfig, PluralGRPOTrainer
    from plural_rlhf.trainers._trl import share_prompts

    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(start.policy, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(start.policy, dtype="float32")
    common = quiet(
        output_dir=str(folder), max_steps=steps, learning_rate=setting.learning_rate, lr_scheduler_type="linear",
        seed=seed, per_device_train_batch_size=group, logging_strategy="steps", logging_steps=1,
    )  # fmt: skip
    sampled = {
        "num_generations": group,
        "max_completion_length": start.size.tokens,
        "shuffle_dataset": False,
        "beta": setting.beta,
        **dict(setting.more),
    }
    rows = rows_of(start, questions, steps)
    shared: dict[str, Any] = {"processing_class": tokenizer, "peft_config": LoraConfig(**LORA)}
    mean = JuryReward(start.scorer, rule="mean", check_trainer=False)
    generated, trainer = steps * group, None
    if setting.method in ("plural", "plural-prefixes"):
        args = PluralGRPOConfig(**common, **sampled)
        args.max_steps *= args.num_iterations
        generated -= steps * (args.given_draws if args.given_share else 0)
        trainer = PluralGRPOTrainer(model, JuryReward(start.scorer, beta=setting.beta), args, rows, **shared)
    elif setting.method == "dpo":
        args = DPOConfig(beta=setting.beta, max_length=None, **common)
        trainer, generated = DPOTrainer(model, None, args, train_dataset=_pairs(start, questions), **shared), 0
    else:
        plain = rows.remove_columns("given_completions")
        if setting.method == "trl-rloo-tuned":
            trainer = RLOOTrainer(model, mean, RLOOConfig(**common, **sampled), plain, **shared)
        else:
            args = GRPOConfig(scale_rewards=setting.scale, **common, **sampled)
            trainer = GRPOTrainer(model, mean, args, plain, **shared)
        share_prompts(trainer)
    began = time.perf_counter()
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    seconds = time.perf_counter() - began
    trainer.save_model(str(folder))
    logged = [
        {name: v for name, v in step.items() if isinstance(v, int | float)} for step in trainer.state.log_history
    ]
    return Trained(folder, seconds, generated, logged)


def _pairs(start: Start, questions: Sequence[str]) -> Dataset:
    """The pairs on these questions that were decided, as DPO reads them."""
    from datasets import Dataset

    rows = start.pairs.frame
    rows = rows[rows["prompt"].isin(list(questions)) & (rows["choice"] != "tie")]
    chosen = rows["response_a"].where(rows["choice"] == "a", rows["response_b"])
    rejected = rows["response_b"].where(rows["choice"] == "a", rows["response_a"])
    prompts = [prompt_of(str(prompt)) for prompt in rows["prompt"]]
    return Dataset.from_dict({"prompt": prompts, "chosen": list(chosen), "rejected": list(rejected)})


def draw(
    start: Start, method: str, adapter: Path | None, questions: Sequence[str], n: int, seed: int
) -> PolicySamples:
    """Draw texts of a policy, with their log-probabilities under it and under the start.

    Args:
        start: The start.
        method: The policy; `best-of-n` and `prompting` are the start.
        adapter: Folder of its LoRA; None for the start.
        questions: What it is asked.
        n: Texts per question.
        seed: Of the sampling.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from plural_rlhf.evaluation.open_ended.samples import read_samples
    from reward_models.seeds import derived_seed

    tokenizer = AutoTokenizer.from_pretrained(start.policy, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(start.policy, dtype="float32").eval()
    policy = model if adapter is None else PeftModel.from_pretrained(model, adapter).eval()
    rows: list[dict[str, Any]] = []
    for place, question in enumerate(questions):
        torch.manual_seed(derived_seed(seed, f"texts of {method}", place))
        shown = tokenizer((ASKED if method == "prompting" else "") + prompt_of(question))["input_ids"]
        plain = tokenizer(prompt_of(question))["input_ids"]
        drawn: list[dict[str, Any]] = []
        number = n * BEST_OF if method == "best-of-n" else n
        for first in range(0, number, BATCH):
            size = min(BATCH, number - first)
            drawn += _some(start, policy, tokenizer, shown, plain, size, adapter is not None)
        if method == "best-of-n":
            drawn = _best(start, question, drawn)
        rows += [{"policy": method, "prompt": question, **text} for text in drawn]
    return read_samples(rows)[method]


def _some(
    start: Start, policy: Any, tokenizer: Any, shown: list[int], plain: list[int], n: int, adapted: bool
) -> list[dict[str, Any]]:
    """Draw `n` texts; of those that are not drawn as the start draws, score them under it."""
    import torch
    from transformers import GenerationConfig

    from plural_rlhf.policies.generation import generate_with_shared_prefix
    from plural_rlhf.policies.log_probs import completion_log_probs, pad_left

    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    config = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=start.size.tokens,
        pad_token_id=pad, eos_token_id=end,
    )  # fmt: skip
    tokens, log_probs = generate_with_shared_prefix(policy, [shown] * n, config, pad, [end])
    own = [sum(of) for of in log_probs]
    under_start = own
    if adapted or shown != plain:
        lengths = torch.tensor([len(ids) for ids in tokens])
        width = int(lengths.max())
        prompts, prompt_mask = pad_left([plain] * n, pad)
        columns = {
            "prompt_ids": prompts,
            "prompt_mask": prompt_mask,
            "completion_ids": torch.tensor([[*ids, *[pad] * (width - len(ids))] for ids in tokens]),
            "completion_mask": (torch.arange(width) < lengths[:, None]).long(),
        }
        with torch.no_grad(), policy.disable_adapter() if adapted else torch.no_grad():
            under_start = completion_log_probs(policy, columns).sum(-1).tolist()
    texts = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return [
        {
            "text": text.strip(),
            "log_prob": own[i],
            "reference_log_prob": under_start[i],
            "num_tokens": len(tokens[i]),
            "ended": tokens[i][-1] == end,
        }
        for i, text in enumerate(texts)
    ]


def _best(start: Start, question: str, drawn: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep of each `BEST_OF` texts the one with the highest mean reward; its probability is not known."""
    texts = [row["text"] if row["text"] else "." for row in drawn]
    r = start.scorer.cluster_rewards([prompt_of(question)] * len(texts), texts).double().numpy()
    best = (r @ start.scorer.prevalence).reshape(-1, BEST_OF).argmax(axis=1)
    kept = [drawn[n * BEST_OF + int(place)] for n, place in enumerate(best)]
    return [{**row, "log_prob": None, "reference_log_prob": None} for row in kept]
