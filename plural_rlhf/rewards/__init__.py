"""Rewards for TRL's trainers: `JuryReward`, and `ValidityGate` for hard constraints."""
