"""Policies that write text: their prompts, what people wrote, trainings, samples and measures."""
