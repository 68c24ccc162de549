"""The folder of a run: its files, checkpoints, locks, and the code that it ran."""
