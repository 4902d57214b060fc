"""A second jury of the raters that the first never saw, for measuring what the policies were not trained on.

Knows the judgements and how juries are fitted; knows nothing of policies.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from plural_rlhf.evaluation.open_ended.approvals import match_clusters
from plural_rlhf.recipe.config import RunConfig
from plural_rlhf.recipe.data import RunData
from plural_rlhf.recipe.jury import jury_backbone, text_model
from reward_models.errors import JudgementError, JuryError
from reward_models.fitting.em import FitConfig
from reward_models.judgements.texts import as_messages, prompt_groups
from reward_models.jury.fit import fit_jury
from reward_models.jury.protocol import ClusterScorer
from reward_models.jury.scorer import JuryScorer
from reward_models.stats.groups import centre_within_groups


__all__ = ["fit_heldout_jury", "names_like"]


def fit_heldout_jury(
    config: RunConfig, data: RunData, num_clusters: int, features: Path, show: Callable[[str], None]
) -> tuple[JuryScorer | None, str | None]:
    """Fit a jury to what the held-out raters judged, on held-out prompts too.

    Args:
        config: The run; `evaluate.heldout_backbone` is what the second jury reads texts with.
        data: Its judgements.
        num_clusters: Number of clusters of the first jury; the second has as many, or as many as its raters support.
        features: Folder in which features are kept while they are computed.
        show: Called with a sentence when a step begins.

    Returns:
        The jury, and None; or None, and why there is none.
    """
    if not len(data.heldout_raters):
        return None, "the run has no judgements (data.source: none), so no second jury can be fitted"
    section = config.jury
    base = jury_backbone(config)
    if config.evaluate.heldout_backbone is not None:  # how the first backbone is read says nothing of another
        base = text_model(config, config.evaluate.heldout_backbone)
        section = section.model_copy(update={"pooling": None, "hidden_layers": None, "layers": None})
    reason = "the held-out raters are too few"
    for k in range(min(num_clusters, data.heldout_raters.n_raters // 2), 0, -1):
        try:
            scorer = fit_jury(
                [data.heldout_raters, *data.heldout_tables],
                base,
                clusters=k,
                **section.reading,
                config=FitConfig(restarts=section.restarts, seed=config.seed),
                cache_dir=features,
                on_step=show,
            )
        except (JuryError, JudgementError) as error:
            reason = str(error)
        else:
            return scorer, None
    return None, reason


def names_like(first: ClusterScorer, second: ClusterScorer, data: RunData) -> tuple[list[str], dict[str, float]]:
    """Name the clusters of a second jury after those of the first that want the same texts.

    Args:
        first: The jury that policies are trained on.
        second: The held-out jury.
        data: The judgements, on whose texts the two are compared.

    Returns:
        The second jury's names; a cluster without a counterpart keeps its own, followed by `(held-out)` where the
        first jury has a cluster of that name. And the correlation of rewards over the texts, within prompts, by each
        name that the two share.
    """
    texts = sorted({text for table in (data.everything, *data.other_tables) for text in table.encode().texts}, key=str)
    texts = [text for text in texts if text.response.strip()]
    prompts = [as_messages(text.prompt) for text in texts]
    completions = [[{"role": "assistant", "content": text.response}] for text in texts]
    groups = prompt_groups(texts)
    wanted = [
        centre_within_groups(scorer.cluster_rewards(prompts, completions).double().numpy(), groups)
        for scorer in (first, second)
    ]
    names = [f"{name} (held-out)" if name in first.cluster_names else name for name in second.cluster_names]
    shared: dict[str, float] = {}
    for k, j in enumerate(match_clusters(*wanted)):
        if j is not None:
            names[j] = name = first.cluster_names[k]
            shared[name] = float(np.corrcoef(wanted[0][:, k], wanted[1][:, j])[0, 1])
    return names, shared
