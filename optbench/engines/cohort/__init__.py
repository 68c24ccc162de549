"""Several runs trained as one: stacked models, stacked optimizers."""
