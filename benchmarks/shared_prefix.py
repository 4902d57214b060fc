"""Score all answers of a prompt: the prompt computed once, compared with every prompt-answer pair separately.

Forward passes alone, and forward and backward, for several prompt lengths. The two ways are timed in turns within one
run, so that other load on the machine affects both; the ratio is taken pair by pair, and its median and quartiles are
reported. Also reported: the largest difference of the log-probabilities and the relative difference of the gradients
(both should be rounding).

  python benchmarks/shared_prefix.py --smoke
  python benchmarks/shared_prefix.py --json shared_prefix.json
  python benchmarks/shared_prefix.py --model smollm2-135m --json shared_prefix.json      a real model, if installed
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from _common import add_device, device_of, environment, make_parser, print_table, row, write


__all__ = ["main"]


def make_model(name: str, seed: int) -> Any:
    """A Llama of 6 layers, 256 wide, with random weights; or a model by name."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    from plural_rlhf.policies.base_models import prepare_base_model

    if name != "scaled-tiny":
        return AutoModelForCausalLM.from_pretrained(prepare_base_model(name), dtype="float32").eval()
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=512,
            hidden_size=256,
            intermediate_size=688,
            num_hidden_layers=6,
            num_attention_heads=8,
            num_key_value_heads=4,
            max_position_embeddings=2048,
        )
    ).eval()


def make_batch(prompts: int, answers: int, prompt_tokens: int, answer_tokens: int, seed: int) -> Any:
    import torch

    from plural_rlhf.policies.answers import AnswerBatch

    generator = torch.Generator().manual_seed(seed)

    def tokens(*shape: int) -> list:
        return torch.randint(3, 500, shape, generator=generator).tolist()

    return AnswerBatch.collate(tokens(prompts, prompt_tokens), tokens(prompts, answers, answer_tokens), pad_token_id=0)


def pair_by_pair(model: Any, batch: Any) -> Any:
    """The same log-probabilities `(B, A)`, every pair a row of its own."""
    import torch

    n_prompts, n_answers, n_tokens = batch.answer_ids.shape
    flat = batch.answer_ids.reshape(-1, n_tokens)
    ids = torch.cat([batch.prompt_ids.repeat_interleave(n_answers, dim=0), flat], dim=1)
    # logits_to_keep: the prompt's own logits are not needed here either.
    logits = model(input_ids=ids, use_cache=False, logits_to_keep=n_tokens + 1).logits[:, :-1].float()
    return logits.log_softmax(-1).gather(-1, flat[..., None])[..., 0].sum(-1).view(n_prompts, n_answers)


def gradients(model: Any) -> Any:
    import torch

    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def timed(call: Callable[[], None], wait: Callable[[], None]) -> float:
    wait()
    start = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - start


def measure(model: Any, batch: Any, repeats: int) -> dict[str, Any]:
    """Times `(repeats,)` of both ways, forward and with backward, and how far their results are apart."""
    import torch

    from plural_rlhf.policies.answers import answer_log_probs

    wait = torch.accelerator.synchronize if model.device.type != "cpu" else lambda: None
    ways = {"shared": lambda: answer_log_probs(model, batch), "pairs": lambda: pair_by_pair(model, batch)}

    def forward(way: str) -> None:
        with torch.no_grad():
            ways[way]()

    def backward(way: str) -> None:
        model.zero_grad()
        ways[way]().sum().backward()

    backward("shared")
    shared_gradient = gradients(model)
    backward("pairs")
    pairs_gradient = gradients(model)
    with torch.no_grad():
        difference = float((ways["shared"]() - ways["pairs"]()).abs().max())
    out: dict[str, Any] = {
        "log_prob_difference": difference,
        "gradient_difference": float((shared_gradient - pairs_gradient).norm() / pairs_gradient.norm()),
    }
    for name, step in (("forward", forward), ("forward and backward", backward)):
        seconds: dict[str, list[float]] = {"shared": [], "pairs": []}
        for _ in range(repeats):
            for way, found in seconds.items():
                found.append(timed(partial(step, way), wait))
        out[name] = seconds
    return out


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    import torch
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    dtype = torch.float32 if args.device == "cpu" else torch.bfloat16
    model = make_model(args.model, args.seed).to(device=args.device, dtype=dtype)
    rows, lines = [], []
    for prompt_tokens in args.prompt_tokens:
        batch = make_batch(args.prompts, args.answers, prompt_tokens, args.answer_tokens, args.seed).to(args.device)
        found = measure(model, batch, args.repeats)
        case = f"{args.prompts} x {args.answers} answers, {prompt_tokens}+{args.answer_tokens} tokens"
        # From tokens alone: what the ratio would be if time went with tokens.
        tokens = (
            args.answers * (prompt_tokens + args.answer_tokens) / (prompt_tokens + args.answers * args.answer_tokens)
        )
        line = [case]
        for name in ("forward", "forward and backward"):
            seconds = found[name]
            ratios = [b / a for a, b in zip(seconds["shared"], seconds["pairs"], strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            for way, values in seconds.items():
                rows.append(row(case, way, f"seconds, {name}", statistics.median(values), "s", n=args.repeats))
            rows.append(
                row(case, "pairs / shared", f"ratio, {name}", middle, "ratio", low=low, high=high, n=args.repeats)
            )
            line.append(f"{middle:.2f} [{low:.2f}, {high:.2f}]")
        rows.append(row(case, "pairs / shared", "ratio of tokens", tokens, "ratio"))
        for metric, unit in (("log_prob_difference", "nats"), ("gradient_difference", "relative")):
            rows.append(row(case, "pairs - shared", metric, found[metric], unit))
        lines.append(
            [*line, f"{tokens:.1f}", f"{found['log_prob_difference']:.0e}", f"{found['gradient_difference']:.0e}"]
        )
    header = [
        "case",
        "forward, x faster",
        "with backward, x faster",
        "fewer tokens, x",
        "log p differs",
        "gradient differs",
    ]
    print_table(f"{args.model}: pairs / shared, median and quartiles of {args.repeats} turns", header, lines)
    return rows


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument(
        "--model", default="scaled-tiny", help="scaled-tiny (default), smollm2-135m, a path or a hub id"
    )
    parser.add_argument("--prompts", type=int, default=4, help="prompts per batch (default: 4)")
    parser.add_argument("--answers", type=int, default=8, help="answers per prompt (default: 8)")
    parser.add_argument(
        "--prompt-tokens", type=int, nargs="+", default=[32, 128, 256], help="tokens per prompt (default: 32 128 256)"
    )
    parser.add_argument("--answer-tokens", type=int, default=8, help="tokens per answer (default: 8)")
    add_device(parser)
    parser.add_argument("--repeats", type=int, default=15, help="timed turns of each way (default: 15, at least 2)")
    args = parser.parse_args()
    if args.repeats < 2:
        parser.error(f"--repeats is {args.repeats}, and a spread needs at least 2")
    if args.smoke:
        args.prompts, args.prompt_tokens, args.repeats = 2, [64], 3
    environment()
    args.device = device_of(parser, args.device, known=["cuda"])
    started = time.perf_counter()
    rows = run(args)
    write(args, rows, started, model=args.model, device=args.device, interval="quartiles of the paired ratios")


if __name__ == "__main__":
    main()
