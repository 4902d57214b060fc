"""How much of the target can n scored completions teach? Why a policy on free text learns as fast as it does.

The target is pi_0 exp(S) / Z, S the log-ratio that the jury's rewards imply. A policy that learnt the function f of
texts, scaled as well as can be, leaves 1 - corr(f, S)^2 of the divergence between pi_0 and the target (to second
order), so the correlation on texts that nobody learnt from says how far n completions can lead. Texts are drawn from
pi_0 of a run of `open_ended.py`, some to learn from, others to be told about. Learners:

  first step   the direction of the first step of a policy gradient on all n texts: f = J J_n' S
  lora         the best linear direction of the adapter: kernel ridge regression on the gradients of log pi(text), with
               the best of nine strengths (so the figure flatters)
  hidden       ridge regression on the mean hidden state of a text, not a policy: what pi_0 itself knows of the jury

  python benchmarks/learning_limits.py --smoke
  python benchmarks/learning_limits.py --model small --json learning_limits_small.json
  python benchmarks/learning_limits.py --json learning_limits.json     (SmolLM2, an hour on one core)
  python benchmarks/learning_limits.py --run runs/open_ended --json learning_limits.json     (your own run)
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _collapse.runs import add_parts, parts
from _common import environment, make_parser, print_table, row, write
from _jury.cases import DATA, Unavailable
from _open_ended.runs import MODELS, Runs


if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

__all__ = ["correlation", "main", "predictions"]

TOPIC = "campus-protests"
BETA = 0.5
RANK = 4
STRENGTHS = (100.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.001)
"""Ridge strengths that are tried, as multiples of the kernel's mean diagonal."""


@dataclass(frozen=True)
class Texts:
    """Texts of pi_0, `N` in all.

    Attributes:
        kernel: `(N, N)` inner products of the gradients of log pi by the adapter.
        hidden: `(N, H)` mean hidden states.
        target: `(N,)` S, nats.
        prompt: `(N,)` which prompt.
        learnt: `(N,)` whether it may be learnt from.
    """

    kernel: np.ndarray
    hidden: np.ndarray
    target: np.ndarray
    prompt: np.ndarray
    learnt: np.ndarray


def predictions(kernel: np.ndarray, target: np.ndarray, learn: np.ndarray, strength: float | None) -> np.ndarray:
    """Return f of all texts, `(N,)`: kernel ridge regression, or for `strength=None` the first gradient step.

    Args:
        kernel: `(N, N)`, centred.
        target: `(N,)`, centred.
        learn: Places of the texts that are learnt from.
        strength: Multiple of the kernel's mean diagonal.
    """
    import numpy as np

    inside, y = kernel[np.ix_(learn, learn)], target[learn]
    if strength is None:
        return kernel[:, learn] @ y
    ridge = strength * np.trace(inside) / len(learn) * np.eye(len(learn))
    return kernel[:, learn] @ np.linalg.solve(inside + ridge, y)


