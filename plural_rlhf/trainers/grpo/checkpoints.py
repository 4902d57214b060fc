"""What a checkpoint holds besides TRL's own: offsets, multipliers, completions in use and remembered, and whose.

Every process keeps its own share of the generation buffer; without it a run stopped between two uses of a generation
batch would draw anew. Knows nothing of trainers: it is given the parts.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plural_rlhf.trainers.checkpointed_trainer import STATE_FILE
from plural_rlhf.trainers.grpo.generation_batch import Rollouts
from plural_rlhf.trainers.grpo.multipliers import Multipliers
from plural_rlhf.trainers.grpo.prompt_state import PromptState
from reward_models.errors import JuryError
from reward_models.jury.protocol import ClusterScorer
from reward_models.jury.scorer import JuryScorer
from reward_models.whole_file import whole_path


__all__ = ["check_scorer", "load_generation", "load_state", "save_generation", "save_state"]

REPLAY_FILE = "plural_replay.pt"


def check_scorer(folder: Path, scorer: ClusterScorer) -> None:
    """Raise if a checkpoint was trained with another jury.

    Raises:
        JuryError: It was trained with other clusters, another prevalence, or other reward heads. What the checkpoint
            does not say is taken to be the same.

    Example:
        >>> import tempfile
        >>> from types import SimpleNamespace
        >>> from reward_models.whole_file import write_json
        >>> scorer = SimpleNamespace(cluster_names=["urban", "rural"], prevalence=[0.7, 0.3], cluster_rewards=None)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_json(Path(folder) / STATE_FILE, {"cluster_names": ["urban", "rural"], "prevalence": [0.5, 0.5]})
        ...     check_scorer(Path(folder), scorer)
        Traceback (most recent call last):
        reward_models.errors.JuryError: the checkpoint ... was trained with a jury of the prevalence 0.5, 0.5, and this
        one has 0.7, 0.3: resume with the jury of that run, or start again in another output_dir.
    """
    saved, own = json.loads((folder / STATE_FILE).read_text(encoding="utf-8")), _identity(scorer)
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


def _identity(scorer: ClusterScorer) -> dict[str, Any]:
    """Return what tells scorers apart without a call; `heads` is a hash of the heads of a `JuryScorer`, else None."""
    heads = None
    if isinstance(scorer, JuryScorer):
        digest = hashlib.sha256()
        for _, value in sorted(scorer.model.score.state_dict().items()):
            digest.update(value.float().cpu().numpy().tobytes())
        heads = digest.hexdigest()
    prevalence = [float(share) for share in scorer.prevalence]
    return {"cluster_names": list(scorer.cluster_names), "prevalence": prevalence, "heads": heads}


def _listed(identity: dict[str, Any]) -> str:
    return ", ".join(identity["cluster_names"])


def _shares(identity: dict[str, Any]) -> str:
    return ", ".join(f"{share:.4g}" for share in identity["prevalence"])


def save_state(
    folder: Path, scorer: ClusterScorer, prompts: PromptState, multipliers: Multipliers, micro_step: int
) -> dict[str, Any]:
    """Write what all processes have in common and JSON cannot hold; return the rest, for the state file.

    Args:
        folder: The checkpoint.
        scorer: Whose clusters the state is about.
        prompts: What is kept of every prompt.
        multipliers: As they stand.
        micro_step: How many forward and backward passes were made.

    Example:
        >>> import tempfile
        >>> from types import SimpleNamespace
        >>> from reward_models.whole_file import write_json
        >>> from plural_rlhf.core.offsets import OffsetTracker
        >>> from plural_rlhf.rewards.jury_reward import JuryReward
        >>> scorer = SimpleNamespace(cluster_names=["all"], prevalence=np.ones(1), cluster_rewards=None)
        >>> prompts, multipliers = PromptState(OffsetTracker(1)), Multipliers(JuryReward(scorer))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     state = save_state(Path(folder), scorer, prompts, multipliers, micro_step=12)
        ...     write_json(Path(folder) / STATE_FILE, state, exact=True)
        ...     load_state(Path(folder), prompts, multipliers)
        12
    """
    if prompts.replay is not None:
        with whole_path(folder / REPLAY_FILE) as path:
            torch.save(prompts.replay.state_dict(), path)
    return {
        **_identity(scorer),
        "micro_step": micro_step,
        **prompts.state_dict(),
        **multipliers.state_dict(),
    }


def load_state(folder: Path, prompts: PromptState, multipliers: Multipliers) -> int | None:
    """Put back what `save_state` wrote; return the micro-step, None where an older checkpoint does not say."""
    state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    prompts.load_state_dict(state)
    multipliers.load_state_dict(state)
    if prompts.replay is not None and (folder / REPLAY_FILE).is_file():
        prompts.replay.load_state_dict(torch.load(folder / REPLAY_FILE, weights_only=True))
    return state.get("micro_step")


def save_generation(folder: Path, process: int, buffer: dict[str, Any], rollouts: Rollouts | None) -> None:
    """Write the completions in use of one process.

    Args:
        folder: The checkpoint.
        process: The number of the process.
        buffer: `_trl.snapshot`.
        rollouts: Their residuals; None before the first completions are drawn.
    """
    parts = None if rollouts is None else rollouts.to_dict()
    with whole_path(folder / _generation_file(process)) as path:
        torch.save({**buffer, "rollouts": parts}, path)


def load_generation(folder: Path, process: int, device: torch.device) -> tuple[dict[str, Any], Rollouts | None] | None:
    """Return what `save_generation` wrote, the buffer and the residuals; None where there is no such file."""
    path = folder / _generation_file(process)
    if not path.is_file():
        return None
    # accelerate numbers the processes of a CPU (cpu:0), which torch.load does not know.
    buffer = torch.load(path, map_location="cpu" if device.type == "cpu" else device, weights_only=True)
    parts = buffer.pop("rollouts")
    return buffer, None if parts is None else Rollouts(**parts)


def _generation_file(process: int) -> str:
    return f"plural_rollouts_{process}.pt"
