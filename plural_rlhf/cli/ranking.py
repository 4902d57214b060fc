"""The command `rank`: which of several responses a jury prefers, and why.

Reads candidates, scores them with a jury unless the file has scores, prints and writes the verdicts. Knows nothing of
how a verdict is computed: `plural_rlhf.ranking.rank` does that.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plural_rlhf.cli.guard import command_line, guarded
from plural_rlhf.cli.options import JsonFile, Traceback, output_option
from reward_models.borders import cell, say


if TYPE_CHECKING:
    from rich.table import Table

    from plural_rlhf.ranking.explain import Explanation
    from plural_rlhf.ranking.rank import RankedPrompt
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
            help="Folder or Hub id of a saved jury that scores the responses. Not needed if the file has scores, in "
            "columns reward:NAME.",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            metavar="SPEC",
            help="Weights of the clusters: prevalence, uniform, the name of a cluster, or NAME=SHARE,... Default: "
            "the jury's prevalence; uniform without a jury. A column `weights` of the file takes precedence.",
        ),
    ] = None,
    rule: Annotated[
        str,
        typer.Option(
            "--rule",
            metavar="RULE",
            help="Welfare rule, e.g. mean, 'cvar(share=0.3)', borda. A column `rule` of the file takes precedence.",
        ),
    ] = "mean",
    best: Annotated[
        bool, typer.Option("--best", help="Print and write only the best response to each prompt.")
    ] = False,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Name the pivotal clusters, and weights that would change the verdict."),
    ] = False,
    json_file: JsonFile = None,
    out: Annotated[
        Path | None,
        output_option("Write the ranked rows with scores, which rank reads again without a jury.", "FILE.jsonl"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the files of --json and --output.")] = False,
    uncalibrated: Annotated[
        bool,
        typer.Option(
            "--uncalibrated",
            help="Use the scores without calibration, also under rules that compare scores between clusters.",
        ),
    ] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=1, help="Rank only the first N prompts.")
    ] = None,
    rows: Annotated[int, typer.Option("--rows", min=0, help="Print this many prompts; files hold all.")] = 20,
    traceback: Traceback = False,
) -> None:
    """Rank responses under a jury, weights and a welfare rule, and explain what the verdict depends on.

    Example: `plural-rlhf rank answers.jsonl --jury runs/quickstart/jury --weights "urban=7,rural=5" --explain`

    Example: `plural-rlhf rank scored.csv --rule "soft_minimum(temperature=0.5)" --best --output best.jsonl`

    A row of the file is one response (`prompt`, `response`) or one prompt (`prompt`, `responses`). With the columns
    `reward:urban`, `reward:rural` the scores are read from the file and no model is loaded. Header and one row of
    such a CSV file:

    `prompt,response,reward:urban,reward:rural`

    `Build more parks?,"Yes, two.",2.0,-1.0`

    The rules are those of `plural_rlhf.core.rules`: mean, min, nash, cvar(share), median, leximin, borda, copeland,
    maximal_lottery and others. Rules that compare scores between clusters need a calibrated jury.
    """

    def decide() -> None:
        from rich.console import Console
        from tqdm.auto import tqdm

        from plural_rlhf.core.rules import Rule
        from plural_rlhf.ranking.candidates import read_candidates
        from plural_rlhf.ranking.explain import explain as explain_one
        from plural_rlhf.ranking.rank import rank as rank_all
        from plural_rlhf.ranking.rank import write_ranked
        from reward_models.weights import weights_from_text
        from reward_models.whole_file import write_json

        for option, file in (("--json", json_file), ("--output", out)):
            if file is not None and file.exists() and not force:
                raise typer.BadParameter(f"{option} {file} exists. Give another name, or --force to replace it.")
        try:
            parsed = Rule.parse(rule)
        except (TypeError, ValueError) as error:
            raise typer.BadParameter(f"--rule {rule!r}: {error}") from error
        spec = None if weights is None else weights_from_text(weights)
        prompts = read_candidates(candidates, limit)
        scorer = None if jury is None else _load(jury, calibrated=not uncalibrated)
        if scorer is not None:
            responses = [response for prompt in prompts for response in prompt.responses]
            scorer.state.warn_if_unlike_fitted(str(jury), [prompt.prompt for prompt in prompts], responses)
        ranked = rank_all(prompts, scorer, spec, parsed, calibrated=False if uncalibrated else None, progress=True)
        console = Console()
        needed = (ranked if json_file is not None else ranked[:rows]) if explain else []
        bar = tqdm(needed, desc="explaining", unit="prompt", disable=len(needed) <= rows)
        explanations = [explain_one(prompt) for prompt in bar]
        if best:
            console.print(_best_table(ranked[:rows]))
        for i, prompt in enumerate(ranked[:rows]):
            if not best:
                console.print(_prompt_table(prompt))
            for sentence in explanations[i].sentences if explain else []:
                console.print(cell(f"{prompt.candidates.name}: {sentence}" if best else sentence))
        if len(ranked) > rows:
            say(f"and {len(ranked) - rows:,} more prompts; --rows shows them, --output and --json write all")
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            write_ranked(out, ranked, best=best)
            say(f"Written to {out}")
        if json_file is not None:
            meta = {"command": command_line("rank"), "candidates": str(candidates), "jury": jury}
            verdicts = [
                _as_dict(prompt, explanations[i] if explain else None, best) for i, prompt in enumerate(ranked)
            ]
            write_json(json_file, {"meta": meta, "prompts": verdicts})
            say(f"Written to {json_file}")

    guarded(decide, traceback)


def _load(jury: str, *, calibrated: bool) -> JuryScorer:
    """A saved jury, with calibrated heads if they are asked for and it has a calibration."""
    from transformers.utils import logging

    from reward_models.jury.scorer import JuryScorer

    logging.disable_progress_bar()
    scorer = JuryScorer.from_pretrained(jury)
    scorer.calibrated = calibrated and scorer.state.calibration is not None
    return scorer


def _prompt_table(ranked: RankedPrompt) -> Table:
    from rich import box
    from rich.table import Table

    from plural_rlhf.ranking.candidates import label

    table = Table(box=box.SIMPLE, title=cell(ranked.candidates.name, "bold"), title_justify="left")
    table.add_column("rank", justify="right")
    table.add_column("")
    table.add_column("response", overflow="fold", ratio=1)
    for name in ranked.cluster_names:
        table.add_column(cell(name), justify="right")
    table.add_column(cell(ranked.rule), justify="right")
    table.add_column("chosen", justify="right")
    for n in ranked.order:
        scores = [f"{score:+.2f}" for score in (*ranked.rewards[n], ranked.scores[n])]
        response = cell(ranked.candidates.responses[n])
        table.add_row(str(ranked.ranks[n]), label(n), response, *scores, f"{ranked.lottery[n]:.0%}")
    return table


def _best_table(ranked: list[RankedPrompt]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    table.add_column("prompt", overflow="fold")
    table.add_column("best response", overflow="fold")
    table.add_column("score", justify="right")
    table.add_column("chosen", justify="right")
    for prompt in ranked:
        n = prompt.best
        response = cell(prompt.candidates.responses[n])
        chosen = f"{prompt.lottery[n]:.0%}"
        table.add_row(cell(prompt.candidates.name), response, f"{prompt.scores[n]:+.2f}", chosen)
    return table


def _as_dict(ranked: RankedPrompt, explained: Explanation | None, best: bool) -> dict[str, Any]:
    """One verdict as JSON."""
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
