"""Whether a steerable policy follows its weights, and at what cost for other objectives. Needs no model."""
