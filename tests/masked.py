"""Run tests as on a smaller machine: with fewer of the CPU's instructions, or without a compiler.

python tests/masked.py MASK [arguments of pytest]
"""

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMPILERS = ("g++", "clang++", "c++")
# of each: oneDNN's word, then torch's and MKL's, what the compiler is not to use, threads
MASKS = {
    "avx2": ("AVX2", "avx2", "AVX2", "-mno-avx512f", 1),
    "avx512": ("AVX512_CORE", "avx512", "AVX512", "", 2),
    "no-compiler": (None, None, None, None, 4),
}
NEEDED = {"avx2": {"avx2", "fma"}, "avx512": {"avx512f", "avx512bw", "avx512vl", "avx512dq"}}


def lacks(mask: str) -> set[str]:
    """The instructions that the mask needs and this CPU does not have."""
    cpu = Path("/proc/cpuinfo")
    found = set(cpu.read_text("utf-8", "replace").split()) if cpu.exists() else set()
    return NEEDED.get(mask, set()) - found


def environment(mask: str, folder: Path) -> dict[str, str]:
    """What a process must find, to see no more than the mask. folder: an empty one, to write in."""
    onednn, torchs, mkl, without, threads = MASKS[mask]
    # passive: threads that wait leave the cores to others
    found = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
    if onednn is not None:
        compiler = shlex.split(os.environ.get("CXX", "g++"))
        found |= {"ATEN_CPU_CAPABILITY": torchs, "ONEDNN_MAX_CPU_ISA": onednn}
        found |= {"MKL_ENABLE_INSTRUCTIONS": mkl, "CXX": shlex.join([*compiler, *without.split()])}
        return found
    found.pop("CXX", None)
    places = [Path(part) for part in os.environ["PATH"].split(os.pathsep)]
    for place in places:  # every program but the compilers
        for program in place.iterdir() if place.is_dir() else ():
            link = folder / program.name
            if not (program.name in COMPILERS or link.exists() or link.is_symlink()):
                link.symlink_to(program)
    # a virtual environment is known by where its python lies
    return found | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), str(folder)])}


def run(mask: str, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Call pytest under a mask."""
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run(  # type: ignore[call-overload, no-any-return]  # options are of run
            [sys.executable, "-m", "pytest", *arguments],
            cwd=ROOT, env=environment(mask, Path(folder)), **options,
        )  # fmt: skip


if __name__ == "__main__":
    if missing := lacks(sys.argv[1]):
        print(f"{sys.argv[1]}: left out, this CPU lacks {', '.join(sorted(missing))}")
    else:
        print(f"{sys.argv[1]}:", flush=True)
        sys.exit(run(*sys.argv[1:]).returncode)
