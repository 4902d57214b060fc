"""Methods of the founding texts beside the jury and its trainers, each one room."""
