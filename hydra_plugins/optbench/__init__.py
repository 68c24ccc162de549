"""optbench's Hydra plugins, with few imports: Hydra loads them at every start."""
