"""The parts of `PluralGRPOTrainer`: sampled mode, exact mode, and both in one batch."""
