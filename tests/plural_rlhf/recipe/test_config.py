"""A run file is read strictly: what is refused, in which words, and what a good file becomes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from plural_rlhf.recipe.config import ConfigError, RunConfig, load_config, make_config
from plural_rlhf.recipe.individuals.config import IndividualsRun
from plural_rlhf.recipe.settings.data import SURVEYS
from plural_rlhf.recipe.settings.models import JurySection
from plural_rlhf.recipe.settings.sections import PluralSection
from plural_rlhf.recipe.spectrum.config import SpectrumRun
from plural_rlhf.settings.faults import load_settings
from tests.paths import ROOT


RUN_FILES = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.fixture
def write(tmp_path):
    def _write(text: str) -> Path:
        path = tmp_path / "run.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return _write


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value)


@pytest.mark.parametrize("path", RUN_FILES, ids=lambda path: path.name)
def test_shipped_run_files_load_and_open_with_what_how_and_how_long(path):
    root = {"spectrum": SpectrumRun, "individuals": IndividualsRun}.get(path.stem)
    config = load_config(path) if root is None else load_settings(root, path)
    assert config.name == path.stem
    assert config.output_dir == Path("runs") / path.stem
    comment = [line for line in path.read_text(encoding="utf-8").split("\nname:")[0].splitlines() if line]
    assert all(line.startswith("#") for line in comment)
    opening = "\n".join(comment)
    for promise in ("What it does", f"configs/{path.name}", "Takes", "Change", "--"):
        assert promise in opening


def test_the_quickstart_spells_out_the_defaults():
    """A reader of the quickstart sees the value of every setting that another file leaves out."""
    written = yaml.safe_load((ROOT / "configs/quickstart.yaml").read_text(encoding="utf-8"))
    del written["policy"]["lora"]
    defaults = RunConfig().model_dump(mode="json")
    for section, values in written.items():
        for key, value in values.items() if isinstance(values, dict) else []:
            assert defaults[section][key] == value, f"{section}.{key}"


def test_empty_file_is_all_defaults(write):
    assert load_config(write("")) == RunConfig()


def test_dump_is_json_and_reads_back(write):
    config = load_config(write("plural: {rho: -.inf, beta: 0.5}\njury: {clusters: 3, l2: 1e-3}\ngrpo:\n  steps: 0\n"))
    dumped = json.loads(json.dumps(config.model_dump(mode="json"), allow_nan=False))
    assert dumped["plural"]["rho"] == "-Infinity"
    assert RunConfig.model_validate(dumped) == config
    assert config.plural.rho == -math.inf
    assert config.jury.clusters == [3]
    assert config.jury.l2 == 0.001


def test_output_folder_follows_the_name(write):
    assert load_config(write("name: trial")).output_dir == Path("runs/trial")
    assert load_config(write("name: trial\noutput_dir: elsewhere")).output_dir == Path("elsewhere")


def test_overrides_win_and_are_typed(write):
    path = write("plural: {steps: 60}\ndata: null\n")
    config = load_config(path, ["plural.steps=10", "jury.clusters=[2, 3]", "data.year=2018", "policy.lora.r=4"])
    assert (config.plural.steps, config.jury.clusters, config.data.year, config.policy.lora.r) == (10, [2, 3], 2018, 4)


def test_unknown_keys_name_the_key_its_section_and_the_likely_one(write):
    message = refusal(write("plural: {btea: 1.0}\nnam: x\npolicy: {lora: {rnak: 8, alpah: 3}}"))
    assert "plural.btea: unknown key 'btea' in section `plural`. Did you mean 'beta'?" in message
    assert "nam: unknown key 'nam' at the top level. Did you mean 'name'?" in message
    assert "'alpah' in section `policy.lora`. Did you mean 'alpha'?" in message
    assert "Valid keys: r, alpha, target_modules" in message
    assert "5 faults" not in message
    assert "4 faults" in message


def test_a_key_in_the_wrong_place_is_told_its_section(write):
    assert (
        "unknown key 'steps' at the top level. It belongs in `sft` or `warmup` or `plural` or `grpo` or `rloo`"
        in refusal(write("steps: 3"))
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plural: {beta: 0}", "plural.beta = 0: must be greater than 0. Fix: Temperature"),
        ("plural: {beta: -1}", "plural.beta = -1: must be greater than 0"),
        ("plural: {beta: .inf}", "plural.beta = Infinity: must be a finite number"),
        ("plural: {rho: .nan}", "plural.rho = NaN: is not a number"),
        ("plural: {divergence: kl}", "plural.divergence = \"kl\": must be 'fkl', 'rkl' or 'js'"),
        ("plural: {steps: many}", 'plural.steps = "many": must be a valid integer'),
        ("plural: {steps: -1}", "plural.steps = -1: must be greater than or equal to 0"),
        ("plural: {steps: yes}", "plural.steps = true: is a yes/no value where a number is needed"),
        ("plural: {learning_rate: 0}", "plural.learning_rate = 0: must be greater than 0"),
        ("data: {heldout_raters: 1.0}", "data.heldout_raters = 1.0: must be less than 1"),
        ("data: {heldout_raters: 0}", "data.heldout_raters = 0: must be greater than 0"),
        ("data: {max_raters: 1}", "data.max_raters = 1: must be greater than or equal to 2"),
        ("data: {heldout_questions: []}", "data.heldout_questions = []: is an empty list"),
        ("data: {heldout_questions: [a, b, a]}", "names a more than once"),
        ("data: {name: gss_spendin}", "is not a known survey. Did you mean 'gss_spending'?"),
        ("data: {source: table}", "data.path = null: is missing, and source: table reads a file"),
        (
            "data: {path: x.csv}",
            'data.path = "x.csv": is set, but source: survey does not read it; set source: table or source: release, '
            "or remove path",
        ),
        ("data: {columns: {kind: choice}}", "source: survey does not read it; set source: table, or remove columns"),
        ("data: {source: table, path: x.csv, year: 2018}", "data.year = 2018: is set, but source: table does not"),
        ("data: {source: table, path: x.csv, kind: rating}", "set source: survey, or remove kind"),
        ("data: {source: release, name: prism, columns: x.yaml}", "source: release does not read it; set source: t"),
        ("data: {limit: 0}", "data.limit = 0: must be greater than or equal to 1"),
        ("data: {limit: 9}", "data.limit = 9: is set, but source: survey does not read it; set source: release"),
        ("data: {source: survy}", "data.source = \"survy\": must be 'survey', 'table', 'release' or 'none'"),
        ("jury: {clusters: 0}", "jury.clusters = 0: entry 1 must be greater than or equal to 1"),
        ("jury: {clusters: []}", "jury.clusters = []: List should have at least 1 item"),
        ("jury: {l2: -1}", "jury.l2 = -1: must be 'auto', or must be greater than 0"),
        ("jury: {clusters: 9}\ndata: {max_raters: 5}", "asks for 9 clusters of the 5 raters"),
        ("grpo: {num_generations: 1}", "grpo.num_generations = 1: must be greater than or equal to 2"),
        ("grpo: {scale_rewards: std}", "must be 'group', 'batch' or 'none'"),
        ("grpo: {rule: pool, beta: 0}", "rule is pool, whose temperature is beta, and beta is 0; set beta to that"),
        ("rloo: {rule: pool, beta: 0}", "rule is pool, whose temperature is beta, and beta is 0"),
        (
            "data: {heldout_questions: [a], heldout_prompts: 3}",
            "data.heldout_prompts = 3: is set, and so is heldout",
        ),
        ("data: {source: none}\njury: {path: x}", "prompts.path is missing: without judgements (data.source: none)"),
        ("juries: {council: {urban: .nan}}", "must be a finite number"),
        ("juries: {council: {}}", "has no seats on the jury 'council'; give at least one cluster a seat"),
        ("evaluate: {level: 95}", "evaluate.level = 95: must be less than 1"),
        ("grpo: 3", "grpo = 3: is a section. Fix: give it keys, such as `steps:`"),
        ("- a\n- b", 'holds ["a", "b"], not a mapping'),
        ("plural: {beta: 1", "is not valid YAML"),
        ("seed: 1\nname: x\nseed: 2", "the key 'seed' is written twice"),
    ],
)
def test_refusals_name_value_reason_and_fix(write, text, expected):
    assert expected in refusal(write(text))


def test_every_fault_is_reported_at_once(write):
    path = write("plural: {beta: 0, stesp: 3}\ndata: {source: table, heldout_raters: 2}\ngrpo: {steps: -1}")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    named = sorted(fault.split(" ")[0].rstrip(":") for fault in caught.value.faults)
    assert named == ["data.heldout_raters", "data.path", "grpo.steps", "plural.beta", "plural.stesp"]
    assert str(caught.value).startswith(f"{path}: 5 faults")


def test_overrides_are_checked_like_the_file(write):
    path = write("plural: {steps: 60}")
    assert "plural.beta = -1: must be greater than 0" in refusal(path, "plural.beta=-1")
    assert "'plural.steps' is not of the form section.key=value" in refusal(path, "plural.steps")
    assert "`plural.steps` is a value, not a section, so it has no key 'x'" in refusal(path, "plural.steps.x=1")
    assert "Did you mean 'steps'?" in refusal(path, "plural.step=1")


def test_a_missing_file_suggests_its_neighbour(write):
    path = write("")
    assert "there is no such file. Did you mean 'run.yaml'?" in refusal(path.with_name("runs.yaml"))
    assert "is a folder" in refusal(path.parent)


def sections(kind: object) -> Iterator[type[BaseModel]]:
    """All models in an annotation, at any depth."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
        for field in kind.model_fields.values():
            yield from sections(field.annotation)
    for part in get_args(kind):
        yield from sections(part)


