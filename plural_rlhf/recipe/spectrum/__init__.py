"""A run of Spectrum Tuning from one YAML file: sequences, training, held-out tasks beside the untouched model."""
