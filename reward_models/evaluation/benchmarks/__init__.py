"""Reward model benchmarks in their own schemas: RewardBench, RewardBench 2 with its Ties, RM-Bench with its styles."""
