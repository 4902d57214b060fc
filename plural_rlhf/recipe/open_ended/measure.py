"""Measure the policies of a run that write text: samples, and what two juries and people's own texts say of them.

Knows nothing of how the policies were trained.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from plural_rlhf.evaluation.open_ended.choosing import Choosing
from plural_rlhf.evaluation.open_ended.embedder import text_embedder
from plural_rlhf.evaluation.open_ended.evaluate import evaluate_open_ended
from plural_rlhf.evaluation.open_ended.samples import read_samples
from plural_rlhf.evaluation.open_ended.scored import Embed
from plural_rlhf.recipe.config import RunConfig
from plural_rlhf.recipe.data import RunData
from plural_rlhf.recipe.job import KeepPieces
from plural_rlhf.recipe.jury import jury_backbone, text_model
from plural_rlhf.recipe.open_ended.along import best_checkpoints, measure_along
from plural_rlhf.recipe.open_ended.heldout_jury import fit_heldout_jury, names_like
from plural_rlhf.recipe.open_ended.measured_policies import Choice, measured_policies
from plural_rlhf.recipe.open_ended.plain_texts import candidate_rewards
from plural_rlhf.recipe.open_ended.prompts import OpenPrompt
from plural_rlhf.recipe.open_ended.requests import add_shifts, named_weightings
from plural_rlhf.recipe.open_ended.samples import Sample, draw_along, draw_samples, measured_prompts
from plural_rlhf.recipe.run_folder.folder import HELDOUT_JURY, SAMPLES_FILE
from plural_rlhf.recipe.scorers.choose import read_scorer
from plural_rlhf.report.names import EVERYBODY, Method, SkippedPart, Split
from plural_rlhf.report.results_policies import EvaluationResults, Skipped, TextResults
from reward_models.borders import cell, heading
from reward_models.jury.protocol import ClusterScorer
from reward_models.jury.rename import rename_clusters
from reward_models.jury.scorer import JuryScorer
from reward_models.progress import track
from reward_models.whole_file import whole_file, whole_folder


__all__ = ["evaluate_texts", "target_of"]


def evaluate_texts(
    config: RunConfig,
    data: RunData,
    prompts: Sequence[OpenPrompt],
    folder: Path,
    console: Console,
    keep: KeepPieces,
    kept: Path,
) -> EvaluationResults:
    """Draw texts from every policy and measure them.

    Args:
        config: The run.
        data: Its judgements; a second jury is fitted to the held-out raters.
        prompts: Its prompts.
        folder: Folder of the run, which holds the jury and the policies.
        console: Where to report progress.
        keep: Given a name and pieces of work, returns their results: what a stopped run has done, or is done now.
        kept: Folder for what a stopped evaluation goes on from.

    Returns:
        What the report and `results.json` say of it.
    """
    scorer = read_scorer(config, folder)
    weightings = named_weightings(config, data, scorer)
    measured = measured_prompts(config, prompts)
    second, why_none = _heldout_jury(config, data, scorer, kept, console)
    policies = measured_policies(config, folder)
    on_the_way = draw_along(config, measured, scorer, weightings, folder, keep)
    along = measure_along(policies, on_the_way, measured, scorer, second)
    best: dict[str, Path] = {}
    if config.evaluate.keep == "best":
        along, best = best_checkpoints(policies, along)
        for name, adapter in best.items():
            console.print(cell(f"{name}: what is measured is {adapter}, which the held-out jury approves the most"))
    samples, pool = draw_samples(config, measured, scorer, weightings, folder, keep, best)
    with whole_file(folder / SAMPLES_FILE) as file:
        for sample in samples:
            file.write(json.dumps(asdict(sample), ensure_ascii=False) + "\n")
    console.print(heading("Texts", f"{len(samples):,} by {len({s.policy for s in samples})} policies, {SAMPLES_FILE}"))
    of_pool = {
        prompt.wording: candidate_rewards(scorer, prompt, [s.text for s in pool if s.prompt == prompt.wording])
        for prompt in (measured if pool else ())
    }
    choosing = {policy.name: policy.choice for policy in policies if policy.choice is not None}
    measure = _Measure(config, scorer, second, measured, _embedder(config), choosing, of_pool)
    results = list[TextResults]()
    for split in Split:
        if any(prompt.split == split for prompt in measured):
            of_split = [
                measure.texts(samples, split, name, weights)
                for name, weights in track(weightings.items(), f"measures on {split} prompts")
            ]
            results += add_shifts(of_split, config.evaluate.draws, config.evaluate.level, config.seed)
    if second is not None:
        shutil.rmtree(folder / HELDOUT_JURY, ignore_errors=True)
        with whole_folder(folder / HELDOUT_JURY) as unfinished:
            shutil.copytree(kept / HELDOUT_JURY, unfinished, dirs_exist_ok=True)
    compared = any(prompt.compared for prompt in measured)
    no_best = config.evaluate.keep == "best" and second is None
    reasons = {
        SkippedPart.HELDOUT_JURY: why_none,
        SkippedPart.PEOPLE: None if compared else "data.written says of no text that people wrote it",
        SkippedPart.BEST_CHECKPOINT: "there is no held-out jury to choose it" if no_best else None,
    }
    return EvaluationResults(
        texts=results,
        along=along,
        skipped=[Skipped(what=part, reason=reason) for part, reason in reasons.items() if reason is not None],
    )


def target_of(config: RunConfig) -> dict[str, Any]:
    """Return what `evaluate_open_ended` is told of the target of a run.

    Example:
        >>> target_of(RunConfig(plural={"rule": "min", "sampled": {"kl_budget": 2}}))
        {'beta': 1.0, 'rho': 1.0, 'target_rule': 'min', 'beta_moved': True}
    """
    plural = config.plural
    moved = plural.mode == "rl" and plural.sampled.kl_budget is not None
    return {"beta": plural.beta, "rho": plural.rho, "target_rule": plural.rule, "beta_moved": moved}


def _heldout_jury(
    config: RunConfig, data: RunData, first: ClusterScorer, kept: Path, console: Console
) -> tuple[JuryScorer | None, str | None]:
    """The second jury, read from what a stopped evaluation has kept, or fitted now; else why there is none."""
    num_clusters = len(first.cluster_names)
    path = kept / HELDOUT_JURY
    if path.is_dir():
        return JuryScorer.from_pretrained(path), None
    second, reason = fit_heldout_jury(
        config, data, num_clusters, kept / "features", lambda step: console.print(cell(step, "dim"))
    )
    if second is None:
        console.print(heading("Held-out jury", f"none: {reason}"))
        return None, reason
    names, agreements = names_like(first, second, data)
    unnamed = kept / f"{HELDOUT_JURY}_unnamed"
    second.save_pretrained(unnamed, include_backbone=False)
    rename_clusters(unnamed, names)
    unnamed.rename(path)
    clusters = "1 cluster" if len(second.cluster_names) == 1 else f"{len(second.cluster_names)} clusters"
    console.print(heading("Held-out jury", f"{clusters} of {data.heldout_raters.n_raters:,} raters that took no part"))
    for name, agreement in agreements.items():
        console.print(cell(f"{name}: agrees with the first jury over judged texts by r = {agreement:.2f}", "dim"))
    return JuryScorer.from_pretrained(path), None  # as it is read again, to the last digit


@dataclass(frozen=True)
class _Measure:
    """Measures what policies wrote by two juries and against what people wrote."""

    config: RunConfig
    scorer: ClusterScorer
    second: JuryScorer | None
    prompts: Sequence[OpenPrompt]
    embed: Embed
    choosing: Mapping[str, Choice]
    of_pool: Mapping[str, np.ndarray]
    """Rewards (M, K) of the texts among which policies choose, by wording of the prompt."""

    def texts(self, samples: Sequence[Sample], split: str, weighting: str, weights: np.ndarray) -> TextResults:
        """Measure all policies that were asked for one weighting, on the prompts of one split."""
        of_split = [prompt for prompt in self.prompts if prompt.split == split]
        policies = read_samples(
            asdict(sample) for sample in samples if (sample.split, sample.weighting) == (split, weighting)
        )
        people = {prompt.wording: list(prompt.compared) for prompt in of_split if prompt.compared}
        found = evaluate_open_ended(
            policies,
            self.scorer,
            heldout_scorer=self.second,
            people=people or None,
            embed=self.embed,
            reference=Method.WARM,
            prompts={prompt.wording: prompt.messages for prompt in of_split},
            weights=None if weighting == EVERYBODY else dict.fromkeys(policies, weights.tolist()),
            **target_of(self.config),
            choosing={
                name: Choosing(choice.candidates, choice.chances(weights), self.of_pool)
                for name, choice in self.choosing.items()
                if name in policies
            },
            draws=self.config.evaluate.draws,
            level=self.config.evaluate.level,
            seed=self.config.seed,
        )
        names = self.scorer.cluster_names
        asked = dict(zip(names, weights.tolist(), strict=True))
        return TextResults(split=split, weighting=weighting, weights=asked, **found.to_dict())


def _embedder(config: RunConfig) -> Embed:
    """What turns texts into vectors: a sentence embedder, or the mean of the hidden states of the jury's backbone."""
    name = config.evaluate.embedder or config.jury.backbone
    if name is None:
        return text_embedder(jury_backbone(config), pooling="mean")
    return text_embedder(text_model(config, name))
