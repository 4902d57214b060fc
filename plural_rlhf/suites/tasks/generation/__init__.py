"""Tasks about what a model writes, or says of statements: coverage, novelty, random numbers, personas, sycophancy."""
