"""Write a first run file for a table: sizes that suit it, and what each setting is for.

Knows nothing of how a table is read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from plural_rlhf.recipe.config import make_config
from plural_rlhf.recipe.data import LEAST_QUESTIONS, ONE_IN, read_data
from reward_models.judgements.records import Judgements
from reward_models.yaml_text import parse_yaml


__all__ = ["draft_run_file"]

RATERS_PER_CLUSTER = 10
"""Training raters per cluster, at least, for candidates of the number of clusters."""
MOST_CLUSTERS = 4
TOKENS_PER_WORD = 1.5
HALF_AN_HOUR = 48
"""Tokens of the longest text with which a run of these sizes takes half an hour on two CPU cores."""
HELDOUT_RATERS = 0.3

TEXT = """\
# {what}: judgements -> jury -> a policy that writes -> report.
#
# What it does   Reads {count} of {raters} to {prompts}, fits a reward model with one
#                score per cluster of raters, trains SmolLM2-135M on the better responses (pi_0), and chooses each
#                text among 16 of pi_0, so that every cluster keeps its share. {held}
# Launch         plural-rlhf headroom {file}     first: do raters differ in taste? (seconds)
#                plural-rlhf run {file}
# Takes          roughly {minutes} minutes on two CPU cores.
# Change         plural-rlhf run {file} --set grpo.steps=20 --set evaluate.samples=8 --output runs/short
#                plural-rlhf run {file} --set plural.mode=rl --output runs/rl
#                (sampled training: one text at use in place of 16, farther from the target; keep its rate of 5e-5)

name: {name}
seed: 0

data:
  source: table
  path: {path}
{columns}  {heldout}
  heldout_raters: {heldout_raters}      # share of the raters
  written: null            # judged, if people wrote the responses: they are then what texts are compared with

policy:
  model: smollm2-135m      # or a path or hub id of any causal language model
  max_new_tokens: {tokens}       # 19 of 20 responses of the table are shorter
  lora: {{r: 8, alpha: 16, target_modules: [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj]}}

jury:
  clusters: {clusters}  # candidates; {why_clusters}
  pooling: mean            # of the language model's hidden states; or a sentence embedder as backbone

sft: {{texts: preferred, steps: 100, learning_rate: 5.0e-4}}      # gives pi_0; or texts: written, none

plural:
  rule: pool               # every cluster keeps its share; or min, nash, ... (one answer that most can accept)
  steering: true           # also train on single clusters and mixtures, so that weights in the prompt steer
  mode: rerank             # each text is chosen among 16 of pi_0, near the target at once; rl, distil, dpo: training

grpo: {{steps: 60, prompts_per_step: 1, num_generations: 16, learning_rate: 5.0e-5}}    # stock TRL; 0 skips it

evaluate: {{samples: 32, prompts: 10}}
"""

CHOICE = """\
# {what}: answers -> jury -> a policy that keeps their spread -> report.
#
# What it does   Reads {count} of {raters} to {questions}, finds the clusters of people
#                who answer alike, and trains SmolLM2-135M to answer as all of them do, or as one cluster does when
#                asked to. {held}
# Launch         plural-rlhf headroom {file}     first: do people differ in more than noise? (seconds)
#                plural-rlhf run {file}
# Takes          roughly ten to fifteen minutes on two CPU cores.
# Change         plural-rlhf run {file} --set plural.steps=20 --set grpo.steps=0 --output runs/short

name: {name}
seed: 0

data:
  source: table
  path: {path}
{columns}  heldout_questions: {heldout_questions}     # number, or a list of item ids
  heldout_raters: {heldout_raters}      # share of the people

policy:
  model: smollm2-135m      # or a path or hub id of any causal language model
  lora: {{r: 8, alpha: 16, target_modules: [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj]}}
  layouts: [line, list, sentence]   # how answers are offered in training; a policy answers well as it was asked

