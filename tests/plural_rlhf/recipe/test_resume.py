"""A run that was killed, stopped or ran out of disk goes on to the results of one that nobody touched.

On a tiny random model; each process is a fork, in which a hook on file operations chooses the moment.
"""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load, load_file
from typer.testing import CliRunner

from plural_rlhf.cli import app
from plural_rlhf.recipe import RunFolderError, RunInterrupted, make_config, run
from plural_rlhf.recipe.checkpoints import TrainingFolder
from plural_rlhf.recipe.interruption import Interruption
from plural_rlhf.recipe.multiple_choice import measure
from plural_rlhf.recipe.run_folder.errors import RunWriteError
from plural_rlhf.recipe.run_folder.folder import open_run_folder
from plural_rlhf.recipe.run_folder.stage_record import StageInputs, StageRecord
from plural_rlhf.recipe.stage_inputs import RunInputs
from plural_rlhf.recipe.stages import Stages
from plural_rlhf.report.names import Stage
from tests.benchmark_modules import benchmark_module


injection = benchmark_module("_faults.injection")
small_run = benchmark_module("_faults.small_run")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run file, and what counts of a run that nobody touched."""
    folder = tmp_path_factory.mktemp("whole")
    run_file = small_run.prepare(folder)
    return run_file, small_run.finish(small_run.config_of(run_file, folder / "run"))


def again(run_file: Path, output: Path):
    return small_run.finish(small_run.config_of(run_file, output))


@pytest.mark.slow
def test_killed_after_each_stage_and_inside_each_it_ends_as_if_nothing_had_happened(whole, tmp_path):
    run_file, expected = whole
    moments = [
        "checkpoints/jury/headroom.json",
        ".safetensors",  # the features of the texts
        "checkpoints/jury/survey.json",
        "stages/jury.json",
        "checkpoints/warm/checkpoint-1/whole.json",
        "stages/warm.json",
        "checkpoints/plural/checkpoint-1/whole.json",
        "checkpoints/plural/checkpoint-3/whole.json",
        "plural/adapter_model.safetensors",
        "stages/plural.json",
        "checkpoints/grpo/checkpoint-1/whole.json",
        "checkpoints/evaluate/rewards.json",
        "checkpoints/evaluate/warm.json",
        "stages/evaluate.json",
    ]
    for moment in moments:

        def killed(moment: str = moment) -> None:
            injection.after(tmp_path, moment.removesuffix("/adapter_model.safetensors"), injection.die)
            again(run_file, tmp_path / "run")

        assert injection.in_child(killed).status == -signal.SIGKILL, moment
    assert again(run_file, tmp_path / "run") == expected
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_an_evaluation_goes_on_in_the_middle_of_a_policy(whole, tmp_path):
    """15 prompts are two batches; after the first one a process is killed, and only the second is left to do.

    The questions in six other forms are 30 prompts, three batches more.
    """
    run_file, expected = whole
    shutil.copytree(run_file.parent / "run", tmp_path / "run")
    (tmp_path / "run" / "stages" / "evaluate.json").unlink()

    def killed() -> None:
        injection.after(tmp_path, "checkpoints/evaluate/warm.json", injection.die)
        again(run_file, tmp_path / "run")

    injection.in_child(killed)
    kept = json.loads((tmp_path / "run" / "checkpoints" / "evaluate" / "warm.json").read_text())
    assert [len(piece) for piece in kept["pieces"]] == [12]

    def resumed() -> tuple[list[int], object]:
        answered, score = [], measure.answer_probabilities

        def counted(model, tokenizer, prompts, *args, **kwargs):
            answered.append(len(prompts))
            return score(model, tokenizer, prompts, *args, **kwargs)

        measure.answer_probabilities = counted
        return answered, again(run_file, tmp_path / "run")

    answered, result = injection.in_child(resumed).result
    assert answered == [3, 12, 12, 6, *[12, 3, 12, 12, 6] * 2]  # the rest of the warm-up, then stock GRPO and ours
    assert result == expected


def test_pieces_of_work_are_kept_when_a_run_is_stopped_and_belong_to_one_division_of_the_work(tmp_path):
    done: list[int] = []

    def piece(number: int) -> Callable[[], int]:
        def work() -> int:
            if number == 2 and not done.count(1) > 1:
                raise RunInterrupted(signal.SIGINT, "")
            done.append(number)
            return number

        return work

    with open_run_folder(tmp_path / "run", {}) as folder:
        config = make_config({"output_dir": str(tmp_path / "run")}, origin="test")
        inputs, interruption = RunInputs(config), Interruption(print)
        stages = Stages(folder, inputs, interruption, config.checkpoints, small_run.quietly())
        with pytest.raises(RunInterrupted):
            stages.pieces(Stage.EVALUATE, "warm", [piece(n) for n in range(4)])
        assert done == [0, 1]
        kept = json.loads((tmp_path / "run" / "checkpoints" / "evaluate" / "warm.json").read_text())
        assert kept["pieces"] == [0, 1]
        done.append(1)
        assert stages.pieces(Stage.EVALUATE, "warm", [piece(n) for n in range(4)]) == [0, 1, 2, 3]
        assert done == [0, 1, 1, 2, 3]
        assert stages.pieces(Stage.EVALUATE, "warm", [piece(n) for n in range(4)]) == [0, 1, 2, 3]
        assert done == [0, 1, 1, 2, 3]
        assert stages.pieces(Stage.EVALUATE, "warm", [piece(n) for n in range(2)]) == [0, 1]  # other batches
        assert done == [0, 1, 1, 2, 3, 0, 1]


@pytest.mark.slow
def test_training_goes_on_from_the_checkpoint_and_takes_only_the_steps_that_are_left(whole, tmp_path):
    run_file, expected = whole
    warm_run(run_file, tmp_path / "run")

    def killed() -> None:
        injection.after(tmp_path, "plural/checkpoint-3/whole.json", injection.die)
        again(run_file, tmp_path / "run")

    injection.in_child(killed)

    def resumed() -> tuple[list[str], object]:
        renamed = []
        injection.watch(tmp_path, lambda event, path: event == "os.rename" and renamed.append(path))
        result = again(run_file, tmp_path / "run")
        return [path for path in renamed if path.endswith("whole.json") and "plural" in path], result

    saved, result = injection.in_child(resumed).result
    assert saved == []  # step 4 of 4 is the last, after which the policy is saved
    assert result == expected


def warm_run(run_file: Path, output: Path) -> None:
    """A copy of the whole run as it was after its warm-up."""
    shutil.copytree(run_file.parent / "run", output)
    for stage in ("plural", "grpo", "evaluate"):
        (output / "stages" / f"{stage}.json").unlink()


@pytest.mark.slow
def test_the_policy_that_is_kept_is_the_best_on_questions_set_aside_also_after_a_kill(whole, tmp_path):
    """With a learning rate at which training gets worse in the end, an earlier step is the best."""
    run_file, _ = whole
    settings = (
        "plural.validation_questions=1",
        "plural.evaluate_every=1",
        "plural.learning_rate=1000",
        "grpo.steps=0",
    )

    def trained(name: str) -> StageRecord:
        config = small_run.config_of(run_file, tmp_path / name, *settings)
        run(config, until="train", console=small_run.quietly())
        return StageRecord.read(tmp_path / name / "stages" / "plural.json")

    def watched() -> tuple[StageRecord, dict[str, bytes]]:
        """The record, and the adapter of each step that was the best so far."""
        saved = {}

        def see(event: str, path: str) -> None:
            for file in (tmp_path / "unbroken" / "checkpoints" / "plural").glob("best-*/adapter_model.safetensors"):
                saved[file.parent.name] = file.read_bytes()

        injection.watch(tmp_path, see)
        return trained("unbroken"), saved

    record, saved = injection.in_child(watched).result
    best = record.result["best_step"]
    assert best < 4
    policy = tmp_path / "unbroken" / "plural" / "adapter_model.safetensors"
    assert load_file(policy).keys() == load(saved[f"best-{best}"]).keys()
    assert all(torch.equal(load_file(policy)[name], tensor) for name, tensor in load(saved[f"best-{best}"]).items())
    assert len(record.result["history"]) == 4  # of the whole training

    def killed() -> None:
        injection.after(tmp_path, "plural/checkpoint-3/whole.json", injection.die)
        trained("broken")

    assert injection.in_child(killed).status == -signal.SIGKILL
    assert trained("broken").result["best_step"] == best
    assert (tmp_path / "broken" / "plural" / "adapter_model.safetensors").read_bytes() == policy.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_with_a_checkpoint_and_the_command_that_goes_on(whole, tmp_path, number):
    run_file, expected = whole
    warm_run(run_file, tmp_path / "run")

    def stopped() -> tuple[int, str]:
        injection.after(tmp_path, "plural/checkpoint-1/whole.json", lambda: os.kill(os.getpid(), number))
        command = ["evaluate", str(run_file), "--output", str(tmp_path / "run")]
        done = CliRunner().invoke(app, command)
        return done.exit_code, done.output

    status, printed = injection.in_child(stopped).result
    assert status == 128 + number
    printed = " ".join(printed.split())
    assert "stopping after this step" in printed
    assert "Kept: jury, warm, plural up to step 2. Go on with: plural-rlhf evaluate" in printed
    if number == signal.SIGINT:
        assert again(run_file, tmp_path / "run") == expected


def test_a_signal_outside_training_ends_the_run_at_once(whole, tmp_path):
    run_file, _ = whole

    def stopped() -> None:
        injection.after(tmp_path, "config.json", lambda: os.kill(os.getpid(), signal.SIGINT))
        again(run_file, tmp_path / "run")

    error = injection.in_child(stopped).error
    assert isinstance(error, RunInterrupted)
    assert str(error) == "No stage is complete."
    assert not (tmp_path / "run" / "jury").exists()


@pytest.mark.slow
def test_a_full_or_read_only_disk_is_one_own_message_and_the_run_goes_on_later(whole, tmp_path):
    run_file, expected = whole
    full = [(number, errno.ENOSPC) for number in (1, 3, 20, 80, 160)]
    for number, code in ((1, errno.EROFS), (4, errno.EACCES), *full):

        def refused(number: int = number, code: int = code) -> None:
            injection.refuse_from(tmp_path, number, code)
            again(run_file, tmp_path / "run")

        error = injection.in_child(refused).error
        assert isinstance(error, RunWriteError), (number, error)
        assert str(tmp_path / "run") in str(error)
        assert "run the same command again" in str(error)
    assert again(run_file, tmp_path / "run") == expected


@pytest.mark.slow
def test_a_folder_that_is_removed_is_said_to_be(whole, tmp_path):
    run_file, _ = whole

    def removed() -> None:
        injection.after(tmp_path, "stages/warm.json", lambda: shutil.rmtree(tmp_path / "run"))
        again(run_file, tmp_path / "run")

    error = injection.in_child(removed).error
    assert isinstance(error, RunWriteError)
    assert "was removed while the run was at work in it" in str(error)


def test_changed_data_is_refused_with_what_has_changed_and_nothing_is_touched(whole, tmp_path):
    run_file, _ = whole
    output, table = tmp_path / "run", run_file.parent / "answers.jsonl"
    model = run_file.parent / "models" / "tiny-seed0" / "generation_config.json"
    shutil.copytree(run_file.parent / "run", output)
    before = contents(output)
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    rows[0]["choice"] = (rows[0]["choice"] + 1) % 3
    edited = "".join(json.dumps(row) + "\n" for row in rows)
    words = r"judgements: other content \(the file .*answers\.jsonl has changed\)"
    with replaced(table, edited), pytest.raises(RunFolderError, match=words):
        again(run_file, output)
    settings = json.dumps({**json.loads(model.read_text()), "max_new_tokens": 3})
    with replaced(model, settings), pytest.raises(RunFolderError, match="base model: other content"):
        again(run_file, output)
    assert contents(output) == before

    spaced = table.read_text().replace("\n", "\n\n")  # another file with the same judgements
    with replaced(table, spaced):
        again(run_file, output)


def test_a_stage_of_a_version_that_did_not_note_a_model_is_kept_and_says_so(whole, tmp_path):
    run_file, _ = whole
    shutil.copytree(run_file.parent / "run", tmp_path / "run")
    path = tmp_path / "run" / "stages" / "jury.json"
    record = StageRecord.read(path)

    def lines() -> list[str]:
        said = io.StringIO()
        run(small_run.config_of(run_file, tmp_path / "run"), until="jury", console=Console(file=said, width=1000))
        return [line for line in said.getvalue().splitlines() if "earlier version" in line]

    assert lines() == []
    content = {name: digest for name, digest in record.inputs.content.items() if name != "base model"}
    replace(record, inputs=replace(record.inputs, content=content)).write(path)
    [line] = lines()
    assert line.startswith("jury: found in")
    assert line.endswith("whether this has changed since is unknown: base model")


def test_a_stage_that_is_missing_its_policy_is_refused_not_left_out(whole, tmp_path):
    run_file, _ = whole
    shutil.copytree(run_file.parent / "run", tmp_path / "run")
    (tmp_path / "run" / "stages" / "evaluate.json").unlink()
    shutil.rmtree(tmp_path / "run" / "plural")
    with pytest.raises(RunFolderError, match=r"stage plural.*adapter_model\.safetensors: it is missing"):
        again(run_file, tmp_path / "run")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def replaced(path: Path, text: str):
    before = path.read_text()
    path.write_text(text)
    try:
        yield
    finally:
        path.write_text(before)


def test_what_was_kept_of_a_stage_is_not_gone_on_with_after_an_earlier_one_was_done_again(tmp_path):
    with open_run_folder(tmp_path / "run", {}) as folder:
        for warm, steps in (("a", [1]), ("a", [1, 2]), ("b", [2])):
            kept = folder.begin("plural", StageInputs({"seed": 0}, {"output of the stage warm": warm}))
            (kept / f"checkpoint-{steps[-1]}").mkdir()
            assert sorted(path.name for path in kept.glob("checkpoint-*")) == [f"checkpoint-{n}" for n in steps]


def test_the_last_checkpoint_that_is_whole_is_gone_on_from(tmp_path):
    said: list[str] = []
    for step in (2, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
    training = TrainingFolder(tmp_path / "policy", tmp_path, show=said.append)
    assert training.newest() is None
    assert [line.split()[0] for line in said] == ["checkpoint-10", "checkpoint-2"]
