"""A jury under fixed weights as a plain scalar reward model, for tools that know nothing of juries.

The weighted mean of linear heads is a linear head, so a jury under one weighting is a sequence classifier of the
backbone's own architecture with one label, e.g. `LlamaForSequenceClassification`. It loads without this package:

    pipeline("text-classification", model=folder, function_to_apply="none")

Three things are different there, and are taken care of or told:

1. That architecture's head has no bias. Its constant is dropped, which changes no comparison and no gradient.
2. It finds the last token by the id of the padding, where a jury goes by the mask. A padding token that may also occur
   in a text (often it is the end token) is therefore replaced by a new one.
3. A memory of judged texts is not linear and cannot go along.

Knows nothing of other welfare rules than the weighted mean.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from reward_models.errors import JuryError
from reward_models.jury.features import last_token
from reward_models.jury.modeling_jury import JuryRewardModel
from reward_models.jury.scorer import JuryScorer
from reward_models.weights import WeightSpec, parse_weights


__all__ = ["ScalarExport", "export_scalar"]

PAD_TOKEN = "<|jury_pad|>"
PROBES = ("Yes.", "Which of the two is better, and why?\nThe first: it says what was asked, in fewer words.")
TOLERANCE = 1e-3  # logits


@dataclass(frozen=True)
class ScalarExport:
    """What was written.

    Attributes:
        folder: Where.
        weights: Weight of each cluster by name, summing to one.
        constant: What was dropped: the jury's weighted mean is the exported logit plus this.
    """

    folder: Path
    weights: dict[str, float]
    constant: float


def export_scalar(
    jury: str | Path,
    out: str | Path,
    weights: WeightSpec | None = None,
    *,
    calibrated: bool = False,
) -> ScalarExport:
    """Save a jury under one weighting as a scalar reward model of transformers.

    Args:
        jury: Folder of a jury, or a model id of the Hub.
        out: Folder to write; not that of the jury.
        weights: See `WeightSpec`, e.g. `{"urban": 7, "rural": 5}` or `"uniform"`. None: the jury's own, which are the
            prevalence unless it was saved with others.
        calibrated: Weigh the heads on their common scale, see `calibration`; otherwise as raw logits.

    Returns:
        The weights, and the constant between the exported logit and the jury's mean.

    Raises:
        JuryError: Weights that cannot be used, a jury without calibration, or a backbone of which transformers has no
            classifier that reads the last token.

    Warns:
        UserWarning: The jury has a memory of judged texts, which is left behind.
    """
    target = Path(out)
    if target.resolve() == Path(jury).resolve():
        raise JuryError(f"out={str(out)!r} is the jury itself, which would be overwritten. Give another folder.")
    scorer = JuryScorer.from_pretrained(jury, device="cpu", calibrated=calibrated)
    model, tokenizer = scorer.model, scorer.tokenizer
    own = scorer.prevalence if model.config.weights is None else model.config.weights
    shares = parse_weights(own if weights is None else weights, scorer.cluster_names, scorer.prevalence)
    scale, offset = np.ones(len(shares)), np.zeros(len(shares))
    if calibrated and scorer.state.calibration is not None:
        scale, offset = scorer.state.calibration.scale, scorer.state.calibration.offset
    head = model.score.weight.detach().double().T.numpy() @ (shares / scale)  # (D,)
    constant = float((model.score.bias.detach().double().numpy() - offset) @ (shares / scale))
    if model.memory is not None:
        warnings.warn(
            f"the jury remembers {model.config.num_anchors} judged texts beside its heads. A scalar model has no "
            "place for that: these texts now get the reward that the heads alone give.",
            UserWarning,
            stacklevel=2,
        )
    scalar = _classifier(model, head)
    _separate_padding(tokenizer, scalar)
    # As a jury reads: positions from 0, and of a text that is too long the end, where the response is.
    tokenizer.padding_side, tokenizer.truncation_side = "right", "left"
    exported = _without_added_tokens(tokenizer)
    _check_equal(model, tokenizer, scalar, exported, torch.from_numpy(shares / scale))
    named = dict(zip(scorer.cluster_names, shares.tolist(), strict=True))
    scalar.config.jury_export = {"weights": named, "dropped_constant": constant, "calibrated": calibrated}
    scalar.save_pretrained(target)
    exported.save_pretrained(target)
    return ScalarExport(target, named, constant)


def _classifier(model: JuryRewardModel, head: np.ndarray) -> PreTrainedModel:
    """The backbone, shared and not copied, under the classifier of its own architecture."""
    config = copy.deepcopy(model.model.config)
    config.num_labels = 1
    name = type(model.model).__name__
    try:
        with torch.device("meta"):  # a second, random backbone must not cost memory
            scalar = AutoModelForSequenceClassification.from_config(config)
    except ValueError as error:
        raise JuryError(
            f"transformers has no sequence classifier for {name}, so its jury cannot become a scalar model. Use the "
            'jury itself: reward_funcs="path" and pipelines take it where this package is installed.'
        ) from error
    own = dict(scalar.named_children()).get("score")
    if not isinstance(own, nn.Linear) or own.bias is not None:
        raise JuryError(
            f"the sequence classifier {type(scalar).__name__} has no plain linear head named 'score', so it would "
            "read something else than the jury's heads. Use the jury itself, or a decoder such as Llama as backbone."
        )
    setattr(scalar, scalar.base_model_prefix, model.model)
    scalar.score = nn.Linear(len(head), 1, bias=False)
    with torch.no_grad():
        scalar.score.weight.copy_(torch.from_numpy(head)[None])
    return scalar.eval()


def _separate_padding(tokenizer: PreTrainedTokenizerBase, scalar: PreTrainedModel) -> None:
    """Give the tokenizer a padding token that no text contains."""
    others = {tokenizer.eos_token, tokenizer.bos_token, tokenizer.unk_token}
    in_template = tokenizer.pad_token is not None and tokenizer.pad_token in str(tokenizer.chat_template)
    if tokenizer.pad_token is None or tokenizer.pad_token in others or in_template:
        tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
        if len(tokenizer) > scalar.get_input_embeddings().num_embeddings:
            scalar.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    scalar.config.pad_token_id = tokenizer.pad_token_id


def _without_added_tokens(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer as it will be loaded, adding no begin or end token: a jury reads texts as they are."""
    if tokenizer(PROBES[0])["input_ids"] != tokenizer(PROBES[0], add_special_tokens=False)["input_ids"]:
        tokenizer.add_bos_token = tokenizer.add_eos_token = False
        if tokenizer.is_fast:
            tokenizer.backend_tokenizer.post_processor = None
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return AutoTokenizer.from_pretrained(folder)


@torch.no_grad()
def _check_equal(
    model: JuryRewardModel,
    tokenizer: PreTrainedTokenizerBase,
    scalar: PreTrainedModel,
    exported: PreTrainedTokenizerBase,
    weights: torch.Tensor,
) -> None:
    """Score two texts of unequal length in both ways.

    Raises:
        JuryError: The difference is not the constant that was dropped.
    """
    batch = exported(list(PROBES), return_tensors="pt", padding=True, return_token_type_ids=False)
    there = scalar(**batch).logits[:, 0].double()
    here = []
    for probe in PROBES:
        ids = tokenizer(probe, return_tensors="pt", add_special_tokens=False)["input_ids"]
        features = last_token(model.model(input_ids=ids, use_cache=False).last_hidden_state)
        here.append((model.score(features)[0] - model.score.bias).double() @ weights)
    gap = float((torch.stack(here) - there).abs().max())
    if not gap < TOLERANCE:
        raise JuryError(
            f"{type(scalar).__name__} scores probe texts differently than the jury does, by {gap:.3g} logits: it does "
            "not read the last token as the jury does, or its tokenizer adds tokens. Nothing was written; use the "
            "jury itself."
        )
