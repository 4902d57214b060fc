"""A jury on a language model: features, the model, its folder, scoring, calibration, export."""
