"""The C++ files of this package as libraries, compiled once for each machine."""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from time import perf_counter

from optbench.common.console import say, warn

try:
    import fcntl
except ImportError:  # Windows: two processes may both compile
    fcntl = None  # type: ignore[assignment]

# Strict float32 arithmetic, without errno and traps, which nobody reads. Not -O3: there GCC 12
# makes a second version of the inner loop (-fversion-loops-for-strides), and both move their sums
# between registers and memory at each turn, which takes twice as long.
COMPILER_FLAGS = [
    *("-O2", "-std=c++17", "-march=native", "-shared", "-fPIC"),
    *("-fno-math-errno", "-fno-trapping-math"),
]
COMPILE_TIMEOUT_SECONDS = 300
COMPILERS = ("g++", "clang++", "c++")


@cache
def library(source: Path) -> ctypes.CDLL | None:
    """Return the library of a C++ file; None where there is no compiler, or it fails.

    The library is kept in the user's cache folder, under a digest of its source, the headers beside
    the source, compiler and CPU. The environment variable CXX chooses the compiler.
    """
    compiler = shlex.split(os.environ.get("CXX", ""))
    compiler = compiler or list(filter(None, map(shutil.which, COMPILERS)))[:1]
    if not compiler:
        return None
    try:
        version = _run(*compiler, "--version")
        files = (source, *sorted(source.parent.glob("*.hpp")))  # the source may include any header
        texts = (file.read_text("utf-8") for file in files)
        parts = (*texts, *compiler, *COMPILER_FLAGS, version, _cpu())
        digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
        path = _folder() / f"{source.stem}-{digest}.so"
        if not _is_whole(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with _alone(path.with_suffix(".lock")):
                if not _is_whole(path):  # another process may have compiled it meanwhile
                    _compile(compiler, source, path)
        return ctypes.CDLL(str(path))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "stderr", "") or error).strip().splitlines()
        words = f"{source.name} could not be compiled ({' '.join(said[:1])[:200]})"
        warn(f"{words}: steps are slower without it")
        return None


def _is_whole(path: Path) -> bool:
    """Return whether a library is whole: loading a truncated one ends the process."""
    try:
        return _sum(path) == path.with_suffix(".sha256").read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return False


def _sum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _compile(compiler: list[str], source: Path, path: Path) -> None:
    begun = perf_counter()
    with tempfile.TemporaryDirectory(dir=path.parent) as own:
        made = Path(own) / path.name
        try:
            _run(*compiler, *COMPILER_FLAGS, "-fopenmp", str(source), "-o", str(made))
        except subprocess.CalledProcessError:  # Apple's clang has no OpenMP: one thread then
            _run(*compiler, *COMPILER_FLAGS, str(source), "-o", str(made))
        path.with_suffix(".sha256").write_text(_sum(made), "utf-8")
        made.replace(path)
    say(f"compiled {source.name} in {perf_counter() - begun:.1f} s, once for this machine")


def _run(*command: str) -> str:
    """Run a command that no Ctrl-C reaches, so that the run keeps its engine."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=COMPILE_TIMEOUT_SECONDS,
        start_new_session=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.stdout


def _folder() -> Path:
    cache_home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache_home).expanduser() / "optbench" / "compiled"


def _cpu() -> str:
    """Return the CPU's features, as several machines may share a home folder."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        names = ("vendor_id", "cpu family", "model", "stepping", "flags", "Features", "CPU ")
        first = lines[: lines.index("") if "" in lines else None]
        return "\n".join(line for line in first if line.startswith(names))
    return f"{platform.machine()} {platform.processor()}"


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one process in at a time, since a sweep's workers start together."""
    with path.open("w") as file:
        if fcntl is not None:
            fcntl.lockf(file, fcntl.LOCK_EX)
        yield
