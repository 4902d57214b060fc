"""From judgements to a jury reward model: `fit_jury`, the front door.

The steps, each in a room of its own: read the texts and compute their features once (`jury.fitting.features`), choose
features and clusters on held-out raters and held-out texts and fit both together (`fitting.joint`), name the clusters
(`analysis.naming`), and put the heads on one scale (`jury.calibration`). What is returned predicts what was fitted,
also after it was saved. Fine-tuning the language model is `JuryRewardTrainer`; this file knows nothing of it, nor of
policies.

Shapes: `U` texts, `D` features.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reward_models.errors import JuryError, settings_or_default
from reward_models.fitting.em import FitConfig
from reward_models.judgements.encoding import Encoded
from reward_models.judgements.records import Judgements
from reward_models.judgements.texts import Text, as_messages
from reward_models.jury.backbones.loading import load_backbone, truncate_backbone
from reward_models.jury.fitting.arguments import checked_clusters
from reward_models.jury.fitting.features import TextOptions, text_features
from reward_models.jury.fitting.steps import (
    Clusters,
    JudgedTables,
    Names,
    Strangers,
    described_clusters,
    fit_texts_and_raters,
    with_strangers,
)
from reward_models.jury.scorer import JuryScorer
from reward_models.progress import with_progress_bars
from reward_models.raters.rater_model import Membership


__all__ = ["fit_jury"]

ANSWERS_IN_DESCRIPTION = 3
CALIBRATION_PROMPTS = 200  # give a scale to about two percent


@with_progress_bars
def fit_jury(
    judgements: Judgements | Sequence[Judgements],
    backbone: str | Path | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    clusters: Clusters = (1, 2, 3),
    membership: Membership | Literal["auto"] = "mixture",
    pooling: str | None = None,
    hidden_layers: Sequence[int] | Literal["auto"] | None = None,
    read_prompt: bool | Literal["auto"] = True,
    layers: int | None = None,
    l2: Literal["auto"] = "auto",
    labels: Mapping[str, str] | None = None,
    names: Names | None = None,
    strangers: Strangers = "raters",
    config: FitConfig | None = None,
    max_length: int | None = None,
    cache_dir: str | Path | None = None,
    progress: bool = True,
    on_step: Callable[[str], None] | None = None,
) -> JuryScorer:
    """Fit a jury reward model: clusters of raters, and a reward of any text for each of them.

    Texts and raters are fitted in one likelihood (`fit_joint`). The language model is not trained: its features of
    each text are computed once, and the rewards of texts that nobody judged are linear in them.

    Args:
        judgements: A table of any kind, or several tables of different kinds by the same raters. Without raters
            (`soft`) the jury has one cluster.
        backbone: Path, hub id or model. A decoder gives the last token's hidden state, an encoder or sentence embedder
            what it was trained to give (the mean over tokens, unless its folder says otherwise).
        tokenizer: Tokenizer of a backbone that is given as a model.
        clusters: K; candidates of which held-out raters and texts choose one, the one of the lowest loss if clusters
            are surely better than one (see `choose_joint`); or that choice.
        membership: How a rater combines the rewards of clusters, see `RaterModel`; "auto" compares them.
        pooling: "last_token", "mean" or "first_token"; None: as the backbone was trained; "auto": the one whose
            features predict held-out texts best.
        hidden_layers: Layers to read, from 1, one after the other; None: the last; "auto": the last, the middle, or
            three from the middle to the last, by held-out texts. Poolings and layers share one pass.
        read_prompt: Whether prompts are read before responses; False for responses that stand by themselves; "auto"
            compares both by held-out texts, in two passes.
        layers: Use only so many of the backbone's layers; None for all.
        l2: The strengths of the heads are learnt from the judgements: "auto" is all there is.
        labels: Short names of items by item id, for the names of the clusters. None: `item_labels`, from the wordings.
        names: Names of the clusters, see `describe_clusters`. None: those that are found.
        strangers: How raters without labels are predicted: as a random rater, or (`"judgements"`) as whoever gave a
            random judgement, which is better where a few raters gave most judgements and will give most of those to
            come. Saved with the jury; raters with labels are predicted the same in both ways.
        config: Restarts, priors and seed; the seed serves every step.
        max_length: Longest text in tokens; longer ones lose their beginning, with a warning. Saved with the jury.
            None: 1,024, or what a sentence embedder was trained on.
        cache_dir: Folder in which features, and the held-out losses of candidates, are kept while they are computed,
            so that a fit that was killed goes on with the same result; it may be deleted afterwards. None: nothing is
            kept.
        progress: Show progress bars.
        on_step: Called with a sentence when a step begins.

    Returns:
        The jury, ready to score and to save with `save_pretrained`. Prompts are rendered as conversations where the
        tokenizer has a chat template. Calibration is in its state (see `FittedJury.uncalibrated`), and `calibrated` is
        False: rewards are logits. `JuryScorer.fitted` says how it came about.

    Raises:
        JuryError: K that the raters cannot support, a backbone that cannot be loaded or comes without its tokenizer,
            features that do not match the texts, or tables that cannot be joined, see `fit_joint`.

    Example:
        >>> from reward_models import planted_judgements
        >>> from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
        >>> planted = planted_judgements("choice", num_raters=20, num_items=6)
        >>> backbone = tiny_causal_lm()  # in earnest: the path of a language model, and no tokenizer
        >>> scorer = fit_jury(planted.judgements, backbone, tiny_tokenizer(), clusters=2, progress=False)
        >>> scorer.cluster_rewards(["Question 1?"] * 3, ["answer A", "answer B", "answer C"]).shape
        torch.Size([3, 2])
    """
    if l2 != "auto":
        raise JuryError(
            f"l2={l2!r}: the strengths of the heads are learnt from the judgements, and there is no penalty to set. "
            "Fix: leave l2 out."
        )
    if isinstance(backbone, np.ndarray):
        raise JuryError("the backbone is an array. Fix: fit_vector_jury(judgements, features) takes vectors of texts.")
    config, announce = settings_or_default(config, FitConfig), on_step or _ignore
    tables = JudgedTables.of(judgements, config)
    clusters = checked_clusters(tables, clusters, membership, labels, names, strangers)
    options = TextOptions(pooling, hidden_layers, read_prompt, max_length)
    model, tokenizer, usual = load_backbone(backbone, tokenizer)
    if layers is not None:
        model = truncate_backbone(model, layers)
    texts = text_features(
        model, tokenizer, tables.encoded, usual, options, tables.config, cache_dir, progress, announce
    )
    read = replace(tables, encoded=texts.tables)
    found = fit_texts_and_raters(read, texts.rows, clusters, membership, announce, cache_dir)
    found = with_strangers(found, tables, strangers)
    described = described_clusters(found.fit, tables, labels, names)
    fit = found.fit
    conversations = len(fit.texts) if texts.reading.format == "conversations" else 0
    scorer = JuryScorer.from_joint_fit(
        fit,
        model,
        tokenizer,
        texts.of(fit.texts),
        reading=texts.reading,
        cluster_names=[cluster["name"] for cluster in described],
        descriptions={c["name"]: line for c in described if (line := _description(c["answers"]))},
        fitted_on={**tables.counts, "conversations": conversations},
    )
    uncalibrated = _put_on_one_scale(scorer, tables.encoded)
    if uncalibrated is not None:
        warnings.warn(
            f"the jury's heads are not on one scale, and rules that compare clusters will be refused: {uncalibrated}",
            UserWarning,
            stacklevel=3,  # past the decorator
        )
    scorer.fitted = replace(
        found, features=texts.choice, clusters=described, uncalibrated=uncalibrated, same_texts=texts.same
    )
    return scorer


def _ignore(_: str) -> None:
    """Announce nothing."""


def _put_on_one_scale(scorer: JuryScorer, tables: Sequence[Encoded]) -> str | None:
    """Calibrate the heads on the judged responses, each once, as a stand-in for samples of a reference policy.

    Welfare rules that compare clusters need it; the pool takes the heads as they are. Scores stay logits until a rule
    asks for the common scale (`calibrated=True`).

    Returns:
        Why there is no calibration; None where there is one.
    """
    texts: list[Text] = list(dict.fromkeys(text for table in tables for text in table.texts))
    some = set(list(dict.fromkeys(text.prompt for text in texts))[:CALIBRATION_PROMPTS])
    samples = [text for text in texts if text.prompt in some]
    # A question asked in plain words and as a conversation is one prompt, where it is read as one.
    plain = scorer.reading.format == "text"
    prompts = [text.prompt if plain and isinstance(text.prompt, str) else as_messages(text.prompt) for text in samples]
    try:
        scorer.calibrate(prompts, [text.response for text in samples])
    except JuryError as error:
        return str(error)
    scorer.calibrated = False
    return None


def _description(answers: Sequence[Mapping[str, Any]]) -> str:
    """What sets a cluster apart, e.g. `"welfare: too little (62% of them, 40% of all); ..."`."""
    return "; ".join(
        f"{a['label']}: {a['answer']} ({a['p_cluster']:.0%} of them, {a['p_population']:.0%} of all)"
        for a in answers[:ANSWERS_IN_DESCRIPTION]
    )
