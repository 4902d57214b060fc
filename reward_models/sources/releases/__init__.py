"""Original releases of multi-rater data, by name, as validated judgement tables.

`RELEASES` lists them with licence and address; `load_release` reads one from a local copy or from the Hub. No data is
shipped. `pairs`, `scores`, `ratings`, `dialogues` and `answers` hold one function per release; `reading` opens files.
Knows nothing of models.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reward_models.errors import JudgementError, did_you_mean
from reward_models.judgements.records import Judgements
from reward_models.sources.releases.answers import community_alignment, global_opinion_qa, opinion_qa, value_prism
from reward_models.sources.releases.dialogues import polarized_issues
from reward_models.sources.releases.pairs import (
    chatbot_arena,
    helpsteer3,
    multipref,
    pandalm,
    summarize_from_feedback,
    ukpconvarg1,
)
from reward_models.sources.releases.ratings import dices_350, dices_990, lewidi, polis, popquorn
from reward_models.sources.releases.reading import open_source
from reward_models.sources.releases.rows import Rows
from reward_models.sources.releases.scores import helpsteer2, prism, ultrafeedback


__all__ = ["RELEASES", "Release", "load_release"]


@dataclass(frozen=True)
class Release:
    """One published data set.

    Attributes:
        name: Name for `load_release`.
        kind: Kind of judgement that it is read as, unless the option `kind` sets another.
        title: Its content, in a line.
        hub_id: Data set id on the Hub; None if it is published elsewhere.
        licence: As its owners state it, or where they state it. Read it before you use the data.
        url: Where it is published.
        raters: Who the raters are and how they are identified.
        read: The function that reads it; its docstring states its assumptions, its keyword arguments are the options.

    Example:
        >>> RELEASES["dices_350"].kind, RELEASES["dices_350"].options
        ('rating', ('question',))
    """

    name: str
    kind: str
    title: str
    hub_id: str | None
    licence: str
    url: str
    raters: str
    read: Callable[..., Rows]

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the options that `load_release` accepts."""
        return tuple(name for name in inspect.signature(self.read).parameters if name != "source")


_HUB = "https://huggingface.co/datasets/"
_SEE_CARD = "see card"
_ENTRIES = (
    Release(
        "prism",
        "preference",
        "people of 75 countries choose among and score the responses of 21 models in conversations of their own",
        "HannahRoseKirk/prism-alignment",
        "CC BY 4.0 (people's texts), CC BY-NC 4.0 (models' texts); see card",
        f"{_HUB}HannahRoseKirk/prism-alignment",
        "1,396 people with a survey of traits; each judges only their own conversations",
        prism,
    ),
    Release(
        "dices_350",
        "rating",
        "is a chatbot's response unsafe: 350 adversarial conversations, every rater rates all of them",
        None,
        "CC BY 4.0",
        "https://github.com/google-research-datasets/dices-dataset",
        "123 people; content warning",
        dices_350,
    ),
    Release(
        "dices_990",
        "rating",
        "is a chatbot's response unsafe: 990 adversarial conversations, 60 to 70 raters each",
        None,
        "CC BY 4.0",
        "https://github.com/google-research-datasets/dices-dataset",
        "173 people in the US and India; content warning",
        dices_990,
    ),
    Release(
        "helpsteer2",
        "preference",
        "annotators compare two responses, or rate five attributes of one, before averaging",
        "nvidia/HelpSteer2",
        "CC BY 4.0",
        f"{_HUB}nvidia/HelpSteer2",
        "several per text, without ids: each judgement gets a rater of its own",
        helpsteer2,
    ),
    Release(
        "helpsteer3",
        "preference",
        "up to three annotators compare two responses: general, STEM, code and 13 other languages",
        "nvidia/HelpSteer3",
        "CC BY 4.0",
        f"{_HUB}nvidia/HelpSteer3",
        "without ids: each judgement gets a rater of its own",
        helpsteer3,
    ),
    Release(
        "multipref",
        "preference",
        "two crowd workers and two experts compare two responses, overall and in three aspects",
        "allenai/multipref",
        "ODC-BY; see card",
        f"{_HUB}allenai/multipref",
        "known by id; the trait pool is normal or expert",
        multipref,
    ),
    Release(
        "chatbot_arena",
        "preference",
        "visitors vote on the answers of two anonymous models to their own prompt",
        "lmsys/chatbot_arena_conversations",
        "gated; CC BY 4.0 (prompts), CC BY-NC 4.0 (models' texts); see card",
        f"{_HUB}lmsys/chatbot_arena_conversations",
        "most visitors voted once or twice",
        chatbot_arena,
    ),
    Release(
        "community_alignment",
        "choice",
        "people of five countries choose among four responses made to differ in values",
        "facebook/community-alignment-dataset",
        _SEE_CARD,
        f"{_HUB}facebook/community-alignment-dataset",
        "known by id, with traits; some prompts are shared by many",
        community_alignment,
    ),
    Release(
        "summarize_from_feedback",
        "preference",
        "paid workers compare two summaries of a post or a news article",
        "openai/summarize_from_feedback",
        _SEE_CARD,
        "https://github.com/openai/summarize-from-feedback",
        "a few dozen workers with many comparisons each",
        summarize_from_feedback,
    ),
    Release(
        "global_opinion_qa",
        "soft",
        "shares of the answers of many countries to questions of the World Values Survey and Pew",
        "Anthropic/llm_global_opinions",
        "CC BY-NC-SA 4.0; see card",
        f"{_HUB}Anthropic/llm_global_opinions",
        "none: the country is kept as a trait of the row",
        global_opinion_qa,
    ),
    Release(
        "opinion_qa",
        "choice",
        "answers of single respondents of Pew's American Trends Panel to 15 surveys",
        None,
        "Pew Research Center's terms of use",
        "https://github.com/tatsu-lab/opinions_qa",
        "thousands of people per wave, with twelve traits",
        opinion_qa,
    ),
    Release(
        "popquorn",
        "rating",
        "how offensive a comment or how polite an e-mail is",
        None,
        "none stated",
        "https://github.com/Jiaxin-Pei/Potato-Prolific-Dataset",
        "a sample of the US population, with five traits; content warning",
        popquorn,
    ),
    Release(
        "lewidi",
        "rating",
        "the data sets of Learning With Disagreements: irony, sarcasm, paraphrase, inference, abuse, hate speech",
        None,
        "none stated for the collection; the data sets differ",
        "https://github.com/Le-Wi-Di/le-wi-di.github.io",
        "3 to 872 people, some with traits; answers in words are read as choice",
        lewidi,
    ),
    Release(
        "ukpconvarg1",
        "preference",
        "which of two arguments on the same side of a debate is more convincing",
        None,
        "CC BY 4.0",
        "https://github.com/UKPLab/acl2016-convincing-arguments",
        "3,815 crowd workers, under pseudonyms unless asked otherwise",
        ukpconvarg1,
    ),
    Release(
        "polis",
        "rating",
        "agree, pass and disagree votes on statements of public conversations",
        None,
        "CC BY 4.0 with attribution to The Computational Democracy Project",
        "https://github.com/compdemocracy/openData",
        "participants, with Polis' own opinion group as a trait",
        polis,
    ),
    Release(
        "polarized_issues",
        "rating",
        "what people wrote on campus protests, the right to assemble and foreign intervention, and their votes on it",
        None,
        "CC BY 4.0",
        "https://github.com/akonya/polarized-issues-data",
        "about 310 people a topic, representative of the US in age, gender and politics; pairs by the same people",
        polarized_issues,
    ),
    Release(
        "pandalm",
        "preference",
        "three annotators compare the answers of two small models to 999 instructions",
        None,
        "Apache-2.0",
        "https://github.com/WeOpenML/PandaLM",
        "three people, the same throughout: enough to test ties, too few for clusters",
        pandalm,
    ),
    Release(
        "value_prism",
        "soft",
        "whether a value, right or duty supports or opposes what a situation describes",
        "allenai/ValuePrism",
        "gated; see card",
        f"{_HUB}allenai/ValuePrism",
        "none: labels of a language model",
        value_prism,
    ),
    Release(
        "ultrafeedback",
        "rating",
        "four objectives of the completions of many models, scored by a language model",
        "openbmb/UltraFeedback",
        "MIT; see card",
        f"{_HUB}openbmb/UltraFeedback",
        "four objectives, not people",
        ultrafeedback,
    ),
)
RELEASES: dict[str, Release] = {release.name: release for release in _ENTRIES}
"""Every release that `load_release` reads, by name."""


