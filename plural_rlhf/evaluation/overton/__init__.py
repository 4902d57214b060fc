"""Whether answers represent every reasonable view of a question: windows of views, OvertonScore, judges, clusters."""
