"""From judgements to a jury reward model on a frozen language model: `fit_jury`, the front door.

The steps, each in a room of its own: choose the number of clusters on held-out raters (`fitting.selection`), fit
clusters and rewards per text on the labels (`fitting.mixture`), name the clusters by their answers
(`analysis.naming`), read the rewards off the model's features (`fitting.feature_fitting`), and put the heads on one
scale (`jury.calibration`). The table is encoded once. Fine-tuning the language model is `JuryRewardTrainer`; this file
knows nothing of it, nor of policies.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from reward_models.analysis.naming import describe_clusters, item_labels
from reward_models.errors import JuryError
from reward_models.fitting.em import FitConfig
from reward_models.fitting.feature_fitting import FeatureFit, fit_features
from reward_models.fitting.mixture import fit_mixture
from reward_models.fitting.rater_fit import RaterFit
from reward_models.fitting.selection import KSelection, select_num_clusters
from reward_models.judgements.records import Judgements
from reward_models.judgements.texts import Text, as_messages
from reward_models.jury.features import pooled_features, truncate_backbone
from reward_models.jury.modeling_jury import JuryRewardModel
from reward_models.jury.reading import MAX_LENGTH, ReadingSettings
from reward_models.jury.scorer import JuryScorer
from reward_models.jury.state import JuryState, StoredRaters, counts
from reward_models.progress import with_progress_bars


__all__ = ["FittedJury", "fit_jury"]

ANSWERS_IN_DESCRIPTION = 3
CALIBRATION_PROMPTS = 200  # give a scale to about two percent


@dataclass(frozen=True)
class FittedJury:
    """What `fit_jury` found on the way; `JuryScorer.fitted` holds it until the process ends.

    Attributes:
        selection: The comparison of numbers of clusters; None where K was given or the table has no raters.
        label_fit: Clusters of raters and rewards per text, from the labels alone.
        clusters: Per cluster `name`, `prevalence` and `answers`, see `describe_clusters`.
        heads: The linear heads on the model's features.
        uncalibrated: Why the heads were not put on one scale; None where they were.

    Example:
        >>> from reward_models import planted_judgements
        >>> from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
        >>> planted = planted_judgements("preference", num_raters=20, num_items=6)
        >>> tokenizer = tiny_tokenizer()
        >>> backbone = tiny_causal_lm(tokenizer)
        >>> scorer = fit_jury(planted.judgements, backbone, tokenizer, l2=0.1, progress=False)
        >>> scorer.fitted.selection.num_clusters, len(scorer.fitted.label_fit.rater_ids)
        (2, 20)
    """

    selection: KSelection | None
    label_fit: RaterFit
    clusters: list[dict[str, Any]]
    heads: FeatureFit
    uncalibrated: str | None


@with_progress_bars
def fit_jury(
    judgements: Judgements,
    backbone: str | Path | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    clusters: int | Sequence[int] | KSelection = (1, 2, 3),
    layers: int | None = None,
    l2: float | Literal["auto"] = "auto",
    labels: Mapping[str, str] | None = None,
    names: Sequence[str] | Mapping[str, str] | None = None,
    config: FitConfig | None = None,
    max_length: int = MAX_LENGTH,
    cache_dir: str | Path | None = None,
    progress: bool = True,
    on_step: Callable[[str], None] | None = None,
) -> JuryScorer:
    """Fit a jury reward model: clusters of raters, and a reward of any text for each of them.

    The language model is not trained: its features of each judged text are computed once, and the heads are linear.

    Args:
        judgements: A table of any kind. Without raters (`soft`) the jury has one cluster.
        backbone: A decoder (path, hub id or model) whose last token's hidden state gives the features.
        tokenizer: Tokenizer of a backbone that is given as a model.
        clusters: K; candidates of which held-out raters choose one; or that choice, from `select_num_clusters`.
        layers: Use only so many of the backbone's layers; None for all.
        l2: Ridge penalty of the heads; `"auto"` chooses it on held-out questions.
        labels: Short names of items by item id, for the names of the clusters. None: `item_labels`, from the wordings.
        names: Names of the clusters, see `describe_clusters`. None: those that are found.
        config: Restarts, priors and seed of the label-level fit; the seed serves every step.
        max_length: Longest text in tokens; longer ones lose their beginning, with a warning. Saved with the jury.
        cache_dir: Folder in which features are kept while they are computed, so that a fit that was killed goes on
            with the same result; it may be deleted afterwards. None: nothing is kept.
        progress: Show progress bars.
        on_step: Called with a sentence when a step begins.

    Returns:
        The jury, ready to score and to save with `save_pretrained`. Prompts are rendered as conversations where the
        tokenizer has a chat template. Calibration is in its state (see `FittedJury.uncalibrated`), and `calibrated` is
        False: rewards are logits. `JuryScorer.fitted` says how it came about.

    Raises:
        JuryError: K that the raters cannot support, a backbone that cannot be loaded or comes without its tokenizer,
            or a table whose texts or questions are too few, see `select_num_clusters` and `fit_features`.

    Example:
        >>> from reward_models import planted_judgements
        >>> from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
        >>> planted = planted_judgements("choice", num_raters=20, num_items=6)
        >>> tokenizer = tiny_tokenizer()
        >>> backbone = tiny_causal_lm(tokenizer)  # in earnest: the path of a language model, and no tokenizer
        >>> scorer = fit_jury(planted.judgements, backbone, tokenizer, clusters=2, l2=0.1, progress=False)
        >>> scorer.cluster_rewards(["Question 1?"] * 3, ["answer A", "answer B", "answer C"]).shape
        torch.Size([3, 2])
    """
    config = config or FitConfig()
    announce = on_step or _ignore
    enc = judgements.encode()
    model, tokenizer = _load(backbone, tokenizer)
    selection, num_clusters = None, 1
    if isinstance(clusters, int):
        num_clusters = clusters
    elif isinstance(clusters, KSelection):
        selection, num_clusters = clusters, clusters.num_clusters
    elif enc.kind != "soft":
        announce("choosing the number of clusters on held-out raters")
        selection = select_num_clusters(judgements, clusters, config, seed=config.seed)
        num_clusters = selection.num_clusters
    announce("fitting clusters of raters to the labels")
    label_fit = fit_mixture(enc, num_clusters, config)
    described = (
        describe_clusters(label_fit, enc, labels=labels or item_labels(enc), names=names)
        if enc.kind != "soft"
        else _everyone()
    )
    announce("computing the language model's features of each text")
    if layers is not None:
        model = truncate_backbone(model, layers)
    reading = ReadingSettings.for_tables(tokenizer, max_length)
    features = pooled_features(
        model, tokenizer, enc.texts, progress=progress, cache_dir=cache_dir, exact=True, reading=reading
    )
    announce("fitting the heads")
    heads = fit_features(enc, features, num_clusters, init=label_fit, l2=l2, seed=config.seed)
    names = [cluster["name"] for cluster in described]
    jury = JuryRewardModel.from_fit(
        model, heads.weight, heads.bias, heads.prevalence, names, memory=heads.memory, reading=reading
    )
    conversations = enc.n_texts if reading.format == "conversations" else 0
    state = JuryState(
        rater_model=label_fit.model,
        descriptions={cluster["name"]: _description(cluster["answers"]) for cluster in described},
        fitted_on={**counts(enc), "conversations": conversations},
        raters=StoredRaters.of(label_fit.placement) if label_fit.rater_ids else None,
    )
    scorer = JuryScorer(jury, tokenizer, state=state)
    uncalibrated = _put_on_one_scale(scorer, enc.texts)
    if uncalibrated is not None:
        warnings.warn(
            f"the jury's heads are not on one scale, and rules that compare clusters will be refused: {uncalibrated}",
            UserWarning,
            stacklevel=2,
        )
    scorer.fitted = FittedJury(selection, label_fit, described, heads, uncalibrated)
    return scorer


def _ignore(_: str) -> None:
    """Announce nothing."""


def _load(
    backbone: str | Path | PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load what was given as a path; float32, because features of half precision blur near-ties."""
    if isinstance(backbone, PreTrainedModel):
        if tokenizer is None:
            raise JuryError(
                f"the backbone is a {type(backbone).__name__} without its tokenizer, which turns texts into its "
                "tokens. Pass tokenizer=, or the path that both are loaded from."
            )
        return backbone, tokenizer
    try:
        model = AutoModel.from_pretrained(str(backbone), dtype="float32", trust_remote_code=False)
        return model, tokenizer or AutoTokenizer.from_pretrained(str(backbone), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise JuryError(
            f"no language model at {str(backbone)!r}: neither a folder in from_pretrained form nor a model id that "
            "can be reached. Correct the path."
        ) from error


def _put_on_one_scale(scorer: JuryScorer, texts: Sequence[Text]) -> str | None:
    """Calibrate the heads on the judged responses, each once, as a stand-in for samples of a reference policy.

    Welfare rules that compare clusters need it; the pool takes the heads as they are. Scores stay logits until a rule
    asks for the common scale (`calibrated=True`).

    Returns:
        Why there is no calibration; None where there is one.
    """
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


def _everyone() -> list[dict[str, Any]]:
    return [{"name": "everyone", "prevalence": 1.0, "answers": []}]


def _description(answers: Sequence[Mapping[str, Any]]) -> str:
    """What sets a cluster apart, e.g. `"welfare: too little (62% of them, 40% of all); ..."`."""
    return "; ".join(
        f"{a['label']}: {a['answer']} ({a['p_cluster']:.0%} of them, {a['p_population']:.0%} of all)"
        for a in answers[:ANSWERS_IN_DESCRIPTION]
    )
