"""The command `communities`: an adapter for every community of a table, as Modular Pluralism has it.

Reads judgements, trains, prints how far the communities are from people that took no part. Knows nothing of how.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plural_rlhf.cli.data import data_config
from plural_rlhf.cli.guard import guarded
from plural_rlhf.cli.options import Columns, Settings, Traceback, output_option
from reward_models.borders import cell, say


if TYPE_CHECKING:
    from rich.table import Table

    from plural_rlhf.methods.modular import Community, CommunityPool
    from plural_rlhf.recipe.config import RunConfig
    from reward_models.judgements.records import Judgements

__all__ = ["communities"]


def communities(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="TABLE", help="Judgements (.csv, .jsonl, .xlsx, .sav and more), or a run file (.yaml)."
        ),
    ],
    by: Annotated[
        str,
        typer.Option(
            "--by", metavar="TRAIT", help="Trait of the raters that divides them (a column rater:TRAIT), or clusters."
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="MODEL", help="Base model: a path, a Hub id or smollm2-135m. Default: policy.model."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        output_option("Folder of the communities. Default: runs/TABLE-communities."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", metavar="NAME", help="Train only this community, and add it to those in DIR; repeatable."
        ),
    ] = None,
    fewest: Annotated[int, typer.Option("--fewest", min=2, help="Refuse communities of fewer raters than this.")] = 20,
    columns: Columns = None,
    settings: Settings = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Train again what was trained on other answers or with other settings.")
    ] = False,
    traceback: Traceback = False,
) -> None:
    """Train an adapter on one base model for every community of a table (Modular Pluralism).

    Example: `plural-rlhf communities survey.csv --by party --model smollm2-135m --output runs/parties`

    Example: `plural-rlhf communities survey.csv --by clusters --set jury.clusters=[2,3] --set sft.steps=200`

    Example: `plural-rlhf communities survey.csv --by party --only green --output runs/parties`

    A community imitates what its people answered (choices), preferred (pairs) or rated above their mean. Steps,
    learning rate and adapter are those of `sft` and `policy.lora`; raters and questions are held out as in a run
    (data.heldout_raters, data.heldout_questions), and at the end the answers are compared with those of the held-out
    raters. Clusters are fitted to the labels of the training questions. Stopped and started again, the command goes
    on where it was. `ModularPolicy.from_pretrained(DIR)` answers by the communities: in proportion, as one of them, or
    with the views of all.
    """

    def train() -> None:
        from rich.console import Console

        from plural_rlhf.methods.modular import communities_by_cluster, communities_by_trait
        from plural_rlhf.recipe.communities import train_communities
        from plural_rlhf.recipe.data import read_data
        from plural_rlhf.recipe.inputs import say_unread_tables
        from reward_models.fitting.em import FitConfig

        more = [] if model is None else [f"policy.model={model}"]
        config = data_config(file, columns, None, None, [*(settings or []), *more])
        data = read_data(config, show=say)
        say_unread_tables(config.data, say)
        everybody = data.everything
        if by == "clusters":
            fit_config = FitConfig(restarts=config.jury.restarts, seed=config.seed)
            asked = everybody.select(everybody.frame["item_id"].isin(data.train_items).to_numpy())
            divided = communities_by_cluster(asked, config.jury.clusters, fewest=fewest, config=fit_config)
        else:
            divided = communities_by_trait(everybody, by, fewest=fewest)
        for community in divided:
            say(f"{community.share:5.0%}  {community.name} ({len(community.raters):,} people)")
        folder = out or Path("runs") / f"{file.stem}-communities"
        trained = train_communities(
            config, data.train, divided, folder, only=only or (), overwrite=overwrite, show=say
        )
        if everybody.kind == "choice":
            for split, items in (("training", data.train_items), ("held-out", data.heldout_items)):
                people = data.heldout_raters
                people = people.select(people.frame["item_id"].isin(items).to_numpy())
                if len(people):
                    Console().print(_table(config, people, divided, trained, split))
        say(f"Saved in {folder}. In Python: ModularPolicy.from_pretrained({str(folder)!r})")

    guarded(train, traceback)


def _table(config: RunConfig, people: Judgements, divided: list[Community], pool: CommunityPool, split: str) -> Table:
    """JS divergence of every community, and of all in proportion, from the people who were held out."""
    from rich import box
    from rich.table import Table

    from plural_rlhf.methods.modular import EVERYBODY, CommunityPeople, ModularPolicy, asked_questions

    policy = ModularPolicy.from_pretrained(pool.folder)
    questions = asked_questions(people)
    prompts, options = [q.messages for q in questions], [q.options for q in questions]
    of_communities = policy.community_probabilities(prompts, options, progress=True)
    mixed = [pool.shares @ rows for rows in map(list, zip(*of_communities.values(), strict=True))]
    compared = CommunityPeople.of(
        people, [c for c in divided if c.name in pool.names], draws=config.evaluate.draws, seed=config.seed
    )
    table = Table(
        box=box.SIMPLE, title=f"JS divergence from held-out people, {split} questions (nats)", title_justify="left"
    )
    table.add_column("answers of")
    for name in compared.people:
        table.add_column(cell(name), justify="right")
    for name, row in compared.table({**of_communities, "all, by their shares": mixed}).items():
        table.add_row(cell(name), *(f"{row[of].value:.4f}" for of in compared.people))
    table.caption = f"{EVERYBODY}: the people of all these communities"
    return table
