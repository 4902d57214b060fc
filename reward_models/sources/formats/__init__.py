"""Files of many formats as tables of text cells, with what they say of their columns. Knows nothing of judgements."""
