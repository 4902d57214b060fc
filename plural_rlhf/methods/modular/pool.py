"""The folder of a pool of communities: one adapter each, and a file that says which communities they are.

Knows nothing of training and of answering.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from reward_models.borders import path_fault
from reward_models.errors import JuryError
from reward_models.weights import WeightSpec, parse_weights
from reward_models.whole_file import write_json


__all__ = ["POOL_FILE", "CommunityPool", "TrainedCommunity"]

POOL_FILE = "communities.json"


@dataclass(frozen=True)
class TrainedCommunity:
    """A community whose adapter is trained.

    Attributes:
        name: Its name.
        key: Folder of its adapter in the folder of the pool, and name of the adapter.
        share: Its share of the population.
        raters: Number of people.
        answers: Number of answers that were imitated.
        trained_on: Hash of what it was trained on and how; an adapter of another hash is not used again.

    Example:
        >>> TrainedCommunity("Democrats", "democrats", 0.5, 120, 960, "1f").share
        0.5
    """

    name: str
    key: str
    share: float
    raters: int
    answers: int
    trained_on: str


@dataclass(frozen=True)
class CommunityPool:
    """A base model and its communities, as `communities.json` lists them.

    Attributes:
        folder: The folder.
        base: Path or Hub id of the base model.
        base_hash: Hash of its weights and tokenizer; None where it is not on this machine.
        communities: The communities, in order.

    Example:
        >>> import tempfile
        >>> people = {"left": 0.75, "right": 0.25}
        >>> communities = [TrainedCommunity(name, name, share, 30, 90, "1f") for name, share in people.items()]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     CommunityPool(Path(folder), "tiny", None, communities).write()
        ...     pool = CommunityPool.read(folder)
        >>> pool.weights("prevalence").tolist(), pool.weights("flat").tolist(), pool.weights({"right": 1}).tolist()
        ([0.75, 0.25], [0.5, 0.5], [0.0, 1.0])
    """

    folder: Path
    base: str
    base_hash: str | None
    communities: list[TrainedCommunity]

    @property
    def names(self) -> list[str]:
        """Names of the communities."""
        return [community.name for community in self.communities]

    @property
    def shares(self) -> np.ndarray:
        """(K,) shares of the population, summing to one."""
        shares = np.array([community.share for community in self.communities])
        return shares / shares.sum()

    def weights(self, spec: WeightSpec) -> np.ndarray:
        """Return `(K,)` weights of the communities.

        Args:
            spec: `"prevalence"`: their shares; `"flat"` or `"uniform"`: all alike, as published; a name, or weights by
                name.
        """
        return parse_weights("uniform" if spec == "flat" else spec, self.names, self.shares)

    def with_community(self, community: TrainedCommunity) -> CommunityPool:
        """Return the pool with a community added, or in place of the one of its name."""
        others = [of for of in self.communities if of.name != community.name]
        return replace(self, communities=[*others, community])

    def write(self) -> None:
        """Write `communities.json`, whole or not at all."""
        values = {"base": self.base, "base_hash": self.base_hash, "communities": list(map(asdict, self.communities))}
        write_json(self.folder / POOL_FILE, values)

    @classmethod
    def read(cls, folder: str | Path) -> CommunityPool:
        """Read the pool of a folder.

        Raises:
            JuryError: There is none, or an adapter is missing where there should be one of its communities.
        """
        path = Path(folder) / POOL_FILE
        if fault := path_fault(folder):
            raise JuryError(f"the communities cannot be loaded: {fault}.")
        try:
            values: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            communities = [TrainedCommunity(**community) for community in values["communities"]]
            return cls(Path(folder), values["base"], values["base_hash"], communities)
        except FileNotFoundError as error:
            raise JuryError(
                f"no communities at {str(folder)!r}: it has no {POOL_FILE}. Fix: correct the path, or train them with "
                "plural-rlhf communities TABLE --output FOLDER."
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise JuryError(
                f"{str(path)!r} cannot be read ({type(error).__name__}: {error}). Fix: copy the folder again, or "
                "train the communities again."
            ) from error
