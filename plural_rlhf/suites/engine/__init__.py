"""How models are asked: fixed parts, kept answers, three ways to score options. Knows no single task and model."""
