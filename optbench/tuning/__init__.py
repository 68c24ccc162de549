"""Tuned studies: search, selection, final runs."""
