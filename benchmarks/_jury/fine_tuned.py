"""A model fine-tuned as a jury, against its own frozen features: what `JuryRewardTrainer` adds to the joint fit.

The last layers get LoRA adapters and start from the joint fit on the frozen features; a part of the training texts is
held out to stop early, and the start is one of the candidates. Raters and the variance of new texts are those of the
joint fit, so that the two differ in the rewards of texts alone. One table is trained on; `frozen` is the joint fit to
the same table and the same reading, which makes the pair comparable. Knows nothing of data sets and metrics.

The model is that of the cell, SmolLM2 or MiniLM. The layers of a decoder below the adapters never change: what they
make of a text is computed once and kept, see `layers`. An encoder of six layers is run whole.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from _jury.cases import ROOT, Unavailable


if TYPE_CHECKING:
    import numpy as np
    from _jury.methods import Training
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from reward_models.fitting.joint.fit import JointFit
    from reward_models.judgements.encoding import Encoded
    from reward_models.raters.predictors import Predictor

__all__ = ["TRAINED", "fit_trained"]

LAYERS = 4  # the last ones, which have adapters
# Rate and frozen heads: the better of two settings on held-out training texts of the second split of campus-protests
# (the other: 2e-4 with heads that are trained).
SETTINGS: dict[str, Any] = {
    "heldout_texts": 0.12,
    "patience": 1,
    "num_train_epochs": 1,
    "learning_rate": 1e-3,
    "train_heads": False,
    "weight_decay": 0.01,
    "annealing_share": 1.0,  # memberships stay those of the joint fit
    "per_device_train_batch_size": 8,
    "per_device_eval_batch_size": 32,
    "max_length": 192,
    "as_conversations": False,
}


@dataclass(frozen=True)
class _Trained:
    """A joint fit whose texts get their rewards from a trained jury; a `predictors.Predictor`."""

    fit: JointFit
    rewards: Callable[[list[Any]], np.ndarray]

    def log_probs(self, enc: Encoded, features: np.ndarray | None = None) -> np.ndarray:
        return self._of(enc).log_probs(enc)

    def adapt(self, enc: Encoded, features: np.ndarray | None = None) -> _Trained:
        return replace(self, fit=replace(self.fit, placement=self._of(enc).adapt(enc).placement))

    def _of(self, enc: Encoded) -> JointFit:
        """The fit with all texts of a table as known ones, with the variance of new texts."""
        import numpy as np

        parts = self.rewards(enc.texts) @ np.linalg.inv(self.fit.mixing)
        variance = np.tile(self.fit.new_variance, (len(parts), 1))
        return replace(self.fit, texts=enc.texts, parts=parts, variance=variance)


def fit_trained(
    training: Training,
    size: int,
    *,
    frozen: bool = False,
    load: Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]] | None = None,
    trained_layers: int = LAYERS,
    **settings: Any,
) -> Predictor:
    """Fine-tune a jury of `size` clusters.

    Args:
        training: The training judgements; texts are read as they are, without vectors.
        size: Number of clusters.
        frozen: Return the start: the joint fit on frozen features.
        load: Returns model and tokenizer; None: those of the cell.
        trained_layers: Number of the last layers that have adapters.
        **settings: Of `JuryRewardConfig`, besides `SETTINGS`.
    """
    import numpy as np
    from _jury.layers import upper_layers
    from peft import LoraConfig

    from reward_models.fitting.em import FitConfig
    from reward_models.fitting.joint.fit import fit_joint
    from reward_models.jury.features import pooled_features
    from reward_models.trainer.jury_reward_config import JuryRewardConfig
    from reward_models.trainer.jury_reward_trainer import JuryRewardTrainer

    if training.features is None:
        raise Unavailable("texts are known by their labels alone in this cell")
    model, tokenizer = (load or LOADERS[training.model])()
    if hasattr(model.base_model, "embed_tokens"):
        model = upper_layers(model.base_model, trained_layers)
        targets = ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
        layers = None
    else:
        model = copy.deepcopy(model)
        targets = ["query", "value", "intermediate.dense", "output.dense"]
        depth = model.config.num_hidden_layers
        layers = list(range(max(depth - trained_layers, 0), depth))
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=targets, layers_to_transform=layers, task_type="SEQ_CLS")
    with tempfile.TemporaryDirectory() as folder:
        args = JuryRewardConfig(
            folder,
            num_clusters=size,
            memberships_from="joint",
            seed=training.seed,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            logging_strategy="no",
            save_total_limit=1,
            disable_tqdm=True,
            read_prompt=not training.responses_alone,
            **SETTINGS | settings,
        )
        trainer = JuryRewardTrainer(model, args, training.judgements, processing_class=tokenizer, peft_config=lora)

        def features(texts: list[Any]) -> np.ndarray:
            found = pooled_features(
                trainer.jury.model, tokenizer, texts, reading=trainer.reading, progress=False, batch_size=16
            )
            return found.astype(np.float64)

        config = FitConfig(seed=training.seed)
        fit = fit_joint(training.enc, features(training.enc.texts), "mixture", size, config=config)
        if frozen:
            return _Trained(fit, lambda texts: features(texts) @ fit.heads.T + fit.bias @ fit.mixing)
        trainer.train()
    jury = trainer.jury.eval()
    return _Trained(fit, lambda texts: _scores(jury, features(texts)))


def _scores(jury: Any, features: np.ndarray) -> np.ndarray:
    """(U, K) rewards from the trained heads, also where an adapter holds them."""
    import torch

    with torch.no_grad():
        return jury.score(torch.from_numpy(features).float()).double().numpy()


@cache
def _smollm2() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    from transformers import AutoModel, AutoTokenizer

    from plural_rlhf.policies.base_models import SMOLLM2, prepare_base_model

    try:
        path = prepare_base_model(SMOLLM2, cache_dir=ROOT / ".cache" / "models")
    except FileNotFoundError as error:
        raise Unavailable(str(error)) from error
    return AutoModel.from_pretrained(path, dtype="float32").eval(), AutoTokenizer.from_pretrained(path)


@cache
def _minilm() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    from _jury.text_vectors import minilm_path

    from reward_models.jury.backbones.loading import load_backbone

    model, tokenizer, _ = load_backbone(minilm_path())
    return model.eval(), tokenizer


LOADERS: dict[str, Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]]] = {
    "smollm2": _smollm2,
    "minilm": _minilm,
}
"""Model and tokenizer by the first word of a cell."""


def _fine_tuned(training: Training, size: int) -> Predictor:
    return fit_trained(training, 2)


def _frozen(training: Training, size: int) -> Predictor:
    return fit_trained(training, 2, frozen=True)


TRAINED: dict[str, Callable[[Training, int], Predictor]] = {"fine-tuned": _fine_tuned, "fine-tuned-start": _frozen}
