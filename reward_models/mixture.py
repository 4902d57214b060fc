"""The label-level mixture: K rewards per text and who belongs to which cluster, from judgements alone.

Texts are opaque here: every unique text has its own free reward per cluster. That is what the data can say at best, in
seconds, before any language model is asked; `feature_fitting` makes the rewards functions of the text.

`choice` judgements, whose free rewards are log answer probabilities, go to latent class analysis (closed-form M-step);
pairs and ratings, and choices whose options are shared between items, to a penalised M-step by L-BFGS.

Shapes: `N` judgements, `R` raters, `U` texts, `K` clusters.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array
from torch import Tensor

from reward_models.em import FitConfig, best_of_restarts, spectral_start
from reward_models.encoding import Encoded, Text
from reward_models.errors import JuryError
from reward_models.latent_class import fit_latent_classes
from reward_models.observation import (
    TERM_SD,
    Observations,
    minimise,
    public_terms,
    start_terms,
    term_penalty,
    torch_terms,
)


__all__ = ["MixtureFit", "check_num_clusters", "fit_mixture", "soft_as_choice", "subset"]

CONSENSUS_PRECISION = 0.1  # of a text's mean reward around zero, relative to `smoothing`


@dataclass(frozen=True)
class MixtureFit:
    """Rewards per cluster and memberships of raters.

    Attributes:
        num_clusters: `K`.
        prevalence: (K,) share of raters, descending.
        texts: `U` texts.
        rewards: (U, K) logits; mean zero over the options of an item (`choice`), over the responses to a prompt
            (`preference`), or over all judgements (`rating` with rater terms).
        responsibilities: (R, K) posterior memberships of `rater_ids`.
        rater_ids: `R` names.
        log_likelihood: Marginal log-likelihood of the judgements, nats.
        history: Penalised objective per EM iteration at temperature 1; never decreases.
        stability: Mean adjusted Rand index of the restarts with the best one.
        nuisance: Terms of the likelihood that are not reward, see `observation`.
        kind: Kind of judgements it was fitted to.
    """

    num_clusters: int
    prevalence: np.ndarray
    texts: list[Text]
    rewards: np.ndarray
    responsibilities: np.ndarray
    rater_ids: list[str]
    log_likelihood: float
    history: list[float]
    stability: float
    nuisance: dict[str, np.ndarray]
    kind: str

    def judgement_log_lik(self, enc: Encoded, nuisance: dict[str, np.ndarray] | None = None) -> np.ndarray:
        """Log-likelihood of judgements of texts that the fit knows.

        Args:
            enc: `N` judgements of any raters.
            nuisance: Terms for `enc`'s raters, as `adapt` returns them; None: known raters keep their own, others
                have none.

        Returns:
            (N, K) log-likelihood in nats, not multiplied by weight.

        Raises:
            JuryError: For another kind of judgements, a text the fit has not seen, or ties where the fit saw none.
        """
        obs = self._observe(enc)
        if nuisance is None:
            position = {rater: i for i, rater in enumerate(self.rater_ids)}
            own = np.array([position.get(rater, -1) for rater in enc.rater_ids], dtype=np.int64)
            nuisance = {k: np.where(own >= 0, v[own], 0.0) if k in TERM_SD else v for k, v in self.nuisance.items()}
        with torch.no_grad():
            terms = {name: torch.from_numpy(value) for name, value in nuisance.items()}
            return obs.log_lik(obs.gather(torch.from_numpy(self.rewards)), terms).numpy()

    def adapt(self, enc: Encoded) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Place raters, known or new, from the judgements given: posterior membership and rater terms.

        The rater terms maximise the marginal likelihood over clusters, under their prior, with the rewards as they
        are.

        Args:
            enc: Judgements of `R'` raters.

        Returns:
            (R', K) posterior, and the terms to hand to `judgement_log_lik` for other judgements of the same raters.

        Raises:
            JuryError: As `judgement_log_lik`.
        """
        obs = self._observe(enc)
        rewards = obs.gather(torch.from_numpy(self.rewards))
        shared = {k: torch.from_numpy(v) for k, v in self.nuisance.items() if k not in TERM_SD}
        log_prevalence = torch.from_numpy(np.log(self.prevalence))

        def log_joint(terms: dict[str, Tensor]) -> Tensor:
            return log_prevalence + obs.rater_totals(obs.log_lik(rewards, shared | terms))

        own = minimise(
            lambda terms: term_penalty(terms) - log_joint(terms).logsumexp(1).sum(),
            {name: np.zeros(enc.n_raters) for name in self.nuisance if name in TERM_SD},
            max_iter=60,
        )
        with torch.no_grad():
            posterior = log_joint({k: torch.from_numpy(v) for k, v in own.items()}).softmax(1).numpy()
        return posterior, {k: v.numpy() for k, v in shared.items()} | own

    def posterior(self, enc: Encoded) -> np.ndarray:
        """(R', K) posterior membership of `enc`'s raters given `enc`'s judgements only; see `adapt`."""
        return self.adapt(enc)[0]

    def _observe(self, enc: Encoded) -> Observations:
        if enc.kind != self.kind:
            raise JuryError(
                f"the jury was fitted to {self.kind!r} judgements and cannot score {enc.kind!r} judgements"
            )
        index = {text: i for i, text in enumerate(self.texts)}
        text_index = np.array([index.get(text, -1) for text in enc.texts], dtype=np.int64)
        used = np.unique(enc.alternatives[enc.alternatives >= 0])
        unknown = [enc.texts[i] for i in used if text_index[i] < 0]
        if unknown:
            raise JuryError(
                f"{len(unknown)} of {len(used)} texts were not in the fit, the first: {unknown[0]!r}. A label-level "
                "jury knows the texts it was fitted to; use fit_features for new ones"
            )
        if enc.kind == "preference" and (enc.label == 2).any() and "log_tie_mean" not in self.nuisance:
            raise JuryError(
                f"{int((enc.label == 2).sum())} of {len(enc)} judgements are ties, but the fit saw no tie and gives "
                "them probability 0; fit on judgements that include ties, or drop them here"
            )
        return Observations.from_encoded(enc, text_index)


