"""One self-contained page about a comparison."""
