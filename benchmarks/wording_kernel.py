"""How the wording of questions affects how easily a policy learns to distinguish them.

For each wording of the spending questions: the gradient of log p(first answer) - log p(last answer) with respect to a
fresh LoRA adapter, question by question. The common part of the gradients moves all answers at once; only the
differences can teach one question alone. Reported: the variance of the gradients between questions, relative to the
square of their mean (the centred trace of the tangent kernel over its mean; Jacot et al. 2018). A larger number means
that fewer steps are needed to distinguish questions.

  python benchmarks/wording_kernel.py --smoke
  python benchmarks/wording_kernel.py --model smollm2-135m --json wording.json
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from _common import environment, make_parser, print_table, row, write


__all__ = ["main"]

SYSTEM = "Answer as a member of the public."
LIST = "Answer with one of: too little; about right; too much."
LONG = "Is the United States spending too little, about the right amount, or too much on {topic}?"
WORDINGS = {
    "answers listed first": LIST + "\n" + LONG,
    "answers listed last": LONG + "\n" + LIST,
    "one sentence": "US spending on {topic}: too little, about right, or too much?",
    "short (ours)": "How is spending on {topic}? too little; about right; too much?",
}
TOPICS = (
    "space exploration",
    "protecting the environment",
    "the nation's health",
    "stopping crime",
    "education",
    "foreign aid",
    "mass transportation",
    "welfare",
)
ANSWERS = ("too little", "about right", "too much")


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    environment()
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from plural_rlhf.policies.answers import AnswerBatch, answer_log_probs, encode_answers, encode_prompt
    from plural_rlhf.policies.base_models import prepare_base_model

    path = prepare_base_model(args.model)
    tokenizer = AutoTokenizer.from_pretrained(path)
    torch.manual_seed(args.seed)
    base = AutoModelForCausalLM.from_pretrained(path, dtype="float32")
    model = get_peft_model(base, LoraConfig(r=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    # The other half of a fresh adapter has no gradient: it is multiplied by these zeros.
    trained = [p for name, p in model.named_parameters() if "lora_B" in name]
    answers = encode_answers(ANSWERS, tokenizer, tokenizer.eos_token_id)
    rows, lines = [], []
    for name, wording in WORDINGS.items():
        gradients = []
        for topic in TOPICS:
            question = {"role": "user", "content": wording.format(topic=topic)}
            prompt = encode_prompt([{"role": "system", "content": SYSTEM}, question], tokenizer)
            scores = answer_log_probs(model, AnswerBatch.collate([prompt], [answers], tokenizer.pad_token_id))[0]
            parts = torch.autograd.grad(scores[0] - scores[-1], trained)
            gradients.append(torch.cat([part.flatten() for part in parts]))
        stacked = torch.stack(gradients).double()
        mean = stacked.mean(dim=0)
        value = float((stacked - mean).square().sum(dim=1).mean() / mean.square().sum())
        rows.append(row("wording", name, "between_questions", value, "x mean squared", n=len(TOPICS)))
        lines.append([name, f"{value:.3f}", str(len(prompt))])
    print_table(f"{args.model}, {len(TOPICS)} questions", ["wording", "between / mean squared", "tokens"], lines)
    return rows


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--model", help="smollm2-135m (default), tiny (default of --smoke), or a path or hub id")
    args = parser.parse_args()
    args.model = args.model or ("tiny" if args.smoke else "smollm2-135m")
    started = time.perf_counter()
    write(args, run(args), started)


if __name__ == "__main__":
    main()
