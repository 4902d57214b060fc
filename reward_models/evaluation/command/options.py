"""The options of `evaluate-jury`, and the help that explains what is measured.

Knows nothing of how anything is measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn


__all__ = ["PROG", "UsageError", "parse_options"]

PROG = "python -m reward_models.evaluate"
OF_JUDGEMENTS = ("columns", "train", "base", "baselines", "explain", "best_of_n", "against")
"""Options that say nothing where there is a benchmark only."""
DESCRIPTION = """\
Measure a saved jury on judgements that it was not fitted to.

The jury adapts to each rater by a part of the rater's labels, and the rest is predicted: by the jury, by one reward
for everybody, and by answers that need no reward model. Raters and prompts that were trained on and new ones are
measured separately, and no judgement is scored that the jury was fitted to: a run folder says which these are
(heldout.json), otherwise --train does. Ends with a verdict in words, about taste alone: the one reward for everybody
knows of leniency, scale, ties and position what the jury knows.
"""
EPILOG = """\
models in the table:
  jury                    the saved jury, adapted to the raters by their adaptation labels
  jury, raters unknown    the same, every rater predicted as a random member of the population
  one reward              one reward for everybody: the jury's mean reward, its scale and tie rate fitted to the
                          adaptation labels
  one reward, rater terms the same, with raters that differ in leniency, scale, ties and position, not in taste: the
                          base of all comparisons
  base jury               (with --base) another saved jury of one cluster, with the rater terms that it was saved with;
                          it is then the base
  marginal                answers by their frequency: in each question for choices, in the table for other kinds; for
                          choices the verdict compares the jury with it, too
  uniform                 all answers equally probable
  log-probability         (with --baselines) the reward is how probable a language model finds the response, in all or
                          per token; it is not trained on judgements, rater terms are fitted as to one reward
  in-context              (with --baselines) a language model reads up to eight of the rater's own judgements and
                          answers the next; one scale and a level per answer are fitted, no weight

examples:
  %(prog)s runs/quickstart/jury --data all.csv --columns map.yaml
  %(prog)s runs/jury --data votes.csv --columns votes.columns.yaml
  %(prog)s runs/jury --data test.parquet --columns map.yaml --train train.parquet \\
      --base runs/jury-k1 --weights "urban=2,rural=1" --output runs/evaluation
  %(prog)s runs/jury --data votes.csv --best-of-n --against runs/jury-of-others --output runs/evaluation
  %(prog)s runs/jury --data votes.csv --baselines in-context log-probability --language-model models/base
  %(prog)s runs/jury --benchmark reward-bench-2.parquet rm-bench.json --output runs/evaluation

