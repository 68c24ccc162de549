"""The formats of runs, job lists and studies, for training and analysis alike."""
