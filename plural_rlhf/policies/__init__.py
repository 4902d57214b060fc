"""Language models without a trainer: log-probabilities, generation, answers under weights, mixed decoding."""
