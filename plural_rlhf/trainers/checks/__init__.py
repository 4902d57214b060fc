"""Checks of what a trainer is given: settings, reward functions, policy, tokenizer, data sets and batches."""
