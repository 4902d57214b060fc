"""A first run file for a table of one's own."""
