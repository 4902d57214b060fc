"""The task of free text on people's real answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from plural_rlhf.suites import EvaluatedModel, TaskData, run_tasks
from plural_rlhf.suites.tasks.free_text import FREE_TEXT, FreeTextTask, polarized_questions


SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


@pytest.mark.skipif(not SHARED.exists(), reason="the folder ../shared/data is not there")
def test_people_cover_more_of_people_than_one_sentence_does():
    questions = {item.text: item.people for item in polarized_questions(TaskData(SHARED))}
    assert len(questions) == 10
    assert sum(len(people) for people in questions.values()) == 2752

    class People(EvaluatedModel):
        name, identity, kind = "people", "people", "callable"

        def sample(self, prompts, n, **settings):
            return [list(questions[prompt.split("\nAnswer in one")[0]][-n:]) for prompt in prompts]

    class OneSentence(People):
        name = identity = "one sentence"

        def sample(self, prompts, n, **settings):
            return [["Everyone should be able to protest peacefully."] * n for _ in prompts]

    whole = FREE_TEXT["free-text-polarized"]
    task = FreeTextTask(whole.name, whole.source, whole.licence, whole.title, whole.questions, lambda: None, n=12)
    suite = run_tasks([People(), OneSentence()], [task], data=SHARED, max_items=5, draws=50)
    rows = {f.model: {row.metric: row.value for row in f.result.rows} for f in suite.findings}
    assert rows["people"]["human_classes_covered"] > rows["one sentence"]["human_classes_covered"]
    assert rows["people"]["effective_classes"] > 4 > rows["one sentence"]["effective_classes"]
