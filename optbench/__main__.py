"""The program: `optbench [-m] [GROUP=NAME] [KEY=VALUE]`, or `optbench COMMAND`.

Without a sub-command optbench trains. The slow imports are inside `main`, so that Ctrl-C during
them shows no traceback.
"""

import atexit
import gc
import os
import signal
import sys
from importlib import import_module

from optbench.common.console import endings, guard_streams

COMMANDS = (
    "check", "claims", "find_lr", "groups", "import", "merge", "plot", "report", "score", "status",
    "trajectories", "verdict", "work",
)  # fmt: skip


def main() -> None:
    """Run optbench; exit with 0, with 1 for an error, or with 128 + signal."""
    atexit.register(gc.freeze)  # otherwise Python searches all of torch for garbage at exit
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, leave)
    name = "".join(sys.argv[1:2])
    try:
        if name == "work":  # trains, with the overrides that its folder records
            with guard_streams(), endings():
                work = import_module("optbench.commands.work")
                sys.argv[1:] = work.words_of(sys.argv[2:])
        elif name in COMMANDS:
            with guard_streams(), endings():
                sys.exit(import_module(f"optbench.commands.{name}").main(sys.argv[2:]))
            return  # the reader of the output, such as `| head`, has closed the pipe
        from optbench.config import command_line
        from optbench.formats import groups

        with guard_streams(), endings():
            flags, words = command_line.split(sys.argv[1:])
            groups.own_folders[:] = groups.config_folders([*command_line.as_words(flags), *words])
            if {"--help", "--version"} & {*flags}:
                sys.exit(import_module("optbench.commands.help").main(words, flags))
            command_line.check_words(words, COMMANDS)
        import_module("optbench.program").run()
    finally:
        signal.signal(signal.SIGINT, before)


def leave(*_: object) -> None:
    """Exit immediately, which is safe before a run has begun."""
    os.write(2, b"optbench: interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    main()
