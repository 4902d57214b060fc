"""The options of `evaluate-jury`: what the help says of a default is the default."""

from __future__ import annotations

import argparse
import re

import pytest

from reward_models.evaluation.command.options import UsageError, parse_options


def test_defaults_are_those_that_the_help_names(monkeypatch):
    parsers = []
    parse_args = argparse.ArgumentParser.parse_args
    monkeypatch.setattr(
        argparse.ArgumentParser, "parse_args", lambda self, *args: parsers.append(self) or parse_args(self, *args)
    )
    options = parse_options("evaluate-jury", ["runs/jury", "--data", "test.csv"])
    named = {a.dest: re.search(r"default: ([\d.e-]+|[a-z]+)\)", a.help or "") for a in parsers[0]._actions}
    told = {name: match[1] for name, match in named.items() if match}
    assert len(told) > 3
    for name, text in told.items():
        assert str(getattr(options, name)) == text, name


@pytest.mark.parametrize("option", ["--explain"])
def test_switches_are_off_until_they_are_set(option):
    plain = vars(parse_options("evaluate-jury", ["runs/jury", "--data", "test.csv"]))
    switched = vars(parse_options("evaluate-jury", ["runs/jury", "--data", "test.csv", option]))
    assert {name for name in plain if plain[name] != switched[name]} == {option.strip("-")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--data", "test.csv", "--language-model", "lm"],
            "--language-model would not be read: only --baselines asks",
        ),
        (
            ["--data", "test.csv", "--language-model", "lm", "--cache", "c"],
            "--language-model and --cache would not be",
        ),
        (
            ["--data", "test.csv", "--baselines", "in-context"],
            "--baselines in-context asks a language model, and none",
        ),
        (["--benchmark", "b.json", "--best-of-n"], "--best-of-n would not be read: --benchmark needs no judgements"),
        (["--benchmark", "b.json", "--train", "t.csv", "--explain"], "--train and --explain would not be read"),
        (["--benchmark", "b.json", "--base", "one", "--against", "other"], "--base and --against would not be read"),
        (["--benchmark", "b.json", "--columns", "map.yaml"], "--columns would not be read"),
        (["--jury", "runs/other", "--data", "test.csv"], "the folder of the jury is there twice: name it once"),
    ],
)
def test_what_would_be_ignored_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        parse_options("evaluate-jury", ["runs/jury", *options])


def test_a_benchmark_beside_judgements_takes_their_options():
    options = parse_options(
        "evaluate-jury", ["runs/jury", "--data", "t.csv", "--benchmark", "b.json", "--explain", "--weights", "uniform"]
    )
    assert options.explain
    assert parse_options("evaluate-jury", ["runs/jury", "--benchmark", "b.json", "--weights", "uniform"]).data is None
