"""Tasks by family and name: data, and measures of a model's answers. Knows no model and no file of results."""
