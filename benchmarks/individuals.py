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


class Tasks:
    """Targets of some people, and what is read before each.

    Attributes:
        people: A person per target.
        targets: Its position.
    """

    def __init__(self, people: Sequence[Any], first: int) -> None:
        pairs = [(p, t) for p in people for t in range(first, min(len(p.examples), first + MOST_TARGETS))]
        self.people, self.targets = [p for p, _ in pairs], [t for _, t in pairs]
        self.given = [p.examples[t].options.index(p.examples[t].output) for p, t in pairs]

    def read(self, count: int, choose: Any = None) -> list[Sequence[int]]:
        """Positions that are read before each target."""
        from plural_rlhf.methods.individuals import most_recent

        return [(choose or most_recent)(p, t, count) for p, t in zip(self.people, self.targets, strict=True)]

    def nats(self, shares: Sequence[np.ndarray]) -> np.ndarray:
        return np.array([-np.log(max(p[g], 1e-12)) for p, g in zip(shares, self.given, strict=True)])


def exchanged(tasks: Tasks, people: Sequence[Any], seed: int) -> list[Any]:
    """The people of the tasks with every answer but the target exchanged between people."""
    import dataclasses

    from plural_rlhf.evaluation.in_context.sequences import shuffled_people

    other = dict(zip([p.person for p in people], shuffled_people(people, seed=seed), strict=True))
    return [
        dataclasses.replace(p, examples=(*other[p.person].examples[:t], *p.examples[t:]))
        for p, t in zip(tasks.people, tasks.targets, strict=True)
    ]


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

    def tune(self, people: Sequence[Any], steps: int, tuning: Tasks | None) -> int:
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
            loss = tuning.nats(self.shares(tuning.people, tuning.read(6), tuning.targets)).mean()
            if loss < best:
                best, kept = loss, (number + 1) * self.args.round
                state = {name: value.clone() for name, value in self.model.state_dict().items()}
        if state is not None:
            self.model.load_state_dict(state)
        return kept


def simple_shares(train: Sequence[Any], tasks: Tasks, read: Sequence[Sequence[int]]) -> dict[str, list[np.ndarray]]:
    """The item marginal of training people, and the person's own answers among those read."""
    counts: dict[Any, np.ndarray] = {}
    overall: dict[Any, np.ndarray] = {}
    for person in train:
        for e in person.examples:
            for table, key in ((counts, (e.question, e.options)), (overall, e.options)):
                table.setdefault(key, np.full(len(e.options), 0.5))[e.options.index(e.output)] += 1
    marginal, own = [], []
    for person, target, shown in zip(tasks.people, tasks.targets, read, strict=True):
        e = person.examples[target]
        usual = overall.get(e.options, np.ones(len(e.options)))
        p = counts.get((e.question, e.options), usual)
        marginal.append(p / p.sum())
        so_far = 2.0 * usual / usual.sum()
        for position in shown:
            if person.examples[position].options == e.options:
                so_far = so_far + np.eye(len(e.options))[e.options.index(person.examples[position].output)]
        own.append(so_far / so_far.sum())
    return {"item marginal": marginal, "own answers": own}


def choose_jury(train: Sequence[Any], tuning: Tasks) -> Any:
    """The jury whose number of clusters predicts tuning people best."""
    from plural_rlhf.methods.individuals import JuryReader

    juries = [JuryReader.fit(train, k) for k in CLUSTERS]
    return min(juries, key=lambda jury: tuning.nats(jury_shares(jury, tuning, tuning.read(6))).mean())


def jury_shares(jury: Any, tasks: Tasks, read: Sequence[Sequence[int]]) -> list[np.ndarray]:
    return [jury.shares(p, r, t) for p, r, t in zip(tasks.people, read, tasks.targets, strict=True)]


