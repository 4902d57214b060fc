"""Amortised membership: a network reads a rater's labels and says, in one pass, where the rater stands.

The membership of VPL (Poddar et al., "Personalizing Reinforcement Learning from Human Feedback with Variational
Preference Learning", NeurIPS 2024, arXiv 2408.10075), with what its successor SPL (ICLR 2026) found to be missing:

    r_u(x) = s(x) + m_u . delta(x),    m_u ~ N(mu(D_u), Sigma(D_u)),    prior N(0, I),

`mu` and `Sigma` from `encoder_network`, which treats the rater terms (leniency, scale, ties, position) as further
unknowns of the likelihood, never of the reward. Where we leave the papers:

1. The labels of a rater are split at random into a context, which is encoded, and targets, whose probability averaged
   over samples of m is maximised. So the network learns to place raters from one label as from all, and a code that
   only repeats its own labels earns nothing. The divergence from the prior enters with free bits.
2. Swapping all preferences of a rater turns m into -m exactly (see `encoder_network`), not as a fitted constraint.
3. Every text has parameters of its own, extended to new texts by regression on features (`text_table`).
4. Training starts at a factor model fitted by EM to the scores, which also says how far tastes reach: that is the
   prior of delta.
5. A tenth of the labels and a twentieth of the raters, left out, say when to stop; then everything is trained on for
   as many epochs. If the code is worth nothing on them there is none, and the fit is one reward for everybody with
   rater terms (`Collapse`).

Training is Adam on minibatches of raters, with averaged iterates. Knows nothing of clusters or of language models.

Shapes: `N` judgements, `R` raters, `U` texts, `B` code dimensions, `T` rater terms, `S` samples, `A` answers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from reward_models.baselines.encoder_network import CodeNetwork, score_labels
from reward_models.baselines.encoder_training import (
    EncoderConfig,
    HeldOut,
    Training,
    decode,
    draw_samples,
    fixed_draws,
    log_mean_exp,
)
from reward_models.baselines.vpl import VPLConfig, VPLFit, fit_vpl
from reward_models.errors import JuryError
from reward_models.fitting.text_table import TextTable, check_features, extend_to_features
from reward_models.judgements.encoding import Encoded
from reward_models.raters.lbfgs import one_thread
from reward_models.raters.observation import Observations
from reward_models.raters.predictors import n_answers
from reward_models.raters.rater_model import RaterModel


__all__ = ["Collapse", "EncoderConfig", "EncoderFit", "VPLConfig", "VPLFit", "fit_encoder", "fit_vpl"]

ACTIVE = 0.01  # variance over raters of a code's mean (Burda, Grosse and Salakhutdinov 2016)
CHUNK = 50_000


@dataclass(frozen=True)
class Collapse:
    """Whether the code is used at all (posterior collapse: a code that says nothing, whatever the labels).

    Attributes:
        gain: What the code is worth on labels left out of training, nats per judgement; where it is worth nothing
            there is no code: tastes and loadings are zero.
        kl: (B,) divergence of the training raters' posteriors from the prior, mean over raters, nats per dimension.
        active_units: Dimensions whose mean varies over raters by a variance above 0.01.
        taste_sd: (B,) standard deviation over texts of the effect on the reward of one unit of the code, logits.
    """

    gain: float
    kl: np.ndarray
    active_units: int
    taste_sd: np.ndarray

    def __str__(self) -> str:
        used = (
            f"{self.active_units} of {len(self.kl)} code dimensions are used ({self.kl.sum():.2f} nats a rater), "
            f"worth {self.gain:+.3f} nats a judgement on labels left out"
        )
        return used if self.active_units else f"posterior collapse: {used}; all raters are taken for the average one"


@dataclass(frozen=True)
class EncoderFit:
    """A trained encoder and decoder. A `predictors.Predictor`.

    Attributes:
        population: One reward for everybody and how rater terms vary: what labels are scored against.
        table: Per text the population's reward, s, delta (B) and the encoder's loadings (B).
        network: The learnt part of the encoder.
        shared: Shared terms of the likelihood.
        term_sd: Standard deviation of each rater term, logits.
        rater_ids: `R` raters that are adapted.
        mean: (R, P) posterior means of code and terms, in units of their prior; `P = B + T`.
        covariance: (R, P, P).
        collapse: Whether the code is used, on the training raters.
        validation: Loss on the left-out labels after each epoch, nats per judgement; the first is before training.
        config: How it was trained.
    """

    population: RaterModel
    table: TextTable
    network: CodeNetwork
    shared: dict[str, np.ndarray]
    term_sd: dict[str, float]
    rater_ids: list[str]
    mean: np.ndarray
    covariance: np.ndarray
    collapse: Collapse
    validation: list[float]
    config: EncoderConfig

    @property
    def num_clusters(self) -> int:
        """Size of the code `B`."""
        return self.network.num_codes

    @property
    def kind(self) -> str:
        """Kind of judgements it was fitted to."""
        return self.population.kind

    def memberships(self) -> np.ndarray:
        """(R, B) posterior mean of the code of `rater_ids`."""
        return self.mean[:, : self.num_clusters]

    def log_probs(self, enc: Encoded, features: np.ndarray | None = None) -> np.ndarray:
        """(N, A) log-probability of every possible answer; see `Predictor`.

        Code and terms are averaged over 32 quasi-random samples in mirrored pairs, the same for all raters.

        Raises:
            JuryError: Judgements the population model cannot score, or new texts without features.
        """
        columns = self.table.rows(enc, features)
        self.population.check(enc, columns[:, :1])
        known = {rater: i for i, rater in enumerate(self.rater_ids)}
        own = np.array([known.get(rater, -1) for rater in enc.rater_ids], dtype=np.int64)
        size = self.mean.shape[1]
        mean = np.where(own[:, None] >= 0, self.mean[own], 0.0) if len(known) else np.zeros((len(own), size))
        spread = np.tile(np.eye(size), (len(own), 1, 1))
        spread[own >= 0] = self.covariance[own[own >= 0]]
        samples = draw_samples(torch.from_numpy(mean), torch.from_numpy(spread), fixed_draws(size))
        consensus, taste = (torch.from_numpy(c) for c in np.split(columns[:, 1 : 2 + self.num_clusters], [1], axis=1))
        shared = {name: torch.from_numpy(value) for name, value in self.shared.items()}
        sd = torch.tensor(list(self.term_sd.values()), dtype=torch.float64)
        obs = Observations.from_encoded(enc)
        answers = n_answers(enc)
        log_p = np.full((len(enc), answers), -np.inf)
        known_answers = 2 if enc.kind == "preference" and "log_tie_mean" not in shared else answers
        with torch.no_grad():
            for start in range(0, len(enc), CHUNK):
                part = obs.select(slice(start, start + CHUNK))
                rewards, terms = decode(part, consensus[:, 0], taste, samples[part.rater], list(self.term_sd), sd)
                for answer in range(known_answers):
                    log_lik = part.answering(answer).state_log_lik(rewards, shared | terms)
                    log_p[start : start + CHUNK, answer] = log_mean_exp(log_lik).numpy()
        return log_p

    def adapt(self, enc: Encoded, features: np.ndarray | None = None) -> EncoderFit:
        """The same encoder with the raters of `enc` placed by their labels: one forward pass.

        Raises:
            JuryError: As `log_probs`.
        """
        columns = self.table.rows(enc, features)
        scores = score_labels(enc, self.population, columns[:, :1], swap=self.config.swap_consistent)
        with torch.no_grad():
            mean, covariance = self.network(
                scores,
                torch.from_numpy(columns[:, 2 + self.num_clusters :]),
                torch.arange(len(enc)),
                torch.from_numpy(enc.rater),
                torch.arange(enc.n_raters),
            )
        return replace(self, rater_ids=enc.rater_ids, mean=mean.numpy(), covariance=covariance.numpy())


def fit_encoder(
    enc: Encoded,
    num_clusters: int = 4,
    *,
    features: np.ndarray | None = None,
    nuisance: bool = True,
    config: EncoderConfig | None = None,
) -> EncoderFit:
    """Train an encoder of raters.

    Args:
        enc: The judgements.
        num_clusters: Size of the code `B`.
        features: (U, D) rows for `enc.texts`, to score new texts too; None: only the texts of `enc` will be known.
        nuisance: Rater terms in the likelihood.
        config: Training; None: the defaults.

    Returns:
        The encoder, its training raters placed by their own labels.

    Raises:
        JuryError: A table without raters, a code of no size, nothing to leave out, or features that do not fit.
    """
    config = config or EncoderConfig()
    if enc.kind == "soft":
        raise JuryError(
            "kind='soft': a table of answer shares does not say who answered, so there is nobody to encode; use "
            "reward_models.baselines.distributional"
        )
    if num_clusters < 1:
        raise JuryError(f"num_clusters={num_clusters}: the code of a rater has at least one dimension; use 4")
    if features is not None:
        check_features(enc, features)
    heldout = HeldOut.of(enc, config.heldout, np.random.default_rng(config.seed))
    nothing = np.zeros(len(enc), dtype=bool)
    # fork_rng: the caller's own random numbers must not depend on whether an encoder was trained.
    with one_thread(), torch.random.fork_rng(devices=[]):
        trial = Training(enc, heldout, num_clusters, nuisance, config)
        _, validation = trial.run(config.epochs)
        gain = trial.without_taste()[1] - min(validation)
        training = Training(enc, HeldOut(nothing, nothing, nothing, np.arange(0)), num_clusters, nuisance, config)
        decoder = training.run(int(np.argmin(validation)))[0] if gain > 0 else training.without_taste()[0]
    model = training.model
    columns = np.concatenate([training.rewards, *(c.detach().numpy() for c in decoder.columns())], axis=1)
    table = TextTable(enc.texts, columns)
    if features is not None:
        table = extend_to_features(enc, columns, training.information(), features, config.seed)
    sd = decoder.log_sd.detach().exp().tolist()
    shape = (0, num_clusters + len(sd))
    fit = EncoderFit(
        population=model,
        table=table,
        network=decoder.network.requires_grad_(False),
        shared={name: value.detach().numpy() for name, value in decoder.shared().items()},
        term_sd=dict(zip(model.term_sd, sd, strict=True)),
        rater_ids=[],
        mean=np.zeros(shape),
        covariance=np.zeros((*shape, shape[1])),
        collapse=Collapse(gain, np.zeros(num_clusters), 0, np.zeros(num_clusters)),
        validation=validation,
        config=config,
    ).adapt(enc)
    code, variance = fit.memberships(), np.diagonal(fit.covariance, axis1=1, axis2=2)[:, :num_clusters]
    divergence = 0.5 * (code**2 + variance - 1.0 - np.log(variance)).mean(0)
    taste_sd = columns[:, 2 : 2 + num_clusters].std(0)
    return replace(fit, collapse=Collapse(gain, divergence, int((code.var(0) > ACTIVE).sum()), taste_sd))
