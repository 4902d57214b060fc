"""Weights over clusters: their spellings, the words that state them in a prompt, composed juries, random draws."""
