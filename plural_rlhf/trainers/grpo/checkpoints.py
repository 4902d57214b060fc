"""What a checkpoint holds besides TRL's own: offsets, duals, completions in use and remembered, and whose they are.

The state file is written last and moved into place whole, so that a checkpoint with it is complete; older ones are
deleted after that. Every process keeps its own share of the generation buffer; without it a run stopped between two
uses of a generation batch would draw anew.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from plural_rlhf.rewards.jury_reward import JuryReward
from plural_rlhf.trainers import _trl
from plural_rlhf.trainers.checks.arguments import Resume, check_checkpoint
from plural_rlhf.trainers.grpo.rollouts import Rollouts
from reward_models.errors import JuryError
from reward_models.jury.scorer import JuryScorer
from reward_models.whole_file import write_json


if TYPE_CHECKING:
    from plural_rlhf.trainers.plural_grpo_trainer import PluralGRPOTrainer

__all__ = ["STATE_FILE", "check", "load", "save"]

STATE_FILE = "plural_state.json"
MEMORY_FILE = "plural_replay.pt"


def check(trainer: PluralGRPOTrainer, resume: Resume) -> None:
    """Refuses to go on from a checkpoint that was cut short or belongs to another jury.

    Raises:
        ValueError: It was not written to its end.
        JuryError: It was trained with other clusters, another prevalence, or other reward heads; one that does not say
            is taken.
    """
    folder = check_checkpoint(resume, trainer.args.output_dir, STATE_FILE)
    if folder is None:
        return
    saved, own = json.loads((folder / STATE_FILE).read_text()), _identity(trainer.jury_reward)
    saved = {name: saved.get(name) or value for name, value in own.items()}
    if saved["cluster_names"] != own["cluster_names"]:
        difference = f"a jury of the clusters {_listed(saved)}, and this one has {_listed(own)}"
    elif not np.allclose(saved["prevalence"], own["prevalence"], rtol=0, atol=1e-6):
        difference = f"a jury of the prevalence {_shares(saved)}, and this one has {_shares(own)}"
    elif own["heads"] not in (None, saved["heads"]):
        difference = f"a jury of the same clusters ({_listed(own)}) and other reward heads"
    else:
        return
    raise JuryError(
        f"the checkpoint {str(folder)!r} was trained with {difference}: resume with the jury of that run, or start "
        "again in another output_dir."
    )


def _identity(reward: JuryReward) -> dict[str, Any]:
    """What tells juries apart without asking them anything; `heads` is the hash of a saved jury's, None for others."""
    scorer, heads = reward.scorer, None
    if isinstance(scorer, JuryScorer):
        digest = hashlib.sha256()
        for _, value in sorted(scorer.model.score.state_dict().items()):
            digest.update(value.float().cpu().numpy().tobytes())
        heads = digest.hexdigest()
    prevalence = [float(share) for share in scorer.prevalence]
    return {"cluster_names": list(scorer.cluster_names), "prevalence": prevalence, "heads": heads}


def _listed(jury: dict[str, Any]) -> str:
    return ", ".join(jury["cluster_names"])


def _shares(jury: dict[str, Any]) -> str:
    return ", ".join(f"{share:.4g}" for share in jury["prevalence"])


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
            **_identity(trainer.jury_reward),
            "micro_step": _trl.micro_step(trainer),
            "offsets": trainer.jury_reward.offsets.state_dict(),
            "targeting": trainer.targeting.state_dict(),
            "kl_budget": None if trainer.kl_budget is None else trainer.kl_budget.state_dict(),
            "max_min": None if trainer.max_min is None else trainer.max_min.state_dict(),
        }
        write_json(folder / STATE_FILE, state, exact=True, indent=None)


def load(trainer: PluralGRPOTrainer, folder: Path) -> None:
    """Puts the state back, of a checkpoint that was checked."""
    if not (folder / STATE_FILE).is_file():
        return
    state = json.loads((folder / STATE_FILE).read_text())
    reward = trainer.jury_reward
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
