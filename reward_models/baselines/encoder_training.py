"""Training of `encoder`: contexts and targets, a factor model to start from, Adam, early stopping.

Knows nothing of tables of texts, features or predictions.

Shapes: `N` judgements, `R` raters, `U` texts, `B` code dimensions, `T` rater terms, `P = B + T`, `S` samples, `A`
alternatives.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array
from scipy.stats import norm, qmc
from torch import Tensor, nn

from reward_models.baselines.encoder_network import CodeNetwork, LabelScores, score_labels
from reward_models.baselines.heldout import HeldOut, RaterRows
from reward_models.errors import JuryError, check_values
from reward_models.fitting.em import FitConfig, spectral_embedding
from reward_models.fitting.rater_fit import fit_raters
from reward_models.judgements.encoding import Encoded
from reward_models.raters.observation import Observations, torch_terms
from reward_models.raters.rater_model import RaterModel
from reward_models.seeds import derived_seed, seeded_rng


__all__ = [
    "Decoder",
    "EncoderConfig",
    "Training",
    "decode",
    "draw_samples",
    "fixed_draws",
    "log_mean_exp",
]

EM_STEPS = 4
START_SD, LEAST_SD = 0.3, 0.6  # standard deviation over texts of a taste's effect on the reward, in logits
CONSENSUS_PRECISION, CONSENSUS_STEP = 0.1, 0.3  # prior precision, and logits per unit of the trained parameter


@dataclass(frozen=True)
class EncoderConfig:
    """Settings of the training of an encoder.

    Attributes:
        epochs: Most passes over the raters.
        patience: Epochs without improvement on the held-out labels before training stops.
        batch_raters: Raters per step.
        learning_rate: Learning rate of Adam.
        averaging: Decay of the running average of the parameters; the average is the result.
        samples: Samples of the code per rater in training; half of them are mirror images of the others.
        kl_weight: Weight of the divergence of a rater's posterior from the prior.
        free_bits: Divergence per code dimension, in nats, that is not penalised.
        heldout: Share of each rater's labels to hold out for early stopping; half that share of the raters is held out
            too.
        swap_consistent: Make m(swapped labels) = -m(labels) exact.
        seed: Random seed.

    Raises:
        JuryError: A value that cannot work.

    Example:
        >>> EncoderConfig(epochs=5).patience
        15
        >>> EncoderConfig(samples=3)
        Traceback (most recent call last):
            ...
        reward_models.errors.JuryError: epochs=30, patience=15, batch_raters=64 must be at least 1 and samples=3 ...
    """

    epochs: int = 30
    patience: int = 15
    batch_raters: int = 64
    learning_rate: float = 0.05
    averaging: float = 0.97
    samples: int = 8
    kl_weight: float = 0.01
    free_bits: float = 0.1
    heldout: float = 0.1
    swap_consistent: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        check_values(self)
        if min(self.epochs, self.patience, self.batch_raters) < 1 or self.samples < 2 or self.samples % 2:
            raise JuryError(
                f"epochs={self.epochs}, patience={self.patience}, batch_raters={self.batch_raters} must be at least 1 "
                f"and samples={self.samples} even and at least 2, because samples come in mirrored pairs"
            )
        if not (self.learning_rate > 0 and 0 <= self.averaging < 1 and 0 < self.heldout < 1):
            raise JuryError(
                f"learning_rate={self.learning_rate} must be positive, averaging={self.averaging} in [0, 1) and "
                f"heldout={self.heldout} in (0, 1). Fix: use the defaults 0.05, 0.97 and 0.1"
            )
        if self.kl_weight < 0 or self.free_bits < 0:
            raise JuryError(
                f"kl_weight={self.kl_weight} and free_bits={self.free_bits} must be at least 0, or codes are rewarded "
                "for leaving the prior. Fix: use the defaults 0.01 and 0.1"
            )


class Decoder(nn.Module):
    """All trained parameters: those of the texts, shared terms, and the encoder's network.

    Args:
        rewards: (U, 1) rewards of the population.
        taste: (U, B) effect on the reward of one unit of the code, to start from.
        spread: (B,) prior standard deviation of the taste over texts.
        model: The population's rater terms.
        centre: (U,) share of the judgements of each text if leniency carries a taste for all texts, else None.
    """

    def __init__(
        self, rewards: np.ndarray, taste: np.ndarray, spread: np.ndarray, model: RaterModel, centre: Tensor | None
    ) -> None:
        super().__init__()
        # Parameters are in units of their prior spread, so that a step of Adam is small for small tastes.
        self.spread, self.start = torch.tensor(spread), torch.tensor(rewards[:, 0])
        self.consensus = nn.Parameter(torch.zeros(len(rewards), dtype=torch.float64))
        self.taste = nn.Parameter(torch.tensor(taste / spread))
        self.loading = nn.Parameter(torch.tensor(taste / spread))
        raw = {name: torch.tensor(value, dtype=torch.float64) for name, value in model.shared.items()}
        if "thresholds" in raw:
            zeta = raw.pop("thresholds")
            raw["raw_thresholds"] = torch.cat([zeta[:1], zeta.diff().log()])
        self.raw = nn.ParameterDict(raw)
        self.log_sd = nn.Parameter(torch.tensor(list(model.term_sd.values()), dtype=torch.float64).log())
        self.network = CodeNetwork(taste.shape[1], len(model.term_sd))
        self.centre = centre

    def columns(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return consensus (U, 1), delta (U, B) and loadings (U, B); a taste for all ratings is leniency, a term."""
        taste, loading = self.spread * self.taste, self.spread * self.loading
        if self.centre is not None:
            taste, loading = taste - self.centre @ taste, loading - self.centre @ loading
        return (self.start + CONSENSUS_STEP * self.consensus)[:, None], taste, loading

    def shared(self) -> dict[str, Tensor]:
        """Return the shared terms, with increasing thresholds."""
        return torch_terms(dict(self.raw.items()))

    def penalty(self) -> Tensor:
        """Compute minus the log prior of the texts' parameters, up to a constant."""
        consensus, _, _ = self.columns()
        sizes = self.taste.square().sum() + self.loading.square().sum()
        return 0.5 * (CONSENSUS_PRECISION * consensus.square().sum() + sizes)


