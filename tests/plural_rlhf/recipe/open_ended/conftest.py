"""A run on votes about texts, for the tests of this folder."""

from functools import partial

import pytest

from tests.plural_rlhf.recipe.open_ended.small_run import replaced_in, settings_of, write_votes


@pytest.fixture
def votes(tmp_path):
    """The file of votes."""
    return write_votes(tmp_path)


@pytest.fixture
def settings(votes, tmp_path):
    """Settings of a run on those votes with a tiny language model."""
    return settings_of(votes, tmp_path)


@pytest.fixture
def config_of(settings):
    """Return a function that makes a run of the settings, with some replaced."""
    return partial(replaced_in, settings)
