"""The memory allocator that a command starts itself again with."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from optbench.allocator import CHOICE, chosen, fits, folders, in_use, installed, is_limited

linux = pytest.mark.skipif(sys.platform != "linux", reason="the dynamic linker is Linux's")
HEADER = Path(sys.executable).read_bytes()[:64]


def library(folder: Path, name: str, header: bytes = HEADER) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(header)
    return folder / name


@linux
def test_the_fastest_known_one_is_found(tmp_path):
    places = [tmp_path / "a", tmp_path / "none", tmp_path / "b"]
    assert installed(places) is None
    tcmalloc = library(places[0], "libtcmalloc_minimal.so.4")
    library(places[0], "libtcmalloc_minimal_debug.so.4")
    library(places[0], "libjemalloc.so.2")
    assert installed(places) == tcmalloc
    mimalloc = library(places[2], "libmimalloc.so.2")
    assert installed(places) == mimalloc


@linux
def test_one_for_another_machine_is_left_alone(tmp_path):
    other = HEADER[:4] + bytes([3 - HEADER[4]]) + HEADER[5:]  # 32 bits for 64
    assert installed([library(tmp_path, "libmimalloc.so", other).parent]) is None
    assert not fits(library(tmp_path, "libmimalloc.so.2", b"GROUP ( libmimalloc.a )"))
    assert not fits(library(tmp_path / "a b", "libmimalloc.so.2"))  # the linker would cut it there
    assert not fits(tmp_path)


@linux
def test_a_choice_goes_before_what_is_installed(tmp_path, monkeypatch):
    monkeypatch.setenv(CHOICE, "none")
    assert chosen() is None
    own = library(tmp_path, "libown.so")
    monkeypatch.setenv(CHOICE, str(own))
    assert chosen() == own
    monkeypatch.setenv(CHOICE, str(tmp_path / "nothing.so"))
    with pytest.raises(ValueError, match="the path of a library"):
        chosen()
    monkeypatch.delenv(CHOICE)
    assert chosen() == installed(folders())


@pytest.mark.parametrize("preloaded", ["", "/usr/lib/libfaketime.so.1", "/no/libmimalloc.so.2"])
def test_what_does_not_allocate_is_not_named(monkeypatch, preloaded):
    monkeypatch.setenv("LD_PRELOAD", preloaded)
    assert in_use() == "system"


@linux
def test_where_the_address_space_is_limited_the_systems_stays(monkeypatch):
    limits = {"resource": resource.RLIM_INFINITY}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limits["resource"],) * 2)
    assert not is_limited()
    limits["resource"] = 2**30
    assert is_limited()


REMOVED = ("LD_PRELOAD", "OPTBENCH_RESULTS", CHOICE)


def run(folder: Path, *words: str, **changes: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in REMOVED}
    command = [sys.executable, "-m", "optbench", *words]
    return subprocess.run(
        command, env=environment | changes, cwd=folder, capture_output=True, text=True
    )


QUICK = ["data.subset=100", "model.hidden=[4]", "steps=2", "epochs=null", "quiet=true"]


@linux
def test_a_command_trains_with_it_and_says_so_in_its_record(tmp_path):
    compiled = tmp_path / "libownmalloc.so"
    compiler = ["cc", "-shared", "-x", "c", "-o", str(compiled), os.devnull]
    if subprocess.run(["which", "cc"], capture_output=True).returncode:
        pytest.skip("no C compiler")
    subprocess.run(compiler, check=True)
    ended = run(tmp_path, *QUICK, "name=own", OPTBENCH_ALLOCATOR=str(compiled))
    assert ended.returncode == 0, ended.stderr
    run(tmp_path, *QUICK, "name=none", "seed=1", OPTBENCH_ALLOCATOR="none")
    for name, expected in (("own", compiled.name), ("none", "system")):
        (path,) = tmp_path.glob(f"results/{name}/*/run.json")
        assert json.loads(path.read_text())["machine"]["allocator"] == expected


@linux
def test_another_program_is_not_begun_again(tmp_path):
    # as in a worker of pytest-xdist, whose sys.argv is its parent's
    code = "import sys; sys.argv = ['-m']; import optbench; print('here')"
    environment = os.environ | {CHOICE: str(library(tmp_path, "libown.so"))}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert ended.stdout == b"here\n"


@linux
def test_a_choice_that_is_no_library_is_an_error(tmp_path):
    ended = run(tmp_path, "--help", OPTBENCH_ALLOCATOR="mimaloc")
    assert ended.returncode == 1
    assert ended.stderr.startswith("optbench: OPTBENCH_ALLOCATOR must be the path of a library")
    assert not ended.stdout
