"""What becomes of a minority: stock TRL and plural_rlhf on tasks whose exact target is known.

A policy that answers as people do is trained on the rewards of clusters of raters. The exact target is the mixture of
the clusters' own optima. There are few answers, so every policy's distribution is computed exactly, not estimated.
`_collapse/cases.py` defines each case, `_collapse/methods.py` each method, `_collapse/scales.py` each metric. By
default the six cases of a Llama of 40,000 parameters run; `--model smollm2` runs those of SmolLM2-135M, for which an
accelerator is advised.

Protocol. All methods start from the same model and use the same jury. The sampled methods generate the same number of
completions; the exact mode generates none. Each method is tuned on a separate seed and separate prompts, over its
settings and the same learning rates. The setting that ends nearest to the exact target is kept, which favours methods
that do not aim at it. The rivals have more settings to tune than ours, which has only the learning rate and the
optimizer's memory (`adam_beta1`). The seeds that count train on other prompts. `--tuning coordinate` tries one setting
after the other, each with the best of those before it, and the learning rate last; `full` tries all combinations,
hundreds for GRPO; `none` uses the likeliest settings and the second learning rate.

Reported: all metrics with 95 % t intervals over the seeds, paired differences between `plural` and the best rival,
completions generated, sequences scored forward and backward, seconds, and whether each case's aims were reached.

Every finished run is saved, in --parts or beside --json (`FILE.parts/`), and a benchmark that was stopped resumes from
there. Several processes may share --parts if their cases or methods differ.

  python benchmarks/collapse.py --smoke                                under a minute, numbers mean little
  python benchmarks/collapse.py --case jury-gap8 --json collapse.json  the README's figure
  python benchmarks/draw_collapse.py collapse.json                     draws it
  python benchmarks/collapse.py --model smollm2 --json collapse_smollm2.json
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Any

from _collapse.cases import CASES, SMOLLM2_CASES, TINY_CASES, Case, load_case
from _collapse.methods import LABELS, METHODS, RATES, Setting
from _collapse.report import aim_rows, curve_rows, difference_rows, method_rows, show
from _collapse.runs import TUNING_SEED, Runs, add_parts, parts, tune
from _collapse.scales import Scales
from _common import add_device, device_of, environment, make_parser, row, write


__all__ = ["main"]


def run_case(case: Case, args: argparse.Namespace, folder: Path, device: str) -> list[dict[str, Any]]:
    """All rows of a case."""
    runs = Runs(case, folder, args.seed, device)
    scales = runs.scales(case.problems)
    rows = target_rows(case, scales)
    at_start = {"generated": 0, "scored": 0, **scales.measure(scales.start)}
    rows += method_rows(case, "reference", [{"final": at_start, "curve": [], "seconds": 0.0}])
    rates = args.learning_rates or RATES[case.model]
    found: dict[str, list[dict[str, Any]]] = {}
    for method in args.methods:
        setting, tried = tune(runs, method, rates, args.tuning)
        found[method] = [runs.run(setting, args.seed + s, tuning=False) for s in range(args.seeds)]
        rows += method_rows(case, method, found[method], **described(setting))
        rows += curve_rows(case, method, found[method])
        rows += [row(case.name, method, "jsd_nats_tuning", v, "nats", **described(s)) for s, v in tried.items()]
    rows += difference_rows(case, found)
    rows += aim_rows(case, rows)
    show(case, rows, args.seeds)
    return rows


def target_rows(case: Case, scales: Scales) -> list[dict[str, Any]]:
    """The exact target: each cluster's share, and each answer where all prompts have the same."""
    n = len(case.problems)
    targets = [target[:-1] for target in scales.targets]
    shares = sum(p @ gamma for p, gamma in zip(targets, scales.gamma, strict=True)) / n
    rows = [
        row(case.name, "target", "share", float(share), "probability", cluster=name, wanted=weight)
        for (name, weight), share in zip(case.weights.items(), shares, strict=True)
    ]
    if case.answers:
        rows += [
            row(case.name, "target", "probability", float(p), "probability", answer=answer)
            for answer, p in zip(case.answers, sum(targets) / n, strict=True)
        ]
    return rows


