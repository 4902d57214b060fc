"""The command `python -m reward_models.evaluate`: measure a saved jury on judgements that it was not fitted to.

Reads the table, scores each different text once, adapts to the raters by a part of their labels, and measures the
rest: the jury reward model, the same without knowledge of its raters, one reward for everybody, and answers that need
no reward model. Holds no statistics of its own; those are in `reward_models.evaluation`.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from reward_models.borders import any_terminal, say
from reward_models.errors import JudgementError, JudgementWarning, JuryError
from reward_models.evaluation.cells import Cells, evaluation_cells
from reward_models.evaluation.clusters import Clusters, known_memberships
from reward_models.evaluation.controls import FixedAnswers, Strangers
from reward_models.evaluation.evaluate_jury import evaluate_jury
from reward_models.evaluation.heldout import HELDOUT_FILE, HeldoutRecord, divide
from reward_models.evaluation.judgement_bootstrap import Bootstrap
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.records import Judgements
from reward_models.progress import progress_bars
from reward_models.raters.predictors import Predictor
from reward_models.weights import parse_weights


if TYPE_CHECKING:
    from reward_models.evaluation.saved_jury import SavedJury
    from reward_models.jury.scorer import JuryScorer

__all__ = ["UsageError", "main", "run"]

ONE_REWARD, BASE_JURY = "one reward, rater terms", "base jury"
REPORT_FILE = "evaluation.md"
PROG = "python -m reward_models.evaluate"
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

examples:
  %(prog)s runs/quickstart/jury --data all.csv --columns map.yaml
  %(prog)s runs/jury --data votes.csv --columns votes.columns.yaml
  %(prog)s runs/jury --data test.parquet --columns map.yaml --train train.parquet \\
      --base runs/jury-k1 --weights "urban=2,rural=1" --output runs/evaluation

Exit status: 0 when something was measured, whatever the verdict; 2 when the input cannot be used.
"""


