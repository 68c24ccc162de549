"""The training loop and what it measures; it knows no files and no engine."""
