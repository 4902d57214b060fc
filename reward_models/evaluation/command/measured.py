"""The parts of `evaluate-jury`: judgements, selection among candidates, published benchmarks.

Each part returns tables, rows, further files and plots; nothing is printed or written here.

Shapes: `U` texts, `K` clusters.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reward_models.errors import JuryError
from reward_models.evaluation.benchmarks.items import Benchmark
from reward_models.evaluation.benchmarks.scores import score_benchmark
from reward_models.evaluation.candidates.landscape import landscape
from reward_models.evaluation.candidates.plots import plot_best_of_n, plot_landscape
from reward_models.evaluation.candidates.pools import pools_of
from reward_models.evaluation.candidates.selections import select_by_jury
from reward_models.evaluation.cells import Cells
from reward_models.evaluation.clusters import Clusters, known_memberships
from reward_models.evaluation.command.models import BASE_JURY, ONE_REWARD, measured_models
from reward_models.evaluation.command.tables import Judged
from reward_models.evaluation.evaluate_jury import evaluate_jury
from reward_models.evaluation.judgement_bootstrap import Bootstrap
from reward_models.evaluation.language_models.continuations import LanguageModel
from reward_models.evaluation.report import report_sheets, rewardbench
from reward_models.evaluation.saved_jury import SavedJury, as_read, score_texts
from reward_models.evaluation.sheets import Sheet
from reward_models.evaluation.style.drivers import reward_drivers
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.records import Judgements
from reward_models.judgements.texts import Text
from reward_models.jury.scorer import JuryScorer


__all__ = ["Measured", "measure_benchmark", "measure_judgements"]


@dataclass
class Measured:
    """What is printed and written: tables, rows, facts for `meta`, further files, and plots by the name of their file.

    Example:
        >>> measured = Measured(meta={"seed": 0})
        >>> measured.add(Measured(meta={"raters": 40}, sheets=["Verdict: undecided."]))
        >>> measured.meta, measured.sheets
        ({'seed': 0, 'raters': 40}, ['Verdict: undecided.'])
    """

    meta: dict[str, Any]
    sheets: list[Sheet | str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, Any] = field(default_factory=dict)
    plots: dict[str, Callable[[Path], None]] = field(default_factory=dict)

    def add(self, more: Measured) -> None:
        """Append what else was measured."""
        self.meta |= more.meta
        self.sheets += more.sheets
        self.rows += more.rows
        self.files |= more.files
        self.plots |= more.plots


def measure_judgements(
    args: argparse.Namespace,
    judged: Judged,
    scorer: JuryScorer,
    base: JuryScorer | None,
    against: JuryScorer | None,
    weights: np.ndarray,
    bootstrap: Bootstrap,
) -> Measured:
    """Measure all models on the judgements, and selection among the judged responses."""
    test, train, cells, texts = judged.test, judged.train, judged.cells, judged.texts
    lm = LanguageModel.from_pretrained(args.language_model, args.cache) if args.baselines else None
    rewards = score_texts(scorer, texts)
    base_rewards = None if base is None else score_texts(base, texts)
    further = {"baselines": args.baselines, "lm": lm, "seed": args.seed}
    jury, models = measured_models(scorer, base, texts, rewards, base_rewards, cells, train, **further)
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
    people = test.encode().effective_raters
    facts = {
        "kind": test.kind,
        "judgements": len(test),
        "fitted_to": judged.fitted_to,
        "raters": test.n_raters,
        "effective_raters": people,
        "texts": len(texts),
        "clusters": dict(zip(scorer.cluster_names, scorer.prevalence.tolist(), strict=True)),
        "rater_model": "stored" if jury.model is scorer.state.rater_model else "fitted to labels that were not scored",
        "verdict": result.verdict,
    }
    measured = Measured(facts, report_sheets(result), list(result.rows))
    if "rater_weight" in test.frame:
        measured.sheets.append(
            f"Sampling weights: {test.n_raters:,} raters count as {people:,.1f} of equal weight (Kish)."
        )
    if test.kind == "preference":
        unscored = [table.encode() for table in (train, cells.adapt) if table is not None]
        measured.files["rewardbench.json"] = _rewardbench(args.jury, scorer, jury, cells, unscored, clusters, weights)
    if args.best_of_n or against is not None:
        measured.add(_measure_candidates(args, texts, rewards, base_rewards, scorer, against, weights))
    if args.explain:
        measured.add(_explain(texts, rewards, scorer.cluster_names))
    return measured


def _explain(texts: list[Text], rewards: np.ndarray, names: list[str]) -> Measured:
    """Say what each cluster rewards, or why that cannot be said of these texts."""
    try:
        found = reward_drivers(texts, rewards, names)
    except JuryError as error:
        return Measured({"explained": None}, [f"What is rewarded: skipped: {error}."])
    return Measured({"explained": found.explained}, found.sheets(), found.rows())


def _measure_candidates(
    args: argparse.Namespace,
    texts: list[Text],
    rewards: np.ndarray,
    base_rewards: np.ndarray | None,
    scorer: JuryScorer,
    against: JuryScorer | None,
    weights: np.ndarray,
) -> Measured:
    """Measure best-of-n among the judged responses, and whether one of them would please everybody."""
    try:
        pools = pools_of(texts, rewards)
    except JuryError as error:
        return Measured({"landscape": None}, [f"Best of n: skipped: {error}."])
    one = rewards @ scorer.prevalence[:, None] if base_rewards is None else base_rewards
    judge = None if against is None else (score_texts(against, texts), against.cluster_names, against.prevalence)
    curves = select_by_jury(texts, rewards, one, scorer.cluster_names, weights, judge)
    found = landscape(pools, weights, names=scorer.cluster_names, seed=args.seed)
    return Measured(
        {"against": args.against, "landscape": found.verdict()},
        [*curves.sheets(), *found.sheets()],
        [*curves.rows(), *found.rows()],
        plots={"best_of_n.png": partial(plot_best_of_n, curves), "landscape.png": partial(plot_landscape, found)},
    )


def measure_benchmark(
    name: str, path: Path, benchmark: Benchmark, scorer: JuryScorer, weights: np.ndarray
) -> Measured:
    """Score a published benchmark."""
    texts = benchmark.texts
    rewards = dict(zip(texts, score_texts(scorer, as_read(scorer, texts)), strict=True))
    found = score_benchmark(benchmark, rewards, scorer.cluster_names, weights)
    template = scorer.tokenizer.chat_template if scorer.reading.format == "conversations" else None
    files = {f"{path.stem}.json": found.result_file(name, template)}
    files[f"{path.stem}-scores.json"] = found.score_file(name, template)
    return Measured({}, found.sheets(), found.rows(), files)


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
