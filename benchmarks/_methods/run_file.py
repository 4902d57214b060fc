"""`plural-rlhf run` on the training people's answers, and what comes out: ours, its jury, and best-of-n from its pi_0.

Knows no other method.

Shapes: `I` questions, `A` options.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _methods.base import LAYERS, Budget, base_of, minilm, plain_prompts
from _methods.surveys import EVERYBODY, GROUP, Division


if TYPE_CHECKING:
    import numpy as np

__all__ = ["BEST_OF", "best_of", "run"]

BEST_OF = 8
"""Answers of pi_0 from which the jury chooses."""


def run(division: Division, budget: Budget) -> dict[str, dict[str, np.ndarray]]:
    """`plural-rlhf run` on a table of these answers: ours, its jury, and best-of-n from its pi_0."""
    import numpy as np
    from rich.console import Console

    from plural_rlhf.policies.steerer import Steerer
    from plural_rlhf.recipe import make_config
    from plural_rlhf.recipe.pipeline import run as run_file
    from reward_models.jury.scorer import JuryScorer
    from reward_models.stats.answers import normalise

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        settings = _run_settings(division, budget, folder)
        with contextlib.redirect_stdout(io.StringIO()):
            results = run_file(
                make_config(settings, origin="benchmark"), console=Console(quiet=True), until="evaluate"
            )
        jury = JuryScorer.from_pretrained(folder / "run" / "jury")
        steerer = Steerer.from_pretrained(folder / "run" / "plural", folder / "run" / "jury", device="cpu")
        group_of = division.train.frame.drop_duplicates("rater_id").set_index("rater_id")[f"rater:{GROUP}"]
        adapted = jury.adapt(division.train)
        member = np.asarray(adapted.placement.memberships())
        groups = np.array([group_of[rater] for rater in adapted.placement.rater_ids], dtype=object)
        order = {question.id: question for question in results.questions}
        asked = [order[item] for item in division.items]
        by_jury = np.stack([question.jury for question in asked])
        start = np.stack([normalise(np.array(question.policy["warm"]["all"].probs)) for question in asked])
        ours = {EVERYBODY: np.stack([question.policy["plural"]["all"].probs for question in asked])}
        clusters = list(jury.cluster_names)
        predicted = {EVERYBODY: by_jury}
        prompts, options = plain_prompts(division), [list(division.options)] * len(division.texts)
        for name in division.groups:
            weights = member[groups == name].mean(axis=0)
            ours[name] = np.stack(steerer.answer_probabilities(prompts, options, [weights] * len(prompts)))
            per_cluster = np.stack([[question.clusters[c].jury for c in clusters] for question in asked])
            predicted[name] = np.einsum("k,ika->ia", weights, per_cluster)
    best = {name: best_of(start, by_jury) for name in division.known}
    return {"ours": ours, "jury": predicted, "best-of-n": best}


def _run_settings(division: Division, budget: Budget, folder: Path) -> dict[str, Any]:
    """The run file: the training people, and the questions that it holds out.

    It holds out a few of these people too, for its own measurements.
    """
    assert division.table is not None
    held = [item for item, out in zip(division.items, division.heldout, strict=True) if out]
    columns = ["rater_id", "item_id", "prompt", "options", "choice"]
    division.table.frame[columns].to_json(folder / "answers.jsonl", orient="records", lines=True)
    steps = max(budget.answers // (12 * len(division.options)), 1)
    small = budget.model != "smollm2"
    return {
        "seed": division.number,
        "output_dir": str(folder / "run"),
        "data": {
            "source": "table",
            "path": str(folder / "answers.jsonl"),
            "columns": {"index": 0},
            "heldout_questions": held,
            "heldout_raters": 0.05,
        },
        "policy": {
            "model": base_of(division, budget, folder),
            "lora": {"r": 8, "alpha": 32 if small else 16, "target_modules": LAYERS},
        },
        "jury": {"clusters": [1, 2, 3], "restarts": 2, **({"backbone": minilm()} if small else {})},
        "warmup": {"steps": 0 if small else 20, "learning_rate": 1e-3},
        "plural": {"steps": steps, "learning_rate": budget.rate},
        "grpo": {"steps": 0},
        "evaluate": {"draws": 50},
    }


def best_of(start: np.ndarray, liked: np.ndarray) -> np.ndarray:
    """Probability `(I, A)` that an answer is the one most liked of `BEST_OF` that are drawn."""
    import numpy as np

    chosen = np.empty_like(start)
    for row, (p, likes) in enumerate(zip(start, liked, strict=True)):
        order = np.argsort(likes)
        reached = np.minimum(np.cumsum(p[order]), 1.0) ** BEST_OF
        chosen[row, order] = np.diff(np.concatenate([[0.0], reached]))
    return chosen