class _Rewards:
    """Emission of `em.run_em` with free rewards and rater terms; `params` is a dictionary of arrays."""

    def __init__(self, obs: Observations, n_texts: int, config: FitConfig) -> None:
        self.obs, self.n_texts, self.config = obs, n_texts, config
        count = torch.bincount(obs.alternatives[:, 0], weights=obs.weight, minlength=n_texts)
        # A cluster whose rewards are all higher is a cluster of lenient raters; leniency has its own term.
        self.centre = count / count.sum() if obs.kind == "rating" and config.nuisance else None

    def rewards(self, params: dict[str, Tensor]) -> Tensor:
        """(U, K) rewards, with the mean level taken out where rater terms carry it."""
        rewards = params["rewards"]
        return rewards if self.centre is None else rewards - self.centre @ rewards

    def judgement_log_lik(self, params: dict[str, Tensor]) -> Tensor:
        """(N, K) log-likelihood."""
        terms = torch_terms({name: value for name, value in params.items() if name != "rewards"})
        return self.obs.log_lik(self.obs.gather(self.rewards(params)), terms)

    def penalty(self, params: dict[str, Tensor]) -> Tensor:
        """Minus log prior: clusters around their mean, the mean around zero, rater terms around zero."""
        rewards = self.rewards(params)
        mean = rewards.mean(1, keepdim=True)
        spread = (rewards - mean).square().sum() + CONSENSUS_PRECISION * mean.square().sum()
        return 0.5 * self.config.smoothing * spread + term_penalty(params)

    def maximise(self, responsibilities: np.ndarray, start: dict[str, np.ndarray] | None) -> dict[str, np.ndarray]:
        """A few L-BFGS steps: a generalised EM step, enough for the objective to rise."""
        weight = self.obs.weight[:, None] * torch.from_numpy(responsibilities).index_select(0, self.obs.rater)
        steps = 8
        if start is None:
            start = {"rewards": np.zeros((self.n_texts, responsibilities.shape[1]))}
            start |= start_terms(self.obs, self.config.nuisance)
            steps = 20 if responsibilities.shape[1] > 1 else 500
        return minimise(
            lambda params: self.penalty(params) - (weight * self.judgement_log_lik(params)).sum(),
            start,
            max_iter=steps,
        )

    def rater_log_lik(self, params: dict[str, np.ndarray]) -> np.ndarray:
        """(R, K) log-likelihood of each rater's judgements."""
        with torch.no_grad():
            tensors = {name: torch.from_numpy(value) for name, value in params.items()}
            return self.obs.rater_totals(self.judgement_log_lik(tensors)).numpy()

    def log_prior(self, params: dict[str, np.ndarray]) -> float:
        """Log prior of rewards and rater terms."""
        return -float(self.penalty({name: torch.from_numpy(value) for name, value in params.items()}))


