"""The only module that imports or changes Hydra's internals.

`BORROWED` lists each of them with the reason. A test names those that a new Hydra lacks.
"""

from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec
from inspect import signature
from typing import Any

import hydra

try:
    from hydra._internal import config_loader_impl
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.core_plugins import basic_sweeper
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser import overrides_visitor
    from hydra.core.override_parser.overrides_visitor import HydraOverrideVisitor
except ImportError as error:
    raise ImportError(
        f"this version of Hydra ({hydra.__version__}) has no longer what optbench borrows from its "
        f"inside: {error}. Install a hydra-core that pyproject.toml allows"
    ) from error

__all__ = ["BasicSweeper", "ConfigLoaderImpl", "basic_sweeper"]

# Hydra 1.4 requires a list of what it may call, and has no older defaults to choose from.
WANTS_NAMES = "execution_whitelist" in signature(hydra.main).parameters
VERSION_BASE: dict[str, str] = {} if WANTS_NAMES else {"version_base": "1.3"}
# The attributes of each borrowed object, and their purpose.
BORROWED: dict[Any, tuple[tuple[str, ...], str]] = {
    ConfigLoaderImpl: (
        ("load_configuration", "load_sweep_config", "validate_sweep_overrides_legal",
         "_apply_overrides_to_config"),
        "sweeps.sweep_loader composes a sweep's jobs once per choice of groups",
    ),
    BasicSweeper: (
        ("split_arguments", "split_overrides_to_chunks", "sweep"),
        "sweeps.grid makes a sweep's jobs of its batches, and hydra/sweeper=grid runs them",
    ),
    HydraOverrideVisitor: (
        ("visitDictKeyValuePair", "visitFunction"),
        "mend_parser compiles them with their asserts",
    ),
}  # fmt: skip


def missing() -> list[str]:
    """Return a sentence for each entry of `BORROWED` that the installed Hydra lacks."""
    return [
        f"this version of Hydra has no {owner.__name__}.{name}: {why}"
        for owner, (names, why) in BORROWED.items()
        for name in names
        if not hasattr(owner, name)
    ]


def note_overrides_dirname(job: Any, overrides: list[Any]) -> None:
    """Set `hydra.job.override_dirname` for the overrides, as Hydra's composition does.

    From Hydra 1.4 on the value is an interpolation, so there is nothing to set.
    """
    if hasattr(config_loader_impl, "get_overrides_dirname"):
        settings = job.config.override_dirname
        name = config_loader_impl.get_overrides_dirname(overrides=overrides, **settings)
        job.override_dirname = name


def mend_parser() -> None:
    """Make Hydra's parser work under `python -O`.

    The parser moves to the next token inside an assert. Two of its methods are compiled again with
    their asserts. Otherwise `+optimizer.search.lr={low:...}`, `range(3)` and `glob(*)` fail.
    """
    if __debug__:
        return
    name, source = overrides_visitor.__name__, str(overrides_visitor.__file__)
    loader = WithAsserts(name, source)  # the source file of the installed Hydra
    again = module_from_spec(ModuleSpec(name, loader, origin=source))
    loader.exec_module(again)
    for method in ("visitDictKeyValuePair", "visitFunction"):
        mended = vars(again.HydraOverrideVisitor)[method]
        setattr(HydraOverrideVisitor, method, mended)


class WithAsserts(SourceFileLoader):
    """A loader that keeps a module's asserts, also under `python -O`."""

    def get_code(self, fullname: str) -> Any:
        """Return the module's code, compiled anew from its source."""
        path = self.get_filename(fullname)
        return compile(self.get_data(path), path, "exec", optimize=0)
