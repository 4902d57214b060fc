"""Amortised membership: a network infers the code of a rater from the rater's labels in one forward pass.

The membership of VPL (Poddar et al., "Personalizing Reinforcement Learning from Human Feedback with Variational
Preference Learning", NeurIPS 2024, arXiv 2408.10075), with the swap consistency of its successor SPL (ICLR 2026):

    r_u(x) = s(x) + m_u . delta(x),    m_u ~ N(mu(D_u), Sigma(D_u)),    prior N(0, I),

`mu` and `Sigma` come from `encoder_network`, which treats the rater terms (leniency, scale, ties, position) as further
unknowns of the likelihood, never of the reward. Deviations from the papers:

1. The labels of a rater are split at random into a context, which is encoded, and targets, whose probability averaged
   over samples of m is maximised. The network therefore learns to adapt from one label as well as from many, and a
   code that only reproduces its context gains nothing. The divergence from the prior is penalised with free bits.
2. Swapping all preferences of a rater turns m into -m exactly (see `encoder_network`), not by a penalty.
3. Every text has its own parameters, extended to new texts by regression on features (`text_table`).
4. Training starts at a factor model fitted by EM to the scores; its spread of tastes is the prior of delta.
5. A tenth of the labels and a twentieth of the raters are held out for early stopping; then the model is trained on
   all labels for the same number of epochs. If the code does not improve the held-out loss it is dropped, and the fit
   is one reward for everybody with rater terms (`Collapse`).

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
    Training,
    decode,
    draw_samples,
    fixed_draws,
    log_mean_exp,
)
from reward_models.baselines.heldout import HeldOut
from reward_models.errors import JuryError, settings_or_default
from reward_models.fitting.text_table import TextTable, check_features, extend_to_features
from reward_models.judgements.encoding import Encoded
from reward_models.raters.lbfgs import one_thread
from reward_models.raters.observation import Observations
from reward_models.raters.predictors import n_answers, n_possible_answers, positions, require_raters
from reward_models.raters.rater_model import RaterModel
from reward_models.seeds import seeded_rng


__all__ = ["Collapse", "EncoderFit", "fit_encoder"]

ACTIVE = 0.01  # variance over raters of a code's mean, from which on it counts as used (Burda et al. 2016)
CHUNK = 50_000  # judgements at a time


@dataclass(frozen=True)
class Collapse:
    """Whether the code is used (posterior collapse: a code that is the same whatever the labels).

    Attributes:
        gain: Improvement of the held-out loss by the code, nats per judgement; if it is not positive, tastes and
            loadings are zero.
        kl: (B,) divergence of the training raters' posteriors from the prior, mean over raters, nats per dimension.
        active_units: Number of dimensions whose mean has a variance over raters above 0.01.
        taste_sd: (B,) standard deviation over texts of the effect on the reward of one unit of the code, logits.

    Example:
        >>> print(Collapse(gain=0.12, kl=np.array([1.5, 0.0]), active_units=1, taste_sd=np.array([0.8, 0.0])))
        1 of 2 code dimensions are used (1.50 nats per rater); gain on held-out labels: +0.120 nats per judgement
    """

    gain: float
    kl: np.ndarray
    active_units: int
    taste_sd: np.ndarray

    def __str__(self) -> str:
        used = (
            f"{self.active_units} of {len(self.kl)} code dimensions are used ({self.kl.sum():.2f} nats per rater); "
            f"gain on held-out labels: {self.gain:+.3f} nats per judgement"
        )
        return used if self.active_units else f"posterior collapse: {used}; all raters are predicted alike"


@dataclass(frozen=True)
class EncoderFit:
    """A trained encoder and decoder. A `predictors.Predictor`; `fit_encoder` makes it.

    Attributes:
        population: One reward for everybody and how rater terms vary; labels are scored at this model.
        table: Population's reward, s, delta (B) and the encoder's loadings (B) of each text.
        network: The trained network of the encoder.
        shared: Shared terms of the likelihood.
        term_sd: Standard deviation of each rater term, logits.
        rater_ids: `R` raters that were adapted.
        mean: (R, P) posterior means of code and terms, in units of their prior; `P = B + T`.
        covariance: (R, P, P).
        collapse: Whether the code is used, on the training raters.
        validation: Loss on the held-out labels after each epoch, nats per judgement; the first is before training.
        config: Settings of the training.

    Example:
        >>> from reward_models import EncoderConfig, planted_judgements
        >>> enc = planted_judgements("preference").judgements.encode()
        >>> fit = fit_encoder(enc, 1, config=EncoderConfig(epochs=2))
        >>> fit.memberships().shape, len(fit.validation)
        ((30, 1), 3)
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
        """Kind of judgements of the fit."""
        return self.population.kind

    def memberships(self) -> np.ndarray:
        """Return the (R, B) posterior mean of the code of `rater_ids`."""
        return self.mean[:, : self.num_clusters]

    def log_probs(self, enc: Encoded, features: np.ndarray | None = None) -> np.ndarray:
        """Compute the (N, A) log-probability of every possible answer; see `Predictor`.

        Code and terms are averaged over 32 quasi-random samples in mirrored pairs, the same for all raters.

        Raises:
            JuryError: Judgements that the population model cannot score, or new texts without features.
        """
        columns = self.table.rows(enc, features)
        self.population.check(enc, columns[:, :1])
        row = positions(enc.rater_ids, self.rater_ids)
        size = self.mean.shape[1]
        mean = np.where(row[:, None] >= 0, self.mean[row], 0.0) if self.rater_ids else np.zeros((len(row), size))
        spread = np.tile(np.eye(size), (len(row), 1, 1))
        spread[row >= 0] = self.covariance[row[row >= 0]]
        samples = draw_samples(torch.from_numpy(mean), torch.from_numpy(spread), fixed_draws(size))
        consensus, taste = (torch.from_numpy(c) for c in np.split(columns[:, 1 : 2 + self.num_clusters], [1], axis=1))
        shared = {name: torch.from_numpy(value) for name, value in self.shared.items()}
        sd = torch.tensor(list(self.term_sd.values()), dtype=torch.float64)
        obs = Observations.from_encoded(enc)
        log_p = np.full((len(enc), n_answers(enc)), -np.inf)
        with torch.no_grad():
            for start in range(0, len(enc), CHUNK):
                part = obs.select(slice(start, start + CHUNK))
                rewards, terms = decode(part, consensus[:, 0], taste, samples[part.rater], list(self.term_sd), sd)
                for answer in range(n_possible_answers(enc, shared)):
                    log_lik = part.answering(answer).state_log_lik(rewards, shared | terms)
                    log_p[start : start + CHUNK, answer] = log_mean_exp(log_lik).numpy()
        return log_p

    def adapt(self, enc: Encoded, features: np.ndarray | None = None) -> EncoderFit:
        """Return the same encoder with the raters of `enc` adapted from their labels: one forward pass.

        Raises:
            JuryError: As for `log_probs`.
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
    """Train an encoder that infers the code of a rater from labels.

    Args:
        enc: The judgements.
        num_clusters: Size of the code `B`.
        features: (U, D) rows for `enc.texts`, to score new texts too; None: only the texts of `enc` can be scored.
        nuisance: Whether the likelihood has rater terms.
        config: Settings of the training; None: the defaults.

    Returns:
        The encoder, the raters of `enc` adapted from their labels.

    Raises:
        JuryError: A table without raters, `num_clusters` below 1, nothing to hold out, or features that do not match.

    Example:
        >>> from reward_models import EncoderConfig, adjusted_rand_index, planted_judgements
        >>> planted = planted_judgements("preference", num_items=20)
        >>> fit = fit_encoder(planted.judgements.encode(), 1, config=EncoderConfig(epochs=3))
        >>> adjusted_rand_index((fit.memberships()[:, 0] > 0).astype(int), planted.cluster)
        1.0
    """
    config = settings_or_default(config, EncoderConfig)
    require_raters(enc, "an encoder of raters")
    if num_clusters < 1:
        raise JuryError(f"num_clusters={num_clusters}: the code of a rater has at least one dimension. Fix: use 4")
    if features is not None:
        check_features(enc, features)
    heldout = HeldOut.of(enc, config.heldout, seeded_rng(config.seed, "heldout labels of encoder"))
    nothing = np.zeros(len(enc), dtype=bool)
    # fork_rng: the caller's random numbers must not depend on whether an encoder was trained.
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
