"""The folder of a run: its files, its checkpoints, its locks, the code it ran."""
