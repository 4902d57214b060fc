"""Texts and raters in one likelihood: `fit` is the way in, `choice` chooses membership and size for it."""
