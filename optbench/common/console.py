"""Print lines that survive closed pipes and encodings that lack a character."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


def say(*lines: object, error: bool = False) -> None:
    """Print lines, without failing if nobody reads the stream any more (`| head`).

    Characters that the stream's encoding lacks are printed as escapes.
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
def guard_streams() -> Iterator[None]:
    """Let a command run on without stdin, stdout or stderr, or if a pipe closes.

    If a stream were closed from the start (`>&-`), the next opened file would get its output.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: the closed one
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("r+", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name may not fit the locale's encoding
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except BrokenPipeError:
        pass  # the reader, such as `head`, needs no more
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                _silence(stream)


def _silence(stream: TextIO) -> None:
    # otherwise the interpreter flushes at exit, and complains
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
