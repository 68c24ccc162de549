"""Tuned studies: the search, the selection, and the final runs."""
