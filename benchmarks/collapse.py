"""What becomes of a minority: stock TRL beside plural_rlhf, on a problem small enough to know the exact answer.

A language model of 40,000 parameters picks a number from 0 to 10. At the start it answers as people do (seven is
ahead). Three clusters of raters, 60 %, 30 % and 10 % of the people, each like their own numbers by 8 logits more
than the rest. The exact target is the mixture of what each cluster would have by itself, so everybody's share is
known to the last digit.

Every method starts from the same model and jury and has the same budget for tuning: each learning rate of the grid is
tried with a seed of its own, the one that ends nearest to the exact target is kept (which is generous to a method that
never aims there), and the seeds that count are run with it. The sampled methods generate the same number of
completions; the exact mode takes half as many steps.

  grpo           trl.GRPOTrainer as it comes, on the weighted mean of the clusters' rewards
  grpo-tuned     the same with scale_rewards="none" and beta=1, the settings known to keep most
  rloo-mean      trl.RLOOTrainer with beta=1 on the weighted mean
  jury-rloo      trl.RLOOTrainer with beta=1 and JuryReward: the two-line change
  plural-exact   PluralGRPOTrainer with the column `support`: scores all answers, samples nothing

Reported: JS divergence to the exact target (nats), each cluster's share of the samples, coverage (mass on valid
answers), and what was spent. Intervals are 95 % t intervals over the seeds.

  python benchmarks/collapse.py --smoke                              under a minute, numbers mean little
  python benchmarks/collapse.py --json collapse.json                 the README's figure: some minutes on one core
  python benchmarks/draw_collapse.py collapse.json                   draws it
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _common import environment, interval, make_parser, print_table, row, write


__all__ = ["main"]

ANSWERS = [str(n) for n in range(11)]
PEOPLE = [0.02, 0.05, 0.07, 0.12, 0.10, 0.14, 0.09, 0.19, 0.10, 0.07, 0.05]  # the start: how people pick a number
CLUSTERS = {"low": range(0, 4), "middle": range(4, 8), "high": range(8, 11)}
WEIGHTS = {"low": 0.6, "middle": 0.3, "high": 0.1}
GAP = 8.0
PROMPT = [{"role": "user", "content": "Pick a number from 0 to 10."}]
LEARNING_RATES = (5e-4, 1e-3, 2e-3)
TUNING_SEED = 1000
GENERATIONS, GROUPS = 16, 4  # completions a prompt, prompts a step

METHODS = {
    "start": "before training",
    "grpo": "GRPO, defaults",
    "grpo-tuned": "GRPO, no scaling, beta 1",
    "rloo-mean": "RLOO beta 1, weighted mean",
    "jury-rloo": "RLOO beta 1 + JuryReward",
    "plural-exact": "PluralGRPOTrainer, exact",
}


class NumberJury:
    """A jury written by hand: each cluster gives its own numbers GAP logits, all others nothing."""

    cluster_names = tuple(CLUSTERS)

    def __init__(self) -> None:
        import numpy as np

        self.prevalence = np.array(list(WEIGHTS.values()))

    def cluster_rewards(self, prompts: Sequence[Any], completions: Sequence[Any]) -> Any:
        import torch

        texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
        liked = [[text.strip() in map(str, CLUSTERS[name]) for name in CLUSTERS] for text in texts]
        return GAP * torch.tensor(liked, dtype=torch.float32)


class PeopleJury:
    """What the start is trained on: one cluster, whose logits are how often people pick each number."""

    cluster_names = ("people",)

    def __init__(self) -> None:
        import numpy as np

        self.prevalence = np.ones(1)

    def cluster_rewards(self, prompts: Sequence[Any], completions: Sequence[Any]) -> Any:
        import torch

        texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
        return torch.tensor([[PEOPLE[int(text)]] for text in texts]).log()


def settings(folder: str, steps: int, learning_rate: float, seed: int) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "max_steps": steps,
        "learning_rate": learning_rate,
        "seed": seed,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
    }


def train(
    method: str, model: str, folder: str, steps: int, learning_rate: float, seed: int
) -> tuple[Any, dict[str, Any]]:
    """Trains one policy; returns it and what was spent."""
    import torch
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    from plural_rlhf import JuryReward, PluralGRPOConfig, PluralGRPOTrainer

    torch.manual_seed(seed)
    common = settings(folder, steps, learning_rate, seed)
    sampled = {
        "num_generations": GENERATIONS,
        "per_device_train_batch_size": GENERATIONS * GROUPS,
        "max_completion_length": 4,
    }
    rows = Dataset.from_list([{"prompt": PROMPT, "support": ANSWERS}] * 64)
    jury = NumberJury()
    mean, pool = JuryReward(jury, rule="mean"), JuryReward(jury, beta=1.0)
    if method == "start":
        args = PluralGRPOConfig(exact=True, reference_power=0.0, per_device_train_batch_size=2, **common)
        trainer = PluralGRPOTrainer(model, PeopleJury(), args, rows)
    elif method == "grpo":
        trainer = GRPOTrainer(model, mean, GRPOConfig(**common, **sampled), rows)
    elif method == "grpo-tuned":
        trainer = GRPOTrainer(model, mean, GRPOConfig(beta=1.0, scale_rewards="none", **common, **sampled), rows)
    elif method == "rloo-mean":
        trainer = RLOOTrainer(model, mean, RLOOConfig(beta=1.0, normalize_advantages=False, **common, **sampled), rows)
    elif method == "jury-rloo":
        trainer = RLOOTrainer(model, pool, RLOOConfig(beta=1.0, normalize_advantages=False, **common, **sampled), rows)
    else:
        args = PluralGRPOConfig(exact=True, per_device_train_batch_size=2, **common)
        trainer = PluralGRPOTrainer(model, jury, args, rows)
    trainer.remove_callback(PrinterCallback)
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start
    exact = method in ("start", "plural-exact")
    spent = {
        "generated": 0 if exact else steps * GENERATIONS * GROUPS,
        "scored": steps * 2 * len(ANSWERS) if exact else steps * GENERATIONS * GROUPS,
        "seconds": seconds,
    }
    return trainer, spent


class Scales:
    """The exact target, and every policy's distance from it."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        import torch

        from plural_rlhf.core.targets import PoolTarget, log_partition, responsibilities

        self.tokenizer = tokenizer
        log_pi_ref = torch.tensor(self.probabilities(model)).log()[None]
        rewards = NumberJury().cluster_rewards([PROMPT] * 11, ANSWERS).double()[None]
        self.weights = torch.tensor(list(WEIGHTS.values()), dtype=torch.float64)
        self.target = PoolTarget().log_probs(rewards, self.weights, log_pi_ref)[0].exp()
        self.gamma = responsibilities(rewards, self.weights, log_partition(rewards, log_pi_ref, 1.0)[:, None], 1.0)[0]

    def probabilities(self, model: Any) -> Any:
        from plural_rlhf.evaluation.answers import answer_probabilities

        return answer_probabilities(model, self.tokenizer, [PROMPT], [ANSWERS], progress=False)[0]

    def measure(self, model: Any) -> dict[str, Any]:
        import torch

        from plural_rlhf.core.shares import cluster_shares, retention
        from reward_models.stats import js_divergence

        pi = torch.tensor(self.probabilities(model))
        shares = cluster_shares(pi, self.gamma)
        # What a policy says outside the eleven numbers is distance too: one more answer, of target 0.
        q = torch.cat([pi, (1 - pi.sum()).clamp(min=0)[None]]).numpy()
        p = torch.cat([self.target, torch.zeros(1, dtype=torch.float64)]).numpy()
        return {
            "jsd_nats": float(js_divergence(p, q)),
            "coverage": float(pi.sum()),
            "retention": float(retention(shares, self.weights)),
            "shares": dict(zip(CLUSTERS, shares.tolist(), strict=True)),
            "probabilities": pi.tolist(),
        }


