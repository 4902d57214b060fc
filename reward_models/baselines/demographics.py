"""The demographic baseline: raters of one demographic group want the same, and the groups are known.

    r_u(x) = s(x) + sum_t delta_{t, g_t(u)}(x),    delta ~ N(0, tau^2),

with `g_t(u)` the rater's group by trait `t`. Rater terms vary around it and are integrated out as in a jury
(`rater_model`), so that a comparison with a jury is about taste alone. `tau` is chosen on held-out labels from a grid
that contains 0, where the model is one reward for everybody plus rater terms; of several traits each has its own `tau`
if that predicts these labels better (`stats.spreads`). Numbers such as ages are binned (`judgements.traits`). A rater
whose group is not known is predicted as a random member of the population.

This is the only model of the package that takes traits as input. Knows nothing of clusters.

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
from reward_models.judgements.records import Judgements
from reward_models.judgements.traits import MissingCodes, trait_groups
from reward_models.raters.lbfgs import minimise
from reward_models.raters.observation import Observations
from reward_models.raters.placement import Placement
from reward_models.raters.predictors import answer_log_lik, require_raters
from reward_models.raters.rater_model import RaterModel
from reward_models.seeds import seeded_rng
from reward_models.stats.resampling import heldout_labels
from reward_models.stats.spreads import choose_spreads


__all__ = ["DemographicsFit", "fit_demographics"]

GROUP_SDS = (0.0, 0.1, 0.2, 0.4, 0.8)  # logits
HELDOUT = 0.2


@dataclass(frozen=True)
class DemographicsFit:
    """Rewards per group. A `predictors.Predictor` that knows the groups of raters without having seen their labels.

    Attributes:
        model: How rater terms vary.
        table: Reward of the population and deviation of each group (U, 1 + G).
        groups: `G` names, (trait, value).
        members: Indices into `groups` of each rater whose traits are known.
        placement: Posterior over the terms of the adapted raters.
        group_sd: Largest `tau` of a trait, in logits; 0 if the groups did not help to predict held-out labels.
        trait_sds: `tau` of each trait, 0 where the trait is left out.
        cv: Loss on held-out labels, nats per judgement, by a `tau` of all traits.

    Example:
        See `fit_demographics` for the table; the deviation of each group from the population:

        >>> from reward_models import Judgements, planted_judgements
        >>> planted = planted_judgements("rating")
        >>> frame = planted.judgements.frame.copy()
        >>> frame["rater:town"] = ["city" if int(rater[1:]) % 2 == 0 else "country" for rater in frame["rater_id"]]
        >>> table = Judgements.from_frame(frame, "rating", (-1, 0, 1))
        >>> fit = fit_demographics(table.encode(), table)
        >>> city, country = fit.table.values[:, 1:].T
        >>> bool(np.corrcoef(city, country)[0, 1] < 0)
        True
    """

    model: RaterModel
    table: TextTable
    groups: list[tuple[str, str]]
    members: dict[str, list[int]]
    placement: Placement
    group_sd: float
    trait_sds: dict[str, float]
    cv: dict[float, float]

    def log_probs(self, enc: Encoded, features: np.ndarray | None = None) -> np.ndarray:
        """Compute the (N, A) log-probability of every possible answer; see `Predictor`.

        Raises:
            JuryError: Judgements that the model cannot score, or new texts without features.
        """
        return self.placement.log_probs(*self._by_profile(enc, features))

    def adapt(self, enc: Encoded, features: np.ndarray | None = None) -> DemographicsFit:
        """Return the same model with the rater terms inferred from the labels in `enc`; groups stay known."""
        return replace(self, placement=self.model.adapt(*self._by_profile(enc, features)))

    def _by_profile(self, enc: Encoded, features: np.ndarray | None) -> tuple[Encoded, np.ndarray]:
        """The table with a text for each combination of text and groups, and the rewards (U', 1) of these texts."""
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
    missing: MissingCodes = (),
    nuisance: bool = True,
    seed: int = 0,
) -> DemographicsFit:
    """Fit a reward per demographic group, shrunk to that of the population.

    Args:
        enc: The judgements to fit.
        judgements: A table whose `rater:` columns describe the raters. It may contain more raters than `enc`, who are
            then predicted by their groups.
        features: (U, D) rows for `enc.texts`, to score new texts too.
        traits: Names of the traits, with or without `rater:`; the deviations of several traits are added. None:
            all together; name one to learn what it is worth alone.
        missing: Values of traits that mean "unknown", e.g. `[99]` or `{"age": [99]}`; see `trait_groups`.
        nuisance: Whether the likelihood has rater terms.
        seed: Random seed of the held-out labels.

    Returns:
        The fit.

    Raises:
        JuryError: A table without raters or traits, an unknown trait, or features that do not match.

    Example:
        Two towns, each of which is one of the planted clusters:

        >>> from reward_models import Judgements, planted_judgements
        >>> planted = planted_judgements("preference")
        >>> frame = planted.judgements.frame.copy()
        >>> frame["rater:town"] = ["city" if int(rater[1:]) % 2 == 0 else "country" for rater in frame["rater_id"]]
        >>> table = Judgements.from_frame(frame)
        >>> fit = fit_demographics(table.encode(), table)
        >>> fit.groups, fit.group_sd > 0
        ([('town', 'city'), ('town', 'country')], True)
    """
    require_raters(enc, "a fit of demographic groups")
    groups, members = _groups(judgements, traits, missing)
    belongs = _membership(enc, members, len(groups))
    names = list(dict.fromkeys(trait for trait, _ in groups))
    config = FitConfig(nuisance=nuisance, seed=seed)
    held = heldout_labels(enc.rater, HELDOUT, seeded_rng(seed, "heldout labels of demographics"))
    cv, sds = {0.0: 0.0}, dict.fromkeys(names, 0.0)
    if held.any():
        known, scored = enc.select(~held), enc.select(held)
        base = fit_raters(known, "mixture", 1, config=config)

        def losses(spreads: np.ndarray) -> np.ndarray:
            trait_sds = dict(zip(names, spreads.tolist(), strict=True))
            log_lik = answer_log_lik(
                _with_groups(base, known, groups, members, belongs, trait_sds).log_probs(scored), scored
            )
            return np.bincount(scored.rater, -scored.weight * log_lik, scored.n_raters)

        total = scored.weight.sum()
        cv = {sd: float(losses(np.full(len(names), sd)).sum() / total) for sd in GROUP_SDS}
        best = min(cv, key=cv.__getitem__)
        sds = dict.fromkeys(names, best)
        if len(names) > 1:
            spreads = choose_spreads(losses, len(names), GROUP_SDS[1:])
            if losses(spreads).sum() / total < cv[best]:
                sds = dict(zip(names, spreads.tolist(), strict=True))
    fit = _with_groups(fit_raters(enc, "mixture", 1, config=config), enc, groups, members, belongs, sds)
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
    trait_sds: dict[str, float],
) -> DemographicsFit:
    """Add the deviations of the groups, at their posterior mode given the population's rewards and the rater terms."""
    rewards = base.known_rewards(enc)
    deviations = np.zeros((enc.n_texts, len(groups)))
    sd = np.array([trait_sds[trait] for trait, _ in groups])
    if (sd > 0).any():
        split, text, profile, profiles = _split_texts(enc, belongs * (sd > 0))
        obs = Observations.from_encoded(split)
        terms = {name: torch.from_numpy(value) for name, value in base.nuisance.items()}
        of_text, of_profile = torch.from_numpy(text), torch.from_numpy(profiles[profile])
        consensus, scale = torch.from_numpy(rewards[text]), torch.from_numpy(np.where(sd > 0, sd, 1.0))

        def loss(params: dict[str, Tensor]) -> Tensor:
            delta = params["delta"]
            reward = consensus + (delta[of_text] * of_profile).sum(1, keepdim=True)
            log_lik = obs.log_lik(obs.gather(reward), terms)[:, 0]
            return 0.5 * (delta / scale).square().sum() - (obs.weight * log_lik).sum()

        deviations = minimise(loss, {"delta": deviations}, max_iter=100, tol=1e-7)["delta"]
    table = TextTable(enc.texts, np.concatenate([rewards, deviations], axis=1))
    placement, group_sd = base.model.prior_placement(), max(trait_sds.values(), default=0.0)
    return DemographicsFit(base.model, table, groups, members, placement, group_sd, trait_sds, {}).adapt(enc)


