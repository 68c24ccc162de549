"""Print a command's output, and end the command with a message and an exit status.

Printing survives a closed pipe, and an encoding that lacks a character.
"""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, TextIO

from optbench.common.errors import reason


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


_warned: set[str] | None = None  # warnings that the running command has printed


def warn(text: str) -> None:
    """Print a warning on standard error; in one command only once."""
    if _warned is not None:
        if text in _warned:
            return
        _warned.add(text)
    say(f"warning: {text}", error=True)


@contextmanager
def guard_streams() -> Iterator[None]:
    """Keep a command running if stdin, stdout or stderr is closed, or a pipe closes.

    A stream that is closed from the start (`>&-`) is opened on the null device. Otherwise the next
    file to be opened would get the stream's number, and its output.
    """
    global _warned
    before, _warned = _warned, set() if _warned is None else _warned
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
        _warned = before
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                _silence(stream)


@contextmanager
def endings() -> Iterator[None]:
    """Print why a command ended on standard error, and set its exit status.

    The status is 1 for an error, and 130 for Ctrl-C. A pipe that closes is left to `guard_streams`.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        say("optbench: interrupted", error=True)
        sys.exit(130)
    except OSError as error:
        where = error.filename2 or error.filename
        fail(f"cannot read or write {where}: {error.strerror}" if where else str(error))
    except Exception as error:
        fail(reason(error))  # `reason` prints the traceback, unless the user erred


def fail(message: str) -> NoReturn:
    """Print an error for the user and exit with status 1."""
    say(f"optbench: {message}", error=True)
    sys.exit(1)


def _silence(stream: TextIO) -> None:
    # otherwise the interpreter flushes the stream at exit, and prints an error
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
