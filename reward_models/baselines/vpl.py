"""A baseline after VPL: a latent of the rater, inferred by one network and read by another.

Poddar et al., "Personalizing Reinforcement Learning from Human Feedback with Variational Preference Learning"
(NeurIPS 2024, arXiv 2408.10075), written anew from the paper and given the tuning budget of our own models: every
label of a context passes an MLP with biases, the mean over the context gives mu and log sigma^2 (clamped to [-1, 1]),
the latent is put on a sphere, `z = sqrt(d) (mu + sigma eps) / |mu + sigma eps|`, and the reward is an MLP of
[h(x), z]. The divergence from the prior has a tiny weight. There are no rater terms and no swap consistency. What
differs:

1. The latent has 16 dimensions and hidden layers 64 units rather than 512: our tables are smaller.
2. The context is pooled by its mean, without the self-attention block before it.
3. Ratings and choices have their own likelihoods, and pairs may tie; the paper has pairs only.
4. h(x) is a linear map of the features, or free per text where there are none.
5. The latent of an unknown rater is averaged over 64 points of the sphere.

Shapes: `N` judgements, `R` raters, `U` texts, `H` hidden units, `Z` latent dimensions, `S` samples, `A` answers.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from reward_models.baselines.encoder_training import HeldOut, RaterRows, log_mean_exp
from reward_models.errors import JuryError
from reward_models.fitting.text_table import TextTable, check_features
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.texts import Text
from reward_models.raters.lbfgs import one_thread
from reward_models.raters.observation import Observations, start_terms, torch_terms
from reward_models.raters.predictors import n_answers


__all__ = ["VPLConfig", "VPLFit", "fit_vpl"]

PRIOR_DRAWS = 64
CHUNK = 4096


@dataclass(frozen=True)
class VPLConfig:
    """How the baseline is trained.

    Attributes:
        hidden: Units of each hidden layer `H`, and of h(x).
        kl_weight: Weight of the divergence from the prior; the paper has 1e-4 to 3e-6.
        epochs: Most passes over the raters.
        patience: Epochs without improvement before training stops.
        batch_raters: Raters per step.
        learning_rate: Of Adam.
        weight_decay: Of AdamW.
        heldout: As for `EncoderConfig`.
        seed: Seed of everything random.
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


class _Network(nn.Module):
    """Encoder, decoder, texts and shared terms."""

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
        """Mean and log variance (count, Z) of the latents of raters with the given judgements."""
        label, of_text = obs.label[:, 0], hidden[obs.alternatives]
        if obs.kind == "rating":
            pair = torch.cat([of_text[:, 0], torch.zeros_like(of_text[:, 0])], dim=1)
            level = nn.functional.one_hot(label, obs.n_levels).to(hidden.dtype)
            inputs, used = torch.cat([pair, level], dim=1), torch.ones_like(label, dtype=torch.bool)
        else:
            used = label < of_text.shape[1]  # a tie says nothing about which is better
            offered = torch.ones(of_text.shape[:2]) if obs.mask is None else obs.mask.to(hidden.dtype)
            chosen = of_text[torch.arange(len(label)), label.clamp(max=of_text.shape[1] - 1)]
            others = ((of_text * offered[:, :, None]).sum(1) - chosen) / (offered.sum(1, keepdim=True) - 1).clamp(
                min=1
            )
            inputs = torch.cat([chosen, others], dim=1)
        encoded = self.encoder(inputs[used])
        total = hidden.new_zeros(count, encoded.shape[1]).index_add(0, position[used], encoded)
        size = torch.bincount(position[used], minlength=count).clamp(min=1)
        return self.head(total / size[:, None]).clamp(-1.0, 1.0).chunk(2, dim=1)

    def shared(self) -> dict[str, Tensor]:
        """Shared terms of the likelihood."""
        return torch_terms(dict(self.raw.items()))


def _on_sphere(latent: Tensor) -> Tensor:
    """(..., Z) directions at distance sqrt(Z)."""
    return math.sqrt(latent.shape[-1]) * nn.functional.normalize(latent, dim=-1)


