"""A process's start, without the garbage collector.

Importing torch and its compiler makes half a million objects that stay to the end. While they are
made, the collector goes through them again and again, and once more as the process ends: together
more than a quarter of the time of a run of one step.
"""

import gc

_begun = False


def begin() -> None:
    """Collect no garbage until `end`; only the first call does something."""
    global _begun
    if not _begun:
        _begun = True
        gc.disable()


def end() -> None:
    """What has been imported is never looked at again; the collector is on for what comes.

    Does nothing where `begin` has not been called.
    """
    if _begun and not gc.isenabled():
        gc.freeze()
        gc.enable()