def one_table(
    name: str, parts: dict[str, dict[str, list[Any]]], tokenizer: Any, args: argparse.Namespace
) -> list[Any]:
    """All methods on one table."""
    from plural_rlhf.methods.individuals import Combination, most_informative

    train, tune_people, test = (parts[name][part] for part in ("train", "tune", "test"))
    first = 6 if name == "gss_abortion" else 12
    tuning, tasks = Tasks(tune_people, first), Tasks(test, first)
    start = time.perf_counter()
    others = [p for other, of in parts.items() if other != name for p in [*of["train"], *of["tune"]][:META_PEOPLE]]
    models, kept = {}, {}
    for label, meta, own in (("meta", True, False), ("data set", False, True), ("meta + data set", True, True)):
        if label not in args.models:
            continue
        model = Model(tokenizer, args)
        if label == "meta + data set" and "meta" in models:
            model.model.load_state_dict(models["meta"].model.state_dict())
        elif meta:
            model.tune(others, args.meta_steps, None)
        kept[label] = model.tune(train, args.steps, tuning) if own else 0
        models[label] = model
        print(f"  {name}: {label} tuned, {time.perf_counter() - start:.0f} s", flush=True)
    jury = choose_jury(train, tuning)
    best = models["meta + data set"]
    nats: dict[tuple[str, int], np.ndarray] = {}
    fitted = {}
    for n in READ:
        read, tuned_read = tasks.read(n), tuning.read(n)
        for label, model in models.items():
            nats[label, n] = tasks.nats(model.shares(tasks.people, read, tasks.targets))
        for label, shares in simple_shares(train, tasks, read).items():
            nats[label, n] = tasks.nats(shares)
        nats["jury", n] = tasks.nats(jury_shares(jury, tasks, read))
        fitted[n] = (
            best.shares(tuning.people, tuned_read, tuning.targets),
            jury_shares(jury, tuning, tuned_read),
            tuning.given,
        )
        nats["exchanged people", n] = tasks.nats(best.shares(exchanged(tasks, test, args.seed), read, tasks.targets))
    combination = Combination.fit(fitted)
    for n in READ:
        parts_of = zip(
            best.shares(tasks.people, tasks.read(n), tasks.targets),
            jury_shares(jury, tasks, tasks.read(n)),
            strict=True,
        )
        nats["model + jury", n] = tasks.nats([combination.shares(m, j, n) for m, j in parts_of])
    if first > 6:
        read = tasks.read(6, most_informative(jury))
        nats["informative demonstrations", 6] = tasks.nats(best.shares(tasks.people, read, tasks.targets))
        nats["jury, informative demonstrations", 6] = tasks.nats(jury_shares(jury, tasks, read))
    spent = {
        "seconds": time.perf_counter() - start,
        "n_train": len(train),
        "clusters": len(jury.prevalence),
        "steps": kept["meta + data set"],
        **{
            f"exponent_{who}_{n}": e
            for n, of in combination.exponents.items()
            for who, e in zip(BOTH, of, strict=True)
        },
    }
    return _rows(name, tasks, nats, spent)


def _rows(name: str, tasks: Tasks, nats: dict[tuple[str, int], np.ndarray], spent: dict[str, Any]) -> list[Any]:
    """Losses and paired differences, people resampled."""
    from reward_models.stats.resampling import two_way_intervals

    best = ("meta + data set", 6)
    labels = list(nats)
    columns = [nats[label] for label in labels]
    against = [("meta + data set", 0), ("item marginal", 6), ("own answers", 6), ("jury", 6)]
    columns += [nats[best] - nats[other] for other in against]
    columns += [nats["exchanged people", 6] - nats["meta + data set", 0], nats["model + jury", 6] - nats["jury", 6]]
    names = [(f"{m}, {n} read", "nll") for m, n in labels]
    names += [(f"6 read - {m}, {n} read", "nll_difference") for m, n in against]
    names += [
        ("6 read of exchanged people - 0 read", "nll_difference"),
        ("model + jury - jury, 6 read", "nll_difference"),
    ]
    rater = np.unique([p.person for p in tasks.people], return_inverse=True)[1]
    intervals = two_way_intervals(np.column_stack(columns), rater, np.zeros(len(rater), dtype=int), items=False)
    rows = [
        row(name, method, metric, i.value, "nats per judgement", low=i.low, high=i.high, n=len(rater), **spent)
        for (method, metric), i in zip(names, intervals, strict=True)
    ]
    lines = [[r["method"], f"{r['value']:+.4f} [{r['ci_low']:+.4f}, {r['ci_high']:+.4f}]"] for r in rows]
    title = f"{name}: {len(set(rater.tolist()))} people, {len(rater)} judgements; {spent['clusters']} clusters"
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
        args.steps, args.meta_steps, args.round, args.max_raters, args.tables = 10, 10, 10, 120, ["verbagg"]
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    started = time.perf_counter()
    rng = np.random.default_rng(args.seed)
    parts = {}
    for name in [*args.tables, *(() if args.smoke else ("gss_spending", "bfi"))]:
        people = load_people(name, args)
        people = [people[i] for i in rng.permutation(len(people))]
        half, most = len(people) // 2, len(people) * 7 // 10
        parts[name] = {"train": people[:half], "tune": people[half:most], "test": people[most:]}
    if args.smoke:
        parts["other"] = {"train": parts["verbagg"]["tune"], "tune": [], "test": []}
    tokenizer = symbol_tokenizer([p for of in parts.values() for part in of.values() for p in part])
    rows = [r for name in args.tables for r in one_table(name, parts, tokenizer, args)]
    write(args, rows, started, interval="95 %, people resampled")


if __name__ == "__main__":
    main()
