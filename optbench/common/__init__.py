"""Errors, the console, files and text, for every room."""
