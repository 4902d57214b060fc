"""A baseline after VPL: a latent variable per rater, inferred by one network and used by another.

Poddar et al., "Personalizing Reinforcement Learning from Human Feedback with Variational Preference Learning"
(NeurIPS 2024, arXiv 2408.10075), implemented from the paper, with the same tuning budget as the other models: every
label of a context passes an MLP with biases, the mean over the context gives mu and log sigma^2 (clamped to [-1, 1]),
the latent is projected onto a sphere, `z = sqrt(d) (mu + sigma eps) / |mu + sigma eps|`, and the reward is an MLP of
[h(x), z]. The divergence from the prior has a small weight. There are no rater terms and no swap consistency.
Deviations from the paper:

1. The latent has 16 dimensions and hidden layers have 64 units, instead of 512: our tables are smaller.
2. The context is pooled by its mean, without the self-attention block before it.
3. Ratings and choices have their own likelihoods, and pairs may tie; the paper has pairs only.
4. h(x) is a linear map of the features, or free per text without features.
5. The predictions for an unknown rater are averaged over 64 points of the sphere.

Knows nothing of clusters or of language models.

Shapes: `N` judgements, `R` raters, `U` texts, `H` hidden units, `Z` latent dimensions, `S` samples, `A` answers.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from reward_models.baselines.encoder_training import log_mean_exp
from reward_models.baselines.heldout import HeldOut, RaterRows
from reward_models.errors import JuryError, check_values, settings_or_default
from reward_models.fitting.text_table import TextTable, check_features
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.texts import Text
from reward_models.raters.lbfgs import one_thread
from reward_models.raters.observation import Observations, start_terms, torch_terms
from reward_models.raters.predictors import n_answers, n_possible_answers, positions, require_raters
from reward_models.seeds import derived_seed, seeded_rng


__all__ = ["VPLConfig", "VPLFit", "fit_vpl"]

PRIOR_DRAWS = 64  # points of the sphere for an unknown rater
CHUNK = 4096  # judgements at a time


@dataclass(frozen=True)
class VPLConfig:
    """Settings of the training of the VPL baseline.

    Attributes:
        hidden: Units of each hidden layer `H`, and of h(x).
        kl_weight: Weight of the divergence from the prior; 1e-4 to 3e-6 in the paper.
        epochs: Most passes over the raters.
        patience: Epochs without improvement on the held-out labels before training stops.
        batch_raters: Raters per step.
        learning_rate: Learning rate of AdamW.
        weight_decay: Weight decay of AdamW.
        heldout: Share of each rater's labels to hold out, as in `EncoderConfig`.
        seed: Random seed.

    Raises:
        JuryError: A value that cannot work.

    Example:
        >>> VPLConfig(epochs=5).hidden
        64
    """

    hidden: int = 64
    kl_weight: float = 1e-4
    epochs: int = 60
    patience: int = 15
    batch_raters: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    heldout: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        check_values(self)
        if min(self.hidden, self.epochs, self.patience, self.batch_raters) < 1:
            raise JuryError(
                f"hidden={self.hidden}, epochs={self.epochs}, patience={self.patience} and batch_raters="
                f"{self.batch_raters} must be at least 1. Fix: use the defaults 64, 60, 15 and 32"
            )
        if self.learning_rate <= 0 or min(self.kl_weight, self.weight_decay) < 0 or not 0 < self.heldout < 1:
            raise JuryError(
                f"learning_rate={self.learning_rate} must be positive, kl_weight={self.kl_weight} and weight_decay="
                f"{self.weight_decay} at least 0, and heldout={self.heldout} in (0, 1). Fix: use the defaults 0.003, "
                "0.0001, 0.01 and 0.1"
            )


class _Network(nn.Module):
    """Encoder, decoder, representations of texts, and shared terms."""

    def __init__(
        self, n_inputs: int, free: bool, n_labels: int, terms: dict[str, np.ndarray], width: int, latent: int
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(n_inputs, width) if free else nn.Linear(n_inputs, width)
        if free:
            nn.init.normal_(self.embed.weight, std=0.1)
        self.encoder = nn.Sequential(
            nn.Linear(2 * width + n_labels, width), nn.LeakyReLU(), nn.Linear(width, width), nn.LeakyReLU()
        )
        self.head = nn.Linear(width, 2 * latent)
        self.decoder = nn.Sequential(
            nn.Linear(width + latent, width),
            nn.LeakyReLU(),
            nn.Linear(width, width),
            nn.LeakyReLU(),
            nn.Linear(width, 1),
        )
        self.raw = nn.ParameterDict({name: torch.tensor(value, dtype=torch.float32) for name, value in terms.items()})

    def encode(self, hidden: Tensor, obs: Observations, position: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Compute mean and log variance (count, Z) of the latents of raters from their judgements."""
        label, of_text = obs.label[:, 0], hidden[obs.alternatives]
        if obs.kind == "rating":
            pair = torch.cat([of_text[:, 0], torch.zeros_like(of_text[:, 0])], dim=1)
            level = nn.functional.one_hot(label, obs.n_levels).to(hidden.dtype)
            inputs, used = torch.cat([pair, level], dim=1), torch.ones_like(label, dtype=torch.bool)
        else:
            used = label < of_text.shape[1]  # a tie does not tell which response is better
            offered = torch.ones(of_text.shape[:2]) if obs.mask is None else obs.mask.to(hidden.dtype)
            preferred = of_text[torch.arange(len(label)), label.clamp(max=of_text.shape[1] - 1)]
            others = ((of_text * offered[:, :, None]).sum(1) - preferred) / (offered.sum(1, keepdim=True) - 1).clamp(
                min=1
            )
            inputs = torch.cat([preferred, others], dim=1)
        encoded = self.encoder(inputs[used])
        total = hidden.new_zeros(count, encoded.shape[1]).index_add(0, position[used], encoded)
        size = torch.bincount(position[used], minlength=count).clamp(min=1)
        return self.head(total / size[:, None]).clamp(-1.0, 1.0).chunk(2, dim=1)

    def shared(self) -> dict[str, Tensor]:
        """Return the shared terms of the likelihood."""
        return torch_terms(dict(self.raw.items()))


