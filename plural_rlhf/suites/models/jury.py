"""Saved jury reward models under evaluation: they reward texts for each cluster of people, and write nothing.

Knows no task.

Shapes: `U` texts, `K` clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from plural_rlhf.suites.models.protocol import EvaluatedModel
from reward_models.content_hashes import folder_records, value_hash
from reward_models.evaluation.heldout import HeldoutRecord
from reward_models.evaluation.saved_jury import as_read, score_texts
from reward_models.jury.scorer import JuryScorer
from reward_models.replaced_files import folder_to_read


if TYPE_CHECKING:
    from reward_models.judgements.texts import Text

__all__ = ["JuryModel", "is_jury_folder"]

JURY_FILE = "jury.json"


def is_jury_folder(path: str | Path) -> bool:
    """Return whether a folder holds a saved jury reward model.

    Example:
        >>> is_jury_folder("nowhere")
        False
    """
    return (Path(folder_to_read(path)) / JURY_FILE).is_file()


class JuryModel(EvaluatedModel):
    """A saved jury reward model.

    Args:
        name: What the report calls it.
        path: Its folder.
        batch_size: Texts that are scored, and kept, together.

    Raises:
        JuryError: The folder holds no jury, or a file is missing or altered.

    Example:
        >>> import tempfile
        >>> from reward_models import fit_jury, planted_judgements
        >>> from reward_models.judgements.texts import Text
        >>> from plural_rlhf.policies.base_models import prepare_base_model
        >>> table = planted_judgements("rating", num_raters=20, num_items=8).judgements
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     base = prepare_base_model("tiny", f"{folder}/models")
        ...     fit_jury(table, base, clusters=(2,), progress=False).save_pretrained(f"{folder}/jury")
        ...     jury = JuryModel("jury", f"{folder}/jury")
        ...     shape = jury.cluster_rewards([Text("Question 1?", "answer A")]).shape
        >>> jury.kind, shape
        ('jury', (1, 2))
    """

    kind = "jury"

    def __init__(self, name: str, path: str | Path, batch_size: int = 64) -> None:
        self.name = name
        self.batch_size = batch_size
        self.identity = value_hash(folder_records(folder_to_read(path)))[:24]
        self._scorer = JuryScorer.from_pretrained(path)
        self._fitted_on = HeldoutRecord.beside(path)

    @property
    def scorer(self) -> JuryScorer:
        """The jury reward model."""
        return self._scorer

    @property
    def fitted_on(self) -> HeldoutRecord | None:
        """What the jury was fitted to, if `heldout.json` lies beside its folder."""
        return self._fitted_on

    def cluster_rewards(self, texts: Sequence[Text]) -> np.ndarray:
        """Return the rewards of texts in logits, at the temperature of the jury."""
        return score_texts(self._scorer, as_read(self._scorer, texts), progress=False)
