"""Policies for open prompts, on what people wrote: stock TRL and plural_rlhf under one jury, measured by another.

About 300 people answered each of four questions on campus protests, and voted on each other's answers (polarized
issues); with --topic right-to-assemble it is six questions and other people. What is measured is what `plural-rlhf
run` does: this script writes a run file per method, seed and setting, and `plural_rlhf.recipe.run` works it off. All
runs of a seed have one jury (half of the people, vectors of MiniLM) and one pi_0, which imitates the answers; one
question is held out; the other half of the people make the held-out jury. Every method draws the same number of
completions and is tuned on the other topic: the setting with the lowest estimated KL to the target is kept. Ours has
the learning rate to tune, the rivals also beta and reward scaling. With `--tuning settings` the learning rate is the
middle one, with `--tuning none` the others are the first ones too. `--learning-rates` are those of all methods,
`--rate distil=2e-5,5e-5` those of one in their place.

Rows are those of the run's evaluation, by `split`: `train` (all questions but one) and `heldout`. Intervals are over
questions within a seed, and Student's t over seeds where there are several. Rows of metric `curve/...` are what a
trainer logged on the way, `along/...` what a few texts of its checkpoints say by both juries, `approval_shift` what
asking for a cluster changes, for it and for others (leaks), by jury. A `share_error` has beside it what chance would
show (`floor`) and one cluster alone (`baseline`); there is none where the jury could not tell them apart. Each seed
has a page, whose path is printed.

Models: `smollm2` (SmolLM2-135M; an hour or more per method and seed on one core), `small` (a Llama of a million
parameters that has read nothing but the answers; minutes), `tiny` (for --smoke, says nothing). A stopped run goes on
where it was; --fresh begins again, as is needed after a change of the code.

  python benchmarks/open_ended.py --smoke
  python benchmarks/open_ended.py --model small --json open_ended_small.json
  python benchmarks/open_ended.py --json open_ended.json
  python benchmarks/open_ended.py --topic right-to-assemble --tuning none --rate plural=5e-5 --rate trl-grpo=2e-5
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _collapse.runs import add_parts, parts
from _common import environment, interval, make_parser, print_table, row, write
from _jury.cases import DATA, Unavailable
from _jury.polarized import POLARIZED
from _open_ended.methods import BEST_OF, INSTRUCTION, METHODS, MODES, TRAINED, Setting, candidates
from _open_ended.runs import MODELS, Runs


if TYPE_CHECKING:
    from plural_rlhf.report.results import RunResults
    from plural_rlhf.report.results_policies import LoggedStep, TextResults, TextRow

__all__ = ["main"]

CASE = "polarized"
TOPIC = "campus-protests"
BETA = 0.5
RATES = (2e-5, 5e-5, 2e-4)
TUNING_SEED = 1000
OF_POLICY = {"warm": "reference", "plural": "rerank", "best_of_n": "best-of-n", "ours": "plural"}
"""Methods by the name that a policy has in the measuring run; others have their own."""
SHOWN = {
    "kl_to_target": "",
    "kl_to_reference": "",
    "share_for_no_cluster": "heldout",
    "share_error": "heldout",
    "approval_worst_cluster": "heldout",
    "steered_approval_gain_worst": "heldout",
    "heldout_share_of_gain": "",
    "bridging": "heldout",
    "classes_ratio_to_reference": "",
    "mmd_to_people": "",
    "human_classes_covered": "",
    "words": "",
}
"""Metrics of the table, each with the jury that says it."""
CURVES = ("residual_std", "kl", "reward")


def rate_of_method(text: str) -> tuple[str, list[float]]:
    """Read the learning rates of one method.

    Example:
        >>> rate_of_method("distil=2e-5,5e-5")
        ('distil', [2e-05, 5e-05])
    """
    name, _, rates = text.partition("=")
    if name not in TRAINED:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no METHOD=RATE with one of the trained methods: {', '.join(TRAINED)}"
        )
    return name, [learning_rate(rate) for rate in rates.split(",")]


def learning_rate(text: str) -> float:
    """Read a learning rate: a finite number above 0."""
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not (0 < rate < math.inf):
        raise argparse.ArgumentTypeError(f"{text!r} is no learning rate: a number above 0 is wanted, such as 5e-5")
    return rate


def rates_of(method: str, args: argparse.Namespace) -> list[float]:
    """Return the learning rates that a method tries: all of its own, or the middle one if rates are not tuned."""
    rates = args.rate.get(method, args.learning_rates)
    return rates if args.tuning == "full" else rates[len(rates) // 2 :][:1]


def tuned(runs: Runs | None, methods: Sequence[str], args: argparse.Namespace) -> dict[str, tuple[str, Setting]]:
    """Return by method the stage that trains it and the setting that ends nearest to the target on the other topic."""
    choices = {name: candidates(name, BETA, rates_of(name, args), args.steps, args.group) for name in methods}
    for _, settings in choices.values():
        for setting in settings:
            setting["evaluate.along"] = args.along
    if runs is None:
        return {name: (method.stage, settings[0]) for name, (method, settings) in choices.items()}
    tried = {
        f"{name}-{n}": (name, method.stage, setting)
        for name, (method, settings) in choices.items()
        for n, setting in enumerate(settings)
        if len(settings) > 1
    }
    rivals = {}
    for label, (_, stage, setting) in tried.items():
        folder, results = runs.train(label, setting, TUNING_SEED)
        rivals[label] = str(folder / stage)
        print(f"  {label}: {_shown(setting)} ({results.budgets[stage].seconds:.0f} s)", flush=True)
    settings = {**_sizes(args), "plural.candidates": 2, "evaluate.rivals": rivals}
    _, measured = runs.measure("tuning", settings, TUNING_SEED)
    (texts,) = (of for of in measured.texts if (of.split, of.weighting) == ("train", "all"))
    nats = {label: _value(texts.row(label, "kl_to_target")) for label in tried}
    best: dict[str, tuple[str, Setting]] = {}
    for name, (method, settings) in choices.items():
        labels = [label for label in tried if tried[label][0] == name]
        setting = tried[min(labels, key=nats.__getitem__)][2] if labels else settings[0]
        best[name] = (method.stage, setting)
        print(f"  {name}: {_shown(setting)}", *(f"{label} {nats[label]:.2f}" for label in labels), flush=True)
    return best


def run_seed(runs: Runs, best: Mapping[str, tuple[str, Setting]], seed: int, args: Any) -> list[dict[str, Any]]:
    """Train and measure all methods once."""
    rows: list[dict[str, Any]] = []
    rivals: dict[str, str] = {}
    spent: dict[str, dict[str, Any]] = {}
    for name, (stage, setting) in best.items():
        folder, results = runs.train(name, setting, seed)
        budget = results.budgets[stage]
        spent[name] = {
            "generated": budget.generated_sequences or 0,
            "seconds": budget.seconds,
            "setting": str(setting),
            **({} if budget.kept_share is None else {"kept_share": budget.kept_share}),
        }
        rivals["ours" if name == "plural" else name] = str(folder / stage)
        rows += curve_rows(name, results.training[stage], seed)
        print(f"  {name}, seed {seed}: {budget.seconds:.0f} s", flush=True)
    more: Setting = {"best_of_n.n": BEST_OF} if "best-of-n" in args.methods else {}
    if "prompting" in args.methods:
        more["prompting.instruction"] = INSTRUCTION
    folder, measured = runs.measure("measured", {**_sizes(args), **more, "evaluate.rivals": rivals}, seed)
    print(f"  seed {seed}: {folder / 'report.html'}", flush=True)
    return (
        rows
        + tidy(measured, spent, args.methods, seed)
        + along_rows(measured, seed)
        + shift_rows(measured, args.methods, seed)
    )


def tidy(
    results: RunResults, spent: Mapping[str, Mapping[str, Any]], methods: Sequence[str], seed: int
) -> list[dict[str, Any]]:
    """Rows of all methods in one seed; those of weights other than the population's are summed up in one metric."""
    rows = []
    for of in (of for of in results.texts if of.weighting == "all"):
        steered = [other for other in results.texts if other.split == of.split and other.weighting != "all"]
        policies = dict.fromkeys(r.policy for r in of.rows if r.policy != "people")
        for measured in (*of.rows, *filter(None, (steered_gain(policy, steered, of) for policy in policies))):
            method = OF_POLICY.get(measured.policy, measured.policy)
            if measured.value is None or (method in MODES and method not in methods):
                continue
            labels = {name: getattr(measured, name) for name in ("jury", "cluster", "rival", "k", "floor", "baseline")}
            labels = {name: value for name, value in labels.items() if value not in ("", None)}
            drawn = {"generated": pool_drawn(of, measured.policy)}
            more = {**labels, "split": of.split, "seed": seed, **spent.get(method, drawn)}
            low, high = (math.nan if end is None else end for end in (measured.ci_low, measured.ci_high))
            rows.append(
                row(CASE, method, measured.measure, measured.value, measured.unit, low=low, high=high, n=measured.n)
                | more
            )
    return rows


