"""Which features of texts a joint fit reads: chosen by what one reward predicts on held-out texts.

Candidates are features from other layers, poolings or readings of the same texts. Knows nothing of where they come
from.

Shapes: `U` texts, `D` features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from reward_models.errors import settings_or_default
from reward_models.fitting.em import FitConfig
from reward_models.fitting.joint.choice import heldout_units
from reward_models.fitting.joint.fit import fit_joint
from reward_models.judgements.encoding import Encoded
from reward_models.progress import track
from reward_models.raters.predictors import answer_log_lik
from reward_models.seeds import seeded_rng


__all__ = ["FeatureChoice", "FeatureLoss", "choose_features"]

FOLDS = 5


@dataclass(frozen=True)
class FeatureLoss:
    """What one reward on some features predicts.

    Attributes:
        features: Name of the candidate.
        nll: Loss, nats per judgement of held-out texts.
        behind: Paired difference to the best candidate.
        behind_se: Its standard error, over texts (or prompts).
    """

    features: str
    nll: float
    behind: float
    behind_se: float


@dataclass(frozen=True)
class FeatureChoice:
    """The features that were chosen; `choose_features` makes it.

    Attributes:
        name: Name of the candidate.
        table: One row per candidate; empty where there was nothing to compare.
        reason: The choice in words.

    Example:
        >>> FeatureChoice("mean", [], "mean: the only candidate").name
        'mean'
    """

    name: str
    table: list[FeatureLoss]
    reason: str


def choose_features(
    tables: Sequence[Encoded],
    candidates: Mapping[str, Sequence[np.ndarray]],
    config: FitConfig | None = None,
) -> FeatureChoice:
    """Choose features by the loss of one reward on held-out texts, in five folds.

    The first candidate is kept unless another is better by a standard error.

    Args:
        tables: Judgements, as for `fit_joint`.
        candidates: By name, rows for the texts of each table.
        config: Settings of the fit; its seed draws the folds.

    Returns:
        The choice.

    Example:
        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("rating", num_raters=40, num_items=40)
        >>> noise = np.random.default_rng(0).normal(size=(40, 2))
        >>> candidates = {"noise": [noise], "taste": [planted.rewards]}
        >>> choose_features([planted.judgements.encode()], candidates, FitConfig(restarts=1)).name
        'taste'
    """
    config = settings_or_default(config, FitConfig)
    names = list(candidates)
    units = heldout_units([text for table in tables for text in table.texts])
    if len(names) == 1 or len(set(units.values())) < FOLDS:
        why = "the only candidate" if len(names) == 1 else f"fewer than {FOLDS} texts are too few to compare features"
        return FeatureChoice(names[0], [], f"{names[0]}: {why}")
    number = {unit: i for i, unit in enumerate(dict.fromkeys(units.values()))}
    unit_of = [np.array([number[units[text]] for text in table.texts] + [-1]) for table in tables]  # last: the padding
    fold_of = seeded_rng(config.seed, "folds of features").permutation(len(number)) % FOLDS
    losses, weight = np.zeros((len(names), len(number))), np.zeros(len(number))
    for fold in track(range(FOLDS), "choosing the features: held-out texts"):
        _add_fold(
            tables, candidates, [np.where(fold_of[of] == fold, of, -1) for of in unit_of], config, losses, weight
        )
    judged = weight > 0
    losses, weight = losses[:, judged], weight[judged]
    mean = losses.sum(1) / weight.sum()
    best = int(mean.argmin())
    rows = []
    for name, nll, loss in zip(names, mean, losses, strict=True):
        gap = loss - losses[best] - (nll - mean[best]) * weight
        se = float(gap.std(ddof=1) * np.sqrt(len(gap)) / weight.sum())
        rows.append(FeatureLoss(name, float(nll), float(nll - mean[best]), se))
    if rows[0].behind <= rows[0].behind_se:
        best = 0
    reason = f"{names[best]} predicts held-out texts with {mean[best]:.4f} nats per judgement"
    others = ", ".join(f"{row.features} {row.nll:.4f}" for row in rows if row.features != names[best])
    return FeatureChoice(names[best], rows, f"{reason} ({others})")


def _add_fold(
    tables: Sequence[Encoded],
    candidates: Mapping[str, Sequence[np.ndarray]],
    heldout: Sequence[np.ndarray],
    config: FitConfig,
    losses: np.ndarray,
    weight: np.ndarray,
) -> None:
    """Add the losses of one fold to (candidates, units) and their weight to (units,).

    `heldout` is for each table the (U + 1,) number of each text's unit if it is held out, else -1.
    """
    unit = [of_text[table.alternatives].max(1) for of_text, table in zip(heldout, tables, strict=True)]
    train = [table.select(of_row < 0) for of_row, table in zip(unit, tables, strict=True)]
    kept = [i for i, table in enumerate(train) if len(table)]
    if not kept:
        return
    once = replace(config, restarts=1)
    for row, features in enumerate(candidates.values()):
        fit = fit_joint([train[i] for i in kept], [features[i] for i in kept], "mixture", 1, config=once)
        for i in kept:
            out = unit[i] >= 0
            test = tables[i].select(out)
            if len(test):
                log_lik = test.weight * answer_log_lik(fit.log_probs(test, features[i]), test)
                losses[row] -= np.bincount(unit[i][out], log_lik, losses.shape[1])
                if row == 0:
                    weight += np.bincount(unit[i][out], test.weight, losses.shape[1])
