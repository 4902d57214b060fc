"""How much faster are offered answers scored with their prompt computed once?

Each question of a task is scored in two ways with the same model: as an evaluation suite does it, the prompt once for
all its answers, and every answer as a sequence of its own, sorted by length, in batches of 16 sequences. The two take
turns within one run, after a warm-up, and must give the same numbers. One more row asks for kept answers. On a CPU,
time is processor time, which does not depend on what else runs.

With --plain prompts go without a chat template, as lm-evaluation-harness puts them; where it is installed
(`pip install lm-eval`) it scores the same answers to the same prompts in turns with the others.

  python benchmarks/eval_speed.py --smoke
  python benchmarks/eval_speed.py --json eval_speed.json
  python benchmarks/eval_speed.py --plain --json eval_speed.json
"""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Callable
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


def harness(model: Any) -> Callable[[list[Any]], list[Any]] | None:
    """Return how lm-evaluation-harness scores the answers of requests with the same weights; None without it."""
    if importlib.util.find_spec("lm_eval") is None:
        return None
    import numpy as np
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    language_model = HFLM(pretrained=model.model, tokenizer=model.tokenizer, batch_size=SEQUENCES)

    def score(requests: list[Any]) -> list[Any]:
        pairs = [(request.prompt, f" {option}\n") for request in requests for option in request.options]
        instances = [Instance("loglikelihood", {}, pair, place) for place, pair in enumerate(pairs)]
        values = iter(language_model.loglikelihood(instances, disable_tqdm=True))
        return [np.array([next(values)[0] for _ in request.options]) for request in requests]

    return score


def measure(model: Any, tasks: list[Any], repeats: int) -> list[dict[str, Any]]:
    """Time all ways on every task, and give their rows.

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
    by_harness = None if model.chat else harness(model)
    rows = []
    for loaded in tasks:
        questions = [OptionQuestion(item.text, item.options, listed=item.listed) for item in loaded.items]
        requests = [option_request(question) for question in questions]
        answers = sum(len(request.options) for request in requests)
        name = loaded.task.name
        ways = {"prompt once": model.option_log_probs, "one by one": lambda r: one_by_one(model, r)}
        if by_harness is not None:
            ways["lm-eval"] = by_harness
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        scores = {way: score(requests[:SEQUENCES]) for way, score in ways.items()}  # a warm-up, and a check
        ours = scores["prompt once"]
        gap = max(np.abs(a - b).max() for way in ways for a, b in zip(ours, scores[way], strict=True))
        for _ in range(repeats):
            for way, score in ways.items():
                begun = clock()
                score(requests)
                seconds[way].append(clock() - begun)
        for way in ways:
            mean, low, high = interval([answers / t for t in seconds[way]])
            rows.append(row(name, way, "throughput", mean, "answers/s", low=low, high=high, n=repeats))
        more = {"answers": answers, "questions": len(requests), "largest_gap_nats": float(gap)}
        for way in list(ways)[1:]:
            ratios = [slow / fast for fast, slow in zip(seconds["prompt once"], seconds[way], strict=True)]
            mean, low, high = interval(ratios)
            metric = f"speedup over {way}"
            rows.append(row(name, "prompt once", metric, mean, "times", low=low, high=high, n=repeats, **more))
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
    parser.add_argument("--plain", action="store_true", help="prompts without the chat template of the model")
    args = parser.parse_args()
    started = time.perf_counter()
    from plural_rlhf.suites import load_causal_lm, make_tasks
    from plural_rlhf.suites.run import load_tasks

    items, repeats, name = (16, 2, "tiny") if args.smoke else (args.items, args.repeats, args.model)
    tasks, skipped = load_tasks(make_tasks(args.tasks), args.data, max_items=items, seed=args.seed)
    for one in skipped:
        print(f"Without {one.task}: {one.reason}")
    rows = measure(load_causal_lm(name, chat=False if args.plain else None), tasks, repeats)
    write(args, rows, started, model=name)
    lines = [
        [r["case"], r["method"], r["metric"], f"{r['value']:.1f} [{r['ci_low']:.1f}, {r['ci_high']:.1f}] {r['unit']}"]
        for r in rows
    ]
    print_table("Scoring offered answers", ["task", "way", "", ""], lines)


if __name__ == "__main__":
    main()