Exit status: 0 when something was measured, whatever the verdict; 2 when the input cannot be used.
"""


class UsageError(ValueError):
    """Arguments that the command cannot read.

    Example:
        >>> parse_options("evaluate-jury", ["runs/jury"])
        Traceback (most recent call last):
        reward_models.evaluation.command.options.UsageError: the following arguments are required: --data, or
        --benchmark. evaluate-jury --help lists the options.
    """


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}. {self.prog} --help lists the options.")


def parse_options(prog: str, argv: Sequence[str]) -> argparse.Namespace:
    """Read the options.

    Args:
        prog: Name of the command, for its help.
        argv: Arguments.

    Raises:
        UsageError: Arguments that cannot be read.
        SystemExit: `--help`, after printing it.

    Example:
        >>> parse_options("evaluate-jury", ["runs/jury", "--data", "test.csv"]).jury
        'runs/jury'
    """
    parser = _Parser(
        prog=prog, description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "jury", nargs="?", metavar="JURY", help="folder of a saved jury reward model, or its id on the Hub"
    )
    parser.add_argument("--jury", dest="jury_option", metavar="JURY", help="the same as an option")
    parser.add_argument("--data", type=Path, metavar="FILE", help="judgements to score: csv, tsv, ...")
    parser.add_argument(
        "--columns", type=Path, metavar="MAP.yaml", help="column map of the tables (default: they have our names)"
    )
    parser.add_argument(
        "--train",
        type=Path,
        metavar="FILE",
        help="judgements the jury was fitted to, to tell seen from unseen (default: heldout.json beside the jury's "
        "folder says which of --data they are)",
    )
    parser.add_argument("--base", metavar="FOLDER_OR_ID", help="a saved jury of one cluster to compare with")
    parser.add_argument(
        "--baselines",
        nargs="+",
        choices=("in-context", "log-probability"),
        default=[],
        metavar="NAME",
        help="further models, of --language-model: in-context, log-probability",
    )
    parser.add_argument(
        "--language-model", metavar="FOLDER_OR_ID", help="a causal language model, e.g. the base model of the jury"
    )
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="keep what the language model says, to go on after a stop",
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="say which differences of style and content each cluster rewards, all else equal, and where clusters "
        "differ (English texts)",
    )
    parser.add_argument(
        "--best-of-n",
        action="store_true",
        help="also measure selection among the responses of each prompt of --data: best of n, and whether one of them "
        "would please every cluster",
    )
    parser.add_argument(
        "--against",
        metavar="FOLDER_OR_ID",
        help="a jury of other raters that says what a selected response is worth (implies --best-of-n); without it "
        "the "
        "jury says so itself, which is an upper bound",
    )
    parser.add_argument(
        "--benchmark",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="local copies of RewardBench, RewardBench 2 or RM-Bench to score, in their own schemas",
    )
    parser.add_argument(
        "--adapt-share",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="share of each unseen rater's labels to adapt by; the rest is scored (default: 0.5)",
    )
    parser.add_argument(
        "--by",
        choices=("prompt", "item"),
        default="prompt",
        help="what must not be in --train for a judgement to count as unseen (default: prompt)",
    )
    parser.add_argument(
        "--weights",
        metavar="NAME=SHARE,...",
        default="prevalence",
        help="weights of the clusters for welfare: shares, one cluster's name, uniform or prevalence (the default)",
    )
    parser.add_argument(
        "--draws", type=int, default=200, help="resamples behind intervals of what is no mean (default: 200)"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed of labels and resamples (default: 0)")
    parser.add_argument("--batch-size", type=int, default=32, help="texts per forward pass (default: 32)")
    parser.add_argument("--max-length", type=int, help="longest text in tokens (default: that of the jury)")
    parser.add_argument("--device", help="device of the model (default: the accelerator if there is one)")
    parser.add_argument(
        "--output",
        "--out",
        type=Path,
        metavar="DIR",
        help="write results.json and evaluation.md here, and for pairs "
        "rewardbench.json, for --best-of-n two plots, for --benchmark its results and the scores of every sample",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write results.json under this name")
    parser.add_argument("--traceback", action="store_true", help="show where an error was raised")
    args = parser.parse_args(argv)
    if (args.jury is None) == (args.jury_option is None):
        fault = "there twice" if args.jury else "missing"
        raise UsageError(f"the folder of the jury is {fault}: name it once, e.g. {prog} runs/jury --data test.csv.")
    if args.data is None and not args.benchmark:
        raise UsageError(
            f"the following arguments are required: --data, or --benchmark. {prog} --help lists the options."
        )
    if args.baselines and args.language_model is None:
        raise UsageError(
            f"--baselines {' '.join(args.baselines)} asks a language model, and none is named. Fix: give "
            "--language-model, e.g. the folder of the base model that the jury was made of."
        )
    if not args.baselines and (unread := _given(args, "language_model", "cache")):
        raise UsageError(
            f"{' and '.join(unread)} would not be read: only --baselines asks a language model. Fix: add --baselines "
            "in-context log-probability, or one of them."
        )
    if args.data is None and (unread := _given(args, *OF_JUDGEMENTS)):
        raise UsageError(
            f"{' and '.join(unread)} would not be read: --benchmark needs no judgements, and these options are about "
            "judgements. Fix: add --data, or leave them out."
        )
    args.jury = args.jury or args.jury_option
    return args


def _given(args: argparse.Namespace, *names: str) -> list[str]:
    """Return which of the options were given, as they are written."""
    return [f"--{name.replace('_', '-')}" for name in names if getattr(args, name)]
