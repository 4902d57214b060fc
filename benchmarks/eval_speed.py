"""How much faster are offered answers scored with their prompt computed once?

Each question of a task is scored in two ways with the same model: as an evaluation suite does it, the prompt once for
all its answers, and every answer as a sequence of its own, sorted by length, in batches of 16 sequences. The two take
turns within one run, after a warm-up, and must give the same numbers. One more row asks for kept answers. On a CPU,
time is processor time, which does not depend on what else runs.

  python benchmarks/eval_speed.py --smoke
  python benchmarks/eval_speed.py --json eval_speed.json
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from _common import environment, interval, make_parser, print_table, row, write


__all__ = ["main", "measure"]

SEQUENCES = 16
"""Sequences of a pass, where each answer is its own."""


def one_by_one(model: Any, requests: list[Any]) -> list[Any]:
    """Score every answer as a sequence of its own."""
    import numpy as np
    import torch

    from plural_rlhf.policies.answers import AnswerBatch
    from plural_rlhf.policies.log_probs import completion_log_probs
    from reward_models.inference import evaluating

    rows = [
        (number, place, model._prompt_ids(request.prompt), model._output_ids(option, request.prompt))
        for number, request in enumerate(requests)
        for place, option in enumerate(request.options)
    ]
    rows.sort(key=lambda one: -len(one[2]) - len(one[3]))
    out = [np.zeros(len(request.options)) for request in requests]
    with evaluating(model.model), torch.no_grad():
        for start in range(0, len(rows), SEQUENCES):
            part = rows[start : start + SEQUENCES]
            batch = AnswerBatch.collate([one[2] for one in part], [[one[3]] for one in part], model._padding)
            tensors = {
                "prompt_ids": batch.prompt_ids,
                "prompt_mask": batch.prompt_mask,
                "completion_ids": batch.answer_ids[:, 0],
                "completion_mask": batch.answer_mask[:, 0],
            }
            scores = completion_log_probs(model.model, tensors, share=False).sum(-1).tolist()
            for (number, place, *_), score in zip(part, scores, strict=True):
                out[number][place] = score
    return out


def measure(model: Any, tasks: list[Any], repeats: int) -> list[dict[str, Any]]:
    """Time both ways on every task, and give their rows.

    Args:
        model: The model (`CausalLM`).
        tasks: Loaded tasks with offered answers.
        repeats: Timings of each way.
    """
    import numpy as np

    from plural_rlhf.suites import Context, OptionQuestion
    from plural_rlhf.suites.engine.answers import AnswerStore
    from plural_rlhf.suites.tasks.questions import option_request

    clock = time.process_time if model.model.device.type == "cpu" else time.perf_counter
    rows = []
    for loaded in tasks:
        questions = [OptionQuestion(item.text, item.options, listed=item.listed) for item in loaded.items]
        requests = [option_request(question) for question in questions]
        answers = sum(len(request.options) for request in requests)
        name, ways = (
            loaded.task.name,
            {"prompt once": model.option_log_probs, "one by one": lambda r: one_by_one(model, r)},
        )
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        scores = {way: score(requests[:SEQUENCES]) for way, score in ways.items()}  # a warm-up, and a check
        gap = max(np.abs(a - b).max() for a, b in zip(*scores.values(), strict=True))
        for _ in range(repeats):
            for way, score in ways.items():
                begun = clock()
                score(requests)
                seconds[way].append(clock() - begun)
        for way in ways:
            mean, low, high = interval([answers / t for t in seconds[way]])
            rows.append(row(name, way, "throughput", mean, "answers/s", low=low, high=high, n=repeats))
        ratios = [slow / fast for fast, slow in zip(seconds["prompt once"], seconds["one by one"], strict=True)]
        mean, low, high = interval(ratios)
        more = {"answers": answers, "questions": len(requests), "largest_gap_nats": float(gap)}
        rows.append(row(name, "prompt once", "speedup", mean, "times", low=low, high=high, n=repeats, **more))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "answers.jsonl"
            Context(model, store=AnswerStore(path)).option_answers(questions)
            begun = clock()
            Context(model, store=AnswerStore(path)).option_answers(questions)
            kept = answers / (clock() - begun)
        rows.append(row(name, "kept answers", "throughput", kept, "answers/s"))
    return rows


def main() -> None:
    """Measure, print, write."""
    environment()
    parser = make_parser(__doc__ or "")
    parser.add_argument("--model", default="smollm2-135m", help="folder, hub id, smollm2-135m or tiny")
    parser.add_argument("--tasks", nargs="+", default=["urn"], help="tasks with offered answers")
    parser.add_argument("--items", type=int, default=96, help="questions per task (default: 96)")
    parser.add_argument("--repeats", type=int, default=5, help="timings of each way (default: 5)")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the shared data")
    args = parser.parse_args()
    started = time.perf_counter()
    from plural_rlhf.suites import load_causal_lm, make_tasks
    from plural_rlhf.suites.run import load_tasks

    items, repeats, name = (16, 2, "tiny") if args.smoke else (args.items, args.repeats, args.model)
    tasks, skipped = load_tasks(make_tasks(args.tasks), args.data, max_items=items, seed=args.seed)
    for one in skipped:
        print(f"Without {one.task}: {one.reason}")
    rows = measure(load_causal_lm(name), tasks, repeats)
    write(args, rows, started, model=name)
    lines = [
        [r["case"], r["method"], r["metric"], f"{r['value']:.1f} [{r['ci_low']:.1f}, {r['ci_high']:.1f}] {r['unit']}"]
        for r in rows
    ]
    print_table("Scoring offered answers", ["task", "way", "", ""], lines)


if __name__ == "__main__":
    main()
