"""Weights over clusters: composed (`jury`), put into the words of a prompt (`wording`), drawn at random (`sampler`).

How they are read is in `reward_models.weights`. Knows nothing of rewards, targets or trainers.
"""
