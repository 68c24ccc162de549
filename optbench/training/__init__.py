"""The training loop and its measurements; this room knows no files and no engine."""
