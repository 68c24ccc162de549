"""What is borrowed from the inside of Hydra: the only module that imports or changes it.

`BORROWED` names all of it, with the reason; a test says which a new version no longer has.
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

# since 1.4: Hydra wants to be told what it may call, and has its version's defaults alone
WANTS_NAMES = "execution_whitelist" in signature(hydra.main).parameters
VERSION_BASE: dict[str, str] = {} if WANTS_NAMES else {"version_base": "1.3"}
# object: its attributes, and what they are for
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
    """Return a sentence for each thing of `BORROWED` that this version of Hydra lacks."""
    return [
        f"this version of Hydra has no {owner.__name__}.{name}: {why}"
        for owner, (names, why) in BORROWED.items()
        for name in names
        if not hasattr(owner, name)
    ]


def note_overrides_dirname(job: Any, overrides: list[Any]) -> None:
    """Set `hydra.job.override_dirname` of these overrides, as Hydra does where it composes.

    From Hydra 1.4 on the value is an interpolation, and there is nothing to set.
    """
    if hasattr(config_loader_impl, "get_overrides_dirname"):
        settings = job.config.override_dirname
        name = config_loader_impl.get_overrides_dirname(overrides=overrides, **settings)
        job.override_dirname = name


def mend_parser() -> None:
    """Let Hydra's parser work under `python -O`: it moves on to the next token within an assert.

    Its own source is compiled with its asserts, and the two methods that need them are taken.
    Without this `+optimizer.search.lr={low:...}`, `range(3)` and `glob(*)` end in an error.
    """
    if __debug__:
        return
    name, source = overrides_visitor.__name__, str(overrides_visitor.__file__)
    loader = WithAsserts(name, source)  # of Hydra's file, as it is installed
    again = module_from_spec(ModuleSpec(name, loader, origin=source))
    loader.exec_module(again)
    for method in ("visitDictKeyValuePair", "visitFunction"):
        mended = vars(again.HydraOverrideVisitor)[method]
        setattr(HydraOverrideVisitor, method, mended)


class WithAsserts(SourceFileLoader):
    """Loads a module with its asserts, whatever `python -O` says."""

    def get_code(self, fullname: str) -> Any:
        """The module's code, compiled anew from its source."""
        path = self.get_filename(fullname)
        return compile(self.get_data(path), path, "exec", optimize=0)
