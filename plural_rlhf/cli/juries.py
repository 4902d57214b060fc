"""Commands on juries and judgements: `fit-jury`, `releases`, `adapt`, `evaluate-jury`, `rename`, `export-scalar`.

Each reads its input, calls `reward_models`, and prints the result. Knows nothing of policies.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plural_rlhf.cli.adapted_raters import rater_rows, raters_table
from plural_rlhf.cli.data import MODELS_BY_NAME, RUN_FILES, data_config
from plural_rlhf.cli.guard import command_line, guarded
from plural_rlhf.cli.options import Columns, JsonFile, JuryFolder, Output, Overwrite, Settings, Traceback
from reward_models.borders import say


if TYPE_CHECKING:
    from reward_models.sources import Release

__all__ = ["adapt", "evaluate_jury", "export_scalar", "fit_jury", "releases"]


def fit_jury(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="Run file in YAML, or a table of judgements (.csv, .xlsx, .sav and more)."
        ),
    ],
    settings: Settings = None,
    output: Output = None,
    overwrite: Overwrite = False,
    labels_only: Annotated[
        bool,
        typer.Option(
            "--labels-only",
            help="Find clusters from the labels alone, without a language model: memberships as CSV, and a report.",
        ),
    ] = False,
    backbone: Annotated[
        str | None,
        typer.Option(
            "--backbone",
            metavar="MODEL",
            help="Language model or sentence embedder whose features the scores are computed from: a path, a Hub id, "
            "or smollm2-135m. Default: jury.backbone of the run file; smollm2-135m for a table.",
        ),
    ] = None,
    strangers: Annotated[
        str | None,
        typer.Option(
            "--strangers",
            metavar="raters|judgements",
            help="How raters without labels are predicted: as a random rater, or as whoever gave a random judgement. "
            "Default: jury.strangers of the run file; raters for a table.",
        ),
    ] = None,
    columns: Columns = None,
    traceback: Traceback = False,
) -> None:
    """Fit the jury only: find the clusters of raters and a score for each; no policy is trained.

    Example: `plural-rlhf fit-jury configs/quickstart.yaml --set jury.clusters=3`

    Example: `plural-rlhf fit-jury votes.csv --columns votes.yaml --backbone models/all-MiniLM-L6-v2`

    Example: `plural-rlhf fit-jury --labels-only answers.csv --columns map.yaml --set jury.by=[country]`

    Takes judgements of every kind that has raters, and several tables of the same raters together (data.tables of a
    run file). Saves the reward model in the folder `jury` of the output folder (runs/NAME of a table), where
    `JuryReward`, `JuryRewardModel.from_pretrained` and the other commands load it from. With --labels-only no model is
    read or saved: the output folder gets `memberships.csv` (each rater's probability of every cluster), `results.json`
    and `report.html`, with everybody and every question in the fit.
    """

    def fit() -> None:
        import json

        from plural_rlhf.cli.runs import output_setting, run_as_far_as, run_until

        if labels_only:
            if strangers is not None:
                raise typer.BadParameter("--strangers is for juries that are saved. Remove it or --labels-only.")
            _fit_labels(file, columns, [*(settings or [])], output, overwrite)
            return
        chosen = [*(settings or []), *output_setting(output)]
        if backbone is not None:
            section = "policy.model" if backbone in MODELS_BY_NAME else "jury.backbone"
            chosen.append(f"{section}={json.dumps(backbone)}")
        if strangers is not None:
            chosen.append(f"jury.strangers={json.dumps(strangers)}")
        if file.suffix not in RUN_FILES:
            run_as_far_as("jury", "fit-jury", data_config(file, columns, None, None, chosen), overwrite)
            return
        if columns is not None:
            raise typer.BadParameter("--columns belongs to a table. Remove it: a run file has data.columns.")
        run_until("jury", "fit-jury", file, chosen, None, overwrite)

    guarded(fit, traceback)


def releases(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="One release: print what it holds and its options.")
    ] = None,
    traceback: Traceback = False,
) -> None:
    """List the published data sets that can be read, with their licences; nothing is downloaded.

    Example: `plural-rlhf releases`

    Example: `plural-rlhf releases prism`
    """

    def show() -> None:
        from reward_models.errors import JudgementError, did_you_mean
        from reward_models.sources import RELEASES

        if name is None:
            _print_releases()
        elif name in RELEASES:
            _print_release(RELEASES[name])
        else:
            raise JudgementError(
                f"{name!r} is not a known release.{did_you_mean(name, RELEASES)} Fix: take a name that plural-rlhf "
                "releases lists; your own data is read as a table."
            )

    guarded(show, traceback)


def adapt(
    jury: JuryFolder,
    data: Annotated[
        Path,
        typer.Option(
            "--data", metavar="FILE", help="Table with a few judgements of each rater (.csv, .xlsx, .sav and more)."
        ),
    ],
    columns: Columns = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Print this many raters.")] = 20,
    json_file: JsonFile = None,
    traceback: Traceback = False,
) -> None:
    """Infer raters' cluster memberships from a few of their judgements, for known or new raters; nothing is trained.

    Example: `plural-rlhf adapt runs/jury_from_table/jury --data answers.csv --columns configs/columns/answers.yaml`

    Prints each rater's membership in every cluster with its 95 % interval. In a mixture a rater belongs to one
    cluster, so the interval is 0 to 1 until the judgements settle which one.
    """

    def infer() -> None:
        from rich.console import Console
        from transformers.utils import logging

        from reward_models.jury.scorer import JuryScorer
        from reward_models.sources import read_table
        from reward_models.whole_file import write_json

        reading = read_table(data, columns)
        say(str(reading))
        logging.disable_progress_bar()
        scorer = JuryScorer.from_pretrained(jury)
        adapted = scorer.adapt(reading.judgements)
        Console().print(raters_table(adapted, rows))
        say(adapted.summary())
        if json_file is not None:
            meta = {"command": command_line("adapt"), "jury": jury, "data": str(data)}
            write_json(json_file, {"meta": meta, "clusters": adapted.cluster_names, "raters": rater_rows(adapted)})
            say(f"Written to {json_file}")

    guarded(infer, traceback)


def evaluate_jury(context: typer.Context) -> None:
    """Measure a saved jury on judgements that it was not fitted to, and compare it with one reward for everybody.

    Example: `plural-rlhf evaluate-jury runs/quickstart/jury --data test.csv --columns map.yaml`

    Same as `python -m reward_models.evaluate`; `plural-rlhf evaluate-jury --help` lists the options.
    """
    from reward_models.evaluate import run

    guarded(lambda: run(context.args, prog="plural-rlhf evaluate-jury"), "--traceback" in context.args)


def rename(
    jury: JuryFolder,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="OLD=NEW...", help="Present name, or number from 1 (the largest), and new name."),
    ] = None,
    describe: Annotated[
        str | None,
        typer.Option(
            "--describe",
            metavar="MODEL",
            help="Let a language model write one sentence on each cluster from the judgements that set it apart, "
            "which stay beside it: a path, a Hub id, or smollm2-135m.",
        ),
    ] = None,
    traceback: Traceback = False,
) -> None:
    """Rename clusters of a saved jury, or have them described; its scores stay the same.

    Example: `plural-rlhf rename runs/protests/jury "peaceful + free speech + opinions=rights" 2=order`

    Example: `plural-rlhf rename runs/protests/jury --describe smollm2-135m`

    A policy that was trained with the former names follows these names only; the jury's folder keeps them. To name
    clusters before a policy is trained, set `jury.names` in the run file.
    """

    def rename_in_folder() -> None:
        from reward_models.jury.folder import load_config, load_state
        from reward_models.jury.rename import rename_clusters

        if not names and describe is None:
            raise typer.BadParameter("nothing to change. Give OLD=NEW, or --describe MODEL.")
        config = load_config(jury)
        before = config.cluster_names
        changes = dict(_old_and_new(change, before) for change in names or [])
        descriptions = {} if describe is None else _described(load_state(jury, config).descriptions, describe)
        after = rename_clusters(jury, changes, descriptions)
        for name, description in descriptions.items():
            say(f"{name}: {description}")
        for old, new in zip(before, after, strict=True):
            say(new if old == new else f"{new} (was {old})")
        if before != after:
            say(
                "A policy that was trained with this jury knows the former names: steer it with "
                f"Steerer.from_pretrained(policy, {jury!r}, prompt_names={load_config(jury).former_names or before})."
            )

    guarded(rename_in_folder, traceback)


def export_scalar(
    jury: JuryFolder,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write.")],
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            metavar="NAME=SHARE,...",
            help="Weights of the clusters: shares or seats, the name of a cluster, prevalence or uniform. Default: "
            "the jury's prevalence.",
        ),
    ] = None,
    calibrated: Annotated[
        bool,
        typer.Option("--calibrated", help="Weigh the calibrated heads, which are on one scale."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Write into OUT even if it holds files.")] = False,
    traceback: Traceback = False,
) -> None:
    """Save a jury under fixed weights as a plain reward model that loads without plural-rlhf.

    Example: `plural-rlhf export-scalar runs/quickstart/jury scalar-rm --weights "urban=7,rural=5"`

    Other tools read the folder as a sequence classifier with one label; of a jury that reads the mean over tokens, or
    an encoder, as a sentence-transformers model whose encode() returns the rewards. The weights cannot be changed
    afterwards.
    """

    def export() -> None:
        from transformers.utils import logging

        from reward_models.jury.export import export_scalar as write_scalar
        from reward_models.weights import weights_from_text

        # A file is refused in any case: transformers logs that it cannot write there, and returns.
        if out.is_file():
            raise typer.BadParameter(f"OUT {out} is a file. Give the name of a folder.")
        if out.is_dir() and any(out.iterdir()) and not force:
            raise typer.BadParameter(f"OUT {out} holds files. Give another folder, or --force to write over them.")
        logging.disable_progress_bar()
        spec = None if weights is None else weights_from_text(weights)
        written = write_scalar(jury, out, spec, calibrated=calibrated)
        for name, share in written.weights.items():
            say(f"{share:6.1%}  {name}")
        if written.form == "embedder":
            say(f"The jury's weighted mean = SentenceTransformer({str(out)!r}).encode(texts)")
            say(f"Written to {out}")
            return
        sign = "-" if written.constant < 0 else "+"
        say(f"The jury's weighted mean = the exported logit {sign} {abs(written.constant):.4f}")
        say(f"Written to {out}")

    guarded(export, traceback)


def _described(descriptions: dict[str, str], model: str) -> dict[str, str]:
    """Put a sentence of a language model before the judgements that set each cluster apart."""
    from plural_rlhf.policies.base_models import prepare_base_model
    from reward_models.jury.fitting.descriptions import describe_with_model

    return describe_with_model(descriptions, prepare_base_model(model))


def _old_and_new(change: str, names: list[str]) -> tuple[str, str]:
    """Split `old=new`; the old name may hold `=`, the new one may not."""
    old, equals, new = change.rpartition("=")
    if not equals:
        raise typer.BadParameter(f"{change!r} is not of the form OLD=NEW. The clusters are {names}.")
    if old not in names and old.isdecimal() and 1 <= int(old) <= len(names):
        old = names[int(old) - 1]
    return old, new.strip()


def _fit_labels(file: Path, columns: Path | None, settings: list[str], output: Path | None, overwrite: bool) -> None:
    """Find clusters in the table or run file, and print them and where they were written."""
    import json

    from rich.console import Console

    from plural_rlhf.recipe.survey.labels import MEMBERSHIPS_FILE, fit_labels
    from plural_rlhf.report.tables import clusters_table

    if output is not None:
        settings.append(f"output_dir={json.dumps(str(output))}")
    config = data_config(file, columns, None, None, settings)
    results = fit_labels(config, overwrite=overwrite, command=command_line("fit-jury"))
    console = Console()
    console.print(clusters_table(results))
    folder = config.output_dir.resolve()
    for title, name in (("Memberships", MEMBERSHIPS_FILE), ("Report", "report.html")):
        console.print(f"{title}: {folder / name}", markup=False, soft_wrap=True)


def _print_releases() -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from reward_models.sources import RELEASES

    table = Table(box=box.SIMPLE)
    for column in ("name", "kind", "licence", "on the Hub"):
        table.add_column(column, overflow="fold")
    for release in RELEASES.values():
        table.add_row(release.name, release.kind, release.licence, release.hub_id or "–")
    Console().print(table)
    say("plural-rlhf releases NAME prints what a release holds and its options. Read its licence before use.")


def _print_release(release: Release) -> None:
    import inspect

    facts = {
        "kind": release.kind,
        "raters": release.raters,
        "licence": release.licence,
        "from": release.url,
        "on the Hub": release.hub_id or "no: get a copy and pass its path",
        "options": ", ".join(release.options) or "none",
    }
    say(f"{release.name}: {release.title}\n")
    for name, fact in facts.items():
        say(f"  {name:10}  {fact}")
    say(f"\n{inspect.getdoc(release.read)}\n")
    source = "" if release.hub_id else ", source=PATH"
    say(f'Python: load_release("{release.name}"{source}, limit=1000)')
    source = "" if release.hub_id else " --source PATH"
    say(f"Shell:  plural-rlhf headroom --release {release.name}{source} --set data.limit=1000")