class Training:
    """Training loop: contexts and targets, minibatches of raters, averaged parameters, early stopping.

    Args:
        enc: The judgements.
        heldout: Judgements that training does not see.
        num_codes: Size of the code `B`.
        nuisance: Whether the likelihood has rater terms.
        config: Settings.
    """

    def __init__(self, enc: Encoded, heldout: HeldOut, num_codes: int, nuisance: bool, config: EncoderConfig) -> None:
        self.enc, self.heldout, self.num_codes, self.config = enc, heldout, num_codes, config
        seen = enc.select(~heldout.mask)
        base = fit_raters(seen, "mixture", 1, config=FitConfig(nuisance=nuisance, seed=config.seed))
        self.model, self.rewards = base.model, base.known_rewards(enc)
        self.obs = Observations.from_encoded(enc)
        self.by_rater = RaterRows(enc)
        self.raters = np.unique(seen.rater)
        self.draws = fixed_draws(num_codes + len(self.model.term_sd))

    def run(self, epochs: int) -> tuple[Decoder, list[float]]:
        """Train for at most `epochs` epochs of a schedule of `config.epochs`.

        Returns:
            The averaged parameters after the last epoch, and the loss on the held-out labels before the first epoch
            and after each (empty if nothing was held out).
        """
        config, rng = self.config, seeded_rng(self.config.seed, "training of encoder")
        torch.manual_seed(derived_seed(config.seed, "draws of encoder"))
        taste, spread, centre = self._factor_start(rng)
        decoder = Decoder(self.rewards, taste, np.maximum(spread, LEAST_SD), self.model, centre)
        average = copy.deepcopy(decoder)
        heldout = self._scores(self.heldout.context) if self.heldout.target.any() else None
        history = [] if heldout is None else [self._heldout_loss(average, heldout)]
        optimiser = torch.optim.Adam(decoder.parameters(), lr=config.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.epochs)
        step = 0
        for _ in range(epochs):
            # In every epoch each rater has another share of the labels as context, from none to all.
            share = rng.random(self.enc.n_raters)
            context = ~self.heldout.mask & (rng.random(len(self.enc)) < share[self.enc.rater])
            target = ~self.heldout.mask & ~context
            scores = self._scores(context)
            shuffled = rng.permutation(self.raters)
            for batch in np.array_split(shuffled, max(1, round(len(shuffled) / config.batch_raters))):
                loss = self._loss(decoder, batch, context, target, scores)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                step += 1
                decay = min(config.averaging, step / (step + 10))
                with torch.no_grad():
                    for mean, value in zip(average.parameters(), decoder.parameters(), strict=True):
                        mean.lerp_(value, 1.0 - decay)
            schedule.step()
            if heldout is not None:
                history.append(self._heldout_loss(average, heldout))
                if len(history) - 1 - int(np.argmin(history)) >= config.patience:
                    break
        return average, history

    def without_taste(self) -> tuple[Decoder, float]:
        """Return the population and its rater terms alone, and their loss on the held-out labels (nan if none)."""
        nothing = np.zeros((self.enc.n_texts, self.num_codes))
        decoder = Decoder(self.rewards, nothing, np.ones(self.num_codes), self.model, None)
        if not self.heldout.target.any():
            return decoder, math.nan
        return decoder, self._heldout_loss(decoder, self._scores(self.heldout.context))

    def information(self) -> np.ndarray:
        """Compute the (U,) Fisher information of the labels about the reward of each text, in 1 / logit^2."""
        scores = self._scores(np.ones(len(self.enc), dtype=bool))
        each = torch.einsum("ny,nya->na", scores.straight.prob, scores.straight.by_reward.square())
        each = each * torch.tensor(self.enc.weight)[:, None]
        return np.bincount(scores.alternatives.flatten().numpy(), each.flatten().numpy(), self.enc.n_texts)

    def _scores(self, context: np.ndarray) -> LabelScores:
        return score_labels(self.enc, self.model, self.rewards, context=context, swap=self.config.swap_consistent)

    def _factor_start(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, Tensor | None]:
        """Fit a factor model to the scores of the training labels, by EM.

        Around the population's rewards the log-likelihood is quadratic in `delta m`, with scores g and information F
        of the rewards of each judgement. The E-step is that of the encoder. The M-step is a Newton step on delta, text
        by text (F of a judgement is below A times its diagonal); the spread of each taste is its root mean square,
        uncertainty included (empirical Bayes). Codes are scaled back to unit variance after each step, which makes EM
        fast (parameter expansion; Liu, Rubin and Wu 1998).

        Returns:
            delta (U, B), its standard deviation (B,), and (U,) the share of judgements of each text if leniency
            carries a taste for all texts, else None.
        """
        enc, seen = self.enc, ~self.heldout.mask
        scores = score_labels(enc, self.model, self.rewards, context=seen, swap=False)
        straight, rows = scores.straight, torch.from_numpy(np.flatnonzero(seen))
        text, rater, count = scores.alternatives[rows], torch.from_numpy(enc.rater)[rows], scores.count[rows]
        people = torch.tensor(enc.rater_weight)
        score = count[:, None] * straight.by_reward[rows, straight.label[rows]]
        information = torch.einsum(
            "n,ny,nya,nyb->nab", count, straight.prob[rows], straight.by_reward[rows], straight.by_reward[rows]
        )
        bound = text.shape[1] * torch.diagonal(information, dim1=1, dim2=2)
        centre = None
        if "intercept" in self.model.term_sd:
            share = np.bincount(enc.alternatives[:, 0], enc.weight, enc.n_texts)
            centre = torch.from_numpy(share / share.sum())

        size, raters = self.num_codes, torch.from_numpy(self.raters)
        by_rater = coo_array(
            (score.flatten(), (rater.repeat_interleave(text.shape[1]), text.flatten())), (enc.n_raters, enc.n_texts)
        )
        _, loadings = spectral_embedding(csr_array(by_rater), enc.rater_weight, size, rng)
        unit = rng.normal(size=(enc.n_texts, size))
        unit[:, : len(loadings)] = (loadings / np.sqrt((loadings**2).mean(1, keepdims=True) + 1e-12)).T
        taste, spread = START_SD * torch.from_numpy(unit), torch.full((size,), START_SD, dtype=torch.float64)
        judged = torch.bincount(text.flatten(), minlength=enc.n_texts) > 0
        network = CodeNetwork(size, len(self.model.term_sd)).requires_grad_(False)

        def per_text(values: Tensor) -> Tensor:
            total = values.new_zeros(enc.n_texts, *values.shape[2:])
            values = values * people[rater].reshape(-1, *[1] * (values.ndim - 1))
            return total.index_add(0, text.flatten(), values.flatten(0, 1))

        for _ in range(EM_STEPS):
            taste = taste if centre is None else taste - centre @ taste
            mean, covariance = network(scores, taste, rows, rater, torch.arange(enc.n_raters))
            code = mean[:, :size]
            moment = covariance[:, :size, :size] + code[:, :, None] * code[:, None]
            of_rater = moment[rater]
            expected = torch.einsum("nab,nbi,nij->naj", information, taste[text], of_rater)
            slope = per_text(score[:, :, None] * code[rater][:, None] - expected)
            curvature = per_text(bound[:, :, None, None] * of_rater[:, None]) + torch.diag(spread**-2)
            uncertainty = torch.linalg.inv(curvature)
            taste = taste + torch.einsum("uij,uj->ui", uncertainty, slope - taste * spread**-2)
            mass = people[raters] / people[raters].sum()
            unit_code = torch.diagonal(torch.einsum("u,uij->ij", mass, moment[raters])).sqrt()
            squares = taste.square() + torch.diagonal(uncertainty, dim1=1, dim2=2)
            spread = (squares[judged].mean(0).sqrt() * unit_code).clamp(min=1e-3)
            taste = taste * unit_code
        return taste.numpy(), spread.numpy(), centre

    def _log_lik(
        self,
        decoder: Decoder,
        raters: np.ndarray,
        context: np.ndarray,
        target: np.ndarray,
        scores: LabelScores,
        draws: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Log-likelihood (n,) and weights (n,) of the targets given the contexts; means and variances of the codes."""
        rows, position = self.by_rater.rows(raters)
        known, scored = context[rows], target[rows]
        consensus, taste, loading = decoder.columns()
        mean, covariance = decoder.network(
            scores,
            loading,
            torch.from_numpy(rows[known]),
            torch.from_numpy(position[known]),
            torch.from_numpy(raters),
        )
        part = self.obs.select(torch.from_numpy(rows[scored]))
        samples = draw_samples(mean, covariance, draws)[torch.from_numpy(position[scored])]
        rewards, terms = decode(part, consensus[:, 0], taste, samples, list(self.model.term_sd), decoder.log_sd.exp())
        log_lik = log_mean_exp(part.state_log_lik(rewards, decoder.shared() | terms))
        variance = torch.diagonal(covariance, dim1=1, dim2=2)
        return log_lik, part.weight, mean[:, : self.num_codes], variance[:, : self.num_codes]

    def _loss(
        self,
        decoder: Decoder,
        batch: np.ndarray,
        context: np.ndarray,
        target: np.ndarray,
        scores: LabelScores,
    ) -> Tensor:
        half = torch.randn(self.config.samples // 2, self.draws.shape[1], dtype=torch.float64)
        log_lik, weight, mean, variance = self._log_lik(
            decoder, batch, context, target, scores, torch.cat([half, -half])
        )
        people = torch.tensor(self.enc.rater_weight[batch])[:, None]
        divergence = 0.5 * (people * (mean.square() + variance - 1.0 - variance.log())).mean(0)
        excess = divergence.clamp(min=self.config.free_bits).sum()
        # On average half of the labels are targets, so half of the prior is counted.
        prior = 0.5 * decoder.penalty() / len(self.raters)
        return prior + self.config.kl_weight * excess - (weight * log_lik).sum() / len(batch)

    def _heldout_loss(self, decoder: Decoder, scores: LabelScores) -> float:
        """Loss in nats per held-out judgement."""
        out = self.heldout
        with torch.no_grad():
            log_lik, weight, _, _ = self._log_lik(decoder, out.raters, out.context, out.target, scores, self.draws)
        return -float((weight * log_lik).sum() / weight.sum())


def fixed_draws(size: int) -> Tensor:
    """Return (32, size) standard normal draws: 16 points of a Sobol sequence and their mirror images.

    Example:
        >>> draws = fixed_draws(3)
        >>> draws.shape, bool((draws[:16] == -draws[16:]).all())
        (torch.Size([32, 3]), True)
    """
    points = qmc.Sobol(size, scramble=True, rng=seeded_rng(0, "points of encoder")).random(16)
    half = torch.from_numpy(norm.ppf(points))
    return torch.cat([half, -half])


def draw_samples(mean: Tensor, covariance: Tensor, draws: Tensor) -> Tensor:
    """Return (R, S, P) samples of N(mean, covariance) from (S, P) standard normal draws.

    Example:
        >>> draw_samples(torch.tensor([[1.0]]), torch.tensor([[[4.0]]]), torch.tensor([[-1.0], [1.0]])).ravel()
        tensor([-1.,  3.])
    """
    return mean[:, None] + torch.einsum("rpq,sq->rsp", torch.linalg.cholesky(covariance), draws)


def decode(
    obs: Observations, consensus: Tensor, taste: Tensor, samples: Tensor, names: list[str], sd: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute rewards (N, A, S) and rater terms (N, S) of judgements whose raters have samples (N, S, P).

    Args:
        obs: `N` judgements.
        consensus: (U,) reward of each text.
        taste: (U, B) effect of the code on it.
        samples: (N, S, P) samples of code and terms, in units of their prior.
        names: Names of the rater terms.
        sd: (T,) their standard deviations.
    """
    code, terms = samples.split([taste.shape[1], len(names)], dim=2)
    rewards = consensus[obs.alternatives][:, :, None] + torch.einsum("nab,nsb->nas", taste[obs.alternatives], code)
    return rewards, {name: sd[i] * terms[:, :, i] for i, name in enumerate(names)}


def log_mean_exp(log_lik: Tensor) -> Tensor:
    """Compute the log of the mean over samples: (N, S) to (N,).

    Example:
        >>> log_mean_exp(torch.tensor([[0.2, 0.4]]).log()).exp()
        tensor([0.3000])
    """
    return torch.logsumexp(log_lik, dim=1) - math.log(log_lik.shape[1])
