"""Cost of eight clusters: texts scored per second by one head, by a jury of eight, and by eight separate models.

All three score the same texts through `JuryScorer`, from strings to rewards: tokenising, padding and copying count.
The heads of a jury share one pass through the backbone; separate models, as MaxMin-RLHF trains them, each need their
own. The three are timed in turns (one head and the jury four times a turn, in alternating order), so that other load
on the machine affects all of them; ratios are taken within a turn. The heads are random: their values do not change
their cost.

Expected: the jury at 0.97 of one head's throughput or more, and at 7 times that of eight models or more.

  python benchmarks/jury_cost.py --smoke
  python benchmarks/jury_cost.py --model smollm2 --json jury_cost.json
  python benchmarks/jury_cost.py --model smollm2 --device cuda --texts 2048 --json jury_cost.json
"""

from __future__ import annotations

import argparse
import copy
import random
import statistics
import time
from typing import Any

from _common import add_device, device_of, environment, make_parser, print_table, row, write


__all__ = ["main", "median_interval"]

CLUSTERS = 8
PASSES = 4  # of the two cheap methods per turn, an even number
SINGLE, JURY, SEPARATE = "one head", f"jury-k{CLUSTERS}", f"{CLUSTERS} models"
LEAST = {"ratio_to_single_head": 0.97, "ratio_to_k_models": 7.0}
WORDS = "people who disagree about a tax on rain want the town to build more roads and parks before winter comes"


def make_texts(n: int, seed: int) -> list[str]:
    """`n` different texts of 5 to 60 words, as comments and arguments have."""
    rng = random.Random(seed)
    words = WORDS.split()
    return [f"{i}: " + " ".join(rng.choices(words, k=rng.randint(5, 60))) for i in range(n)]


def make_scorers(name: str, device: str, batch_size: int, seed: int) -> dict[str, list[Any]]:
    """The scorers that a text has to pass, by method; every one of them has weights of its own in memory."""
    import numpy as np
    import torch
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    from plural_rlhf.policies.base_models import SMOLLM2, TINY, prepare_base_model
    from reward_models.jury.modeling_jury import JuryRewardModel
    from reward_models.jury.scorer import JuryScorer

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    path = prepare_base_model(SMOLLM2 if name == "smollm2" else TINY, cache_dir=".cache/models", seed=seed)
    backbone = AutoModel.from_pretrained(path, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(path)
    rng = np.random.default_rng(seed)

    def scorer(num_clusters: int) -> JuryScorer:
        weight = rng.normal(size=(num_clusters, backbone.config.hidden_size))
        shares = np.full(num_clusters, 1 / num_clusters)
        jury = JuryRewardModel.from_fit(copy.deepcopy(backbone), weight, np.zeros(num_clusters), shares)
        dtype = torch.float32 if device == "cpu" else torch.bfloat16
        return JuryScorer(jury.to(device=device, dtype=dtype), tokenizer, batch_size=batch_size, cache_size=0)

    models = [scorer(1) for _ in range(CLUSTERS)]
    return {SINGLE: models[:1], JURY: [scorer(CLUSTERS)], SEPARATE: models}


def measure(scorers: dict[str, list[Any]], texts: list[str], repeats: int) -> dict[str, list[float]]:
    """Texts per second of each method in each of `repeats` turns, after one turn that is not counted."""
    from tqdm.auto import tqdm

    prompts = [""] * len(texts)
    speeds: dict[str, list[float]] = {method: [] for method in scorers}
    for turn in tqdm(range(repeats + 1), desc="turns"):
        seconds: dict[str, list[float]] = {method: [] for method in scorers}
        one_after_the_other = [SINGLE, JURY, JURY, SINGLE] * (PASSES // 2)
        for method in [*one_after_the_other, SEPARATE] if turn % 2 else [SEPARATE, *one_after_the_other]:
            start = time.perf_counter()
            for scorer in scorers[method]:
                scorer.cluster_rewards(prompts, texts)  # comes back on the CPU, so an accelerator has finished
            seconds[method].append(time.perf_counter() - start)
        if turn > 0:
            for method, spent in seconds.items():
                speeds[method].append(len(texts) / statistics.fmean(spent))
    return speeds


def median_interval(values: list[float], level: float = 0.95) -> tuple[float, float, float]:
    """Median with its distribution-free interval: the order statistics that a binomial count says enclose it.

    Fewer than six values cannot enclose it with 95 %; the interval then is their range.
    """
    from scipy.stats import binom

    ordered = sorted(values)
    rank = max(int(binom.ppf((1 - level) / 2, len(ordered), 0.5)), 1)
    return statistics.median(ordered), ordered[rank - 1], ordered[-rank]


def one_model(name: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    scorers = make_scorers(name, args.device, args.batch_size, args.seed)
    speeds = measure(scorers, make_texts(args.texts, args.seed), args.repeats)
    ratios = {
        "ratio_to_single_head": [a / b for a, b in zip(speeds[JURY], speeds[SINGLE], strict=True)],
        "ratio_to_k_models": [a / b for a, b in zip(speeds[JURY], speeds[SEPARATE], strict=True)],
    }
    rows, lines = [], []
    for method, values in speeds.items():
        middle, low, high = median_interval(values)
        rows.append(row(name, method, "texts_per_second", middle, "texts/s", low=low, high=high, n=args.repeats))
        lines.append([method, "texts per second", f"{middle:,.1f} [{low:,.1f}, {high:,.1f}]", ""])
    for metric, values in ratios.items():
        middle, low, high = median_interval(values)
        enough = middle >= LEAST[metric]
        rows.append(
            row(
                name, JURY, metric, middle, "ratio", low=low, high=high, n=args.repeats,
                at_least=LEAST[metric], reached=enough,
            )
        )  # fmt: skip
        verdict = f"{'reached' if enough else 'MISSED'}: at least {LEAST[metric]:g}"
        lines.append([JURY, metric.replace("_", " "), f"{middle:.3f} [{low:.3f}, {high:.3f}]", verdict])
    header = ["method", "metric", "median and 95 % interval", "verdict"]
    print_table(f"{name} on {args.device}: {args.texts} texts, {args.repeats} turns", header, lines)
    return rows


def main() -> None:
    parser = make_parser(__doc__ or "")
    add_device(parser)
    parser.add_argument("--model", choices=("tiny", "smollm2"), default="tiny", help="backbone (default: tiny)")
    parser.add_argument("--texts", type=int, default=96, help="texts per turn (default: 96)")
    parser.add_argument("--batch-size", type=int, default=32, help="texts per forward pass (default: 32)")
    parser.add_argument("--repeats", type=int, default=15, help="timed turns (default: 15, at least 2)")
    args = parser.parse_args()
    if args.repeats < 2:
        parser.error(f"--repeats is {args.repeats}, and a spread needs at least 2")
    if args.smoke:
        args.texts, args.repeats = 16, 3
    environment()
    args.device = device_of(parser, args.device, known=["cuda"])
    started = time.perf_counter()
    rows = one_model(args.model, args)
    write(
        args,
        rows,
        started,
        model=args.model,
        device=args.device,
        texts=args.texts,
        batch_size=args.batch_size,
        interval="95 % of the median, from order statistics of the turns",
    )


if __name__ == "__main__":
    main()
