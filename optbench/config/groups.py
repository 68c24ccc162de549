"""The folder of the configuration files, and the choices in it."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml


def config_folder() -> Path:
    """Return the folder `conf/`: beside the package in a checkout, else inside it."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


def options(folder: Path) -> list[str]:
    """Return the names of a group's choices, as written in `GROUP=NAME`."""
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))


@cache
def read_yaml(path: Path) -> dict[str, Any]:
    """Return the content of one of optbench's own configuration files."""
    return yaml.safe_load(path.read_text("utf-8"))
