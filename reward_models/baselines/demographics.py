"""The demographic baseline: raters of one group want the same, and the groups are known.

    r_u(x) = s(x) + sum_t delta_{t, g_t(u)}(x),    delta ~ N(0, tau^2),

with `g_t(u)` the rater's group by trait `t`. Rater terms vary around it and are integrated out as in a jury
(`rater_model`), so that a comparison with a jury is about taste alone. `tau` is chosen on left-out labels from a grid
that holds 0, where the model is one reward for everybody plus rater terms. A rater whose group is not known is the
population.

Traits are nobody's input elsewhere in this package. Knows nothing of clusters.

Shapes: `N` judgements, `R` raters, `U` texts, `G` groups of all traits together, `A` answers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from reward_models.errors import JuryError, did_you_mean
from reward_models.fitting.em import FitConfig
from reward_models.fitting.rater_fit import RaterFit, fit_raters
from reward_models.fitting.text_table import TextTable, extend_to_features, label_information
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.faults import is_missing
from reward_models.judgements.records import Judgements
from reward_models.raters.lbfgs import minimise
from reward_models.raters.observation import Observations
from reward_models.raters.placement import Placement
from reward_models.raters.predictors import answer_log_lik
from reward_models.raters.rater_model import RaterModel
from reward_models.stats.resampling import heldout_labels


__all__ = ["DemographicsFit", "fit_demographics"]

GROUP_SDS = (0.0, 0.1, 0.2, 0.4, 0.8)  # logits
HELDOUT = 0.2


@dataclass(frozen=True)
class DemographicsFit:
    """Rewards per group. A `predictors.Predictor` that knows the groups of raters without having seen their labels.

    Attributes:
        model: How rater terms vary.
        table: Per text the population's reward and the deviation of each group (G).
        groups: `G` names, (trait, value).
        members: Columns of `groups` of each rater whose traits are known.
        placement: The raters that are placed; their terms.
        group_sd: `tau`, in logits; 0 when knowing the groups did not help.
        cv: Loss on left-out labels, nats per judgement, by `tau`.
    """

    model: RaterModel
    table: TextTable
    groups: list[tuple[str, str]]
    members: dict[str, list[int]]
    placement: Placement
    group_sd: float
    cv: dict[float, float]

    def group_rewards(self) -> np.ndarray:
        """(U, G) reward of each group, other traits unknown."""
        return self.table.values[:, :1] + self.table.values[:, 1:]

    def log_probs(self, enc: Encoded, features: np.ndarray | None = None) -> np.ndarray:
        """(N, A) log-probability of every possible answer; see `Predictor`.

        Raises:
            JuryError: Judgements the model cannot score, or new texts without features.
        """
        return self.placement.log_probs(*self._by_profile(enc, features))

    def adapt(self, enc: Encoded, features: np.ndarray | None = None) -> DemographicsFit:
        """The same model with the terms of the raters of `enc` placed by their labels; groups stay known."""
        return replace(self, placement=self.model.adapt(*self._by_profile(enc, features)))

    def _by_profile(self, enc: Encoded, features: np.ndarray | None) -> tuple[Encoded, np.ndarray]:
        """The table with one text for each text and combination of groups, and their rewards (U', 1)."""
        belongs = _membership(enc, self.members, len(self.groups))
        split, text, profile, profiles = _split_texts(enc, belongs)
        columns = self.table.rows(enc, features)
        rewards = columns[text, :1] + (columns[text, 1:] * profiles[profile]).sum(1, keepdims=True)
        return split, rewards


def fit_demographics(
    enc: Encoded,
    judgements: Judgements,
    features: np.ndarray | None = None,
    *,
    traits: Sequence[str] | None = None,
    nuisance: bool = True,
    seed: int = 0,
) -> DemographicsFit:
    """Fit a reward per group, shrunk to the population's.

    Args:
        enc: The judgements to fit.
        judgements: A table whose `rater:` columns describe the raters. It may hold more raters than `enc`: those are
            then predicted by their groups.
        features: (U, D) rows for `enc.texts`, to score new texts too.
        traits: Which traits, with or without `rater:`; several add up. None: all of them.
        nuisance: Rater terms in the likelihood.
        seed: Of the labels that are left out.

    Returns:
        The fit.

    Raises:
        JuryError: A table without raters or traits, an unknown trait, or features that do not fit.
    """
    if enc.kind == "soft":
        raise JuryError("kind='soft': a table of answer shares does not say who answered, so nobody has a group")
    groups, members = _groups(judgements, traits)
    belongs = _membership(enc, members, len(groups))
    config = FitConfig(nuisance=nuisance, seed=seed)
    held = heldout_labels(enc.rater, HELDOUT, np.random.default_rng(seed))
    cv = {0.0: 0.0}
    if held.any():
        known, asked = enc.select(~held), enc.select(held)
        base = fit_raters(known, "mixture", 1, config=config)
        for group_sd in GROUP_SDS:
            fit = _with_groups(base, known, groups, members, belongs, group_sd)
            cv[group_sd] = -float(np.average(answer_log_lik(fit.log_probs(asked), asked), weights=asked.weight))
    best = min(cv, key=cv.__getitem__)
    fit = _with_groups(fit_raters(enc, "mixture", 1, config=config), enc, groups, members, belongs, best)
    if features is None:
        return replace(fit, cv=cv)
    table = extend_to_features(enc, fit.table.values, label_information(enc), features, seed)
    return replace(fit, cv=cv, table=table)


def _with_groups(
    base: RaterFit,
    enc: Encoded,
    groups: list[tuple[str, str]],
    members: dict[str, list[int]],
    belongs: np.ndarray,
    group_sd: float,
) -> DemographicsFit:
    """Add the groups' deviations, at their posterior mode given the population and the raters' own terms."""
    rewards = base.known_rewards(enc)
    deviations = np.zeros((enc.n_texts, len(groups)))
    if group_sd > 0:
        split, text, profile, profiles = _split_texts(enc, belongs)
        obs = Observations.from_encoded(split)
        terms = {name: torch.from_numpy(value) for name, value in base.nuisance.items()}
        of_text, of_profile = torch.from_numpy(text), torch.from_numpy(profiles[profile])
        consensus = torch.from_numpy(rewards[text])

        def loss(params: dict[str, Tensor]) -> Tensor:
            delta = params["delta"]
            reward = consensus + (delta[of_text] * of_profile).sum(1, keepdim=True)
            log_lik = obs.log_lik(obs.gather(reward), terms)[:, 0]
            return 0.5 * (delta / group_sd).square().sum() - (obs.weight * log_lik).sum()

        deviations = minimise(loss, {"delta": deviations}, max_iter=100, tol=1e-7)["delta"]
    table = TextTable(enc.texts, np.concatenate([rewards, deviations], axis=1))
    fit = DemographicsFit(base.model, table, groups, members, base.model.prior_placement(), group_sd, {})
    return fit.adapt(enc)


def _groups(
    judgements: Judgements, traits: Sequence[str] | None
) -> tuple[list[tuple[str, str]], dict[str, list[int]]]:
    """Groups by trait and value, and the groups of each rater; a missing value is no group."""
    columns = [f"rater:{name.removeprefix('rater:')}" for name in traits or judgements.traits]
    unknown = [column for column in columns if column not in judgements.traits]
    if unknown or not columns:
        missing = f"no trait {unknown[0]!r}" if unknown else "no trait at all"
        hint = did_you_mean(unknown[0], judgements.traits) if unknown else ""
        raise JuryError(
            f"the table has {missing}; its columns rater:<trait> are {judgements.traits}.{hint} Add such columns, one "
            "value per rater"
        )
    index: dict[tuple[str, str], int] = {}
    members: dict[str, list[int]] = {str(rater): [] for rater in judgements.raters}
    frame = judgements.frame
    for column in columns:
        described = frame.loc[~frame[column].map(is_missing), ["rater_id", column]].drop_duplicates("rater_id")
        for rater, value in described.itertuples(index=False):
            group = (column.removeprefix("rater:"), str(value))
            members[str(rater)].append(index.setdefault(group, len(index)))
    return list(index), members


def _membership(enc: Encoded, members: dict[str, list[int]], n_groups: int) -> np.ndarray:
    """(R, G) whether each rater of `enc` belongs to each group."""
    belongs = np.zeros((enc.n_raters, n_groups))
    for row, rater in enumerate(enc.rater_ids):
        belongs[row, members.get(rater, [])] = 1.0
    return belongs


def _split_texts(enc: Encoded, belongs: np.ndarray) -> tuple[Encoded, np.ndarray, np.ndarray, np.ndarray]:
    """Make a text of its own of each text as seen by raters of one combination of groups.

    Returns:
        The table, the (U',) text and (U',) combination of each of its texts, and the (P, G) combinations.
    """
    profiles, of_rater = np.unique(belongs, axis=0, return_inverse=True)
    seen = np.where(enc.alternatives >= 0, of_rater.ravel()[enc.rater][:, None] * enc.n_texts + enc.alternatives, -1)
    key, number = np.unique(seen, return_inverse=True)
    number = number.reshape(seen.shape)
    if len(key) and key[0] < 0:
        key, number = key[1:], number - 1
    profile, text = np.divmod(key, enc.n_texts)
    split = dataclasses.replace(enc, texts=[enc.texts[i] for i in text], alternatives=number)
    return split, text, profile, profiles
