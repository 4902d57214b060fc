"""One policy for all weights: how near a steerable policy comes to the exact target of each.

A language model of 40,000 parameters that picks a number as people do is trained once, under weights over three
clusters of raters that change with every prompt and are written in the prompt. Then it is evaluated under 28 weights
(the simplex in steps of a sixth; none was singled out in training), and its distribution is computed exactly.

  start            the model before training: it has never seen the words that state weights
  plural           PluralGRPOTrainer, exact mode, the mixture under each w; weights in reserved tokens
  plural-words     the same with weights in words ("66% low, 17% high, 17% middle"), nothing added to the vocabulary
  weighted-mean    as plural, but towards the weighted mean of the rewards (rho=0), as other steerable policies are
  mixed-decoding   no training for mixtures: the three one-cluster answers of `plural`, mixed while decoding

Reported, with 95 % t intervals over the seeds:

  jsd_nats         JS divergence to the exact mixture p_w, anything but the 11 numbers counted as one more answer: mean
                   over the 28 weights; jsd_nats_max is the worst of them, jsd_nats_at each
  spearman         rank correlation of a cluster's weight with its expected reward, per cluster; spearman_min is
                   the least; at most .98, because weights are tied and rewards are not
  hypervolume      volume dominated by the 28 vectors of expected rewards, as a fraction of that of the exact
                   targets (from reward 0: a cluster never gets a number of its own); above 1 is off the target too
  coverage_min     the least probability of the 11 numbers together

  python benchmarks/steering.py --smoke                         under a minute, numbers mean little
  python benchmarks/steering.py --json steering.json            half an hour on one core
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

from _collapse.cases import Case, Problem, TableJury, load_case
from _collapse.methods import make_start
from _collapse.scales import probabilities, with_other
from _common import add_device, device_of, environment, interval, make_parser, print_table, row, write


__all__ = ["main"]

METHODS = {
    "start": "before training",
    "plural": "steerable mixture, tokens",
    "plural-words": "steerable mixture, words",
    "weighted-mean": "steerable weighted mean, tokens",
    "mixed-decoding": "three clusters mixed while decoding",
}
UNITS = {
    "jsd_nats": "nats",
    "jsd_nats_max": "nats",
    "spearman_min": "correlation",
    "hypervolume": "share of exact",
    "coverage_min": "probability",
}
AIMS = {"jsd_nats_max": ("at most", 0.01), "spearman_min": ("at least", 0.95), "hypervolume": ("at least", 0.95)}
STEPS_OF_SIMPLEX = 6


def lattice(k: int) -> Any:
    """All weightings over three clusters in steps of a `k`-th, `(28, 3)` for sixths."""
    import numpy as np

    return np.array([(i, j, k - i - j) for i in range(k + 1) for j in range(k + 1 - i)]) / k


class Scales:
    """The exact targets at all weightings, and a policy's distance from them.

    Args:
        case: The jury.
        problem: The prompt.
        start: `(A,)` probabilities of its answers under the start, which is π₀.
    """

    def __init__(self, case: Case, problem: Problem, start: Any) -> None:
        import torch

        from plural_rlhf.core.targets import PoolTarget

        self.grid = lattice(STEPS_OF_SIMPLEX)
        texts = [*problem.answers, ""]  # the last one stands for anything that is no answer
        self.rewards = TableJury([problem], case.weights, case.invalid).cluster_rewards(
            [problem.prompt] * len(texts), texts
        )
        rewards = self.rewards.double().expand(len(self.grid), -1, -1)
        log_pi_ref = torch.tensor(with_other(start)).log().expand(len(self.grid), -1)
        self.targets = PoolTarget().log_probs(rewards, torch.tensor(self.grid), log_pi_ref).exp().numpy()
        self.names = list(case.weights)
        self.volume = self._volume(self.targets)

    def measure(self, policy: Any) -> dict[str, Any]:
        """All metrics of a policy, given as `(28, A)` probabilities of the answers at each weighting."""
        import numpy as np
        from scipy.stats import spearmanr

        from reward_models.stats.answers import js_divergence

        pi = np.stack([with_other(p) for p in policy])
        jsd = js_divergence(self.targets, pi)
        achieved = pi @ self.rewards.double().numpy()
        # A policy that does not listen at all has no ranks to correlate.
        ranks = [
            0.0 if np.ptp(got) == 0 else float(spearmanr(wanted, got).statistic)
            for wanted, got in zip(self.grid.T, achieved.T, strict=True)
        ]
        return {
            "jsd_nats": float(jsd.mean()),
            "jsd_nats_max": float(jsd.max()),
            "spearman_min": min(ranks),
            "hypervolume": self._volume(pi) / self.volume,
            "coverage_min": float(policy.sum(axis=1).min()),
            "jsd_nats_at": jsd.tolist(),
            "spearman": dict(zip(self.names, ranks, strict=True)),
        }

    def _volume(self, pi: Any) -> float:
        from plural_rlhf.evaluation.steerable.pareto import hypervolume

        return hypervolume(pi @ self.rewards.double().numpy(), [0.0] * len(self.names))


def train(method: str, case: Case, start: Path, folder: Path, args: argparse.Namespace, seed: int) -> tuple[Any, Any]:
    """Trains one steerable policy; returns its `Steerer` and what was spent."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback

    from plural_rlhf import PluralGRPOConfig, PluralGRPOTrainer
    from plural_rlhf.policies.steerer import Steerer
    from plural_rlhf.weights.sampler import WeightSampler

    torch.manual_seed(seed)
    problem = case.problems[0]
    jury = TableJury([problem], case.weights, case.invalid)
    tokenizer = AutoTokenizer.from_pretrained(start, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(start, dtype="float32")
    rendering = "text" if method in ("start", "plural-words") else "tokens"
    # The population is one weighting among others here, so it needs no share of its own. Of the 28 weightings 18 leave
    # somebody out, which a uniform Dirichlet hardly ever does: hence a concentration below 1.
    sampler = WeightSampler(
        jury.cluster_names,
        jury.prevalence,
        args.concentration,
        vertex_share=0.1,
        prevalence_share=0.0,
        seed=seed,
        rendering=rendering,
        levels=args.levels,
    )
    sampler.prepare(model, tokenizer)
    steps = 0 if method == "start" else args.steps * (args.words_factor if method == "plural-words" else 1)
    began = time.perf_counter()
    if steps:
        config = PluralGRPOConfig(
            str(folder),
            exact=True,
            rho=0.0 if method == "weighted-mean" else 1.0,
            per_device_train_batch_size=args.batch,
            max_steps=steps,
            learning_rate=args.learning_rate,
            warmup_steps=min(10, steps // 4),
            seed=seed,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            gradient_checkpointing=False,
            use_cpu=args.device == "cpu",
            bf16=args.device != "cpu",
        )
        rows = Dataset.from_list([{"prompt": problem.messages, "support": list(problem.answers)}] * args.batch)
        trainer = PluralGRPOTrainer(model, jury, config, rows, processing_class=tokenizer, weight_sampler=sampler)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        model = trainer.accelerator.unwrap_model(trainer.model)
    spent = {
        "steps": steps,
        "generated": 0,
        "scored": steps * args.batch * len(problem.answers),
        "seconds": time.perf_counter() - began,
    }
    steerer = Steerer(model, tokenizer, jury.cluster_names, jury.prevalence, rendering, levels=args.levels)
    return steerer, spent


def tidy(method: str, runs: list[dict[str, Any]], spent: list[dict[str, Any]], grid: Any) -> list[dict[str, Any]]:
    columns: list[tuple[dict[str, Any], str, str, list[float]]] = [
        ({}, metric, unit, [run[metric] for run in runs]) for metric, unit in UNITS.items()
    ]
    columns += [
        ({"cluster": name}, "spearman", "correlation", [run["spearman"][name] for run in runs])
        for name in runs[0]["spearman"]
    ]
    columns += [
        ({f"weight_{n}": float(w) for n, w in zip(runs[0]["spearman"], weights, strict=True)}, "jsd_nats_at", "nats",
         [run["jsd_nats_at"][i] for run in runs])
        for i, weights in enumerate(grid)
    ]  # fmt: skip
    more = {name: spent[0][name] for name in ("steps", "generated", "scored")}
    more["seconds"] = sum(s["seconds"] for s in spent) / len(spent)
    out = []
    for labels, metric, unit, values in columns:
        value, low, high = interval(values)
        out.append(row("steering", method, metric, value, unit, low=low, high=high, n=len(values), **labels, **more))
    return out


def run(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    import numpy as np
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    case = load_case("jury-gap8")
    case = dataclasses.replace(case, warmup_steps=args.start_steps)
    problem = case.problems[0]
    found: dict[str, list[dict[str, Any]]] = {method: [] for method in args.methods}
    spent: dict[str, list[dict[str, Any]]] = {method: [] for method in args.methods}
    for seed in range(args.seed, args.seed + args.seeds):
        start = make_start(case, folder, seed, args.device)
        tokenizer = AutoTokenizer.from_pretrained(start)
        (pi_ref,) = probabilities(AutoModelForCausalLM.from_pretrained(start, dtype="float32"), tokenizer, [problem])
        scales = Scales(case, problem, pi_ref)

        steerers = {}
        for method in args.methods:
            if method == "mixed-decoding":
                alone = steerers["plural"].answer_probabilities(problem.messages, problem.answers, np.eye(3))
                # What `decoding.MixedDecoder` samples from, in closed form: Σ_k w_k π(y | x, k).
                policy, cost = scales.grid @ np.stack(alone), spent["plural"][-1]
            else:
                steerers[method], cost = train(method, case, start, folder / "trainer", args, seed)
                policy = np.stack(
                    steerers[method].answer_probabilities(problem.messages, problem.answers, scales.grid)
                )
            result = scales.measure(policy)
            found[method].append(result)
            spent[method].append(cost)
            print(
                f"  {method:14} seed {seed}: JS {result['jsd_nats']:.4f}, worst {result['jsd_nats_max']:.4f}  "
                f"{cost['seconds']:.0f} s",
                flush=True,
            )
    rows = [r for method in args.methods for r in tidy(method, found[method], spent[method], scales.grid)]
    show(rows, args)
    return rows


def show(rows: list[dict[str, Any]], args: argparse.Namespace) -> None:
    value = {(r["method"], r["metric"]): r for r in rows if r["metric"] in UNITS}
    lines = []
    for method in args.methods:
        cells = [value[method, metric] for metric in UNITS]
        lines.append(
            [
                METHODS[method],
                *(f"{c['value']:.4f}" for c in cells),
                f"{cells[0]['scored']:,}",
                f"{cells[0]['seconds']:.0f}",
            ]
        )
    title = f"28 weightings, {args.seeds} seeds"
    print_table(title, ["method", *UNITS, "scored", "seconds"], lines)
    for method in [m for m in ("plural", "plural-words") if m in args.methods]:
        for metric, (kind, bound) in AIMS.items():
            got = value[method, metric]["value"]
            reached = got <= bound if kind == "at most" else got >= bound
            print(f"{method}: {metric} {got:.4f}, wanted {kind} {bound}: {'reached' if reached else 'MISSED'}")


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=METHODS,
        default=list(METHODS),
        help="methods to run, in this order (default: all)",
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs per method (default: 3)")
    parser.add_argument("--steps", type=int, default=1000, help="training steps (default: 1000)")
    parser.add_argument(
        "--words-factor", type=int, default=3, help="factor on the steps for weights in words (default: 3)"
    )
    parser.add_argument(
        "--batch", type=int, default=8, help="prompts per step, each with its own weights (default: 8)"
    )
    parser.add_argument(
        "--concentration", type=float, default=0.5, help="concentration of the Dirichlet of the weights (default: 0.5)"
    )
    parser.add_argument("--levels", type=int, default=21, help="levels of the reserved tokens (default: 21)")
    parser.add_argument(
        "--learning-rate", type=float, default=3e-3, help="learning rate of all trainings (default: 3e-3)"
    )
    parser.add_argument("--start-steps", type=int, default=400, help="steps that train the start model (default: 400)")
    add_device(parser)
    args = parser.parse_args()
    if "mixed-decoding" in args.methods and "plural" not in args.methods[: args.methods.index("mixed-decoding")]:
        parser.error("mixed-decoding decodes with the policy of plural: name plural before it")
    if args.smoke:
        args.seeds, args.steps, args.words_factor, args.start_steps = 1, 10, 1, 40
    environment()
    args.device = device_of(parser, args.device)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        rows = run(args, Path(folder))
    about = {
        "labels": METHODS,
        "aims": {metric: f"{kind} {bound}" for metric, (kind, bound) in AIMS.items()},
        "learning_rate": args.learning_rate,
        "batch": args.batch,
        "levels": args.levels,
        "concentration": args.concentration,
        "device": args.device,
        "interval": "95 % t interval over seeds",
    }
    write(args, rows, started, **about)


if __name__ == "__main__":
    main()
