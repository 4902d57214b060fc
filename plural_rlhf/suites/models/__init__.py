"""What is evaluated: kinds of models behind one protocol. Knows no task."""
