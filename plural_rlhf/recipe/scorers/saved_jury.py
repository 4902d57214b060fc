"""A saved jury in place of one that the run fits: whether it suits the run, and the stage that copies it.

Knows nothing of policies.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from plural_rlhf.core.rules import rule_or_pool
from plural_rlhf.recipe.config import ConfigError, RunConfig
from plural_rlhf.recipe.data import RunData
from plural_rlhf.recipe.jury import measure_headroom, measure_headroom_on_new_texts
from plural_rlhf.report.results_jury import Cluster, ClusterSelection, Heads, JuryResults
from reward_models.borders import cell, heading
from reward_models.errors import JuryError
from reward_models.evaluation.heldout import HELDOUT_FILE, HeldoutRecord
from reward_models.judgements.texts import as_messages
from reward_models.jury.folder import load_config, load_state
from reward_models.jury.scorer import JuryScorer
from reward_models.weights import parse_weights


__all__ = ["check_saved_jury", "saved_jury_stage"]

Keep = Callable[[str, Callable[[], Any]], Any]


def check_saved_jury(config: RunConfig, data: RunData) -> None:
    """Raise unless the jury of `jury.path` suits the judgements and the settings of a run; reads no weights.

    Args:
        config: The run, which sets `jury.path`.
        data: Its judgements.

    Raises:
        ConfigError: There is no jury, it was fitted to another kind of judgements, its heads are not on one scale and
            the rule compares them, or `juries` names a cluster that it does not have.

    Warns:
        JudgementWarning: The judgements are about texts of another kind than those that it was fitted to.
    """
    path = config.jury.path
    assert path is not None
    if not path.is_dir():
        raise ConfigError(config.name, [f"jury.path = {str(path)!r}: there is no such folder. Fix: correct the path"])
    faults = []
    try:
        jury = load_config(path)
        state = load_state(path, jury)
    except (JuryError, OSError) as error:
        raise ConfigError(config.name, [f"jury.path = {str(path)!r}: {error}"]) from error
    kinds = [] if state.rater_model is None else list(state.rater_model.terms)
    if len(data.everything) and kinds and data.everything.kind not in kinds:
        faults.append(
            f"jury.path = {str(path)!r}: the jury was fitted to judgements of kind {' and '.join(kinds)}, and those "
            f"of this run are of kind {data.everything.kind}. Fix: give a jury of that kind, or remove jury.path"
        )
    rule = rule_or_pool(config.plural.rule)
    if rule is not None and rule.compares_heads and state.calibration is None:
        faults.append(
            f"plural.rule = {config.plural.rule!r} compares clusters, and the heads of {str(path)!r} are not on one "
            "scale. Fix: save the jury again after JuryScorer.calibrate, or set plural.rule to pool"
        )
    for name, seats in config.juries.items():
        try:
            parse_weights(seats, list(jury.cluster_names), list(jury.prevalence))
        except (JuryError, ValueError) as error:
            faults.append(f"juries.{name}: {error}")
    if faults:
        raise ConfigError(config.name, faults)
    state.warn_if_unlike_fitted(str(path), *_judged_texts(data))


def saved_jury_stage(
    config: RunConfig, data: RunData, folder: Path, console: Console, keep: Keep, features: Path
) -> JuryResults:
    """Copy the saved jury of `jury.path` into the folder of a run; arguments as for `jury_stage`.

    Returns:
        What the report says of it. Its clusters are described by their names: what people answered who were fitted is
        not known any more.
    """
    path = config.jury.path
    assert path is not None
    scorer = JuryScorer.from_pretrained(path)
    names, shares = scorer.cluster_names, scorer.prevalence.tolist()
    reason = f"those of the saved jury {str(path)!r}"
    room = on_new_texts = None
    if len(data.train):
        room = measure_headroom(data.train, config.seed, keep)
        console.print(heading("Headroom", room.verdict))
        on_new_texts = measure_headroom_on_new_texts(data.train, scorer, config.seed, keep, features, console)
    console.print(heading("Clusters", reason))
    for name, share in zip(names, shares, strict=True):
        console.print(cell(f"  {share:4.0%}  {name}"))
    seen = _fitted_to_heldout(path, data)
    if seen:
        console.print(cell(seen, "yellow"))
    differences = scorer.state.unlike_fitted(*_judged_texts(data))
    notes = [seen, f"It was fitted to texts of another kind: {'; '.join(differences)}." if differences else ""]
    data.heldout_record().write(folder.parent)
    scorer.save_pretrained(folder, include_backbone=config.jury.include_backbone)
    return JuryResults(
        headroom=room,
        headroom_new_texts=on_new_texts,
        selection=ClusterSelection(
            table=[], chosen=len(names), reason=". ".join(filter(None, [reason, *notes])).rstrip(". ")
        ),
        clusters=[Cluster(name=name, prevalence=share, top=[]) for name, share in zip(names, shares, strict=True)],
        features=Heads(reading=scorer.reading.to_dict(), prevalence=shares),
    )


def _judged_texts(data: RunData) -> tuple[list[list[dict[str, str]]], list[str]]:
    """Prompts and responses of the judgements of a run; both empty where it has none."""
    texts = data.everything.encode().texts if len(data.everything) else []
    return [as_messages(text.prompt) for text in texts], [text.response for text in texts]


def _fitted_to_heldout(path: Path, data: RunData) -> str:
    """Say what of the held-out part the jury was fitted to; empty if nothing, or if it is not known."""
    record = HeldoutRecord.beside(path)
    if record is None:
        return ""
    raters = len({*record.train_raters} & {*data.heldout_raters.raters})
    items = len({*record.train_items} & {*data.heldout_items})
    if not raters and not items:
        return ""
    return (
        f"The jury was fitted to {raters:,} of the {data.heldout_raters.n_raters:,} held-out raters and {items:,} of "
        f"the {len(data.heldout_items):,} held-out items ({HELDOUT_FILE} beside it): measures on them flatter it. Use "
        "the seed and the held-out shares of its run to hold out the same."
    )
