"""The judgement table: its kinds and columns, all faults of a table in one message, integers for fitting, splits."""
