"""What is borrowed from the inside of Hydra and torch is there, or a sentence says what is gone."""

import re
import sys
from importlib import import_module
from pathlib import Path

import hydra
import pytest
from torch.optim import optimizer as torch_optimizer

from optbench import torch_internals

PACKAGE = Path(torch_internals.__file__).parent
HYDRA = re.compile(r"(from|import) hydra\._internal|overrides_visitor")
TORCH = re.compile(
    r"(?<!\")\b(torch|nn|F|optim|lr_scheduler)(\.\w+)*\._[a-zA-Z]|_has_any_global_hook|_global_optimizer"
    r"|_optimizer_step_p|\._forward_|\._parameters|\._buffers|\._modules|\"_parameters|_flat_weights"
    r"|_wrapped_by_lr|_scale_fn_custom"
)


def test_hydra_and_torch_have_what_is_borrowed():
    hydra_internals = import_module("optbench.config.hydra_internals")
    assert hydra_internals.missing() == [], f"Hydra {hydra.__version__}"
    assert torch_internals.missing() == []


def test_a_class_that_hydra_lacks_is_named(monkeypatch):
    inside = import_module("hydra._internal.core_plugins.basic_sweeper")
    monkeypatch.delitem(sys.modules, "optbench.config.hydra_internals", raising=False)
    monkeypatch.delattr(inside, "BasicSweeper")
    with pytest.raises(
        ImportError, match=r"this version of Hydra \(.*\) has no longer .*BasicSweeper"
    ):
        import_module("optbench.config.hydra_internals")


def test_an_attribute_that_is_gone_is_named(monkeypatch):
    hydra_internals = import_module("optbench.config.hydra_internals")
    monkeypatch.delattr(hydra_internals.BasicSweeper, "split_arguments")
    (line,) = hydra_internals.missing()
    assert line.startswith("this version of Hydra has no BasicSweeper.split_arguments: sweeps.")
    monkeypatch.delattr(torch_optimizer, "_global_optimizer_pre_hooks")
    monkeypatch.setattr(torch_internals, "OPTIMIZER_ATTRIBUTES", {"state"})
    lines = torch_internals.missing()
    assert (
        "this version of torch has no _global_optimizer_pre_hooks of torch.optim.optimizer" in lines
    )
    assert "this version of torch gives an optimizer defaults" in lines


@pytest.mark.parametrize(
    ("inside", "home"), [(HYDRA, "hydra_internals.py"), (TORCH, "torch_internals.py")]
)
def test_one_module_borrows(inside, home):
    plugins = PACKAGE.parent / "hydra_plugins"
    found = [*PACKAGE.rglob("*.py"), *plugins.rglob("*.py")]
    borrowers = {path.name for path in found if inside.search(path.read_text("utf-8"))}
    assert borrowers == {home}
