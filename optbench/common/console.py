"""What a command prints: lines that survive closed pipes and encodings without the characters."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


def say(*lines: object, error: bool = False) -> None:
    """Print, unless nobody listens any more (`| head`): a run does not end for that.

    Nor does it end for a name that the stream's encoding cannot write: its escapes are printed.
    """
    stream = sys.stderr if error else sys.stdout
    try:
        print(*lines, sep="\n", file=stream, flush=True)
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        text = "\n".join(map(str, lines)).encode(encoding, "backslashreplace")
        print(text.decode(encoding), file=stream, flush=True)
    except OSError:
        _silence(stream)


@contextmanager
def streams() -> Iterator[None]:
    """For a whole command: without stdout or stderr, or with a pipe that closes, it goes on.

    A command started with one closed (`>&-`) would write into the next file it opens.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("r+", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name may not fit the locale's encoding
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except BrokenPipeError:
        pass  # `| head` has seen enough
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                _silence(stream)


def _silence(stream: TextIO) -> None:
    # the interpreter would flush again at its end, and complain
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
