"""The command `rank`: which of several responses a jury wants, and why.

Reads candidates, asks a jury where they have no scores yet, prints the verdicts and writes them. Knows nothing of how
verdicts come about; that is `plural_rlhf.ranking.rank`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plural_rlhf.cli.guard import command_line, guarded
from plural_rlhf.cli.options import JsonFile, Traceback


if TYPE_CHECKING:
    from rich.table import Table

    from plural_rlhf.ranking.rank import Explanation, RankedPrompt
    from reward_models.jury.scorer import JuryScorer

__all__ = ["rank"]


def rank(
    candidates: Annotated[
        Path,
        typer.Argument(
            metavar="CANDIDATES",
            help="Responses to rank (.jsonl, .json, .csv, .tsv, .parquet): columns prompt and response, or responses.",
        ),
    ],
    jury: Annotated[
        str | None,
        typer.Option(
            "--jury",
            metavar="JURY",
            help="Folder or Hub id of a saved jury; not needed if the file has the columns reward:NAME.",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            metavar="SPEC",
            help="Who decides: prevalence, uniform, a cluster's name, or NAME=SHARE,... Default: the jury's "
            "prevalence, and uniform without a jury. A column weights wins.",
        ),
    ] = None,
    rule: Annotated[
        str,
        typer.Option("--rule", metavar="RULE", help="How, e.g. mean, 'cvar(share=0.3)', borda. A column rule wins."),
    ] = "mean",
    best: Annotated[
        bool, typer.Option("--best", help="Show and write only the best response to each prompt.")
    ] = False,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Say who is pivotal, and what other weights would turn the verdict."),
    ] = False,
    json_file: JsonFile = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE.jsonl", help="Write the ranked rows; rank reads such a file again without a jury."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the files of --json and --out.")] = False,
    uncalibrated: Annotated[
        bool,
        typer.Option(
            "--uncalibrated",
            help="Take scores as they are, also under rules that compare one cluster's with another's.",
        ),
    ] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=1, help="Rank only the first N prompts.")
    ] = None,
    rows: Annotated[int, typer.Option("--rows", min=0, help="Print this many prompts; files hold all.")] = 20,
    traceback: Traceback = False,
) -> None:
    """Rank responses under a jury of your choice, and say what the verdict hangs on.

    Example: `plural-rlhf rank answers.jsonl --jury runs/quickstart/jury --weights "urban=7,rural=5" --explain`

    Example: `plural-rlhf rank scored.csv --rule "soft_minimum(temperature=0.5)" --best --out best.jsonl`

    A row of the file is one response (`prompt`, `response`) or one prompt (`prompt`, `responses`). With the columns
    `reward:urban`, `reward:rural` the scores are taken from there and no model is loaded. Two rows of a CSV file:

    `prompt,response,reward:urban,reward:rural`

    `Build more parks?,"Yes, two.",2.0,-1.0`

    The rules are those of `plural_rlhf.core.rules`: mean, min, nash, cvar(share), median, leximin, borda, copeland,
    maximal_lottery and others. Those that compare one cluster's score with another's want a calibrated jury.
    """

    def decide() -> None:
        from rich.console import Console
        from rich.text import Text
        from tqdm.auto import tqdm

        from plural_rlhf.core.rules import Rule
        from plural_rlhf.ranking.candidates import read_candidates
        from plural_rlhf.ranking.rank import explain as explain_one
        from plural_rlhf.ranking.rank import rank as rank_all
        from plural_rlhf.ranking.rank import write_ranked
        from reward_models.weights import weights_from_text
        from reward_models.whole_file import write_json

        for option, file in (("--json", json_file), ("--out", out)):
            if file is not None and file.exists() and not force:
                raise typer.BadParameter(f"{option} {file} exists. Give another name, or --force to replace it.")
        try:
            parsed = Rule.parse(rule)
        except (TypeError, ValueError) as error:
            raise typer.BadParameter(f"--rule {rule!r}: {error}") from error
        spec = None if weights is None else weights_from_text(weights)
        given = read_candidates(candidates, limit)
        scorer = None if jury is None else _load(jury, calibrated=not uncalibrated)
        ranked = rank_all(given, scorer, spec, parsed, calibrated=False if uncalibrated else None, progress=True)
        console = Console()
        wanted = ranked if json_file is not None else ranked[:rows]
        bar = tqdm(wanted if explain else [], desc="explaining", unit="prompt", disable=len(wanted) <= rows)
        explanations = [explain_one(prompt) for prompt in bar]
        if best:
            console.print(_best_table(ranked[:rows]))
        for i, prompt in enumerate(ranked[:rows]):
            if not best:
                console.print(_prompt_table(prompt))
            for sentence in explanations[i].sentences if explain else []:
                console.print(Text(f"{prompt.candidates.name}: {sentence}" if best else sentence))
        if len(ranked) > rows:
            typer.echo(f"and {len(ranked) - rows:,} more prompts; --rows shows them, --out and --json write all")
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            write_ranked(out, ranked, best=best)
            typer.echo(f"Written to {out}")
        if json_file is not None:
            meta = {"command": command_line("rank"), "candidates": str(candidates), "jury": jury}
            prompts = [_as_dict(prompt, explanations[i] if explain else None, best) for i, prompt in enumerate(ranked)]
            write_json(json_file, {"meta": meta, "prompts": prompts})
            typer.echo(f"Written to {json_file}")

    guarded(decide, traceback)


def _load(jury: str, *, calibrated: bool) -> JuryScorer:
    """A saved jury, on the common scale of its heads if it has one and that is wanted."""
    from transformers.utils import logging

    from reward_models.jury.scorer import JuryScorer

    logging.disable_progress_bar()
    scorer = JuryScorer.from_pretrained(jury)
    scorer.calibrated = calibrated and scorer.state.calibration is not None
    return scorer


def _prompt_table(ranked: RankedPrompt) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from plural_rlhf.ranking.candidates import label

    table = Table(box=box.SIMPLE, title=Text(ranked.candidates.name, style="bold"), title_justify="left")
    table.add_column("rank", justify="right")
    table.add_column("")
    table.add_column("response", overflow="fold", ratio=1)
    for name in ranked.cluster_names:
        table.add_column(Text(name), justify="right")
    table.add_column(Text(str(ranked.rule)), justify="right")
    table.add_column("chosen", justify="right")
    for n in ranked.order:
        scores = [f"{score:+.2f}" for score in (*ranked.rewards[n], ranked.scores[n])]
        response = Text(ranked.candidates.responses[n])
        table.add_row(str(ranked.ranks[n]), label(n), response, *scores, f"{ranked.lottery[n]:.0%}")
    return table


def _best_table(ranked: list[RankedPrompt]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE)
    table.add_column("prompt", overflow="fold")
    table.add_column("best response", overflow="fold")
    table.add_column("score", justify="right")
    table.add_column("chosen", justify="right")
    for prompt in ranked:
        n = prompt.best
        response = Text(prompt.candidates.responses[n])
        chosen = f"{prompt.lottery[n]:.0%}"
        table.add_row(Text(prompt.candidates.name), response, f"{prompt.scores[n]:+.2f}", chosen)
    return table


def _as_dict(ranked: RankedPrompt, explained: Explanation | None, best: bool) -> dict[str, Any]:
    """All that is known of one verdict."""
    from dataclasses import asdict

    return {
        "prompt_id": ranked.candidates.prompt_id,
        "prompt": ranked.candidates.prompt,
        "rule": str(ranked.rule),
        "weights": dict(zip(ranked.cluster_names, ranked.weights.tolist(), strict=True)),
        "responses": [
            {
                "number": n,
                "response": ranked.candidates.responses[n],
                "rewards": dict(zip(ranked.cluster_names, ranked.rewards[n].tolist(), strict=True)),
                "score": float(ranked.scores[n]),
                "probability": float(ranked.lottery[n]),
                "rank": int(ranked.ranks[n]),
            }
            for n in (ranked.order[:1] if best else ranked.order)
        ],
        "explanation": None if explained is None else asdict(explained),
    }