def _on_sphere(latent: Tensor) -> Tensor:
    """Project (..., Z) latents onto the sphere of radius sqrt(Z)."""
    return math.sqrt(latent.shape[-1]) * nn.functional.normalize(latent, dim=-1)


@dataclass(frozen=True)
class VPLFit:
    """The trained VPL baseline. A `predictors.Predictor`; `fit_vpl` makes it.

    Attributes:
        network: Encoder and decoder.
        texts: Known texts, for a model without features.
        centre: (D,) mean of the features; None without features.
        scale: (D,) scale of the features; None without features.
        kind: Kind of judgements of the fit.
        rater_ids: `R` raters that were adapted.
        latent: (R, Z) their latents, posterior means on the sphere.
        validation: Loss on the held-out labels after each epoch, nats per judgement.
        kl: Mean divergence of the training raters' posteriors from the prior, nats.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("rating").judgements.encode()
        >>> fit = fit_vpl(enc, 4, config=VPLConfig(epochs=2))
        >>> fit.latent.shape, np.square(fit.latent[0]).sum().round(3)  # on the sphere of radius 2
        ((30, 4), np.float32(4.0))
    """

    network: _Network
    texts: list[Text]
    centre: np.ndarray | None
    scale: np.ndarray | None
    kind: str
    rater_ids: list[str]
    latent: np.ndarray
    validation: list[float]
    kl: float

    def log_probs(self, enc: Encoded, features: np.ndarray | None = None) -> np.ndarray:
        """Compute the (N, A) log-probability of every possible answer; see `Predictor`.

        Raises:
            JuryError: Another kind of judgements, or texts that the model does not know.
        """
        hidden = self._hidden(enc, features)
        row = positions(enc.rater_ids, self.rater_ids)[enc.rater]
        generator = torch.Generator().manual_seed(derived_seed(0, "prior of VPL"))
        prior = _on_sphere(torch.randn(PRIOR_DRAWS, self.latent.shape[1], generator=generator))
        shared = {name: value.double() for name, value in self.network.shared().items()}
        log_p = np.full((len(enc), n_answers(enc)), -np.inf)
        possible = n_possible_answers(enc, shared)
        obs, latent = Observations.from_encoded(enc), torch.from_numpy(self.latent)
        with torch.no_grad():
            of_prior = torch.cat(
                [self._rewards(hidden[:, None], z.expand(len(hidden), 1, -1)) for z in prior], dim=1
            )  # (U, S)
            for known in (True, False):
                for rows in np.array_split(np.flatnonzero((row >= 0) == known), max(1, len(row) // CHUNK)):
                    part = obs.select(torch.from_numpy(rows))
                    rewards = of_prior[part.alternatives]  # (n, A, S)
                    if known:
                        z = latent[row[rows]][:, None].expand(-1, part.alternatives.shape[1], -1)
                        rewards = self._rewards(hidden[part.alternatives], z)[:, :, None]
                    for answer in range(possible):
                        log_lik = part.answering(answer).state_log_lik(rewards.double(), shared)
                        log_p[rows, answer] = log_mean_exp(log_lik).numpy()
        return log_p

    def adapt(self, enc: Encoded, features: np.ndarray | None = None) -> VPLFit:
        """Return the same model with the raters of `enc` adapted from their labels: one forward pass."""
        hidden = self._hidden(enc, features)
        with torch.no_grad():
            mean, _ = self.network.encode(
                hidden, Observations.from_encoded(enc), torch.from_numpy(enc.rater), enc.n_raters
            )
        return replace(self, rater_ids=enc.rater_ids, latent=_on_sphere(mean).numpy())

    def _rewards(self, hidden: Tensor, latent: Tensor) -> Tensor:
        return self.network.decoder(torch.cat([hidden, latent], dim=-1))[..., 0]

    def _hidden(self, enc: Encoded, features: np.ndarray | None) -> Tensor:
        """(U', H) representation of `enc.texts`."""
        if enc.kind != self.kind:
            raise JuryError(
                f"the model was fitted to {self.kind!r} judgements and cannot score {enc.kind!r} judgements. Fix: "
                "fit it to judgements of that kind"
            )
        with torch.no_grad():
            if self.centre is not None and self.scale is not None:
                if features is None:
                    raise JuryError("features=None, but the model was fitted on features. Fix: pass one row per text")
                check_features(enc, features)
                return self.network.embed(torch.from_numpy((features - self.centre) / self.scale).float())
            table = self.network.embed.weight.numpy()
            return torch.from_numpy(TextTable(self.texts, table).rows(enc)).float()


def fit_vpl(
    enc: Encoded, num_clusters: int = 16, *, features: np.ndarray | None = None, config: VPLConfig | None = None
) -> VPLFit:
    """Train the VPL baseline.

    Args:
        enc: The judgements.
        num_clusters: Dimensions of the latent `Z`, at least 2.
        features: (U, D) rows for `enc.texts`; None: free parameters per text.
        config: Settings of the training; None: the defaults.

    Returns:
        The trained model; the raters of `enc` are adapted.

    Raises:
        JuryError: `num_clusters` below 2; otherwise as for `fit_encoder`.

    Example:
        >>> from reward_models import planted_judgements
        >>> enc = planted_judgements("choice").judgements.encode()
        >>> fit = fit_vpl(enc, 4, config=VPLConfig(epochs=2))
        >>> fit.log_probs(enc).shape, len(fit.validation)
        ((360, 3), 2)
    """
    config = settings_or_default(config, VPLConfig)
    if num_clusters < 2:
        raise JuryError(f"num_clusters={num_clusters}: a latent on a sphere has at least two dimensions. Fix: use 16")
    require_raters(enc, "an encoder of raters")
    rng = seeded_rng(config.seed, "training of VPL")
    heldout = HeldOut.of(enc, config.heldout, rng)
    obs = Observations.from_encoded(enc)
    inputs, centre, scale = torch.arange(enc.n_texts), None, None
    if features is not None:
        check_features(enc, features)
        centre, scale = features.mean(0), np.maximum(features.std(0), 1e-6) * math.sqrt(features.shape[1] / 16)
        inputs = torch.from_numpy((features - centre) / scale).float()
    n_labels = obs.n_levels if enc.kind == "rating" else 0
    terms = start_terms(Observations.from_encoded(enc.select(~heldout.mask)), rater_terms=False)
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(config.seed, "network of VPL"))
        size = enc.n_texts if features is None else features.shape[1]
        network = _Network(size, features is None, n_labels, terms, config.hidden, num_clusters)
        best, validation, divergence = _train(
            network, inputs, obs, RaterRows(enc), enc.rater_weight, heldout, config, rng
        )
    empty = np.zeros((0, num_clusters), dtype=np.float32)
    fit = VPLFit(best.requires_grad_(False), enc.texts, centre, scale, enc.kind, [], empty, validation, divergence)
    return fit.adapt(enc, features)


def _train(
    network: _Network,
    inputs: Tensor,
    obs: Observations,
    by_rater: RaterRows,
    rater_weight: np.ndarray,
    heldout: HeldOut,
    config: VPLConfig,
    rng: np.random.Generator,
) -> tuple[_Network, list[float], float]:
    """Return the network with the lowest held-out loss, the losses, and the divergence after the last epoch."""

    def loss(
        raters: np.ndarray, context: np.ndarray, target: np.ndarray, noise: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        rows, position = by_rater.rows(raters)
        known, scored = context[rows], target[rows]
        hidden = network.embed(inputs)
        mean, log_var = network.encode(
            hidden, obs.select(torch.from_numpy(rows[known])), torch.from_numpy(position[known]), len(raters)
        )
        z = _on_sphere(mean + noise * (0.5 * log_var).exp() * torch.randn_like(mean))
        part = obs.select(torch.from_numpy(rows[scored]))
        of_text = hidden[part.alternatives]
        of_rater = z[torch.from_numpy(position[scored])][:, None].expand(-1, of_text.shape[1], -1)
        rewards = network.decoder(torch.cat([of_text, of_rater], dim=-1))
        log_lik = part.state_log_lik(rewards.double(), {k: v.double() for k, v in network.shared().items()})[:, 0]
        people = torch.tensor(rater_weight[raters])
        divergence = 0.5 * (people * (mean.square() + log_var.exp() - 1.0 - log_var).sum(1)).mean()
        return -(part.weight * log_lik).sum(), part.weight.sum(), divergence

    optimiser = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    raters = np.unique(obs.rater.numpy()[~heldout.mask])
    best, history, divergence = copy.deepcopy(network), [], torch.zeros(())
    for _ in range(config.epochs):
        share = rng.random(obs.n_raters)
        context = ~heldout.mask & (rng.random(len(obs.label)) < share[obs.rater.numpy()])
        shuffled = rng.permutation(raters)
        for batch in np.array_split(shuffled, max(1, round(len(raters) / config.batch_raters))):
            total, weight, divergence = loss(batch, context, ~heldout.mask & ~context, 1.0)
            objective = total / weight.clamp(min=1.0) + config.kl_weight * divergence
            optimiser.zero_grad()
            objective.backward()
            optimiser.step()
        with torch.no_grad():
            total, weight, _ = loss(heldout.raters, heldout.context, heldout.target, 0.0)
        history.append(float(total / weight))
        if history[-1] <= min(history):
            best = copy.deepcopy(network)
        if len(history) - 1 - int(np.argmin(history)) >= config.patience:
            break
    return best, history, divergence.item()