def _groups(
    judgements: Judgements, traits: Sequence[str] | None, missing: MissingCodes
) -> tuple[list[tuple[str, str]], dict[str, list[int]]]:
    """Groups by trait and value, and the groups of each rater; a missing value gives no group."""
    columns = [f"rater:{name.removeprefix('rater:')}" for name in traits or judgements.traits]
    unknown = [column for column in columns if column not in judgements.traits]
    if unknown or not columns:
        absent = f"no trait {unknown[0]!r}" if unknown else "no trait at all"
        hint = did_you_mean(unknown[0], judgements.traits) if unknown else ""
        raise JuryError(
            f"the table has {absent}; its columns rater:<trait> are {judgements.traits}.{hint} Fix: add such "
            "columns, with one value per rater"
        )
    group_of = trait_groups(judgements, missing)
    index: dict[tuple[str, str], int] = {}
    members: dict[str, list[int]] = {str(rater): [] for rater in judgements.raters}
    for name in (column.removeprefix("rater:") for column in columns):
        for rater, value in group_of[name].dropna().items():
            members[str(rater)].append(index.setdefault((name, str(value)), len(index)))
    return list(index), members


def _membership(enc: Encoded, members: dict[str, list[int]], n_groups: int) -> np.ndarray:
    """(R, G) whether each rater of `enc` belongs to each group."""
    belongs = np.zeros((enc.n_raters, n_groups))
    for row, rater in enumerate(enc.rater_ids):
        belongs[row, members.get(rater, [])] = 1.0
    return belongs


def _split_texts(enc: Encoded, belongs: np.ndarray) -> tuple[Encoded, np.ndarray, np.ndarray, np.ndarray]:
    """Split each text into one text per combination of groups of the raters who judged it.

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
