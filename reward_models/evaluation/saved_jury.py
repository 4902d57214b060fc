"""A saved jury reward model as a predictor of raters' answers: texts scored once, raters adapted by Bayes' rule.

Combines `jury.scorer` (rewards of a text) with `raters.rater_model` (how raters vary around them). For a jury that was
saved without a rater model, one is fitted to labels that are not scored, with the rewards fixed. Knows nothing of
metrics.

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
from reward_models.judgements.texts import Text, as_messages, freeze_prompt
from reward_models.jury.scorer import JuryScorer
from reward_models.raters.lbfgs import minimise
from reward_models.raters.observation import TERM_SD, Observations, public_terms, start_terms, torch_terms
from reward_models.raters.placement import Placement
from reward_models.raters.rater_model import KindTerms, RaterModel, state_table
from reward_models.seeds import seeded_rng


__all__ = ["SavedJury", "as_read", "fit_rater_model", "score_texts"]

CHUNK = 512  # texts per step of the progress bar
MAX_JUDGEMENTS = 20_000
SD_SPREAD = 0.7  # of log sd around its usual value


@dataclass(frozen=True)
class SavedJury:
    """Rewards of texts and how raters vary around them. A `raters.predictors.Predictor` for these texts.

    Attributes:
        model: How raters vary.
        texts: `U` texts.
        rewards: (U, K) logits.
        placement: The raters that are adapted.
        variance: (U, C) how unsure the jury is of the rewards for a rater at each code, see
            `JuryScorer.reward_variance`; predictions average over it. None: the rewards are taken as they are.

    Example:
        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("rating", num_raters=20)
        >>> enc = planted.judgements.encode()
        >>> model = fit_rater_model(enc, planted.rewards, np.array([0.5, 0.5]), rater_terms=False)
        >>> jury = SavedJury.unadapted(model, planted.texts, planted.rewards)
        >>> bool((jury.memberships(enc).argmax(1) == planted.cluster).all())
        True
    """

    model: RaterModel
    texts: list[Text]
    rewards: np.ndarray
    placement: Placement
    variance: np.ndarray | None = None

    @classmethod
    def unadapted(
        cls,
        model: RaterModel,
        texts: list[Text],
        rewards: np.ndarray,
        variance: np.ndarray | None = None,
        strangers: np.ndarray | None = None,
    ) -> SavedJury:
        """Make a predictor that has not adapted to any rater yet; `strangers` as in `Placement`."""
        return cls(model, texts, rewards, model.prior_placement(strangers), variance)

    def log_probs(self, enc: Encoded, features: np.ndarray | None = None) -> np.ndarray:
        """Compute (N, A) the log-probability of every possible answer; see `Predictor`. `features` are ignored.

        Raises:
            JuryError: A text was not scored.
        """
        variance = None if self.variance is None else self.variance[self._rows(enc)]
        return self.placement.log_probs(enc, self.rewards_of(enc), code_variance=variance)

    def adapt(self, enc: Encoded, features: np.ndarray | None = None) -> SavedJury:
        """Return the same jury adapted to the raters of `enc` by their labels; other raters are forgotten."""
        return replace(self, placement=self.placement.adapt(enc, self.rewards_of(enc)))

    def memberships(self, enc: Encoded) -> np.ndarray:
        """Infer (R, K) posterior memberships of `enc`'s raters from `enc`'s labels only."""
        return self.adapt(enc).placement.memberships()

    def code_rewards(self, enc: Encoded) -> np.ndarray:
        """Compute (U', C) rewards of `enc.texts` for a rater at each code, on the scale of the answers."""
        log_scale = self.model.terms[enc.kind].shared.get("log_scale_mean", np.zeros(1))
        return np.exp(log_scale[0]) * self.rewards_of(enc) @ self.model.codes.T

    def rewards_of(self, enc: Encoded) -> np.ndarray:
        """Look up (U', K) rewards of `enc.texts`.

        Raises:
            JuryError: A text was not scored.
        """
        return self.rewards[self._rows(enc)]

    def _rows(self, enc: Encoded) -> list[int]:
        row = {text: i for i, text in enumerate(self.texts)}
        unknown = [text for text in enc.texts if text not in row]
        if unknown:
            raise JuryError(
                f"{len(unknown)} of {enc.n_texts} texts were not scored, the first: {unknown[0]!r}. Fix: score the "
                "texts of all tables together"
            )
        return [row[text] for text in enc.texts]


def as_read(scorer: JuryScorer, texts: Sequence[Text]) -> list[Text]:
    """Return texts with prompts as the jury reads them: as messages, of a jury that was fitted to conversations.

    Example:
        >>> from types import SimpleNamespace
        >>> reads_messages = SimpleNamespace(reading=SimpleNamespace(format="conversations"))
        >>> as_read(reads_messages, [Text("Which?", "tea")])[0].prompt
        (('user', 'Which?'),)
    """
    if scorer.reading.format != "conversations":
        return list(texts)
    return [Text(freeze_prompt(as_messages(text.prompt)), text.response) for text in texts]


def score_texts(scorer: JuryScorer, texts: Sequence[Text], *, progress: bool = True) -> np.ndarray:
    """Compute (U, K) rewards as the likelihood of judgements takes them: logits, at the temperature of the jury.

    Args:
        scorer: The saved jury reward model.
        texts: `U` texts.
        progress: Show a progress bar.

    Raises:
        JuryError: The scorer is calibrated, or see `JuryScorer.cluster_rewards`.

    Example:
        >>> from reward_models import JuryRewardModel
        >>> from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
        >>> model = JuryRewardModel.from_fit(tiny_causal_lm(), np.zeros((2, 32)), [1.0, -1.0], [0.5, 0.5])
        >>> score_texts(JuryScorer(model, tiny_tokenizer()), [Text("Which?", " tea")], progress=False).tolist()
        [[1.0, -1.0]]
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
    """Fit how raters vary around fixed rewards, by marginal maximum likelihood.

    Fitted are a common scale of the rewards, thresholds and tie rate, and the spread of the rater terms; memberships
    are summed out, with the prevalence fixed.

    Args:
        enc: Labels; if there are more than 20,000, those of a sample of raters are used.
        rewards: (U, K) rewards of `enc.texts`.
        prevalence: (K,) shares of the population.
        rater_terms: Whether raters differ in leniency, scale, ties and position.
        seed: Random seed of the sample.

    Example:
        >>> from reward_models import planted_judgements
        >>> planted = planted_judgements("preference", num_raters=40, num_items=30)
        >>> enc = planted.judgements.encode()
        >>> model = fit_rater_model(enc, planted.rewards / 2, np.array([0.5, 0.5]), rater_terms=False)
        >>> float(np.exp(model.shared["log_scale_mean"][0]).round())  # the rewards were halved
        2.0
    """
    if len(enc) > MAX_JUDGEMENTS:
        order = seeded_rng(seed, "sample of raters for rater terms").permutation(enc.n_raters)
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
    prior_terms = {enc.kind: KindTerms({}, {name: TERM_SD[name] for name in names})}
    model = RaterModel("mixture", np.eye(len(log_prior)), log_prior, prior_terms)
    cells, cell = obs.distinct()
    index = torch.stack([obs.rater, cell])
    counts = torch.sparse_coo_tensor(index, obs.count, (enc.n_raters, len(cells.label)), check_invariants=False)
    basis, state_prior = torch.from_numpy(rewards), torch.from_numpy(model.log_prior)
    rater_weight = torch.tensor(enc.rater_weight)

    def loss(params: dict[str, torch.Tensor]) -> torch.Tensor:
        shared = torch_terms({name: value for name, value in params.items() if name != "log_sd"})
        sd = {name: TERM_SD[name] * params["log_sd"][i].exp() for i, name in enumerate(names)}
        table = state_table(model, cells, basis, shared, sd)
        prior = 0.5 * (params["log_scale_mean"].square().sum() + (params["log_sd"] / SD_SPREAD).square().sum())
        return prior - rater_weight @ (state_prior + torch.sparse.mm(counts, table)).logsumexp(1)

    optimum = minimise(loss, start, max_iter=100, tol=1e-8)
    sd = {name: TERM_SD[name] * float(np.exp(optimum["log_sd"][i])) for i, name in enumerate(names)}
    shared = public_terms({name: value for name, value in optimum.items() if name != "log_sd"})
    return replace(model, terms={enc.kind: KindTerms(shared, sd)})
