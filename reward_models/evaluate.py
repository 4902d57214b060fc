"""The command `python -m reward_models.evaluate`: what a saved jury is worth on judgements it was not fitted to.

Reads the table, scores each different text once, places the raters by a part of their labels, and measures the rest:
the jury, the jury without knowing its raters, one reward for everybody, and answers that need no reward model. Joins
the other files and holds no statistics of its own.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from reward_models.errors import JudgementError, JudgementWarning, JuryError, did_you_mean
from reward_models.evaluation.cells import Cells, evaluation_cells
from reward_models.evaluation.evaluate_jury import (
    Clusters,
    FixedAnswers,
    Strangers,
    evaluate_jury,
    known_memberships,
)
from reward_models.evaluation.judgement_bootstrap import Bootstrap
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.records import Judgements
from reward_models.raters.predictors import Predictor


if TYPE_CHECKING:
    from reward_models.evaluation.saved_jury import SavedJury
    from reward_models.jury.scorer import JuryScorer

__all__ = ["UsageError", "evaluate_jury", "main", "run"]

PROG = "python -m reward_models.evaluate"
DESCRIPTION = """\
Measure a saved jury on judgements that it was not fitted to.

A part of each rater's labels says where the rater stands, and the rest is scored: by the jury, by one reward for
everybody, and by answers that need no reward model. Raters and prompts that were trained on (--train) and new ones
are counted apart. Ends with a verdict in words.
"""
EPILOG = """\
models in the table:
  jury                    the saved jury, its raters placed by their adaptation labels
  jury, raters unknown    the same, every rater drawn from the population
  one reward              one reward for everybody: the jury's own mean, its scale and tie rate fitted to the
                          adaptation labels
  one reward, rater terms the same, raters differing in leniency, scale, ties and position, not in taste
  bt                      (with --base) another saved jury of one cluster, plain Bradley-Terry; then the base
  marginal, uniform       answers by their frequency; all answers alike

examples:
  %(prog)s runs/jury --data votes.csv --columns votes.columns.yaml
  %(prog)s runs/jury --data test.parquet --columns map.yaml --train train.parquet \\
      --base runs/jury-k1 --weights "urban=2,rural=1" --output runs/evaluation

