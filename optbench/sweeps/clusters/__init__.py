"""Schedulers that start workers on other machines: Slurm and Ray."""