def pool_drawn(of: TextResults, policy: str) -> int:
    """Count the texts of pi_0 that were drawn for a policy to choose among, on the prompts of a split."""
    from plural_rlhf.recipe.open_ended.measured_policies import Choice

    settings: Any = of.settings
    candidates = settings.get("candidates", {}).get(policy)
    if candidates is None:
        return 0
    return Choice(candidates).pool_size(settings["texts_per_prompt"]) * len(settings["prompts"])


def along_rows(results: RunResults, seed: int) -> list[dict[str, Any]]:
    """Rows of every checkpoint: how far from pi_0 it is, and what both juries gain; by `split` and `step`."""
    rows = []
    for at in results.along:
        values = {"kl_to_reference": (at.kl_to_reference, "nats"), "gain": (at.gain, "share")}
        if at.heldout_gain is not None:
            values["heldout_gain"] = (at.heldout_gain, "share")
        labels = {"split": at.split, "step": at.step, "seed": seed}
        method = OF_POLICY.get(at.policy, at.policy)
        rows += [
            row(CASE, method, f"along/{metric}", value, unit, n=at.n) | labels
            for metric, (value, unit) in values.items()
        ]
    return rows


def shift_rows(results: RunResults, methods: Sequence[str], seed: int) -> list[dict[str, Any]]:
    """Rows of `approval_shift`: by what was asked for (`request`), jury and cluster, what asking for it changes."""
    rows = []
    for of in results.texts:
        for shift in (r for r in of.rows if r.measure == "approval_shift" and r.value is not None):
            ends = {"low": shift.ci_low, "high": shift.ci_high}
            labels = {"request": of.weighting, "jury": shift.jury, "cluster": shift.cluster, "split": of.split}
            known = {name: end for name, end in ends.items() if end is not None}
            method = OF_POLICY.get(shift.policy, shift.policy)
            if method in MODES and method not in methods:
                continue
            rows.append(row(CASE, method, shift.measure, shift.value, shift.unit, n=shift.n, **known))
            rows[-1] |= labels | {"seed": seed}
    return rows