class UsageError(ValueError):
    """Arguments that the command cannot read.

    Example:
        >>> run(["runs/jury"])
        Traceback (most recent call last):
        reward_models.evaluate.UsageError: the following arguments are required: --data.
        python -m reward_models.evaluate --help lists the options.
    """


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}. {self.prog} --help lists the options.")


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
        reward_models.evaluate.UsageError: the folder of the jury is missing: name it once, e.g.
        python -m reward_models.evaluate runs/jury --data test.csv.
    """
    args = _parser(prog).parse_args(argv)
    if (args.jury is None) == (args.jury_option is None):
        fault = "there twice" if args.jury else "missing"
        raise UsageError(f"the folder of the jury is {fault}: name it once, e.g. {prog} runs/jury --data test.csv.")
    args.jury = args.jury or args.jury_option
    with progress_bars():
        _run(args, shlex.join([*prog.split(), *argv]))


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=prog, description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "jury", nargs="?", metavar="JURY", help="folder of a saved jury reward model, or its id on the Hub"
    )
    parser.add_argument("--jury", dest="jury_option", metavar="JURY", help="the same as an option")
    parser.add_argument("--data", required=True, type=Path, metavar="FILE", help="judgements to score: csv, tsv, ...")
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
    parser.add_argument("--draws", type=int, default=200, help="resamples behind each interval (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of labels and resamples (default: 0)")
    parser.add_argument("--batch-size", type=int, default=32, help="texts per forward pass (default: 32)")
    parser.add_argument("--max-length", type=int, help="longest text in tokens (default: that of the jury)")
    parser.add_argument("--device", help="device of the model (default: the accelerator if there is one)")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="write results.json, evaluation.md and, for pairs, rewardbench.json here",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write results.json under this name")
    parser.add_argument("--traceback", action="store_true", help="show where an error was raised")
    return parser


def _run(args: argparse.Namespace, command: str) -> None:
    """Check all input before the first text is scored; then score, measure, print and write."""
    bootstrap = Bootstrap(draws=args.draws, seed=args.seed)
    test, train, fitted_to = _unseen(args)
    cells = evaluation_cells(test, train, adapt_share=args.adapt_share, by=args.by, seed=args.seed)
    if train is None and cells.adapt is None:
        raise JudgementError(
            f"none of the {test.n_raters} raters has two judgements, one to adapt by and one to score. Fix: use a "
            "table in which raters judged several items."
        )
    for path in (args.json, None if args.output is None else args.output / "results.json"):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)

    from rich.console import Console

    from reward_models.evaluation.report import report_sheets
    from reward_models.evaluation.saved_jury import score_texts
    from reward_models.evaluation.sheets import markdown, show
    from reward_models.jury.scorer import JuryScorer
    from reward_models.whole_file import whole_file, write_json

    settings = {"device": args.device, "batch_size": args.batch_size, "max_length": args.max_length}
    scorer = JuryScorer.from_pretrained(args.jury, **settings)
    weights = parse_weights(args.weights, scorer.cluster_names, scorer.prevalence)
    base = None if args.base is None else JuryScorer.from_pretrained(args.base, **settings)
    if base is not None and len(base.cluster_names) != 1:
        raise JuryError(
            f"--base {args.base!r} has {len(base.cluster_names)} clusters, and the base is one reward for everybody. "
            "Fix: give a jury that was fitted with one cluster (clusters=1), or remove --base"
        )

    texts = list(dict.fromkeys(text for table in (test, train) if table is not None for text in table.encode().texts))
    rewards = score_texts(scorer, texts)
    jury, models = _models(scorer, base, texts, rewards, cells, train)
    clusters = None
    if jury.model.membership != "factor":
        clusters = Clusters(jury.memberships, scorer.cluster_names, weights)
    result = evaluate_jury(
        models,
        test,
        train,
        base=ONE_REWARD if base is None else BASE_JURY,
        rivals=["marginal"] if test.kind == "choice" else [],
        model="jury",
        adapt_share=args.adapt_share,
        by=args.by,
        clusters=clusters,
        ensembles={"jury": (jury.code_rewards, np.exp(jury.model.code_log_prior))},
        seed=args.seed,
        bootstrap=bootstrap,
    )
    console = Console()
    console = console if console.is_terminal else Console(width=160)
    sheets = report_sheets(result)
    if "rater_weight" in test.frame:
        alike = test.encode().effective_raters
        sheets.append(f"Sampling weights: {test.n_raters:,} raters count as {alike:,.1f} of equal weight (Kish).")
    show(sheets, console)
    facts = {
        "judgements": len(test),
        "fitted_to": fitted_to,
        "raters": test.n_raters,
        "effective_raters": test.encode().effective_raters,
        "texts": len(texts),
        "clusters": dict(zip(scorer.cluster_names, scorer.prevalence.tolist(), strict=True)),
        "rater_model": "stored" if jury.model is scorer.state.rater_model else "fitted to labels that were not scored",
        "verdict": result.verdict,
    }
    files: dict[str, Any] = {"results.json": {"meta": _meta(args, command, test.kind) | facts, "rows": result.rows}}
    if test.kind == "preference":
        unscored = [table.encode() for table in (train, cells.adapt) if table is not None]
        files["rewardbench.json"] = _rewardbench(args.jury, scorer, jury, cells, unscored, clusters, weights)
    written = {} if args.output is None else {args.output / name: content for name, content in files.items()}
    if args.json is not None:
        written[args.json] = files["results.json"]
    for path, content in written.items():
        write_json(path, content)
        say(f"Written to {path}")
    if args.output is not None:
        with whole_file(args.output / REPORT_FILE) as page:
            page.write(markdown(f"{args.jury} on {args.data}", sheets) + "\n")
        say(f"Written to {args.output / REPORT_FILE}")


def _meta(args: argparse.Namespace, command: str, kind: str) -> dict[str, Any]:
    """Return the arguments and the versions of packages, for `results.json`."""
    from reward_models.evaluation.report import versions

    return {
        "jury": args.jury,
        "base": args.base,
        "data": str(args.data),
        "train": None if args.train is None else str(args.train),
        "kind": kind,
        "seed": args.seed,
        "draws": args.draws,
        "versions": versions(),
        "command": command,
    }


def _read(path: Path, columns: Path | None) -> Judgements:
    """Read a table; what its codes were taken for and its warnings are printed as lines of text."""
    from reward_models.sources import read_table

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", JudgementWarning)
        reading = read_table(path, columns)
    for warning in caught:
        say(f"note: {path.name}: {warning.message}", err=True)
    say(reading)
    return reading.judgements


def _unseen(args: argparse.Namespace) -> tuple[Judgements, Judgements | None, str]:
    """Read the tables and set aside what the jury, or the one to compare with, was fitted to.

    Returns:
        The judgements to measure on; those that the jury was fitted to, None if they are not at hand; and, in words,
        how they are known.
    """
    test, train = _read(args.data, args.columns), None
    if args.train is not None:
        train = _read(args.train, args.columns)
    juries = [jury for jury in (args.jury, args.base) if jury is not None]
    records = {jury: HeldoutRecord.beside(jury) for jury in juries}
    before = len(test)
    fitted, test = divide(test, [record for record in records.values() if record is not None])
    facts = []
    if fitted is not None:
        fate = "they serve as training judgements" if train is None else "they are left out; --train has others"
        facts.append(f"{HELDOUT_FILE} names {len(fitted):,} of {before:,} judgements of --data, not scored: {fate}")
    elif any(records.values()):
        facts.append(f"{HELDOUT_FILE} names none of the {before:,} judgements of --data")
    if train is not None:
        facts.append(f"--train has {len(train):,} judgements")
    facts += [
        f"not known for {jury}, without --train and without {HELDOUT_FILE} beside its folder. If raters or items of "
        "--data were among it, the numbers are too good. Fix: give its training judgements with --train"
        for jury, record in records.items()
        if record is None and train is None
    ]
    fitted_to = "; ".join(facts)
    say(f"note: what the jury was fitted to: {fitted_to}", err=True)
    return test, fitted if train is None else train, fitted_to


def _models(
    scorer: JuryScorer,
    base: JuryScorer | None,
    texts: list[Any],
    rewards: np.ndarray,
    cells: Cells,
    train: Judgements | None,
) -> tuple[SavedJury, dict[str, Predictor]]:
    """Return the jury, and by name all models that are measured; they adapt to raters of the training table."""
    from reward_models.evaluation.saved_jury import SavedJury, fit_rater_model, score_texts
    from reward_models.raters.rater_model import RaterModel

    known = train if train is not None else cells.adapt
    assert known is not None  # `_run` raised for a table without labels to adapt by
    labels = known.encode()
    row = {text: i for i, text in enumerate(texts)}
    of_labels = [row[text] for text in labels.texts]

    def saved(
        values: np.ndarray, prevalence: np.ndarray, stored: RaterModel | None = None, rater_terms: bool = True
    ) -> SavedJury:
        fits = stored is not None and stored.n_basis == values.shape[1] and labels.kind in stored.terms
        model = stored if fits else fit_rater_model(labels, values[of_labels], prevalence, rater_terms=rater_terms)
        assert model is not None
        jury = SavedJury.unadapted(model, texts, values)
        return jury if train is None else jury.adapt(labels)

    one, mean = np.ones(1), rewards @ scorer.prevalence[:, None]
    jury = saved(rewards, scorer.prevalence, scorer.state.rater_model)
    models: dict[str, Predictor] = {"jury": jury, "jury, raters unknown": Strangers(jury)}
    models["one reward"] = saved(mean, one, rater_terms=False)
    models[ONE_REWARD] = saved(mean, one, scorer.state.rater_model)  # used only if the jury itself is of one cluster
    if base is not None:
        models[BASE_JURY] = saved(score_texts(base, texts), one, base.state.rater_model)
    return jury, models | {"marginal": FixedAnswers(labels), "uniform": FixedAnswers()}


def _rewardbench(
    name: str,
    scorer: JuryScorer,
    jury: SavedJury,
    cells: Cells,
    unscored: list[Encoded],
    clusters: Clusters | None,
    weights: np.ndarray,
) -> dict[str, Any]:
    """Return the content of RewardBench's file for the scored pairs: all, by case, and by cluster of raters."""
    import pandas as pd

    from reward_models.evaluation.report import rewardbench

    frames = {case: table.frame for case, table in cells.scored.items()}
    scored = Judgements("preference", pd.concat(frames.values(), ignore_index=True))
    enc = scored.encode()
    case = np.repeat(list(frames), [len(frame) for frame in frames.values()])[scored.encoded_rows]
    subsets = {"all": np.ones(len(enc), dtype=bool)}
    subsets |= {name: case == name for name in frames if len(frames) > 1}
    memberships = None if clusters is None else known_memberships(clusters, unscored, enc)
    scores = jury.rewards_of(enc) @ weights
    template = None if isinstance(enc.texts[0].prompt, str) else scorer.tokenizer.chat_template
    return rewardbench(scores, enc, name, template, subsets, memberships, scorer.cluster_names)


if __name__ == "__main__":
    sys.exit(main())
