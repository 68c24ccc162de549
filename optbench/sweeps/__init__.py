"""Sweeps of many runs: jobs, worker processes, and the figures at the end."""
