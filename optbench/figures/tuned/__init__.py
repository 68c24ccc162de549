"""Figures of a tuned study alone."""
