"""How each method of the collapse benchmark is set up and trained: stock TRL, and ours.

Every method starts from the same model, is shown the same prompts and asks the same jury. A policy's distance is
measured along the run, at the same numbers of batches for all. Knows nothing of tables or of which setting is best.

| method | what it is |
|---|---|
| `trl-grpo` | `trl.GRPOTrainer` as it comes, on the weighted mean of the clusters' rewards |
| `trl-grpo-tuned` | the same, reward scaling none, group or batch, beta from 0 to 2, with the other knobs of `knobs` |
| `trl-rloo` | `trl.RLOOTrainer` as it comes, on the weighted mean |
| `trl-rloo-same-beta` | the same with the temperature of our target |
| `trl-rloo-tuned` | the same, beta from .05 to 2, each batch used once or more often |
| `jury-rloo` | `trl.RLOOTrainer` with `JuryReward`: the two-line change |
| `plural` | `PluralGRPOTrainer`, which samples as much as they do |
| `plural-exact` | `PluralGRPOTrainer` with the column `support`: scores all answers, samples nothing |

The trainers of TRL are lent our way of drawing and scoring completions with each prompt computed once: their numbers
are the same to rounding, and tables of SmolLM2 take hours instead of days. `step_time.py` compares seconds.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _collapse.cases import Case, Problem, TableJury
from _collapse.scales import Scales, probabilities

from reward_models.whole_file import whole_folder


if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

__all__ = ["LABELS", "METHODS", "RATES", "Setting", "knobs", "make_start", "scales_of", "train"]

LABELS = {
    "reference": "before training",
    "trl-grpo": "GRPO, defaults",
    "trl-grpo-tuned": "GRPO, tuned",
    "trl-rloo": "RLOO, defaults",
    "trl-rloo-same-beta": "RLOO, our beta",
    "trl-rloo-tuned": "RLOO, tuned",
    "jury-rloo": "RLOO + JuryReward",
    "plural": "PluralGRPO, sampled",
    "plural-exact": "PluralGRPO, exact",
}
METHODS = tuple(LABELS)[1:]
RATES = {"tiny": (5e-4, 1e-3, 2e-3, 4e-3), "smollm2": (2e-4, 5e-4, 1e-3, 2e-3)}

STOCK = ("grpo", "rloo", "jury-rloo")  # trainers of TRL

MODELS = Path(__file__).resolve().parents[2] / ".cache" / "models"
START_RATES = {"tiny": 1e-2, "smollm2": 1e-3}
GRPO_BETAS = (0.0, 0.04, 0.2, 1.0, 2.0)
RLOO_BETAS = (0.05, 0.2, 1.0, 2.0)
ENTROPIES = (0.0, 0.01, 0.1)
LORA = {
    "r": 8,
    "lora_alpha": 16,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}


@dataclass(frozen=True)
class Setting:
    """One way to train a policy.

    Attributes:
        trainer: `"grpo"`, `"rloo"`, `"jury-rloo"`, `"plural"` or `"plural-exact"`.
        beta: Of the trainer, in logits.
        scale: GRPO's `scale_rewards`.
        iterations: How often each batch is used.
        learning_rate: Decays linearly to zero.
        entropy: GRPO's `entropy_coef`.
        ratio_kl: GRPO's `use_bias_correction_kl`: whether its KL term has the gradient of the KL.
        adam_beta1: Memory of the optimizer; `None` for the trainer's own.
    """

    trainer: str
    beta: float
    scale: str = "none"
    iterations: int = 1
    learning_rate: float = math.nan
    entropy: float = 0.0
    ratio_kl: bool = True
    adam_beta1: float | None = None

    def __str__(self) -> str:
        said = [self.trainer, f"beta {self.beta:g}"]
        if self.trainer == "grpo":
            said += [f"scale {self.scale}", f"KL term {'corrected' if self.ratio_kl else 'uncorrected'}"]
            said += [f"entropy {self.entropy:g}"] if self.entropy else []
        said += [] if self.adam_beta1 is None else [f"adam_beta1 {self.adam_beta1:g}"]
        return f"{', '.join(said)}, x{self.iterations}, lr {self.learning_rate:g}"


def knobs(method: str, case: Case) -> tuple[Setting, list[list[dict[str, Any]]]]:
    """What a method may choose from besides the learning rate.

    Returns:
        The likeliest setting, and the knobs: of each, the values it may have, as fields of `Setting`. A knob is
        one of several fields where these depend on one another.
    """
    again, most = case.iterations, case.most_iterations or case.iterations
    uses = [{"iterations": i} for i in sorted({again, most, 1})]
    memories = [{"adam_beta1": None}, {"adam_beta1": 0.9 if method == "plural-exact" else 0.5}]
    if method == "trl-grpo":
        return Setting("grpo", 0.0, "group", again), []
    if method == "trl-rloo":
        return Setting("rloo", 0.05, iterations=again), []
    if method == "trl-rloo-same-beta":
        return Setting("rloo", case.beta, iterations=again), []
    if method == "trl-grpo-tuned":
        betas = sorted({case.beta, *GRPO_BETAS})
        scaled = [{"beta": beta, "scale": "none"} for beta in betas]
        # Scaled rewards under next to no KL term are GRPO's default or nearly so.
        scaled += [{"beta": 0.0, "scale": "group"}]
        scaled += [{"beta": beta, "scale": scale} for scale in ("group", "batch") for beta in betas if beta >= 0.1]
        ratios = [{"ratio_kl": ratio} for ratio in (True, False)]
        entropies = [{"entropy": entropy} for entropy in ENTROPIES]
        return Setting("grpo", case.beta, iterations=again), [ratios, scaled, entropies, uses, memories]
    if method == "trl-rloo-tuned":
        betas = sorted({case.beta, *RLOO_BETAS})
        return Setting("rloo", case.beta, iterations=again), [[{"beta": beta} for beta in betas], uses, memories]
    setting = Setting(method, case.beta, iterations={"plural": most, "plural-exact": 1}.get(method, again))
    return setting, [] if method == "jury-rloo" else [memories]


def make_start(case: Case, folder: Path, seed: int, device: str) -> Path:
    """Makes the model that all methods start from, once, and keeps it in `folder`.

    A tiny model as a whole; SmolLM2 as a LoRA adapter. Prompts with a `start` are taught it in exact mode; the others
    leave the model as it is.

    Returns:
        The folder of the model or adapter; its tokenizer is with it.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from plural_rlhf import PluralGRPOConfig, PluralGRPOTrainer
    from plural_rlhf.policies.base_models import SMOLLM2, TINY, prepare_base_model

    problems = [dataclasses.replace(p, rewards=()) for p in (*case.problems, *case.tuning)]
    about = [case.model, seed, case.warmup_steps, START_RATES[case.model], [dataclasses.astuple(p) for p in problems]]
    start = folder / f"start-{case.model}-{hashlib.sha256(json.dumps(about).encode()).hexdigest()[:12]}"
    if start.exists():
        return start
    base = prepare_base_model(TINY if case.model == "tiny" else SMOLLM2, MODELS, seed=seed)
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(base, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(base, dtype="float32")
    if case.model != "tiny":
        model = get_peft_model(model, LoraConfig(**LORA, task_type="CAUSAL_LM"))
    taught = [dataclasses.replace(p, rewards=tuple((math.log(q),) for q in p.start)) for p in problems if p.start]
    if taught and case.warmup_steps:
        print(f"  the start of {case.name}: {case.warmup_steps} steps of exact mode, once", flush=True)
        batch = min(len(taught), 4)
        args = PluralGRPOConfig(
            exact=True,
            reference_power=0.0,
            adam_beta1=0.9,
            per_device_train_batch_size=batch,
            **_common(folder / "trainer", case.warmup_steps, START_RATES[case.model], seed, device),
        )
        jury = TableJury(taught, {"people": 1.0}, invalid=math.nan)
        trainer = _quiet(
            PluralGRPOTrainer(model, jury, args, _rows(taught, batch, exact=True), processing_class=tokenizer)
        )
        trainer.train()
        model = trainer.accelerator.unwrap_model(trainer.model)
    with whole_folder(start) as unfinished:
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
    return start


def scales_of(case: Case, problems: Sequence[Problem], start: Path, device: str) -> Scales:
    """What policies that come from this start are measured against."""
    from transformers import AutoModelForCausalLM

    model, tokenizer = _load(start)
    if isinstance(model, str):
        model = AutoModelForCausalLM.from_pretrained(model, dtype="float32")
    return Scales(case, problems, probabilities(model.to(device), tokenizer, problems))


def train(
    case: Case,
    setting: Setting,
    scales: Scales,
    start: Path,
    seed: int,
    device: str,
    scratch: Path,
    *,
    along: bool = True,
) -> dict[str, Any]:
    """Trains one policy on the problems of `scales`.

    Args:
        case: The jury and the budget.
        setting: How to train.
        scales: The prompts, and what the policy is measured against.
        start: The model that `make_start` made.
        seed: Of the sampling.
        device: `"cpu"`, or an accelerator as torch calls it.
        scratch: A folder for what the trainer writes.
        along: Whether the policy is measured along the run, too, and not only at its end.

    Returns:
        `final`: its metrics; `curve`: the same along the run, with `generated` and `scored`; `seconds`, without the
        measuring.
    """
    import torch
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    from plural_rlhf import JuryReward, PluralGRPOConfig, PluralGRPOTrainer
    from plural_rlhf.trainers._trl import share_prompts

    torch.manual_seed(seed)
    model, tokenizer = _load(start)
    problems, exact = scales.problems, setting.trainer == "plural-exact"
    prompts = min(case.groups, len(problems)) if exact else case.groups
    steps = case.exact_steps if exact else case.steps * setting.iterations
    common = _common(scratch, steps, setting.learning_rate, seed, device) | {"warmup_steps": case.rate_warmup}
    if setting.adam_beta1 is not None:
        common["adam_beta1"] = setting.adam_beta1
    sampled = {
        "num_generations": case.generations,
        "per_device_train_batch_size": case.generations * case.groups,
        "max_completion_length": _longest(tokenizer, problems),
        "num_iterations": setting.iterations,
        "beta": setting.beta,
    }
    ours = {"tie_margin": case.tie_margin}
    jury = TableJury(problems, case.weights, case.invalid)
    rows = _rows(problems, prompts, exact)
    trainer: Any
    if setting.trainer == "grpo":
        args = GRPOConfig(
            scale_rewards=setting.scale,
            entropy_coef=setting.entropy,
            use_bias_correction_kl=setting.ratio_kl,
            **common,
            **sampled,
        )
        trainer = GRPOTrainer(
            model, JuryReward(jury, rule="mean", check_trainer=False), args, rows, processing_class=tokenizer
        )
    elif setting.trainer in ("rloo", "jury-rloo"):
        mixed = (
            JuryReward(jury, beta=setting.beta)
            if setting.trainer == "jury-rloo"
            else JuryReward(jury, rule="mean", check_trainer=False)
        )
        args = RLOOConfig(**common, **sampled)
        trainer = RLOOTrainer(model, mixed, args, rows, processing_class=tokenizer)
    elif exact:
        args = PluralGRPOConfig(exact=True, per_device_train_batch_size=prompts, beta=setting.beta, **ours, **common)
        trainer = PluralGRPOTrainer(model, jury, args, rows, processing_class=tokenizer)
    else:
        args = PluralGRPOConfig(exact=False, reference_share=case.reference_share, **ours, **common, **sampled)
        trainer = PluralGRPOTrainer(model, jury, args, rows, processing_class=tokenizer)

    batch = case.generations * case.groups
    # Before its first step the exact mode scores every answer under the start.
    answers = sum(len(problem.answers) for problem in problems)
    per_step = answers / len(problems) * prompts if exact else batch
    curve: list[dict[str, Any]] = []
    looks = _looks(steps, setting.iterations, batch, case.read_at) if along else {steps}
    seconds = 0.0

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            nonlocal seconds
            if state.global_step not in looks:
                return
            began = time.perf_counter()
            policy = trainer.accelerator.unwrap_model(trainer.model)
            spent = {
                "generated": 0 if exact else state.global_step // setting.iterations * batch,
                "scored": round(state.global_step * per_step) + (answers if exact else 0),
            }
            curve.append({**spent, **scales.measure(probabilities(policy, tokenizer, problems))})
            seconds -= time.perf_counter() - began

    if setting.trainer in STOCK:
        share_prompts(trainer)
    trainer.add_callback(Watch())
    began = time.perf_counter()
    _quiet(trainer).train()
    return {"final": curve[-1], "curve": curve, "seconds": seconds + time.perf_counter() - began}


def _looks(steps: int, iterations: int, batch: int, read_at: Sequence[int]) -> set[int]:
    """Steps after which a policy is measured: ever rarer, at the end, and where the case asks for it."""
    batches = steps // iterations
    grown = {round(1.25**i) for i in range(1 + int(math.log(batches, 1.25)))}
    asked = {n // batch for n in read_at if 0 < n // batch <= batches}
    return {iterations * n for n in grown | asked | {batches}}


def _common(folder: Path, steps: int, learning_rate: float, seed: int, device: str) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "max_steps": steps,
        "learning_rate": learning_rate,
        "seed": seed,
        "shuffle_dataset": False,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "gradient_checkpointing": False,
        "bf16": device != "cpu",
        "use_cpu": device == "cpu",
        "dataloader_pin_memory": device != "cpu",
    }


def _rows(problems: Sequence[Problem], prompts: int, exact: bool) -> Dataset:
    """Every problem equally often, in batches of `prompts`; the exact mode also reads the answers."""
    from datasets import Dataset

    rows = [{"prompt": p.messages, **({"support": list(p.answers)} if exact else {})} for p in problems]
    return Dataset.from_list(rows * prompts * 8)


def _load(start: Path) -> tuple[Any, PreTrainedTokenizerBase]:
    """The start as trainers take it: the path of a whole model, or a model with its adapter."""
    from peft import PeftConfig, PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(start, padding_side="left")
    if not (start / "adapter_config.json").exists():
        return str(start), tokenizer
    base = PeftConfig.from_pretrained(start).base_model_name_or_path
    model = AutoModelForCausalLM.from_pretrained(base, dtype="float32")
    return PeftModel.from_pretrained(model, start, is_trainable=True), tokenizer


def _longest(tokenizer: PreTrainedTokenizerBase, problems: Sequence[Problem]) -> int:
    """Tokens that a completion may have: the longest answer, its end, and one to go wrong with."""
    answers = {answer for problem in problems for answer in problem.answers}
    return max(len(tokenizer(answer, add_special_tokens=False)["input_ids"]) for answer in answers) + 2


def _quiet(trainer: Any) -> Any:
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    return trainer
