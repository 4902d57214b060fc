"""What a run of policies that write publishes, computed again from its files: its texts, its models, its votes."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from peft import PeftModel
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from plural_rlhf.evaluation import evaluate_open_ended, read_samples
from plural_rlhf.evaluation.open_ended.embedder import text_embedder
from plural_rlhf.recipe import RunConfig, run
from plural_rlhf.recipe.run_folder.folder import HELDOUT_JURY, SAMPLES_FILE
from plural_rlhf.report.results import RunResults
from plural_rlhf.report.results_policies import TextResults, TextRow
from plural_rlhf.weights.wording import describe_weights
from reward_models.jury.scorer import JuryScorer
from tests.plural_rlhf.recipe.open_ended.small_run import replaced_in, settings_of, write_votes


@dataclass(frozen=True)
class TextRun:
    """A finished run with a tiny language model: its settings, its folder, its results and its stored texts."""

    config: RunConfig
    folder: Path
    results: RunResults
    samples: pd.DataFrame
    votes: pd.DataFrame
    tokens: dict[str, list[int]]
    """Of each text; a tiny model writes what cannot be divided into the same tokens again."""

    @property
    def names(self) -> list[str]:
        return [cluster.name for cluster in self.results.clusters]


@pytest.fixture(scope="module")
def text_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    votes = write_votes(folder)
    config = replaced_in(
        settings_of(votes, folder),
        policy__lora={"r": 2, "target_modules": ["q_proj", "v_proj"]},
        sft={"steps": 2, "texts_per_step": 4, "learning_rate": 0.3},
        best_of_n={"n": 3},
        prompting={"instruction": "Agree with everybody."},
        plural={
            "beta": 0.7,
            "rho": 0.5,
            "sampled": {"steps": 2, "num_generations": 4, "learning_rate": 0.3, "kept_samples": 0},
        },
        grpo={"steps": 1, "prompts_per_step": 1, "num_generations": 2, "learning_rate": 0.3},
        evaluate={
            "samples": 4, "reference_samples": 6, "prompts": 2, "draws": 30, "level": 0.8, "along": 0,
        },
        seed=5,
    )  # fmt: skip
    tokens: dict[str, list[int]] = {}
    decode = PreTrainedTokenizerBase.batch_decode

    def noting(self, sequences, **settings):
        texts = decode(self, sequences, **settings)
        tokens.update((text.strip(), list(some)) for text, some in zip(texts, sequences, strict=True))
        return texts

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PreTrainedTokenizerBase, "batch_decode", noting)
        run(config, console=Console(quiet=True), until="evaluate")
    output = Path(config.output_dir)
    samples = pd.DataFrame([json.loads(line) for line in (output / SAMPLES_FILE).read_text().splitlines()])
    return TextRun(
        config, output, RunResults.read(output / "results.json"), samples, pd.read_json(votes, lines=True), tokens
    )


def test_every_policy_writes_as_many_texts_for_each_request_as_the_run_file_says(text_run):
    counts = text_run.samples.groupby(["policy", "weighting", "prompt"]).size()
    assert set(text_run.samples.groupby("split")["prompt"].nunique().items()) == {("heldout", 1), ("train", 2)}
    requests = ["all", *text_run.names]
    steered = {(policy, request): 4 for policy in ("warm", "plural") for request in requests} | {("warm", "all"): 6}
    stock = {(policy, "all"): 4 for policy in ("untouched", "grpo", "best_of_n", "prompting")}
    assert counts.groupby(level=[0, 1]).agg(set).to_dict() == {key: {n} for key, n in (steered | stock).items()}


def test_a_text_has_the_probability_that_its_saved_policy_gives_it(text_run):
    """Another way: the whole conversation in one pass through the policy as it is loaded from its folder."""
    [path] = {file.parent for file in Path(text_run.config.policy.cache_dir).rglob("config.json")}
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(path), text_run.folder / "warm", "warm")
    for name in ("plural", "grpo"):
        model.load_adapter(str(text_run.folder / name), name)

    def log_prob(system, question, tokens, adapter):
        messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
        model.set_adapter(adapter or "warm")
        ids = torch.tensor([prompt + tokens])
        with torch.no_grad(), model.disable_adapter() if adapter is None else nullcontext():
            logits = model(ids).logits[0].double()
        steps = logits.log_softmax(-1)[range(len(prompt) - 1, ids.shape[1] - 1), tokens]
        return float(steps.sum())

    names, [jury] = text_run.names, [JuryScorer.from_pretrained(text_run.folder / "jury")]
    systems = {name: describe_weights(np.eye(2)[k], names, jury.prevalence) for k, name in enumerate(names)}
    systems["all"] = "Answer as a member of the public."
    adapters = {"untouched": None, "warm": "warm", "plural": "plural", "grpo": "grpo", "prompting": "warm"}
    checked = set()
    for row in text_run.samples.to_dict("records"):
        tokens = text_run.tokens[row["text"]]
        assert row["num_tokens"] == len(tokens)
        assert row["ended"] == (tokens[-1] == tokenizer.eos_token_id)
        system = systems[row["weighting"]]
        assert row["reference_log_prob"] == pytest.approx(log_prob(system, row["prompt"], tokens, "warm"), abs=1e-3)
        if row["policy"] == "best_of_n":
            assert np.isnan(row["log_prob"])  # of a text that was chosen among others it is not known
            continue
        told = f"{system}\nAgree with everybody." if row["policy"] == "prompting" else system
        expected = log_prob(told, row["prompt"], tokens, adapters[row["policy"]])
        assert row["log_prob"] == pytest.approx(expected, abs=1e-3), (row["policy"], row["weighting"])
        checked.add((row["policy"], row["weighting"]))
    assert len(checked) == 2 * 3 + 3
    far = text_run.samples[text_run.samples["policy"] != "warm"]
    assert (far["log_prob"] - far["reference_log_prob"]).abs().median() > 0.01  # the policies differ enough to tell


def key(row: TextRow) -> tuple[str, ...]:
    return row.policy, row.measure, row.jury, row.cluster, row.rival, row.reason


def not_of_candidates(row: TextRow) -> bool:
    """Whether a row follows from stored texts: the texts among which one is chosen are not stored."""
    of_law = ("kl_to_reference", "kl_to_target", "effective_samples", "completions_per_text")
    return row.policy != "best_of_n" or row.measure not in of_law


def test_measures_are_those_of_the_stored_texts_by_the_saved_juries(text_run):
    """The settings of the run reach them: both juries, people's texts, target, level, draws and seed."""
    first, second = (JuryScorer.from_pretrained(text_run.folder / name) for name in ("jury", HELDOUT_JURY))
    written = text_run.votes.groupby("prompt")["response"].agg(set)
    [backbone] = {str(file.parent) for file in Path(text_run.config.policy.cache_dir).rglob("config.json")}
    embed = text_embedder(backbone, pooling="mean")
    assert len(text_run.results.texts) == 2 * (1 + len(text_run.names))
    for of in text_run.results.texts:
        stored = text_run.samples[
            (text_run.samples["split"] == of.split) & (text_run.samples["weighting"] == of.weighting)
        ]
        policies = read_samples(stored.to_dict("records"))
        prompts = list(stored["prompt"].unique())
        people = {text.prompt: [] for text in of.texts if text.policy == "people"}
        for prompt in people:
            texts = [text.text for text in of.texts if (text.policy, text.prompt) == ("people", prompt)]
            assert set(texts) <= written[prompt]
            if of.split == "heldout":  # nothing was learnt from any
                assert set(texts) == written[prompt]
            people[prompt] = texts
        one = None if of.weighting == "all" else tuple(float(name == of.weighting) for name in text_run.names)
        measured = evaluate_open_ended(
            policies, first, heldout_scorer=second, people=people, embed=embed, reference="warm",
            prompts={prompt: [{"role": "user", "content": prompt}] for prompt in prompts},
            weights=one and dict.fromkeys(policies, one), beta=0.7, rho=0.5, draws=30, level=0.8, seed=5,
        )  # fmt: skip
        again = TextResults(split=of.split, weighting=of.weighting, **measured.to_dict())
        rows, others = ([row for row in some if not_of_candidates(row)] for some in (of.rows, again.rows))
        rows = [row for row in rows if row.measure != "approval_shift"]
        assert [key(row) for row in rows] == [key(row) for row in others]
        for row, other in zip(rows, others, strict=True):
            for name in ("value", "ci_low", "ci_high", "gain", "floor", "baseline"):
                expected = getattr(other, name)
                close = None if expected is None else pytest.approx(expected, rel=1e-3, abs=1e-4)
                assert getattr(row, name) == close, (key(row), name)
        assert of.weights == (
            dict(zip(text_run.names, first.prevalence.tolist(), strict=True))
            if of.weighting == "all"
            else {name: float(name == of.weighting) for name in text_run.names}
        )


