"""What a checkpoint holds besides TRL's own: offsets, duals, the completions still in use and those remembered.

The state file is written last and moved into place whole, so that a checkpoint with it is complete. Every process
keeps its own share of the generation buffer; without it a run stopped between two uses of a generation batch would
draw anew.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from plural_rlhf.trainers import _trl
from plural_rlhf.trainers.sampled import Rollouts
from reward_models.errors import JuryError


if TYPE_CHECKING:
    from plural_rlhf.trainers.plural_grpo_trainer import PluralGRPOTrainer

__all__ = ["STATE_FILE", "load", "save"]

STATE_FILE = "plural_state.json"
MEMORY_FILE = "plural_replay.pt"


def save(trainer: PluralGRPOTrainer, folder: Path) -> None:
    """Adds the state to a checkpoint that TRL has written."""
    if not trainer.exact:
        rollouts = trainer.rollouts_in_use
        buffer = {**_trl.snapshot(trainer), "rollouts": None if rollouts is None else rollouts.to_dict()}
        torch.save(buffer, folder / _buffer_file(trainer))
    trainer.accelerator.wait_for_everyone()
    if trainer.args.should_save:
        if trainer.memory is not None:
            torch.save(trainer.memory.state_dict(), folder / MEMORY_FILE)
        state: dict[str, Any] = {
            "cluster_names": list(trainer.jury_reward.cluster_names),
            "micro_step": _trl.micro_step(trainer),
            "offsets": trainer.jury_reward.offsets.state_dict(),
            "targeting": trainer.targeting.state_dict(),
            "kl_budget": None if trainer.kl_budget is None else trainer.kl_budget.state_dict(),
            "max_min": None if trainer.max_min is None else trainer.max_min.state_dict(),
        }
        partial = folder / f"{STATE_FILE}.partial"
        partial.write_text(json.dumps(state))
        os.replace(partial, folder / STATE_FILE)


def load(trainer: PluralGRPOTrainer, folder: Path) -> None:
    """Puts the state back.

    Raises:
        JuryError: The checkpoint was trained with another jury.
    """
    if not (folder / STATE_FILE).is_file():
        return
    state = json.loads((folder / STATE_FILE).read_text())
    reward = trainer.jury_reward
    saved = state.get("cluster_names", list(reward.cluster_names))
    if saved != list(reward.cluster_names):
        raise JuryError(
            f"the checkpoint {str(folder)!r} was trained with a jury of the clusters {', '.join(saved)}, and this one "
            f"has {', '.join(reward.cluster_names)}: resume with the jury of that run, or start again in another "
            "output_dir."
        )
    reward.offsets.load_state_dict(state["offsets"])
    if "targeting" in state:
        trainer.targeting.load_state_dict(state["targeting"])
    if trainer.kl_budget is not None and state.get("kl_budget"):
        trainer.kl_budget.load_state_dict(state["kl_budget"])
        reward.set_beta(trainer.kl_budget.beta)
    if trainer.max_min is not None and state.get("max_min"):
        trainer.max_min.load_state_dict(state["max_min"])
    if trainer.memory is not None and (folder / MEMORY_FILE).is_file():
        trainer.memory.load_state_dict(torch.load(folder / MEMORY_FILE, weights_only=True))
    buffer = folder / _buffer_file(trainer)
    if buffer.is_file():
        kept = torch.load(buffer, map_location=trainer.accelerator.device, weights_only=True)
        _trl.restore(trainer, kept)
        if kept["rollouts"] is not None:
            trainer.rollouts_in_use = Rollouts(**kept["rollouts"])
    elif "micro_step" in state:
        _trl.restore(trainer, {"step": state["micro_step"], "rows": None})


def _buffer_file(trainer: PluralGRPOTrainer) -> str:
    return f"plural_rollouts_{trainer.accelerator.process_index}.pt"
