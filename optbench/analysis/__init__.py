"""From a table of runs to what may be said about them; neither torch nor Hydra."""
