"""Questions to a table: is there anything to gain from clusters, which groups explain them, what to call them."""