@dataclass(frozen=True)
class VPLFit:
    """The trained baseline. A `predictors.Predictor`.

    Attributes:
        network: Encoder and decoder.
        texts: Known texts; used by a model without features.
        centre: (D,) and
        scale: (D,) of the features, None without.
        kind: Kind of judgements it was fitted to.
        rater_ids: `R` raters that are adapted.
        latent: (R, Z) their latents, posterior means on the sphere.
        validation: Loss on the left-out labels after each epoch, nats per judgement.
        kl: Mean divergence of the training raters' posteriors from the prior, nats.
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
        """(N, A) log-probability of every possible answer; see `Predictor`.

        Raises:
            JuryError: Another kind of judgements, or texts the model does not know.
        """
        hidden = self._hidden(enc, features)
        known = {rater: i for i, rater in enumerate(self.rater_ids)}
        own = np.array([known.get(rater, -1) for rater in enc.rater_ids], dtype=np.int64)[enc.rater]
        prior = _on_sphere(torch.randn(PRIOR_DRAWS, self.latent.shape[1], generator=torch.Generator().manual_seed(0)))
        log_p = np.full((len(enc), n_answers(enc)), -np.inf)
        obs, latent = Observations.from_encoded(enc), torch.from_numpy(self.latent)
        with torch.no_grad():
            of_anyone = torch.cat(
                [self._rewards(hidden[:, None], z.expand(len(hidden), 1, -1)) for z in prior], dim=1
            )  # (U, S)
            for rows in np.array_split(np.flatnonzero(own >= 0), max(1, len(own) // CHUNK)):
                part = obs.select(torch.from_numpy(rows))
                z = latent[own[rows]][:, None].expand(-1, part.alternatives.shape[1], -1)
                log_p[rows] = self._answers(
                    part, self._rewards(hidden[part.alternatives], z)[:, :, None], log_p.shape[1]
                )
            for rows in np.array_split(np.flatnonzero(own < 0), max(1, len(own) // CHUNK)):
                part = obs.select(torch.from_numpy(rows))
                log_p[rows] = self._answers(part, of_anyone[part.alternatives], log_p.shape[1])
        return log_p

    def adapt(self, enc: Encoded, features: np.ndarray | None = None) -> VPLFit:
        """The same model with the raters of `enc` placed by their labels: one forward pass."""
        hidden = self._hidden(enc, features)
        with torch.no_grad():
            mean, _ = self.network.encode(
                hidden, Observations.from_encoded(enc), torch.from_numpy(enc.rater), enc.n_raters
            )
        return replace(self, rater_ids=enc.rater_ids, latent=_on_sphere(mean).numpy())

    def _rewards(self, hidden: Tensor, latent: Tensor) -> Tensor:
        return self.network.decoder(torch.cat([hidden, latent], dim=-1))[..., 0]

    def _answers(self, part: Observations, rewards: Tensor, answers: int) -> np.ndarray:
        """(n, A) log-probabilities from rewards (n, A, S) that are averaged over."""
        shared = {name: value.double() for name, value in self.network.shared().items()}
        out = np.full((len(part.label), answers), -np.inf)
        for answer in range(2 if part.kind == "preference" and "log_tie_mean" not in shared else answers):
            log_lik = part.answering(answer).state_log_lik(rewards.double(), shared)
            out[:, answer] = log_mean_exp(log_lik).numpy()
        return out

    def _hidden(self, enc: Encoded, features: np.ndarray | None) -> Tensor:
        """(U', H) representation of `enc.texts`."""
        if enc.kind != self.kind:
            raise JuryError(
                f"the model was fitted to {self.kind!r} judgements and cannot score {enc.kind!r} judgements"
            )
        with torch.no_grad():
            if self.centre is not None and self.scale is not None:
                if features is None:
                    raise JuryError("features=None, but the model was fitted on features; pass one row per text")
                check_features(enc, features)
                return self.network.embed(torch.from_numpy((features - self.centre) / self.scale).float())
            table = self.network.embed.weight.numpy()
            return torch.from_numpy(TextTable(self.texts, table).rows(enc)).float()


def fit_vpl(
    enc: Encoded, num_clusters: int = 16, *, features: np.ndarray | None = None, config: VPLConfig | None = None
) -> VPLFit:
    """Train the baseline.

    Args:
        enc: The judgements.
        num_clusters: Dimensions of the latent `Z`, at least 2.
        features: (U, D) rows for `enc.texts`; None: free parameters per text.
        config: Training; None: the defaults.

    Returns:
        The model, its training raters placed by their own labels.

    Raises:
        JuryError: A table without raters, a latent too small, nothing to leave out, or features that do not fit.
    """
    config = config or VPLConfig()
    if num_clusters < 2:
        raise JuryError(f"num_clusters={num_clusters}: a latent on a sphere has at least two dimensions; use 16")
    if enc.kind == "soft":
        raise JuryError(
            "kind='soft': a table of answer shares does not say who answered, so there is nobody to encode"
        )
    rng = np.random.default_rng(config.seed)
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
        torch.manual_seed(config.seed)
        size = enc.n_texts if features is None else features.shape[1]
        network = _Network(size, features is None, n_labels, terms, config.hidden, num_clusters)
        kept, validation, divergence = _train(network, inputs, obs, RaterRows(enc), heldout, config, rng)
    empty = np.zeros((0, num_clusters), dtype=np.float32)
    fit = VPLFit(kept.requires_grad_(False), enc.texts, centre, scale, enc.kind, [], empty, validation, divergence)
    return fit.adapt(enc, features)


def _train(
    network: _Network,
    inputs: Tensor,
    obs: Observations,
    by_rater: RaterRows,
    heldout: HeldOut,
    config: VPLConfig,
    rng: np.random.Generator,
) -> tuple[_Network, list[float], float]:
    """The network with the lowest loss on what was left out, the losses, and the divergence after the last epoch."""

    def loss(
        raters: np.ndarray, context: np.ndarray, target: np.ndarray, noise: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        rows, position = by_rater.rows(raters)
        known, asked = context[rows], target[rows]
        hidden = network.embed(inputs)
        mean, log_var = network.encode(
            hidden, obs.select(torch.from_numpy(rows[known])), torch.from_numpy(position[known]), len(raters)
        )
        z = _on_sphere(mean + noise * (0.5 * log_var).exp() * torch.randn_like(mean))
        part = obs.select(torch.from_numpy(rows[asked]))
        of_text = hidden[part.alternatives]
        own = z[torch.from_numpy(position[asked])][:, None].expand(-1, of_text.shape[1], -1)
        rewards = network.decoder(torch.cat([of_text, own], dim=-1))
        log_lik = part.state_log_lik(rewards.double(), {k: v.double() for k, v in network.shared().items()})[:, 0]
        divergence = 0.5 * (mean.square() + log_var.exp() - 1.0 - log_var).sum(1).mean()
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
