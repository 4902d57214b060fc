"""The runs of `open_ended`: one per method, seed and setting, each a run file that `plural_rlhf.recipe.run` works off.

A run that was stopped goes on where it was, and one that is complete is read. All runs of a topic and a seed take the
jury and pi_0 of the first one. Knows nothing of which methods there are.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _jury.cases import Unavailable
from _jury.text_vectors import minilm_path
from _open_ended.material import small_model, write_tables


if TYPE_CHECKING:
    from plural_rlhf.report.results import RunResults

__all__ = ["MODELS", "Runs", "Size"]

CLUSTERS = 2
ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class Size:
    """How large the runs are.

    Attributes:
        model: `smollm2`, `small` or `tiny`.
        sft: Steps and learning rate of pi_0.
        tokens: Longest text in tokens.
        raters: At most so many raters; None for all.
    """

    model: str
    sft: tuple[int, float] = (150, 5e-4)
    tokens: int = 40
    raters: int | None = None


MODELS = {
    "smollm2": Size("smollm2"),
    "small": Size("small", sft=(150, 3e-3)),
    "tiny": Size("tiny", sft=(4, 1e-2), tokens=16, raters=24),
}


class Runs:
    """The runs of a topic.

    Args:
        folder: Where they are kept.
        data: Folder with `polarized/`.
        topic: Of the polarized-issues data.
        size: How large they are.
        beta: Temperature of the target, logits.

    Raises:
        Unavailable: The data or a model is not there.
    """

    def __init__(self, folder: Path, data: Path, topic: str, size: Size, beta: float) -> None:
        self.folder, self.size, self.beta = folder / f"{topic}-{size.model}", size, beta
        self.votes, self.pairs = write_tables(data, topic, folder / "data")
        self.cache = Path(__file__).resolve().parents[2] / ".cache" / "models"
        self.model, self.embedder = self._models(folder, topic)
        self._starts: dict[int, Path] = {}

    def _models(self, folder: Path, topic: str) -> tuple[str, str | None]:
        """Base model of the policies, and what the jury reads texts with (None for the base model)."""
        from plural_rlhf.policies.base_models import SMOLLM2, TINY, prepare_base_model

        if self.size.model == "tiny":
            return TINY, None
        embedder = str(minilm_path())
        if self.size.model == "small":
            with self.votes.open(encoding="utf-8") as file:
                rows = [json.loads(line) for line in file]
            answers = sorted({(row["prompt"], row["response"].strip()) for row in rows})
            return str(small_model(answers, folder / f"{topic}-base")), embedder
        try:
            prepare_base_model(SMOLLM2, self.cache)
        except FileNotFoundError as error:
            raise Unavailable(str(error)) from error
        return SMOLLM2, embedder

    def settings(self, seed: int) -> dict[str, Any]:
        """What all run files of a seed have in common, by key."""
        steps, rate = self.size.sft
        common = {
            "seed": seed,
            "data.source": "table",
            "data.path": str(self.votes),
            "data.tables": [{"path": str(self.pairs)}],
            "data.written": "judged",
            "data.heldout_prompts": 1,
            "data.heldout_raters": 0.5,
            "data.max_raters": self.size.raters,
            "policy.model": self.model,
            "policy.cache_dir": str(self.cache),
            "policy.max_new_tokens": self.size.tokens,
            "policy.lora": {"r": 16, "alpha": 32, "target_modules": ALL_LINEAR},
            "jury.clusters": CLUSTERS,
            "jury.backbone": self.embedder,
            "jury.pooling": "mean",
            "jury.read_prompt": False,  # a prompt is read with every answer to it alike, and tells nothing
            "jury.include_backbone": False,
            "sft.steps": steps,
            "sft.learning_rate": rate,
            "plural.beta": self.beta,
            "grpo.steps": 0,
        }
        if self.size.model == "smollm2":  # other vectors than those of the training jury
            common["evaluate.heldout_backbone"] = self.model
        return common

    def start(self, seed: int) -> Path:
        """Make or find the jury and pi_0 of a seed; return the folder of their run."""
        if seed not in self._starts:
            settings = self.settings(seed) | {"plural.mode": "rerank"}
            self._starts[seed] = self._run(f"start-{seed}", settings, "train", None)[0]
        return self._starts[seed]

    def train(self, name: str, settings: Mapping[str, Any], seed: int) -> tuple[Path, RunResults]:
        """Train a method, or find it trained; return the folder of its run, and its results."""
        return self._run(f"{name}-{seed}", self.settings(seed) | settings, "train", self.start(seed))

    def measure(self, name: str, settings: Mapping[str, Any], seed: int) -> tuple[Path, RunResults]:
        """Measure pi_0, what the settings name and the rivals, as `plural-rlhf run` does, page included."""
        settings = self.settings(seed) | {"plural.mode": "rerank"} | settings
        return self._run(f"{name}-{seed}", settings, "report", self.start(seed))

    def _run(self, name: str, settings: Mapping[str, Any], until: Any, reuse: Path | None) -> tuple[Path, RunResults]:
        """Work off a run file; other settings have another folder."""
        from rich.console import Console

        from plural_rlhf.recipe import load_config, run
        from reward_models.content_hashes import value_hash
        from reward_models.errors import JudgementWarning
        from reward_models.whole_file import write_json

        folder = self.folder / f"{name}-{value_hash(settings)[:8]}"
        folder.parent.mkdir(parents=True, exist_ok=True)
        run_file = folder.with_name(f"{folder.name}.yaml")  # JSON is YAML
        write_json(run_file, _nested({**settings, "name": folder.name, "output_dir": str(folder)}))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", JudgementWarning)  # of answers that one person judged: most
            return folder, run(load_config(run_file), until=until, console=Console(quiet=True), reuse=reuse)


def _nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Sections of a run file from settings by key."""
    nested: dict[str, Any] = {}
    for key, value in settings.items():
        *sections, name = key.split(".")
        inside = nested
        for section in sections:
            inside = inside.setdefault(section, {})
        inside[name] = value
    return nested
