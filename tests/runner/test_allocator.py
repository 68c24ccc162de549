"""`scripts/run` preloads a faster allocator of memory where there is one; `run.json` says which."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from optbench.runs import provenance

ROOT = Path(__file__).resolve().parents[2]
CACHE = """412 libs found in cache `/etc/ld.so.cache'
\tlibtcmalloc_minimal_debug.so.4 (libc6,x86-64) => /lib/libtcmalloc_minimal_debug.so.4
\tlibtcmalloc_minimal.so.4 (libc6,x86-64) => /lib/libtcmalloc_minimal.so.4
\tlibjemalloc.so.2 (libc6,x86-64) => /lib/libjemalloc.so.2
"""
MIMALLOC = "\tlibmimalloc.so.2 (libc6,x86-64) => /lib/libmimalloc.so.2\n"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the dynamic linker is Linux's")


@pytest.fixture
def preloaded(tmp_path):
    """Return what `scripts/run` preloads, in a checkout whose Python only tells that."""
    (tmp_path / "scripts").mkdir()
    for name in ("scripts/run", "scripts/setup", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    made = "cat pyproject.toml constraints.txt | cksum > .venv/installed-run"
    subprocess.run(["bash", "-c", made], cwd=tmp_path, check=True)
    write(programs / "python", 'echo "${LD_PRELOAD-unset}"')

    def run(cache: str, before: str = "true", **variables: str) -> str:
        write(programs / "ldconfig", f"printf '%s' {shlex.quote(cache)}")
        kept = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
        kept["PATH"] = f"{programs}{os.pathsep}{kept['PATH']}"
        python3 = f'python3() {{ {shlex.quote(sys.executable)} "$@"; }}; export -f python3'
        ended = subprocess.run(
            ["bash", "-c", f"{python3}; {before}; exec scripts/run"],
            env=kept | variables, cwd=tmp_path, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return ended.stdout.strip()

    return run


def write(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)


def test_the_fastest_allocator_that_is_there_is_preloaded(preloaded):
    assert preloaded("") == "unset"
    assert preloaded(CACHE) == "libtcmalloc_minimal.so.4"
    assert preloaded(CACHE + MIMALLOC) == "libmimalloc.so.2"


def test_a_choice_of_the_users_stays(preloaded):
    assert preloaded(MIMALLOC, LD_PRELOAD="") == ""


def test_with_a_limited_address_space_the_systems_allocator_stays(preloaded):
    assert preloaded(MIMALLOC, before="ulimit -v 8000000") == "unset"


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize("bare", [False, True])
def test_the_record_names_the_preloaded_allocator(tmp_path, bare):
    compiled = tmp_path / "libownmalloc.so"
    subprocess.run(["cc", "-shared", "-x", "c", "-o", str(compiled), os.devnull], check=True)
    code = "from optbench.runs import provenance; print(provenance.allocator())"
    found = {"LD_PRELOAD": compiled.name if bare else str(compiled)}
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | found | {"LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ended.stdout.strip() == compiled.name


@pytest.mark.parametrize("preloaded", ["", "/usr/lib/libfaketime.so.1", "/no/libmimalloc.so.2"])
def test_what_does_not_allocate_is_not_named(monkeypatch, preloaded):
    monkeypatch.setenv("LD_PRELOAD", preloaded)
    assert provenance.allocator() == "system"
