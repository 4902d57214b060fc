"""Training of `encoder`: contexts and targets, a factor model to start from, Adam, early stopping.

Knows nothing of tables of texts, of features or of predictions.

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
from reward_models.errors import JuryError
from reward_models.fitting.em import FitConfig, spectral_embedding
from reward_models.fitting.rater_fit import fit_raters
from reward_models.judgements.encoding import Encoded
from reward_models.raters.observation import Observations, torch_terms
from reward_models.raters.rater_model import RaterModel
from reward_models.stats.resampling import heldout_labels


__all__ = [
    "Decoder",
    "EncoderConfig",
    "HeldOut",
    "RaterRows",
    "Training",
    "decode",
    "draw_samples",
    "fixed_draws",
    "log_mean_exp",
]

EM_STEPS = 4
START_SD, LEAST_SD = 0.3, 0.6  # of a taste's effect on the reward, over texts, in logits
CONSENSUS_PRECISION, CONSENSUS_STEP = 0.1, 0.3
MANY_RATERS = 20  # from which on some are left out with all their labels


@dataclass(frozen=True)
class EncoderConfig:
    """How an encoder is trained.

    Attributes:
        epochs: Most passes over the raters.
        patience: Epochs without improvement on the left-out labels before training stops.
        batch_raters: Raters per step.
        learning_rate: Of Adam.
        averaging: Decay of the running average of the parameters, which is what is kept.
        samples: Samples of the code per rater in training; half of them are mirror images of the others.
        kl_weight: Weight of the divergence of a rater's posterior from the prior.
        free_bits: Divergence per code dimension, in nats, that costs nothing.
        heldout: Share of each rater's labels left out to stop early; half that share of the raters is left out too.
        swap_consistent: Make m(swapped labels) = -m(labels) exact.
        seed: Seed of everything random.

    Raises:
        JuryError: When a value cannot work.
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
        if min(self.epochs, self.patience, self.batch_raters) < 1 or self.samples < 2 or self.samples % 2:
            raise JuryError(
                f"epochs={self.epochs}, patience={self.patience}, batch_raters={self.batch_raters} must be at least 1 "
                f"and samples={self.samples} even and at least 2, since samples come in mirrored pairs"
            )
        if not (self.learning_rate > 0 and 0 <= self.averaging < 1 and 0 < self.heldout < 1):
            raise JuryError(
                f"learning_rate={self.learning_rate} must be positive, averaging={self.averaging} in [0, 1) and "
                f"heldout={self.heldout} in (0, 1); the defaults are 0.03, 0.97 and 0.1"
            )


@dataclass(frozen=True)
class HeldOut:
    """What training does not see.

    Attributes:
        mask: (N,) not trained on.
        context: (N,) places the raters when the left-out labels are scored.
        target: (N,) scored.
        raters: Raters with a target.
    """

    mask: np.ndarray
    context: np.ndarray
    target: np.ndarray
    raters: np.ndarray

    @classmethod
    def of(cls, enc: Encoded, share: float, rng: np.random.Generator) -> HeldOut:
        """Leave out labels of every rater, and whole raters where there are enough of them.

        The first tell whether known raters are predicted better, the second whether new ones are.
        """
        out = np.zeros(enc.n_raters, dtype=bool)
        if enc.n_raters >= MANY_RATERS:
            out[rng.permutation(enc.n_raters)[: max(1, round(share / 2 * enc.n_raters))]] = True
        # Half of the new raters are known by many labels, half by few.
        known = np.where(rng.random(enc.n_raters) < 0.5, 0.8, 0.25)[enc.rater]
        new = out[enc.rater]
        label = heldout_labels(enc.rater, share, rng)
        mask = new | label
        target = np.where(new, rng.random(len(enc)) >= known, label)
        context = ~target
        if not target.any() or mask.all():
            raise JuryError(
                f"none of {len(enc)} judgements can be left out to stop training: an encoder needs raters with "
                "several judgements each"
            )
        return cls(mask, context, target, np.unique(enc.rater[target]))


