"""The folder of the configuration files."""

from pathlib import Path


def config_folder() -> Path:
    """`conf/`: beside the package in a checkout, inside it where it is installed."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"
