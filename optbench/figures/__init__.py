"""Figures of a comparison: pure functions of its series."""
