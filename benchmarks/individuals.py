"""Steering to individuals: does a model predict a person better after six of the person's own judgements?

A small Llama that is trained here (about 170,000 parameters; every question is one token to it) reads 0, 2 or 6
judgements of a person in the form of Spectrum Tuning and predicts another. Tuned on people of other tables (meta), on
training people of the table, or both. Beside it on the same judgements: the item marginal, the person's own answers so
far, the posterior of a jury, and model and jury combined. The control reads the judgements of exchanged people.

All predictions are normalised over the options; the loss is in nats per judgement. Half of the people train, a fifth
tunes (number of steps, number of clusters, exponents), the others are scored. Texts of polarized votes are told apart
by 16 kinds (k-means of MiniLM vectors), for every method alike.

  python benchmarks/individuals.py --smoke
  python benchmarks/individuals.py --json individuals.json --data ../shared/data     about fifteen minutes on one core
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _common import make_parser, print_table, row, write

from plural_rlhf.methods.individuals import PeopleSplit, ReadingComparison, Targets


__all__ = ["main"]

BOTH = ("model", "jury")

TABLES = ("gss_abortion", "verbagg", "votes")
MODELS = ("meta", "data set", "meta + data set")
READ = (0, 2, 6)
KINDS = 16
CLUSTERS = (2, 3, 4, 6)
MOST_TARGETS = 6
META_PEOPLE = 500
DESCRIPTION = "One person answers."


def load_people(name: str, args: argparse.Namespace) -> list[Any]:
    """The people of a table, each with all answers in random order."""
    from plural_rlhf.evaluation.in_context.sequences import judgement_sequences
    from reward_models.errors import JudgementWarning
    from reward_models.sources import load_survey

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", JudgementWarning)
        if name == "votes":
            return load_votes(args)
        judgements = load_survey(name, year=2018 if name == "gss_abortion" else None)
        return judgement_sequences(
            judgements, description=DESCRIPTION, most_people=args.max_raters, length=args.length.get(name)
        )


def load_votes(args: argparse.Namespace) -> list[Any]:
    """Votes on answers of others about campus protests; the answers are told apart by their kind alone."""
    import dataclasses

    from sklearn.cluster import KMeans

    from plural_rlhf.evaluation.open_ended.embedder import text_embedder
    from plural_rlhf.evaluation.tables.dialogues import vote_sequences
    from reward_models.jury.backbones.loading import minilm_folder

    folder = Path(args.data) / "polarized"
    answers, votes = (folder / f"campus-protests-{part}.parquet" for part in ("answers", "votes"))
    people = vote_sequences(answers, votes, most_people=args.max_raters)
    texts = sorted({example.input for person in people for example in person.examples})
    vectors = text_embedder(str(minilm_folder()))(texts)
    kind = dict(zip(texts, KMeans(KINDS, n_init=4, random_state=0).fit_predict(vectors), strict=True))
    return [
        dataclasses.replace(
            person,
            examples=tuple(
                dataclasses.replace(e, input=f"text of kind {kind[e.input]}", question=f"kind {kind[e.input]}")
                for e in person.examples
            ),
        )
        for person in people
    ]


def symbol_tokenizer(people: Sequence[Any]) -> Any:
    """A tokenizer to which every question, answer and description is one token."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    texts = {text for person in people for e in person.examples for text in (e.input, *e.options)}
    texts |= {person.description for person in people}
    words = ["<|im_start|>", "<|im_end|>", "\n", "?", "description\n", "input\n", "output\n", *sorted(texts)]
    core = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="?"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|im_end|>", unk_token="?"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    return tokenizer


