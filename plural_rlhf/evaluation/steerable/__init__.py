"""Whether a steered policy follows its weights, and at what price."""