def every_setting() -> dict[str, FieldInfo]:
    models = dict.fromkeys(sections(RunConfig))
    return {f"{model.__name__}.{name}": field for model in models for name, field in model.model_fields.items()}


def test_every_setting_is_described():
    assert [name for name, field in every_setting().items() if not field.description] == []


def test_what_only_another_source_reads_may_stand_at_its_default(write):
    """A dumped file names every setting, and is read back."""
    for data in (
        "{source: table, path: x.csv}",
        "{source: release, name: prism, path: here, limit: 9, options: {kind: rating}}",
        "{name: bfi, kind: rating, year: null}",
    ):
        config = load_config(write(f"data: {data}"))
        assert RunConfig.model_validate(json.loads(json.dumps(config.model_dump(mode="json")))) == config


def test_settings_need_no_file():
    values = {"data": {"source": "table", "path": "x.csv"}}
    assert make_config(values, ["data.max_raters=9"], origin="x.csv").data.max_raters == 9
    with pytest.raises(ConfigError, match=r"^x\.csv: 1 fault\n.*Did you mean 'path'"):
        make_config({"data": {"pth": "x.csv"}}, origin="x.csv")


def test_survey_names_are_those_of_the_adapters():
    from reward_models import sources

    assert tuple(SURVEYS) == tuple(sources.SURVEYS)


