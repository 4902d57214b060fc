"""Language models without a trainer: log-probabilities, generation, steering, decoding."""