class RaterRows:
    """Finds the judgements of raters."""

    def __init__(self, enc: Encoded) -> None:
        self.order = np.argsort(enc.rater, kind="stable")
        self.start = np.concatenate([[0], np.cumsum(np.bincount(enc.rater, minlength=enc.n_raters))])

    def rows(self, raters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows (n,) of all judgements of the given raters, and the position (n,) in `raters` of whose they are."""
        length = self.start[raters + 1] - self.start[raters]
        first = np.concatenate([[0], np.cumsum(length)[:-1]])
        rows = self.order[np.repeat(self.start[raters] - first, length) + np.arange(length.sum())]
        return rows, np.repeat(np.arange(len(raters)), length)


class Decoder(nn.Module):
    """All parameters that are trained: texts, shared terms, and the encoder's network."""

    def __init__(
        self, rewards: np.ndarray, taste: np.ndarray, spread: np.ndarray, model: RaterModel, centre: Tensor | None
    ) -> None:
        super().__init__()
        # In units of their prior spread, so that a step of Adam is small for small tastes.
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
        """Consensus (U, 1), delta (U, B) and loadings (U, B); a taste for all ratings is leniency, a term."""
        taste, loading = self.spread * self.taste, self.spread * self.loading
        if self.centre is not None:
            taste, loading = taste - self.centre @ taste, loading - self.centre @ loading
        return (self.start + CONSENSUS_STEP * self.consensus)[:, None], taste, loading

    def shared(self) -> dict[str, Tensor]:
        """Shared terms, thresholds in order."""
        return torch_terms(dict(self.raw.items()))

    def penalty(self) -> Tensor:
        """Minus log prior of the texts' parameters, up to a constant."""
        consensus, _, _ = self.columns()
        sizes = self.taste.square().sum() + self.loading.square().sum()
        return 0.5 * (CONSENSUS_PRECISION * consensus.square().sum() + sizes)


class Training:
    """The loop: contexts and targets, minibatches of raters, averaged parameters, early stopping."""

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
        """Train for at most so many epochs of a schedule of `config.epochs`.

        Returns:
            The averaged parameters after the last epoch, and the loss on what was left out before the first epoch and
            after each (empty when nothing was left out).
        """
        config, rng = self.config, np.random.default_rng(self.config.seed)
        torch.manual_seed(config.seed)
        taste, spread, centre = self._factor_start(rng)
        decoder = Decoder(self.rewards, taste, np.maximum(spread, LEAST_SD), self.model, centre)
        average = copy.deepcopy(decoder)
        heldout = self._scores(self.heldout.context) if self.heldout.target.any() else None
        history = [] if heldout is None else [self._heldout_loss(average, heldout)]
        optimiser = torch.optim.Adam(decoder.parameters(), lr=config.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.epochs)
        step = 0
        for _ in range(epochs):
            # Every epoch each rater is known by another share of the labels, from none to all.
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
                    for kept, value in zip(average.parameters(), decoder.parameters(), strict=True):
                        kept.lerp_(value, 1.0 - decay)
            schedule.step()
            if heldout is not None:
                history.append(self._heldout_loss(average, heldout))
                if len(history) - 1 - int(np.argmin(history)) >= config.patience:
                    break
        return average, history

    def without_taste(self) -> tuple[Decoder, float]:
        """The population and its rater terms alone, and their loss on what was left out (nan if nothing was)."""
        nothing = np.zeros((self.enc.n_texts, self.num_codes))
        decoder = Decoder(self.rewards, nothing, np.ones(self.num_codes), self.model, None)
        if not self.heldout.target.any():
            return decoder, math.nan
        return decoder, self._heldout_loss(decoder, self._scores(self.heldout.context))

    def information(self) -> np.ndarray:
        """(U,) Fisher information of the labels about the reward of each text, in 1 / logit^2."""
        scores = self._scores(np.ones(len(self.enc), dtype=bool))
        each = torch.einsum("ny,nya->na", scores.straight.prob, scores.straight.by_reward.square())
        each = each * scores.weight[:, None]
        return np.bincount(scores.alternatives.flatten().numpy(), each.flatten().numpy(), self.enc.n_texts)

    def _scores(self, context: np.ndarray) -> LabelScores:
        return score_labels(self.enc, self.model, self.rewards, context=context, swap=self.config.swap_consistent)

    def _factor_start(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, Tensor | None]:
        """A factor model of the training labels' scores, by EM.

        Around the population's rewards the log-likelihood is quadratic in `delta m`: scores g and information F of the
        rewards of each judgement. The E-step is the encoder's own; the M-step a Newton step on delta, text by text
        (F of a judgement is below A times its diagonal), and the spread of each taste its mean square, uncertainty
        included (empirical Bayes). Codes are scaled back to unit variance after each step, which makes EM fast
        (parameter expansion; Liu, Rubin and Wu 1998).

        Returns:
            delta (U, B), its standard deviation (B,), and (U,) the share of judgements of each text if a taste for
            everything is leniency.
        """
        enc, seen = self.enc, ~self.heldout.mask
        scores = score_labels(enc, self.model, self.rewards, context=seen, swap=False)
        straight, rows = scores.straight, torch.from_numpy(np.flatnonzero(seen))
        text, rater, weight = scores.alternatives[rows], torch.from_numpy(enc.rater)[rows], scores.weight[rows]
        score = weight[:, None] * straight.by_reward[rows, straight.label[rows]]
        information = torch.einsum(
            "n,ny,nya,nyb->nab", weight, straight.prob[rows], straight.by_reward[rows], straight.by_reward[rows]
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
        _, loadings = spectral_embedding(csr_array(by_rater), np.ones(enc.n_raters), size, rng)
        unit = rng.normal(size=(enc.n_texts, size))
        unit[:, : len(loadings)] = (loadings / np.sqrt((loadings**2).mean(1, keepdims=True) + 1e-12)).T
        taste, spread = START_SD * torch.from_numpy(unit), torch.full((size,), START_SD, dtype=torch.float64)
        judged = torch.bincount(text.flatten(), minlength=enc.n_texts) > 0
        network = CodeNetwork(size, len(self.model.term_sd)).requires_grad_(False)

        def per_text(values: Tensor) -> Tensor:
            total = values.new_zeros(enc.n_texts, *values.shape[2:])
            return total.index_add(0, text.flatten(), values.flatten(0, 1))

        for _ in range(EM_STEPS):
            taste = taste if centre is None else taste - centre @ taste
            mean, covariance = network(scores, taste, rows, rater, torch.arange(enc.n_raters))
            code = mean[:, :size]
            moment = covariance[:, :size, :size] + code[:, :, None] * code[:, None]
            own = moment[rater]
            expected = torch.einsum("nab,nbi,nij->naj", information, taste[text], own)
            slope = per_text(score[:, :, None] * code[rater][:, None] - expected)
            curvature = per_text(bound[:, :, None, None] * own[:, None]) + torch.diag(spread**-2)
            uncertainty = torch.linalg.inv(curvature)
            taste = taste + torch.einsum("uij,uj->ui", uncertainty, slope - taste * spread**-2)
            unit_code = torch.diagonal(moment[raters].mean(0)).sqrt()
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
        """Targets' log-likelihood (n,) and weights (n,) given the raters' contexts; codes' means and variances."""
        rows, position = self.by_rater.rows(raters)
        known, asked = context[rows], target[rows]
        consensus, taste, loading = decoder.columns()
        mean, covariance = decoder.network(
            scores,
            loading,
            torch.from_numpy(rows[known]),
            torch.from_numpy(position[known]),
            torch.from_numpy(raters),
        )
        part = self.obs.select(torch.from_numpy(rows[asked]))
        samples = draw_samples(mean, covariance, draws)[torch.from_numpy(position[asked])]
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
        divergence = 0.5 * (mean.square() + variance - 1.0 - variance.log()).mean(0)
        excess = divergence.clamp(min=self.config.free_bits).sum()
        # Half of the labels are targets, so half of the prior goes with them.
        prior = 0.5 * decoder.penalty() / len(self.raters)
        return prior + self.config.kl_weight * excess - (weight * log_lik).sum() / len(batch)

    def _heldout_loss(self, decoder: Decoder, scores: LabelScores) -> float:
        """Nats per left-out judgement."""
        out = self.heldout
        with torch.no_grad():
            log_lik, weight, _, _ = self._log_lik(decoder, out.raters, out.context, out.target, scores, self.draws)
        return -float((weight * log_lik).sum() / weight.sum())


def fixed_draws(size: int) -> Tensor:
    """(32, size) standard normal draws: 16 points of a Sobol sequence and their mirror images."""
    points = qmc.Sobol(size, scramble=True, rng=np.random.default_rng(0)).random(16)
    half = torch.from_numpy(norm.ppf(points))
    return torch.cat([half, -half])


def draw_samples(mean: Tensor, covariance: Tensor, draws: Tensor) -> Tensor:
    """(R, S, P) samples of N(mean, covariance) from (S, P) standard normal draws."""
    return mean[:, None] + torch.einsum("rpq,sq->rsp", torch.linalg.cholesky(covariance), draws)


def decode(
    obs: Observations, consensus: Tensor, taste: Tensor, samples: Tensor, names: list[str], sd: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Rewards (N, A, S) and rater terms (N, S) of judgements whose raters have samples (N, S, P)."""
    code, terms = samples.split([taste.shape[1], len(names)], dim=2)
    rewards = consensus[obs.alternatives][:, :, None] + torch.einsum("nab,nsb->nas", taste[obs.alternatives], code)
    return rewards, {name: sd[i] * terms[:, :, i] for i, name in enumerate(names)}


def log_mean_exp(log_lik: Tensor) -> Tensor:
    """Log of the mean over samples: (N, S) to (N,)."""
    return torch.logsumexp(log_lik, dim=1) - math.log(log_lik.shape[1])
