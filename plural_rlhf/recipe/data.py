"""What a run reads: judgements, split by raters and by items, before anything is trained.

This file knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from plural_rlhf.policies.layouts import Layout, with_options
from plural_rlhf.recipe.config import RunConfig
from plural_rlhf.recipe.inputs import read_other_tables, read_source
from plural_rlhf.recipe.settings.data import DataSection
from plural_rlhf.report.results import DataSummary
from reward_models.analysis.cluster_traits import check_traits
from reward_models.analysis.naming import item_labels
from reward_models.errors import JudgementError, JuryError, did_you_mean
from reward_models.evaluation.heldout import STREAMS, HeldoutRecord
from reward_models.judgements.records import Judgements
from reward_models.judgements.splits import split_items, split_raters
from reward_models.judgements.texts import Prompt, as_messages, freeze_prompt, prompt_wording
from reward_models.seeds import seeded_rng
from reward_models.sources import survey_labels
from reward_models.sources.codes import TableReading


__all__ = ["Question", "RunData", "read_data", "render_question"]

PAIR_COLUMNS = ("rater_id", "item_id", "prompt", "response_a", "response_b", "choice")
LEAST_QUESTIONS = 3
"""Fewer leave no judgement to hold out of a rater's others."""
BY_ROWS, BY_ITEMS = 2, 3
"""Ways of drawing (`streams_of`) of earlier versions: as rows occur; single items of texts, not whole prompts."""
ONE_IN = 5
"""Of so many prompts one is held out, unless the run file says how many."""


@dataclass(frozen=True)
class Question:
    """One question of the data.

    Attributes:
        id: Its item id.
        prompt: Its wording as the table has it, a string or a frozen conversation.
        options: The offered answers, in order.
        split: `train` or `heldout` (never shown to the jury nor to RL).

    Example:
        >>> question = Question("parks", "More parks?", ("yes", "no"), "train")
        >>> question.messages
        [{'role': 'user', 'content': 'More parks?'}]
    """

    id: str
    prompt: Prompt
    options: tuple[str, ...]
    split: str

    @property
    def messages(self) -> list[dict[str, str]]:
        """The question alone, as a conversation: what the jury reads."""
        return as_messages(self.prompt)

    @property
    def wording(self) -> str:
        """The question as one text."""
        return prompt_wording(self.prompt)


@dataclass(frozen=True)
class RunData:
    """Judgements and their splits.

    Attributes:
        everything: All judgements.
        train: Train raters' judgements of the train items: all that the jury and RL learn from.
        heldout_raters: The other raters' judgements of all items: all that is measured against.
        train_items: Ids of the items (questions of a survey) that the jury and RL see, in order.
        heldout_items: Ids of those that neither sees.
        questions: The questions of a `choice` table, train questions first; empty for other kinds.
        labels: Short names of items for tables, by id, from their wordings.
        reading: The table as it was read, which knows the missing answers; None for other sources.
        other_tables: Other kinds of judgements that the jury is fitted to as well, without raters and texts that are
            held out.
        heldout_tables: The held-out raters' rows of those other tables.
        heldout_prompts: Prompts that neither the jury nor the policies see; empty for questions, of which items are
            held out.
    """

    everything: Judgements
    train: Judgements
    heldout_raters: Judgements
    train_items: list[str]
    heldout_items: list[str]
    questions: list[Question]
    labels: dict[str, str]
    reading: TableReading | None = None
    other_tables: list[Judgements] = field(default_factory=list)
    heldout_tables: list[Judgements] = field(default_factory=list)
    heldout_prompts: set[Prompt] = field(default_factory=set)

    @property
    def writes_text(self) -> bool:
        """Whether the policies answer with text of their own, because the judgements offer no answers."""
        return self.everything.kind != "choice"

    def of(self, split: str) -> list[Question]:
        """Return the questions of a split."""
        return [q for q in self.questions if q.split == split]

    def pairs(self) -> Judgements | None:
        """Return the table of pairs by training raters, without what is held out; None if there is none."""
        return next((t for t in (self.train, *self.other_tables) if t.kind == "preference" and len(t)), None)

    def heldout_record(self) -> HeldoutRecord:
        """Return the ids on both sides of the split, for measuring the jury later."""
        return HeldoutRecord(self.train.raters, self.heldout_raters.raters, self.train_items, self.heldout_items)

    def summary(self, config: RunConfig) -> DataSummary:
        """Return the counts for the report."""
        section = config.data
        return DataSummary(
            source={"table": str(section.path), "none": "no judgements"}.get(section.source, section.name),
            kind=self.everything.kind if len(self.everything) else "none",
            n_judgements=len(self.everything),
            n_raters=self.everything.n_raters,
            effective_raters=self.everything.encode().effective_raters if self.everything.encode().design else None,
            n_items=self.everything.n_items,
            train_raters=self.train.n_raters,
            heldout_raters=self.heldout_raters.n_raters,
            train_questions=self.train_items,
            heldout_questions=self.heldout_items,
        )


