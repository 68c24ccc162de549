"""The sections of the page, as data for its script."""
