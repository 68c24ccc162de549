"""The program: `optbench [-m] [GROUP=NAME] [KEY=VALUE]` trains; `optbench COMMAND` reads runs.

The rest is imported within `main`, so that Ctrl-C while that takes its time shows no traceback.
"""

import atexit
import gc
import os
import signal
import sys
from importlib import import_module

from optbench.common.console import guard_streams, say

COMMANDS = ("claims", "plot", "report", "score", "trajectories", "verdict")


def main() -> None:
    """Run optbench; exit status 0, 1 for an error, 128 + signal when interrupted."""
    atexit.register(gc.freeze)  # else Python looks for garbage in all of torch before it ends
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    name = "".join(sys.argv[1:2])
    try:
        if name in COMMANDS:
            with guard_streams():
                sys.exit(import_module(f"optbench.commands.{name}").main(sys.argv[2:]))
        if name.isidentifier():
            from optbench.common.errors import did_you_mean

            near = did_you_mean(name, COMMANDS)
            say(
                f"optbench: there is no sub-command {name!r}{near}\nSub-commands: "
                f"{', '.join(COMMANDS)}. To train, write GROUP=NAME or KEY=VALUE; see --help",
                error=True,
            )
            sys.exit(1)
        import_module("optbench.program").run()
    finally:
        signal.signal(signal.SIGINT, before)


if __name__ == "__main__":
    main()
