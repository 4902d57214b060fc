"""Time and memory of a whole optimizer step: `PluralGRPOTrainer`, which computes each prompt once, and `GRPOTrainer`.

Both train the same model with the same LoRA adapter, reference policy, batch and lengths, through `trainer.train()`:
generation, reward, reference, forward, backward and optimizer. A case such as 256x8 is a prompt of 256 tokens and
completions of 8, forced to their full length; a batch is one group of completions of one prompt, or several. The two
trainers step in turns within one process, so that other load on the machine affects both; a warm-up turn is dropped,
ratios are taken turn by turn, and their median and quartiles are reported. Peak memory is measured in a separate
process for each trainer: of the whole process on a CPU, of PyTorch on a GPU, where training is in bfloat16.

Expected, on SmolLM2-135M with groups of 16: 3 times TRL's speed or more at 256x8, 1.1 times at 64x64, not below 0.97
times at 8x256, where there is nothing to share; peak memory never above TRL's.

  python benchmarks/step_time.py --smoke
  python benchmarks/step_time.py --model smollm2-135m --json step_time.json
  python benchmarks/step_time.py --model smollm2-135m --cases 256x8 --prompts 4 --device cuda --json step_time.json
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from _common import add_device, device_of, environment, make_parser, print_table, row, write


__all__ = ["main"]

TRL, PLURAL = METHODS = ("trl", "plural")
CLUSTERS = ["most", "few"]


class LengthJury:
    """Two clusters: one likes long texts, one short texts. What it says does not change what a step costs."""

    cluster_names = CLUSTERS
    prevalence = (0.7, 0.3)

    def cluster_rewards(self, prompts: Any, completions: Any) -> Any:
        import torch

        length = torch.tensor([float(len(c)) for c in completions]) / 100
        return torch.stack([length, -length], dim=1)


def likes_length(completions: list[str], **columns: Any) -> list[float]:
    """The same jury's weighted mean."""
    return [(0.7 - 0.3) * len(c) / 100 for c in completions]


def make_prompts(tokenizer: Any, n: int, n_tokens: int, seed: int) -> list[str]:
    """Different texts of exactly `n_tokens` tokens: words that are one token each, drawn at random."""
    rng = random.Random(seed)
    special = len(tokenizer("")["input_ids"])
    words = [" a"] + [w for w in map(tokenizer.decode, range(len(tokenizer))) if w[:1] == " " and w[1:].isalpha()]
    prompts: list[str] = []
    while len(prompts) < n:
        text = "".join(rng.choices(words, k=n_tokens - special))
        if len(tokenizer(text)["input_ids"]) == n_tokens and text not in prompts:
            prompts.append(text)
    return prompts


def make_trainer(method: str, case: tuple[int, int], args: argparse.Namespace, folder: str) -> Any:
    """A trainer of which every `train()` takes one optimizer step."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer, PrinterCallback
    from trl import GRPOConfig, GRPOTrainer

    from plural_rlhf.policies.base_models import prepare_base_model
    from plural_rlhf.trainers import PluralGRPOConfig, PluralGRPOTrainer

    n_prompt, n_completion = case
    path = prepare_base_model(args.model, seed=args.seed)
    tokenizer = AutoTokenizer.from_pretrained(path)
    on_gpu = args.device == "cuda"
    settings = {
        "output_dir": folder,
        "max_steps": 1,
        "per_device_train_batch_size": args.prompts * args.group,
        "num_generations": args.group,
        "max_completion_length": n_completion,
        "beta": 1.0,
        "scale_rewards": "none",
        "learning_rate": 1e-6,
        "lr_scheduler_type": "constant",
        "activation_checkpointing": args.checkpointing,
        "model_init_kwargs": {"dtype": "bfloat16" if on_gpu else "float32"},
        "bf16": on_gpu,
        "use_cpu": not on_gpu,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": args.seed,
    }
    common = {
        "model": path,
        "train_dataset": Dataset.from_dict({"prompt": make_prompts(tokenizer, 4 * args.prompts, n_prompt, args.seed)}),
        "processing_class": tokenizer,
        "peft_config": LoraConfig(r=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
        "callbacks": [stopwatch()],
    }
    if method == TRL:
        trainer = GRPOTrainer(reward_funcs=likes_length, args=GRPOConfig(**settings), **common)
    else:
        trainer = PluralGRPOTrainer(reward_funcs=LengthJury(), args=PluralGRPOConfig(**settings), **common)
    trainer.remove_callback(PrinterCallback)
    # All completions of one length. Not a setting: ours refuses it, as such samples are not the policy's own.
    trainer.generation_config.min_new_tokens = n_completion
    return trainer


def stopwatch() -> Any:
    """A callback with the `seconds` of every optimizer step, from before its rollouts to after its update."""
    import torch
    from transformers import TrainerCallback

    def now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    class Stopwatch(TrainerCallback):
        def __init__(self) -> None:
            self.seconds: list[float] = []
            self.began = 0.0

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.began = now()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            self.seconds.append(now() - self.began)

    return Stopwatch()


def seconds_of(trainer: Any) -> list[float]:
    return next(c.seconds for c in trainer.callback_handler.callbacks if type(c).__name__ == "Stopwatch")


def time_case(case: tuple[int, int], args: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of the steps of both trainers, in turns, the first turn left out."""
    with tempfile.TemporaryDirectory() as folder:
        trainers = {method: make_trainer(method, case, args, folder) for method in METHODS}
        for turn in range(args.turns + 1):
            for method in METHODS if turn % 2 else METHODS[::-1]:
                trainers[method].train()
        return {method: seconds_of(trainer)[1:] for method, trainer in trainers.items()}


