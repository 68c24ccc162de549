"""Configurations as the command line composes them."""

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from optbench.config.resolve import config_folder

CONF = config_folder()


def resolved(*overrides: str, multirun: bool = False) -> dict:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=list(overrides), return_hydra_config=multirun)
    if multirun:
        return OmegaConf.to_container(config, resolve=False)
    return OmegaConf.to_container(config, resolve=True)
