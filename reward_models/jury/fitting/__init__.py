"""Steps of `fit_jury`: texts to features, and the jury of vectors that has no model."""