def fit_mixture(enc: Encoded, num_clusters: int, config: FitConfig | None = None) -> MixtureFit:
    """Fit K rewards per unique text and the memberships of raters by soft EM.

    Args:
        enc: The judgements.
        num_clusters: `K`; 1 is Bradley-Terry (pairs), multinomial logit (choices) or proportional odds (ratings).
        config: Restarts, temperatures, priors; None: the defaults.

    Returns:
        The fit, clusters sorted by prevalence, largest first.

    Raises:
        JuryError: When K is below 1 or above the number of raters, or above 1 for a table without raters.
    """
    config = config or FitConfig()
    check_num_clusters(enc, num_clusters)
    rater_ids = enc.rater_ids
    kind = "choice" if enc.kind == "soft" else enc.kind
    if enc.kind == "soft":
        enc = soft_as_choice(enc)
    if enc.kind == "choice" and (text_item := _item_of_text(enc)) is not None:
        chosen = enc.alternatives[np.arange(len(enc)), enc.label]
        fit = fit_latent_classes(enc.rater, chosen, enc.weight, enc.n_raters, text_item, num_clusters, config)
        return MixtureFit(
            num_clusters=num_clusters,
            prevalence=fit.prevalence,
            texts=enc.texts,
            rewards=_centre(fit.log_p, text_item),
            responsibilities=fit.responsibilities[: len(rater_ids)],
            rater_ids=rater_ids,
            log_likelihood=fit.log_likelihood,
            history=fit.history,
            stability=fit.stability,
            nuisance={},
            kind=kind,
        )

    emission = _Rewards(Observations.from_encoded(enc), enc.n_texts, config)
    deviations = _deviations(enc, config.nuisance)
    ones = np.ones(enc.n_raters)
    run, stability = best_of_restarts(
        emission, lambda rng: spectral_start(deviations, ones, num_clusters, rng), ones, config
    )
    order = np.argsort(-run.prevalence, kind="stable")
    with torch.no_grad():
        rewards = emission.rewards({"rewards": torch.from_numpy(run.params["rewards"])}).numpy()
    if enc.kind != "rating":
        prompts = {text.prompt: i for i, text in enumerate(enc.texts)}
        rewards = _centre(rewards, np.unique([prompts[text.prompt] for text in enc.texts], return_inverse=True)[1])
    return MixtureFit(
        num_clusters=num_clusters,
        prevalence=run.prevalence[order],
        texts=enc.texts,
        rewards=rewards[:, order],
        responsibilities=run.responsibilities[:, order],
        rater_ids=rater_ids,
        log_likelihood=run.log_likelihood,
        history=run.history,
        stability=stability,
        nuisance=public_terms({name: value for name, value in run.params.items() if name != "rewards"}),
        kind=kind,
    )


def check_num_clusters(enc: Encoded, num_clusters: int) -> None:
    """Refuse a number of clusters that the table cannot support.

    Raises:
        JuryError: K below 1, above the number of raters, or above 1 without raters.
    """
    if num_clusters < 1:
        raise JuryError(f"num_clusters={num_clusters}: a jury has at least one cluster; 1 is plain Bradley-Terry")
    if enc.kind == "soft" and num_clusters > 1:
        raise JuryError(
            f"num_clusters={num_clusters}, but 'soft' judgements do not say who answered what, so clusters of raters "
            "cannot be told apart; use num_clusters=1, or judgements with rater_id"
        )
    if enc.kind != "soft" and num_clusters > enc.n_raters:
        raise JuryError(
            f"num_clusters={num_clusters} is more than the {enc.n_raters} raters in the table; use at most "
            f"{enc.n_raters}, and a small fraction of that if clusters should mean something"
        )


