"""The parts of `PluralDPOTrainer`."""
