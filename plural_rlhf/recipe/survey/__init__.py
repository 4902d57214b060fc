"""Clusters for social scientists: what a report says of them, and a report of labels alone, without a language model.

Knows nothing of policies.
"""
