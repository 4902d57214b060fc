"""A run whose texts are scored by functions: no judgements, one scale, and objectives that cannot be used."""

import json

import pytest
from rich.console import Console

from plural_rlhf.recipe import ConfigError, RunFolderError, load_config, make_config, run
from plural_rlhf.recipe.choose_job import job_of
from plural_rlhf.recipe.data import read_data
from plural_rlhf.recipe.scorers.choose import read_scorer
from plural_rlhf.settings.functions import import_function
from reward_models.errors import JudgementError
from tests.paths import ROOT


REWARDS = """
def long(prompts, completions, **columns):
    return [10.0 * len(c[-1]["content"]) for c in completions]

def vowels(prompts, completions, **columns):
    return [sum(letter in "aeiou" for letter in c[-1]["content"]) / 100 for c in completions]

def nothing(prompts, completions, **columns):
    return None

def words(prompts, completions, **columns):
    return ["good"] * len(completions)

def one(prompts, completions, **columns):
    return [1.0]

def fails(prompts, completions, **columns):
    return [c.upper() for c in completions]
"""


@pytest.fixture
def made(tmp_path):
    """Return a function that makes a run with objectives of functions, some of its settings replaced."""
    (tmp_path / "rewards.py").write_text(REWARDS)
    rows = [{"question": f"What should the city do about its {what}?"} for what in ("parks", "roads", "bins", "ponds")]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(*functions, **replaced):
        objectives = {
            name: {"function": name if ":" in name else f"{tmp_path}/rewards.py:{name}", "weight": weight}
            for name, weight in zip(functions or ("long", "vowels"), (0.6, 0.4), strict=False)
        }
        settings = {
            "output_dir": str(tmp_path / "run"),
            "prompts": {"path": str(tmp_path / "prompts.jsonl"), "column": "question", "heldout": 0.25},
            "policy": {
                "model": "tiny",
                "cache_dir": str(tmp_path / "models"),
                "max_new_tokens": 12,
                "lora": {"r": 2, "target_modules": ["q_proj"]},
            },
            "jury": {"objectives": objectives},
            "sft": {"texts": "none"},
            "plural": {"rule": "mean", "sampled": {"steps": 1, "num_generations": 4}},
            "grpo": {"steps": 0},
            "evaluate": {"samples": 2, "prompts": 1, "draws": 20},
        }
        return make_config({**settings, **replaced}, origin="test")

    return make


def quietly(config, **more):
    return run(config, console=Console(quiet=True), **more)


@pytest.mark.slow
def test_a_run_with_objectives_needs_no_judgements_and_puts_them_on_one_scale(made, tmp_path):
    results = quietly(made(), until="evaluate")
    assert (tmp_path / "run" / "samples.jsonl").read_text().count('"weighting": "vowels"') == 2 * 2 * 2
    assert {part.what for part in results.skipped} >= {"headroom, groups and survey", "stock GRPO"}
    assert [(cluster.name, cluster.prevalence) for cluster in results.clusters] == [("long", 0.6), ("vowels", 0.4)]
    assert (results.data.kind, results.data.n_raters, results.headroom) == ("none", 0, None)
    scorer = read_scorer(made(), tmp_path / "run")
    prompt, texts = [[{"role": "user", "content": "?"}]] * 2, ["aaaa", "aaaaaaaa"]
    rewards = scorer.cluster_rewards(prompt, [[{"role": "assistant", "content": text}] for text in texts])
    long, vowels = (rewards[1] - rewards[0]).tolist()
    assert scorer.calibrated
    assert 0 < long / vowels < 100  # 1,000 before: 40 against 0.04
    (tmp_path / "rewards.py").write_text(REWARDS.replace("10.0", "20.0"))
    with pytest.raises(RunFolderError, match="objectives: other content"):
        quietly(made(), until="train")


def test_a_changed_file_of_prompts_is_noticed_where_it_is_read(made, tmp_path):
    quietly(made(), until="jury")
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(prompts.read_text().replace("bins", "trees"))
    quietly(made(), until="jury")  # the jury does not read it
    quietly(made(), until="train")
    prompts.write_text(prompts.read_text().replace("trees", "lamps"))
    with pytest.raises(RunFolderError, match=r"prompts\.path: other content"):
        quietly(made(), until="train")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("nothing", "returned None"),
        ("words", "returned .*good"),
        ("one", r"shape \(1,\) for 2 completions"),
        ("fails", r"failed on the first prompt \(AttributeError: 'list' object has no attribute 'upper'\)"),
        ("lang", "has no function 'lang'. Did you mean 'long'"),
        ("no_such_package.rewards:brief", r"'no_such_package\.rewards' cannot be imported .* on the Python path \("),
        ("no_such_file.py:brief", r"'no_such_file\.py' cannot be imported \(FileNotFoundError"),
    ],
)
def test_objectives_that_cannot_score_are_refused_before_anything_is_written(made, tmp_path, function, message):
    with pytest.raises(ConfigError, match=message) as caught:
        quietly(made("vowels", function))
    assert len(caught.value.faults) == 1  # not the other objective
    assert not (tmp_path / "run").exists()


def test_a_module_of_the_working_folder_is_found(tmp_path, monkeypatch):
    (tmp_path / "my_rewards_of_this_test.py").write_text(REWARDS)
    monkeypatch.chdir(tmp_path)
    assert import_function("my_rewards_of_this_test:one")([], []) == [1.0]


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"prompts": {}}, r"prompts\.path is missing"),
        ({"data": {"source": "survey"}}, r"jury\.objectives is set, .* but data\.source is survey"),
        ({"jury": {}, "data": {"source": "none"}}, r"data\.source is none, and a jury is fitted to judgements"),
        ({"data": {"source": "none", "heldout_prompts": 2}}, r"data\.heldout_prompts = 2: is set, but source: none"),
        ({"jury": {"objectives": {"brief": {"weight": 1}}}}, "needs either a model or a function"),
        ({"jury": {"objectives": {"brief": {"function": "brief"}}}}, "should match pattern"),
    ],
)
def test_settings_that_contradict_objectives_are_refused(made, replaced, message):
    with pytest.raises(ConfigError, match=message):
        made(**replaced)


def test_a_run_without_judgements_says_what_to_set_for_texts_that_it_lacks(made, tmp_path):
    config = made(sft={"steps": 1})
    with pytest.raises(JudgementError, match=r"set data\.written, or sft\.texts"):
        job_of(config, read_data(config), tmp_path / "run")


def test_the_shipped_run_file_of_objectives_can_score_its_prompts(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    # Its own language model is converted once on a machine, which takes longer than the other tests of this file.
    config = load_config("configs/objectives.yaml", ["policy.model=tiny", f"policy.cache_dir={tmp_path / 'models'}"])
    assert list(job_of(config, read_data(config), tmp_path).trainings) == ["warm", "plural", "grpo"]
