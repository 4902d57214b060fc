"""The command `python -m reward_models.evaluate`: measure a saved jury on judgements that it was not fitted to.

Reads the table, scores each different text once, adapts to the raters by a part of their labels, and measures the
rest: the jury reward model, the same without knowledge of its raters, one reward for everybody, and answers that need
no reward model. Holds no statistics of its own; those are in `reward_models.evaluation`.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from reward_models.borders import any_terminal, say
from reward_models.errors import JudgementError, JuryError
from reward_models.evaluation.benchmarks.items import read_benchmark
from reward_models.evaluation.command.options import PROG, UsageError, parse_options
from reward_models.evaluation.command.tables import read_judged
from reward_models.evaluation.judgement_bootstrap import Bootstrap
from reward_models.judgements.texts import as_messages
from reward_models.progress import progress_bars
from reward_models.weights import parse_weights


__all__ = ["UsageError", "main", "run"]

REPORT_FILE = "evaluation.md"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments; None for those of the process.

    Returns:
        0, or 2 with a message on stderr if the input cannot be used.

    Example:
        >>> main(["runs/jury", "--data", "no-such-file.csv"])
        2
    """
    argv = sys.argv[1:] if argv is None else argv
    any_terminal()
    try:
        run(argv)
    except (JudgementError, JuryError, UsageError, OSError) as error:
        if "--traceback" in argv:
            raise
        say("\n".join([f"error: {error}", *getattr(error, "__notes__", ())]), err=True)
        return 2
    return 0


def run(argv: Sequence[str], prog: str = PROG) -> None:
    """Run the command; errors are left to the caller.

    Args:
        argv: Arguments.
        prog: Name of the command, for its help and the file of results.

    Raises:
        UsageError: Arguments that cannot be read.
        JudgementError, JuryError, OSError: Judgements, a jury or files that cannot be used.
        SystemExit: `--help`, after printing it.

    Example:
        >>> run(["--data", "test.csv"])
        Traceback (most recent call last):
        reward_models.evaluation.command.options.UsageError: the folder of the jury is missing: name it once, e.g.
        python -m reward_models.evaluate runs/jury --data test.csv.
    """
    args = parse_options(prog, argv)
    with progress_bars():
        _run(args, shlex.join([*prog.split(), *argv]))


def _run(args: argparse.Namespace, command: str) -> None:
    """Check all input before the first text is scored; then score, measure, print and write."""
    bootstrap = Bootstrap(draws=args.draws, seed=args.seed)
    benchmarks = {path: read_benchmark(path) for path in args.benchmark}
    judged = None if args.data is None else read_judged(args)
    for path in (args.json, None if args.output is None else args.output / "results.json"):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)

    from rich.console import Console

    from reward_models.evaluation.command.measured import Measured, measure_benchmark, measure_judgements
    from reward_models.evaluation.sheets import markdown, show
    from reward_models.jury.scorer import JuryScorer
    from reward_models.whole_file import whole_file, write_json

    settings = {"device": args.device, "batch_size": args.batch_size, "max_length": args.max_length}
    scorer = JuryScorer.from_pretrained(args.jury, **settings)
    weights = parse_weights(args.weights, scorer.cluster_names, scorer.prevalence)
    base, against = (
        None if name is None else JuryScorer.from_pretrained(name, **settings) for name in (args.base, args.against)
    )
    if base is not None and len(base.cluster_names) != 1:
        raise JuryError(
            f"--base {args.base!r} has {len(base.cluster_names)} clusters, and the base is one reward for everybody. "
            "Fix: give a jury that was fitted with one cluster (clusters=1), or remove --base"
        )
    measured = Measured(meta=_meta(args, command))
    if judged is not None:
        texts = judged.texts
        prompts, responses = [as_messages(text.prompt) for text in texts], [text.response for text in texts]
        for difference in scorer.state.unlike_fitted(prompts, responses):
            say(f"note: the jury {args.jury!r} was fitted to texts of another kind: {difference}", err=True)
        measured.add(measure_judgements(args, judged, scorer, base, against, weights, bootstrap))
    for path, benchmark in benchmarks.items():
        measured.add(measure_benchmark(args.jury, path, benchmark, scorer, weights))
    console = Console()
    show(measured.sheets, console if console.is_terminal else Console(width=160))
    results = {"meta": measured.meta, "rows": measured.rows}
    written = {} if args.output is None else {args.output / name: content for name, content in measured.files.items()}
    if args.output is not None:
        written[args.output / "results.json"] = results
    if args.json is not None:
        written[args.json] = results
    for path, content in written.items():
        write_json(path, content)
        say(f"Written to {path}")
    if args.output is not None:
        with whole_file(args.output / REPORT_FILE) as page:
            page.write(markdown(f"{args.jury} on {args.data or ', '.join(map(str, benchmarks))}", measured.sheets))
            page.write("\n")
        for name, draw in measured.plots.items():
            draw(args.output / name)
        for name in (REPORT_FILE, *measured.plots):
            say(f"Written to {args.output / name}")


def _meta(args: argparse.Namespace, command: str) -> dict[str, Any]:
    """Return the arguments and the versions of packages, for `results.json`."""
    from reward_models.evaluation.report import versions

    return {
        "jury": args.jury,
        "base": args.base,
        "data": None if args.data is None else str(args.data),
        "train": None if args.train is None else str(args.train),
        "benchmarks": [str(path) for path in args.benchmark],
        "seed": args.seed,
        "draws": args.draws,
        "versions": versions(),
        "command": command,
    }


if __name__ == "__main__":
    # Read when torch is loaded, which nothing above does: waiting threads that spin slow a shared machine down.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(main())
