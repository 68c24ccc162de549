"""The training loop and its measurements; no file is written, no engine imported."""
