"""The options of `evaluate-jury`: what the help says of a default is the default."""

from __future__ import annotations

import argparse
import re

import pytest

from reward_models.evaluation.command.options import parse_options


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
