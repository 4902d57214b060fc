"""The jury of a run: how much the raters disagree, which clusters they form, and a reward model with a head for each.

The jury is saved with how raters vary around the heads, so that it can place new ones. This file knows nothing of
policies.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from plural_rlhf.policies.base_models import prepare_base_model
from plural_rlhf.recipe.config import RunConfig
from plural_rlhf.recipe.data import RunData
from reward_models.analysis.groupings import GroupingReport, describe_clusters, predictive_information
from reward_models.analysis.headroom import headroom
from reward_models.fitting import FitConfig, MixtureFit, fit_features, fit_mixture, select_num_clusters
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.texts import Text, as_messages, freeze_prompt
from reward_models.jury.features import pooled_features, truncate_backbone
from reward_models.jury.modeling_jury import JuryRewardModel
from reward_models.jury.scorer import JuryScorer
from reward_models.jury.state import JuryState, counts


__all__ = ["fit_jury"]

ANSWERS_IN_DESCRIPTION = 3
CALIBRATION_PROMPTS = 200  # give a scale to about two per cent


def fit_jury(config: RunConfig, data: RunData, folder: Path, console: Console) -> dict[str, Any]:
    """Fits and saves the jury; returns what the report says of it."""
    fit_config = FitConfig(restarts=config.jury.restarts, seed=config.seed)
    with console.status("headroom: is there disagreement worth modelling?"):
        room = headroom(data.train, seed=config.seed)
    console.print(f"[bold]Headroom[/bold]  {room.verdict}")
    with console.status("choosing the number of clusters on held-out raters"):
        chosen = select_num_clusters(data.train, config.jury.clusters, fit_config, seed=config.seed)
    console.print(f"[bold]Clusters[/bold]  {chosen.reason}")
    encoded = data.train.encode()
    mixture = fit_mixture(encoded, chosen.chosen, fit_config)
    clusters = describe_clusters(mixture, encoded, labels=data.labels)
    for cluster in clusters:
        console.print(f"  {cluster['prevalence']:4.0%}  {cluster['name']}")
    with console.status("clusters against demographic groups of the same size"):
        groupings = predictive_information(data.everything, max(2, chosen.chosen), config=fit_config)
    console.print(f"[bold]Groups[/bold]    {_comparison(groupings)}")
    selected = _train_heads(config, encoded, mixture, clusters, folder, console)
    return {
        "headroom": {"rungs": room.rungs, "verdict": room.verdict, "best": room.best},
        "selection": {"table": chosen.table, "chosen": chosen.chosen, "reason": chosen.reason},
        "clusters": [
            {
                "name": c["name"],
                "prevalence": c["prevalence"],
                "top": [{**a, "item": a["label"], "option": a["answer"]} for a in c["answers"]],
            }
            for c in clusters
        ],
        "groupings": _groupings(groupings),
        "features": selected,
    }


def _train_heads(
    config: RunConfig,
    encoded: Encoded,
    mixture: MixtureFit,
    clusters: list[dict[str, Any]],
    folder: Path,
    console: Console,
) -> dict[str, Any]:
    from transformers import AutoModel, AutoTokenizer

    base = prepare_base_model(config.policy.model, config.policy.cache_dir, seed=config.seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    backbone = AutoModel.from_pretrained(base, dtype="float32")
    if config.jury.layers is not None:
        backbone = truncate_backbone(backbone, config.jury.layers)
    # As conversations, whatever the table's form: so the jury is asked later, too.
    texts = [Text(freeze_prompt(as_messages(text.prompt)), text.response) for text in encoded.texts]
    features = pooled_features(backbone, tokenizer, texts)
    heads = fit_features(encoded, features, mixture.num_clusters, init=mixture, l2=config.jury.l2, seed=config.seed)
    names = [cluster["name"] for cluster in clusters]
    jury = JuryRewardModel.from_fit(backbone, heads.weight, heads.bias, heads.prevalence, names, memory=heads.memory)
    state = JuryState(
        rater_model=mixture.model,
        descriptions={cluster["name"]: _description(cluster["answers"]) for cluster in clusters},
        # Whoever shows it a plain prompt later must know that it has seen conversations only.
        fitted_on={**counts(encoded), "conversations": len(texts)},
    )
    scorer = JuryScorer(jury, tokenizer, state=state)
    _put_on_one_scale(scorer, texts)
    scorer.save_pretrained(folder)
    heads_are = "1 head" if len(names) == 1 else f"{len(names)} heads"
    console.print(f"[bold]Jury[/bold]      {heads_are} on features of {len(texts)} texts, saved in {folder}")
    return {"l2": heads.l2, "cv": heads.cv, "prevalence": np.asarray(heads.prevalence)}


def _put_on_one_scale(scorer: JuryScorer, texts: Sequence[Text]) -> None:
    """Calibrates the heads on the offered answers, each once: what the policy says after its warm-up, pi_ref.

    Welfare rules that compare clusters need it; the pool and the evaluation take the heads as they are.
    """
    some = set(list(dict.fromkeys(text.prompt for text in texts))[:CALIBRATION_PROMPTS])
    chosen = [text for text in texts if text.prompt in some]
    scorer.calibrate(
        [as_messages(text.prompt) for text in chosen],
        [[{"role": "assistant", "content": text.response}] for text in chosen],
    )


def _description(answers: list[dict[str, Any]]) -> str:
    """What sets a cluster apart, e.g. `"welfare: too little (62% of them, 40% of all); ..."`."""
    return "; ".join(
        f"{a['label']}: {a['answer']} ({a['p_cluster']:.0%} of them, {a['p_population']:.0%} of all)"
        for a in answers[:ANSWERS_IN_DESCRIPTION]
    )


def _comparison(report: GroupingReport) -> str:
    ours, theirs, paired = report.clusters, report.best_demographic, report.paired_difference
    said = f"clusters tell {ours['info']:.3f} nats an answer about people not fitted"
    if theirs is None or paired is None:
        return f"{said}; the data has no demographic traits to compare with."
    return (
        f"{said}; the best demographic grouping ({theirs['grouping']}, {theirs['n_groups']} groups) tells "
        f"{theirs['info']:.3f} (difference {paired.value:+.3f}, 95 % {paired.low:+.3f} to {paired.high:+.3f})."
    )


def _groupings(report: GroupingReport) -> dict[str, Any]:
    paired = report.paired_difference
    best = report.best_demographic
    return {
        "rows": report.rows,
        "clusters": report.clusters,
        "best_demographic": best,
        "paired_difference": None
        if paired is None
        else {"value": paired.value, "low": paired.low, "high": paired.high},
    }
