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

from optbench.common.console import endings, fail, guard_streams

HELP = {"-h", "--help", "--version"}
FLAGS = ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp")  # take a value
COMMANDS = ("claims", "plot", "report", "score", "trajectories", "verdict")


def main() -> None:
    """Run optbench; exit with 0, with 1 for an error, or with 128 + signal."""
    atexit.register(gc.freeze)  # otherwise Python searches all of torch for garbage at exit
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, leave)
    name = "".join(sys.argv[1:2])
    try:
        if name in COMMANDS:
            with guard_streams(), endings():
                sys.exit(import_module(f"optbench.commands.{name}").main(sys.argv[2:]))
            return  # nobody reads what it prints: `| head`
        if asked := HELP & {*sys.argv}:
            from optbench.commands import help as explaining

            with guard_streams(), endings():
                sys.exit(explaining.main(without_flags(), version="--version" in asked))
            return
        if late := [word for word in without_flags()[1:] if word in COMMANDS]:
            fail(
                f"{late[0]} is a sub-command, which comes first and takes no overrides: "
                f"python -m optbench {late[0]} --help"
            )
        if name.isidentifier():
            from optbench.common.names import did_you_mean
            from optbench.config.comments import GROUPS, choices

            near = did_you_mean(name, COMMANDS)
            if found := [group for group in GROUPS if name in choices(group)]:
                near = f". Did you mean {found[0]}={name}?"
            elif name in GROUPS:
                near = f". {name}=NAME chooses; there are no blanks around ="
            fail(
                f"there is no sub-command {name!r}{near}\nSub-commands: "
                f"{', '.join(COMMANDS)}. To train, write GROUP=NAME or KEY=VALUE; see --help"
            )
        import_module("optbench.program").run()
    finally:
        signal.signal(signal.SIGINT, before)


def without_flags() -> list[str]:
    """Return the command line's words that are neither flags nor values of flags."""
    pairs = zip(sys.argv, sys.argv[1:], strict=False)
    return [word for before, word in pairs if word[:1] != "-" and before not in FLAGS]


def leave(*_: object) -> None:
    """Exit at once, which is safe before a run has begun."""
    os.write(2, b"optbench: interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    main()
