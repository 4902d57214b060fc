"""Policies for questions with offered answers: their training in exact mode, and their distance to held-out people."""
