"""Tests of plural_rlhf and reward_models; shared helpers live in `tests.tiny`."""
