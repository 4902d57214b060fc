"""Strict reading of YAML files into settings: kinds of values, functions by name, every fault in a sentence.

Knows no setting.
"""
