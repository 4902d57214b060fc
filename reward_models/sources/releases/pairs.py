"""Releases in which people compared two responses: one `preference` judgement per comparison and person.

Every function reads the source of one release with its options and returns its rows. Its docstring states which
columns it assumes. Knows nothing of how files are opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from reward_models.errors import JudgementError
from reward_models.sources.releases.reading import TABLES, Source, files, records
from reward_models.sources.releases.rows import Rows, as_id, as_number, as_records, as_text, check_choice


__all__ = [
    "chatbot_arena",
    "helpsteer3",
    "multipref",
    "pandalm",
    "sided",
    "strengths",
    "summarize_from_feedback",
    "ukpconvarg1",
]

_WINNERS = {"model_a": "a", "model_b": "b", "tie": "tie", "tie (bothbad)": "tie"}
_MULTIPREF = {
    "A-is-clearly-better": "a",
    "A-is-slightly-better": "a",
    "Tie": "tie",
    "B-is-slightly-better": "b",
    "B-is-clearly-better": "b",
}
_ASPECTS = ("overall", "helpful", "truthful", "harmless")


def sided(difference: float) -> str:
    """Return the choice that a difference of scores means, negative for response a.

    Example:
        >>> sided(-2), sided(0.5), sided(0)
        ('a', 'b', 'tie')
    """
    return "a" if difference < 0 else "b" if difference > 0 else "tie"


def strengths(value: Any, field: str) -> list[float | None]:
    """Return the strengths of preference of one pair's annotators, from -3 (a is much better) to 3 (b is much better).

    Example:
        >>> strengths('[{"score": -2}, {"score": null}]', "score")
        [-2.0, None]
    """
    return [as_number(annotation.get(field)) for annotation in as_records(value)]


def chatbot_arena(source: Source) -> Rows:
    """Read Chatbot Arena: votes of visitors (`judge`) on two anonymous models.

    "tie" and "tie (bothbad)" are both a tie. A vote on several turns has no prompt that both responses answer, since
    the models' earlier turns differ, and is dropped. Prompts are lists of messages.

    Args:
        source: Where to read.
    """
    rows = Rows("preference")
    columns = ("judge", "winner", "conversation_a", "conversation_b")
    for number, record in enumerate(records(source, TABLES, columns)):
        both = [as_records(record[f"conversation_{side}"]) for side in "ab"]
        choice = _WINNERS.get(record["winner"])
        if choice is None:
            rows.drop("without a known winner")
        elif any([m["role"] for m in messages] != ["user", "assistant"] for messages in both):
            rows.drop("on more than one turn")
        else:
            prompt = [{"role": "user", "content": both[0][0]["content"]}]
            responses = [messages[1]["content"] for messages in both]
            item = as_id(record.get("question_id")) or str(number)
            rows.add_pair(as_id(record["judge"]), prompt, responses, choice, item_id=item)
    return rows


def helpsteer3(source: Source) -> Rows:
    """Read HelpSteer3-Preference: up to three annotators per pair, in `individual_preference`, `score` from -3 to 3.

    The release does not say which annotators are the same person, so each judgement gets a rater of its own,
    `<pair>/<place>`. Prompts are lists of messages (`context`). Strengths are reduced to their sign; 0 is a tie.

    Args:
        source: Where to read.
    """
    rows = Rows("preference")
    patterns = ("preference/*.jsonl*", "preference/*.parquet", *TABLES)
    columns = ("context", "response1", "response2", "individual_preference")
    for number, record in enumerate(records(source, patterns, columns, name="preference")):
        for place, score in enumerate(strengths(record["individual_preference"], "score")):
            prompt = [{"role": m["role"], "content": m["content"]} for m in as_records(record["context"])]
            responses, choice = (record["response1"], record["response2"]), None if score is None else sided(score)
            rater, item = f"{number}/{place}", str(number)
            rows.add_pair(rater, prompt, responses, choice, item_id=item, missing="without a score")
    return rows


def multipref(source: Source, *, aspect: str = "overall") -> Rows:
    """Read MultiPref: two crowd workers and two experts per pair, by `evaluator`; `rater:pool` is normal or expert.

    Args:
        source: Where to read.
        aspect: `"overall"`, `"helpful"`, `"truthful"` or `"harmless"`.
    """
    check_choice("aspect", aspect, _ASPECTS)
    rows = Rows("preference")
    columns = ("comparison_id", "text", "completion_a", "completion_b", "normal_worker_annotations")
    for record in records(source, TABLES, columns, name="default"):
        for pool in ("normal", "expert"):
            for annotation in as_records(record.get(f"{pool}_worker_annotations")):
                rows.add_pair(
                    as_id(annotation["evaluator"]),
                    as_text(record["text"]),
                    (record["completion_a"], record["completion_b"]),
                    _MULTIPREF.get(str(annotation.get(f"{aspect}_pref"))),
                    item_id=as_id(record["comparison_id"]),
                    traits={"rater:pool": pool},
                    missing="without a preference",
                )
    return rows


def pandalm(source: Source) -> Rows:
    """Read PandaLM's human-annotated test set (`testset-v1.json`): three annotators. 0 is a tie, 1 or 2 is better.

    The prompt is the instruction, followed by the input if there is one.

    Args:
        source: Where to read.
    """
    rows = Rows("preference")
    raters = ("annotator1", "annotator2", "annotator3")
    columns = ("instruction", "input", "response1", "response2", *raters)
    for number, record in enumerate(records(source, ("testset-v1.json",), columns)):
        prompt = "\n\n".join(filter(None, (as_text(record["instruction"]), as_text(record["input"]))))
        for rater in raters:
            choice = {0: "tie", 1: "a", 2: "b"}.get(as_number(record[rater]))  # type: ignore[call-overload]
            responses = record["response1"], record["response2"]
            rows.add_pair(rater, prompt, responses, choice, item_id=str(number), missing="that are not 0, 1 or 2")
    return rows


def summarize_from_feedback(source: Source, *, split: str | None = None) -> Rows:
    """Read OpenAI's comparisons of summaries: which of two summaries of a post or news article a `worker` prefers.

    A local copy is the folder `comparisons/` with its `*.json`. On the Hub the copy that was converted to Parquet is
    read, since the data set itself is a script. The prompt is the title and the post. Pairs have no id: the same two
    summaries of a post are one item, in either order.

    Args:
        source: Where to read.
        split: `"train"`, `"valid1"` or `"valid2"` as in the field `split`; None for all (on the Hub: of its split
            `train`).
    """
    rows = Rows("preference")
    columns = ("info", "summaries", "choice", "worker")
    patterns = ("comparisons/*.json", "*.json", "*.jsonl", "*.parquet")
    for record in records(source, patterns, columns, data_dir="comparisons", revision="refs/convert/parquet"):
        if split is not None and record.get("split") != split:
            continue
        info, summaries = record["info"], as_records(record["summaries"])
        choice = {0: "a", 1: "b"}.get(as_number(record["choice"]))  # type: ignore[call-overload]
        body = as_text(info.get("post")) or as_text(info.get("article"))
        if choice is None or len(summaries) != 2:
            rows.drop("without a choice between two summaries")
            continue
        prompt = "\n\n".join(filter(None, (as_text(info.get("title")), body)))
        rows.add_pair(as_id(record["worker"]), prompt, [summary["text"] for summary in summaries], choice)
    return rows


def ukpconvarg1(source: Source, *, pseudonyms: bool = True) -> Rows:
    """Read UKPConvArg1, the full XML: which of two arguments for one side of a debate convinces more.

    "equal" is a tie. The prompt is the debate and its side. Authors, links and reasons are not read.

    Args:
        source: The folder `UKPConvArg1-full-XML` or one of its files; the limit counts pairs.
        pseudonyms: Whether to replace the workers' ids by w0001, w0002, ... in order of appearance; they are the same
            in every reading that starts with the same file.
    """
    rows, names = Rows("preference"), dict[str, str]()
    for number, pair in enumerate(_argument_pairs(files(source, ("*.xml",)))):
        if number == source.limit:
            break
        arguments = [pair.find("arg1"), pair.find("arg2")]
        debate = as_text(pair.findtext("debateMetaData/title"))
        if debate is None or None in arguments:
            rows.drop("on pairs without a debate or an argument", len(pair.findall(".//mTurkAssignment")))
            continue
        ids, texts, stances = (
            [as_text(a.findtext(field)) for a in arguments if a is not None] for field in ("id", "text", "stance")
        )
        for assignment in pair.iter("mTurkAssignment"):
            worker = as_text(assignment.findtext("turkID"))
            choice = {"a1": "a", "a2": "b", "equal": "tie"}.get(assignment.findtext("value", "").strip())
            if pseudonyms and worker and choice:
                worker = names.setdefault(worker, f"w{len(names) + 1:04d}")
            prompt, item = f"{debate}: {stances[0]}", " ".join(sorted(map(str, ids)))
            rows.add_pair(worker, prompt, texts, choice, item_id=item, missing="without an answer")
    return rows


def _argument_pairs(paths: list[Path]) -> Iterator[ElementTree.Element]:
    for path in paths:
        try:
            for _, element in ElementTree.iterparse(path):
                if element.tag == "annotatedArgumentPair":
                    yield element
                    element.clear()
        except ElementTree.ParseError as error:
            raise JudgementError(f"{path} is not XML: {error}. Fix: check that the download is whole.") from error
