"""Verdicts of juries: how they vary, which change of weights flips them, and who gains by a rule. Needs no model."""
