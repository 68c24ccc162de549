"""The sections of the page, as data for the page's script."""