def described(setting: Setting) -> dict[str, Any]:
    """A setting as columns of a tidy row."""
    columns = dataclasses.asdict(setting)
    grpo = {"scale": "scale_rewards", "entropy": "entropy_coef", "ratio_kl": "use_bias_correction_kl"}
    hidden = {"trainer"} if setting.trainer == "grpo" else {"trainer", *grpo}
    return {grpo.get(name, name): value for name, value in columns.items() if name not in hidden}


def chosen_cases(args: argparse.Namespace) -> list[Case]:
    """The cases asked for, with the steps and the model asked for."""
    names = args.case or (SMOLLM2_CASES if args.model == "smollm2" else TINY_CASES)
    cases = []
    for name in names:
        case = load_case(name)
        asked = {
            "model": args.model,
            "groups": args.prompts,
            "iterations": args.iterations,
            "most_iterations": args.iterations,
            "reference_share": args.reference_share,
            "rate_warmup": args.warmup,
            "warmup_steps": args.start_steps,
        }
        changed: dict[str, Any] = {field: value for field, value in asked.items() if value is not None}
        if args.steps is not None:
            changed |= {"steps": args.steps, "exact_steps": max(2, case.exact_steps * args.steps // case.steps)}
        if args.smoke:
            changed |= {"groups": 2, "generations": 4, "aims": ()}
        cases.append(dataclasses.replace(case, **changed))
    return cases


def about_case(case: Case) -> dict[str, Any]:
    """What the tidy file says of a case; `clusters` has the answers that each likes more than the others do."""
    about = dataclasses.asdict(dataclasses.replace(case, aims=()))
    about |= {part: [problem.prompt for problem in getattr(case, part)] for part in ("problems", "tuning")}
    table = list(zip(case.answers, case.problems[0].rewards, strict=True)) if case.answers else []
    about["clusters"] = {
        name: [answer for answer, r in table if r[k] == max(r)] for k, name in enumerate(case.weights)
    }
    return about


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--case", nargs="+", choices=CASES, metavar="CASE", help=", ".join(CASES))
    parser.add_argument(
        "--model",
        choices=("tiny", "smollm2"),
        help="run on this model (default: each case's own; without --case: tiny)",
    )
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD", help=", ".join(METHODS)
    )
    add_device(parser)
    parser.add_argument("--seeds", type=int, default=3, help="runs that count, per method (default: 3)")
    parser.add_argument("--steps", type=int, help="batches per run of the sampled methods (default: the case's)")
    parser.add_argument("--start-steps", type=int, help="steps that train the start model (default: the case's)")
    parser.add_argument("--prompts", type=int, help="prompts per batch (default: the case's)")
    parser.add_argument("--iterations", type=int, help="how often each batch is used (default: the case's)")
    parser.add_argument(
        "--warmup", type=float, default=0.0, help="warm-up of the learning rate, as a share of the steps (default: 0)"
    )
    parser.add_argument(
        "--reference-share",
        type=float,
        help="share of each group drawn by the reference, ours only (default: the case's)",
    )
    parser.add_argument(
        "--learning-rates", type=float, nargs="+", help="learning rates to try, the same for every method"
    )
    parser.add_argument(
        "--tuning",
        choices=("coordinate", "full", "none"),
        default="coordinate",
        help="how to tune (default: coordinate)",
    )
    add_parts(parser)
    args = parser.parse_args()
    if args.smoke:
        args.case, args.seeds, args.tuning, args.learning_rates = args.case or list(TINY_CASES), 1, "none", [1e-3]
        args.steps, args.start_steps = args.steps or 2, args.start_steps or 20
    environment()
    started = time.perf_counter()
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    device = device_of(parser, args.device)
    cases = chosen_cases(args)
    rows: list[dict[str, Any]] = []
    with parts(args) as folder:
        for case in cases:
            rows += run_case(case, args, folder, device)
    write(
        args,
        rows,
        started,
        cases={case.name: about_case(case) for case in cases},
        labels=LABELS,
        device=device,
        tuning=args.tuning,
        tuning_seed=TUNING_SEED,
        interval="95 % t interval over seeds",
    )


if __name__ == "__main__":
    main()
