"""Turn a table of runs into verdicts, with neither torch nor Hydra."""
