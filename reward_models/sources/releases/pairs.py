"""Releases in which people compared two responses: one `preference` judgement for each comparison of each person.

Every function takes the source and the options of one release and returns its rows. What is assumed of a release's
columns is said in its docstring. Knows nothing of how files are opened.
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
    """The choice that a difference stands for, negative for response a."""
    return "a" if difference < 0 else "b" if difference > 0 else "tie"


def strengths(value: Any, field: str) -> list[float | None]:
    """Strengths of preference of the annotators of one pair, -3 (a is much better) to 3 (b is much better)."""
    return [as_number(annotation.get(field)) for annotation in as_records(value)]


def chatbot_arena(source: Source) -> Rows:
    """Chatbot Arena: votes of visitors (`judge`) on two anonymous models.

    "tie" and "tie (bothbad)" are both a tie. A vote on several turns has no prompt that both responses answer, since
    the models' earlier turns differ, and is left out. Prompts are lists of messages.
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
            rows.add(
                rater_id=as_id(record["judge"]),
                item_id=as_id(record.get("question_id")) or str(number),
                prompt=[{"role": "user", "content": both[0][0]["content"]}],
                response_a=as_text(both[0][1]["content"]),
                response_b=as_text(both[1][1]["content"]),
                choice=choice,
            )
    return rows


def helpsteer3(source: Source) -> Rows:
    """HelpSteer3-Preference: up to three annotators a pair, in `individual_preference` with a `score` of -3 to 3.

    The release does not say which annotators are the same person, so each judgement is by a rater of its own,
    `<pair>/<place>`: nobody is followed from pair to pair. Prompts are lists of messages (`context`). Strengths are
    reduced to their side, 0 is a tie.
    """
    rows = Rows("preference")
    patterns = ("preference/*.jsonl*", "preference/*.parquet", *TABLES)
    columns = ("context", "response1", "response2", "individual_preference")
    for number, record in enumerate(records(source, patterns, columns, name="preference")):
        for place, score in enumerate(strengths(record["individual_preference"], "score")):
            if score is None:
                rows.drop("without a score")
                continue
            rows.add(
                rater_id=f"{number}/{place}",
                item_id=str(number),
                prompt=[{"role": m["role"], "content": m["content"]} for m in as_records(record["context"])],
                response_a=as_text(record["response1"]),
                response_b=as_text(record["response2"]),
                choice=sided(score),
            )
    return rows


def multipref(source: Source, *, aspect: str = "overall") -> Rows:
    """MultiPref: two crowd workers and two experts a pair, known by `evaluator`; `rater:pool` is normal or expert.

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
                choice = _MULTIPREF.get(str(annotation.get(f"{aspect}_pref")))
                if choice is None:
                    rows.drop("without a preference")
                    continue
                rows.add(
                    rater_id=as_id(annotation["evaluator"]),
                    item_id=as_id(record["comparison_id"]),
                    prompt=as_text(record["text"]),
                    response_a=as_text(record["completion_a"]),
                    response_b=as_text(record["completion_b"]),
                    choice=choice,
                    **{"rater:pool": pool},
                )
    return rows


def pandalm(source: Source) -> Rows:
    """PandaLM's human-annotated test set (`testset-v1.json`): three annotators, 0 a tie, 1 and 2 the better response.

    The prompt is the instruction, followed by the input where there is one.
    """
    rows = Rows("preference")
    raters = ("annotator1", "annotator2", "annotator3")
    columns = ("instruction", "input", "response1", "response2", *raters)
    for number, record in enumerate(records(source, ("testset-v1.json",), columns)):
        prompt = "\n\n".join(filter(None, (as_text(record["instruction"]), as_text(record["input"]))))
        for rater in raters:
            choice = {0: "tie", 1: "a", 2: "b"}.get(as_number(record[rater]))  # type: ignore[call-overload]
            if choice is None:
                rows.drop("that are not 0, 1 or 2")
                continue
            rows.add(
                rater_id=rater,
                item_id=str(number),
                prompt=prompt,
                response_a=as_text(record["response1"]),
                response_b=as_text(record["response2"]),
                choice=choice,
            )
    return rows


def summarize_from_feedback(source: Source, *, split: str | None = None) -> Rows:
    """OpenAI's comparisons of summaries: which of two summaries of a post (or news article) a `worker` prefers.

    A local copy is the folder `comparisons/` with its `*.json`. On the Hub the copy that the Hub has converted
    to Parquet is read, since the data set itself is a script. The prompt is the title and the post. Pairs have no
    id: the same two summaries of a post are one item, whoever judged them in whichever order.

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
        rows.add(
            rater_id=as_id(record["worker"]),
            prompt="\n\n".join(filter(None, (as_text(info.get("title")), body))),
            response_a=as_text(summaries[0]["text"]),
            response_b=as_text(summaries[1]["text"]),
            choice=choice,
        )
    return rows


def ukpconvarg1(source: Source, *, pseudonyms: bool = True) -> Rows:
    """UKPConvArg1, the full XML: which of two arguments for one side of a debate convinces more, "equal" is a tie.

    The prompt is the debate and the side taken. Authors, links and reasons are not read.

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
            if choice is None:
                rows.drop("without an answer")
                continue
            if pseudonyms and worker:
                worker = names.setdefault(worker, f"w{len(names) + 1:04d}")
            rows.add(
                rater_id=worker,
                item_id=" ".join(sorted(map(str, ids))),
                prompt=f"{debate}: {stances[0]}",
                response_a=texts[0],
                response_b=texts[1],
                choice=choice,
            )
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