def test_what_a_request_changes_is_counted_from_the_stored_texts(text_run):
    for of in text_run.results.texts:
        if of.weighting == "all":
            assert not any(row.measure == "approval_shift" for row in of.rows)
            continue
        before = next(o for o in text_run.results.texts if (o.split, o.weighting) == (of.split, "all"))
        for row in (row for row in of.rows if row.measure == "approval_shift"):
            means = []
            for results in (of, before):
                own = [text for text in results.texts if text.policy == row.policy]
                approvals = [t.approvals if row.jury == "training" else t.heldout_approvals for t in own]
                table = pd.Series([a[row.cluster] for a in approvals]).groupby([t.prompt for t in own]).mean()
                means.append(table.mean())
            assert row.value == pytest.approx(means[0] - means[1], abs=1e-9)
        assert {row.policy for row in of.rows if row.measure == "approval_shift"} == {"warm", "plural"}


def test_what_was_spent_is_what_the_settings_say(text_run):
    budgets = {
        name: (b.steps, b.generated_sequences, b.scored_sequences) for name, b in text_run.results.budgets.items()
    }
    assert budgets == {"warm": (2, None, 2 * 4), "plural": (2, 2 * 4, None), "grpo": (1, 2, None)}
    assert {name: len(steps) for name, steps in text_run.results.training.items()} == {
        "warm": 2,
        "plural": 2,
        "grpo": 1,
    }


def test_what_is_missing_is_said(text_run):
    assert [(one.what, one.reason) for one in text_run.results.skipped] == []
    kept = np.array([cluster.prevalence for cluster in text_run.results.clusters])
    assert kept.sum() == pytest.approx(1)
