"""What a command prints, and how it ends.

Lines survive closed pipes and encodings without the characters; errors become words and a status.
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


@contextmanager
def endings() -> Iterator[None]:
    """Turn whatever ends a command into words on standard error and an exit status.

    The status is 1 for an error, and 130 for Ctrl-C. A pipe that closes is left to `streams`.
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
        fail(reason(error))  # it prints the traceback of what is nobody's mistake


def fail(message: str) -> NoReturn:
    """Print an error for the user and exit with status 1."""
    say(f"optbench: {message}", error=True)
    sys.exit(1)


def _silence(stream: TextIO) -> None:
    # the interpreter would flush again at its end, and complain
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
