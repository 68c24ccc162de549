"""Compare optimizers honestly: paired seeds, equal budgets, one command."""

__version__ = "0.1.0"
