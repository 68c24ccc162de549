"""A process's start, without the garbage collector.

Importing torch and its compiler makes half a million objects that stay to the end. While they are
made, the collector goes through them again and again, and once more as the process ends: together
more than a quarter of the time of a run of one step.
"""

import gc

_begun = _ended = False


def begin() -> None:
    """Collect no garbage until `end`. Does nothing where that has begun before, or the collector is
    off already."""
    global _begun
    if not _begun and gc.isenabled():
        _begun = True
        gc.disable()


def end() -> None:
    """What is there now is never looked at again; the collector is on for what comes.

    Does nothing where `begin` did not, and after the first time: to be called before there is
    anything large that is to go away again.
    """
    global _ended
    if _begun and not _ended:
        _ended = True
        gc.freeze()
        gc.enable()
