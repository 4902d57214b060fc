"""A saved jury as a predictor of raters' answers: texts scored once, raters placed by Bayes' rule.

Joins `scoring` (rewards of a text) with `rater_model` (how raters vary around them). A jury that was saved without a
rater model gets one fitted to labels that are not scored, its rewards as they are. Knows nothing of metrics.

Shapes: `N` judgements, `R` raters, `U` texts, `K` clusters, `C` codes, `S` states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from tqdm.auto import tqdm

from reward_models.errors import JuryError
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.texts import Text
from reward_models.jury.scorer import JuryScorer
from reward_models.raters.lbfgs import minimise
from reward_models.raters.observation import TERM_SD, Observations, public_terms, start_terms, torch_terms
from reward_models.raters.placement import Placement
from reward_models.raters.rater_model import KindTerms, RaterModel, state_table


__all__ = ["SavedJury", "fit_rater_model", "score_texts"]

CHUNK = 512  # texts between two steps of the progress bar
MAX_JUDGEMENTS = 20_000
SD_SPREAD = 0.7  # of log sd around its usual value


@dataclass(frozen=True)
class SavedJury:
    """Rewards of texts and how raters vary around them. A `predictors.Predictor` for these texts.

    Attributes:
        model: The raters' model.
        texts: `U` texts.
        rewards: (U, K) logits.
        placement: The raters that are adapted.
    """

    model: RaterModel
    texts: list[Text]
    rewards: np.ndarray
    placement: Placement

    @classmethod
    def unplaced(cls, model: RaterModel, texts: list[Text], rewards: np.ndarray) -> SavedJury:
        """A jury that knows no rater yet."""
        return cls(model, texts, rewards, model.prior_placement())

    def log_probs(self, enc: Encoded, features: np.ndarray | None = None) -> np.ndarray:
        """(N, A) log-probability of every possible answer; see `Predictor`. `features` are not needed.

        Raises:
            JuryError: A text that was not scored.
        """
        return self.placement.log_probs(enc, self.rewards_of(enc))

    def adapt(self, enc: Encoded, features: np.ndarray | None = None) -> SavedJury:
        """The same jury with the raters of `enc` placed by their labels, all others forgotten."""
        return replace(self, placement=self.model.adapt(enc, self.rewards_of(enc)))

    def memberships(self, enc: Encoded) -> np.ndarray:
        """(R, K) posterior memberships of `enc`'s raters given `enc`'s labels only."""
        return self.adapt(enc).placement.memberships()

    def code_rewards(self, enc: Encoded) -> np.ndarray:
        """(U', C) rewards of `enc.texts` for a rater at each code of the model, on the scale of the answers."""
        log_scale = self.model.terms[enc.kind].shared.get("log_scale_mean", np.zeros(1))
        return np.exp(log_scale[0]) * self.rewards_of(enc) @ self.model.codes.T

    def rewards_of(self, enc: Encoded) -> np.ndarray:
        """(U', K) rewards of `enc.texts`.

        Raises:
            JuryError: A text that was not scored.
        """
        row = {text: i for i, text in enumerate(self.texts)}
        unknown = [text for text in enc.texts if text not in row]
        if unknown:
            raise JuryError(
                f"{len(unknown)} of {enc.n_texts} texts were not scored, the first: {unknown[0]!r}. Fix: score the "
                "texts of all tables together"
            )
        return self.rewards[[row[text] for text in enc.texts]]


def score_texts(scorer: JuryScorer, texts: Sequence[Text], *, progress: bool = True) -> np.ndarray:
    """(U, K) rewards as the likelihood of judgements takes them: logits, at the temperature the jury was saved with.

    Args:
        scorer: The jury.
        texts: `U` texts, each scored once.
        progress: Show a progress bar.

    Raises:
        JuryError: The scorer puts its heads on the scale of a policy, or see `JuryScorer.cluster_rewards`.
    """
    if scorer.calibrated:
        raise JuryError("the scorer is calibrated, and judgements need raw logits. Fix: load it with calibrated=False")
    rows = []
    with tqdm(total=len(texts), desc="scoring texts", disable=not progress) as bar:
        for start in range(0, len(texts), CHUNK):
            part = texts[start : start + CHUNK]
            rows.append(scorer.cluster_rewards([t.prompt for t in part], [t.response for t in part]).double().numpy())
            bar.update(len(part))
    rewards = np.concatenate(rows) if rows else np.zeros((0, len(scorer.cluster_names)))
    return rewards if scorer.state.temperature is None else rewards / scorer.state.temperature


def fit_rater_model(
    enc: Encoded, rewards: np.ndarray, prevalence: np.ndarray, *, rater_terms: bool = True, seed: int = 0
) -> RaterModel:
    """Fit how raters vary around rewards that stay as they are, by marginal maximum likelihood.

    A common scale of the rewards, thresholds and tie rate, and the spread of the rater terms are fitted; who belongs
    to which cluster is summed over, with the prevalence as it is.

    Args:
        enc: Labels; of more than 20,000 those of a sample of raters are used.
        rewards: (U, K) rewards of `enc.texts`.
        prevalence: (K,) shares of the population.
        rater_terms: Whether raters differ in leniency, scale, ties and position.
        seed: Of the sample.
    """
    if len(enc) > MAX_JUDGEMENTS:
        order = np.random.default_rng(seed).permutation(enc.n_raters)
        sizes = np.bincount(enc.rater, minlength=enc.n_raters)[order].cumsum()
        some = order[: max(1, int((sizes <= MAX_JUDGEMENTS).sum()))]
        enc = enc.select(np.isin(enc.rater, some), drop_raters=True)
    obs = Observations.from_encoded(enc)
    terms = start_terms(obs, rater_terms)
    names = [name for name in terms if name in TERM_SD]
    start = {name: value for name, value in terms.items() if name not in TERM_SD}
    start |= {"log_scale_mean": np.zeros(1), "log_sd": np.zeros(len(names))}
    with np.errstate(divide="ignore"):
        log_prior = np.log(np.asarray(prevalence, dtype=np.float64))
    usual = {enc.kind: KindTerms({}, {name: TERM_SD[name] for name in names})}
    model = RaterModel("mixture", np.eye(len(log_prior)), log_prior, usual)
    cells, cell = obs.distinct()
    index = torch.stack([obs.rater, cell])
    counts = torch.sparse_coo_tensor(index, obs.weight, (enc.n_raters, len(cells.label)), check_invariants=False)
    basis, state_prior = torch.from_numpy(rewards), torch.from_numpy(model.log_prior)

    def loss(params: dict[str, torch.Tensor]) -> torch.Tensor:
        shared = torch_terms({name: value for name, value in params.items() if name != "log_sd"})
        sd = {name: TERM_SD[name] * params["log_sd"][i].exp() for i, name in enumerate(names)}
        table = state_table(model, cells, basis, shared, sd)
        prior = 0.5 * (params["log_scale_mean"].square().sum() + (params["log_sd"] / SD_SPREAD).square().sum())
        return prior - (state_prior + torch.sparse.mm(counts, table)).logsumexp(1).sum()

    found = minimise(loss, start, max_iter=100, tol=1e-8)
    sd = {name: TERM_SD[name] * float(np.exp(found["log_sd"][i])) for i, name in enumerate(names)}
    shared = public_terms({name: value for name, value in found.items() if name != "log_sd"})
    return replace(model, terms={enc.kind: KindTerms(shared, sd)})
