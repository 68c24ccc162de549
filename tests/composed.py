"""Configurations as the command line composes them."""

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from optbench.config.hydra_internals import VERSION_BASE
from optbench.config.resolve import resolve
from optbench.formats.groups import config_folder
from optbench.formats.keys import RunConfig

CONF = config_folder()


def resolved(*overrides: str, multirun: bool = False) -> dict:
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        config = compose("config", overrides=list(overrides), return_hydra_config=multirun)
    if multirun:
        return OmegaConf.to_container(config, resolve=False)
    return OmegaConf.to_container(config, resolve=True)


def configuration(*overrides: str) -> RunConfig:
    """Return what a run of this command line gets: the same, checked by `resolve`."""
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        return resolve(compose("config", list(overrides)), overrides)
