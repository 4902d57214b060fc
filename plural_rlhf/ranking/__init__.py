"""Responses from a file, ranked under a jury and a rule, and why."""