class Model:
    """A small Llama and how it is tuned."""

    def __init__(self, tokenizer: Any, args: argparse.Namespace) -> None:
        from plural_rlhf.methods.spectrum import template_for
        from plural_rlhf.policies.base_models import tiny_causal_lm

        self.tokenizer, self.args = tokenizer, args
        self.template = template_for(tokenizer, "chatml")
        self.model = tiny_causal_lm(tokenizer, hidden_size=64, intermediate_size=128, num_hidden_layers=3)

    def shares(self, people: Sequence[Any], read: Sequence[Sequence[int]], targets: Sequence[int]) -> list[np.ndarray]:
        from plural_rlhf.methods.individuals import individual_shares

        return individual_shares(
            self.model, self.tokenizer, people, read, targets, self.template, batch_size=64, progress=False
        )

    def tune(self, people: Sequence[Any], steps: int, tuning: Targets | None) -> int:
        """Train in rounds; keep the round with the least loss on tuning people. Returns the steps that were kept."""
        from plural_rlhf.methods.individuals import tune_to_individuals
        from plural_rlhf.methods.spectrum import SpectrumConfig

        best, kept, state = np.inf, 0, None
        rounds = max(steps // self.args.round, 1)
        for number in range(rounds):
            with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
                settings = SpectrumConfig(
                    folder,
                    learning_rate=2e-3 * (1 - 0.9 * number / rounds),
                    lr_scheduler_type="constant",
                    per_device_train_batch_size=8,
                    max_steps=min(self.args.round, steps),
                    weight_decay=0.05,
                    use_cpu=True,
                    bf16=False,
                    report_to="none",
                    disable_tqdm=True,
                    save_strategy="no",
                    logging_strategy="no",
                    seed=self.args.seed + number,
                )
                self.model = tune_to_individuals(self.model, self.tokenizer, settings, people)
            if tuning is None:
                continue
            loss = tuning.nats(tuning.predicted(self.shares, tuning.read(6))).mean()
            if loss < best:
                best, kept = loss, (number + 1) * self.args.round
                state = {name: value.clone() for name, value in self.model.state_dict().items()}
        if state is not None:
            self.model.load_state_dict(state)
        return kept


def one_table(name: str, parts: dict[str, PeopleSplit], tokenizer: Any, args: argparse.Namespace) -> list[Any]:
    """All methods on one table."""
    from plural_rlhf.methods.individuals import compare_readers

    split = parts[name]
    first = 6 if name == "gss_abortion" else 12
    start = time.perf_counter()
    others = [p for other, of in parts.items() if other != name for p in [*of.train, *of.tune][:META_PEOPLE]]
    models, kept = {}, {}
    for label, meta, own in (("meta", True, False), ("data set", False, True), ("meta + data set", True, True)):
        if label not in args.models:
            continue
        model = Model(tokenizer, args)
        if label == "meta + data set" and "meta" in models:
            model.model.load_state_dict(models["meta"].model.state_dict())
        elif meta:
            model.tune(others, args.meta_steps, None)
        kept[label] = model.tune(split.train, args.steps, Targets.of(split.tune, first, MOST_TARGETS)) if own else 0
        models[label] = model
        print(f"  {name}: {label} tuned, {time.perf_counter() - start:.0f} s", flush=True)
    settings = {"first": first, "clusters": CLUSTERS, "most_targets": MOST_TARGETS, "seed": args.seed}
    predictors = {label: model.shares for label, model in models.items()}
    found = compare_readers(split, predictors, read=READ, **settings)
    spent = {
        "seconds": time.perf_counter() - start,
        "n_train": len(split.train),
        "clusters": found.clusters,
        "steps": kept[MODELS[-1]],
        **{f"exponent_{who}_{n}": e for n, of in found.exponents.items() for who, e in zip(BOTH, of, strict=True)},
    }
    rows = comparison_rows(name, found, spent)
    if first > 6:
        best = {MODELS[-1]: models[MODELS[-1]].shares}
        chosen = compare_readers(split, best, read=READ[-1:], choose="informative", **settings)
        rows += comparison_rows(name, chosen, spent | {"demonstrations": "informative"})
    return rows


def comparison_rows(name: str, found: ReadingComparison, spent: dict[str, Any]) -> list[Any]:
    """Losses and paired differences, people resampled."""
    named = [(f"{x.predictor}, {x.read} read", "nll", x) for x in found.numbers()]
    named += [
        (f"{x.predictor}, {x.read} read - {x.other}, {x.other_read} read", "nll_difference", x)
        for x in found.differences(MODELS[-1])
    ]
    n = len(found.people)
    rows = [
        row(name, method, metric, x.value, "nats per judgement", low=x.low, high=x.high, n=n, **spent)
        for method, metric, x in named
    ]
    lines = [[r["method"], f"{r['value']:+.4f} [{r['ci_low']:+.4f}, {r['ci_high']:+.4f}]"] for r in rows]
    title = f"{name}: {len(set(found.people))} people, {n} judgements; {spent['clusters']} clusters"
    print_table(title, ["method", "nats per judgement"], lines)
    return rows


def main() -> None:
    parser = make_parser(__doc__ or "")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES), help="default: all three")
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, default=list(MODELS), help="tunings; the last is always among them"
    )
    parser.add_argument("--data", default="../shared/data", help="folder with polarized/ (default: ../shared/data)")
    parser.add_argument("--steps", type=int, default=400, help="most steps on the table (default: 400)")
    parser.add_argument("--meta-steps", type=int, default=400, help="steps on other tables (default: 400)")
    parser.add_argument("--max-raters", type=int, default=1500, help="random sample of people (default: 1500)")
    args = parser.parse_args()
    args.models = [*dict.fromkeys([*args.models, MODELS[-1]])]
    args.round, args.length = 100, {"verbagg": 18, "gss_spending": 12, "bfi": 18}
    if args.smoke:
        args.steps, args.meta_steps, args.round, args.max_raters, args.tables = 10, 10, 10, 60, ["verbagg"]
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    started = time.perf_counter()
    parts = {
        name: PeopleSplit.of(load_people(name, args), tune=0.2, test=0.3, seed=args.seed)
        for name in [*args.tables, *(() if args.smoke else ("gss_spending", "bfi"))]
    }
    if args.smoke:
        parts["other"] = PeopleSplit(parts["verbagg"].tune, [], [])
    tokenizer = symbol_tokenizer([p for of in parts.values() for part in (of.train, of.tune, of.test) for p in part])
    rows = [r for name in args.tables for r in one_table(name, parts, tokenizer, args)]
    write(args, rows, started, interval="95 %, people resampled")


if __name__ == "__main__":
    main()
