"""Train the communities of a table: an adapter on one base model for each, kept one by one.

The training is the supervised one of runs on texts. A community whose adapter is complete is not trained again, one
that was stopped goes on from its checkpoint, and one can be added to those that are there. Knows nothing of how a
policy answers by them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from plural_rlhf.methods.modular.answered import answered_texts
from plural_rlhf.methods.modular.communities import Community
from plural_rlhf.methods.modular.pool import POOL_FILE, CommunityPool, TrainedCommunity
from plural_rlhf.policies.base_models import prepare_base_model
from plural_rlhf.recipe.checkpoints import TrainingFolder
from plural_rlhf.recipe.config import RunConfig
from plural_rlhf.recipe.interruption import Interruption
from plural_rlhf.recipe.open_ended.policies import imitate
from plural_rlhf.recipe.run_folder.lock import only_run
from plural_rlhf.recipe.trainings import load_base, with_new_adapter
from reward_models.content_hashes import value_hash
from reward_models.errors import JudgementError, JuryError, did_you_mean
from reward_models.judgements.records import Judgements
from reward_models.jury.backbones.loading import weights_hash
from reward_models.seeds import derived_seed, seeded_rng


__all__ = ["train_communities", "train_on_answers"]

CHECKPOINTS = "checkpoints"


def train_communities(
    config: RunConfig,
    judgements: Judgements,
    communities: Sequence[Community],
    folder: Path,
    *,
    only: Sequence[str] = (),
    overwrite: bool = False,
    show: Callable[[str], object] = print,
) -> CommunityPool:
    """Train an adapter for each community, by as many steps each.

    Args:
        config: `policy` (base model, adapter, how questions are shown), `sft` (steps, learning rate, texts per step),
            `checkpoints`, `seed`.
        judgements: What is imitated, see `answered_texts`.
        communities: All communities of the population, with their shares.
        folder: Where the adapters and `communities.json` are written.
        only: Names of those that are trained or added now; empty for all.
        overwrite: Whether to train again what was trained on other answers or with other settings.
        show: Called with a sentence about what is done.

    Returns:
        The pool: those that were there, and the new ones.

    Raises:
        JudgementError: A community of `only` that there is not.
        JuryError: The folder holds communities on another base model, or one that was trained on something else.
        RunFolderError: Another process trains communities in the folder.

    Example:
        >>> import tempfile
        >>> from plural_rlhf.recipe.config import make_config
        >>> from reward_models import planted_judgements
        >>> judgements = planted_judgements("choice", num_raters=40, num_items=3).judgements
        >>> halves = [Community(name, 0.5, judgements.raters[n::2]) for n, name in enumerate(["left", "right"])]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     policy = {"model": "tiny", "cache_dir": f"{folder}/models", "lora": {"target_modules": ["q_proj"]}}
        ...     config = make_config({"policy": policy, "sft": {"steps": 0}}, origin="example")
        ...     pool = train_communities(config, judgements, halves, Path(folder) / "halves", show=lambda line: None)
        >>> [(community.name, community.answers) for community in pool.communities]
        [('left', 60), ('right', 60)]
    """
    names = [community.name for community in communities]
    unknown = [name for name in only if name not in names]
    if unknown:
        raise JudgementError(
            f"there is no community {unknown[0]!r}.{did_you_mean(unknown[0], names)} The communities are "
            f"{', '.join(map(repr, names))}."
        )
    wanted = [community for community in communities if not only or community.name in only]
    folder.mkdir(parents=True, exist_ok=True)
    with only_run(folder):  # each process writes the whole list of communities
        return _train_missing(config, judgements, wanted, folder, overwrite=overwrite, show=show)


def _train_missing(
    config: RunConfig,
    judgements: Judgements,
    wanted: Sequence[Community],
    folder: Path,
    *,
    overwrite: bool,
    show: Callable[[str], object],
) -> CommunityPool:
    """Train those of the wanted communities that are not complete; arguments as for `train_communities`."""
    base, _ = load_base(config)
    source = prepare_base_model(config.policy.model, config.policy.cache_dir, seed=config.seed)
    pool = _pool_there(folder, source, weights_hash(base), overwrite=overwrite)
    rows = {
        community.name: answered_texts(
            judgements,
            community.raters,
            layouts=config.policy.layouts,
            shuffled=config.policy.shuffle_answers,
            seed=config.seed,
        )
        for community in wanted
    }
    trained_on = {name: _hash_of_training(config, answers, pool.base_hash) for name, answers in rows.items()}
    there = {community.name: community for community in pool.communities}
    for community in wanted:
        before = there.get(community.name)
        if before is not None and before.trained_on != trained_on[community.name] and not overwrite:
            raise JuryError(
                f"the adapter of {community.name!r} in {str(folder)!r} was trained on other answers or with other "
                "settings. Fix: train into another folder, or pass --overwrite to train it again."
            )
    for community in wanted:
        answers, fingerprint = rows[community.name], trained_on[community.name]
        record = TrainedCommunity(
            community.name, community.key, community.share, len(community.raters), len(answers), fingerprint
        )
        before = there.get(community.name)
        complete = before is not None and before.trained_on == fingerprint and (folder / community.key).is_dir()
        if complete:
            show(f"{community.name}: trained already")
        else:
            show(f"{community.name}: {len(answers):,} answers of {len(community.raters):,} people")
            checkpoints = folder / CHECKPOINTS / fingerprint
            train_on_answers(config, answers, folder / community.key, checkpoints, community.name, show)
        pool = pool.with_community(record)
        pool.write()
    return pool


def train_on_answers(
    config: RunConfig,
    answers: Sequence[dict[str, Any]],
    policy: Path,
    checkpoints: Path,
    label: str,
    show: Callable[[str], object],
    *,
    times: int = 1,
) -> None:
    """Train one adapter to imitate answers, or go on from its checkpoint; all begin with the same random weights.

    Args:
        config: As for `train_communities`.
        answers: Rows with `prompt` and `completion`.
        policy: Where the adapter is saved.
        checkpoints: Where checkpoints are kept until then.
        label: Name of the training, for the progress bar.
        show: Called with a sentence about what is done.
        times: Multiple of `sft.steps`: K for a single model of as many tokens as K communities.

    Raises:
        RunInterrupted: Ctrl-C or SIGTERM; a checkpoint is kept.
    """
    base, tokenizer = load_base(config)
    torch.manual_seed(derived_seed(config.seed, "first adapter of a community"))
    model = with_new_adapter(base, config.policy.lora)
    section = config.sft.model_copy(update={"steps": config.sft.steps * times})
    kept = f"communities that are complete, and a checkpoint of {label}; the same command goes on"
    interruption = Interruption(show, lambda: f"Kept: {kept}.")
    training = TrainingFolder(policy, checkpoints, config.checkpoints, interruption, show)
    with interruption.handled():
        if section.steps == 0:
            training.save(model, tokenizer)
        else:
            imitate(
                Dataset.from_list(_dealt(config, answers, section.steps)),
                section,
                section.texts_per_step,
                config.seed,
                model,
                tokenizer,
                training,
                label,
            )
    shutil.rmtree(checkpoints, ignore_errors=True)
    if checkpoints.parent.is_dir() and not any(checkpoints.parent.iterdir()):
        checkpoints.parent.rmdir()


def _dealt(config: RunConfig, answers: Sequence[dict[str, Any]], steps: int) -> list[dict[str, Any]]:
    """As many answers as a training reads, in random order; every answer once before one comes again."""
    rng, number = seeded_rng(config.seed, "answers of a community"), steps * config.sft.texts_per_step
    dealt: list[int] = []
    while len(dealt) < number:
        dealt += rng.permutation(len(answers)).tolist()
    return [answers[i] for i in dealt[:number]]


def _pool_there(folder: Path, source: str, base_hash: str, *, overwrite: bool) -> CommunityPool:
    """The pool in the folder, or an empty one."""
    empty = CommunityPool(folder, source, base_hash, [])
    if not (folder / POOL_FILE).is_file():
        return empty
    pool = CommunityPool.read(folder)
    if pool.base_hash == base_hash:
        return pool
    if overwrite:
        return empty
    raise JuryError(
        f"the communities in {str(folder)!r} are on the base model {pool.base!r}, and those of this command on "
        f"{source!r}: adapters of two base models cannot be one pool. Fix: give the model of the others, another "
        "folder, or --overwrite."
    )


def _hash_of_training(config: RunConfig, answers: Sequence[dict[str, Any]], base_hash: str | None) -> str:
    settings = {"sft": config.sft.model_dump(mode="json"), "lora": config.policy.lora.model_dump(mode="json")}
    return value_hash([list(answers), settings, config.seed, base_hash])
