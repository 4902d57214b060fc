"""The default jury: a mixture of K rater clusters with free rewards per text, from judgements alone.

`choice` judgements, whose free rewards are log answer probabilities, are fitted by latent class analysis (M-step in
closed form); pairs and ratings, and choices whose options are shared between items, by `rater_fit`. Knows nothing of
features or language models.

Shapes: `N` judgements, `R` raters, `U` texts, `K` clusters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reward_models.errors import settings_or_default
from reward_models.fitting.em import FitConfig
from reward_models.fitting.latent_class import fit_latent_classes
from reward_models.fitting.rater_fit import RaterFit, fit_raters
from reward_models.fitting.starting_point import check_num_clusters
from reward_models.judgements.encoding import Encoded, encoded_tables, soft_as_choice
from reward_models.raters.placement import Placement
from reward_models.raters.rater_model import KindTerms, RaterModel
from reward_models.stats.groups import centre_within_groups


__all__ = ["AnswerCells", "answer_cells", "fit_mixture"]


@dataclass(frozen=True)
class AnswerCells:
    """Choices as cells of a table: one cell per option of an item.

    Attributes:
        cell: (N,) the cell that was answered; cells are the texts of `Encoded.texts`.
        cell_item: (U,) the item of each cell.

    Example:
        >>> from reward_models import planted_judgements
        >>> cells = answer_cells(planted_judgements("choice", num_raters=5, num_items=4).judgements.encode())
        >>> cells.cell.shape, cells.cell_item.tolist()
        ((20,), [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
    """

    cell: np.ndarray
    cell_item: np.ndarray


def fit_mixture(enc: Encoded, num_clusters: int, config: FitConfig | None = None) -> RaterFit:
    """Fit K rewards per unique text and the memberships of raters.

    Args:
        enc: The judgements.
        num_clusters: `K`; 1 is Bradley-Terry (pairs), multinomial logit (choices) or proportional odds (ratings).
        config: Restarts, temperatures, priors; None: the defaults.

    Returns:
        The fit, clusters sorted by prevalence, largest first.

    Raises:
        JuryError: K below 1, above the number of raters, or above 1 for a table without raters.

    Example:
        >>> from reward_models import adjusted_rand_index, planted_judgements
        >>> planted = planted_judgements("choice")
        >>> fit = fit_mixture(planted.judgements.encode(), 2)
        >>> fit.prevalence.round(2).tolist(), fit.rewards.shape
        ([0.5, 0.5], (36, 2))
        >>> adjusted_rand_index(fit.responsibilities.argmax(1), planted.cluster)
        1.0
    """
    config = settings_or_default(config, FitConfig)
    (enc,) = encoded_tables(enc)
    check_num_clusters(enc, num_clusters)
    rater_ids = enc.rater_ids
    if enc.kind == "soft":
        enc = soft_as_choice(enc)
    cells = None if config.style else answer_cells(enc)
    if cells is None:
        return fit_raters(enc, "mixture", num_clusters, config=config)
    fit = fit_latent_classes(
        enc.rater,
        cells.cell,
        enc.count,
        enc.n_raters,
        cells.cell_item,
        num_clusters,
        config,
        rater_weight=enc.rater_weight,
    )
    model = RaterModel("mixture", np.eye(num_clusters), np.log(fit.prevalence), {"choice": KindTerms()})
    return RaterFit(
        model=model,
        texts=enc.texts,
        rewards=centre_within_groups(fit.log_p, cells.cell_item),
        placement=Placement(model, rater_ids, fit.responsibilities[: len(rater_ids)]),
        log_likelihood=fit.log_likelihood,
        stability=fit.stability,
        history=fit.history,
    )


def answer_cells(enc: Encoded) -> AnswerCells | None:
    """Return choices as cells of a table of answers, None where they are none: other kinds, or items that share texts.

    Example:
        >>> from reward_models import planted_judgements
        >>> answer_cells(planted_judgements("rating", num_raters=5, num_items=4).judgements.encode()) is None
        True
    """
    cell_item = _item_of_text(enc) if enc.kind == "choice" else None
    return None if cell_item is None else AnswerCells(enc.alternatives[np.arange(len(enc)), enc.label], cell_item)


def _item_of_text(enc: Encoded) -> np.ndarray | None:
    """(U,) item of each text; None when two items share a text, so that there is no answer table per item."""
    item_of = np.full(enc.n_texts, -1, dtype=np.int64)
    offered = enc.item_alternatives[enc.item]
    if not np.array_equal(np.sort(offered, axis=1), np.sort(enc.alternatives, axis=1)):
        return None
    for item, alternatives in enumerate(enc.item_alternatives):
        texts = alternatives[alternatives >= 0]
        if (item_of[texts] >= 0).any() or len(set(texts.tolist())) < len(texts):
            return None
        item_of[texts] = item
    return item_of if (item_of >= 0).all() else None
