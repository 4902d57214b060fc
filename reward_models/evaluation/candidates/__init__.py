"""What a jury does with candidate responses: best-of-n selection, and whether one answer would please everybody."""