def read_data(
    config: RunConfig,
    *,
    show: Callable[[str], object] | None = None,
    streams: int = STREAMS,
) -> RunData:
    """Read, validate and split the data of a run.

    Args:
        config: The run.
        show: Called with a text that says how the codes of a table were understood, e.g. `print`.
        streams: How raters, items and questions are drawn (`streams_of`): a run goes on as it began.

    Returns:
        The judgements and their splits; empty tables with `data.source: none`.

    Raises:
        JudgementError: Data that cannot be used; the message names every fault.
        JuryError: More clusters asked for than the raters can support.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from reward_models import planted_judgements
        >>> table = planted_judgements("choice", num_raters=20, num_items=6).judgements.frame
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "answers.jsonl"
        ...     table.to_json(path, orient="records", lines=True)
        ...     section = {"source": "table", "path": path, "columns": {"index": 0}, "heldout_questions": 2}
        ...     data = read_data(RunConfig(data=section))
        >>> data.train.n_raters, data.heldout_raters.n_raters, len(data.of("train")), len(data.of("heldout"))
        (14, 6, 4, 2)
    """
    if config.data.source == "none":
        nothing = Judgements("preference", pd.DataFrame(columns=list(PAIR_COLUMNS), dtype=object))
        return RunData(nothing, nothing, nothing, train_items=[], heldout_items=[], questions=[], labels={})
    choice, raters, items = (
        [np.random.default_rng(config.seed + n) for n in (0, 0, 1)] if streams == 1 else [config.seed] * 3
    )
    source = read_source(config.data, choice, show, by_rows=streams <= BY_ROWS)
    judgements = source.judgements
    if judgements.kind == "soft":
        raise JudgementError(
            "the judgements are of kind 'soft', published shares without raters, and a run holds out raters. Fix: "
            "bring judgements with rater_id, or call reward_models.fit_jury, which fits one reward to shares."
        )
    check_traits(judgements, config.jury.by or ())
    train_raters, heldout_raters = split_raters(judgements, config.data.heldout_raters, raters)
    largest = max(config.jury.clusters)
    if config.jury.is_fitted and largest > train_raters.n_raters // 2:
        raise JuryError(
            f"jury.clusters asks for {largest} clusters of {train_raters.n_raters} training raters: ask for at most "
            "half as many clusters as raters, or bring more raters."
        )
    train, held, prompts = train_raters, set[str](), set[Prompt]()
    if judgements.kind != "choice" and streams > BY_ITEMS:
        prompts = _heldout_prompts(config.data, judgements, items)
    elif config.data.heldout_prompts is not None:
        raise JudgementError(
            "data.heldout_prompts is set, but the judgements are answers to questions, each with its own offered "
            "answers. Fix: use data.heldout_questions."
        )
    if prompts:
        enc = judgements.encode()
        held = {
            item
            for item, texts in zip(enc.item_ids, enc.item_alternatives, strict=True)
            if enc.texts[max(texts)].prompt in prompts
        }
        train, _ = split_items(train_raters, [item for item in train_raters.items if item in held], items)
    elif config.data.heldout_questions != 0:
        _check_questions(train_raters.n_items, config.data.heldout_questions)
        train, of_heldout_items = split_items(train_raters, config.data.heldout_questions, items)
        held = set(of_heldout_items.items)
    known = survey_labels(config.data.name) if config.data.source == "survey" else {}
    labels = {**item_labels(judgements.encode()), **known}
    order = judgements.items if streams <= BY_ROWS else _item_order(judgements, known)
    questions = _questions(judgements, order, held) if judgements.kind == "choice" else []
    other_tables, heldout_tables = _other_tables(config, judgements, heldout_raters, held, prompts, show)
    return RunData(
        everything=judgements,
        train=train,
        heldout_raters=heldout_raters,
        train_items=[item for item in order if item not in held],
        heldout_items=[item for item in order if item in held],
        questions=questions,
        labels=labels,
        reading=source.reading,
        other_tables=other_tables,
        heldout_tables=heldout_tables,
        heldout_prompts=prompts,
    )


