"""What part of a known space of answers a policy writes: tasks whose answers a rule can check. Needs no model."""
