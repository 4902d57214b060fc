"""What an evaluation suite found: its results as types, tables, plots and sections of a page. Knows no model."""
