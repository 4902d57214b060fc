"""A run that steers a model to individuals, from one YAML file: people, tuning, and the comparison on other people."""
