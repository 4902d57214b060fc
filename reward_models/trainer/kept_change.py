"""How much of a fine-tuning to keep: the weights on the line from the start of a training to its end.

On few judgements a fine-tuned backbone is too sure of what it learnt. Weights between the start and the end often
predict new texts better than either, at no cost for whoever uses the model: Wortsman and others 2022,
https://arxiv.org/abs/2109.01903. The share of the change that is kept is the one with the lowest loss on the held-out
texts; start and end are among the candidates, so that on these texts the result is never worse than either. Knows
nothing of how a loss is computed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file

from reward_models.whole_file import whole_path


if TYPE_CHECKING:
    from reward_models.trainer.jury_reward_trainer import JuryRewardTrainer

__all__ = ["SHARES", "best_share_kept", "keep_start", "set_weights", "trained_weights"]

SHARES = (0.25, 0.5, 0.75)  # of the change, besides none and all of it, which are evaluated during the training
START_FILE = "start_weights.safetensors"

Weights = dict[str, torch.Tensor]


def trained_weights(model: torch.nn.Module) -> Weights:
    """Copy the weights that are trained, by name, to the CPU.

    Example:
        >>> layer = torch.nn.Linear(2, 1)
        >>> layer.bias = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
        >>> list(trained_weights(layer))
        ['weight']
    """
    return {name: p.detach().cpu().clone() for name, p in model.named_parameters() if p.requires_grad}


def set_weights(model: torch.nn.Module, weights: Weights, other: Weights, share: float) -> None:
    """Set the trained weights of a model to `weights + share * (other - weights)`.

    Example:
        >>> layer = torch.nn.Linear(1, 1)
        >>> start, end = ({"weight": torch.full((1, 1), w), "bias": torch.zeros(1)} for w in (1.0, 3.0))
        >>> set_weights(layer, start, end, 0.25)
        >>> layer.weight.item()
        1.5
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in weights:
                parameter.copy_(torch.lerp(weights[name], other[name], share))


def keep_start(trainer: JuryRewardTrainer) -> None:
    """Keep the weights before the first step in the output folder, where resumed trainings find them too."""
    if trainer.args.should_save and not _sharded(trainer):
        folder = Path(trainer.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        with whole_path(folder / START_FILE) as unfinished:
            save_file(trained_weights(trainer.accelerator.unwrap_model(trainer.model)), unfinished)
    trainer.accelerator.wait_for_everyone()


@contextmanager
def best_share_kept(trainer: JuryRewardTrainer) -> Iterator[None]:
    """Set the weights, after the block, to those between start and end that have the lowest loss on held-out texts.

    The block loads the best of the models that were evaluated, its memberships and terms. The end is that model or,
    where it is the start, the one of the last step. The share of the change that is kept is logged as
    `jury/kept_share`. Only the block is run where no texts are held out, where weights are sharded, and where a
    training is resumed whose start was not kept. Warns where nothing of the change is kept.

    Args:
        trainer: The trainer after its last step.
    """
    file = Path(trainer.args.output_dir) / START_FILE
    if _sharded(trainer) or trainer.args.heldout_texts == 0 or not file.is_file():
        yield
        return
    model = trainer.accelerator.unwrap_model(trainer.model)
    start, last = load_file(file), trained_weights(model)
    yield
    best = trained_weights(model)
    unchanged = all(torch.equal(best[name], start[name]) for name in start)
    end = last if unchanged else best
    losses = {0.0 if unchanged else 1.0: float(trainer.state.best_metric)}
    for share in SHARES:
        set_weights(model, start, end, share)
        losses[share] = _heldout_loss(trainer)
    kept = min(losses, key=losses.__getitem__)
    set_weights(model, start, end, kept)
    trainer.state.best_metric = losses[kept]
    trainer.log({"jury/kept_share": kept, "jury/kept_loss": losses[kept]})
    if kept == 0.0:
        warnings.warn(
            f"no share of what the training changed predicts the held-out texts better than its start "
            f"({losses[kept]:.4f} nats per judgement), so the start is kept; the held-out texts are not fitted. Fix: "
            "fit_jury(judgements, backbone) fits heads on the same features to all texts; or train with a smaller "
            "learning_rate or train_heads=False",
            UserWarning,
            stacklevel=2,
        )
    trainer.accelerator.wait_for_everyone()
    if trainer.args.should_save:
        file.unlink()


def _heldout_loss(trainer: JuryRewardTrainer) -> float:
    """Compute the loss on the held-out texts, nats per judgement; callbacks do not hear of it."""
    return float(trainer.evaluation_loop(trainer.get_eval_dataloader(), "held-out texts").metrics["eval_loss"])


def _sharded(trainer: JuryRewardTrainer) -> bool:
    return bool(trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled)
