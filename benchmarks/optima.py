"""Where stock trainers converge: the optimum of their loss, and its distance from the exact target.

No policy is trained and nothing is sampled: the answers of a case can be enumerated, so the optimum of each loss is
computed exactly, for the weighted mean of the clusters' rewards and every beta. The distance that collapse.py measures
for a rival is this one, plus what remains at the end of its budget.

  log pool         pi_0 exp(R / beta): RLOO, whose KL is in the reward, and GRPO with the corrected KL term
                   (`use_bias_correction_kl=True`, TRL's default)
  GRPO             beta pi_0 / (lambda - R): GRPO without scaling of rewards and with its KL term as published,
                   whose gradient is that of KL(pi_0 || pi); on the correction see DeepSeek-V3.2 (arXiv 2512.02556)

The optimum of `plural` is the target itself, so it has no row. Cases as in collapse.py.

  python benchmarks/optima.py --smoke                     under a minute, numbers mean little
  python benchmarks/optima.py --json optima.json          the tiny cases; five minutes, most of them for their starts
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _collapse.cases import CASES, TINY_CASES, Case, load_case
from _collapse.methods import make_start, scales_of
from _collapse.runs import add_parts, parts
from _collapse.scales import with_other
from _common import add_device, device_of, environment, make_parser, print_table, row, write


if TYPE_CHECKING:
    import numpy as np

__all__ = ["grpo_optimum", "log_pool", "main"]

BETAS = (0.05, 0.1, 0.2, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)


def log_pool(reference: np.ndarray, rewards: np.ndarray, beta: float) -> np.ndarray:
    """The maximum over π of E_π[R] − β KL(π‖π₀).

    Args:
        reference: `(A,)` probabilities of π₀.
        rewards: `(A,)` logits.
        beta: Logits.
    """
    import torch

    from plural_rlhf.core.targets import PoolTarget

    # One cluster, whose reward is the mean: all pools are the same.
    r, log_ref = torch.as_tensor(rewards)[None, :, None], torch.as_tensor(reference).log()[None]
    return PoolTarget(beta=beta).log_probs(r, torch.ones(1, dtype=r.dtype), log_ref)[0].exp().numpy()


def grpo_optimum(reference: np.ndarray, rewards: np.ndarray, beta: float) -> np.ndarray:
    """The maximum over π of E_π[R] − β KL(π₀‖π): β π₀ / (λ − R), with the λ above all R at which it sums to one.

    Args:
        reference: `(A,)` probabilities of π₀, above 0.
        rewards: `(A,)` logits.
        beta: Logits.
    """
    from scipy.optimize import brentq

    best = rewards.max()

    def excess(above: float) -> float:
        return float((beta * reference / (above + best - rewards)).sum()) - 1

    # At a distance of beta the sum is at most one; at the best answer's own share of that it is at least one.
    nearest = beta * float(reference[rewards == best].sum())
    above = brentq(excess, nearest, beta, xtol=1e-15 * beta, rtol=1e-13) if nearest < beta else beta
    p = beta * reference / (above + best - rewards)
    return p / p.sum()


LOSSES = {"log pool": log_pool, "GRPO": grpo_optimum}


def run_case(case: Case, folder: Path, seed: int, device: str) -> list[dict[str, Any]]:
    """Rows of a case: the mean distance over its prompts, and the least share that a cluster keeps."""
    import numpy as np

    scales = scales_of(case, case.problems, make_start(case, folder, seed, device), device)
    weights = np.array(list(case.weights.values()))
    rows = []
    for name, optimum in LOSSES.items():
        for beta in BETAS:
            policy = [
                optimum(np.maximum(with_other(start), 1e-12), rewards @ weights, beta)[:-1]
                for start, rewards in zip(scales.start, scales.rewards, strict=True)
            ]
            found = scales.measure(policy)
            rows.append(row(case.name, name, "jsd_nats", found["jsd_nats"], "nats", beta=beta))
            kept = found["minority_retention"]
            rows.append(row(case.name, name, "minority_retention", kept, "share of own weight", beta=beta))
    return rows


def show(case: str, rows: list[dict[str, Any]]) -> None:
    """Prints a line for every beta."""
    value = {(r["method"], r["metric"], r["beta"]): r["value"] for r in rows}
    lines = [
        [f"{beta:g}", *(f"{value[name, 'jsd_nats', beta]:.4f}" for name in LOSSES)]
        + [f"{value[name, 'minority_retention', beta]:.2f}" for name in LOSSES]
        for beta in BETAS
    ]
    header = ["beta", *(f"JS, {name}" for name in LOSSES), *(f"retention, {name}" for name in LOSSES)]
    print_table(f"{case}: the optimum under the weighted mean", header, lines)


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--case", nargs="+", choices=CASES, metavar="CASE", help=", ".join(CASES))
    add_device(parser)
    add_parts(parser)
    args: argparse.Namespace = parser.parse_args()
    names = args.case or (["jury-gap4"] if args.smoke else list(TINY_CASES))
    environment()
    started = time.perf_counter()
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    device = device_of(parser, args.device)
    rows: list[dict[str, Any]] = []
    with parts(args) as folder:
        for name in names:
            case = load_case(name)
            if args.smoke:
                case = dataclasses.replace(case, warmup_steps=min(20, case.warmup_steps))
            own = run_case(case, folder, args.seed, device)
            show(name, own)
            rows += own
    write(args, rows, started, device=device, betas=list(BETAS))


if __name__ == "__main__":
    main()
