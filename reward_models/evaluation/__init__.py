"""Models side by side on judgements that none of them has seen."""
