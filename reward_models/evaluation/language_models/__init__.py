"""Baselines of a language model untrained on judgements: log-probability, and a rater's examples in the prompt."""
