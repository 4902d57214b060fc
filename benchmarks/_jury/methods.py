"""The methods that `jury_quality` compares, all fitted through the same few lines and tuned alike.

Published methods are re-implementations in this package, at label level or on frozen features, with the same number
of candidates for their size as ours; none is the original code. Knows nothing of data sets and metrics.

| method | what it is |
|---|---|
| `item-mean` | answer frequencies of an item, the same for everybody |
| `bt` | one reward for everybody: Bradley-Terry, proportional odds or multinomial logit |
| `bias-only` | `bt` with rater terms (leniency, scale, ties, position), which are no taste |
| `mixture`, `simplex`, `factor`, `encoder` | the memberships of this package, with rater terms |
| `auto` | what `choose_membership` takes for the training raters |
| `joint-one` | one reward with rater terms, texts and raters in one likelihood, all tables of the raters together |
| `joint` | the same with the membership and size that `choose_joint` takes |
| `joint-by-judgements` | `joint`, strangers predicted as whoever gave a random judgement (`fit_jury(strangers=)`) |
| `joint-mixture`, `joint-simplex`, `joint-factor` | the same with one membership and its best size |
| `joint-simplex-plain`, `joint-factor-plain` | that without rater terms: LoRe, PReF, see below |
| `pal` | PAL (Chen et al., ICLR 2025): ideal points, blends of prototypes; given our rater terms |
| `lore` | LoRe (Bose et al., COLM 2025): blends of linear rewards, no rater terms |
| `pref` | PReF (Shenfeld et al., 2025): factors, no rater terms |
| `vpl` | VPL (Poddar et al., NeurIPS 2024): amortised latent of 4, 8, 16, 32 for sizes 1, 2, 3, 4; no rater terms |
| `k-models` | K separate models, raters assigned to one (MaxMin-RLHF; Chakraborty et al., ICML 2024) |
| `demographics` | rewards per demographic group, shrunk to the population's |
| `mixture-by-judgements` | the mixture, strangers predicted as whoever gave a random judgement |
| `log-probability`, `log-probability-per-token` | how probable SmolLM2 finds the text, untrained; our rater terms |
| `fine-tuned` | two clusters, the cell's model with adapters, from the joint fit on its frozen features; one table |
| `fine-tuned-start` | that joint fit itself: the same features, table and clusters, frozen |
| `in-context` | SmolLM2 reads up to eight judgements of the rater; one scale and a level per answer are fitted |

On texts the published methods go through the joint fit, with rater terms off (as published) and on. LoRe is blends of
linear rewards: `joint-simplex`. PAL with a linear map is the same: an ideal point `a` gives `-|f(x) - a|^2`, which is
`2 f(x).a` plus what is the same for everybody, and the consensus of the joint fit carries that. PReF is
`joint-factor`. VPL is `vpl` without and `encoder` with rater terms: their networks read the vectors themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from _jury.cases import Unavailable, known_texts
from _jury.fine_tuned import TRAINED
from _jury.language_models import ASKED


if TYPE_CHECKING:
    import numpy as np

    from reward_models.judgements.encoding import Encoded
    from reward_models.judgements.records import Judgements
    from reward_models.jury.fitting.steps import Strangers
    from reward_models.raters.predictors import Predictor
    from reward_models.raters.rater_model import Membership

__all__ = ["CHOOSING", "LARGEST", "METHODS", "ONLY_NAMED", "OURS", "TRAINED", "TUNED", "Training", "choose_size"]


@dataclass(frozen=True)
class Training:
    """What a method is fitted to.

    Attributes:
        judgements: The training judgements, with the raters' traits.
        enc: The same as integers.
        features: (U, D) rows for `enc.texts`; None: texts are known by their labels alone.
        seed: Of whatever is random in the fit.
        people: A table in which the traits of everybody are found, those who will be scored too; nothing else of it
            is read. None: the training judgements.
        others: Tables of other kinds by the same raters, and rows for their texts; for methods that fit several.
        responses_alone: Whether the rows are of the responses without their prompts.
        model: Name of the model that the rows are of.
    """

    judgements: Judgements
    enc: Encoded
    features: np.ndarray | None
    seed: int
    people: Judgements | None = None
    others: Sequence[tuple[Encoded, np.ndarray | None]] = ()
    responses_alone: bool = False
    model: str = ""


Fit = Callable[[Training, int], "Predictor"]


def fit_jury(
    training: Training, size: int, membership: str = "mixture", terms: bool = True, **options: Any
) -> Predictor:
    """A jury of this package; with features its rewards are read off the texts."""
    from reward_models.fitting.em import FitConfig
    from reward_models.fitting.rater_fit import fit_raters

    config = FitConfig(nuisance=terms, seed=training.seed)
    fit = fit_raters(training.enc, membership, size, config=config, **options)
    if training.features is None:
        return fit
    from _jury.labels_first import fit_labels_first

    return fit_labels_first(fit, training.enc, training.features)


def fit_auto(training: Training) -> tuple[Predictor, str]:
    """What the package chooses by itself, and its choice in words; it chooses by labels, as everybody here."""
    from reward_models.fitting.em import FitConfig
    from reward_models.fitting.selection import choose_membership

    chosen = choose_membership(training.enc, config=FitConfig(seed=training.seed))
    size = int(chosen.num_clusters)
    return fit_jury(training, size, chosen.membership), f"{chosen.membership} {size}"


def _by_judgements(training: Training, size: int) -> Predictor:
    """The mixture, with strangers weighted by judgements, as one reward without rater terms weighs them."""
    import dataclasses

    fit = fit_jury(training, size)
    return dataclasses.replace(fit, placement=fit.placement.by_judgements(training.enc))  # type: ignore


def _joint_one(training: Training, size: int) -> Predictor:
    from reward_models.fitting.em import FitConfig
    from reward_models.fitting.joint.fit import fit_joint

    tables, features = _tables(training)
    return fit_joint(tables, features, "mixture", 1, config=FitConfig(seed=training.seed))


def fit_joint_choice(training: Training, strangers: Strangers = "raters") -> tuple[Predictor, str]:
    """Texts and raters in one likelihood, all tables together, by the steps of `fit_jury`: what users get."""
    import numpy as np

    from reward_models.fitting.em import FitConfig
    from reward_models.jury.fitting.steps import JudgedTables, fit_texts_and_raters, with_strangers
    from reward_models.jury.state import counts

    tables, features = _tables(training)
    rows = [np.zeros((table.n_texts, 0)) for table in tables] if features is None else features
    judged = JudgedTables(tables, tables[0], True, counts(*tables), FitConfig(seed=training.seed))
    found = fit_texts_and_raters(judged, rows, (1, 2, 3, 4), "auto", lambda _: None)
    return with_strangers(found, judged, strangers).fit, f"{found.membership} {found.fit.num_clusters}"


def fit_joint_membership(training: Training, membership: Membership, terms: bool = True) -> tuple[Predictor, str]:
    """A joint fit of one membership, of the size with the lowest loss on held-out raters and texts; never of one."""
    from reward_models.fitting.em import FitConfig
    from reward_models.fitting.joint.choice import choose_joint
    from reward_models.fitting.joint.fit import fit_joint

    tables, features = _tables(training)
    config = FitConfig(nuisance=terms, seed=training.seed)
    sizes = (1, 2) if membership == "factor" else (2, 3, 4)
    choice = choose_joint(tables, features, [(membership, size) for size in sizes], config=config)
    losses = {row["num_clusters"]: row["nll"] for row in choice.table if row["membership"] == membership}
    size = min((size for size in sizes if size in losses), key=losses.__getitem__, default=sizes[0])
    chosen = choice.membership, choice.num_clusters
    fit = choice.fit if chosen == (membership, size) else fit_joint(tables, features, membership, size, config=config)
    return fit, f"{membership} {size}"


def _tables(training: Training) -> tuple[list[Encoded], list[np.ndarray] | None]:
    """All tables of a training set, and rows for their texts where there are features."""
    tables = [training.enc, *(enc for enc, _ in training.others)]
    rows = [training.features, *(features for _, features in training.others)]
    return tables, None if training.features is None else [features for features in rows if features is not None]


def _item_mean(training: Training, size: int) -> Predictor:
    from reward_models.baselines.frequencies import fit_item_mean

    return fit_item_mean(training.enc, training.features)


def _demographics(training: Training, size: int) -> Predictor:
    from reward_models.baselines.demographics import fit_demographics

    if not training.judgements.traits:
        raise Unavailable("nothing is known of the raters but their labels")
    people = training.people or training.judgements
    return fit_demographics(training.enc, people, training.features, seed=training.seed)


def _k_models(training: Training, size: int) -> Predictor:
    from reward_models.baselines.k_models import fit_k_models

    return fit_k_models(training.enc, size, training.features, seed=training.seed)


def _encoder(training: Training, size: int) -> Predictor:
    from reward_models.baselines.encoder import fit_encoder
    from reward_models.baselines.encoder_training import EncoderConfig

    config = EncoderConfig(seed=training.seed)
    return fit_encoder(training.enc, size, features=training.features, config=config)


def _vpl(training: Training, size: int) -> Predictor:
    from reward_models.baselines.vpl import VPLConfig, fit_vpl

    config = VPLConfig(seed=training.seed)
    return fit_vpl(training.enc, 2 ** (size + 1), features=training.features, config=config)


METHODS: dict[str, Fit] = {
    "item-mean": _item_mean,
    "bt": partial(fit_jury, terms=False),
    "bias-only": fit_jury,
    "joint-one": _joint_one,
    "mixture": fit_jury,
    "simplex": partial(fit_jury, membership="simplex"),
    "factor": partial(fit_jury, membership="factor"),
    "encoder": _encoder,
    "pal": partial(fit_jury, membership="simplex", basis="ideal_point"),
    "lore": partial(fit_jury, membership="simplex", terms=False),
    "pref": partial(fit_jury, membership="factor", terms=False),
    "vpl": _vpl,
    "k-models": _k_models,
    "demographics": _demographics,
    "mixture-by-judgements": _by_judgements,
    **ASKED,
    **TRAINED,
}
"""How each method is fitted, given its size (clusters, prototypes, rank or length of the code)."""

LARGEST = {"factor": 2, "pref": 2}
"""Sizes above cost minutes: codes of a factor model are summed over a grid in as many dimensions."""

TUNED = ("mixture", "mixture-by-judgements", "simplex", "factor", "encoder", "pal", "lore", "pref", "vpl", "k-models")
CHOOSING: dict[str, Callable[[Training], tuple[Predictor, str]]] = {
    "auto": fit_auto,
    "joint": fit_joint_choice,
    "joint-by-judgements": partial(fit_joint_choice, strangers="judgements"),
    **{f"joint-{m}": partial(fit_joint_membership, membership=m) for m in ("mixture", "simplex", "factor")},
    **{f"joint-{m}-plain": partial(fit_joint_membership, membership=m, terms=False) for m in ("simplex", "factor")},
}
"""Methods that choose membership or size themselves; they return the fit and the choice."""
ONLY_NAMED = ("mixture-by-judgements", *ASKED, *TRAINED, *(name for name in CHOOSING if name.startswith("joint-")))
"""Methods that run only where they are named: they take long, or differ for strangers alone."""
OURS = ("mixture", "simplex", "factor", "encoder", "auto", "joint")

UNSEEN_RATERS = 0.25


def choose_size(fit: Fit, training: Training, candidates: Sequence[int]) -> int:
    """The size with the lowest loss on held-out raters, each placed by half of the labels and scored on the others.

    By labels alone, whatever the method is fitted on later: all methods choose by the same judgements.

    Args:
        fit: The method.
        training: A quarter of its raters is held out.
        candidates: Sizes to compare; those above the number of fitted raters are left out.

    Returns:
        The chosen size; the smallest if no text was judged by both a fitted and a held-out rater.
    """
    import numpy as np

    from reward_models.raters.predictors import answer_log_lik
    from reward_models.stats.resampling import halve_labels

    enc, rng = training.enc, np.random.default_rng(training.seed)
    out = np.zeros(enc.n_raters, dtype=bool)
    out[rng.permutation(enc.n_raters)[: max(round(UNSEEN_RATERS * enc.n_raters), 1)]] = True
    out = out[enc.rater]
    scored = out & known_texts(enc.alternatives, ~out, enc.n_texts)
    if not scored.any():
        return candidates[0]
    fitted = training.judgements.select(~out)
    inner = Training(fitted, fitted.encode(), None, training.seed)
    test = training.judgements.select(scored).encode()
    half = halve_labels(test.rater, rng)
    losses = {}
    for size in candidates:
        if size > inner.enc.n_raters:
            continue
        predictor = fit(inner, size)
        losses[size] = 0.0
        for placing in (half, ~half):
            asked = test.select(~placing)
            log_probs = predictor.adapt(test.select(placing)).log_probs(asked)
            losses[size] -= answer_log_lik(log_probs, asked).sum()
    return min(losses, key=lambda size: losses[size])
