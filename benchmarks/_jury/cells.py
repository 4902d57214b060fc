"""One case in one cell: its random splits, what each method said about them, and where that is kept.

Knows nothing of metrics: what is kept are log-probabilities of every possible answer to every scored question.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _jury.cases import FEATURES, Case, Split, make_split, shuffled_case
from _jury.methods import CHOOSING, LARGEST, METHODS, TUNED, Training, choose_size
from _jury.text_vectors import text_features

from reward_models.whole_file import whole_path, write_json


if TYPE_CHECKING:
    import numpy as np

__all__ = ["Cell", "Parts", "measure", "open_cell", "reference_memberships"]


class Parts:
    """Results of one (case, cell, split, method) each, in a folder of npz files: arrays and one JSON text.

    The folder's name holds the settings that change a result, so that results of other settings are never mixed in.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], fresh: bool) -> None:
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
        self.folder = folder / digest
        if fresh:
            shutil.rmtree(self.folder, ignore_errors=True)
        write_json(self.folder / "settings.json", settings)

    def _file(self, key: tuple[Any, ...]) -> Path:
        return self.folder / ("_".join(map(str, key)).replace("/", "-").replace(":", "-") + ".npz")

    def get(self, *key: Any) -> dict[str, Any] | None:
        """Read a finished part; None where it is not there."""
        import numpy as np

        if not self._file(key).exists():
            return None
        with np.load(self._file(key)) as stored:
            return {**json.loads(str(stored["about"])), "arrays": {k: stored[k] for k in stored.files if k != "about"}}

    def put(self, *key: Any, arrays: dict[str, np.ndarray] | None = None, **about: Any) -> dict[str, Any]:
        """Write a finished part and return it as `get` would."""
        import numpy as np

        with whole_path(self._file(key)) as unfinished, unfinished.open("wb") as stream:
            np.savez_compressed(stream, about=json.dumps(about), **(arrays or {}))
        return {**about, "arrays": arrays or {}}


@dataclass
class Cell:
    """One case in one cell: its splits, and what each method has said about them."""

    case: Case
    name: str
    splits: list[Split]
    vectors: dict[Any, np.ndarray] | None
    found: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Case and cell, as `--cases` takes them."""
        return f"{self.case.name}:{self.name}"

    @property
    def counts(self) -> list[int | None]:
        """Numbers of labels that place unseen raters, those that all splits have; [None] for seen raters."""
        shared = set.intersection(*(set(split.placing) for split in self.splits))
        return sorted(shared) if shared else [None]

    def features(self, texts: list[Any]) -> np.ndarray | None:
        """(U, D) features of texts; None where the cell has none."""
        import numpy as np

        return None if self.vectors is None else np.stack([self.vectors[text] for text in texts])


def open_cell(case: Case, name: str, splits: int, seed: int) -> Cell:
    """Divide a case `splits` times and read its texts if the cell needs their vectors.

    Raises:
        Unavailable: The case has no such cell, see `make_split` and `text_features`.
    """
    if name.endswith(":shuffled"):
        case = shuffled_case(case, seed)
    divided = [make_split(case, name, seed + i) for i in range(splits)]
    model = name.split(":")[0]
    return Cell(case, name, divided, text_features(model, case) if model in FEATURES else None)


def measure(cell: Cell, number: int, method: str, parts: Parts, candidates: Sequence[int]) -> dict[str, Any]:
    """Fit a method to one split and keep its log-probabilities of the test judgements (N, A)."""
    key = (cell.title, number, method)
    if (done := parts.get(*key)) is not None:
        return done
    split = cell.splits[number]
    enc = split.train.encode()
    others = [(other, cell.features(other.texts)) for other in (table.encode() for table in split.others)]
    alone = cell.case.unit == "response"
    model = cell.name.split(":")[0]
    training = Training(split.train, enc, cell.features(enc.texts), number, cell.case.judgements, others, alone, model)
    size, choosing = 1, 0.0
    if method in TUNED:
        # Vectors of texts play no part in the choice: cells that hold out the same texts share it.
        cut = cell.name if cell.vectors is None else f"texts {cell.name.split(':')[1]}"
        choice = parts.get(cell.case.name, cut, number, method, "size")
        if choice is None:
            start = time.perf_counter()
            allowed = [size for size in candidates if size <= LARGEST.get(method, size)]
            size = choose_size(METHODS[method], training, allowed)
            spent = time.perf_counter() - start
            choice = parts.put(cell.case.name, cut, number, method, "size", size=size, seconds=spent)
        size, choosing = choice["size"], choice["seconds"]
    start = time.perf_counter()
    chosen = str(size)
    if method in CHOOSING:
        predictor, chosen = CHOOSING[method](training)
    else:
        predictor = METHODS[method](training, size)
    seconds = time.perf_counter() - start + choosing
    test = split.test.encode()
    arrays = {}
    for n in cell.counts:
        adapted = predictor
        if n:
            placing = split.placing[n].encode()
            adapted = predictor.adapt(placing, cell.features(placing.texts))
        arrays[f"log_probs_{n}"] = adapted.log_probs(test, cell.features(test.texts)).astype("float32")
    return parts.put(*key, arrays=arrays, chosen=chosen, seconds=seconds)


def reference_memberships(cell: Cell, number: int, parts: Parts) -> np.ndarray:
    """(R, 2) membership of the raters of a test side in two clusters, the same for every method scored on it."""
    import numpy as np

    from reward_models.fitting.rater_fit import fit_raters

    if (done := parts.get(cell.title, number, "reference")) is not None:
        return done["arrays"]["memberships"]
    split = cell.splits[number]
    fit = fit_raters(split.train.encode(), "mixture", 2)
    if split.placing:
        fit = fit.adapt(split.placing[max(split.placing)].encode())
    known = dict(zip(fit.rater_ids, fit.responsibilities, strict=True))
    memberships = np.stack([known.get(rater, fit.prevalence) for rater in split.test.encode().rater_ids])
    parts.put(cell.title, number, "reference", arrays={"memberships": memberships})
    return memberships