def soft_as_choice(enc: Encoded) -> Encoded:
    """Turn a table of answer shares into weighted choices of one stand-in rater.

    Args:
        enc: A `soft` table.

    Returns:
        A `choice` table with one row per (row, option) of positive share; rater 0 throughout.
    """
    assert enc.probs is not None
    row, option = np.nonzero(enc.probs > 0)
    return dataclasses.replace(
        enc,
        kind="choice",
        rater_ids=["population"],
        rater=np.zeros(len(row), dtype=np.int64),
        item=enc.item[row],
        alternatives=enc.alternatives[row],
        label=option,
        weight=enc.weight[row] * enc.probs[row, option],
        probs=None,
    )


def subset(enc: Encoded, keep: np.ndarray, *, drop_raters: bool = False) -> Encoded:
    """Keep some judgements; items and texts keep their numbers, even those left without judgements.

    Args:
        enc: The table.
        keep: (N,) mask or indices.
        drop_raters: Renumber the raters, leaving out those without judgements; otherwise they keep their numbers too.
    """
    rater, rater_ids = enc.rater[keep], enc.rater_ids
    if drop_raters:
        left, rater = np.unique(rater, return_inverse=True)
        rater_ids = [enc.rater_ids[i] for i in left]
    return dataclasses.replace(
        enc,
        rater_ids=rater_ids,
        rater=rater,
        item=enc.item[keep],
        alternatives=enc.alternatives[keep],
        label=enc.label[keep],
        weight=enc.weight[keep],
        shown_first=None if enc.shown_first is None else enc.shown_first[keep],
        probs=None if enc.probs is None else enc.probs[keep],
    )


def _item_of_text(enc: Encoded) -> np.ndarray | None:
    """(U,) item of each text; None when items share a text, so that its answers are not a table of their own."""
    owner = np.full(enc.n_texts, -1, dtype=np.int64)
    offered = enc.item_alternatives[enc.item]
    if not np.array_equal(np.sort(offered, axis=1), np.sort(enc.alternatives, axis=1)):
        return None
    for item, alternatives in enumerate(enc.item_alternatives):
        texts = alternatives[alternatives >= 0]
        if (owner[texts] >= 0).any() or len(set(texts.tolist())) < len(texts):
            return None
        owner[texts] = item
    return owner if (owner >= 0).all() else None


def _centre(rewards: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Subtract the mean of each group of texts from (U, K) rewards."""
    sums = np.zeros((group.max() + 1, rewards.shape[1]))
    np.add.at(sums, group, rewards)
    return rewards - (sums / np.bincount(group)[:, None])[group]


def _deviations(enc: Encoded, nuisance: bool) -> csr_array:
    """(R, U) how each rater's verdict on each text deviates from the others', for the starting points."""
    if enc.kind == "rating":
        text, value, rater = enc.alternatives[:, 0], enc.label.astype(np.float64), enc.rater
        if nuisance:
            count = np.maximum(np.bincount(rater, minlength=enc.n_raters), 1)
            value = value - (np.bincount(rater, value, enc.n_raters) / count)[rater]
    else:
        offered = enc.alternatives >= 0
        chosen = np.arange(enc.alternatives.shape[1]) == enc.label[:, None]
        share = np.where(enc.label[:, None] < enc.alternatives.shape[1], chosen, 1.0 / offered.sum(1, keepdims=True))
        text, value = enc.alternatives[offered], share[offered]
        rater = np.broadcast_to(enc.rater[:, None], offered.shape)[offered]
    count = np.maximum(np.bincount(text, minlength=enc.n_texts), 1)
    value = value - (np.bincount(text, value, enc.n_texts) / count)[text]
    return coo_array((value, (rater, text)), shape=(enc.n_raters, enc.n_texts)).tocsr()