def load_release(
    name: str,
    source: str | Path | None = None,
    *,
    limit: int | None = None,
    streaming: bool = False,
    **options: Any,
) -> Judgements:
    """Read a published data set as judgements.

    Args:
        name: One of `RELEASES`.
        source: A file or folder with the release as it was published, or an id on the Hub; None for the release's own
            id. On the Hub the split `train` is read, unless the release has an option for it.
        limit: Records of the release (rows, pairs, conversations) to read at most; one may hold several judgements.
            With a limit the Hub is streamed, so that only these records are downloaded.
        streaming: Whether to read the Hub without downloading first.
        options: Options of the release, listed in `RELEASES[name].options` and explained by
            `help(RELEASES[name].read)`, e.g. `kind="rating"`.

    Returns:
        The validated judgements, with the traits of the raters as `rater:<trait>`.

    Raises:
        FileNotFoundError: If the path does not exist.
        JudgementError: If the name or an option is unknown, the Hub cannot be read, a file or a column is missing, or
            rows are at fault.

    Warns:
        JudgementWarning: Number of judgements that were dropped for each reason.

    Example:
        >>> import json, tempfile
        >>> texts = {"instruction": "Greet.", "input": "", "response1": "Hi", "response2": "Hello"}
        >>> votes = [{**texts, "annotator1": 1, "annotator2": 2, "annotator3": 0}] * 2
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     size = (Path(folder) / "testset-v1.json").write_text(json.dumps(votes))
        ...     judgements = load_release("pandalm", source=folder)
        >>> judgements.kind, judgements.raters, judgements.frame["choice"].tolist()
        ('preference', ['annotator1', 'annotator2', 'annotator3'], ['a', 'b', 'tie', 'a', 'b', 'tie'])
    """
    if name not in RELEASES:
        raise JudgementError(
            f"{name!r} is not a release known here.{did_you_mean(name, RELEASES)} Fix: one of {', '.join(RELEASES)}; "
            "for your own data use load_table."
        )
    release = RELEASES[name]
    for option in options:
        if option not in release.options:
            valid = f"it has {', '.join(release.options)}" if release.options else "it has none"
            hint = did_you_mean(option, release.options)
            raise JudgementError(f"{option!r} is not an option of the release {name!r}.{hint} Fix: {valid}.")
    opened = open_source(name, release.hub_id, release.url, source, limit, streaming)
    return release.read(opened, **options).to_judgements(name)
