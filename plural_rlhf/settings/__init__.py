"""Strict reading of YAML files into settings: kinds of values, and every fault in a sentence. Knows no setting."""
