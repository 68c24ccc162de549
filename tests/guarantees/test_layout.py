"""The rooms of optbench/ are small, import in one direction, and go round in no circle.

Imports count wherever they stand: within functions, and for types alone.
"""

import os
import subprocess
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[2]
MOST_MODULES = 16  # of one folder, __init__ counted
CONTRACTS_OF = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"][
    "contracts"
]
CONTRACTS = [contract["name"] for contract in CONTRACTS_OF]


def folders() -> list[Path]:
    top = ROOT / "optbench"
    return [top, *sorted(path for path in top.rglob("*") if path.is_dir())]


@pytest.mark.parametrize("folder", folders(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_folder_has_more_modules_than_a_room_holds(folder):
    modules = sorted(path.name for path in folder.glob("*.py"))
    assert len(modules) <= MOST_MODULES, modules


def test_no_modules_import_each_other_in_a_circle():
    graph = grimp.build_graph("optbench", cache_dir=None)
    assert len(graph.modules) > 100
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


@pytest.fixture(scope="module")
def linted() -> str:
    """Return what import-linter says of all contracts."""
    if not (ROOT / "optbench" / "engines").exists():
        pytest.skip("the contracts name the engines, and optbench runs without them")
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as main; main()",
         "--no-cache"],
        cwd=ROOT, env=os.environ | {"COLUMNS": "200"}, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", CONTRACTS)
def test_every_contract_of_imports_is_kept(linted, name):
    assert f"\n{name} KEPT" in linted, linted


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        (
            "Hydra stays in the rooms that compose configurations",
            {"__main__", "program", "config", "sweeps", "tuning"},
        ),
        ("Only the runner knows the engines", {"runner", "engines"}),
    ],
)
def test_contracts_name_every_module_that_they_bind(name, allowed):
    bound = next(contract for contract in CONTRACTS_OF if contract["name"] == name)
    names = {module.removeprefix("optbench.") for module in bound["source_modules"]}
    top = {path.stem for path in (ROOT / "optbench").glob("*.py")} - {"__init__"}
    rooms = {path.parent.name for path in (ROOT / "optbench").glob("*/__init__.py")}
    assert (top | rooms) - allowed <= names