def tidy(
    method: str, runs: list[dict[str, Any]], spent: list[dict[str, Any]], rate: float | None
) -> list[dict[str, Any]]:
    more = {"learning_rate": rate}
    if spent:
        more |= {"generated": spent[0]["generated"], "scored": spent[0]["scored"]}
        more["seconds"] = sum(s["seconds"] for s in spent) / len(spent)
    columns: list[tuple[dict[str, Any], str, str, list[float]]] = [
        ({}, metric, unit, [run[metric] for run in runs])
        for metric, unit in (("jsd_nats", "nats"), ("coverage", "probability"), ("retention", "share of own weight"))
    ]
    columns += [
        ({"cluster": name, "wanted": WEIGHTS[name]}, "share", "probability", [run["shares"][name] for run in runs])
        for name in CLUSTERS
    ]
    columns += [
        ({"answer": answer}, "probability", "probability", [run["probabilities"][i] for run in runs])
        for i, answer in enumerate(ANSWERS)
    ]
    out = []
    for labels, metric, unit, values in columns:
        value, low, high = interval(values)
        out.append(row("clusters", method, metric, value, unit, low=low, high=high, n=len(values), **labels, **more))
    return out


def run(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    from plural_rlhf.base_models import prepare_base_model

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    scratch = str(folder / "trainer")
    base = prepare_base_model("tiny", folder, seed=args.seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    start = str(folder / "start")
    trainer, _ = train("start", base, scratch, args.start_steps, 3e-3, args.seed)
    trainer.model.save_pretrained(start)
    tokenizer.save_pretrained(start)
    scales = Scales(AutoModelForCausalLM.from_pretrained(start), tokenizer)

    rows = [
        row("clusters", "target", "probability", p, "probability", answer=answer)
        for answer, p in zip(ANSWERS, scales.target.tolist(), strict=True)
    ]
    gamma = scales.gamma.T @ scales.target
    rows += [
        row("clusters", "target", "share", float(s), "probability", cluster=name, wanted=WEIGHTS[name])
        for name, s in zip(CLUSTERS, gamma, strict=True)
    ]
    rows += tidy("start", [scales.measure(AutoModelForCausalLM.from_pretrained(start))], [], None)

    def once(method: str, rate: float, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
        steps = args.steps if method != "plural-exact" else max(2, args.steps // 2)
        trainer, spent = train(method, start, scratch, steps, rate, seed)
        found = scales.measure(trainer.model)
        print(
            f"  {method:13} lr {rate:g} seed {seed}: JS {found['jsd_nats']:.4f}  {spent['seconds']:.0f} s", flush=True
        )
        return found, spent

    lines = []
    for method in [m for m in METHODS if m != "start"]:
        grid = args.learning_rates if len(args.learning_rates) > 1 else []  # one rate leaves nothing to choose
        tried = {rate: once(method, rate, TUNING_SEED)[0]["jsd_nats"] for rate in grid}
        rate = min(tried, key=tried.__getitem__) if tried else args.learning_rates[0]
        results = [once(method, rate, args.seed + s) for s in range(args.seeds)]
        found, spent = [r[0] for r in results], [r[1] for r in results]
        rows += tidy(method, found, spent, rate)
        rows += [
            row("clusters", method, "jsd_nats_tuning", value, "nats", learning_rate=lr) for lr, value in tried.items()
        ]
    for method, label in METHODS.items():
        own = [r for r in rows if r["method"] == method]
        value = {r["metric"]: r for r in own if "cluster" not in r and "answer" not in r}
        shares = [r["value"] for r in own if r["metric"] == "share"]
        js, spent_row = value["jsd_nats"], own[0]
        lines.append(
            [
                label,
                f"{js['value']:.4f}" + (f" [{js['ci_low']:.4f}, {js['ci_high']:.4f}]" if js["n"] > 1 else ""),
                *(f"{share:.1%}" for share in shares),
                f"{value['coverage']['value']:.3f}",
                f"{spent_row.get('generated', 0):,}",
                f"{spent_row.get('scored', 0):,}",
                f"{spent_row.get('seconds', 0):.0f}",
            ]
        )
    header = ["method", "JS to target, nats", *(f"{k} (aim {w:.0%})" for k, w in WEIGHTS.items())]
    title = f"{args.seeds} seeds, learning rate chosen from {len(args.learning_rates)} for every method"
    print_table(title, [*header, "coverage", "generated", "scored", "seconds"], lines)
    return rows


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--seeds", type=int, default=3, help="runs that count, per method (default: 3)")
    parser.add_argument("--steps", type=int, default=120, help="steps of the sampled methods (default: 120)")
    parser.add_argument("--start-steps", type=int, default=300, help="steps that make the start (default: 300)")
    parser.add_argument(
        "--learning-rates",
        type=float,
        nargs="+",
        default=list(LEARNING_RATES),
        help="the grid, the same for every method",
    )
    args = parser.parse_args()
    if args.smoke:
        args.seeds, args.steps, args.start_steps, args.learning_rates = 1, 30, 150, [2e-3]
    environment()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        rows = run(args, Path(folder))
    about = {
        "prompt": PROMPT[0]["content"],
        "weights": WEIGHTS,
        "clusters": {name: [str(n) for n in numbers] for name, numbers in CLUSTERS.items()},
        "gap_logits": GAP,
        "labels": METHODS,
        "learning_rates": args.learning_rates,
        "tuning_seed": TUNING_SEED,
        "interval": "95 % t interval over seeds",
    }
    write(args, rows, started, **about)


if __name__ == "__main__":
    main()
