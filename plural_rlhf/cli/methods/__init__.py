"""The commands of methods of the literature. Each reads a table or a run file; none holds logic of its own."""
