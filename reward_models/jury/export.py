"""Export a jury reward model under fixed weights as a scalar reward model, for tools without rater clusters.

The weighted mean of linear heads is a linear head, so a jury under fixed weights is a sequence classifier of the
backbone's own architecture with one label, e.g. `LlamaForSequenceClassification`. It loads without this package:

    pipeline("text-classification", model=folder, function_to_apply="none")

A jury that reads the mean over tokens, or an encoder, is none: it becomes a folder of sentence-transformers
(`backbones.embedder_files`). Of the classifier, three differences are handled or reported:

1. The head of that architecture has no bias. The constant is dropped, which changes no comparison and no gradient.
2. It finds the last token by the padding id, a jury by the mask. A padding token that may also occur in a text (often
   it is the end token) is therefore replaced by a new one.
3. A memory of judged texts is not linear and cannot be exported, in neither form.

Knows nothing of other welfare rules than the weighted mean.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from reward_models.content_hashes import folder_records
from reward_models.errors import JuryError, renamed_arguments
from reward_models.jury.backbones.embedder_files import write_embedder
from reward_models.jury.backbones.pooling import text_vectors
from reward_models.jury.folder import STATE_FILE
from reward_models.jury.modeling_jury import JuryRewardModel
from reward_models.jury.reading import ReadingSettings
from reward_models.jury.scorer import JuryScorer
from reward_models.replaced_files import folder_to_read, replaced_files
from reward_models.weights import WeightSpec, parse_weights
from reward_models.whole_file import write_json


__all__ = ["ScalarExport", "export_scalar"]

EXPORT_FILE = "jury_export.json"
PAD_TOKEN = "<|jury_pad|>"
PROBES = ("Yes.", "Which of the two is better, and why?\nThe first: it says what was asked, in fewer words.")
TOLERANCE = 1e-3  # logits


@dataclass(frozen=True)
class ScalarExport:
    """Result of `export_scalar`, which has an example.

    Attributes:
        folder: Folder of the scalar reward model.
        weights: Weight of each cluster by name, summing to one.
        constant: The dropped constant: the jury's weighted mean is the exported logit plus this. 0 for an embedder,
            which holds it.
        form: What the folder is: a `"classifier"` of transformers, or an `"embedder"` of sentence-transformers.

    Example:
        >>> export = ScalarExport(Path("runs/scalar"), {"urban": 0.75, "rural": 0.25}, constant=0.5)
        >>> export.weights["urban"]
        0.75
    """

    folder: Path
    weights: dict[str, float]
    constant: float
    form: Literal["classifier", "embedder"] = "classifier"


@renamed_arguments(jury="scorer")
def export_scalar(
    scorer: str | Path,
    out: str | Path,
    weights: WeightSpec | None = None,
    *,
    calibrated: bool = False,
) -> ScalarExport:
    """Save a jury reward model under fixed weights as a scalar reward model that loads without this package.

    A jury that reads the last token of a decoder's last layer becomes a sequence classifier of transformers. One that
    reads the mean over tokens, or an encoder, becomes a folder of sentence-transformers, whose `encode` returns the
    rewards (N, 1): transformers has no classifier with a linear head on a mean.

    Args:
        scorer: Folder of the jury reward model, or its id on the Hub.
        out: Folder to write; not that of a jury. An earlier export in it is replaced as one, and `jury_export.json`
            holds size and SHA-256 of each file.
        weights: See `WeightSpec`, e.g. `{"urban": 7, "rural": 5}` or `"uniform"`. None: the jury's own weights, which
            are the prevalence unless it was saved with others.
        calibrated: Weigh the heads on their common scale, see `calibration`; otherwise as raw logits.

    Returns:
        The weights, and the constant between the exported logit and the jury's mean.

    Raises:
        JuryError: Weights that cannot be used, a jury without calibration, or a jury that reads other layers than the
            last.

    Warns:
        UserWarning: The jury has a memory of judged texts, which is not exported; or it was trained on plain texts
            with special tokens, which the exported tokenizer does not add.

    Example:
        >>> from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
        >>> model = JuryRewardModel.from_fit(
        ...     tiny_causal_lm(), np.eye(2, 32), np.array([1.0, 2.0]), [0.7, 0.3], cluster_names=["urban", "rural"]
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     JuryScorer(model, tiny_tokenizer()).save_pretrained(f"{folder}/jury")
        ...     export = export_scalar(f"{folder}/jury", f"{folder}/scalar", weights="urban=3,rural=1")
        ...     reloaded = AutoModelForSequenceClassification.from_pretrained(f"{folder}/scalar")
        >>> type(reloaded).__name__, export.weights, export.constant
        ('LlamaForSequenceClassification', {'urban': 0.75, 'rural': 0.25}, 1.25)
    """
    target = Path(out)
    same = target.resolve() == Path(scorer).resolve()
    if same or Path(folder_to_read(target), STATE_FILE).is_file():
        whose = "the jury itself" if same else "the folder of a jury reward model"
        raise JuryError(f"out={str(out)!r} is {whose}, which would be overwritten. Give another folder.")
    loaded = JuryScorer.from_pretrained(scorer, device="cpu", calibrated=calibrated)
    model, tokenizer = loaded.model, loaded.tokenizer
    reading = _last_layer(loaded.reading, model.model.config.get_text_config().num_hidden_layers)
    if weights is None:
        weights = loaded.prevalence if model.config.weights is None else model.config.weights
    shares = parse_weights(weights, loaded.cluster_names, loaded.prevalence)
    scale, offset = np.ones(len(shares)), np.zeros(len(shares))
    if calibrated and loaded.state.calibration is not None:
        scale, offset = loaded.state.calibration.scale, loaded.state.calibration.offset
    head = model.score.weight.detach().double().T.numpy() @ (shares / scale)  # (D,)
    constant = float((model.score.bias.detach().double().numpy() - offset) @ (shares / scale))
    remembered = model.config.num_anchors + model.config.num_judged
    if remembered:
        warnings.warn(
            f"the jury stores residual rewards of {remembered} judged texts, and a scalar model cannot: "
            "these texts now get the reward of the linear heads alone.",
            UserWarning,
            stacklevel=3,  # past the decorator
        )
    scalar = _classifier(model, head) if reading.vector_name == "" else None
    adds_tokens = scalar is None and reading.special_tokens and reading.format != "conversations"
    if reading.special_tokens and reading.format != "conversations" and (not adds_tokens or reading.end_token):
        start, end = (tokenizer.bos_token or "") * (not adds_tokens), (tokenizer.eos_token or "") * reading.end_token
        warnings.warn(
            "the jury was trained on plain texts with special tokens and an end token, and the exported tokenizer "
            f"does not add all of them: write plain texts as {start}text{end}.",
            UserWarning,
            stacklevel=3,
        )
    if scalar is not None:
        _separate_padding(tokenizer, scalar)
    elif tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    # As a jury reads: positions from 0, and the end of a text that is too long, where the response is.
    tokenizer.padding_side, tokenizer.truncation_side = "right", "left"
    tokenizer.model_max_length = reading.max_length or tokenizer.model_max_length
    exported = _as_loaded(tokenizer, adds_tokens)
    batch = exported(list(PROBES), return_tensors="pt", padding=True, return_token_type_ids=False)
    with torch.no_grad():
        if scalar is not None:
            scores = scalar(**batch).logits[:, 0].double()
        else:
            vectors = text_vectors(model.model, batch, [reading])[0]
            scores = vectors.double() @ torch.from_numpy(head)
    _check_equal(loaded, adds_tokens, scores, torch.from_numpy(shares / scale))
    by_name = dict(zip(loaded.cluster_names, shares.tolist(), strict=True))
    dropped = 0.0 if scalar is None else constant
    about = {"weights": by_name, "dropped_constant": dropped, "calibrated": calibrated}
    with replaced_files(target, EXPORT_FILE) as unfinished:
        if scalar is None:
            write_embedder(unfinished, model.model, exported, reading, head, constant)
        else:
            scalar.config.jury_export = about
            scalar.save_pretrained(unfinished)
            exported.save_pretrained(unfinished)
        write_json(unfinished / EXPORT_FILE, {**about, "files": folder_records(unfinished)})
    return ScalarExport(target, by_name, dropped, "embedder" if scalar is None else "classifier")


def _last_layer(reading: ReadingSettings, depth: int) -> ReadingSettings:
    """Return the settings with the last layer as it is usually read; raise for other layers."""
    if reading.layers in (None, (depth,)):
        return replace(reading, layers=None)
    raise JuryError(
        f"the jury reads the layers {list(reading.layers or ())} of {depth}, and neither classifiers of transformers "
        'nor sentence-transformers do. Fix: use the jury itself (reward_funcs="path" and pipelines load it where this '
        "package is installed), or fit one with hidden_layers=None, or layers= to cut the backbone, and export that."
    )


def _classifier(model: JuryRewardModel, head: np.ndarray) -> PreTrainedModel | None:
    """Wrap the backbone, shared and not copied, in the classifier of its own architecture; None if it has none.

    Only a plain linear head named `score` without a bias can hold the head.
    """
    config = copy.deepcopy(model.model.config)
    config.num_labels = 1
    try:
        with torch.device("meta"):  # a second, random backbone must not cost memory
            scalar = AutoModelForSequenceClassification.from_config(config, trust_remote_code=False)
    except ValueError:
        return None
    score = dict(scalar.named_children()).get("score")
    if not isinstance(score, nn.Linear) or score.bias is not None:
        return None
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


def _as_loaded(tokenizer: PreTrainedTokenizerBase, adds_tokens: bool) -> PreTrainedTokenizerBase:
    """Return the tokenizer as it will be loaded; without begin and end tokens, unless the jury's texts have them."""
    plain = tokenizer(PROBES[0], add_special_tokens=False)["input_ids"]
    if not adds_tokens and tokenizer(PROBES[0])["input_ids"] != plain:
        tokenizer.add_bos_token = tokenizer.add_eos_token = False
        if tokenizer.is_fast:
            tokenizer.backend_tokenizer.post_processor = None
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


@torch.no_grad()
def _check_equal(scorer: JuryScorer, special_tokens: bool, scores: torch.Tensor, weights: torch.Tensor) -> None:
    """Compare the scores of two probe texts with those of the jury's heads without their constants.

    Raises:
        JuryError: They differ.
    """
    model, of_jury = scorer.model, []
    for probe in PROBES:
        ids = scorer.tokenizer(probe, return_tensors="pt", add_special_tokens=special_tokens)["input_ids"]
        features = text_vectors(model.model, {"input_ids": ids}, [scorer.reading])[0]
        of_jury.append((model.score(features)[0] - model.score.bias).double() @ weights)
    gap = float((torch.stack(of_jury) - scores).abs().max())
    if not gap < TOLERANCE:
        raise JuryError(
            f"the exported {type(model.model).__name__} scores probe texts differently from the jury, by {gap:.3g} "
            "logits: it does not read the tokens that the jury reads, or its tokenizer adds some. Nothing was "
            "written; use the jury itself."
        )
