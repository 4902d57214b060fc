"""Results and tasks in the shapes of other tools: lm-evaluation-harness, inspect-ai, the Hub. Knows no model."""
