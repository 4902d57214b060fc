"""Rank the responses to a prompt under weights and a rule, and explain the verdict. Needs no policy."""
