"""Time optbench and its peers on the same jobs: `python -m scripts.benchmark`."""