@pytest.mark.slow
def test_reading_a_run_file_imports_no_heavy_library():
    heavy = ("torch", "transformers", "trl", "pandas")
    code = f"import sys, plural_rlhf.recipe.config; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_juries_need_a_name_of_their_own_and_somebody_on_them(write):
    council = "juries: {council: {urban: 7, rural: 5}}"
    assert load_config(write(council)).juries == {"council": {"urban": 7, "rural": 5}}
    assert "named 'all', which is a word for weights" in refusal(write("juries: {all: {urban: 7}}"))
    assert "no seats on the jury 'council'" in refusal(write("juries: {council: {urban: 0}}"))
    assert "juries" in refusal(write("juries: {council: {urban: -1}}"))


def test_an_unknown_key_in_an_entry_of_a_list_or_mapping_is_named(write):
    said = refusal(write("data: {tables: [{path: a.csv}, b.csv]}"))
    assert 'data.tables = "b.csv": entry 2 is a section. Fix: give it keys, such as `path:`' in said
    said = refusal(write("data: {tables: [{path: a.csv}, {pth: b.csv}]}"))
    assert "data.tables.2.pth: unknown key 'pth' in section `data.tables.2`. Did you mean 'path'?" in said
    said = refusal(write("jury: {objectives: {brief: {funktion: 'a:b'}}}"))
    assert "jury.objectives.brief.funktion: unknown key 'funktion'" in said


@pytest.mark.parametrize(
    ("plural", "rate"),
    [
        ({}, 5e-5),
        ({"mode": "rl"}, 5e-5),
        ({"mode": "distil"}, 2e-4),
        ({"mode": "dpo", "sampled": {"steps": 3}}, 2e-4),
        ({"mode": "distil", "sampled": {"learning_rate": 1e-3}}, 1e-3),
    ],
)
def test_imitation_has_a_larger_learning_rate_than_rewards_of_samples(plural, rate):
    section = PluralSection(**plural)
    assert section.sampled.learning_rate == rate
    assert PluralSection.model_validate(section.model_dump()) == section


def test_a_saved_jury_and_objectives_are_two_juries(tmp_path):
    """Either alone is a jury."""
    objectives = {"brief": {"function": "a:b"}}
    with pytest.raises(ConfigError, match=r"jury\.objectives.* is set, and so is jury\.path; set one of them"):
        make_config({"jury": {"path": str(tmp_path), "objectives": objectives}}, origin="test")
    alone = ({"path": str(tmp_path), "objectives": None}, {"path": None, "objectives": objectives})
    assert [JurySection(**values).is_fitted for values in alone] == [False, False]