def peak_mib(method: str, case: tuple[int, int], args: argparse.Namespace) -> float:
    """Peak memory of two steps, in a process of its own."""
    command = [sys.executable, __file__, "--memory-of", method, "--cases", "x".join(map(str, case))]
    for name in ("model", "device", "group", "prompts", "seed"):
        command += [f"--{name}", str(getattr(args, name))]
    command += ["--checkpointing"] * args.checkpointing
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"measuring the memory of {method} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def own_peak_mib(method: str, case: tuple[int, int], args: argparse.Namespace) -> float:
    import torch

    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(method, case, args, folder)
        for _ in range(2):
            trainer.train()
    if args.device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    # Memory first: a new process counts the peak of the one that started it as its own.
    peaks = {case: {m: peak_mib(m, case, args) for m in METHODS} for case in args.cases} if args.memory else {}
    rows, lines = [], []
    for case in args.cases:
        name = "x".join(map(str, case))
        seconds = time_case(case, args)
        ratios = [t / p for t, p in zip(seconds[TRL], seconds[PLURAL], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        peak = peaks.get(case, {})
        for method in METHODS:
            quartiles = statistics.quantiles(seconds[method], n=4, method="inclusive")
            rows.append(
                row(
                    name,
                    method,
                    "step_seconds",
                    quartiles[1],
                    "s",
                    low=quartiles[0],
                    high=quartiles[2],
                    n=args.turns,
                    generated=args.prompts * args.group,
                )
            )
            if peak:
                rows.append(row(name, method, "peak_mib", peak[method], "MiB"))
        rows.append(row(name, PLURAL, "ratio_to_trl", middle, "times faster", low=low, high=high, n=args.turns))
        lines.append(
            [
                name,
                *(f"{statistics.median(seconds[m]):.3g}" for m in METHODS),
                f"{middle:.2f} [{low:.2f}, {high:.2f}]",
                *(f"{peak[m]:.0f}" if peak else "-" for m in METHODS),
            ]
        )
    header = ["prompt x completion", "trl, s", "plural, s", "x faster", "trl, MiB", "plural, MiB"]
    title = f"{args.model}: {args.prompts} x {args.group} completions a step, median and quartiles of {args.turns}"
    print_table(title, header, lines)
    return rows


def read_case(text: str) -> tuple[int, int]:
    parts = text.split("x")
    if len(parts) != 2 or not all(p.isdigit() and int(p) > 0 for p in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 256x8, prompt and completion tokens")
    return int(parts[0]), int(parts[1])


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--model", default="tiny", help="tiny (default), smollm2-135m, a path or a hub id")
    parser.add_argument(
        "--cases",
        type=read_case,
        nargs="+",
        default=[(256, 8), (64, 64), (8, 256)],
        metavar="PxC",
        help="tokens of prompt and completion (default: 256x8 64x64 8x256)",
    )
    parser.add_argument("--group", type=int, default=16, help="completions per prompt (default: 16)")
    parser.add_argument("--prompts", type=int, default=1, help="prompts per step (default: 1)")
    parser.add_argument("--turns", type=int, default=9, help="timed steps of each trainer (default: 9)")
    add_device(parser)
    parser.add_argument(
        "--checkpointing", action="store_true", help="turn on activation checkpointing in both trainers"
    )
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="do not measure memory")
    parser.add_argument("--memory-of", choices=METHODS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.turns < 2:
        parser.error(f"--turns is {args.turns}, and a spread needs at least 2")
    if args.smoke:
        args.model, args.cases, args.group, args.turns, args.memory = "tiny", [(64, 4)], 4, 2, False
    environment()
    args.device = device_of(parser, args.device, known=["cuda"])
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    if args.memory_of:
        print(json.dumps(own_peak_mib(args.memory_of, args.cases[0], args)))
        return
    started = time.perf_counter()
    rows = run(args)
    write(args, rows, started, model=args.model, device=args.device, interval="quartiles over turns")


if __name__ == "__main__":
    main()