Exit status: 0 when something was measured, whatever the verdict; 2 when the input cannot be used.
"""


class UsageError(ValueError):
    """Arguments that the command cannot read."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}. {self.prog} --help lists the options.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments; None for those of the process.

    Returns:
        0, or 2 with a message on stderr if the input cannot be used.
    """
    argv = sys.argv[1:] if argv is None else argv
    try:
        run(argv)
    except (JudgementError, JuryError, UsageError, OSError) as error:
        if "--traceback" in argv:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run(argv: Sequence[str], prog: str = PROG) -> None:
    """Run the command, and leave what is refused to the caller.

    Args:
        argv: Arguments.
        prog: How the command is called, for its help and its record.

    Raises:
        UsageError: Arguments that cannot be read.
        JudgementError, JuryError, OSError: Judgements, a jury or files that cannot be used.
        SystemExit: Help was asked for, and given.
    """
    args = _parser(prog).parse_args(argv)
    if (args.jury is None) == (args.jury_option is None):
        given = "twice" if args.jury else "nowhere"
        raise UsageError(f"the jury is given {given}: name it once, e.g. {prog} runs/jury --data test.csv.")
    args.jury = args.jury or args.jury_option
    _run(args, shlex.join([*prog.split(), *argv]))


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=prog, description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("jury", nargs="?", metavar="JURY", help="folder of a saved jury, or its id on the Hub")
    parser.add_argument("--jury", dest="jury_option", metavar="JURY", help="the same as an option")
    parser.add_argument("--data", required=True, type=Path, metavar="FILE", help="judgements to score: csv, tsv, ...")
    parser.add_argument(
        "--columns", type=Path, metavar="MAP.yaml", help="column map of the tables (default: they have our names)"
    )
    parser.add_argument(
        "--train", type=Path, metavar="FILE", help="judgements the jury was fitted to, to tell seen from unseen"
    )
    parser.add_argument("--base", metavar="FOLDER_OR_ID", help="a saved jury of one cluster to compare with")
    parser.add_argument(
        "--adapt-share",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="share of each unseen rater's labels that places them; the rest is scored (default: 0.5)",
    )
    parser.add_argument(
        "--by", choices=("prompt", "item"), default="prompt", help="what must be new to be unseen (default: prompt)"
    )
    parser.add_argument(
        "--weights", metavar="NAME=SHARE,...", help="weights of the clusters for welfare (default: the prevalence)"
    )
    parser.add_argument("--draws", type=int, default=200, help="resamples behind each interval (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the adaptation labels and resamples (default: 0)")
    parser.add_argument("--batch-size", type=int, default=32, help="texts per forward pass (default: 32)")
    parser.add_argument("--max-length", type=int, default=1024, help="longest text in tokens (default: 1024)")
    parser.add_argument("--device", help="where to score (default: the accelerator if there is one)")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="write results.json and, for pairs, rewardbench.json here"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write results.json under this name")
    parser.add_argument("--traceback", action="store_true", help="show where an error was raised")
    return parser


def _run(args: argparse.Namespace, command: str) -> None:
    """Everything that can be refused is refused before the first text is scored."""
    bootstrap = Bootstrap(draws=args.draws, seed=args.seed)
    test, train = _read(args.data, args.columns), None
    if args.train is not None:
        train = _read(args.train, args.columns)
    cells = evaluation_cells(test, train, adapt_share=args.adapt_share, by=args.by, seed=args.seed)
    if train is None and cells.adapt is None:
        raise JudgementError(
            f"none of the {test.n_raters} raters has two judgements, so nobody can be placed and scored. Fix: use a "
            "table in which raters judged several items."
        )
    for path in (args.json, None if args.output is None else args.output / "results.json"):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)

    from rich.console import Console

    from reward_models.evaluation.report import print_report
    from reward_models.evaluation.saved_jury import score_texts
    from reward_models.jury.scorer import JuryScorer
    from reward_models.whole_file import write_json

    how = {"device": args.device, "batch_size": args.batch_size, "max_length": args.max_length}
    scorer = JuryScorer.from_pretrained(args.jury, **how)
    weights = _weights(args.weights, scorer.cluster_names, scorer.prevalence)
    base = None if args.base is None else JuryScorer.from_pretrained(args.base, **how)
    if base is not None and len(base.cluster_names) != 1:
        raise JuryError(
            f"--base {args.base!r} has {len(base.cluster_names)} clusters, and the base is one reward for everybody. "
            "Fix: give a jury that was fitted with num_clusters=1, or leave --base out"
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
        base="bt" if base is not None else "one reward",
        jury="jury",
        adapt_share=args.adapt_share,
        by=args.by,
        clusters=clusters,
        ensembles={"jury": (jury.code_rewards, np.exp(jury.model.code_log_prior))},
        seed=args.seed,
        bootstrap=bootstrap,
    )
    console = Console()
    print_report(result, console if console.is_terminal else Console(width=160))
    about = {
        "judgements": len(test),
        "raters": test.n_raters,
        "texts": len(texts),
        "clusters": dict(zip(scorer.cluster_names, scorer.prevalence.tolist(), strict=True)),
        "rater_model": "stored" if jury.model is scorer.state.rater_model else "fitted to labels that were not scored",
        "verdict": result.verdict,
    }
    files: dict[str, Any] = {"results.json": {"meta": _meta(args, command, test.kind) | about, "rows": result.rows}}
    if test.kind == "preference":
        placing = [table.encode() for table in (train, cells.adapt) if table is not None]
        files["rewardbench.json"] = _rewardbench(args.jury, scorer, jury, cells, placing, clusters, weights)
    written = {} if args.output is None else {args.output / name: content for name, content in files.items()}
    if args.json is not None:
        written[args.json] = files["results.json"]
    for path, content in written.items():
        write_json(path, content)
        print(f"Written to {path}")


def _meta(args: argparse.Namespace, command: str, kind: str) -> dict[str, Any]:
    """What was asked for, and with which versions."""
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
    """Read a table, its warnings as lines of text."""
    from reward_models.sources import load_table

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", JudgementWarning)
        judgements = load_table(path, columns)
    for warning in caught:
        print(f"note: {path.name}: {warning.message}", file=sys.stderr)
    return judgements


def _weights(spec: str | None, names: Sequence[str], prevalence: np.ndarray) -> np.ndarray:
    """(K,) weights that sum to one, from `name=share,...`; clusters left out weigh nothing.

    Raises:
        JuryError: An unknown cluster, a share that is not a number of at least 0, or no positive one.
    """
    if spec is None:
        return prevalence
    weights = np.zeros(len(names))
    # A name may hold commas, a number may not.
    for name, share in re.findall(r"\s*(.+?)\s*=\s*([^,=]*?)\s*(?:,|$)", spec):
        if name not in names:
            raise JuryError(
                f"--weights: {name!r} is not a cluster of the jury.{did_you_mean(name, names)} Fix: name=share,... "
                f"with names from: {', '.join(map(repr, names))}"
            )
        try:
            weights[list(names).index(name)] = float(share)
        except ValueError as error:
            raise JuryError(f"--weights: {share!r} is not a number. Fix: e.g. {name}=0.5") from error
    if not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() <= 0:
        raise JuryError(f"--weights: {spec!r} must be name=share,... with shares of at least 0, one of them positive")
    return weights / weights.sum()


def _models(
    scorer: JuryScorer,
    base: JuryScorer | None,
    texts: list[Any],
    rewards: np.ndarray,
    cells: Cells,
    train: Judgements | None,
) -> tuple[SavedJury, dict[str, Predictor]]:
    """The jury and everything it is measured beside; raters of the training table are placed by it."""
    from reward_models.evaluation.saved_jury import SavedJury, fit_rater_model, score_texts
    from reward_models.raters.rater_model import RaterModel

    known = train if train is not None else cells.adapt
    assert known is not None  # `_run` refused a table in which nobody can be placed
    labels = known.encode()
    row = {text: i for i, text in enumerate(texts)}
    own = [row[text] for text in labels.texts]

    def saved(
        values: np.ndarray, prevalence: np.ndarray, stored: RaterModel | None = None, rater_terms: bool = True
    ) -> SavedJury:
        fits = stored is not None and stored.n_basis == values.shape[1] and labels.kind in stored.terms
        model = stored if fits else fit_rater_model(labels, values[own], prevalence, rater_terms=rater_terms)
        assert model is not None
        jury = SavedJury.unplaced(model, texts, values)
        return jury if train is None else jury.adapt(labels)

    one, mean = np.ones(1), rewards @ scorer.prevalence[:, None]
    jury = saved(rewards, scorer.prevalence, scorer.state.rater_model)
    models: dict[str, Predictor] = {"jury": jury, "jury, raters unknown": Strangers(jury)}
    models["one reward"] = saved(mean, one, rater_terms=False)
    models["one reward, rater terms"] = saved(mean, one)
    if base is not None:
        models["bt"] = saved(score_texts(base, texts), one, rater_terms=False)
    return jury, models | {"marginal": FixedAnswers(labels), "uniform": FixedAnswers()}


def _rewardbench(
    name: str,
    scorer: JuryScorer,
    jury: SavedJury,
    cells: Cells,
    placing: list[Encoded],
    clusters: Clusters | None,
    weights: np.ndarray,
) -> dict[str, Any]:
    """RewardBench's file of the scored pairs: all, by case, and by cluster of raters."""
    import pandas as pd

    from reward_models.evaluation.report import rewardbench

    frames = {case: table.frame for case, table in cells.scored.items()}
    enc = Judgements("preference", pd.concat(frames.values(), ignore_index=True)).encode()
    case = np.repeat(list(frames), [len(frame) for frame in frames.values()])
    subsets = {"all": np.ones(len(enc), dtype=bool)}
    subsets |= {name: case == name for name in frames if len(frames) > 1}
    memberships = None if clusters is None else known_memberships(clusters, placing, enc)
    scores = jury.rewards_of(enc) @ weights
    template = None if isinstance(enc.texts[0].prompt, str) else scorer.tokenizer.chat_template
    return rewardbench(scores, enc, name, template, subsets, memberships, scorer.cluster_names)


if __name__ == "__main__":
    sys.exit(main())
