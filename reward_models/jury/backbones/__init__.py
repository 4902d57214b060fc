"""Language models under a jury: vectors of texts, where they are kept, and what was fitted to each judged text."""
