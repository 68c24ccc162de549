"""Runs of a class of one's own that was edited since are not mixed with the new ones."""

import ast
import csv
import importlib
import json
import linecache
import os
import py_compile
import shutil
import subprocess
import sys
import zipfile
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from composed import resolved
from made_runs import make_run
from omegaconf import OmegaConf

from optbench.analysis.table import load_runs, read_runs
from optbench.commands import plot
from optbench.commands import report as report_command
from optbench.common.errors import UserError
from optbench.formats.groups import config_folder
from optbench.formats.older_code import sourceless, targets
from optbench.formats.run import read_record
from optbench.runner import run as experiment
from optbench.runs import own_code
from optbench.runs.own_code import installed
from optbench.runs.own_code.installed import distribution_of
from optbench.runs.own_code.syntax_trees import digest, imports
from optbench.tuning import manifest
from optbench.tuning.contenders import Contender

OPTIMIZER = '''"""One's own rule."""
import torch
from helper import scale


class Sign(torch.optim.Optimizer):
    """Moves by the sign."""

    def __init__(self, params, lr=0.01):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure):
        with torch.enable_grad():
            loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(p.grad.sign(), alpha=scale(group["lr"]))  # the step
        return loss
'''
HELPER = """def scale(lr):
    return 0.5 * lr
"""
QUICK = ["model=logreg", "data.subset=100", "epochs=1", "log.eval_test=never", "num_threads=1"]
MINE = ["optimizer._target_=my_optimizers.Sign", "optimizer.lr=0.01"]


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "my_optimizers.py").write_text(OPTIMIZER)
    (tmp_path / "helper.py").write_text(HELPER)
    return tmp_path