def centred(texts: Texts, kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return kernel and target less their means over the texts of a prompt that may be learnt from."""
    import numpy as np

    target = texts.target.copy()
    map_ = np.eye(len(target))
    for prompt in np.unique(texts.prompt):
        of = np.flatnonzero(texts.prompt == prompt)
        base = of[texts.learnt[of]]
        target[of] -= texts.target[base].mean()
        map_[np.ix_(of, base)] -= 1 / len(base)
    return map_ @ kernel @ map_.T, target


def correlation(f: np.ndarray, target: np.ndarray, prompt: np.ndarray, seed: int) -> tuple[float, float, float]:
    """Return the correlation within prompts and its 95 % interval over texts (bootstrap)."""
    import numpy as np

    from reward_models.seeds import seeded_rng
    from reward_models.stats.resampling import resampled_interval

    def within(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
        values = values.copy()
        for group in np.unique(groups):
            values[groups == group] -= values[groups == group].mean()
        return values

    def of(rows: np.ndarray) -> float:
        return float(np.corrcoef(within(f[rows], prompt[rows]), within(target[rows], prompt[rows]))[0, 1])

    rng = seeded_rng(seed, "learning limits")
    low, high = resampled_interval(of, len(f), rng)
    value = of(np.arange(len(f)))
    return value, min(low, value), max(high, value)


def texts_of(folder: Path, beta: float, learn: int, tell: int, seed: int) -> Texts:
    """Draw texts of a run's pi_0, score them and take the gradients of their log-probabilities.

    Args:
        folder: A run with a jury and a pi_0.
        beta: Temperature of the target, logits.
        learn: Texts per prompt to learn from.
        tell: Texts per prompt to be told about.
        seed: Of the new adapter.
    """
    import numpy as np
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from tqdm.auto import tqdm

    from plural_rlhf.core.targets import pool_reward
    from plural_rlhf.evaluation.open_ended.divergences import reference_log_z
    from plural_rlhf.policies.answers import encode_prompt
    from plural_rlhf.recipe import load_config
    from plural_rlhf.recipe.data import read_data
    from plural_rlhf.recipe.open_ended.prompts import run_prompts, training_prompts
    from plural_rlhf.recipe.open_ended.samples import draw_from_pi_0
    from plural_rlhf.recipe.scorers.choose import read_scorer
    from plural_rlhf.recipe.trainings import load_base
    from plural_rlhf.report.names import EVERYBODY, Method
    from reward_models.jury.protocol import scorable_text

    config = load_config(folder / "config.json")
    scorer = read_scorer(config, folder)
    prompts = training_prompts(run_prompts(config, read_data(config)))
    weights = {EVERYBODY: np.asarray(scorer.prevalence)}
    samples = draw_from_pi_0(
        config, folder / Method.WARM, scorer, prompts, weights, learn + tell, "limits of learning"
    )
    base, tokenizer = load_base(config)
    torch.manual_seed(seed)
    model = PeftModel.from_pretrained(base, folder / Method.WARM).merge_and_unload()
    lora = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=config.policy.lora.target_modules)
    policy = get_peft_model(model, lora).eval()
    for name, parameter in policy.named_parameters():
        parameter.requires_grad_("lora_B" in name)  # at the start, B is zero and A has no gradient
    moved = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    gradients, hidden, target, of_prompt, learnt = [], [], [], [], []
    bar = tqdm(total=len(samples), desc="Gradients of texts")
    for number, prompt in enumerate(prompts):
        of = [sample for sample in samples if sample.prompt == prompt.wording]
        said = [scorable_text(sample.text) for sample in of]
        rewards = scorer.cluster_rewards([prompt.messages] * len(of), said).double().cpu()
        log_z = torch.from_numpy(reference_log_z(rewards.numpy(), beta))
        target += (pool_reward(rewards, scorer.prevalence, log_z, beta, rho=1.0) / beta).tolist()
        shown = encode_prompt(prompt.messages, tokenizer)
        for place, sample in enumerate(of):
            ids = tokenizer(sample.text, add_special_tokens=False)["input_ids"]
            ids += [tokenizer.eos_token_id] if sample.ended or not ids else []
            row_ids = torch.tensor([shown + ids])
            out = policy(row_ids, output_hidden_states=True)
            log_probs = out.logits[0, len(shown) - 1 : -1].log_softmax(dim=-1)
            policy.zero_grad()
            log_probs.gather(1, row_ids[0, len(shown) :, None]).sum().backward()
            gradients.append(torch.cat([parameter.grad.flatten() for parameter in moved]).half())
            hidden.append(out.hidden_states[-1][0, len(shown) :].detach().mean(dim=0).numpy())
            of_prompt.append(number)
            learnt.append(place < learn)
            bar.update()
    bar.close()
    rows = torch.stack(gradients)
    kernel = np.concatenate(
        [(rows[first : first + 64].float() @ rows.T.float()).numpy() for first in range(0, len(rows), 64)]
    )
    states = np.stack(hidden)
    return Texts(
        kernel.astype(float),
        (states - states.mean(axis=0)) / (states.std(axis=0) + 1e-9),
        np.array(target),
        np.array(of_prompt),
        np.array(learnt),
    )


def measured(texts: Texts, sizes: Sequence[int], seed: int) -> list[dict[str, Any]]:
    """Rows of all learners at all numbers of completions."""
    import numpy as np

    from reward_models.seeds import seeded_rng

    told = ~texts.learnt
    may = seeded_rng(seed, "texts to learn from").permutation(np.flatnonzero(texts.learnt))
    rows = []
    for n in sizes:
        learn = may[:n]
        for learner, given, strengths in (
            ("first step", texts.kernel, (None,)),
            ("lora", texts.kernel, STRENGTHS),
            ("hidden", texts.hidden @ texts.hidden.T, STRENGTHS),
        ):
            kernel, target = centred(texts, given)
            fits = [predictions(kernel, target, learn, strength) for strength in strengths]
            found = [correlation(f[told], target[told], texts.prompt[told], seed) for f in fits]
            value, low, high = max(found)
            rows.append(row(TOPIC, learner, "correlation", value, "", low=low, high=high, n=n))
            left = 1 - max(value, 0.0) ** 2
            rows.append(row(TOPIC, learner, "kl_left", left, "share of pi_0's", n=n))
    return rows


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--model", choices=MODELS, default="smollm2", help="the policy (default: smollm2)")
    parser.add_argument("--run", type=Path, metavar="FOLDER", help="a run of plural-rlhf whose policies write")
    parser.add_argument("--beta", type=float, default=BETA, help=f"temperature of the target (default: {BETA})")
    parser.add_argument("--learn", type=int, default=160, help="texts per prompt to learn from (default: 160)")
    parser.add_argument("--tell", type=int, default=100, help="texts per prompt to be told about (default: 100)")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with polarized/")
    add_parts(parser)
    args: argparse.Namespace = parser.parse_args()
    if args.smoke:
        args.model, args.learn, args.tell = "tiny", 8, 8
    environment()
    started = time.perf_counter()
    with parts(args) as folder:
        try:
            start = args.run or Runs(folder, args.data, TOPIC, MODELS[args.model], args.beta).start(args.seed)
            texts = texts_of(start, args.beta, args.learn, args.tell, args.seed)
        except (Unavailable, ImportError) as reason:
            print(f"{TOPIC} skipped: {reason}")
            rows = [row(TOPIC, "all", "skipped", math.nan, "", n=0, skipped=str(reason))]
        else:
            there = int(texts.learnt.sum())
            rows = measured(texts, sorted({there // 4, there // 2, there}), args.seed)
            cells = [[r["method"], str(r["n"]), f"{r['value']:.2f}"] for r in rows if r["metric"] == "correlation"]
            print_table("Correlation with the target on other texts", ["learner", "completions", "correlation"], cells)
    write(args, rows, started, run=str(args.run or TOPIC), model=args.model, beta=args.beta, rank=RANK)


if __name__ == "__main__":
    main()