jury:
  clusters: {clusters}  # candidates; {why_clusters}

plural:
  rule: pool               # every cluster keeps its share; or a welfare rule: mean, nash, median, borda ...
  steering: true           # also train on single clusters and mixtures, so that weights in the prompt steer

grpo: {{steps: 8}}         # stock TRL; steps: 0 skips the comparison
"""


def draft_run_file(path: Path, judgements: Judgements, columns: Mapping[str, Any] | Path | None, file: Path) -> str:
    """Return a commented run file for a table, after reading the table by it.

    Args:
        path: The table.
        judgements: What it holds.
        columns: The column map that reads it, or the path of one; None if its columns have the standard names.
        file: Where the run file is to lie, for the commands in it.

    Raises:
        ConfigError, JudgementError, JuryError: A run cannot be made of this table, for instance for want of raters.

    Example:
        >>> import tempfile
        >>> from reward_models import planted_judgements
        >>> judgements = planted_judgements("preference", num_raters=30, num_items=10).judgements
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "pairs.jsonl"
        ...     judgements.frame.to_json(path, orient="records", lines=True)
        ...     text = draft_run_file(path, judgements, None, Path("pairs_run.yaml"))
        >>> settings = [line.split("#")[0].strip() for line in text.splitlines()]
        >>> [line for line in settings if line.startswith(("heldout_prompts", "clusters"))]
        ['heldout_prompts: 2', 'clusters: [1, 2]']
    """
    enc = judgements.encode()
    trained = judgements.n_raters - math.ceil(HELDOUT_RATERS * judgements.n_raters)
    most = max(1, min(MOST_CLUSTERS, trained // RATERS_PER_CLUSTER))
    prompts, items = len({text.prompt for text in enc.texts}), judgements.n_items
    heldout_prompts = prompts // ONE_IN
    heldout_questions = max(0, min(max(1, items // ONE_IN), items - LEAST_QUESTIONS))
    whole = judgements.kind != "choice" and heldout_prompts > 0  # prompts, else single items
    held = heldout_prompts if whole else heldout_questions
    unit = "prompts" if whole else "questions" if judgements.kind == "choice" else "texts or pairs"
    words = [len(text.response.split()) for text in enc.texts]
    tokens = int(np.clip(8 * math.ceil(float(np.quantile(words, 0.95)) * TOKENS_PER_WORD / 8), 16, 256))
    where = {"columns": str(columns) if isinstance(columns, Path) else columns}
    dumped = yaml.safe_dump(where, sort_keys=False, allow_unicode=True, width=110) if columns is not None else ""
    text = (CHOICE if judgements.kind == "choice" else TEXT).format(
        what=f"{path.name}",
        count=f"{len(judgements):,} judgements",
        raters=f"{judgements.n_raters:,} raters",
        prompts=f"texts about {prompts:,} {'prompt' if prompts == 1 else 'prompts'}",
        questions=f"{items:,} questions",
        held=f"Held out for the test: {HELDOUT_RATERS:.0%} of the raters" + (f", {held} {unit}." if held else "."),
        file=file,
        minutes=max(10, round(30 * tokens / HALF_AN_HOUR, -1)),
        name=re.sub(r"\W+", "_", path.stem).strip("_") or "run",
        path=yaml.safe_dump(str(path), allow_unicode=True, width=10_000).removesuffix("\n...\n").strip(),
        columns="".join(f"  {line}\n" for line in dumped.splitlines()),
        heldout=f"heldout_prompts: {held}"
        if whole
        else f"heldout_questions: {held}     # {unit}: the prompts are few",
        heldout_questions=heldout_questions,
        heldout_raters=HELDOUT_RATERS,
        tokens=tokens,
        clusters=list(range(1, most + 1)),
        why_clusters=f"the {trained:,} raters who are not held out can tell up to {most} apart",
    )
    read_data(make_config(parse_yaml(text), origin=str(file)))
    return text
