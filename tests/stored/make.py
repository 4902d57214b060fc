"""Writes what `tests/project/test_stored.py` loads: juries, checkpoints and run folders of version 0.1.0.

Run once, on plural-rlhf 0.1.0 as it stood before its modules were moved (commit f539bef), with the versions of
`constraints.txt`; it may not run on later versions, and need not. What it wrote is committed beside it and never
generated again to make a test pass: a test that fails says that folders which people have saved no longer load, or no
longer mean the same, and it is the code that has to be mended. Artefacts of a later version come beside these, under
other names.

    HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 python tests/stored/make.py FOLDER      # an empty folder; half a minute

Everything is of a language model of 40,000 parameters and of made-up people, so the numbers mean nothing. The same
command writes the same figures again, except for the salt of the stored raters, times and versions.

    base                  a tiny Llama that has learnt to say yes, no or no idea: the base model of all that follows
    answers.csv, run.yaml made-up answers of 48 people to nine questions, and the run on them
    jury                  fitted as a run fits one, saved with calibration, temperatures, raters and a memory of texts
    jury_finetuned        what `JuryRewardTrainer` leaves after two steps
    jury_checkpoint       the same training after one step
    grpo_checkpoint       `PluralGRPOTrainer`, sampled: weights drawn, completions remembered, a KL budget, offsets
    exact_checkpoint      `PluralGRPOTrainer`, exact mode, an adapter with max-min weights
    dpo_checkpoint        `PluralDPOTrainer` that finds the raters' clusters by itself, an adapter
    dpo_robust_checkpoint `PluralDPOTrainer` with the raters of `jury` and robust weights, an adapter
    scalar                `jury` as a plain reward model
    run                   a finished run: jury, adapters, stages, results and report (without the page and the plots)
    run_without_grpo      the results of a run that was not compared with stock GRPO
    trainings.json        settings and rows of the trainings, from which the test goes on
    expected.json         the figures that a loader has to reproduce

Paths in the artefacts are relative to their folder, which a test copies and makes the working directory.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from datasets import Dataset
from peft import LoraConfig
from torch.nn.utils.rnn import pad_sequence
from trainings import OPTIONS, TOPICS, answer, describe_trainings, question
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from plural_rlhf import (
    PluralDPOConfig,
    PluralDPOTrainer,
    PluralGRPOConfig,
    PluralGRPOTrainer,
    Steerer,
    load_config,
)
from plural_rlhf.base_models import tiny_causal_lm, tiny_tokenizer
from plural_rlhf.recipe import run
from plural_rlhf.recipe.data import read_data
from reward_models import (
    FitConfig,
    Judgements,
    JuryRewardConfig,
    JuryRewardTrainer,
    JuryScorer,
    JuryState,
    StoredRaters,
    export_scalar,
    fit_mixture,
    fit_temperature,
)


BASE = "base"
SCRATCH = Path("scratch")
PROBES = [("more parks", "yes"), ("more roads", "no"), ("what nobody was asked about", "Yes, but not too many.")]
LORA = {"r": 4, "target_modules": ["q_proj", "v_proj"]}


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes the artefacts of tests/project/test_stored.py.")
    parser.add_argument("folder", type=Path, help="an empty folder, or one that holds scripts only")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    there = [path.name for path in folder.iterdir() if path.suffix != ".py" and path.name != "__pycache__"]
    if there:
        sys.exit(f"{folder} holds {', '.join(sorted(there))}: what is stored is never written again.")
    os.chdir(folder)
    torch.set_num_threads(1)
    write_inputs()
    make_base()
    expected: dict[str, Any] = {"juries": {}, "trainings": {}, "runs": {}}
    expected["juries"]["jury"] = make_jury()
    trainings = describe_trainings()
    write("trainings.json", trainings)
    for name, training in trainings.items():
        expected["trainings"][name] = make_checkpoint(name, training)
    expected["juries"]["jury_finetuned"] = scored("jury_finetuned")
    expected["scalar"] = make_scalar()
    expected["runs"]["run"] = make_run()
    expected["juries"]["run/jury"] = scored("run/jury")
    expected["steering"] = steered()
    expected["runs"]["run_without_grpo"] = make_run_without_grpo()
    write("expected.json", expected)
    shutil.rmtree(SCRATCH)
    forget_this_machine()


def write(path: str | Path, values: Any) -> None:
    Path(path).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def write_inputs() -> None:
    """Two publics that mostly want opposite things, and a run file for them."""
    rng = np.random.default_rng(0)
    rows = []
    for person in range(48):
        saves = person % 3 == 0
        for number, topic in enumerate(TOPICS):
            p = [0.1, 0.75, 0.15] if saves == (number % 3 > 0) else [0.8, 0.1, 0.1]
            region = "north" if rng.random() < (0.7 if saves else 0.4) else "south"
            rows.append((f"p{person}", topic, rng.choice(OPTIONS, p=p), region))
    table = pd.DataFrame(rows, columns=["person", "topic", "answer", "region"])
    table["region"] = table.groupby("person")["region"].transform("first")
    table.insert(2, "question", "Should the city build more " + table["topic"] + "?")
    table.to_csv("answers.csv", index=False)
    columns = {"rater_id": "person", "item_id": "topic", "prompt": "question", "choice": "answer"}
    write_run_file({"kind": "choice", "columns": columns, "options": OPTIONS, "traits": {"region": "region"}}, {})


def write_run_file(columns: dict[str, Any], juries: dict[str, dict[str, float]]) -> None:
    settings = {
        "name": "stored",
        "output_dir": "run",
        "data": {"source": "table", "path": "answers.csv", "columns": columns, "heldout_questions": 3},
        "policy": {"model": f"./{BASE}"},
        "jury": {"clusters": [1, 2], "restarts": 2, "l2": 1.0},
        "juries": juries,
        "warmup": {"steps": 3, "prompts_per_step": 2},
        "plural": {"steps": 3, "prompts_per_step": 5},
        "grpo": {"steps": 2, "prompts_per_step": 1, "num_generations": 4},
        "evaluate": {"draws": 20},
    }
    Path("run.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")


def make_base() -> None:
    """A random model would say nothing twice, and no memory would be of use: this one says the three answers."""
    tokenizer = tiny_tokenizer()
    model = tiny_causal_lm(tokenizer)
    tokens, labels = [], []
    for n, topic in enumerate(TOPICS * len(OPTIONS)):
        asked = question(f"more {topic}")
        if n % 2:
            asked[0]["content"] += f" {'; '.join(OPTIONS)}?"
        if n % 4:
            asked = [{"role": "system", "content": "Answer as a member of this public: everybody."}, *asked]
        prompt = tokenizer.encode(tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True))
        said = [*tokenizer.encode(OPTIONS[n // len(TOPICS)]), tokenizer.eos_token_id]
        tokens.append(torch.tensor(prompt + said))
        labels.append(torch.tensor([-100] * len(prompt) + said))
    padded = pad_sequence(tokens, batch_first=True, padding_value=tokenizer.pad_token_id)
    wanted = pad_sequence(labels, batch_first=True, padding_value=-100)  # what follows an end has no say: it is causal
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        model(input_ids=padded, labels=wanted).loss.backward()
        optimizer.step()
    model.save_pretrained(BASE)
    tokenizer.save_pretrained(BASE)


# ── juries ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def make_jury() -> dict[str, Any]:
    """The jury of a run, with what a run leaves out: temperatures and the raters."""
    config = load_config("run.yaml", [f"output_dir={SCRATCH / 'run'}"])
    run(config, until="jury")
    data = read_data(config)
    encoded = data.train.encode()
    scorer = JuryScorer.from_pretrained(SCRATCH / "run" / "jury")
    state = scorer.state
    fit = fit_mixture(encoded, len(scorer.cluster_names), FitConfig(restarts=config.jury.restarts, seed=config.seed))
    prompts = [text.prompt for text in encoded.texts]
    rewards = scorer.cluster_rewards(prompts, [text.response for text in encoded.texts]).double().numpy()
    state = JuryState(
        rater_model=state.rater_model,
        calibration=state.calibration,
        temperature=fit_temperature(encoded, rewards, fit.placement.memberships()),
        descriptions=state.descriptions,
        fitted_on=state.fitted_on,
        raters=StoredRaters.of(fit.placement),
    )
    save_without_path(JuryScorer(scorer.model, scorer.tokenizer, state=state), "jury", save_raters=True)
    seats = dict(zip(scorer.cluster_names, (1.0, 3.0), strict=True))
    write_run_file(config.data.columns, {"council": seats})
    few = data.heldout_raters.frame.groupby("rater_id", sort=False).head(3).head(6)  # of two people
    few = few[["rater_id", "item_id", "prompt", "options", "choice"]]
    placed = JuryScorer.from_pretrained("jury").adapt(Judgements.from_frame(few))
    known = fit.placement.rater_ids[:2]
    remembered = JuryScorer.from_pretrained("jury").remembered([*known, "somebody else"])
    return {
        **scored("jury"),
        "remembered": dict(zip(remembered.rater_ids, remembered.memberships.tolist(), strict=True)),
        "adapted": {
            "judgements": json.loads(few.to_json(orient="records")),
            "memberships": dict(zip(placed.rater_ids, placed.memberships.tolist(), strict=True)),
        },
    }


def save_without_path(scorer: JuryScorer, folder: str, **how: bool) -> None:
    """A run notes where its base model lay, with the whole path of this machine; it is not read again."""
    scorer.model.config.get_text_config()._name_or_path = BASE
    scorer.save_pretrained(folder, **how)


def scored(folder: str) -> dict[str, Any]:
    """Who is on a jury, and what they think of three answers, one of which a memory of judged texts may know."""
    scorer = JuryScorer.from_pretrained(folder)
    prompts, answers = [question(topic) for topic, _ in PROBES], [answer(text) for _, text in PROBES]
    found = {
        "cluster_names": scorer.cluster_names,
        "prevalence": scorer.prevalence.tolist(),
        "descriptions": scorer.state.descriptions,
        "remembered_texts": scorer.model.config.num_anchors if scorer.model.memory is not None else 0,
        "prompts": prompts,
        "answers": answers,
        "cluster_rewards": scorer.cluster_rewards(prompts, answers).tolist(),
    }
    if scorer.state.calibration is not None:
        calibrated = JuryScorer.from_pretrained(folder, calibrated=True)
        found["calibrated_rewards"] = calibrated.cluster_rewards(prompts, answers).tolist()
    if scorer.state.temperature is not None:
        found["temperature"] = scorer.state.temperature.tolist()
    return found


def make_scalar() -> dict[str, Any]:
    weights = dict(zip(JuryScorer.from_pretrained("jury").cluster_names, (0.25, 0.75), strict=True))
    export = export_scalar("jury", "scalar", weights)
    model = AutoModelForSequenceClassification.from_pretrained("scalar").eval()
    tokenizer = AutoTokenizer.from_pretrained("scalar")
    texts = [text for _, text in PROBES]
    with torch.no_grad():
        logits = model(**tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)).logits
    return {"texts": texts, "logits": logits[:, 0].tolist(), "weights": weights, "constant": export.constant}


# ── checkpoints ─────────────────────────────────────────────────────────────────────────────────────────────────────


def make_checkpoint(name: str, training: dict[str, Any]) -> dict[str, Any]:
    """Trains to the end, keeps the checkpoint in the middle, and goes on from it as the test will."""
    whole = trainer(name, training, SCRATCH / name / "whole")
    whole.train()
    shutil.copytree(SCRATCH / name / "whole" / f"checkpoint-{training['settings']['save_steps']}", name)
    if Path(name, "adapter_config.json").exists():
        Path(name, "README.md").unlink()  # PEFT's, an empty form
    resumed = trainer(name, training, SCRATCH / name / "resumed")
    resumed.train(resume_from_checkpoint=name)
    found = curve(resumed)
    if found != curve(whole):
        sys.exit(f"{name}: a resumed training is not the unbroken one")
    if name == "jury_checkpoint":
        whole.save_model("jury_finetuned")
    return found


def trainer(name: str, training: dict[str, Any], folder: Path) -> Any:
    settings, rows = training["settings"], training["rows"]
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    if name == "jury_checkpoint":
        judgements = Judgements.from_frame(pd.DataFrame(rows))
        return JuryRewardTrainer(BASE, JuryRewardConfig(str(folder), **settings), judgements)
    lora = LoraConfig(**LORA, task_type="CAUSAL_LM")
    data = Dataset.from_list(rows)
    if name == "grpo_checkpoint":
        args = PluralGRPOConfig(str(folder), **settings)
        return PluralGRPOTrainer(BASE, "jury", args, data, processing_class=tokenizer)
    if name == "exact_checkpoint":
        jury, args = JuryScorer.from_pretrained("jury", calibrated=True), PluralGRPOConfig(str(folder), **settings)
        return PluralGRPOTrainer(BASE, jury, args, data, processing_class=tokenizer, peft_config=lora)
    jury = "jury" if name == "dpo_robust_checkpoint" else None
    args = PluralDPOConfig(str(folder), **settings)
    return PluralDPOTrainer(BASE, None, args, data, processing_class=tokenizer, jury=jury, peft_config=lora)


def curve(trained: Any) -> dict[str, Any]:
    """The losses of the whole training, of which those after the checkpoint are new; metrics and state at its end."""
    logged = [row for row in trained.state.log_history if "loss" in row]
    ours = {name: value for row in logged for name, value in row.items() if name.startswith(("plural/", "jury/"))}
    last = Path(trained.args.output_dir, f"checkpoint-{trained.state.global_step}", "plural_state.json")
    state = json.loads(last.read_text(encoding="utf-8")) if last.exists() else {}
    return {"losses": [row["loss"] for row in logged], "last": ours, "state": state}


# ── runs ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def make_run() -> dict[str, Any]:
    results = run(load_config("run.yaml"), command="plural-rlhf run run.yaml")
    folder = Path("run")
    (folder / "report.html").unlink()
    shutil.rmtree(folder / "figures")
    save_without_path(JuryScorer.from_pretrained(folder / "jury"), "run/jury")
    here = f"{Path.cwd()}/"
    for stage in ("warm", "plural", "grpo"):
        (folder / stage / "README.md").unlink()  # PEFT's, an empty form
        adapter = folder / stage / "adapter_config.json"
        adapter.write_text(adapter.read_text(encoding="utf-8").replace(here, ""), encoding="utf-8")
    return headline(results)


def make_run_without_grpo() -> dict[str, Any]:
    less = ["grpo.steps=0", "warmup.steps=1", "plural.steps=1", f"output_dir={SCRATCH / 'without'}"]
    results = run(load_config("run.yaml", less), until="evaluate", command="plural-rlhf evaluate run.yaml")
    Path("run_without_grpo").mkdir()
    text = (SCRATCH / "without" / "results.json").read_text(encoding="utf-8")
    Path("run_without_grpo", "results.json").write_text(text, encoding="utf-8")
    return headline(results)


def headline(results: dict[str, Any]) -> dict[str, Any]:
    """The rows of the population, by stage, split and metric, and what else a report begins with."""
    rows = [row for row in results["rows"] if row["cluster"] == "all"]
    return {
        "clusters": [cluster["name"] for cluster in results["clusters"]],
        "rows": [[r["stage"], r["split"], r["metric"], r["value"], r["ci_low"], r["ci_high"]] for r in rows],
        "picks": {effect["rule"]: effect["picks"] for effect in results["rules"]},
        "skipped": results["skipped"],
        "warmup": [row["loss"] for row in results["training"]["warm"]],
        "questions": len(results["questions"]),
    }


def steered() -> dict[str, Any]:
    """What the policy of the run answers to one question under three juries."""
    steerer = Steerer.from_pretrained("run/plural", "run/jury", device="cpu")
    juries = ["prevalence", steerer.cluster_names[0], {steerer.cluster_names[1]: 1.0}]
    found = steerer.answer_probabilities(question("more parks"), OPTIONS, juries)
    return {
        "prompt": question("more parks"),
        "support": OPTIONS,
        "juries": juries,
        "log_probabilities": np.log(found).tolist(),
    }


def forget_this_machine() -> None:
    """Refuses to leave a path of this machine in any file."""
    for path in sorted(Path().rglob("*")):
        if path.is_file() and path.suffix != ".py":
            found = [word for word in (str(Path.cwd()), sys.prefix) if word.encode() in path.read_bytes()]
            if found:
                sys.exit(f"{path} holds {', '.join(found)}")


if __name__ == "__main__":
    main()
