"""Tasks about steering by words: answers under a named value, and for a named group of people."""
