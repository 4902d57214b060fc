"""The methods that are compared: each maps a division of a survey to answer distributions, by whom is asked for.

| method | what it is | trained on |
|---|---|---|
| `uniform` | every offered answer alike | nothing |
| `marginal` | the mean shares of the training questions | training people's shares |
| `wording` | the same, weighted by wording (`fit_similar_questions`); a trained question by the others | the same |
| `wording-exchanged` | the control: the same with the questions' vectors exchanged | the same |
| `wording-and-model` | the same with the untouched model's log-probabilities beside the vectors | the same |
| `prompting` | the untouched model, asked as a member of the public or of a group | nothing |
| `in-context` | the untouched model after four answers of a training person, mean over people | nothing |
| `spectrum` | the same after Spectrum Tuning on training people | answers |
| `sft` | one adapter that imitates everybody's answers | answers |
| `words` | the same with each person's group in the system message | answers |
| `modular` | an adapter a group, averaged by shares; a group is answered by its own | answers |
| `jury-words` | a jury of one cluster whose texts begin with the group (MiniLM vectors) | answers |
| `ours` | `plural-rlhf run` in exact mode; a group is its people's mean weights | answers, through a jury |
| `jury` | the jury of that run | answers |
| `best-of-n` | of eight answers of that run's pi_0 the one that the jury likes most, exactly | the same |

Every trained method sees the same number of answers. Knows no distance.

Shapes: `I` questions, `A` options.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _methods.base import LAYERS, Budget, base_of, minilm, plain_prompts
from _methods.run_file import run
from _methods.surveys import EVERYBODY, GROUP, Division


if TYPE_CHECKING:
    import numpy as np

__all__ = ["METHODS", "OF_SHARES", "Answers", "methods_of", "produce"]

Answers = dict[str, "np.ndarray"]
"""By group, and `EVERYBODY`: `(I, A)` probabilities of the offered answers; they sum to the coverage."""
READ = 4
"""Answers of a person that are read in context."""


def uniform(division: Division, _: Budget) -> Answers:
    import numpy as np

    return {name: np.full(shares.shape, 1 / shares.shape[1]) for name, shares in division.known.items()}


def marginal(division: Division, _: Budget) -> Answers:
    import numpy as np

    return {
        name: np.tile(shares[~division.heldout].mean(axis=0), (len(shares), 1))
        for name, shares in division.known.items()
    }


def wording(division: Division, _: Budget) -> Answers:
    return _by_wording(division, {"text": _vectors(division.texts)})


def wording_exchanged(division: Division, _: Budget) -> Answers:
    from reward_models.seeds import seeded_rng

    order = seeded_rng(division.number, "exchanged texts").permutation(len(division.texts))
    return _by_wording(division, {"text": _vectors(division.texts)[order]})


def wording_and_model(division: Division, budget: Budget) -> Answers:
    import numpy as np

    shares = prompting(division, budget)[EVERYBODY]
    logs = np.log(np.maximum(shares, 1e-12))
    logs -= np.log(np.maximum(shares.sum(axis=1, keepdims=True), 1e-12))
    return _by_wording(division, {"text": _vectors(division.texts), "model": logs})


def _vectors(texts: list[str]) -> np.ndarray:
    from plural_rlhf.evaluation.open_ended.embedder import text_embedder

    return text_embedder(minilm())(texts)


def _by_wording(division: Division, sources: dict[str, np.ndarray]) -> Answers:
    import numpy as np

    from reward_models.baselines.similar_questions import fit_similar_questions

    training, answers = np.flatnonzero(~division.heldout), {}
    for name, shares in division.known.items():
        rows = np.empty(shares.shape)
        whole = fit_similar_questions(shares[training], {of: v[training] for of, v in sources.items()})
        rows[division.heldout] = whole.shares({of: v[division.heldout] for of, v in sources.items()})
        for question in training if len(training) <= MOST_LEFT_OUT else ():
            others = training[training != question]
            fit = fit_similar_questions(shares[others], {of: v[others] for of, v in sources.items()})
            rows[question] = fit.shares({of: v[[question]] for of, v in sources.items()})[0]
        if len(training) > MOST_LEFT_OUT:
            rows[training] = np.nan
        answers[name] = rows
    return answers


MOST_LEFT_OUT = 40
"""Training questions up to which each is predicted from the others."""


def prompting(division: Division, budget: Budget) -> Answers:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        path = base_of(division, budget, Path(folder))
        model, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    return _asked_in_words(division, model, tokenizer)


def in_context(division: Division, budget: Budget) -> Answers:
    with tempfile.TemporaryDirectory() as folder:
        return _after_people(division, budget, base_of(division, budget, Path(folder)), tuned=False)


def spectrum(division: Division, budget: Budget) -> Answers:
    with tempfile.TemporaryDirectory() as folder:
        return _after_people(division, budget, base_of(division, budget, Path(folder)), tuned=True)


def sft(division: Division, budget: Budget) -> Answers:
    from plural_rlhf.methods.modular import answered_texts

    rows = answered_texts(division.train, division.train.raters)
    answers = _imitated(division, budget, rows)
    return dict.fromkeys(division.known, answers[""])


def words(division: Division, budget: Budget) -> Answers:
    from plural_rlhf.methods.words import described_answers

    rows = described_answers(division.train, [GROUP], seed=division.number)
    answers = _imitated(division, budget, rows, in_words=True)
    return {name: answers["" if name == EVERYBODY else name] for name in division.known}


def modular(division: Division, budget: Budget) -> Answers:
    import numpy as np

    from plural_rlhf.methods.modular import ModularPolicy, communities_by_trait
    from plural_rlhf.recipe.communities import train_communities

    communities = communities_by_trait(division.train, GROUP)
    with tempfile.TemporaryDirectory() as folder:
        config = _settings(division, budget, Path(folder), parts=len(communities))
        train_communities(config, division.train, communities, Path(folder) / "pool", show=_silent)
        policy = ModularPolicy.from_pretrained(Path(folder) / "pool", device="cpu")
        prompts, options = plain_prompts(division), [division.options] * len(division.texts)
        own = policy.community_probabilities(prompts, options)
        together = policy.answer_probabilities(prompts, options)
    return {EVERYBODY: np.stack(together), **{name: np.stack(rows) for name, rows in own.items()}}


def jury_words(division: Division, budget: Budget) -> Answers:
    from scipy.special import softmax

    from plural_rlhf.methods.words import described_judgements, public_in_words
    from plural_rlhf.weights.wording import steer_prompt
    from reward_models.judgements.texts import Text, as_messages, freeze_prompt
    from reward_models.jury.fitting.vector_jury import fit_vector_jury

    described = described_judgements(division.train, [GROUP])
    texts = described.encode().texts
    jury = fit_vector_jury(described, _vectors([_reading(text) for text in texts]), clusters=1)
    answers = {}
    for name in division.groups:
        asked = [
            Text(freeze_prompt(steer_prompt(as_messages(question), public_in_words({GROUP: name}))), option)
            for question in division.texts
            for option in division.options
        ]
        rewards, _ = jury.fit.rewards(asked, _vectors([_reading(text) for text in asked]))
        answers[name] = softmax(rewards[:, 0].reshape(len(division.texts), -1), axis=1)
    frame = division.train.frame.drop_duplicates("rater_id")
    share = {name: float((frame[f"rater:{GROUP}"] == name).sum()) for name in division.groups}
    answers[EVERYBODY] = sum(answers[name] * share[name] for name in answers) / sum(share.values())
    return answers


def _reading(text: Any) -> str:
    """What a sentence embedder reads of a text: words of the rater, question and answer."""
    from reward_models.judgements.texts import prompt_wording

    return f"{prompt_wording(text.prompt)} {text.response}".replace("\n", " ")


def _settings(division: Division, budget: Budget, folder: Path, *, parts: int = 1) -> Any:
    """The run file of a supervised training on `budget.answers / parts` answers."""
    from plural_rlhf.recipe import make_config

    return make_config(
        {
            "seed": division.number,
            "policy": {
                "model": base_of(division, budget, folder),
                "lora": {"r": 8, "alpha": 32 if budget.model != "smollm2" else 16, "target_modules": LAYERS},
            },
            "sft": {
                "steps": max(budget.answers // (16 * parts), 1),
                "learning_rate": budget.rate,
                "texts_per_step": 16,
            },
        },
        origin="benchmark",
    )


def _imitated(
    division: Division, budget: Budget, rows: list[dict[str, Any]], *, in_words: bool = False
) -> dict[str, np.ndarray]:
    """Answers of an adapter that imitated rows: `""` for everybody, and of each group if it was trained on words."""
    from peft import PeftModel

    from plural_rlhf.recipe.communities import train_on_answers
    from plural_rlhf.recipe.trainings import load_base

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        config = _settings(division, budget, folder)
        train_on_answers(config, rows, folder / "policy", folder / "checkpoints", "answers", _silent)
        base, tokenizer = load_base(config)
        model = PeftModel.from_pretrained(base, folder / "policy")
    if in_words:
        answers = _asked_in_words(division, model, tokenizer)
        return {"" if name == EVERYBODY else name: rows_of for name, rows_of in answers.items()}
    return {"": _scored(model, tokenizer, plain_prompts(division), division)}


def _asked_in_words(division: Division, model: Any, tokenizer: Any) -> Answers:
    from plural_rlhf.methods.words import public_in_words

    return {
        name: _scored(
            model, tokenizer, division.asked("" if name == EVERYBODY else public_in_words({GROUP: name})), division
        )
        for name in division.known
    }


def _scored(model: Any, tokenizer: Any, prompts: list[Any], division: Division) -> np.ndarray:
    import numpy as np

    from plural_rlhf.policies.answers import answer_probabilities

    options = [division.options] * len(prompts)
    return np.stack(answer_probabilities(model, tokenizer, prompts, options, progress=False))


def _after_people(division: Division, budget: Budget, path: str, *, tuned: bool) -> Answers:
    """Mean answers after some answers of training people, everybody's or a group's."""
    import numpy as np
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from plural_rlhf.evaluation.in_context.sequences import Example, PersonSequence, judgement_sequences
    from plural_rlhf.methods.individuals import individual_shares
    from plural_rlhf.methods.spectrum import template_for
    from reward_models.seeds import seeded_rng

    people = judgement_sequences(division.train, most_people=10**6, length=None, seed=division.number)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    if tuned:
        model = _spectrum_tuned(model, tokenizer, people, division, budget)
    template = template_for(tokenizer, "chatml")
    group_of = division.train.frame.drop_duplicates("rater_id").set_index("rater_id")[f"rater:{GROUP}"]
    rng = seeded_rng(division.number, "people read in context")
    answers = {}
    for name in division.known:
        of = [p for p in people if name == EVERYBODY or group_of[p.person] == name]
        readers = [of[i] for i in rng.permutation(len(of))[: budget.people]]
        rows = []
        for item, text in zip(division.items, division.texts, strict=True):
            asked = []
            for person in readers:
                read = [example for example in person.examples if example.question != item][:READ]
                target = Example(text, division.options[0], division.options, item)
                asked.append(PersonSequence(person.person, (*read, target), person.description))
            shown, last = [list(range(len(p.examples) - 1)) for p in asked], [len(p.examples) - 1 for p in asked]
            shares = individual_shares(model, tokenizer, asked, shown, last, template, progress=False)
            rows.append(np.mean(shares, axis=0))
        answers[name] = np.stack(rows)
    return answers


def _spectrum_tuned(model: Any, tokenizer: Any, people: Any, division: Division, budget: Budget) -> Any:
    from plural_rlhf.methods.individuals import tune_to_individuals
    from plural_rlhf.methods.spectrum import SpectrumConfig

    answers = sum(len(person.examples) for person in people) / len(people)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        settings = SpectrumConfig(
            folder,
            learning_rate=budget.rate / 4 if budget.model != "smollm2" else 1e-4,
            per_device_train_batch_size=4,
            max_steps=max(round(budget.answers / (4 * answers)), 1),
            use_cpu=True,
            bf16=False,
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
            logging_strategy="no",
            seed=division.number,
        )
        return tune_to_individuals(model, tokenizer, settings, people)


def _silent(_: str) -> None:
    """Say nothing."""


METHODS: dict[str, Callable[[Division, Budget], Any]] = {
    "uniform": uniform,
    "marginal": marginal,
    "wording": wording,
    "wording-exchanged": wording_exchanged,
    "wording-and-model": wording_and_model,
    "prompting": prompting,
    "in-context": in_context,
    "spectrum": spectrum,
    "sft": sft,
    "words": words,
    "modular": modular,
    "jury-words": jury_words,
    "run": run,
}
"""What produces answers, by name; `run` gives those of `ours`, `jury` and `best-of-n`."""
OF_RUN = ("ours", "jury", "best-of-n")
OF_SHARES = ("uniform", "marginal", "wording", "wording-exchanged", "wording-and-model", "prompting")
"""Methods that need no single people."""


def methods_of(producer: str) -> tuple[str, ...]:
    """Names of the methods whose answers a producer gives."""
    return OF_RUN if producer == "run" else (producer,)


def produce(producer: str, division: Division, budget: Budget) -> dict[str, Answers]:
    """Answers of every method of a producer."""
    answers = METHODS[producer](division, budget)
    return answers if producer == "run" else {producer: answers}
