"""Modular Pluralism on the General Social Survey: adapters of three parties against one tuned model of equal tokens.

What the government spends too little on (`gss_spending`, 18 questions): half of the people are held out, and some of
the questions. Each community (Democrats, Independents, Republicans) gets an adapter trained on its people's answers by
`plural_rlhf.recipe.communities`; the single model is one adapter trained on everybody's for as many steps as all
communities together. Compared are JS divergences from held-out people, with paired intervals over people and
questions: of everybody (single model, flat average, average by shares), and of every community (single model, its own
adapter, and the average of the others, which is what it gets where it has no adapter yet: patching).

Models: `small` (40,000 parameters that know the questions' words and nothing of how people answer: before adapters are
trained, it is trained to give every offered answer the same probability), `smollm2` (SmolLM2-135M as it is; about a
second per step on one core).

  python benchmarks/modular.py --smoke
  python benchmarks/modular.py --json modular.json
  python benchmarks/modular.py --model smollm2 --steps 100 --json modular_smollm2.json
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from _common import environment, make_parser, print_table, row, write
from _methods.base import LAYERS, small_base
from _methods.surveys import joined_party


if TYPE_CHECKING:
    from plural_rlhf.methods.modular import CommunityPeople, ModularPolicy
    from reward_models.judgements.records import Judgements
    from reward_models.stats.answers import Interval

__all__ = ["main"]

CASE, TRAIT = "gss_spending", "party"
HELDOUT_QUESTIONS = 4
SINGLE, FLAT, SHARES = "single", "modular-flat", "modular-shares"


def survey(seed: int, people: int) -> tuple[Judgements, Judgements, Judgements]:
    """Answers of training people to training questions; of held-out people to these, and to held-out questions."""
    from reward_models.judgements.records import Judgements
    from reward_models.seeds import seeded_rng
    from reward_models.sources.survey import load_survey

    frame = load_survey(CASE).frame.copy()
    frame[f"rater:{TRAIT}"] = frame[f"rater:{TRAIT}"].map(joined_party)
    table = Judgements.from_frame(frame, kind="choice")
    rng = seeded_rng(seed, "people and questions of the modular benchmark")
    known = table.select(table.frame[f"rater:{TRAIT}"].notna().to_numpy())
    raters = set(rng.permutation(known.raters)[:people].tolist())
    known = known.select(known.frame["rater_id"].isin(raters).to_numpy())
    order = rng.permutation(known.raters).tolist()
    training = known.frame["rater_id"].isin(set(order[: len(order) // 2])).to_numpy()
    heldout = known.frame["item_id"].isin(set(rng.permutation(known.items)[:HELDOUT_QUESTIONS].tolist())).to_numpy()
    return tuple(known.select(rows) for rows in (training & ~heldout, ~training & ~heldout, ~training & heldout))


def _prompts(questions: list[Any]) -> tuple[list[Any], list[Any]]:
    return [question.messages for question in questions], [question.options for question in questions]


def of_interval(interval: Interval, method: str, metric: str, **labels: Any) -> dict[str, Any]:
    """A row of a mean with its interval."""
    ends = {"low": interval.low, "high": interval.high, "n": interval.n_raters}
    return row(CASE, method, metric, interval.value, "nats", **ends) | labels


def rows_of(
    people: CommunityPeople,
    policy: ModularPolicy,
    single: list[np.ndarray],
    questions: list[Any],
    split: str,
    seed: int,
) -> list[dict[str, Any]]:
    """Divergences and paired differences on some questions."""
    from plural_rlhf.methods.modular import EVERYBODY

    prompts, options = [q.messages for q in questions], [q.options for q in questions]
    own = policy.community_probabilities(prompts, options)
    names, shares = list(own), policy.pool.shares
    labels = {"split": split, "seed": seed}

    def mixed(weights: np.ndarray) -> list[np.ndarray]:
        return [weights / weights.sum() @ np.stack(rows) for rows in zip(*own.values(), strict=True)]

    pooled = {SINGLE: single, FLAT: mixed(np.ones(len(names))), SHARES: mixed(shares)}
    rows = [
        of_interval(people.divergence(EVERYBODY, answers), method, "jsd_everybody", **labels)
        for method, answers in pooled.items()
    ]
    for method, rival in ((FLAT, SINGLE), (SHARES, SINGLE), (SHARES, FLAT)):
        gain = people.gain(EVERYBODY, pooled[method], pooled[rival])
        rows.append(of_interval(gain, method, "jsd_less_than", rival=rival, of=EVERYBODY, **labels))
    for k, name in enumerate(names):
        without = mixed(np.where(np.arange(len(names)) == k, 0.0, shares))
        for method, answers in ((SINGLE, single), ("own-adapter", own[name]), ("others", without)):
            rows.append(of_interval(people.divergence(name, answers), method, "jsd_community", of=name, **labels))
            if method != "own-adapter":
                gain = people.gain(name, own[name], answers)
                rows.append(of_interval(gain, "own-adapter", "jsd_less_than", rival=method, of=name, **labels))
        for other in (of for of in names if of != name):  # what patching changes for the others' people
            gain = people.gain(other, pooled[SHARES], without)
            rows.append(of_interval(gain, f"patched-{name}", "jsd_less_than", rival="unpatched", of=other, **labels))
    return rows


def switch_rows(policy: ModularPolicy, questions: list[Any], seed: int) -> list[dict[str, Any]]:
    """Seconds of a switch between adapters beside those of scoring a batch of 12 questions."""
    keys = [community.key for community in policy.pool.communities]
    batch = (questions * 12)[:12]
    prompts, options = [q.messages for q in batch], [q.options for q in batch]
    seconds: dict[str, list[float]] = {"switch": [], "forward": []}
    for turn in range(15):
        start = time.process_time()
        policy.model.set_adapter(keys[turn % len(keys)])
        seconds["switch"].append(time.process_time() - start)
        start = time.process_time()
        policy.community_probabilities(prompts, options)
        seconds["forward"].append((time.process_time() - start) / len(keys))
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    ratio = medians["switch"] / medians["forward"]
    return [row(CASE, "set_adapter", "switch_share_of_forward", ratio, "share", n=15) | {"seed": seed, **medians}]


def run_seed(args: Any, seed: int) -> list[dict[str, Any]]:
    """Train and measure once."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from plural_rlhf.methods.modular import (
        CommunityPeople,
        ModularPolicy,
        answered_texts,
        asked_questions,
        communities_by_trait,
    )
    from plural_rlhf.policies.answers import answer_probabilities
    from plural_rlhf.recipe.communities import train_communities, train_on_answers
    from plural_rlhf.recipe.config import make_config
    from reward_models.stats.answers import normalise

    train, known, unknown = survey(seed, args.people)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        base = args.model if args.model != "small" else small_base(*_prompts(asked_questions(train)), folder / "base")
        settings = {
            "seed": seed,
            "policy": {"model": "smollm2-135m" if base == "smollm2" else base,
                       "lora": {"r": 8, "alpha": 32, "target_modules": LAYERS}},
            "sft": {"steps": args.steps, "learning_rate": args.rate, "texts_per_step": 16},
        }  # fmt: skip
        config = make_config(settings, origin="benchmark")
        communities = communities_by_trait(train, TRAIT)
        pool = train_communities(config, train, communities, folder / "pool")
        everybody = answered_texts(train, [rater for community in communities for rater in community.raters])
        train_on_answers(
            config, everybody, folder / "single", folder / "checkpoints", SINGLE, print, times=len(communities)
        )
        policy = ModularPolicy.from_pretrained(folder / "pool", device="cpu")
        plain = AutoModelForCausalLM.from_pretrained(pool.base, dtype="float32")
        tuned = PeftModel.from_pretrained(plain, folder / "single")
        rows = []
        for split, people in (("training questions", known), ("held-out questions", unknown)):
            questions = asked_questions(people)
            prompts, options = [q.messages for q in questions], [q.options for q in questions]
            single = answer_probabilities(tuned, policy.tokenizer, prompts, options, progress=False)
            there = communities_by_trait(people, TRAIT, fewest=2)
            compared = CommunityPeople.of(people, there, draws=args.draws, seed=seed)
            rows += rows_of(compared, policy, list(map(normalise, single)), questions, split, seed)
        return rows + switch_rows(policy, asked_questions(known), seed)


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--model", choices=("small", "smollm2"), default="small", help="base model (default: small)")
    parser.add_argument("--steps", type=int, default=150, help="steps of each community (default: 150)")
    parser.add_argument("--rate", type=float, help="learning rate (default: 0.01 for small, 5e-4 for smollm2)")
    parser.add_argument("--people", type=int, default=2000, help="people, half of them held out (default: 2000)")
    parser.add_argument("--draws", type=int, default=1000, help="resamples of an interval (default: 1000)")
    parser.add_argument("--seeds", type=int, default=1, help="splits of people and questions (default: 1)")
    args = parser.parse_args()
    if args.smoke:
        args.steps, args.people, args.draws, args.seeds = 3, 300, 50, 1
    args.rate = args.rate or (1e-2 if args.model == "small" else 5e-4)
    environment()
    started = time.perf_counter()
    rows = [r for seed in range(args.seed, args.seed + args.seeds) for r in run_seed(args, seed)]
    lines = [
        [
            str(r.get("split", "")), r["method"], r["metric"], str(r.get("rival", "")), str(r.get("of", "")),
            f"{r['value']:.4f}", f"[{r['ci_low'] or float('nan'):.4f}, {r['ci_high'] or float('nan'):.4f}]",
        ]
        for r in rows
    ]  # fmt: skip
    print_table(CASE, ["split", "method", "metric", "than", "people", "value", "interval"], lines)
    write(args, rows, started, model=args.model, steps=args.steps, people=args.people, rate=args.rate)


if __name__ == "__main__":
    main()
