"""Rewards for TRL's trainers: `JuryReward` per rater cluster, `ValidityGate` for hard constraints."""
