"""Policies for open prompts, on what people wrote: stock TRL and plural_rlhf under one jury, measured by another.

About 300 people answered each of four questions on campus protests, and voted on each other's answers (polarized
issues). Half of the people make the training jury, the other half, on other vectors, the held-out jury. Every method
starts from a policy that imitates the answers, is trained on the same questions with the same number of completions,
and is tuned on one question that does not count: the setting with the lowest estimated KL to the target is kept. Ours
has the learning rate to tune, the rivals also beta and reward scaling; with `--tuning none` all use the middle rate.

Measured on the other questions by `evaluate_open_ended`: approval and shares by both juries, the KL to the start and
to the target (self-normalised over texts of the start), distance to people's answers, diversity, drift. Intervals are
over questions within a seed, and Student's t over seeds where there are several. Rows of metric `curve/...` are what
a trainer logged on the way.

Models: `smollm2` (SmolLM2-135M; an hour or more per method and seed on one core), `small` (a Llama of a million
parameters that has read nothing but the answers; a few minutes), `tiny` (for --smoke, says nothing).

  python benchmarks/open_ended.py --smoke
  python benchmarks/open_ended.py --model small --json open_ended_small.json
  python benchmarks/open_ended.py --json open_ended.json
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _collapse.runs import add_parts, parts
from _common import environment, interval, make_parser, print_table, row, write
from _jury.cases import DATA, Unavailable
from _open_ended.methods import BEST_OF, METHODS, TRAINED, Setting, Trained, candidates, draw, train
from _open_ended.start import MODELS, Start, minilm_folder, start_of


if TYPE_CHECKING:
    import numpy as np

    from plural_rlhf.evaluation.open_ended.results import MeasureRow, OpenEndedResults
    from plural_rlhf.evaluation.open_ended.samples import PolicySamples

__all__ = ["main"]

CASE = "polarized"
TOPIC = "campus-protests"
BETA = 0.5
RATES = (2e-4, 5e-4, 1e-3)
TUNING_SEED = 1000
SHOWN = {
    "kl_to_target": "",
    "kl_to_reference": "",
    "share_error": "heldout",
    "approval_worst_cluster": "heldout",
    "heldout_share_of_gain": "",
    "bridging": "heldout",
    "classes_ratio_to_reference": "",
    "mmd_to_people": "",
    "human_classes_covered": "",
    "words": "",
}
"""Metrics of the table, each with the jury that says it."""
CURVES = ("plural/residual_std", "plural/kl", "reward")


def measured(
    start: Start, samples: Mapping[str, PolicySamples], questions: Sequence[str], embed: Any
) -> OpenEndedResults:
    """Evaluate policies on some questions."""
    from plural_rlhf.evaluation import evaluate_open_ended

    return evaluate_open_ended(
        samples,
        start.scorer,
        heldout_scorer=start.heldout,
        people={question: start.people[question] for question in questions},
        embed=embed,
        beta=BETA,
    )


def tuned(
    start: Start, method: str, question: str, reference: PolicySamples, args: argparse.Namespace, folder: Path
) -> Setting:
    """Return the setting of a method that ends nearest to the target on the question that does not count."""
    rates = args.learning_rates if args.tuning == "full" else args.learning_rates[len(args.learning_rates) // 2 :][:1]
    settings = candidates(method, BETA, rates)
    if len(settings) == 1 or args.tuning == "none":
        return settings[0]
    found: dict[Setting, float] = {}
    for n, setting in enumerate(settings):
        trained = train(
            start, setting, [question], args.steps, args.group, TUNING_SEED, folder / f"tuning-{method}-{n}"
        )
        samples = draw(start, method, trained.adapter, [question], args.samples, TUNING_SEED)
        results = measured(start, {"reference": reference, method: samples}, [question], None)
        value = results.value(method, "kl_to_target")
        found[setting] = float("inf") if value is None else value
        print(f"  {method}, {setting.learning_rate:g}, beta {setting.beta:g}, {setting.scale}: {value}", flush=True)
    return min(found, key=found.__getitem__)


def tidy(results: OpenEndedResults, method: str, spent: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of a method in one seed."""

    def labels(of: MeasureRow) -> dict[str, Any]:
        named = {"jury": of.jury, "cluster": of.cluster, "rival": of.rival, "k": of.k, "floor": of.floor}
        return {name: value for name, value in named.items() if value not in ("", None)}

    return [
        row(
            CASE,
            method,
            of.measure,
            of.value,
            of.unit,
            low=float("nan") if of.ci_low is None else of.ci_low,
            high=float("nan") if of.ci_high is None else of.ci_high,
            n=of.n,
            **labels(of),
            **spent,
        )
        for of in results.rows
        if of.policy == method and of.value is not None
    ]


