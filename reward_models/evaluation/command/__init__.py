"""What the command `evaluate-jury` does: its options, the models it compares, and the parts that it measures."""
