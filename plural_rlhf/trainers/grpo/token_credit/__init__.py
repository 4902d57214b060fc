"""Coefficients for single tokens of a completion in place of one for all: less noise for long texts."""