def _other_tables(
    config: RunConfig,
    judgements: Judgements,
    heldout_raters: Judgements,
    heldout_items: set[str],
    heldout_prompts: set[Prompt],
    show: Callable[[str], object] | None,
) -> tuple[list[Judgements], list[Judgements]]:
    """Read `data.tables`: without the raters and the texts that are held out, and what the held-out raters judged.

    Raises:
        JudgementError: A kind that there is already, or nothing is left of a table.
    """
    tables, heldout = list[Judgements](), list[Judgements]()
    enc = judgements.encode()
    held = {t for item in heldout_items for t in enc.item_alternatives[enc.item_ids.index(item)] if t >= 0}
    unseen = {enc.texts[t] for t in held}
    out_of_reach = set(heldout_raters.raters)
    for section, table in zip(config.data.tables, read_other_tables(config.data, show), strict=True):
        if table.kind in {judgements.kind, *(other.kind for other in tables)} or table.kind == "soft":
            raise JudgementError(
                f"data.tables: {str(section.path)!r} holds {table.kind!r} judgements, but tables that are fitted "
                "together are of different kinds, with raters. Fix: put judgements of one kind into one file."
            )
        of_table = table.encode()
        new = np.array([t in unseen or t.prompt in heldout_prompts for t in of_table.texts] + [False])  # last: padding
        touched = new[of_table.alternatives].any(1)
        # Rows of the encoded table are in another order than those of the frame; a row is known by rater and item.
        raters = np.array(of_table.rater_ids, dtype=object)[of_table.rater]
        items = np.array(of_table.item_ids, dtype=object)[of_table.item]
        dropped = set(zip(raters[touched], items[touched], strict=True))
        frame = table.frame
        pairs = zip(frame["rater_id"], frame["item_id"], strict=True)
        keep = np.array([rater not in out_of_reach and (rater, item) not in dropped for rater, item in pairs])
        if not keep.any():
            raise JudgementError(
                f"data.tables: nothing is left of {str(section.path)!r} after the raters and questions of the test "
                "were held out. Fix: lower data.heldout_raters or data.heldout_questions, or remove the table."
            )
        tables.append(table.select(keep))
        of_heldout = frame["rater_id"].isin(out_of_reach).to_numpy()
        if of_heldout.any():
            heldout.append(table.select(of_heldout))
    return tables, heldout


def _heldout_prompts(data: DataSection, judgements: Judgements, rng: int | np.random.Generator) -> set[Prompt]:
    """The prompts of pairs or ratings that are held out.

    Raises:
        JudgementError: A prompt that the table does not have, or none would be left.
    """
    wanted = data.heldout_prompts
    prompts = sorted({text.prompt for text in judgements.encode().texts}, key=str)
    usual = DataSection.model_fields["heldout_questions"].default
    if wanted is None:
        wanted = len(prompts) // ONE_IN if data.heldout_questions == usual else 0
    if isinstance(wanted, list):
        of_wording = {prompt_wording(prompt): prompt for prompt in prompts}
        unknown = [text for text in wanted if text not in of_wording]
        if unknown:
            hint = did_you_mean(unknown[0], list(of_wording))
            raise JudgementError(f"data.heldout_prompts names {unknown[0]!r}, which no judgement is about.{hint}")
        held = {of_wording[text] for text in wanted}
    else:
        order = seeded_rng(rng, "held-out prompts").permutation(len(prompts))
        held = {prompts[i] for i in order[:wanted]}
    if len(held) >= len(prompts):
        raise JudgementError(
            f"data.heldout_prompts holds out {len(held)} of {len(prompts)} prompts, and nothing is left to train on. "
            f"Fix: hold out fewer, e.g. data.heldout_prompts={max(len(prompts) - 1, 0)}."
        )
    return held


def _check_questions(n_items: int, heldout: int | list[str]) -> None:
    number = heldout if isinstance(heldout, int) else len(heldout)
    if n_items - number < LEAST_QUESTIONS:
        most = n_items - LEAST_QUESTIONS
        fewer = f"hold out at most {most}, e.g. data.heldout_questions={most}, or" if most > 0 else "set it to"
        raise JudgementError(
            f"data.heldout_questions holds out {number} questions of {n_items}, and a jury needs at least "
            f"{LEAST_QUESTIONS} to be fitted to. Fix: {fewer} 0 for a final fit to all questions, of which nothing "
            "can be said on new ones."
        )


def _item_order(judgements: Judgements, known: Collection[str]) -> list[str]:
    """The ids of the items, in the order of the survey where it is known, else by id."""
    place = {item: n for n, item in enumerate(known)}
    return sorted(judgements.encode().item_ids, key=lambda item: place.get(item, len(place)))


def _questions(judgements: Judgements, order: list[str], held: set[str]) -> list[Question]:
    """The questions of a `choice` table, train questions first."""
    first = judgements.frame.drop_duplicates("item_id").set_index("item_id").loc[order]
    questions = [
        Question(str(item), freeze_prompt(prompt), tuple(options), "heldout" if item in held else "train")
        for item, prompt, options in zip(order, first["prompt"], first["options"], strict=True)
    ]
    return sorted(questions, key=lambda q: q.split != "train")


def render_question(question: Question, layout: Layout = "line", order: Sequence[int] | None = None) -> str:
    """Render a question for the policy: its wording and the offered answers, without further instructions.

    Args:
        question: The question.
        layout: How the answers are shown.
        order: Their positions in the order in which they are shown; None for that of the table.

    Example:
        >>> parks = Question("parks", "Build more parks?", ("yes", "no"), "train")
        >>> render_question(parks), render_question(parks, order=[1, 0])
        ('Build more parks? yes; no?', 'Build more parks? no; yes?')
    """
    shown = question.options if order is None else [question.options[position] for position in order]
    return with_options(question.wording, shown, layout)