def steered_gain(policy: str, steered: Sequence[TextResults], of: TextResults) -> TextRow | None:
    """Return what the worst-off cluster gains by being asked for: over pi_0 under the same words.

    Of pi_0 itself, over pi_0 for the population: what words alone do.
    """
    jury = "heldout" if any(r.jury == "heldout" for r in of.rows) else "training"
    gains = []
    for other in steered:
        found = other.row(policy, "approval", jury=jury, cluster=other.weighting)
        before = of.row(policy, "approval", jury=jury, cluster=other.weighting)
        if found is None or found.value is None:
            continue
        labels = {"measure": "steered_approval_gain_worst", "cluster": "", "unit": "share"}
        if policy == "warm" and before is not None and before.value is not None:
            words_alone = {"value": found.value - before.value, "ci_low": None, "ci_high": None}
            gains.append(found.model_copy(update=labels | words_alone))
        elif found.gain is not None:
            ends = {"value": found.gain, "ci_low": found.gain_low, "ci_high": found.gain_high}
            gains.append(found.model_copy(update=labels | ends))
    return min(gains, key=lambda gain: gain.value or 0.0, default=None)


def of_seeds(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows over seeds: the mean, and its interval if there are several seeds.

    `prompts_low` and `prompts_high` are the means of the seeds' intervals over prompts, which the interval over seeds
    knows nothing of, since all seeds have the same prompts.
    """
    numbers = ("value", "ci_low", "ci_high", "n", "seed", "seconds", "floor", "baseline", "kept_share")
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
        ends = [(r["ci_low"], r["ci_high"]) for r in of]
        if all(end is not None and math.isfinite(end) for pair in ends for end in pair):
            means = [statistics.fmean(side) for side in zip(*ends, strict=True)]
            seconds |= {"prompts_low": means[0], "prompts_high": means[1]}
        joined.append(
            {**of[0], "value": value, "ci_low": low, "ci_high": high, "n": len(of), **seconds, "seed": "all"}
        )
    return joined


def curve_rows(method: str, history: Sequence[LoggedStep], seed: int) -> list[dict[str, Any]]:
    """What a trainer logged: the mean of each tenth of its steps."""
    rows = []
    steps = [step.to_dict() for step in history]
    for metric in CURVES:
        logged = [step[metric] for step in steps if step.get(metric) is not None]
        size = max(1, len(logged) // 10)
        for first in range(0, len(logged), size):
            mean = statistics.fmean(logged[first : first + size])
            labels = {"step": min(first + size, len(logged)), "seed": seed}
            rows.append(row(CASE, method, f"curve/{metric}", mean, "nats", **labels))
    return rows


def _sizes(args: argparse.Namespace) -> Setting:
    sizes = {"samples": args.samples, "reference_samples": args.reference_samples, "along_samples": args.along_samples}
    return {f"evaluate.{name}": number for name, number in sizes.items()}


def _shown(setting: Setting) -> str:
    return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in setting.items())


def _value(found: TextRow | None) -> float:
    return math.inf if found is None or found.value is None else found.value


def _cells(rows: Sequence[dict[str, Any]], method: str) -> Iterator[str]:
    for metric, jury in SHOWN.items():
        key = (method, metric, jury)
        found = [r for r in rows if (r["method"], r["metric"], r.get("jury", "")) == key and not r.get("cluster")]
        yield f"{found[0]['value']:.3f}" if found else ""


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print a table per split; all rows are of one topic."""
    names = [f"{metric.replace('_', ' ')}{f' ({jury})' if jury else ''}" for metric, jury in SHOWN.items()]
    for split in dict.fromkeys(r["split"] for r in rows if "split" in r):
        of_split = [r for r in rows if r.get("split") == split]
        methods = dict.fromkeys(r["method"] for r in of_split)
        print_table(
            f"{CASE}, {of_split[0]['topic']}, {split}",
            ["method", *names],
            [[m, *_cells(of_split, m)] for m in methods],
        )


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; what cannot be run ends the program, with the reason."""
    parser = make_parser(__doc__ or "")
    parser.add_argument("--model", choices=MODELS, default="smollm2", help="the policy (default: smollm2)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help=", ".join(METHODS))
    parser.add_argument("--seeds", type=int, default=3, help="runs that count, per method (default: 3)")
    parser.add_argument("--steps", type=int, default=60, help="batches of completions (default: 60)")
    parser.add_argument("--group", type=int, default=16, help="completions per batch (default: 16)")
    parser.add_argument("--samples", type=int, default=48, help="texts per question and policy (default: 48)")
    parser.add_argument("--reference-samples", type=int, default=256, help="texts of pi_0 per question (default: 256)")
    parser.add_argument("--along", type=int, default=4, help="checkpoints measured per training (default: 4)")
    parser.add_argument("--along-samples", type=int, default=8, help="texts per question and checkpoint (default: 8)")
    parser.add_argument("--topic", choices=POLARIZED, default=TOPIC, help=f"what is trained on (default: {TOPIC})")
    parser.add_argument("--tuning-topic", choices=POLARIZED, help="what settings are chosen on (default: the other)")
    parser.add_argument(
        "--learning-rates", type=learning_rate, nargs="+", default=list(RATES), metavar="RATE",
        help=f"rates that each method tries (default: {' '.join(map(str, RATES))})",
    )  # fmt: skip
    parser.add_argument(
        "--rate", type=rate_of_method, action="append", default=[], metavar="METHOD=RATE[,RATE]",
        help="rates that one method tries in their place; may be repeated for other methods",
    )  # fmt: skip
    parser.add_argument(
        "--tuning", choices=("full", "settings", "none"), default="full",
        help="tune all settings, all but the learning rate, or none (default: full)",
    )  # fmt: skip
    parser.add_argument("--data", type=Path, default=DATA, help="folder with polarized/")
    add_parts(parser)
    args = parser.parse_args(argv)
    if args.smoke:
        args.model, args.seeds, args.steps, args.group, args.samples = "tiny", 1, 2, 4, 8
        args.reference_samples, args.along, args.along_samples, args.tuning = 16, 1, 2, "none"
    if args.tuning_topic is None:
        args.tuning_topic = next(topic for topic in POLARIZED if topic != args.topic)
    if args.tuning != "none" and args.tuning_topic == args.topic:
        parser.error(
            f"--tuning-topic is {args.tuning_topic}, as --topic is: settings that are chosen on what they are "
            "measured on flatter. Leave it out for the other topic, or give --tuning none"
        )
    named = [name for name, _ in args.rate]
    for name, rates in args.rate:
        if name not in args.methods:
            parser.error(f"--rate {name}=... is of a method that is not run: --methods is {' '.join(args.methods)}")
        if named.count(name) > 1:
            parser.error(f"--rate names {name} {named.count(name)} times; give its rates in one, as {name}=2e-5,5e-5")
        if len(rates) > 1 and args.tuning != "full":
            parser.error(f"--rate gives {name} {len(rates)} rates, and --tuning {args.tuning} tries one: give one")
    args.rate = dict(args.rate)
    return args


def main() -> None:
    args = arguments()
    environment()
    started = time.perf_counter()
    rows: list[dict[str, Any]] = []
    best: dict[str, tuple[str, Setting]] = {}
    trained = [name for name in args.methods if name in TRAINED]
    with parts(args) as folder:
        try:
            size = MODELS[args.model]
            runs = Runs(folder, args.data, args.topic, size, BETA)
            tuning = None if args.tuning == "none" else Runs(folder, args.data, args.tuning_topic, size, BETA)
            best = tuned(tuning, trained, args)
            for seed in range(args.seed, args.seed + args.seeds):
                rows += [r | {"topic": args.topic} for r in run_seed(runs, best, seed, args)]
                show(of_seeds(rows))
        except (Unavailable, ImportError) as reason:
            print(f"{CASE} skipped: {reason}")
            rows = [row(CASE, "all", "skipped", math.nan, "", n=0, skipped=str(reason), topic=args.topic)]
    write(
        args,
        of_seeds(rows),
        started,
        topic=args.topic,
        tuning_topic=None if args.tuning == "none" else args.tuning_topic,
        beta=BETA,
        model=args.model,
        steps=args.steps,
        group=args.group,
        tuning=args.tuning,
        settings={method: setting for method, (_, setting) in best.items()},
    )


if __name__ == "__main__":
    main()