def command(folder: Path, *words: str) -> tuple[str, str]:
    """What a command of a process of its own says on both streams; it ends with status 0."""
    done = subprocess.run(
        [sys.executable, "-m", "optbench", *words, *QUICK, *MINE],
        env=os.environ | {"OPTBENCH_RESULTS": str(folder / "results"), "OMP_NUM_THREADS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, done.stderr


def configuration(folder: Path, *overrides: str) -> dict[str, Any]:
    quick = [text for text in QUICK if "num_threads" not in text]
    return resolved(*quick, f"results_dir={folder}", "quiet=true", *overrides)


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def seeds_in_table(folder: Path) -> list[str]:
    with (folder / "summary.csv").open(newline="") as file:
        return [row["seeds"] for row in csv.DictReader(file)]


@pytest.mark.slow
def test_edited_optimizer_is_not_mixed_with_its_older_runs(folder, capsys):
    sweep, results = ("-m", "name=mine"), folder / "results" / "mine"
    command(folder, *sweep, "seed=range(8)")
    edit(folder / "my_optimizers.py", "p.grad.sign()", "p.grad.sign().mul(0.9)")
    out, err = command(folder, *sweep, "seed=range(9)")
    assert "already done" not in out
    assert seeds_in_table(results) == ["9"]
    assert err.count("left out") == 1
    assert "left out: 8 runs made before my_optimizers.py changed" in err
    assert len(list(results.glob("*/run.json"))) == 17  # all are kept

    for edited, before, after in (
        ("my_optimizers.py", "  # the step", "  # the step, as in the paper"),
        ("my_optimizers.py", '"""Moves by the sign."""', '"""Moves\n\n    by the sign of it."""'),
        ("my_optimizers.py", '{"lr": lr}', "{\n            'lr': (lr),\n        }"),
        ("helper.py", "0.5 * lr", "0.5*lr"),
    ):
        edit(folder / edited, before, after)
    out, err = command(folder, *sweep, "seed=range(9)")
    assert out.count("already done") == 9

    for main in (plot.main, report_command.main):
        assert main([str(results)]) == 0
        assert capsys.readouterr().err == "left out: 8 runs made before my_optimizers.py changed\n"


@pytest.mark.slow  # the same by the helper, and back: six seconds of imports
def test_edited_helper_counts_until_it_is_put_back(folder):
    sweep, results = ("-m", "name=mine"), folder / "results" / "mine"
    command(folder, *sweep, "seed=0,1,2")
    edit(folder / "helper.py", "0.5 * lr", "0.6 * lr")
    out, err = command(folder, *sweep, "seed=0")
    assert "left out: 3 runs made before helper.py changed" in err
    out, err = command(folder, *sweep, "seed=0,1")
    assert out.count("already done") == 1
    assert seeds_in_table(results) == ["2"]
    assert "left out: 3 runs made before helper.py changed" in err
    # back to what it was: those runs are the ones that count again
    edit(folder / "helper.py", "0.6 * lr", "0.5 * lr")
    out, err = command(folder, *sweep, "seed=0,1,2")
    assert out.count("already done") == 3
    assert seeds_in_table(results) == ["3"]
    assert "left out: 2 runs made before helper.py changed" in err
    record = json.loads(next(results.glob("*/run.json")).read_text())
    assert set(record["code"]["my_optimizers.Sign"]) == {"my_optimizers.py", "helper.py"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder on the module path: `write` puts files into it, `code` tells a target's."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def forget() -> None:
        for name in set(sys.modules) - before:
            path = str(getattr(sys.modules[name], "__file__", None) or "")
            spaces = getattr(sys.modules[name], "__path__", [])
            if str(tmp_path) in path or any(str(tmp_path) in entry for entry in spaces):
                del sys.modules[name]
        importlib.invalidate_caches()
        distribution_of.cache_clear()
        installed._distributions.cache_clear()

    def write(**files: str) -> None:
        for name, text in files.items():  # __ for a slash
            path = tmp_path / f"{name.replace('__', '/').replace('INIT', '__init__')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        forget()

    def code(target: str, **node: object) -> dict[str, str]:
        forget()  # as a new process would begin
        return own_code.code_of({"optimizer": {"_target_": target, **node}}).get(target, {})

    yield SimpleNamespace(write=write, code=code, folder=tmp_path)
    forget()


IDENTITIES = ("4ac637b3790f", "931981e05e4f", "fe31d68d5d1b")  # as of optbench 0.1.0, before
BASE = "def f(x, *, a=1.0):\n    return [x + a, 'text']\n"


@pytest.mark.parametrize(
    "text",
    [
        "# a comment\n" + BASE,
        '"""A docstring."""\n' + BASE,
        "def f(x, *, a=1.0):\n    'One.'\n    return [x + a, 'text']  # why\n",
        'def f(\n    x,\n    *,\n    a=1.0,\n):\n\n    return [\n        (x + a), "text",\n    ]\n',
        BASE.replace("\n", "\r\n"),
        "\ufeff" + BASE,
        BASE + "pass\n",
    ],
)
def test_layout_comments_and_docstrings_do_not_count(text):
    assert digest(text.encode()) == digest(BASE.encode()) == digest(BASE)


@pytest.mark.parametrize(
    "text",
    [
        BASE.replace("1.0", "1"),
        BASE.replace("1.0", "True"),
        BASE.replace("+", "-"),
        BASE.replace("text", "texts"),
        BASE.replace("*, ", ""),
        BASE.replace("def", "async def"),
        "@staticmethod\n" + BASE,
        BASE + "a = 1\n",
        BASE + "syntax error\n",
    ],
)
def test_every_other_edit_counts(text):
    assert digest(text) != digest(BASE)


def test_digest_is_the_same_in_every_version_of_python():
    text = "@d\nclass A(B, k=1):\n    x: int = 2\n    def f(s, *a, **k): yield from s\n" + BASE
    assert digest(text) == "2f7dbbb53c3b"  # `ast.dump` of 3.13 writes less than that of 3.11


def test_deeply_nested_source_has_a_digest():
    assert digest("x = " + "-" * 5000 + "1") != digest("x = " + "-" * 5000 + "2")
    assert digest("x = " + "1+" * 5000 + "1") != digest("x = " + "1+" * 5000 + "2")


def test_imports_are_found_wherever_they_stand():
    text = (
        "import a.b as c, d\nfrom . import e\nfrom ..f import g\nfrom .h import *\n"
        "def i():\n    from j import k\n    importlib.import_module('l.m')\n"
        "    import_module('.n', __package__)\n    import_module(name)\n"
        "    __import__('o')\n    hydra.utils.get_method('p.q')\n"
    )
    assert set(imports(ast.parse(text), "x.y")) == {
        "a.b", "d", "x.y", "x.y.e", "x.f", "x.f.g", "x.y.h", "j", "j.k", "l.m", "x.y.n", "o", "p.q",
    }  # fmt: skip
    assert imports(ast.parse("from ... import z"), "x") == ["z"]  # beyond the top: of no package


@pytest.mark.parametrize(
    "text",
    [
        "import helper",
        "def late():\n    import helper",
        "from helper import *",
        "from helper import x",
        "import importlib\nh = importlib.import_module('helper')",
        "try:\n    import helper\nexcept ImportError:\n    pass",
        "import between",
        "import package.inner",
        "from package.inner import deep",
    ],
)
def test_edits_of_imported_modules_count(place, text):
    text += "\nclass Own: pass\n"
    place.write(own=text, helper="x = 1\n", between="import helper", unused="y = 1\n")
    place.write(package__INIT="", package__inner="deep = 1\nimport helper\n")
    before = place.code("own.Own")
    assert {"own.py", "helper.py"} <= set(before)
    place.write(unused="y = 2\n")
    assert place.code("own.Own") == before
    place.write(helper="x = 2\n")
    after = place.code("own.Own")
    assert {name for name in after if after[name] != before[name]} == {"helper.py"}


def test_relative_imports_packages_and_circles_are_followed(place):
    place.write(
        pack__INIT="from .one import One\n",
        pack__one="from . import two\nfrom .sub.three import three\nclass One: pass\n",
        pack__two="from . import one\nfrom .. import nothing\n",
        pack__sub__INIT="flag = 1\n",
        pack__sub__three="import pack.one\nthree = 3\n",
    )
    names = {"__init__", "one", "sub/__init__", "sub/three", "two"}
    place.write(pack__two="from . import one\n")
    assert set(place.code("pack.One")) == {f"pack/{name}.py" for name in names}
    assert place.code("pack.one.One") == place.code("pack.One")


def test_namespace_packages_links_and_zip_files_count(place):
    place.write(space__one="from space import two\nclass A: pass\n", space__two="x = 1\n")
    before = place.code("space.one.A")
    assert set(before) == {"space/one.py", "space/two.py"}
    (place.folder / "link").symlink_to(place.folder / "space", target_is_directory=True)
    assert set(place.code("link.one.A")) == {"link/one.py", "space/two.py"}
    with zipfile.ZipFile(place.folder / "z.zip", "w") as archive:
        archive.writestr("zipped.py", "import zhelper\nclass A: pass\ndef f(): pass\n")
        archive.writestr("zhelper.py", "x = 1\n")
    sys.path.insert(0, str(place.folder / "z.zip"))
    found = place.code("zipped.A")
    assert set(found) == {"zipped.py", "zhelper.py"}
    assert found == place.code("zipped.f")
    assert found["zhelper.py"] == digest("x = 1")


def test_targets_that_are_no_plain_classes_have_their_code(place):
    place.write(
        own="""
import functools, torch
from functools import partial
from helper import decorated
f = lambda x: x
made = partial(torch.optim.SGD, momentum=0.9)
wrapped = partial(f, 1)
@decorated
def g(x): return x
class A:
    def __call__(self, x): return x
    @classmethod
    def small(cls): return cls()
    class Inner: pass
instance = A()
Typed = type("Typed", (A,), {})
cached = functools.lru_cache(f)
no_grad = torch.no_grad()(f)
""",
        helper="""
import functools
def decorated(f):
    @functools.wraps(f)
    def inner(*a): return f(*a)
    return inner
""",
    )
    names = ["f", "made", "wrapped", "g", "A", "A.small", "A.Inner", "instance", "Typed", "cached"]
    for name in [*names, "no_grad"]:
        found = place.code(f"own.{name}")
        assert set(found) == {"own.py", "helper.py"}, name
        assert not sourceless({name: found}), name


def test_targets_of_torch_and_optbench_have_no_code(place):
    for path in sorted(config_folder().rglob("*.yaml")):
        found = own_code.code_of({"x": OmegaConf.to_container(OmegaConf.load(path))})
        packages = {version for one in found.values() for version in one}  # no file's bytes
        assert packages <= {"pytorch-optimizer", "schedulefree", "prodigyopt"}, path
    for target in ("functools.partial", "builtins.dict", "math.sqrt", "collections.OrderedDict"):
        assert place.code(target) == {}


def test_own_code_may_import_torchvision(place):
    """Beside a CPU-only torch, too, where its import needs help."""
    place.write(own="from torchvision.models import resnet18\ndef f(): return resnet18()\n")
    found = place.code("own.f")
    assert set(found) == {"own.py", "torchvision"}
    assert not sourceless({"": found})


def test_nested_targets_and_references_are_found():
    node = {
        "_target_": "a.A",
        "inner": [{"_target_": "b.B", "_partial_": True, "x": {"_target_": "c.C"}}],
        "f": {"_target_": "hydra.utils.get_method", "path": "d.d"},
        "g": {"_target_": "hydra.utils.get_class", "_args_": ["e.E"]},
        "name": "no.target",
    }
    named = set(targets({"optimizer": node}))
    assert named - {"hydra.utils.get_method", "hydra.utils.get_class"} == {
        "a.A", "b.B", "c.C", "d.d", "e.E",
    }  # fmt: skip


def distribution(folder: Path, name: str, version: str, *files: str, editable=False) -> None:
    """The metadata of an installed distribution, as pip writes it."""
    for old in folder.glob(f"{name}-*.dist-info"):
        shutil.rmtree(old)
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    if editable:
        told = {"url": "file:///x", "dir_info": {"editable": True}}
        (info / "direct_url.json").write_text(json.dumps(told))


@pytest.mark.parametrize("usual", ["site-packages", "dist-packages"])
def test_other_distributions_count_by_name_and_version(place, usual):
    site = place.folder / "env" / usual
    sys.path.insert(0, str(site))
    place.write(
        **{f"env__{usual}__theirs__opt": "class A: pass\n", "own": "import theirs.opt\nf=1"}
    )
    distribution(site, "Their_Package", "1.0", "theirs/opt.py")
    assert place.code("theirs.opt.A") == {"their-package": "1.0"}
    assert place.code("own.f")["their-package"] == "1.0"
    place.write(**{f"env__{usual}__theirs__opt": "class A: x = 1\n"})
    assert place.code("theirs.opt.A") == {"their-package": "1.0"}
    distribution(site, "Their_Package", "1.1", "theirs/opt.py")
    assert place.code("theirs.opt.A") == {"their-package": "1.1"}
    # of no distribution: there is no version that could tell of a change
    place.write(**{f"env__{usual}__loose": "class A: x = 1\n"})
    assert place.code("loose.A") == {"loose.py": digest("class A: x = 1")}
    # a folder of the user's own that lies below one of that name
    place.write(**{f"env__{usual}__project__mine": "class A: x = 2\n"})
    sys.path.insert(0, str(site / "project"))
    assert place.code("mine.A") == {"mine.py": digest("class A: x = 2")}


def test_editable_packages_are_own_code(place, monkeypatch):
    site, source = place.folder / "env" / "site-packages", place.folder / "checkout"
    sys.path.insert(0, str(site))
    place.write(checkout__pack__INIT="", checkout__pack__opt="from . import other\nclass A: pass")
    place.write(checkout__pack__other="x = 1\n")
    distribution(site, "pack", "1.0", "__editable__.pack.pth", editable=True)
    expected = {f"pack/{name}.py" for name in ("__init__", "opt", "other")}

    class Finder:  # as setuptools installs one (PEP 660)
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "pack":
                return spec_from_file_location(name, source / "pack" / "__init__.py")
            return None

    with monkeypatch.context() as patch:
        patch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
        assert set(place.code("pack.opt.A")) == expected
    with monkeypatch.context() as patch:  # by a path in a .pth file
        patch.syspath_prepend(str(source))
        before = place.code("pack.opt.A")
        assert set(before) == expected
        place.write(checkout__pack__other="x = 2\n")
        assert place.code("pack.opt.A") != before
    (site / "pack").symlink_to(source / "pack", target_is_directory=True)  # as flit does
    distribution(site, "pack", "1.0", "pack/opt.py", "pack/__init__.py", editable=True)
    assert set(place.code("pack.opt.A")) == expected


def test_what_has_no_source_is_never_the_same(place, capsys):
    place.write(own="exec('class A: \\n  def f(self): pass\\ndef f(): pass')\nB = A\n", mod="x=1\n")
    place.write(user="try:\n  import compiled\nexcept ImportError: pass\nclass A: pass\n")
    py_compile.compile(str(place.folder / "mod.py"), str(place.folder / "compiled.pyc"))
    for target in ("own.A", "own.B", "own.f", "compiled.x", "user.A", "own.nothing", "absent.A"):
        first, again = place.code(target), place.code(target)
        assert sourceless({target: first}) == [target], target
        assert first != again, target
        own_code.tell({target: first})
    told = capsys.readouterr().err
    assert told.count("by code without source") == 5  # what cannot be imported says so itself
    assert "user.A is made by code without source (compiled)" in told


def test_files_that_cannot_be_read_or_parsed_still_count(place, monkeypatch):
    user = "try:\n  import helper\nexcept Exception: pass\nclass A: pass\n"
    place.write(user=user, helper="not python at all\n")
    before = place.code("user.A")
    assert not sourceless({"": before})
    place.write(helper="not python at all either\n")
    assert place.code("user.A")["helper.py"] != before["helper.py"]
    read = Path.read_bytes

    def refused(path):
        if path.name == "helper.py":
            raise PermissionError(13, "no", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refused)
    assert sourceless({"": place.code("user.A")})


def notebook(*cells: str) -> ModuleType:
    """`__main__` after the cells were run, as IPython runs them."""
    module = ModuleType("__main__")
    for text in cells:
        name = f"<ipython-input-{hash(text)}>"
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
        exec(compile(text, name, "exec"), vars(module))
    return module


def test_cells_of_a_notebook_count_with_those_that_they_use(place, monkeypatch):
    place.write(helper="x = 1\n")
    uses = "class A:\n    '''It.'''\n    def f(self): return scale(BETA) + helper.x\n"
    first = ["import helper", "BETA = 0.9", "def scale(x): return x", "unused = 1", uses]

    def code(*cells: str) -> dict[str, str]:
        monkeypatch.setitem(sys.modules, "__main__", notebook(*cells))
        return place.code("__main__.A")

    before = code(*first)
    assert set(before) == {"notebook", "helper.py"}
    same = [*first[:3], "unused = 2", "# a comment\n" + uses.replace("It.", "That.")]
    assert code(*same) == before
    for place_, text in ((1, "BETA = 0.8"), (2, "def scale(x): return 2 * x"), (4, uses + "\nB=1")):
        assert code(*first[:place_], text, *first[place_ + 1 :])["notebook"] != before["notebook"]
    assert sourceless({"": code("exec('class A:\\n  def f(self): pass')")})
    bare = f"class Bare{len(linecache.cache)}(int): pass\n"
    monkeypatch.setitem(sys.modules, "__main__", notebook(bare))
    target = f"__main__.{bare[6:].partition('(')[0]}"
    assert set(place.code(target)) == {"notebook"}
    monkeypatch.setitem(sys.modules, "__main__", notebook(bare, bare.replace("int", "float")))
    assert sourceless({"": place.code(target)})  # which of the two cannot be told


def test_a_script_is_own_code(place, monkeypatch):
    place.write(script="import helper\nclass A:\n    def f(self): pass\n", helper="x = 1")
    module = ModuleType("__main__")
    path = place.folder / "script.py"
    module.__file__ = str(path)
    exec(compile(path.read_text(), str(path), "exec"), vars(module))
    monkeypatch.setitem(sys.modules, "__main__", module)
    assert set(place.code("__main__.A")) == {"script.py", "helper.py"}


def test_edits_count_once_the_module_is_loaded_again(place):
    place.write(own="from helper import x\ndef f(): return x\n", helper="def x(): return 1\n")
    groups = {"optimizer": {"_target_": "own.f"}}
    before = own_code.code_of(groups)
    (place.folder / "helper.py").write_text("def x(): return 2.5\n")
    assert own_code.code_of(groups) == before  # what is loaded is what runs
    importlib.reload(sys.modules["helper"])
    after = own_code.code_of(groups)
    assert after["own.f"]["helper.py"] != before["own.f"]["helper.py"]
    with pytest.raises(UserError, match=r"helper\.py changed while the sweep was running"):
        own_code.check_unchanged(after, {"code": before})
    own_code.check_unchanged(after, {"code": after})


def test_a_run_begun_with_other_code_begins_anew(place, capsys):
    text = "import torch\nclass Own(torch.optim.SGD):\n    pass\n"
    place.write(own=text)
    config = configuration(place.folder, "model=logreg", "epochs=6", "log.steps=1")
    config["optimizer"] = {"_target_": "own.Own", "_partial_": True, "name": "Own", "lr": 0.1}

    def planned() -> experiment.Plan:
        return experiment.plan(config, place.folder / "runs")

    def until(step: int) -> experiment.Outcome:
        calls = iter(range(10**6))
        return experiment.complete(planned(), lambda update: None, lambda: next(calls) >= step)

    first = until(3)
    assert first.status == "interrupted"
    place.write(own=text + "# a comment\n")
    assert experiment.unfinished(planned()) is not None
    place.write(own=text.replace("pass", "rate = 1"))
    capsys.readouterr()
    second = until(10**6)
    assert second.status == "completed"
    assert second.folder != first.folder
    assert f"{first.folder} was begun before own.py changed, so the run restarts" in (
        capsys.readouterr().err
    )
    records = [read_record(path / "run.json") for path in (first.folder, second.folder)]
    assert records[0]["run_id"] != records[1]["run_id"]
    assert records[0]["problem_hash"] == records[1]["problem_hash"]
    assert planned().done == second.folder
    place.write(own=text)
    assert experiment.unfinished(planned()) is not None  # back again: it goes on


@pytest.mark.parametrize("group", ["model", "loss", "dataset", "optimizer", "schedule"])
def test_code_of_the_problem_is_part_of_its_hash(place, group):
    targets = {
        "model": "optbench.models.logreg",
        "loss": "optbench.losses.cross_entropy",
        "dataset": "optbench.datasets.mnist_5k",
        "optimizer": "torch.optim.SGD",
        "schedule": "optbench.schedules.constant",
    }
    module, _, name = targets[group].rpartition(".")
    text = f"from {module} import {name}\nx = 1\n"
    place.write(own=text)
    config = configuration(place.folder, "model=logreg", "optimizer=sgd", "schedule=constant")
    usual = experiment.plan(config, place.folder / "runs").record
    assert "code" not in usual
    config[group] = config[group] | {"_target_": f"own.{name}"}
    before = experiment.plan(config, place.folder / "runs").record
    assert before["code"] == {f"own.{name}": {"own.py": digest(text)}}
    place.write(own=text + "y = 2\n")
    after = experiment.plan(config, place.folder / "runs").record
    assert after["run_id"] != before["run_id"]
    of_problem = group in ("model", "loss", "dataset")
    assert (after["problem_hash"] != before["problem_hash"]) == of_problem
    assert after["settings_hash"] == before["settings_hash"]
    assert after["problem"] == before["problem"]


def test_a_run_without_source_goes_on_and_is_never_reused(place, capsys):
    place.write(own="exec('import torch\\nclass Own(torch.optim.SGD):\\n    pass')\n")
    config = configuration(place.folder, "model=logreg", "epochs=1", "log.steps=1")
    config["optimizer"] = {"_target_": "own.Own", "_partial_": True, "name": "Own", "lr": 0.1}
    first, second = (experiment.run(config, place.folder / "runs") for _ in range(2))
    assert first.status == second.status == "completed"
    assert not second.known
    assert first.folder != second.folder
    assert capsys.readouterr().err.count("by code without source") == 1


def test_results_of_older_versions_keep_their_identity():
    """Runs of conf/ are described as before there was code in it."""
    config = configuration(Path("results"), "optimizer=adam", "model=logreg")
    record = experiment.plan(config, Path("results") / "runs").record
    assert (record["run_id"], record["problem_hash"], record["settings_hash"]) == IDENTITIES


def test_tables_hold_the_newest_code_of_each_target(tmp_path):
    def made(name: str, seed: int, code: object, day: int, **more: object) -> None:
        target = {"optimizer___target_": f"own.{name}"}
        times = {"started": f"2026-01-{day:02}T00:00:00+00:00", **more}
        record = times | ({"code": code} if code else {})
        folder = tmp_path / f"{name}-{seed}-{day}"
        make_run(folder, name, seed, record=record | {"run_id": folder.name}, **target)

    one, two = ({"own.one": {"own.py": "a" * 12}}, {"own.one": {"own.py": "b" * 12}})
    for seed in range(3):
        made("one", seed, one, 1)
    made("one", 3, None, 1)  # of an older version of optbench
    made("one", 0, two, 2)
    made("other", 0, {"own.other": {"own.py": "a" * 12}}, 1)  # was not run again
    table = read_runs(tmp_path)
    assert sorted(table.attrs["older"]) == [
        "1 run made before optbench told versions of own.py apart",
        "3 runs made before own.py changed",
    ]
    assert table.attrs["problems"] == []
    kept = {Path(run).name for run in table["run"].unique()}
    assert kept == {"one-0-2", "other-0-1"}
    made("one", 1, one, 3)  # what was edited was put back
    table = read_runs(tmp_path)
    assert "1 run made before own.py changed" in table.attrs["older"]
    assert len(table["run"].unique()) == 5
    with pytest.warns(UserWarning, match=r"left out: 1 run made before own\.py changed"):
        load_runs(tmp_path)


@pytest.mark.parametrize("code", [1, [], "x", {"own.one": 1}, {"own.one": {"\x1b[31mo.py": 2}}])
def test_records_from_others_are_read_without_running_them(tmp_path, code):
    make_run(tmp_path / "a", "one", record={"code": code}, optimizer___target_="own.one")
    make_run(tmp_path / "b", "one", 1, record={"code": {"own.one": {"own.py": "c"}},
             "started": "2026-02-01"}, optimizer___target_="own.one")  # fmt: skip
    table = read_runs(tmp_path)
    assert len(table["run"].unique()) == 1
    assert "\x1b" not in table.attrs["older"][0]
    assert "own" not in sys.modules


def test_manifest_drops_earlier_entries_of_older_code():
    def entry(problem: str, code: dict) -> dict[str, object]:
        return {"optimizer": "sgd", "problem": problem, "code": code, "trials": [], "space": {},
                "overrides": ["optimizer=sgd"], "warnings": []}  # fmt: skip

    now = {"own.model": {"own.py": "b"}}
    contender = Contender(["optimizer=sgd"], "sgd", {}, problem="p1", code=now)
    earlier = [
        entry("p0", {"own.model": {"own.py": "a"}}),
        entry("p2", now),
        entry("p3", {"own.other": {"own.py": "a"}}),
        entry("p4", {}),
    ]
    settings = {"pick": "final", "seeds_per_trial": 1}
    told = manifest.describe([contender], settings, 8, {}, earlier)
    assert [each["problem"] for each in told["earlier"]] == ["p2", "p3", "p4"]
    assert told["contenders"][0]["code"] == now


def test_target_of_a_package_that_does_not_import_is_named_by_its_version(place):
    site = place.folder / "env" / "site-packages"
    sys.path.insert(0, str(site))
    place.write(**{"env__site-packages__broken": "raise RuntimeError\n"})
    distribution(site, "broken", "2.0", "broken.py")
    assert place.code("broken.A") == {"broken": "2.0"}


def test_reading_imports_neither_torch_nor_what_a_run_names(tmp_path):
    """In a process of its own: this one has long imported torch."""
    code = {"own.one": {"own.py": "a"}}
    make_run(tmp_path / "a", "one", record={"code": code}, optimizer___target_="own.one")
    (tmp_path / "own.py").write_text("raise SystemExit('it was run')\n")
    text = (
        "import sys; from optbench.analysis.table import read_runs; read_runs('a'); "
        "print({'torch', 'hydra', 'own', 'optbench.runs.own_code'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "set()\n", done.stderr