def of_seeds(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows over seeds: the mean, and its interval if there are several seeds."""
    numbers = ("value", "ci_low", "ci_high", "n", "seed", "seconds", "floor")
    cells: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for r in rows:
        cells.setdefault(tuple((k, v) for k, v in r.items() if k not in numbers), []).append(r)
    joined = []
    for of in cells.values():
        if len(of) == 1:
            joined.append(of[0])
            continue
        value, low, high = interval([r["value"] for r in of])
        seconds = {"seconds": statistics.fmean(r["seconds"] for r in of)} if "seconds" in of[0] else {}
        joined.append(
            {**of[0], "value": value, "ci_low": low, "ci_high": high, "n": len(of), **seconds, "seed": "all"}
        )
    return joined


def curve_rows(method: str, trained: Trained, seed: int) -> list[dict[str, Any]]:
    """What a trainer logged: the mean of each tenth of its steps."""
    rows = []
    for metric in CURVES:
        logged = [step[metric] for step in trained.curve if metric in step]
        size = max(1, len(logged) // 10)
        for first in range(0, len(logged), size):
            mean = statistics.fmean(logged[first : first + size])
            labels = {"step": min(first + size, len(logged)), "seed": seed}
            rows.append(row(CASE, method, f"curve/{metric}", mean, "nats", **labels))
    return rows


def run_seed(
    start: Start, settings: Mapping[str, Setting], questions: Sequence[str], seed: int, args: Any, folder: Path
) -> list[dict[str, Any]]:
    """Train, draw and measure all methods once."""
    samples = {"reference": draw(start, "reference", None, questions, args.reference_samples, seed)}
    spent: dict[str, dict[str, Any]] = {"reference": {"generated": 0}, "people": {"generated": 0}}
    rows: list[dict[str, Any]] = []
    for method in args.methods:
        adapter, spent[method] = None, {"generated": 0}
        if method in TRAINED:
            setting = settings[method]
            trained = train(start, setting, questions, args.steps, args.group, seed, folder / f"{method}-{seed}")
            adapter = trained.adapter
            rows += curve_rows(method, trained, seed)
            spent[method] = {
                "generated": trained.generated,
                "seconds": trained.seconds,
                "learning_rate": setting.learning_rate,
                "beta": setting.beta,
                "scale_rewards": setting.scale,
            }
            print(f"  {method}, seed {seed}: {trained.seconds:.0f} s", flush=True)
        if method == "best-of-n":
            spent[method] = {"generated": BEST_OF * args.samples * len(questions)}
        samples[method] = draw(start, method, adapter, questions, args.samples, seed)
    results = measured(start, samples, questions, None if args.model == "tiny" else minilm())
    for method, cost in spent.items():
        rows += tidy(results, method, {**cost, "seed": seed})
    return rows


def minilm() -> Any:
    """Return what turns texts into vectors of MiniLM, with which classes of texts were calibrated."""
    from reward_models.judgements.texts import Text
    from reward_models.jury.backbones.loading import load_backbone
    from reward_models.jury.features import pooled_features

    model, tokenizer, reading = load_backbone(minilm_folder())

    def embed(texts: Sequence[str]) -> np.ndarray:
        # A text without a word has no vector: a dot stands for it.
        shown = [Text("", text if text.strip() else ".") for text in texts]
        return pooled_features(model, tokenizer, shown, reading=reading, progress=False)

    return embed


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print the table."""
    methods = list(dict.fromkeys(r["method"] for r in rows))

    def cell(method: str, metric: str, jury: str) -> str:
        found = [
            r for r in rows
            if (r["method"], r["metric"], r.get("jury", "")) == (method, metric, jury) and not r.get("cluster")
        ]  # fmt: skip
        return f"{found[0]['value']:.3f}" if found else ""

    header = [
        "method",
        *(f"{metric.replace('_', ' ')}{f' ({jury})' if jury else ''}" for metric, jury in SHOWN.items()),
    ]
    print_table(CASE, header, [[m, *(cell(m, metric, jury) for metric, jury in SHOWN.items())] for m in methods])


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--model", choices=MODELS, default="smollm2", help="the policy (default: smollm2)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help=", ".join(METHODS))
    parser.add_argument("--seeds", type=int, default=3, help="runs that count, per method (default: 3)")
    parser.add_argument("--steps", type=int, default=60, help="batches of completions (default: 60)")
    parser.add_argument("--group", type=int, default=16, help="completions per batch (default: 16)")
    parser.add_argument("--samples", type=int, default=48, help="texts per question and policy (default: 48)")
    parser.add_argument(
        "--reference-samples", type=int, default=256, help="texts of the start per question (default: 256)"
    )
    parser.add_argument("--learning-rates", type=float, nargs="+", default=list(RATES), help="rates to try")
    parser.add_argument(
        "--tuning", choices=("full", "settings", "none"), default="full",
        help="tune all settings, all but the learning rate, or none (default: full)",
    )  # fmt: skip
    parser.add_argument("--data", type=Path, default=DATA, help="folder with polarized/")
    add_parts(parser)
    args = parser.parse_args()
    if args.smoke:
        args.model, args.seeds, args.steps, args.group, args.samples = "tiny", 1, 2, 4, 8
        args.reference_samples, args.tuning = 16, "none"
    environment()
    started = time.perf_counter()
    rows: list[dict[str, Any]] = []
    settings: dict[str, Setting] = {}
    with parts(args) as folder:
        try:
            start = start_of(
                TOPIC, MODELS[args.model], args.data, folder / f"start-{args.model}-{args.seed}", args.seed
            )
            tuning, *questions = sorted(start.people)
            reference = draw(start, "reference", None, [tuning], args.reference_samples, TUNING_SEED)
            for method in (m for m in args.methods if m in TRAINED):
                settings[method] = tuned(start, method, tuning, reference, args, folder)
            for seed in range(args.seed, args.seed + args.seeds):
                rows += run_seed(start, settings, questions, seed, args, folder)
        except (Unavailable, ImportError) as reason:
            print(f"{CASE} skipped: {reason}")
            rows = [row(CASE, "all", "skipped", float("nan"), "", n=0, skipped=str(reason))]
    rows = of_seeds(rows)
    show(rows)
    write(
        args,
        rows,
        started,
        topic=TOPIC,
        beta=BETA,
        model=args.model,
        steps=args.steps,
        group=args.group,
        tuning=args.tuning,
        settings={method: dataclasses.asdict(setting) for method, setting in settings.items()},
    )


if __name__ == "__main__":
    main()
