"""A faster memory allocator for the commands, where the machine has one.

For each product oneDNN makes some 180 small allocations, a third of them aligned, at which glibc's
allocator is slow; and between two steps of a CNN it gives large blocks back to the kernel. Which
allocator a process has is settled as it starts, so a command starts itself again.
"""

import os
import sys
from collections.abc import Iterable
from pathlib import Path, PurePath

CHOICE = "OPTBENCH_ALLOCATOR"  # a library's path, or "none"
# The fastest first. jemalloc is left out: with its defaults it gives so much memory back to the
# kernel that the CNN took twice as long.
NAMES = ("mimalloc", "tcmalloc_minimal", "tcmalloc")
SYSTEM = ("/usr/local/lib", "/usr/lib/{machine}-linux-gnu", "/usr/lib64", "/usr/lib")


def preload() -> None:
    """Start this command again with the chosen or installed allocator; return if there is none.

    Where LD_PRELOAD is set, to whatever value, the allocator was chosen already. A process that
    another program began, such as a worker, is not ours to begin again. Nor is one whose address
    space is limited: there mimalloc crashes where the C library's allocator says that it is full.
    """
    words = [PurePath(word).name.partition(".")[0] for word in sys.orig_argv[1:]]
    if "LD_PRELOAD" in os.environ or "optbench" not in words or not sys.executable:
        return
    if is_limited():
        return
    try:
        library = chosen()
    except ValueError as error:
        sys.exit(f"optbench: {error}")
    if library is not None:
        environment = os.environ | {"LD_PRELOAD": str(library)}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def chosen() -> Path | None:
    """The library that OPTBENCH_ALLOCATOR names, or the fastest installed; None: the system's.

    Always None where there is no Linux. Raises ValueError where the name is of no such library.
    """
    choice = os.environ.get(CHOICE, "")
    if choice == "none" or sys.platform != "linux":
        return None
    if not choice:
        return installed(folders())
    if fits(Path(choice)):
        return Path(choice).absolute()
    allowed = "the path of a library for this machine, without blanks and colons, or none"
    raise ValueError(f"{CHOICE} must be {allowed}, not {choice!r}")


def is_limited() -> bool:
    """Whether there is a limit on the address space, such as `ulimit -v` sets."""
    try:
        import resource
    except ImportError:  # there is none on Windows
        return False
    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


def folders() -> list[Path]:
    """Where libraries lie: this Python's, then the system's."""
    system = [Path(name.format(machine=os.uname().machine)) for name in SYSTEM]
    return [Path(sys.prefix) / "lib", *system]


def installed(places: Iterable[Path]) -> Path | None:
    """The fastest of the known allocators in these folders, or None."""
    places = list(places)
    found = (p for name in NAMES for place in places for p in sorted(place.glob(f"lib{name}.so*")))
    return next(filter(fits, found), None)


def fits(library: Path) -> bool:
    """Whether it is a library for the machine that this Python was built for.

    The dynamic linker only complains, of each process, and takes blanks and colons for separators.
    """
    if any(c in " :" for c in str(library.absolute())):
        return False
    try:
        return _kind(library) == _kind(Path(sys.executable))
    except OSError:
        return False


def _kind(program: Path) -> bytes:
    with program.open("rb") as file:
        head = file.read(20)
    return head[:6] + head[18:20]  # ELF: the class and byte order, and the machine


def in_use() -> str:
    """The library that was preloaded to allocate memory; "system" for the C library's allocator."""
    words = os.environ.get("LD_PRELOAD", "").replace(":", " ").split()
    maps = Path("/proc/self/maps")
    loaded = maps.read_text("utf-8", "replace") if words and maps.exists() else ""
    found = (p.name for p in map(Path, words) if "malloc" in p.name and p.resolve().name in loaded)
    return next(found, "system")
